//! How many at once: seats of a key, and a short line in front of them.
//!
//! Whoever waits longest is next. A key is kept only while somebody sits, so that there are never more keys than
//! exchanges in flight. Seats are given back by dropping them, whatever becomes of the exchange; one that was handed to
//! somebody who has left in that moment goes on to the next.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::key::Key;

/// The seats of one limit.
pub(super) struct Seats {
    shards: Box<[Mutex<Shard>]>,
    most: u32,
    queue: usize,
    patience: Duration,
    waiting: AtomicU64,
}

type Shard = HashMap<Key, Line, BuildHasherDefault<Folded>>;

/// Who sits, and who waits.
#[derive(Default)]
struct Line {
    taken: u32,
    waiting: VecDeque<oneshot::Sender<Seat>>,
}

/// One place among those under way. Dropping it gives it to whoever waits.
pub(super) struct Seat(Option<(Arc<Seats>, Key)>);

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSeat {
    /// As many wait already as may.
    LineFull,
    /// None became free in time.
    TooLate,
}

const SHARDS: usize = 32;

impl Seats {
    pub(super) fn new(most: u32, queue: u32, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            most,
            queue: usize::try_from(queue).unwrap_or(usize::MAX),
            patience,
            waiting: AtomicU64::new(0),
        })
    }

    /// A seat, if one is free and nobody waits for it.
    pub(super) fn free(self: &Arc<Self>, key: Key) -> Option<Seat> {
        let mut shard = self.shard(key);
        let line = shard.entry(key).or_default();
        if line.taken >= self.most {
            return None;
        }
        line.taken += 1;
        drop(shard);
        Some(Seat(Some((Arc::clone(self), key))))
    }

    /// A seat, after a wait if need be.
    pub(super) async fn wait(self: &Arc<Self>, key: Key) -> Result<Seat, NoSeat> {
        let Some(turn) = self.join(key)? else {
            return self.free(key).ok_or(NoSeat::TooLate);
        };
        let _counted = Counted::new(&self.waiting);
        match tokio::time::timeout(self.patience, turn).await {
            Ok(Ok(seat)) => Ok(seat),
            // The line is never let down; and one who is handed a seat just now drops it, so that it goes on.
            Ok(Err(_)) | Err(_) => Err(NoSeat::TooLate),
        }
    }

    /// How many wait now.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A place in the line; `None` if a seat became free meanwhile.
    fn join(&self, key: Key) -> Result<Option<oneshot::Receiver<Seat>>, NoSeat> {
        let mut shard = self.shard(key);
        let Some(line) = shard.get_mut(&key).filter(|line| line.taken >= self.most) else {
            return Ok(None);
        };
        if line.waiting.len() >= self.queue {
            line.waiting.retain(|turn| !turn.is_closed());
        }
        if line.waiting.len() >= self.queue {
            return Err(NoSeat::LineFull);
        }
        let (turn, seat) = oneshot::channel();
        line.waiting.push_back(turn);
        Ok(Some(seat))
    }

    fn leave(self: &Arc<Self>, key: Key) {
        while let Some(next) = self.next(key) {
            match next.send(Seat(Some((Arc::clone(self), key)))) {
                Ok(()) => return,
                Err(mut seat) => seat.0 = None, // nobody there: it is still ours
            }
        }
    }

    /// Who is next; if nobody is, the seat is free.
    fn next(&self, key: Key) -> Option<oneshot::Sender<Seat>> {
        let mut shard = self.shard(key);
        let line = shard.get_mut(&key)?;
        let next = line.waiting.pop_front();
        if next.is_none() {
            line.taken = line.taken.saturating_sub(1);
            if line.taken == 0 {
                shard.remove(&key);
            }
        }
        next
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "masked by the number of shards, a power of two"
    )]
    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        let high = usize::from(key.bits().to_be_bytes()[0]);
        self.shards[high & (SHARDS - 1)].lock()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((seats, key)) = self.0.take() {
            seats.leave(key);
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}

impl fmt::Debug for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seats")
            .field("most", &self.most)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// Counts one who waits for as long as it does.
struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The hasher of keys that are hashes already: half of the 128 bits place the line, all of them tell keys apart.
#[derive(Clone, Copy, Debug, Default)]
struct Folded(u64);

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
