//! The body of a gRPC response, on its way to a gRPC-Web client.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::frames::{Frames, trailer_frame};
use super::text::Encoder;
use crate::types::BodyError;
use crate::types::body::{Filter, Piece};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Lets the messages pass and puts the trailers into a last frame. In text mode all of it is base64.
#[derive(Debug)]
pub(super) struct ResponseFilter {
    text: Option<Encoder>,
    frames: Frames,
    /// The status that is sent if no trailers come.
    verdict: HeaderMap,
    closed: bool,
}

impl ResponseFilter {
    /// `verdict` is what [`take_verdict`] found in the headers.
    pub(super) fn new(is_text: bool, verdict: HeaderMap) -> Self {
        Self {
            text: is_text.then(Encoder::default),
            frames: Frames::default(),
            verdict,
            closed: false,
        }
    }

    fn data(&mut self, bytes: Bytes) -> Result<Bytes, &'static str> {
        self.frames.push(&bytes)?;
        let Some(encoder) = &mut self.text else {
            return Ok(bytes);
        };
        let mut text = String::with_capacity(bytes.len() / 3 * 4 + 8);
        encoder.push(&bytes, &mut text);
        // A message that is whole must reach the client whole: none of its bytes waits for the next message.
        if self.frames.progress() < encoder.held() {
            encoder.flush(&mut text);
        }
        Ok(text.into())
    }

    /// The last frame: `trailers`, with a status in any case.
    fn close(&mut self, mut trailers: HeaderMap) -> Result<Bytes, &'static str> {
        self.closed = true;
        if !self.frames.at_boundary() {
            return Err("the response ends inside a frame");
        }
        if !trailers.contains_key(GRPC_STATUS) {
            trailers.extend(std::mem::take(&mut self.verdict));
        }
        if !trailers.contains_key(GRPC_STATUS) {
            // 2 is UNKNOWN: what gRPC clients make of a stream that ends without a status.
            trailers.insert(GRPC_STATUS, HeaderValue::from(2));
            trailers.insert(
                GRPC_MESSAGE,
                HeaderValue::from_static("missing grpc-status"),
            );
        }
        let frame = trailer_frame(&trailers).ok_or("the trailers are too large")?;
        let Some(encoder) = &mut self.text else {
            return Ok(frame);
        };
        let mut text = String::new();
        encoder.push(&frame, &mut text);
        encoder.flush(&mut text);
        Ok(text.into())
    }
}

impl Filter for ResponseFilter {
    fn push(&mut self, piece: Piece, out: &mut VecDeque<Frame<Bytes>>) -> Result<(), BodyError> {
        let bytes = match piece {
            Piece::Data(bytes) => self.data(bytes),
            Piece::Trailers(trailers) => self.close(trailers),
            Piece::End if self.closed => return Ok(()),
            Piece::End => self.close(HeaderMap::new()),
        };
        let bytes = bytes.map_err(BodyError::Malformed)?;
        if !bytes.is_empty() {
            out.push_back(Frame::data(bytes));
        }
        Ok(())
    }
}

/// Takes the status out of the headers of a response that has nothing but headers; it goes into the trailers frame.
pub(super) fn take_verdict(headers: &mut HeaderMap) -> HeaderMap {
    let mut verdict = HeaderMap::new();
    for name in [GRPC_STATUS, GRPC_MESSAGE, GRPC_DETAILS] {
        if let Some(value) = headers.remove(&name) {
            verdict.insert(name, value);
        }
    }
    verdict
}
