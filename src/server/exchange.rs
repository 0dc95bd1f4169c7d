//! One exchange as the connection sees it: counted while it lasts, and a panic in it stays in it.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};

use super::activity::{OpenExchange, Switch};
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
            Ok(polled) => ready!(polled),
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
}

impl<H: Handler> http_body::Body for Counted<H> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let me = self.get_mut();
        let Ok(polled) = catch(|| Pin::new(&mut me.body).poll_frame(cx)) else {
            me.handler.note(me.listener, Event::Panicked);
            return Poll::Ready(Some(Err(BodyError::Malformed(
                "the handling of the body panicked",
            ))));
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(open) = &me.open
        {
            open.activity()
                .answered(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn catch<T>(act: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    // Nothing that was half done is used again: the future is dropped, the body is not polled further.
    catch_unwind(AssertUnwindSafe(act))
}
