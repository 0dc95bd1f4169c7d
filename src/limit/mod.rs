//! Decides whether one more request of the same key may pass. Whom a request is charged to (its client address, its
//! caller) was decided elsewhere; refusals are rendered elsewhere.
//!
//! A limit counts for the whole process, exactly: all workers share its buckets. It survives reloads for as long as
//! its configuration stays the same. [`Limits::check`] is the verb; what an exchange owes after it stands in
//! [`Charges`], which learns the answer.

mod budget;
mod charges;
mod compile;
mod debts;
mod failure;
mod fields;
mod inputs;
mod key;
mod peek;
mod rate;
mod seats;
mod shared;
mod slots;
mod spread;
mod store;
mod tarpit;
mod timer;
mod uses;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config;
use crate::types::{CidrSet, Principal, Reason, Rejection, rejection};

use budget::{Budget, Settlement, Verdict, Why};
pub use charges::Charges;
use failure::Failures;
pub use failure::{Answer, Grpc};
use fields::Fields;
pub use inputs::{Credentials, KeyInputs, Shown};
pub use key::KeySecret;
use key::{Key, KeyPlan};
pub use peek::{Field, PeekPlan, Peeked};
use seats::{NoSeat, Seats};
use shared::Shared;
use spread::{Named, Spread};
use store::Store;
pub use tarpit::Held;
use tarpit::Tarpit;
pub use timer::{Monotonic, Timer};
pub use uses::{Limits, Use};

/// A named bound on the requests of one key.
///
/// Generic over the clock for the tests alone; everybody else means `Limit`.
pub struct Limit<C: Timer = Monotonic> {
    name: Arc<str>,
    written: config::Limit,
    key: KeyPlan,
    /// Of a limit that replicas share: the share of this one, for when the store is away.
    budget: Option<Buckets>,
    shared: Option<Shared>,
    failures: Option<Failures>,
    spread: Option<Spread>,
    seats: Option<Arc<Seats>>,
    tarpit: Option<Tarpit>,
    exempt: Exempt,
    enforced: bool,
    fields: Option<Fields>,
    timer: C,
    counts: Counts,
}

/// The budget, and where the buckets of all keys stand.
#[derive(Debug)]
struct Buckets {
    budget: Budget,
    store: Store,
}

/// Who is never counted.
#[derive(Debug, Default)]
struct Exempt {
    networks: CidrSet,
    /// Source and user.
    principals: Box<[(Box<str>, Box<str>)]>,
}

#[derive(Debug, Default)]
struct Counts {
    allowed: AtomicU64,
    refused: AtomicU64,
    exempt: AtomicU64,
    unreadable: AtomicU64,
    failed: AtomicU64,
    bans: AtomicU64,
}

/// What a limit has decided since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests let through.
    pub allowed: u64,
    /// Requests refused, or that would have been were the limit not only observing.
    pub refused: u64,
    /// Requests of those who are never counted.
    pub exempt: u64,
    /// Requests that were one account, network or the like too many for their key.
    pub spread: u64,
    /// The most different ones that one key was seen with in the window.
    pub highest_spread: u32,
    /// Requests whose body could not be read as the key asks.
    pub unreadable: u64,
    /// Failures charged.
    pub failed: u64,
    /// Bans begun.
    pub bans: u64,
    /// Keys that owed nothing and made room for others.
    pub evicted_clear: u64,
    /// Keys that made room although they still owed something; that is remembered coarsely.
    pub evicted_owing: u64,
    /// Requests that wait for a seat now.
    pub waiting: u64,
    /// Answers held back.
    pub held: Held,
    /// Decisions made without the store that replicas share; `None` for a limit that is not shared.
    pub alone: Option<u64>,
}

/// A place held for one request.
#[derive(Clone, Copy, Debug)]
struct Place {
    key: Key,
    /// What it names, where different ones are counted.
    named: Option<Named>,
}

/// What a limit says to one request.
enum Ruling {
    /// Nothing: whoever sends it is not counted.
    Exempt,
    /// It was charged at this time.
    Charged(u64),
    /// A place is held for it until its answer is known.
    Held(Place),
    /// It is one too many.
    Refused(Duration, Why),
}

impl<C: Timer> Limit<C> {
    /// The name in the configuration.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether the caller matters, so that the check belongs after authentication.
    #[must_use]
    pub fn needs_principal(&self) -> bool {
        self.plans().any(KeyPlan::needs_principal) || !self.exempt.principals.is_empty()
    }

    /// Whether the key names a field of the body, so that the body is read before the check.
    #[must_use]
    pub fn needs_body(&self) -> bool {
        self.in_body().next().is_some()
    }

    /// The fields of the body that the limit wants.
    fn in_body(&self) -> impl Iterator<Item = &config::LimitKey> {
        self.plans().flat_map(KeyPlan::in_body)
    }

    /// The key, and what is counted under it.
    fn plans(&self) -> impl Iterator<Item = &KeyPlan> {
        std::iter::once(&self.key).chain(self.spread.as_ref().map(Spread::of))
    }

    /// Whether what is over the limit is refused, and not only counted.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.enforced
    }

    /// The most that one request may cost.
    #[must_use]
    pub fn most_cost(&self) -> u32 {
        if let Some(shared) = &self.shared {
            let depths = shared.terms.windows.iter().map(|(_, depth)| *depth);
            return depths.min().unwrap_or(1);
        }
        self.least_share()
    }

    /// The most that one request may cost this process where it counts by itself.
    fn least_share(&self) -> u32 {
        let buckets = self.budget.as_ref();
        buckets.map_or(1, |buckets| buckets.budget.least_depth())
    }

    /// Whether only failures are charged.
    #[must_use]
    pub fn learns(&self) -> bool {
        self.failures.is_some()
    }

    /// Charges the share of this replica with what the store has let through: it holds when the store is away.
    fn shadow(&self, key: Key, cost: u32) {
        if let (Some(Buckets { budget, store }), false) = (&self.budget, self.learns()) {
            let (now, cost) = (self.now(), cost.min(budget.least_depth()));
            store.at(key, now, |words| budget.take(words, now, cost));
        }
    }

    fn rule(&self, inputs: &KeyInputs<'_>, cost: u32) -> Ruling {
        if self.exempts(inputs) {
            self.counts.exempt.fetch_add(1, Ordering::Relaxed);
            return Ruling::Exempt;
        }
        if self.unreadable(inputs).is_some() {
            self.counts.unreadable.fetch_add(1, Ordering::Relaxed);
        }
        let now = self.now();
        if self.budget.is_none() && self.spread.is_none() {
            self.counts.allowed.fetch_add(1, Ordering::Relaxed);
            return Ruling::Charged(now);
        }
        let key = self.key.of(inputs);
        let named = match &self.spread {
            Some(spread) => spread.note(key, inputs, now),
            None => Ok(None),
        };
        let named = match named {
            Ok(named) => named,
            Err(wait) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                return Ruling::Refused(Duration::from_nanos(wait), Why::Spread);
            }
        };
        let verdict = match &self.budget {
            Some(Buckets { budget, store }) => {
                store.at(key, now, |words| budget.take(words, now, cost))
            }
            None => Verdict::Allowed,
        };
        match verdict {
            Verdict::Allowed => {
                self.counts.allowed.fetch_add(1, Ordering::Relaxed);
                if self.learns() {
                    Ruling::Held(Place { key, named })
                } else {
                    Ruling::Charged(now)
                }
            }
            Verdict::Wait(wait, why) => {
                self.settle_spread(Place { key, named }, false, now);
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                if why == Why::BanBegun {
                    self.counts.bans.fetch_add(1, Ordering::Relaxed);
                }
                Ruling::Refused(Duration::from_nanos(wait), why)
            }
        }
    }

    fn settle_spread(&self, place: Place, failed: bool, now: u64) {
        if let (Some(spread), Some(named)) = (&self.spread, place.named) {
            spread.settle(place.key, named, failed, now);
        }
    }

    /// The window with the least room.
    #[cold]
    fn scarcest(&self, inputs: &KeyInputs<'_>) -> usize {
        let left = self.budget.as_ref().and_then(|Buckets { budget, store }| {
            let (key, now) = (self.key.of(inputs), self.now());
            store.existing(key, |words| budget.left(words, now))?
        });
        left.map_or(0, |left| left.window)
    }

    /// What the client of a request that passed is told, where the limit says so.
    fn tell(&self, inputs: &KeyInputs<'_>) -> Option<rejection::Budget> {
        let fields = self.fields.as_ref().filter(|_| self.written.headers)?;
        let Buckets { budget, store } = self.budget.as_ref()?;
        let (key, now) = (self.key.of(inputs), self.now());
        let left = store.existing(key, |words| budget.left(words, now))??;
        fields.passed(left)
    }

    /// How long until a request of that cost would pass.
    fn peek(&self, inputs: &KeyInputs<'_>, cost: u32) -> Duration {
        if !self.enforced || self.exempts(inputs) {
            return Duration::ZERO;
        }
        let (key, now) = (self.key.of(inputs), self.now());
        let budget = self.budget.as_ref().and_then(|Buckets { budget, store }| {
            store.existing(key, |words| budget.peek(words, now, cost))
        });
        let spread = self.spread.as_ref();
        let spread = spread.map(|spread| spread.wait(key, inputs, now));
        Duration::from_nanos(budget.max(spread).unwrap_or(0))
    }

    /// Takes a charge made at `since` or later back, because another limit refused the request.
    fn undo(&self, inputs: &KeyInputs<'_>, cost: u32, since: Option<u64>) {
        self.counts.allowed.fetch_sub(1, Ordering::Relaxed);
        if let Some(Buckets { budget, store }) = &self.budget
            && !budget.learns()
        {
            let (key, now) = (self.key.of(inputs), self.now());
            let passed = now.saturating_sub(since.unwrap_or(now));
            store.existing(key, |words| budget.undo(words, cost, passed));
        }
    }

    /// What an answer means, which came from the backend if the request was `sent` there.
    fn judge(&self, answer: &Answer<'_>, sent: bool) -> Option<Settlement> {
        let forgives = || self.key.is_pair() && sent && answer.can_prove();
        match &self.failures {
            Some(failures) => failures.judge(answer, forgives()),
            None => Some(Settlement::Released),
        }
    }

    /// Ends the wait for the outcome of one request.
    fn settle(&self, place: Place, cost: u32, outcome: Settlement) {
        let (now, failed) = (self.now(), outcome == Settlement::Failed);
        if failed {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.settle_spread(place, failed, now);
        let Some(Buckets { budget, store }) = &self.budget else {
            return;
        };
        let work = |words: &mut [u64]| budget.settle(words, now, cost, outcome);
        if failed {
            store.at(place.key, now, work); // charged even if the key had to make room meanwhile
        } else {
            store.existing(place.key, work);
        }
    }

    fn unreadable(&self, inputs: &KeyInputs<'_>) -> Option<&'static str> {
        self.plans().find_map(|plan| plan.unreadable(inputs))
    }

    fn exempts(&self, inputs: &KeyInputs<'_>) -> bool {
        let Exempt {
            networks,
            principals,
        } = &self.exempt;
        let known = |principal: &Principal| {
            let is = |(source, user): &(Box<str>, Box<str>)| {
                **source == *principal.source && **user == *principal.facts.user
            };
            principal.is_authenticated() && principals.iter().any(is)
        };
        (!networks.is_empty() && networks.contains(inputs.ip.address()))
            || (!principals.is_empty() && inputs.principal.is_some_and(known))
    }

    fn refusal(&self, wait: Duration, why: Why, inputs: &KeyInputs<'_>) -> Rejection {
        let detail = match why {
            Why::Spent => "the bucket of this key is empty",
            Why::Pending => "requests of this key under way may use its bucket up",
            Why::BanBegun => "the bucket of this key is empty; it is banned from now on",
            Why::Banned => "this key is banned",
            Why::Spread => "this key was seen with as many different ones as may be",
        };
        let detail = match self.unreadable(inputs) {
            Some(fault) => Cow::Owned(format!("{detail}: that of what cannot be read ({fault})")),
            None => Cow::Borrowed(detail),
        };
        let refusal = Rejection::because(Reason::RateLimited, detail)
            .retry_after(wait)
            .policy(&self.name);
        // The quotas of the windows have nothing to do with how many different ones there may be.
        let fields = self.fields.as_ref().filter(|_| why != Why::Spread);
        let told = fields.and_then(|fields| {
            let window = if fields.are_many() {
                self.scarcest(inputs)
            } else {
                0
            };
            fields.refused(window, wait)
        });
        let refusal = match told {
            Some(budget) => refusal.budget(budget),
            None => refusal,
        };
        match self.tarpit.as_ref().and_then(Tarpit::hold) {
            Some(hold) => refusal.hold(hold),
            None => refusal,
        }
    }

    fn no_seat(&self, why: NoSeat) -> Rejection {
        let detail = match why {
            NoSeat::LineFull => "as many requests of this key wait as may",
            NoSeat::TooLate => "no request of this key ended in time",
        };
        Rejection::because(Reason::ConcurrencyLimited, detail)
            .retry_after(Duration::from_secs(1))
            .policy(&self.name)
    }

    fn now(&self) -> u64 {
        self.timer.now().as_u64()
    }

    /// Forgets the keys that owe nothing. Takes time in proportion to the keys: for the admin thread, every few seconds.
    pub fn sweep(&self) {
        if let Some(buckets) = &self.budget {
            buckets.store.sweep(self.now());
        }
        if let Some(leases) = self
            .shared
            .as_ref()
            .and_then(|shared| shared.leases.as_ref())
        {
            leases.sweep(self.now());
        }
        if let Some(spread) = &self.spread {
            spread.sweep(self.now());
        }
    }

    /// How many keys are kept.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.budget
            .as_ref()
            .map_or(0, |buckets| buckets.store.keys())
    }

    /// What was decided so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let evicted = self.budget.as_ref().map(|buckets| buckets.store.evicted());
        let (evicted_clear, evicted_owing) = evicted.unwrap_or_default();
        let seen = self.spread.as_ref().map(Spread::seen).unwrap_or_default();
        Tally {
            spread: seen.over,
            highest_spread: seen.highest,
            allowed: count(&self.counts.allowed),
            refused: count(&self.counts.refused),
            exempt: count(&self.counts.exempt),
            unreadable: count(&self.counts.unreadable),
            failed: count(&self.counts.failed),
            bans: count(&self.counts.bans),
            evicted_clear,
            evicted_owing,
            alone: self.shared.as_ref().map(|shared| count(&shared.alone)),
            held: self.tarpit.as_ref().map(Tarpit::seen).unwrap_or_default(),
            waiting: self.seats.as_ref().map_or(0, |seats| seats.waiting()),
        }
    }
}

impl<C: Timer> fmt::Debug for Limit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("name", &self.name)
            .field("written", &self.written)
            .field("keys", &self.keys())
            .field("tally", &self.tally())
            .finish_non_exhaustive()
    }
}
