//! The clock of the limits, so that tests can pass time in.

use std::sync::LazyLock;
use std::time::Instant;

use governor::clock::Clock;
use governor::nanos::Nanos;

use crate::types::clock;

/// A clock that counts nanoseconds; governor's `FakeRelativeClock` in tests.
pub trait Timer: Clock<Instant = Nanos> + Send + Sync + 'static {}

impl<C: Clock<Instant = Nanos> + Send + Sync + 'static> Timer for C {}

/// The process's monotonic clock: a step of the wall clock neither opens nor closes a limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Monotonic;

impl Clock for Monotonic {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        static START: LazyLock<Instant> = LazyLock::new(clock::now);
        let start = *START;
        Nanos::from(clock::now().saturating_duration_since(start))
    }
}
