//! How often: governor's generic cell rate algorithm, as a function of what a key has left to pay.
//!
//! A bucket is one number, the time at which it will be full again. There is no window that could be gamed at its edge:
//! over any stretch of time no key gets more than its depth plus what trickled in. What is kept here is the time from
//! now until then, the *debt*: where the buckets stand, who shares them and when they are written is the caller's.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

/// The depth of a bucket and the time in which one more trickles in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    quota: Quota,
    interval: u64,
    fill: u64,
}

/// Longest time that an empty bucket may take to fill: far from where 64 bits of nanoseconds end.
pub(super) const LONGEST_FILL: Duration = Duration::from_secs(366 * 24 * 3600);

impl Window {
    /// `None` when a bucket of that depth would take longer than [`LONGEST_FILL`] to fill, or the period is empty.
    pub(super) fn new(count: NonZeroU32, per: Duration, depth: NonZeroU32) -> Option<Self> {
        // Rounded up: a rate that does not divide its period may let through a hair less, never more.
        let interval = u64::try_from(per.as_nanos().div_ceil(u128::from(count.get()))).ok()?;
        let fill = interval.checked_mul(u64::from(depth.get()))?;
        if Duration::from_nanos(fill) > LONGEST_FILL {
            return None;
        }
        let one = Quota::with_period(Duration::from_nanos(interval))?;
        let quota = one.allow_burst(depth);
        Some(Self {
            quota,
            interval,
            fill,
        })
    }

    /// How many a full bucket lets through at once.
    pub(super) fn depth(&self) -> u32 {
        self.quota.burst_size().get()
    }

    /// The time in which an empty bucket is full again, in nanoseconds.
    pub(super) fn fill(&self) -> u64 {
        self.fill
    }

    /// How many fit on top of a debt.
    pub(super) fn room(&self, debt: u64) -> u32 {
        let room = self.fill.saturating_sub(debt) / self.interval.max(1);
        u32::try_from(room).unwrap_or(u32::MAX)
    }

    /// What `count` requests add to a debt.
    pub(super) fn price(&self, count: u32) -> u64 {
        self.interval.saturating_mul(u64::from(count))
    }

    /// The debt after `count` more.
    ///
    /// # Errors
    /// The time until that many fit, if they do not now.
    pub(super) fn take(&self, debt: u64, count: u32) -> Result<u64, u64> {
        let Some(count) = NonZeroU32::new(count) else {
            return Ok(debt);
        };
        let bucket = Bucket(Cell::new(debt));
        let gcra = RateLimiter::<_, _, _, NoOpMiddleware<Nanos>>::new(self.quota, bucket, Now);
        match gcra.check_n(count) {
            Ok(Ok(())) => Ok(gcra.into_state_store().0.get()),
            Ok(Err(until)) => Err(nanos(until.wait_time_from(Now.now()))),
            // More than a bucket holds: what waits for others to end, or is cut short by the configuration.
            Err(_) => Err(debt
                .saturating_add(self.price(count.get()))
                .saturating_sub(self.fill)),
        }
    }
}

/// The state of one bucket while governor judges it; times count from now.
struct Bucket(Cell<u64>);

impl StateStore for Bucket {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, full_in) = f(Some(Nanos::new(self.0.get())))?;
        self.0.set(full_in.as_u64());
        Ok(outcome)
    }
}

/// The clock by which a debt is told.
struct Now;

impl Clock for Now {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(0)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
