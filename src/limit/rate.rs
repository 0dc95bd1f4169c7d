//! How often: governor's generic cell rate algorithm over the bounded store.
//!
//! A bucket is one number, the time at which it will be full again. There is no window that could be gamed at its edge:
//! over any stretch of time no key gets more than `burst` plus what trickled in.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::{Quota, RateLimiter};

use super::key::Key;
use super::store::Store;
use super::timer::Timer;

/// The buckets of one limit.
pub(super) struct Rate<C: Timer> {
    limiter: RateLimiter<Key, Store, C, NoOpMiddleware<Nanos>>,
    overflowed: Arc<AtomicU64>,
}

/// What the bucket of a key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It held one more.
    Allowed,
    /// It is empty; after this time it holds one again.
    Wait(Duration),
}

/// One bucket's depth and the time in which one more trickles in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget(Quota);

/// Longest time that an empty bucket may take to fill: far from where 64 bits of nanoseconds end.
pub(super) const LONGEST_FILL: Duration = Duration::from_secs(366 * 24 * 3600);

impl Budget {
    /// `None` when a bucket of that depth would take longer than [`LONGEST_FILL`] to fill, or the period is empty.
    pub(super) fn new(count: NonZeroU32, per: Duration, burst: NonZeroU32) -> Option<Self> {
        // Rounded up: a rate that does not divide its period may let through a hair less, never more.
        let nanos = u64::try_from(per.as_nanos().div_ceil(u128::from(count.get()))).ok()?;
        let fill = nanos.checked_mul(u64::from(burst.get()))?;
        if Duration::from_nanos(fill) > LONGEST_FILL {
            return None;
        }
        let one = Quota::with_period(Duration::from_nanos(nanos))?;
        Some(Self(one.allow_burst(burst)))
    }
}

impl<C: Timer> Rate<C> {
    pub(super) fn new(budget: Budget, max_keys: usize, timer: C) -> Self {
        let store = Store::new(max_keys);
        Self {
            overflowed: store.overflowed(),
            limiter: RateLimiter::new(budget.0, store, timer),
        }
    }

    /// Takes one from the bucket of `key`, if it holds one.
    pub(super) fn take(&self, key: Key) -> Verdict {
        match self.limiter.check_key(&key) {
            Ok(()) => Verdict::Allowed,
            Err(until) => Verdict::Wait(until.wait_time_from(self.limiter.clock().now())),
        }
    }

    /// Drops buckets that are full again, and with them the memory of a flood that has passed.
    pub(super) fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    pub(super) fn keys(&self) -> usize {
        self.limiter.len()
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }
}
