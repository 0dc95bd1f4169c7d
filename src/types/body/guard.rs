//! The bounds of a body in size and time, and how it fares within them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;
use tokio::time::Sleep;

use super::BodyError;
use crate::types::clock;

/// How a guarded body fared; shared with whoever must know (the exchange, the forwarder).
#[derive(Debug, Default)]
pub struct Fate {
    bytes: AtomicU64,
    failure: AtomicU8,
    waiting: AtomicBool,
    pub(super) ended: AtomicBool,
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

    pub(super) fn fail(&self, error: &BodyError) {
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

pub(super) struct Guard {
    pub(super) bounds: Bounds,
    pub(super) fate: Arc<Fate>,
    pub(super) started: Instant,
    pub(super) deadline: Option<Pin<Box<Sleep>>>,
    /// When the wait under way has been too long.
    pub(super) ends: Instant,
    pub(super) waiting: bool,
}

/// The resolution of timers.
const TICK: Duration = Duration::from_millis(1);

impl Guard {
    pub(super) fn set_waiting(&mut self, waiting: bool) {
        self.waiting = waiting;
        self.fate.waiting.store(waiting, Ordering::Relaxed);
    }

    pub(super) fn admit(&mut self, frame: &Frame<Bytes>) -> Result<(), BodyError> {
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
    pub(super) fn poll_stalled(
        &mut self,
        cx: &mut Context<'_>,
        alarm: &mut Option<Instant>,
    ) -> Poll<()> {
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
