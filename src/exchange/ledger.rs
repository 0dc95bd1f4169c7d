//! The body of an answer, with the ledger that closes when it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Exchange, grpc_status};
use crate::snapshot::Lapse;
use crate::telemetry::Outcome;
use crate::types::body::{Body, BodyError};

/// The body of an answer, with the ledger that closes when it ends.
#[derive(Debug)]
pub struct Ledger {
    body: Body,
    exchange: Option<Box<Exchange>>,
}

impl Ledger {
    pub(super) fn new(body: Body, exchange: Box<Exchange>) -> Self {
        Self {
            body,
            exchange: Some(exchange),
        }
    }

    /// A body whose exchange is closed already.
    #[must_use]
    pub fn closed(body: Body) -> Self {
        Self {
            body,
            exchange: None,
        }
    }

    fn close(&mut self, outcome: Outcome) {
        if let Some(mut exchange) = self.exchange.take() {
            if let Some(reason) = self.body.expired() {
                exchange.cut_off(reason);
            }
            exchange.close(outcome);
        }
    }

    fn poll_lapse(&mut self, cx: &mut Context<'_>) -> Poll<Lapse> {
        match &mut self.exchange {
            Some(exchange) => exchange.poll_lapse(cx),
            None => Poll::Pending,
        }
    }

    /// The body has nothing to give now.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Lapse> {
        match &mut self.exchange {
            Some(exchange) => exchange.poll_wait(cx),
            None => Poll::Pending,
        }
    }

    /// Ends the answer with the caller's credential. What is left of the body is given up, and with it the upstream's
    /// request; the client is told in its dialect where that has words for it, and cut off where a clean end would be a
    /// lie.
    fn lapse(&mut self, lapse: Lapse) -> Result<Frame<Bytes>, BodyError> {
        self.body = Body::empty();
        let last = self.exchange.as_mut().and_then(|one| one.lapse(lapse));
        self.close(Outcome::Aborted);
        last.ok_or_else(|| BodyError::Expired(h2::Reason::CANCEL.into()))
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        if let Some(leash) = &mut exchange.leash {
            leash.hear(frame);
        }
        if let Some(data) = frame.data_ref() {
            exchange.bytes_out += data.len() as u64;
            if let Some(closing) = &mut exchange.closing {
                closing.push(data);
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            exchange.grpc_status = grpc_status(trailers).or(exchange.grpc_status);
        }
    }
}

impl http_body::Body for Ledger {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let ledger = self.get_mut();
        if let Poll::Ready(lapse) = ledger.poll_lapse(cx) {
            return Poll::Ready(Some(ledger.lapse(lapse)));
        }
        let polled = http_body::Body::poll_frame(Pin::new(&mut ledger.body), cx);
        if polled.is_pending()
            && let Poll::Ready(lapse) = ledger.poll_wait(cx)
        {
            return Poll::Ready(Some(ledger.lapse(lapse)));
        }
        let polled = ready!(polled);
        match &polled {
            Some(Ok(frame)) => ledger.note(frame),
            Some(Err(_)) => ledger.close(Outcome::Aborted),
            None => ledger.close(Outcome::Complete),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // A body of known length is not polled past its last byte: over is over, whoever noticed.
        let complete = http_body::Body::is_end_stream(&self.body);
        self.close(if complete {
            Outcome::Complete
        } else {
            Outcome::ClientGone
        });
    }
}
