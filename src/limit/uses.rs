//! The limits of one place: a listener, a route before authentication, a route after it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::budget::Why;
use super::seats::Seats;
use super::timer::{Monotonic, Timer};
use super::{Charges, KeyInputs, Limit, Ruling};
use crate::types::{Reason, Rejection};

/// A limit, and what one request costs it in one place.
#[derive(Debug)]
pub struct Use<C: Timer = Monotonic> {
    /// The limit.
    pub limit: Arc<Limit<C>>,
    /// How many one request counts for.
    pub cost: NonZeroU32,
}

impl<C: Timer> Clone for Use<C> {
    fn clone(&self) -> Self {
        Self {
            limit: Arc::clone(&self.limit),
            cost: self.cost,
        }
    }
}

/// Which limits were charged, and since when.
pub(super) struct Charged {
    positions: u64,
    since: Option<u64>,
}

/// Limits that must all have room for a request.
#[derive(Debug)]
pub struct Limits<C: Timer = Monotonic> {
    uses: Box<[Use<C>]>,
    /// Those that are counted in the store that replicas share.
    pub(super) shared: Box<[Use<C>]>,
    has_seats: bool,
    /// Whether clients that pass are told what is left.
    tells: bool,
}

impl<C: Timer> Limits<C> {
    /// Limits that are asked in this order.
    #[must_use]
    pub fn new(uses: Vec<Use<C>>) -> Self {
        let has_seats = uses.iter().any(|used| used.limit.seats.is_some());
        let (shared, uses): (Vec<_>, Vec<_>) = uses
            .into_iter()
            .partition(|used| used.limit.shared.is_some());
        Self {
            tells: uses.iter().any(|used| used.limit.written.headers),
            uses: uses.into(),
            shared: shared.into(),
            has_seats,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.uses.is_empty() && self.shared.is_empty()
    }

    /// The limits.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Limit<C>>> {
        self.all().map(|used| &used.limit)
    }

    fn all(&self) -> impl Iterator<Item = &Use<C>> {
        self.uses.iter().chain(&self.shared)
    }

    /// Charges one request to its keys: to all of them, or, if it is refused, to none. What the exchange owes from then
    /// on stands in `charges`.
    ///
    /// # Errors
    ///
    /// [`Reason::RateLimited`] when a key's budget is used up. A client that waits for the time stated, and that shares
    /// its keys with nobody, is let in. [`Reason::ConcurrencyLimited`] when too many requests of a key are under way.
    pub async fn check(
        &self,
        inputs: &KeyInputs<'_>,
        charges: &mut Charges<C>,
    ) -> Result<(), Rejection> {
        if self.has_seats {
            Box::pin(self.take_seats(inputs, charges)).await?;
        }
        if self.shared.is_empty() {
            return self.charge(inputs, charges).map(drop);
        }
        Box::pin(self.charge_all(inputs, charges)).await
    }

    /// The limits of this process first: what they refuse, nobody else need be asked about.
    async fn charge_all(
        &self,
        inputs: &KeyInputs<'_>,
        charges: &mut Charges<C>,
    ) -> Result<(), Rejection> {
        let held = charges.held();
        let Charged { positions, since } = self.charge(inputs, charges)?;
        let checked = self.charge_shared(inputs, charges).await;
        checked.map_err(|why| {
            charges.release_from(held);
            self.undo(self.uses.len(), positions, since, inputs);
            self.prolong(why, inputs)
        })
    }

    /// [`Limits::check`] without the seats, which alone may have to be waited for.
    pub(super) fn charge(
        &self,
        inputs: &KeyInputs<'_>,
        charges: &mut Charges<C>,
    ) -> Result<Charged, Rejection> {
        let held = charges.held();
        let (mut charged, mut since) = (0_u64, None);
        for (position, Use { limit, cost }) in self.uses.iter().enumerate() {
            match limit.rule(inputs, cost.get()) {
                Ruling::Exempt => {}
                Ruling::Charged(now) => {
                    charged |= bit(position);
                    since.get_or_insert(now);
                }
                Ruling::Held(place) => {
                    charged |= bit(position);
                    charges.hold(limit, place, cost.get());
                }
                Ruling::Refused(..) if !limit.enforced => charges.observe(&limit.name),
                Ruling::Refused(wait, why) => {
                    charges.release_from(held);
                    self.undo(position, charged, since, inputs);
                    return Err(self.refuse(limit, wait, why, inputs));
                }
            }
        }
        if self.tells {
            for Use { limit, .. } in &self.uses {
                charges.tell(limit.tell(inputs));
            }
        }
        Ok(Charged {
            positions: charged,
            since,
        })
    }

    /// Adds to a refusal of another place the time that these limits ask for, so that what is stated stays true.
    #[must_use]
    pub fn prolong(&self, why: Rejection, inputs: &KeyInputs<'_>) -> Rejection {
        match why.wait() {
            Some(wait) if why.reason() == Reason::RateLimited => {
                let longest = self.longest_wait(inputs);
                why.retry_after(wait.max(longest))
            }
            _ => why,
        }
    }

    fn longest_wait(&self, inputs: &KeyInputs<'_>) -> Duration {
        let waits = self
            .uses
            .iter()
            .map(|used| used.limit.peek(inputs, used.cost.get()));
        waits.max().unwrap_or_default()
    }

    /// What the limits before the one that refuses were charged is given back, or its callers could use up the budget
    /// of somebody else while they are refused themselves.
    #[cold]
    fn undo(&self, position: usize, charged: u64, since: Option<u64>, inputs: &KeyInputs<'_>) {
        for (earlier, Use { limit, cost }) in self.uses.iter().enumerate().take(position) {
            if charged & bit(earlier) != 0 {
                limit.undo(inputs, cost.get(), since);
            }
        }
    }

    #[cold]
    fn refuse(
        &self,
        limit: &Limit<C>,
        wait: Duration,
        why: Why,
        inputs: &KeyInputs<'_>,
    ) -> Rejection {
        limit.refusal(wait.max(self.longest_wait(inputs)), why, inputs)
    }

    async fn take_seats(
        &self,
        inputs: &KeyInputs<'_>,
        charges: &mut Charges<C>,
    ) -> Result<(), Rejection> {
        for Use { limit, cost } in self.all() {
            let Some(seats) = &limit.seats else { continue };
            if limit.exempts(inputs) {
                continue;
            }
            let key = limit.key.of(inputs);
            if let Some(seat) = seats.free(key) {
                charges.seat(seat);
                continue;
            }
            if !limit.enforced {
                limit.counts.refused.fetch_add(1, Ordering::Relaxed);
                charges.observe(&limit.name);
                continue;
            }
            // Who would be refused afterwards need not wait for that.
            let wait = limit.peek(inputs, cost.get());
            let seat = if wait > Duration::ZERO {
                Err(self.refuse(limit, wait, Why::Spent, inputs))
            } else {
                let seat = Seats::wait(seats, key).await;
                seat.map_err(|why| limit.no_seat(why))
            };
            if seat.is_err() {
                limit.counts.refused.fetch_add(1, Ordering::Relaxed);
            }
            charges.seat(seat?);
        }
        Ok(())
    }
}

/// More limits than bits are charged as the others are, but not given back.
fn bit(position: usize) -> u64 {
    u32::try_from(position)
        .ok()
        .and_then(|position| 1_u64.checked_shl(position))
        .unwrap_or(0)
}
