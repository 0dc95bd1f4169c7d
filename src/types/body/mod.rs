//! One body type for both directions: no boxed trait object per request, frames pass untouched.
//!
//! What may ride along, each absent by default and free when absent: a guard (size limit and deadlines, see [`Bounds`]),
//! a [`Filter`] (frame translation), an end of time ([`Body::expire`]), a [`Lease`] (the upstream connection that goes back to its pool when the body has
//! ended) and an [`InFlight`] count.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::expiry::{Expiry, LastWords};
use super::rejection::Reason;
use crate::types::clock;
use ahead::{Ahead, ReadAhead};

mod ahead;

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

/// Why a body ended before its end.
#[derive(Debug)]
pub enum BodyError {
    /// More bytes than the route allows.
    TooLarge,
    /// No progress within the deadline.
    Stalled,
    /// The bytes are not what the dialect promised.
    Malformed(&'static str),
    /// The connection that feeds the body failed.
    Connection(hyper::Error),
    /// Its time was over; see [`Body::expire`].
    Expired(h2::Error),
}

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

/// Something lent to a response body until it has ended; see `upstream::pool`.
pub trait Lease: Send + Sync {
    /// The body is over: `clean` tells whether its last byte was read, so that the connection may be used again.
    fn finish(self: Box<Self>, clean: bool);
}

/// How a guarded body fared; shared with whoever must know (the exchange, the forwarder).
#[derive(Debug, Default)]
pub struct Fate {
    bytes: AtomicU64,
    failure: AtomicU8,
    waiting: AtomicBool,
    ended: AtomicBool,
}

/// The way a guarded body failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// See [`BodyError::TooLarge`].
    TooLarge,
    /// See [`BodyError::Stalled`].
    Stalled,
    /// See [`BodyError::Malformed`].
    Malformed,
    /// See [`BodyError::Connection`].
    Connection,
    /// See [`BodyError::Expired`].
    Expired,
}

impl Fate {
    /// Bytes of data that have passed so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the reader wants more than the sender has delivered: a delay now is the sender's.
    #[must_use]
    pub fn waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether the last byte has been taken from the connection.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// How the body failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        match self.failure.load(Ordering::Acquire) {
            1 => Some(Failure::TooLarge),
            2 => Some(Failure::Stalled),
            3 => Some(Failure::Malformed),
            4 => Some(Failure::Connection),
            5 => Some(Failure::Expired),
            _ => None,
        }
    }

    fn fail(&self, error: &BodyError) {
        let code = match error.failure() {
            Failure::TooLarge => 1,
            Failure::Stalled => 2,
            Failure::Malformed => 3,
            Failure::Connection => 4,
            Failure::Expired => 5,
        };
        // The first failure is the cause; what follows from it is not.
        let _ = self
            .failure
            .compare_exchange(0, code, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// The bounds of a body.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most bytes of data that may pass.
    pub max_bytes: u64,
    /// Longest wait for the next frame.
    pub idle: Duration,
    /// Bytes a second that must have arrived on average, once `grace` is over; 0 asks for none.
    pub min_rate: u64,
    /// How long the average may be below `min_rate`.
    pub grace: Duration,
}

struct Guard {
    bounds: Bounds,
    fate: Arc<Fate>,
    started: Instant,
    deadline: Option<Pin<Box<Sleep>>>,
    /// When the wait under way has been too long.
    ends: Instant,
    waiting: bool,
}

struct Filtering {
    filter: Box<dyn Filter>,
    ready: VecDeque<Frame<Bytes>>,
    ended: bool,
}

/// A count of things under way; the [`InFlight`] permits it hands out lower it again when dropped.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU32);

impl Gauge {
    /// Permits that are out now.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises the count until the permit is dropped; `None` if `max` are out already.
    #[must_use]
    pub fn enter(self: &Arc<Self>, max: u32) -> Option<InFlight> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let permit = InFlight(Arc::clone(self));
        (before < max).then_some(permit)
    }
}

/// One thing under way.
#[derive(Debug)]
pub struct InFlight(Arc<Gauge>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
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
    pub fn counted(mut self, permit: InFlight) -> Self {
        self.in_flight = Some(permit);
        self.settle();
        self
    }

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

    fn poll_filtered(
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
        let broken_off = self.fail(BodyError::Expired(h2::Reason::CANCEL.into()));
        self.settle();
        words.map(Ok).or(broken_off)
    }
}

/// The resolution of timers.
const TICK: Duration = Duration::from_millis(1);

impl Guard {
    fn set_waiting(&mut self, waiting: bool) {
        self.waiting = waiting;
        self.fate.waiting.store(waiting, Ordering::Relaxed);
    }

    fn admit(&mut self, frame: &Frame<Bytes>) -> Result<(), BodyError> {
        self.set_waiting(false);
        let Some(data) = frame.data_ref() else {
            return Ok(());
        };
        let before = self
            .fate
            .bytes
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        if before.saturating_add(data.len() as u64) > self.bounds.max_bytes {
            return Err(BodyError::TooLarge);
        }
        Ok(())
    }

    /// Ready once the body has made no progress for too long. The timer is made at the first wait and moved after; an alarm
    /// that comes first is taken.
    fn poll_stalled(&mut self, cx: &mut Context<'_>, alarm: &mut Option<Instant>) -> Poll<()> {
        if !self.waiting {
            self.set_waiting(true);
            let now = clock::now();
            self.ends = self.patience_ends(now);
            // Never at once: the reader counts on a wait before it.
            let at = alarm.map_or(self.ends, |alarm| alarm.max(now + TICK).min(self.ends));
            match &mut self.deadline {
                Some(deadline) => deadline.as_mut().reset(at.into()),
                None => self.deadline = Some(Box::pin(tokio::time::sleep_until(at.into()))),
            }
        }
        let Some(deadline) = &mut self.deadline else {
            return Poll::Pending;
        };
        ready!(deadline.as_mut().poll(cx));
        match alarm.take() {
            Some(alarm) if alarm < self.ends => {
                deadline.as_mut().reset(self.ends.into());
                deadline.as_mut().poll(cx)
            }
            _ => Poll::Ready(()),
        }
    }

    /// The earlier of "too long without a frame" and "below the least rate".
    fn patience_ends(&self, now: Instant) -> Instant {
        let idle = now + self.bounds.idle;
        if self.bounds.min_rate == 0 {
            return idle;
        }
        let earned = Duration::from_secs(self.fate.bytes() / self.bounds.min_rate);
        let slow = self.started + self.bounds.grace + earned;
        idle.min(slow.max(now))
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

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the body is larger than the route allows"),
            Self::Stalled => f.write_str("the body made no progress in time"),
            Self::Malformed(what) => write!(f, "the body is malformed: {what}"),
            Self::Connection(_) => f.write_str("the connection that feeds the body failed"),
            Self::Expired(_) => f.write_str("the time of the call is over"),
        }
    }
}

impl BodyError {
    /// The way in which the body failed. A connection that delivers nonsense has not failed: its bytes are malformed.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::TooLarge => Failure::TooLarge,
            Self::Stalled => Failure::Stalled,
            Self::Malformed(_) => Failure::Malformed,
            Self::Connection(error) if is_nonsense(error) => Failure::Malformed,
            Self::Connection(_) => Failure::Connection,
            Self::Expired(_) => Failure::Expired,
        }
    }
}

/// Whether bytes came that cannot be read as a body, such as a chunk size that is none.
fn is_nonsense(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        )
    })
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection(error) => Some(error),
            // HTTP/2 looks here for the code of its reset.
            Self::Expired(error) => Some(error),
            _ => None,
        }
    }
}
