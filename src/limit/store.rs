//! Where the words of all keys of one limit stand: a sharded table with a ceiling.
//!
//! Keys stand side by side in one array a shard, with an index over it, so that a decision touches two or three lines
//! of memory under a lock that it shares with one in [`SHARDS`] others. At `max_keys`, a newcomer takes the place of
//! the key that has the least left to pay among a few drawn at random: one that owes nothing if there is one, else
//! the one that soonest will. What that one still had to wait for goes into [`Debts`], so that a flood of keys buys
//! nobody a full bucket, and no key goes uncounted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};

use super::budget::Layout;
use super::debts::{Debts, Unit};
use super::key::Key;

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
    /// Positions in `slots`, by key.
    index: HashTable<u32>,
    /// For each key two words of key, then its own.
    slots: Vec<u64>,
    stride: usize,
    debts: Debts,
    dice: u64,
}

/// A sweep holds one shard at a time: many shards keep the wait of a request behind it short.
const SHARDS: usize = 128;
/// A shard with fewer keys could not choose whom to evict.
const LEAST_PER_SHARD: usize = 512;
/// Keys drawn to find the one to evict.
const DRAWN: usize = 8;
/// Words that a key itself takes.
const KEY_WORDS: usize = 2;

impl Store {
    pub(super) fn new(layout: Layout, spans: &[u64], max_keys: usize) -> Self {
        let shards = (max_keys / LEAST_PER_SHARD).clamp(1, SHARDS);
        let shards = 1 << shards.ilog2();
        let shard = |n| Mutex::new(Shard::new(KEY_WORDS + layout.words, n));
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
        let position = match shard.find(key) {
            Some(position) => position,
            None => self.insert(&mut shard, key, now),
        };
        work(shard.words(position))
    }

    /// Works on the words of `key` if it has some.
    pub(super) fn existing<T>(&self, key: Key, work: impl FnOnce(&mut [u64]) -> T) -> Option<T> {
        let mut shard = self.shard(key);
        let position = shard.find(key)?;
        Some(work(shard.words(position)))
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
            shard.shrink();
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
        let position = shard.push(key);
        if !shard.debts.is_empty() {
            let Shard {
                slots,
                debts,
                stride,
                ..
            } = shard;
            let times = slots.get_mut(position * *stride + KEY_WORDS..);
            let times = times.and_then(|words| words.get_mut(..self.layout.times));
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
        let Some(position) = shard.least_harmful(self.layout, now) else {
            return false;
        };
        let owes = self.layout.clear_at(shard.words(position)) > now;
        if owes {
            let capacity = self.max_keys.div_ceil(self.shards.len());
            shard.remember(position, self.layout, &self.units, now, capacity);
        }
        let counter = if owes {
            &self.evicted_owing
        } else {
            &self.evicted_clear
        };
        counter.fetch_add(1, Ordering::Relaxed);
        shard.remove(position);
        true
    }
}

impl Shard {
    fn new(stride: usize, seed: usize) -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            stride,
            debts: Debts::default(),
            dice: seed as u64 + 1,
        }
    }

    fn len(&self) -> usize {
        self.index.len()
    }

    fn find(&self, key: Key) -> Option<usize> {
        let names = |position: &u32| key_at(&self.slots, self.stride, *position) == Some(key);
        let found = self.index.find(hash(key), names)?;
        usize::try_from(*found).ok()
    }

    fn words(&mut self, position: usize) -> &mut [u64] {
        let start = position * self.stride;
        let slot = self.slots.get_mut(start + KEY_WORDS..start + self.stride);
        slot.unwrap_or_default()
    }

    /// Appends a key that is not there yet, with words that are zero.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "positions are below max_keys, a u32"
    )]
    fn push(&mut self, key: Key) -> usize {
        let position = self.len();
        let bits = key.bits();
        self.slots.extend([(bits >> 64) as u64, bits as u64]);
        self.slots.resize((position + 1) * self.stride, 0);
        let (slots, stride) = (&self.slots, self.stride);
        let rehash = |position: &u32| key_at(slots, stride, *position).map_or(0, hash);
        self.index.insert_unique(hash(key), position as u32, rehash);
        position
    }

    /// Removes a key; the last one takes its position.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "positions are below max_keys, a u32"
    )]
    fn remove(&mut self, position: usize) {
        let last = self.len() - 1;
        let at = |position: usize| key_at(&self.slots, self.stride, position as u32);
        let (Some(gone), Some(moved)) = (at(position), at(last)) else {
            return;
        };
        let entry = self
            .index
            .find_entry(hash(gone), |at| *at == position as u32);
        if let Ok(entry) = entry {
            entry.remove();
        }
        if position != last
            && let Some(at) = self.index.find_mut(hash(moved), |at| *at == last as u32)
        {
            *at = position as u32;
        }
        let from = last * self.stride;
        self.slots.copy_within(from.., position * self.stride);
        self.slots.truncate(from);
    }

    /// Of some keys drawn at random, the one that owes nothing soonest.
    fn least_harmful(&mut self, layout: Layout, now: u64) -> Option<usize> {
        let mut least = None;
        for _ in 0..DRAWN {
            let position = self.draw()?;
            let clear_at = layout.clear_at(self.words(position));
            if clear_at <= now {
                return Some(position);
            }
            if least.is_none_or(|(_, earliest)| clear_at < earliest) {
                least = Some((position, clear_at));
            }
        }
        least.map(|(position, _)| position)
    }

    /// A position at random (Marsaglia's xorshift): keys are placed by a secret hash, so that nothing can be aimed.
    fn draw(&mut self) -> Option<usize> {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        usize::try_from(self.dice >> 16)
            .ok()?
            .checked_rem(self.len())
    }

    fn remember(
        &mut self,
        position: usize,
        layout: Layout,
        units: &[Unit],
        now: u64,
        capacity: usize,
    ) {
        let Some(key) = u32::try_from(position)
            .ok()
            .and_then(|at| key_at(&self.slots, self.stride, at))
        else {
            return;
        };
        let start = position * self.stride + KEY_WORDS;
        let times = self
            .slots
            .get(start..start + layout.times)
            .unwrap_or_default();
        self.debts.keep(key, times, units, now, capacity);
    }

    /// Forgets the keys that owe nothing; from the back, so that what moves was looked at already.
    fn forget_clear(&mut self, layout: Layout, now: u64) -> usize {
        let before = self.len();
        for position in (0..before).rev() {
            if layout.clear_at(self.words(position)) <= now {
                self.remove(position);
            }
        }
        before - self.len()
    }

    /// Moving what is about to grow again would be work for nothing.
    fn shrink(&mut self) {
        if self.slots.capacity() / 4 > self.slots.len() {
            self.slots.shrink_to_fit();
            let (slots, stride) = (&self.slots, self.stride);
            let rehash = |position: &u32| key_at(slots, stride, *position).map_or(0, hash);
            self.index.shrink_to_fit(rehash);
        }
    }
}

fn key_at(slots: &[u64], stride: usize, position: u32) -> Option<Key> {
    let start = usize::try_from(position).ok()? * stride;
    match slots.get(start..start + KEY_WORDS)? {
        [high, low] => Some(Key::from_bits(u128::from(*high) << 64 | u128::from(*low))),
        _ => None,
    }
}

/// Keys are hashes already.
#[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn hash(key: Key) -> u64 {
    key.bits() as u64
}
