//! What this replica has leased of the budgets of a limit, and spends without asking.
//!
//! A batch is so small that the batches of all replicas together are less than a twentieth of the budget: that much may
//! pass beyond it, when leases of before are spent, or less than it, when leases are left over. Forgetting a lease is
//! always safe: it has been charged.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};

use super::super::budget::Left;
use super::super::key::Key;
use super::Decision;

/// The leases of one limit.
#[derive(Debug)]
pub(in crate::limit) struct Leases {
    shards: Box<[Mutex<HashMap<Key, Lease, RandomState>>]>,
    batch: u32,
    most_per_shard: usize,
}

/// One key's.
#[derive(Clone, Copy, Debug, Default)]
struct Lease {
    /// What is left to spend.
    credit: u32,
    /// Whether somebody asks for more.
    asking: bool,
    /// Until when the store has none.
    empty_until: u64,
    /// What the store had left when it was asked last, where clients are told.
    left: Option<Left>,
    /// When it was looked at last.
    seen: u64,
}

/// What a lease says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spent {
    /// It was paid for; `more`: and somebody should ask for another batch. `left`: as far as this replica knows.
    Paid { more: bool, left: Option<Left> },
    /// The store has none for so many nanoseconds.
    Empty(u64),
    /// The store must be asked for this much.
    Ask(u32),
}

const SHARDS: usize = 64;

/// A lease that nobody looked at for this long is forgotten.
const IDLE: Duration = Duration::from_secs(60);

/// The batches of all replicas are at most this part of the budget; half a batch more may be on its way.
const PART: u32 = 40;

impl Leases {
    /// Leases of a budget of so many; `None` where a batch would be nothing.
    pub(in crate::limit) fn of(depth: u32, replicas: u16, max_keys: usize) -> Self {
        let batch = depth / PART / u32::from(replicas.max(1));
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            batch: batch.max(1),
            most_per_shard: max_keys.div_ceil(SHARDS).max(16),
        }
    }

    pub(super) fn batch(&self) -> u32 {
        self.batch
    }

    /// Spends `cost`, if it is there.
    pub(super) fn spend(&self, key: Key, cost: u32, now: u64) -> Spent {
        let mut shard = self.shard(key);
        if shard.len() >= self.most_per_shard && !shard.contains_key(&key) {
            return Spent::Ask(cost); // a flood of keys takes nobody's lease away: newcomers ask each time
        }
        let lease = shard.entry(key).or_default();
        lease.seen = now;
        if lease.credit >= cost {
            lease.credit -= cost;
            let more = lease.credit <= self.batch / 2 && !lease.asking && lease.empty_until <= now;
            lease.asking |= more;
            let left = lease.left.map(|left| Left {
                count: left.count.saturating_add(lease.credit),
                full_in: left.full_in.saturating_sub(now),
                ..left
            });
            return Spent::Paid { more, left };
        }
        if lease.empty_until > now {
            return Spent::Empty(lease.empty_until - now);
        }
        if lease.asking {
            return Spent::Ask(cost); // a batch is on its way
        }
        lease.asking = true;
        Spent::Ask(self.batch.max(cost))
    }

    /// What came of asking for a request that has spent `cost` of it.
    pub(super) fn answered(&self, key: Key, cost: u32, decision: &Decision, now: u64) {
        let wait = match decision.why {
            Some(_) => decision.wait.saturating_mul(1_000),
            None => 0,
        };
        let credit = decision.charged.saturating_sub(cost);
        if let Some(lease) = self.shard(key).get_mut(&key) {
            lease.asking = false;
            // More than two batches pile up only where many asked at once; what is beyond is left to the others.
            lease.credit = lease
                .credit
                .saturating_add(credit)
                .min(self.batch.saturating_mul(2));
            lease.empty_until = if wait > 0 {
                now.saturating_add(wait)
            } else {
                0
            };
            // As a point in time: it is told later.
            lease.left = decision.left().map(|left| Left {
                full_in: now.saturating_add(left.full_in),
                ..left
            });
        }
    }

    /// Nothing came of asking.
    pub(super) fn unanswered(&self, key: Key) {
        if let Some(lease) = self.shard(key).get_mut(&key) {
            lease.asking = false;
            lease.empty_until = 0;
        }
    }

    /// Takes back what was paid by a request that something else refused.
    pub(super) fn give_back(&self, key: Key, cost: u32) {
        if let Some(lease) = self.shard(key).get_mut(&key) {
            lease.credit = lease.credit.saturating_add(cost);
        }
    }

    /// Forgets what nobody asks for.
    pub(in crate::limit) fn sweep(&self, now: u64) {
        let idle = u64::try_from(IDLE.as_nanos()).unwrap_or(u64::MAX);
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|_, lease| now.saturating_sub(lease.seen) < idle);
            shard.shrink_to_fit();
        }
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "masked by the number of shards, a power of two"
    )]
    fn shard(&self, key: Key) -> MutexGuard<'_, HashMap<Key, Lease, RandomState>> {
        let byte = usize::from(key.bits().to_be_bytes()[0]);
        self.shards[byte & (SHARDS - 1)].lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::budget::Why;

    fn key(number: u128) -> Key {
        Key::from_bits(number)
    }

    fn charged(charged: u32) -> Decision {
        Decision {
            charged,
            wait: 0,
            why: None,
            left: (0, 0, 0),
        }
    }

    /// For so many microseconds.
    fn refused(wait: u64) -> Decision {
        Decision {
            wait,
            why: Some(Why::Spent),
            ..charged(0)
        }
    }

    #[test]
    fn batches_of_all_replicas_are_a_small_part_of_the_budget() {
        for (depth, replicas) in [(100, 3), (1_000, 3), (100_000, 10), (10, 3)] {
            let batch = Leases::of(depth, replicas, 1).batch();
            let out = batch * u32::from(replicas) * 3 / 2;
            assert!(
                batch == 1 || out * 20 <= depth,
                "{depth} {replicas} {batch}"
            );
        }
    }

    #[test]
    fn a_lease_is_spent_then_asked_for_once() {
        let leases = Leases::of(1_200, 3, 1_000); // batches of 10
        assert_eq!(leases.spend(key(1), 1, 0), Spent::Ask(10));
        assert_eq!(
            leases.spend(key(1), 1, 0),
            Spent::Ask(1),
            "a batch is on its way"
        );
        leases.answered(key(1), 1, &charged(10), 0);
        let spent: Vec<_> = (0..9).map(|_| leases.spend(key(1), 1, 0)).collect();
        let more = spent
            .iter()
            .filter(|spent| matches!(spent, Spent::Paid { more: true, .. }));
        assert_eq!(more.count(), 1);
        assert!(
            spent
                .iter()
                .all(|spent| matches!(spent, Spent::Paid { .. }))
        );
        leases.answered(key(1), 0, &refused(1), 0);
        assert_eq!(leases.spend(key(1), 1, 200), Spent::Empty(800));
        assert_eq!(leases.spend(key(1), 1, 1_000), Spent::Ask(10));
        leases.give_back(key(1), 1);
        let paid = leases.spend(key(1), 1, 1_000);
        assert!(matches!(paid, Spent::Paid { more: false, .. }), "{paid:?}");
    }

    #[test]
    fn what_is_left_is_what_the_store_had_and_what_is_leased_here() {
        let leases = Leases::of(1_200, 3, 1_000);
        leases.spend(key(1), 1, 0);
        let told = Decision {
            left: (0, 500, 7),
            ..charged(10)
        };
        leases.answered(key(1), 1, &told, 0);
        let Spent::Paid { left, .. } = leases.spend(key(1), 1, 2_000) else {
            panic!("nine are leased");
        };
        let left = left.unwrap();
        assert_eq!((left.count, left.full_in), (508, 5_000));
    }

    #[test]
    fn leases_are_bounded_and_idle_ones_forgotten() {
        let leases = Leases::of(100, 3, 1_000);
        leases.spend(key(7), 1, 0);
        leases.answered(key(7), 0, &charged(1), 0);
        for number in 1..10_000_u128 {
            leases.spend(key(number << 114), 1, 0);
        }
        let kept_lease = leases.spend(key(7), 1, 0);
        assert!(matches!(kept_lease, Spent::Paid { .. }), "{kept_lease:?}");
        let kept = || {
            leases
                .shards
                .iter()
                .map(|shard| shard.lock().len())
                .sum::<usize>()
        };
        assert!(kept() <= 1_024, "{}", kept());
        leases.sweep(60_000_000_000);
        assert_eq!(kept(), 0);
    }
}
