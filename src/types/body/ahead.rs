//! An incoming body of which some was read before its turn. What was read is yielded first; then the rest streams on.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

/// The part that was read, and the rest.
pub(super) struct Ahead {
    /// One piece, however many it came in: a body of single bytes must not cost a hundred times its size.
    pub(super) data: Bytes,
    trailers: Option<HeaderMap>,
    failure: Option<hyper::Error>,
    /// Absent once it has ended.
    rest: Option<Incoming>,
    /// What is still to be yielded, where the head announced a length. A length that was not announced is not made up:
    /// the message would be framed anew.
    announced: Option<u64>,
}

/// How far reading ahead came.
pub(super) enum ReadAhead {
    Whole,
    More,
    Broken,
}

impl Ahead {
    pub(super) fn of(incoming: Incoming) -> Self {
        Self {
            data: Bytes::new(),
            trailers: None,
            failure: None,
            announced: incoming.size_hint().exact(),
            rest: Some(incoming),
        }
    }

    /// Reads until the body is whole or `most` is exceeded. May be dropped at any time: nothing is lost.
    pub(super) async fn fill(&mut self, most: usize) -> ReadAhead {
        loop {
            if self.data.len() > most {
                return ReadAhead::More;
            }
            let Some(rest) = &mut self.rest else {
                return ReadAhead::Whole;
            };
            if rest.is_end_stream() {
                return ReadAhead::Whole;
            }
            match poll_fn(|cx| Pin::new(&mut *rest).poll_frame(cx)).await {
                None => self.rest = None,
                Some(Ok(frame)) => self.keep(frame),
                Some(Err(failure)) => {
                    self.failure = Some(failure);
                    self.rest = None;
                    return ReadAhead::Broken;
                }
            }
        }
    }

    fn keep(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) if self.data.is_empty() => self.data = data,
            Ok(data) => {
                let mut joined = std::mem::take(&mut self.data)
                    .try_into_mut()
                    .unwrap_or_else(|shared| BytesMut::from(&*shared));
                joined.extend_from_slice(&data);
                self.data = joined.freeze();
            }
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.data.is_empty() {
            let data = std::mem::take(&mut self.data);
            self.yielded(data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(rest).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.yielded(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn yielded(&mut self, bytes: usize) {
        self.announced = self.announced.map(|left| left.saturating_sub(bytes as u64));
    }

    pub(super) fn has_arrived(&self) -> bool {
        self.failure.is_none() && self.rest.as_ref().is_none_or(Incoming::is_end_stream)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none() && self.has_arrived()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.announced
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
