//! What one exchange owes to limits: places held until its answer is known, and seats given back when it ends.

use std::sync::Arc;
use std::time::Duration;

use super::budget::Settlement;
use super::failure::Answer;
use super::key::Key;
use super::seats::Seat;
use super::shared::Held;
use super::timer::{Monotonic, Timer};
use super::{Limit, Place};
use crate::store::Line;
use crate::types::rejection::Budget;

/// The ledger of one exchange with the limits that it passed. Empty, and without cost, where no limit wants to know how
/// it ends. Dropping it gives everything back: a request whose answer nobody waited for counts as failed once it was
/// [`sent`](Charges::sent), or leaving early would be the way to guess for free.
#[derive(Debug)]
pub struct Charges<C: Timer = Monotonic> {
    open: Vec<Charge<C>>,
    seats: Vec<Seat>,
    observed: Option<Arc<str>>,
    told: Vec<Budget>,
    sent: bool,
    /// To the store that replicas share, where there is one.
    line: Option<Arc<Line>>,
    /// How long the request may still be delayed by it.
    patience: Duration,
}

/// A place held in a limit that counts failures.
#[derive(Debug)]
struct Charge<C: Timer> {
    limit: Arc<Limit<C>>,
    place: Place,
    cost: u32,
    /// Where the store has charged it.
    shared: Option<Held>,
}

impl<C: Timer> Default for Charges<C> {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            seats: Vec::new(),
            observed: None,
            told: Vec::new(),
            sent: false,
            line: None,
            patience: Duration::ZERO,
        }
    }
}

impl<C: Timer> Charges<C> {
    /// Whether a limit waits for the outcome.
    #[must_use]
    pub fn are_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The first limit that would have refused, were it not only observing.
    #[must_use]
    pub fn observed(&self) -> Option<&Arc<str>> {
        self.observed.as_ref()
    }

    /// Lets limits ask the store that replicas share.
    pub fn share(&mut self, line: &Arc<Line>) {
        self.patience = line.store().timeout();
        self.line = Some(Arc::clone(line));
    }

    pub(super) fn line(&self) -> Option<&Arc<Line>> {
        self.line.as_ref()
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn waited(&mut self, wait: Duration) {
        self.patience = self.patience.saturating_sub(wait);
    }

    /// What the client is told about the limits that it passed.
    #[must_use]
    pub fn told(&self) -> &[Budget] {
        &self.told
    }

    /// Notes that the request is about to be tried: from here on, no outcome is a bad one.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    /// Tells the limits what the answer is. Those that have to see the trailers first go on waiting.
    pub fn answered(&mut self, answer: &Answer<'_>) {
        let sent = self.sent;
        self.open.retain(|charge| {
            let outcome = charge.limit.judge(answer, sent);
            if let Some(outcome) = outcome {
                charge.settle(outcome);
            }
            outcome.is_none()
        });
    }

    /// Gives all places back: nothing was tried, or what became of it says nothing.
    pub fn release(&mut self) {
        for charge in self.open.drain(..) {
            charge.settle(Settlement::Released);
        }
        self.seats.clear();
    }

    /// Nobody waits for the answer any more, by the client's own wish: what was sent counts as failed.
    pub fn abandon(&mut self) {
        let outcome = if self.sent {
            Settlement::Failed
        } else {
            Settlement::Released
        };
        for charge in self.open.drain(..) {
            charge.settle(outcome);
        }
    }

    pub(super) fn hold(&mut self, limit: &Arc<Limit<C>>, place: Place, cost: u32) {
        self.open.push(Charge {
            limit: Arc::clone(limit),
            place,
            cost,
            shared: None,
        });
    }

    pub(super) fn hold_shared(&mut self, limit: &Arc<Limit<C>>, key: Key, cost: u32, held: Held) {
        self.open.push(Charge {
            limit: Arc::clone(limit),
            place: Place { key, named: None },
            cost,
            shared: Some(held),
        });
    }

    /// How many places are held.
    pub(super) fn held(&self) -> usize {
        self.open.len()
    }

    /// Gives the places back that were taken since `held` of them were.
    pub(super) fn release_from(&mut self, held: usize) {
        for charge in self.open.drain(held.min(self.open.len())..) {
            charge.settle(Settlement::Released);
        }
    }

    pub(super) fn seat(&mut self, seat: Seat) {
        self.seats.push(seat);
    }

    pub(super) fn tell(&mut self, budget: Option<Budget>) {
        self.told.extend(budget);
    }

    pub(super) fn observe(&mut self, limit: &Arc<str>) {
        self.observed.get_or_insert_with(|| Arc::clone(limit));
    }
}

#[cfg(test)]
impl<C: Timer> Charges<C> {
    /// Every place has this outcome.
    pub(super) fn settle_all(&mut self, outcome: Settlement) {
        self.open
            .drain(..)
            .for_each(|charge| charge.settle(outcome));
    }
}

impl<C: Timer> Charge<C> {
    fn settle(&self, outcome: Settlement) {
        match &self.shared {
            None => self.limit.settle(self.place, self.cost, outcome),
            Some(held) => (self.limit).settle_shared(held, self.place.key, self.cost, outcome),
        }
    }
}

impl<C: Timer> Drop for Charges<C> {
    fn drop(&mut self) {
        self.abandon();
    }
}
