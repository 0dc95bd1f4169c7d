//! How many different accounts one network tries, and how many networks try one account: what no rate sees, because
//! each of them stays below it.
//!
//! Memory is bounded: sketches stand in sets of [`WAYS`], and where a set is full, the one that has seen the fewest
//! values makes room. Nobody can choose the set that a key falls into, so that an attacker cannot push out the own one.

mod registers;
mod sketch;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::inputs::KeyInputs;
use super::key::{Key, KeyPlan};
use sketch::{SLICES, Sketch};

/// The sketches of one limit.
pub(super) struct Spread {
    /// What is counted for each key of the limit.
    of: KeyPlan,
    most: u32,
    /// Whether only what fails is noted.
    learns: bool,
    /// The length of a slice, in nanoseconds.
    slice: u64,
    sets: Box<[Mutex<Vec<Sketch>>]>,
    over: AtomicU64,
    highest: AtomicU32,
}

/// What a request names whose outcome decides whether that is noted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    hash: u32,
    takes_place: bool,
}

/// What a limit has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Requests that were one value too many.
    pub(super) over: u64,
    /// The most values of one key in the window, as of the last sweep.
    pub(super) highest: u32,
}

impl Spread {
    pub(super) fn new(of: KeyPlan, most: u32, per: u64, learns: bool) -> Self {
        Self {
            of,
            most,
            learns,
            slice: (per / (SLICES as u64 - 1)).max(1),
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
            over: AtomicU64::new(0),
            highest: AtomicU32::new(0),
        }
    }

    /// What is counted.
    pub(super) fn of(&self) -> &KeyPlan {
        &self.of
    }

    /// Notes what a request of `key` names; where only failures are noted, holds a place for it, which
    /// [`Spread::settle`] ends.
    ///
    /// # Errors
    /// The nanoseconds until one more value has room, if this one has none.
    pub(super) fn note(
        &self,
        key: Key,
        inputs: &KeyInputs<'_>,
        now: u64,
    ) -> Result<Option<Named>, u64> {
        let (hash, slice) = (hash(self.of.of(inputs)), now / self.slice);
        let noted = self.set(key).and_then(|set| {
            let mut set = set.lock();
            let sketch = find(&mut set, key, slice)?;
            if self.learns && sketch.has_room(hash, self.most) {
                let takes_place = sketch.hold(hash);
                return Some(Ok(Some(Named { hash, takes_place })));
            }
            let is_noted = !self.learns && sketch.note(hash, self.most);
            Some(
                is_noted
                    .then_some(None)
                    .ok_or_else(|| sketch.room_in(self.most)),
            )
        });
        match noted {
            Some(Ok(named)) => Ok(named),
            Some(Err(slices)) => {
                self.over.fetch_add(1, Ordering::Relaxed);
                Err(self.until(slice.saturating_add(slices), now))
            }
            None => Err(self.slice), // a set without its sketch: never let it through
        }
    }

    /// Ends the wait for the outcome of a request.
    pub(super) fn settle(&self, key: Key, named: Named, failed: bool, now: u64) {
        let Some(set) = self.set(key) else { return };
        let mut set = set.lock();
        let sketch = if failed {
            find(&mut set, key, now / self.slice)
        } else {
            set.iter_mut().find(|sketch| sketch.key == key)
        };
        let Some(sketch) = sketch else { return };
        if named.takes_place {
            sketch.release();
        }
        if failed {
            sketch.note(named.hash, self.most);
        }
    }

    /// How long until a request would be noted.
    pub(super) fn wait(&self, key: Key, inputs: &KeyInputs<'_>, now: u64) -> u64 {
        let (hash, slice) = (hash(self.of.of(inputs)), now / self.slice);
        let slices = self.set(key).and_then(|set| {
            let mut set = set.lock();
            let sketch = set.iter_mut().find(|sketch| sketch.key == key)?;
            sketch.age(slice);
            let refused = !sketch.has_room(hash, self.most);
            refused.then(|| sketch.room_in(self.most))
        });
        slices.map_or(0, |slices| self.until(slice.saturating_add(slices), now))
    }

    /// The time until a slice begins.
    fn until(&self, slice: u64, now: u64) -> u64 {
        slice.saturating_mul(self.slice).saturating_sub(now).max(1)
    }

    /// Drops the sketches whose window is over.
    pub(super) fn sweep(&self, now: u64) {
        let slice = now / self.slice;
        let mut highest = 0;
        for set in &self.sets {
            set.lock().retain_mut(|sketch| {
                sketch.age(slice);
                highest = highest.max(sketch.count());
                sketch.at_most() > 0
            });
        }
        self.highest.store(highest, Ordering::Relaxed);
    }

    pub(super) fn seen(&self) -> Seen {
        Seen {
            over: self.over.load(Ordering::Relaxed),
            highest: self.highest.load(Ordering::Relaxed),
        }
    }

    fn set(&self, key: Key) -> Option<&Mutex<Vec<Sketch>>> {
        let position = usize::try_from(key.bits() % SETS as u128).ok()?;
        self.sets.get(position)
    }
}

/// The sketch of `key`; a new one takes the place of whichever has seen least where the set is full.
fn find(set: &mut Vec<Sketch>, key: Key, slice: u64) -> Option<&mut Sketch> {
    if !set.iter().any(|sketch| sketch.key == key) {
        if set.len() >= WAYS {
            set.iter_mut().for_each(|sketch| sketch.age(slice));
            let sketches = set.iter().enumerate();
            let least = sketches.min_by_key(|(_, sketch)| (sketch.at_most(), sketch.newest()));
            set.swap_remove(least.map_or(0, |(position, _)| position));
        }
        set.push(Sketch::new(key, slice));
    }
    let sketch = set.iter_mut().find(|sketch| sketch.key == key)?;
    sketch.age(slice);
    Some(sketch)
}

/// Keys are hashes already: any part of one is as good as another.
#[allow(clippy::cast_possible_truncation, reason = "the upper half is meant")]
fn hash(key: Key) -> u32 {
    (key.bits() >> 96) as u32
}

const SETS: usize = 8_192;
const WAYS: usize = 8;
