//! One exchange as the connection sees it: counted while it lasts, and a panic in it stays in it.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONNECTION;
use http_body::{Frame, SizeHint};

use super::activity::OpenExchange;
use super::{Event, Handler};
use crate::types::{BodyError, ConnFacts, Protocol};

pin_project_lite::pin_project! {
    /// The handling of one request.
    pub(super) struct Isolated<H, F> {
        #[pin]
        handling: Option<F>,
        open: Option<OpenExchange>,
        handler: Arc<H>,
        conn: Arc<ConnFacts>,
    }
}

impl<H, F> Isolated<H, F> {
    pub(super) fn new(
        handling: F,
        open: OpenExchange,
        handler: Arc<H>,
        conn: Arc<ConnFacts>,
    ) -> Self {
        Self {
            handling: Some(handling),
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
        let polled = catch(|| match me.handling.as_mut().as_pin_mut() {
            Some(handling) => handling.poll(cx),
            None => Poll::Pending,
        });
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
            && open.as_ref().is_some_and(|open| open.activity().closing())
            && !response.status().is_informational()
        {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| Counted {
            body,
            open,
            handler: Arc::clone(me.handler),
            listener: me.conn.listener,
        })))
    }
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
