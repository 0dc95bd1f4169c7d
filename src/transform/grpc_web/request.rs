//! The body of a gRPC-Web request, on its way to a gRPC server.

use std::collections::VecDeque;

use bytes::Bytes;
use http_body::Frame;

use super::frames::Frames;
use super::text::Decoder;
use crate::types::BodyError;
use crate::types::body::{Filter, Piece};

/// Decodes text mode and makes sure that what passes are whole gRPC frames. A client's HTTP trailers are dropped: gRPC
/// requests have none.
#[derive(Debug)]
pub(super) struct RequestFilter {
    text: Option<Decoder>,
    frames: Frames,
}

impl RequestFilter {
    pub(super) fn new(is_text: bool) -> Self {
        Self {
            text: is_text.then(Decoder::default),
            frames: Frames::default(),
        }
    }

    fn data(&mut self, bytes: Bytes) -> Result<Bytes, &'static str> {
        let bytes = match &mut self.text {
            None => bytes,
            Some(decoder) => {
                let mut decoded = Vec::new();
                decoder.push(&bytes, &mut decoded)?;
                decoded.into()
            }
        };
        self.frames.push(&bytes)?;
        Ok(bytes)
    }

    fn end(&self) -> Result<(), &'static str> {
        if let Some(decoder) = &self.text {
            decoder.end()?;
        }
        if self.frames.at_boundary() {
            Ok(())
        } else {
            Err("the body ends inside a frame")
        }
    }
}

impl Filter for RequestFilter {
    fn push(&mut self, piece: Piece, out: &mut VecDeque<Frame<Bytes>>) -> Result<(), BodyError> {
        match piece {
            Piece::Data(bytes) => {
                let bytes = self.data(bytes).map_err(BodyError::Malformed)?;
                if !bytes.is_empty() {
                    out.push_back(Frame::data(bytes));
                }
            }
            Piece::Trailers(_) => {}
            Piece::End => self.end().map_err(BodyError::Malformed)?,
        }
        Ok(())
    }
}
