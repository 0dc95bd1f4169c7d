//! One exchange as the connection sees it: counted while it lasts, and a panic in it stays in it.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};

use super::activity::{OpenExchange, Step, Switch};
use super::h1::Refusal;
use super::{Event, Handler};
use crate::types::{BodyError, ConnFacts, Protocol};

pin_project_lite::pin_project! {
    /// The handling of one request.
    pub(super) struct Isolated<H, F> {
        #[pin]
        handling: Option<F>,
        refusal: Option<Refusal>,
        // Whether the client asks for another protocol.
        switching: bool,
        open: Option<OpenExchange>,
        handler: Arc<H>,
        conn: Arc<ConnFacts>,
    }
}

impl<H, F> Isolated<H, F> {
    pub(super) fn new(
        handling: F,
        switching: bool,
        open: OpenExchange,
        handler: Arc<H>,
        conn: Arc<ConnFacts>,
    ) -> Self {
        Self {
            handling: Some(handling),
            refusal: None,
            switching,
            open: Some(open),
            handler,
            conn,
        }
    }

    /// In place of a request whose head was refused.
    pub(super) fn refused(
        why: Refusal,
        open: OpenExchange,
        handler: Arc<H>,
        conn: Arc<ConnFacts>,
    ) -> Self {
        Self {
            handling: None,
            refusal: Some(why),
            switching: false,
            open: Some(open),
            handler,
            conn,
        }
    }
}

impl<H, F> Future for Isolated<H, F>
where
    H: Handler,
    F: Future<Output = http::Response<H::Body>>,
{
    type Output = Result<http::Response<Counted<H>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut me = self.project();
        let refused = me.refusal.is_some();
        let polled = catch(
            || match (me.refusal.take(), me.handling.as_mut().as_pin_mut()) {
                (Some(why), _) => Poll::Ready(me.handler.refuse(me.conn, why.into_rejection())),
                (None, Some(handling)) => handling.poll(cx),
                (None, None) => Poll::Pending,
            },
        );
        let mut response = match polled {
            Ok(Poll::Pending) => {
                if let Some(open) = me.open {
                    open.activity().set_step(Step::Waited);
                }
                return Poll::Pending;
            }
            Ok(Poll::Ready(response)) => response,
            Err(_) => {
                // What panicked once may do so again on its way out.
                let _ = catch(|| me.handling.set(None));
                me.handler.note(me.conn.listener, Event::Panicked);
                me.handler.panicked(me.conn)
            }
        };
        let open = me.open.take();
        if me.conn.protocol == Protocol::Http1
            && !response.status().is_informational()
            && let Some(open) = &open
        {
            let early = *me.switching && decline(open, cx);
            if refused || early || open.activity().closing() {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
        } else if *me.switching
            && response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(open) = &open
        {
            open.activity().set_switch(Switch::Done);
        }
        Poll::Ready(Ok(response.map(|body| Counted {
            body,
            open,
            handler: Arc::clone(me.handler),
            listener: me.conn.listener,
            is_http2: me.conn.protocol == Protocol::Http2,
            rest: Bytes::new(),
            sent: 0,
        })))
    }
}

/// Tells that the protocol stays as it is. Whether bytes of the other one have come already: they are neither passed on
/// nor read as a request.
fn decline(open: &OpenExchange, cx: &Context<'_>) -> bool {
    open.activity().set_switch(Switch::Declined);
    // hyper may have been told that there is nothing to read.
    cx.waker().wake_by_ref();
    open.activity().early()
}

/// A response body; the exchange is over when it is dropped.
pub(super) struct Counted<H: Handler> {
    body: H::Body,
    open: Option<OpenExchange>,
    handler: Arc<H>,
    listener: usize,
    is_http2: bool,
    /// What is left of a piece that is sent in parts.
    rest: Bytes,
    sent: u64,
}

impl<H: Handler> Counted<H> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Ok(polled) = catch(|| http_body::Body::poll_frame(Pin::new(&mut self.body), cx)) else {
            self.handler.note(self.listener, Event::Panicked);
            return Poll::Ready(Some(Err(BodyError::Malformed(
                "the handling of the body panicked",
            ))));
        };
        polled
    }

    /// The next part of `piece`; what is left of it follows.
    ///
    /// A stream counts as done once h2 has its last part, whether the client takes that or not, and nobody can reset it
    /// from then on. So the parts are short, and where the client's windows may be too narrow for one its last byte comes
    /// alone: h2 asks for that only when all the others are gone.
    fn part(&mut self, mut piece: Bytes) -> Bytes {
        let Some(open) = self.open.as_ref().filter(|_| self.is_http2) else {
            return piece;
        };
        let mut len = piece.len().min(LONGEST_PART);
        if len > 1 && !open.activity().covers(self.sent, len) {
            len -= 1;
        }
        open.activity().spend(len);
        self.sent += len as u64;
        let part = piece.split_to(len);
        self.rest = piece;
        part
    }

    fn note(&self, polled: &Poll<Option<Result<Frame<Bytes>, BodyError>>>) {
        let Some(open) = &self.open else {
            return;
        };
        match polled {
            Poll::Pending => open.activity().set_step(Step::Waited),
            Poll::Ready(Some(Ok(frame))) => {
                open.activity().set_step(Step::Sent);
                open.activity()
                    .answered(frame.data_ref().map_or(0, Bytes::len));
            }
            Poll::Ready(_) => {}
        }
    }
}

impl<H: Handler> http_body::Body for Counted<H> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let me = self.get_mut();
        let rest = std::mem::take(&mut me.rest);
        let mut polled = if rest.is_empty() {
            me.poll_body(cx)
        } else {
            Poll::Ready(Some(Ok(Frame::data(rest))))
        };
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(data) = frame.data_mut()
        {
            *data = me.part(std::mem::take(data));
        }
        me.note(&polled);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked before the first piece, or by nobody who needs an answer.
        if self.rest.is_empty() {
            self.body.size_hint()
        } else {
            SizeHint::default()
        }
    }
}

/// Bytes that are handed to h2 at once: one frame of the default size.
const LONGEST_PART: usize = 16 << 10;

fn catch<T>(act: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    // Nothing that was half done is used again: the future is dropped, the body is not polled further.
    catch_unwind(AssertUnwindSafe(act))
}
