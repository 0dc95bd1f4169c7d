//! Where the words of all keys of one limit stand: a sharded table with a ceiling.
//!
//! Each shard is a table of its own ([`Slots`]) under a lock that a decision shares with one in [`SHARDS`] others. At
//! `max_keys`, a newcomer takes the place of the key that has the least left to pay among a few drawn at random: one
//! that owes nothing if there is one, else the one that soonest will. What that one still had to wait for goes into
//! [`Debts`], so that a flood of keys buys nobody a full bucket, and no key goes uncounted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::budget::Layout;
use super::debts::{Debts, Unit};
use super::key::Key;
use super::slots::Slots;

/// The keys of one limit.
#[derive(Debug)]
pub(super) struct Store {
    shards: Box<[Mutex<Shard>]>,
    layout: Layout,
    units: Box<[Unit]>,
    max_keys: usize,
    kept: AtomicUsize,
    evicted_clear: AtomicU64,
    evicted_owing: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    slots: Slots,
    debts: Debts,
    dice: u64,
}

/// A sweep holds one shard at a time: many shards keep the wait of a request behind it short.
const SHARDS: usize = 128;
/// A shard with fewer keys could not choose whom to evict.
const LEAST_PER_SHARD: usize = 512;
/// Places drawn to find the key to evict: at two of three there is one.
const DRAWN: usize = 12;
/// Places that are all looked at.
const FEW: usize = 4 * DRAWN;

impl Store {
    pub(super) fn new(layout: Layout, spans: &[u64], max_keys: usize) -> Self {
        let shards = (max_keys / LEAST_PER_SHARD).clamp(1, SHARDS);
        let shards = 1 << shards.ilog2();
        let shard = |n| Mutex::new(Shard::new(layout.words, n));
        Self {
            shards: (0..shards).map(shard).collect(),
            layout,
            units: Unit::of(spans),
            max_keys,
            kept: AtomicUsize::new(0),
            evicted_clear: AtomicU64::new(0),
            evicted_owing: AtomicU64::new(0),
        }
    }

    /// Works on the words of `key`, which are made, all zero, where there are none.
    pub(super) fn at<T>(&self, key: Key, now: u64, work: impl FnOnce(&mut [u64]) -> T) -> T {
        let mut shard = self.shard(key);
        let position = match shard.slots.find(key) {
            Some(position) => position,
            None => self.insert(&mut shard, key, now),
        };
        work(shard.slots.words(position))
    }

    /// Works on the words of `key` if it has some.
    pub(super) fn existing<T>(&self, key: Key, work: impl FnOnce(&mut [u64]) -> T) -> Option<T> {
        let mut shard = self.shard(key);
        let position = shard.slots.find(key)?;
        Some(work(shard.slots.words(position)))
    }

    /// How many keys are kept.
    pub(super) fn keys(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Keys that made room for others: those that owed nothing, and those that still did.
    pub(super) fn evicted(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.evicted_clear), count(&self.evicted_owing))
    }

    /// Forgets the keys that owe nothing, and gives the memory of a flood that has passed back.
    pub(super) fn sweep(&self, now: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let gone = shard.forget_clear(self.layout, now);
            shard.slots.shrink();
            drop(shard);
            self.kept.fetch_sub(gone, Ordering::Relaxed);
        }
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "masked by the number of shards, a power of two"
    )]
    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        let high = usize::from(key.bits().to_be_bytes()[0]);
        self.shards[high & (self.shards.len() - 1)].lock()
    }

    #[cold]
    fn insert(&self, shard: &mut Shard, key: Key, now: u64) -> usize {
        if !self.claim() && !self.evict(shard, now) {
            self.kept.fetch_add(1, Ordering::Relaxed); // nobody here to evict: one more than asked for, for each shard
        }
        let Shard { slots, debts, .. } = shard;
        let position = slots.insert(key);
        if !debts.is_empty() {
            let times = slots.words(position).get_mut(..self.layout.times);
            debts.recall(key, times.unwrap_or_default(), &self.units, now);
        }
        position
    }

    /// Claims room for one more key.
    fn claim(&self) -> bool {
        let more = |kept| (kept < self.max_keys).then_some(kept + 1);
        self.kept
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn evict(&self, shard: &mut Shard, now: u64) -> bool {
        let Some(position) = shard.least_harmful(self.layout) else {
            return false;
        };
        let Shard { slots, debts, .. } = shard;
        let Some((key, words)) = slots.entry(position) else {
            return false;
        };
        let counter = if self.layout.clear_at(words) > now {
            let capacity = self.max_keys.div_ceil(self.shards.len());
            let times = words.get(..self.layout.times).unwrap_or_default();
            debts.keep(key, times, &self.units, now, capacity);
            &self.evicted_owing
        } else {
            &self.evicted_clear
        };
        counter.fetch_add(1, Ordering::Relaxed);
        slots.remove(position);
        true
    }
}

impl Shard {
    fn new(words: usize, seed: usize) -> Self {
        Self {
            slots: Slots::new(words),
            debts: Debts::default(),
            dice: seed as u64 + 1,
        }
    }

    /// Of some keys drawn at random, the one that owes nothing soonest; of all, where there are few.
    fn least_harmful(&mut self, layout: Layout) -> Option<usize> {
        let Self { slots, dice, .. } = self;
        if slots.slots() <= FEW {
            return soonest((0..slots.slots()).map(|place| seen(slots, place, layout)));
        }
        let mut drawn = [Seen::default(); DRAWN];
        for one in &mut drawn {
            *one = seen(slots, slots.place(throw(dice)), layout);
        }
        soonest(drawn.into_iter()).or_else(|| slots.next_from(slots.place(throw(dice))))
    }

    /// Forgets the keys that owe nothing.
    fn forget_clear(&mut self, layout: Layout, now: u64) -> usize {
        let before = self.slots.len();
        self.slots.retain(|words| layout.clear_at(words) > now);
        before - self.slots.len()
    }
}

/// A place that was looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    place: usize,
    is_taken: bool,
    clear_at: u64,
}

fn seen(slots: &Slots, place: usize, layout: Layout) -> Seen {
    let (is_taken, words) = slots.look(place);
    Seen {
        place,
        is_taken,
        clear_at: layout.clear_at(words),
    }
}

fn soonest(places: impl Iterator<Item = Seen>) -> Option<usize> {
    let least = places
        .filter(|seen| seen.is_taken)
        .min_by_key(|seen| seen.clear_at);
    least.map(|seen| seen.place)
}

/// Marsaglia's xorshift: keys are placed by a secret hash, so that nothing can be aimed.
fn throw(dice: &mut u64) -> u64 {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    *dice
}
