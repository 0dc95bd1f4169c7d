//! Where the buckets of one limit stand: a sharded map with a ceiling.
//!
//! Beyond `max_keys`, keys that are not in the map share one bucket of the same size until a sweep makes room. That is
//! hard on newcomers during a flood of keys, and safe: no key ever goes uncounted, and no flood takes memory without
//! end. Whoever was counted before stays counted alone.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use governor::nanos::Nanos;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};
use governor::state::{InMemoryState, NotKeyed, StateStore};

use super::key::Key;

/// The buckets.
pub(super) struct Store {
    buckets: DashMapStateStore<Key, BuildHasherDefault<Folded>>,
    overflow: InMemoryState,
    max_keys: usize,
    kept: AtomicUsize,
    overflowed: Arc<AtomicU64>,
}

/// A sweep holds one shard at a time: many shards keep the wait of a request behind it short.
const SHARDS: usize = 128;

impl Store {
    pub(super) fn new(max_keys: usize) -> Self {
        Self {
            buckets: DashMapStateStore::with_hasher_and_shard_amount(
                BuildHasherDefault::default(),
                SHARDS,
            ),
            overflow: InMemoryState::default(),
            max_keys,
            kept: AtomicUsize::new(0),
            overflowed: Arc::new(AtomicU64::new(0)),
        }
    }

    /// The counter of decisions that the shared bucket took; it outlives the move of the store into the limiter.
    pub(super) fn overflowed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.overflowed)
    }

    /// Claims room for one more key.
    fn claim(&self) -> bool {
        self.kept
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |kept| {
                (kept < self.max_keys).then_some(kept + 1)
            })
            .is_ok()
    }

    fn release(&self, count: usize) {
        self.kept.fetch_sub(count, Ordering::Relaxed);
    }
}

impl StateStore for Store {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(bucket) = self.buckets.get(key) {
            return bucket.measure_and_replace(&NotKeyed::NonKey, f);
        }
        if !self.claim() {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            return self.overflow.measure_and_replace(&NotKeyed::NonKey, f);
        }
        let mut claim_used = false;
        let bucket = self.buckets.entry(*key).or_insert_with(|| {
            claim_used = true;
            InMemoryState::default()
        });
        if !claim_used {
            self.release(1); // another worker met this key in the same moment
        }
        bucket.measure_and_replace(&NotKeyed::NonKey, f)
    }
}

impl ShrinkableKeyedStateStore<Key> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        self.buckets.retain(|_, bucket| {
            let keep = full_at(bucket) > drop_below;
            if !keep {
                self.release(1);
            }
            keep
        });
    }

    /// Rehashing what is about to grow again would be work for nothing.
    fn shrink_to_fit(&self) {
        if self.buckets.capacity() / 4 > self.kept.load(Ordering::Relaxed) {
            self.buckets.shrink_to_fit();
        }
    }

    fn len(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads a bucket without a change: governor changes nothing for a measure that fails.
fn full_at(bucket: &InMemoryState) -> Nanos {
    let seen: Result<(), Option<Nanos>> = bucket.measure_and_replace(&NotKeyed::NonKey, Err);
    seen.err().flatten().unwrap_or_default()
}

/// The hasher of keys that are hashes already: half of the 128 bits place the bucket, all of them tell keys apart.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Folded(u64);

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
    fn write_u128(&mut self, folded: u128) {
        self.0 = folded as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
