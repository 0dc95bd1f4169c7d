//! The end that a call comes to at a point in time, whatever is still to come of it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::Sleep;

use super::clock;
use super::rejection::Reason;

/// What a body that is cut off still has to say, so that its reader learns why.
pub trait LastWords: Send + Sync {
    /// A frame passes: what may be said depends on what was said before.
    fn hear(&mut self, frame: &Frame<Bytes>);

    /// The frame that ends the stream, if it can be ended in words here.
    fn speak(&mut self, reason: Reason) -> Option<Frame<Bytes>>;
}

/// When a body ends, why, and with which words.
pub(super) struct Expiry {
    at: Instant,
    reason: Reason,
    /// Made at the first wait: most bodies are there in time, without one.
    alarm: Option<Pin<Box<Sleep>>>,
    words: Option<Box<dyn LastWords>>,
    over: bool,
}

impl Expiry {
    pub(super) fn new(at: Instant, reason: Reason, words: Option<Box<dyn LastWords>>) -> Self {
        Self {
            at,
            reason,
            alarm: None,
            words,
            over: false,
        }
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }

    pub(super) fn reason(&self) -> Reason {
        self.reason
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// A stream that always has something at hand waits for no alarm, so the clock is asked too.
    pub(super) fn is_due(&self) -> bool {
        !self.over && clock::now() >= self.at
    }

    pub(super) fn hear(&mut self, frame: &Frame<Bytes>) {
        if let Some(words) = &mut self.words {
            words.hear(frame);
        }
    }

    /// Ready at the end of time; not again after that.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.over {
            return Poll::Pending;
        }
        let at = self.at;
        let alarm = self.alarm.get_or_insert_with(|| alarm(at));
        alarm.as_mut().poll(cx)
    }

    pub(super) fn end(&mut self) -> Option<Frame<Bytes>> {
        self.over = true;
        self.words.take()?.speak(self.reason)
    }
}

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expiry")
            .field("at", &self.at)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// What `work` comes to before `at`; without an end of time it is only waited for.
pub async fn within<F: Future>(at: Option<Instant>, mut work: Pin<&mut F>) -> Option<F::Output> {
    let Some(at) = at else {
        return Some(work.await);
    };
    let mut alarm = alarm(at);
    tokio::select! {
        biased;
        done = &mut work => Some(done),
        () = &mut alarm => None,
    }
}

/// Boxed: who has no end of time must not carry the room for one about.
fn alarm(at: Instant) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep_until(at.into()))
}
