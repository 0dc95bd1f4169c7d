//! The tarpit: the answer to a refused request is held back, so that whoever guesses waits for it.
//!
//! It costs the one who is refused time, and nobody else anything: so many answers are held at once as there are slots,
//! and without a free one the answer goes out at once. A slot is given back by dropping what holds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::types::body::Gauge;
use crate::types::rejection::Hold;

/// The slots of one limit.
#[derive(Debug)]
pub(super) struct Tarpit {
    time: Duration,
    slots: u32,
    taken: Arc<Gauge>,
    held: AtomicU64,
    full: AtomicU64,
}

/// What a tarpit has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Answers held back now.
    pub now: u32,
    /// All that were.
    pub total: u64,
    /// Answers that went out at once, because no slot was free.
    pub no_slot: u64,
}

impl Tarpit {
    pub(super) fn new(time: Duration, slots: u32) -> Self {
        Self {
            time,
            slots,
            taken: Arc::default(),
            held: AtomicU64::new(0),
            full: AtomicU64::new(0),
        }
    }

    /// A slot for one answer, if there is one.
    pub(super) fn hold(&self) -> Option<Hold> {
        let slot = self.taken.enter(self.slots);
        let count = if slot.is_some() {
            &self.held
        } else {
            &self.full
        };
        count.fetch_add(1, Ordering::Relaxed);
        let time = self.time;
        slot.map(|slot| Hold { time, slot })
    }

    pub(super) fn seen(&self) -> Held {
        Held {
            now: self.taken.count().min(self.slots),
            total: self.held.load(Ordering::Relaxed),
            no_slot: self.full.load(Ordering::Relaxed),
        }
    }
}
