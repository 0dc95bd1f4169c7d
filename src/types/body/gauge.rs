//! Counts of what is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

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
