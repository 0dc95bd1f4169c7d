//! A number that only grows, for telemetry to collect.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts events; shared by all workers, read when metrics are asked for.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Events so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
