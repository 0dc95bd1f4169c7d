//! One body type for both directions: no boxed trait object per request, frames pass untouched.
//!
//! What may ride along, each absent by default and free when absent: a guard (size limit and deadlines, see [`Bounds`]),
//! a [`Filter`] (frame translation), an end of time ([`Body::expire`]), a [`Lease`] (the upstream connection that goes back
//! to its pool when the body has ended) and an [`InFlight`] count.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::expiry::{Expiry, LastWords};
use super::rejection::Reason;
use crate::types::clock;
use ahead::Ahead;
use filter::Filtering;
use guard::Guard;

pub use error::BodyError;
pub use filter::{Filter, Piece};
pub use gauge::{Gauge, InFlight};
pub use guard::{Bounds, Failure, Fate};
pub use reading::Peek;

mod ahead;
mod error;
mod filter;
mod gauge;
mod guard;
mod reading;

/// A request or response body.
pub struct Body {
    source: Source,
    guard: Option<Box<Guard>>,
    /// Becomes a guard at the first wait.
    patience: Option<Duration>,
    /// When the reader is to be woken, though nothing came.
    alarm: Option<Instant>,
    filter: Option<Box<Filtering>>,
    expiry: Option<Box<Expiry>>,
    lease: Option<Box<dyn Lease>>,
    in_flight: Option<InFlight>,
}

enum Source {
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    /// The same, of which some was read ahead.
    Peeked(Box<Ahead>),
    /// An incoming body that yielded its last frame or an error.
    Ended,
}

/// Something lent to a response body until it has ended; see `upstream::pool`.
pub trait Lease: Send + Sync {
    /// The body is over: `clean` tells whether its last byte was read, so that the connection may be used again.
    fn finish(self: Box<Self>, clean: bool);
}

impl Body {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::from_source(Source::Empty)
    }

    /// These bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::from_source(if bytes.is_empty() {
            Source::Empty
        } else {
            Source::Full(bytes)
        })
    }

    /// What a connection delivers.
    #[must_use]
    pub fn incoming(incoming: Incoming) -> Self {
        Self::from_source(if http_body::Body::is_end_stream(&incoming) {
            Source::Empty
        } else {
            Source::Incoming(incoming)
        })
    }

    fn from_source(source: Source) -> Self {
        Self {
            source,
            guard: None,
            patience: None,
            alarm: None,
            filter: None,
            expiry: None,
            lease: None,
            in_flight: None,
        }
    }

    /// Bounds the body. A body without bytes needs no guard and gets none: `None` is returned then.
    pub fn guard(&mut self, bounds: Bounds) -> Option<Arc<Fate>> {
        if matches!(self.source, Source::Empty) {
            return None;
        }
        let fate = Arc::new(Fate::default());
        let started = clock::now();
        self.guard = Some(Box::new(Guard {
            bounds,
            fate: Arc::clone(&fate),
            started,
            deadline: None,
            ends: started,
            waiting: false,
        }));
        Some(fate)
    }

    /// Bounds the wait for each frame, and nothing else. Most answers are there at once: only a wait costs something.
    #[must_use]
    pub fn patient(mut self, idle: Duration) -> Self {
        self.patience = Some(idle);
        self
    }

    /// Ends the body at `at` for `reason`, whatever is still to come: with `words` where it has some, or else broken off,
    /// so that nobody takes what came for the whole. The earliest of several ends counts. One that has ended has no need
    /// of an end.
    pub fn expire(&mut self, at: Instant, reason: Reason, words: Option<Box<dyn LastWords>>) {
        let ends_earlier = (self.expiry.as_ref()).is_some_and(|expiry| expiry.at() <= at);
        if !self.is_empty() && !ends_earlier {
            self.expiry = Some(Box::new(Expiry::new(at, reason, words)));
        }
    }

    /// Why the body was ended before its end, if it was; see [`Body::expire`].
    #[must_use]
    pub fn expired(&self) -> Option<Reason> {
        let expiry = self.expiry.as_ref().filter(|expiry| expiry.is_over());
        expiry.map(|expiry| expiry.reason())
    }

    /// Wakes a reader that waits at `at`, once, though nothing came. Only for a body that is patient or guarded: the wait
    /// has a timer then, and this costs none of its own.
    pub fn wake_at(&mut self, at: Instant) {
        self.alarm = Some(at);
    }

    /// Hands over what must be given back when the body has ended.
    #[must_use]
    pub fn leased(mut self, lease: Box<dyn Lease>) -> Self {
        self.lease = Some(lease);
        self.settle();
        self
    }

    /// Counts the body as under way until its source has ended, or it is dropped: a reader that takes its time with the
    /// last piece holds nobody else up.
    #[must_use]
    pub fn counted(mut self, permit: Option<InFlight>) -> Self {
        self.in_flight = permit;
        self.settle();
        self
    }

    /// The bytes of a body that is known already; none of one that is still to come.
    #[must_use]
    pub fn at_hand(self) -> Bytes {
        match self.source {
            Source::Full(ref bytes) => bytes.clone(),
            Source::Empty | Source::Incoming(_) | Source::Peeked(_) | Source::Ended => Bytes::new(),
        }
    }

    /// Whether no byte will come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filter.is_none() && matches!(self.source, Source::Empty | Source::Ended)
    }

    /// The bytes of a body that is there as a whole, with nothing that bounds or changes it.
    #[must_use]
    pub fn held(&self) -> Option<Bytes> {
        let is_plain = self.filter.is_none() && self.guard.is_none() && self.expiry.is_none();
        match &self.source {
            Source::Empty if is_plain => Some(Bytes::new()),
            Source::Full(bytes) if is_plain => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Whether every byte has been taken from the connection, so that the next request on it is not in the way.
    #[must_use]
    pub fn has_arrived(&self) -> bool {
        match &self.source {
            Source::Peeked(ahead) => ahead.has_arrived(),
            _ => self.source_ended(),
        }
    }

    fn source_ended(&self) -> bool {
        match &self.source {
            Source::Empty | Source::Ended => true,
            Source::Full(_) => false,
            Source::Incoming(incoming) => http_body::Body::is_end_stream(incoming),
            Source::Peeked(ahead) => ahead.is_end_stream(),
        }
    }

    /// Nobody reads on, though whoever sends it has not ended.
    fn give_up(&mut self) {
        if let Some(permit) = self.in_flight.take()
            && !self.source_ended()
        {
            permit.give_up();
        }
    }

    fn settle(&mut self) {
        if !self.source_ended() {
            return;
        }
        self.in_flight = None;
        if let Some(lease) = self.lease.take() {
            lease.finish(true);
        }
    }

    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.source {
            Source::Empty | Source::Ended => return Poll::Ready(None),
            Source::Full(_) => {
                if let Source::Full(bytes) = std::mem::replace(&mut self.source, Source::Ended) {
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                return Poll::Ready(None);
            }
            Source::Incoming(incoming) => http_body::Body::poll_frame(Pin::new(incoming), cx),
            Source::Peeked(ahead) => ahead.poll_frame(cx),
        };
        if polled.is_pending()
            && let Some(idle) = self.patience.take()
        {
            self.guard(Bounds {
                max_bytes: u64::MAX,
                idle,
                min_rate: 0,
                grace: Duration::ZERO,
            });
        }
        self.note_end(&polled);
        let frame = match (polled, &mut self.guard) {
            (Poll::Pending, None) => return Poll::Pending,
            (Poll::Pending, Some(guard)) => {
                ready!(guard.poll_stalled(cx, &mut self.alarm));
                self.fail(BodyError::Stalled)
            }
            (Poll::Ready(None), guard) => {
                if let Some(guard) = guard {
                    guard.set_waiting(false);
                }
                self.source = Source::Ended;
                None
            }
            (Poll::Ready(Some(Err(error))), _) => self.fail(BodyError::Connection(error)),
            (Poll::Ready(Some(Ok(frame))), None) => Some(Ok(frame)),
            (Poll::Ready(Some(Ok(frame))), Some(guard)) => match guard.admit(&frame) {
                Ok(()) => Some(Ok(frame)),
                Err(error) => self.fail(error),
            },
        };
        self.settle();
        Poll::Ready(frame)
    }

    /// A reader that knows the length stops at the last byte, without asking for the end.
    fn note_end(&self, polled: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
        let Some(guard) = &self.guard else {
            return;
        };
        let ended = match polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => self.source_ended(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if ended {
            guard.fate.ended.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the body with `error`; the connection behind it is not fit for another use.
    fn fail(&mut self, error: BodyError) -> Option<Result<Frame<Bytes>, BodyError>> {
        if let Some(guard) = &self.guard {
            guard.fate.fail(&error);
        }
        if let Some(lease) = self.lease.take() {
            lease.finish(false);
        }
        self.source = Source::Ended;
        Some(Err(error))
    }
}

impl Body {
    fn poll_timeless(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.filter.is_some() {
            self.poll_filtered(cx)
        } else {
            self.poll_source(cx)
        }
    }

    fn poll_expiring(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.expiry.as_ref().is_some_and(|expiry| expiry.is_due()) {
            return Poll::Ready(self.cut_off());
        }
        let polled = self.poll_timeless(cx);
        let Some(expiry) = &mut self.expiry else {
            return polled;
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => expiry.hear(frame),
            Poll::Ready(_) => {}
            Poll::Pending => {
                ready!(expiry.poll_due(cx));
                return Poll::Ready(self.cut_off());
            }
        }
        polled
    }

    /// Lets go of what feeds the body. An HTTP/2 stream is reset with CANCEL by that.
    fn cut_off(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let words = self.expiry.as_mut().and_then(|expiry| expiry.end());
        self.filter = None;
        self.give_up();
        let broken_off = self.fail(BodyError::Expired(h2::Reason::CANCEL.into()));
        self.settle();
        words.map(Ok).or(broken_off)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        if body.expiry.is_some() {
            body.poll_expiring(cx)
        } else {
            body.poll_timeless(cx)
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.filter {
            Some(filtering) => filtering.ended && filtering.ready.is_empty(),
            None => self.source_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self
            .filter
            .as_ref()
            .is_some_and(|filtering| !filtering.filter.keeps_data())
        {
            return SizeHint::default();
        }
        match &self.source {
            Source::Empty | Source::Ended => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Incoming(incoming) => http_body::Body::size_hint(incoming),
            Source::Peeked(ahead) => ahead.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.give_up();
        if let Some(lease) = self.lease.take() {
            lease.finish(self.source_ended());
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("guarded", &self.guard.is_some())
            .field("filtered", &self.filter.is_some())
            .field("leased", &self.lease.is_some())
            .finish_non_exhaustive()
    }
}
