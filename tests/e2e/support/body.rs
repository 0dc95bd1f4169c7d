//! A body whose frames the test sends when it wants.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::mpsc;

pub type Payload = BoxBody<Bytes, String>;

pub fn empty() -> Payload {
    Empty::new().map_err(never).boxed()
}

pub fn full(bytes: impl Into<Bytes>) -> Payload {
    Full::new(bytes.into()).map_err(never).boxed()
}

fn never(error: Infallible) -> String {
    match error {}
}

/// Chunks and trailers, all there from the start, without an announced length.
pub fn chunks(chunks: impl IntoIterator<Item = Bytes>, trailers: Option<HeaderMap>) -> Payload {
    let (sender, body) = channel();
    for chunk in chunks {
        sender.chunk(chunk);
    }
    if let Some(trailers) = trailers {
        sender.trailers(trailers);
    }
    body
}

/// The same piece again and again; counts the bytes that were taken.
pub fn endless(piece: Bytes, taken: Arc<AtomicUsize>) -> Payload {
    Endless { piece, taken }.boxed()
}

/// A body that goes on until the sender is dropped.
pub fn channel() -> (FrameSender, Payload) {
    let (sender, frames) = mpsc::unbounded_channel();
    (FrameSender(sender), Channel { frames }.boxed())
}

/// Feeds a body.
#[derive(Clone, Debug)]
pub struct FrameSender(mpsc::UnboundedSender<Result<Frame<Bytes>, String>>);

impl FrameSender {
    /// Whether somebody still reads.
    pub fn chunk(&self, chunk: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(chunk.into()))).is_ok()
    }

    pub fn trailers(&self, trailers: HeaderMap) -> bool {
        self.0.send(Ok(Frame::trailers(trailers))).is_ok()
    }

    /// Ends the body in the middle.
    pub fn break_off(&self) -> bool {
        self.0
            .send(Err("broken off by the test".to_owned()))
            .is_ok()
    }

    /// Resolves when nobody reads any more.
    pub async fn abandoned(&self) {
        self.0.closed().await;
    }
}

struct Channel {
    frames: mpsc::UnboundedReceiver<Result<Frame<Bytes>, String>>,
}

impl Body for Channel {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        self.frames.poll_recv(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

struct Endless {
    piece: Bytes,
    taken: Arc<AtomicUsize>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        self.taken.fetch_add(self.piece.len(), Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
