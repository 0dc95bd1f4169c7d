//! Translation of the frames of a body on their way.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::{Body, BodyError};

/// Translates the frames of a body; see `transform::grpc_web`.
pub trait Filter: Send + Sync {
    /// Takes one piece and appends what follows from it to `out`. Called with [`Piece::End`] exactly once, last, and
    /// only after a clean end. Trailers are followed by `End`.
    ///
    /// # Errors
    /// [`BodyError::Malformed`] when the piece breaks the dialect; the body then ends.
    fn push(&mut self, piece: Piece, out: &mut VecDeque<Frame<Bytes>>) -> Result<(), BodyError>;

    /// Whether every byte of data comes out as it went in, so that the length of the body is still what it was.
    fn keeps_data(&self) -> bool {
        false
    }
}

/// What a [`Filter`] is fed with.
#[derive(Debug)]
pub enum Piece {
    /// Body bytes, in order, cut anywhere.
    Data(Bytes),
    /// The trailer section.
    Trailers(HeaderMap),
    /// The clean end of the body.
    End,
}

pub(super) struct Filtering {
    pub(super) filter: Box<dyn Filter>,
    pub(super) ready: VecDeque<Frame<Bytes>>,
    pub(super) ended: bool,
}

impl Body {
    /// Passes every frame through `filter`; the length is unknown from then on.
    #[must_use]
    pub fn filtered(mut self, filter: Box<dyn Filter>) -> Self {
        self.filter = Some(Box::new(Filtering {
            filter,
            ready: VecDeque::new(),
            ended: false,
        }));
        self
    }

    pub(super) fn poll_filtered(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(filtering) = &mut self.filter {
                if let Some(frame) = filtering.ready.pop_front() {
                    return Poll::Ready(Some(Ok(frame)));
                }
                if filtering.ended {
                    return Poll::Ready(None);
                }
            }
            let piece = match ready!(self.poll_source(cx)) {
                None => Piece::End,
                Some(Err(error)) => {
                    if let Some(filtering) = &mut self.filter {
                        filtering.ended = true;
                    }
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => Piece::Data(bytes),
                    Err(frame) => match frame.into_trailers() {
                        Ok(trailers) => Piece::Trailers(trailers),
                        Err(_) => continue,
                    },
                },
            };
            let Some(filtering) = &mut self.filter else {
                return Poll::Ready(None);
            };
            filtering.ended |= matches!(piece, Piece::End);
            if let Err(error) = filtering.filter.push(piece, &mut filtering.ready) {
                filtering.ended = true;
                filtering.ready.clear();
                return Poll::Ready(self.fail(error));
            }
        }
    }
}
