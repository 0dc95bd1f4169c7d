//! Bodies that are read here: to their end, or ahead of their turn.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::ahead::{Ahead, ReadAhead};
use super::{Body, BodyError, Source};

/// What [`Body::peek`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// All of it.
    Whole(Bytes),
    /// More than was to be read.
    TooLarge,
    /// Less than the whole when the time was over.
    Late,
    /// The connection failed, or what it delivers is no body.
    Broken,
}

impl Body {
    /// Reads to the end and keeps nothing, within `patience`. Whether the end was reached.
    pub async fn discard(mut self, patience: Duration) -> bool {
        let reading = async {
            loop {
                let frame = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut self), cx));
                match frame.await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return false,
                    None => return true,
                }
            }
        };
        tokio::time::timeout(patience, reading)
            .await
            .unwrap_or(false)
    }

    /// Reads it to its end, all of it, for who needs it whole.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] for more than `most` bytes, and whatever ends the body early.
    pub async fn whole(mut self, most: usize) -> Result<Bytes, BodyError> {
        let mut whole = BytesMut::new();
        while let Some(frame) =
            std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut self), cx)).await
        {
            let Ok(bytes) = frame?.into_data() else {
                continue;
            };
            if whole.len().saturating_add(bytes.len()) > most {
                return Err(BodyError::TooLarge);
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }

    /// Reads ahead until the body is whole, `most` bytes are there, or `patience` is over. Whatever was read is yielded
    /// all the same, as it would have been: nobody behind can tell. A body that announces more than `most` is not
    /// touched.
    pub async fn peek(&mut self, most: usize, patience: Duration) -> Peek {
        let incoming = match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Incoming(incoming) => incoming,
            other => {
                let whole = match &other {
                    Source::Empty | Source::Ended => Peek::Whole(Bytes::new()),
                    Source::Full(bytes) if bytes.len() <= most => Peek::Whole(bytes.clone()),
                    Source::Full(_) | Source::Incoming(_) | Source::Peeked(_) => Peek::TooLarge,
                };
                self.source = other;
                return whole;
            }
        };
        let announced = http_body::Body::size_hint(&incoming).lower();
        if announced > most as u64 {
            self.source = Source::Incoming(incoming);
            return Peek::TooLarge;
        }
        let mut ahead = Box::new(Ahead::of(incoming));
        let end = tokio::time::timeout(patience, ahead.fill(most)).await;
        let peek = match end {
            Ok(ReadAhead::Whole) => Peek::Whole(ahead.data.clone()),
            Ok(ReadAhead::More) => Peek::TooLarge,
            Ok(ReadAhead::Broken) => Peek::Broken,
            Err(_) => Peek::Late,
        };
        self.source = Source::Peeked(ahead);
        peek
    }
}
