//! Counts of what is under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::types::clock;

/// A count of things under way; the [`InFlight`] permits it hands out lower it again when dropped, or a while after they
/// were given up.
#[derive(Debug, Default)]
pub struct Gauge {
    count: AtomicU32,
    /// How many of them were given up, so that nobody has to look when there are none.
    lost: AtomicU32,
    /// When these end. No more than permits were out.
    given_up: Mutex<VecDeque<Instant>>,
}

/// How long work goes on that was given up, for all we know. Nobody tells when: a reset is an order, and has no receipt.
const GOES_ON: Duration = Duration::from_millis(500);

impl Gauge {
    /// Permits that are out now, those included that were given up a moment ago.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.settle();
        self.count.load(Ordering::Relaxed)
    }

    /// Raises the count until the permit is dropped; `None` if `max` are out already.
    #[must_use]
    pub fn enter(self: &Arc<Self>, max: u32) -> Option<InFlight> {
        self.try_enter(max).or_else(|| {
            self.settle();
            self.try_enter(max)
        })
    }

    fn try_enter(self: &Arc<Self>, max: u32) -> Option<InFlight> {
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let permit = InFlight(Some(Arc::clone(self)));
        (before < max).then_some(permit)
    }

    /// Forgets what was given up long enough ago.
    fn settle(&self) {
        if self.lost.load(Ordering::Relaxed) == 0 {
            return;
        }
        let now = clock::now();
        let mut given_up = self.given_up.lock();
        while given_up.front().is_some_and(|ends| *ends <= now) {
            given_up.pop_front();
            self.lost.fetch_sub(1, Ordering::Relaxed);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One thing under way.
#[derive(Debug)]
pub struct InFlight(Option<Arc<Gauge>>);

impl InFlight {
    /// Nobody waits for it any more, yet it has not ended: whoever does it learns of that later. It counts for a while, so
    /// that asking and giving up, again and again, gets no more done at once than asking does.
    pub fn give_up(mut self) {
        if let Some(gauge) = self.0.take() {
            let mut given_up = gauge.given_up.lock();
            given_up.push_back(clock::now() + GOES_ON);
            gauge.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(gauge) = &self.0 {
            gauge.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_counts_for_a_while_and_what_ended_does_not() {
        let gauge = Arc::new(Gauge::default());
        let (ended, given_up) = (gauge.enter(2).unwrap(), gauge.enter(2).unwrap());
        assert!(gauge.enter(2).is_none());
        drop(ended);
        let since = clock::now();
        given_up.give_up();
        assert_eq!(gauge.count(), 1);
        let next = gauge.enter(2).unwrap();
        assert!(gauge.enter(2).is_none() || since.elapsed() >= GOES_ON);
        drop(next);
        // As if it had been long ago.
        *gauge.given_up.lock().front_mut().unwrap() = since;
        assert_eq!(gauge.count(), 0);
        let full: Vec<_> = (0..2).map(|_| gauge.enter(2)).collect();
        assert!(full.iter().all(Option::is_some));
    }
}
