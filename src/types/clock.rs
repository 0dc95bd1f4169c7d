//! The only readers of the clocks. Pure rooms take time as a parameter; everybody else asks here.

use std::time::{Instant, SystemTime};

/// Monotonic time: deadlines, limits, durations. Never jumps with the wall clock.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this room is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall time: token claims, certificate dates, log stamps.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this room is the clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Whole seconds since the Unix epoch; 0 for a clock set before 1970.
#[must_use]
pub fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
