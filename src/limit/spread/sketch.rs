//! The different values that one key was seen with, over a window that slides in thirds.
//!
//! Up to [`EXACT`] values of a slice are kept as parts of their hashes, so that a value which is known can be told from
//! one that is new: whoever sprays is stopped, and who shares the key with them and comes again is not. Beyond that,
//! registers estimate, and nobody can be told apart any more.

use super::registers::{self, Registers};
use crate::limit::key::Key;

/// Values of one key.
#[derive(Debug)]
pub(super) struct Sketch {
    pub(super) key: Key,
    /// The current slice first.
    slices: [Slice; SLICES],
    /// The number of the current slice.
    newest: u64,
    /// How many different values the slices hold together.
    count: u32,
    /// Values under way that may still turn out to count.
    pending: u32,
}

#[derive(Debug)]
enum Slice {
    Exact(Vec<u32>),
    Rough(Box<Registers>),
}

/// A window of length `per` is seen whole by slices of half its length, one of which is under way.
pub(super) const SLICES: usize = 3;

const EXACT: usize = 64;

impl Sketch {
    pub(super) fn new(key: Key, newest: u64) -> Self {
        Self {
            key,
            slices: Default::default(),
            newest,
            count: 0,
            pending: 0,
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// How many there will be if all under way count.
    pub(super) fn at_most(&self) -> u32 {
        self.count.saturating_add(self.pending)
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Forgets the slices that are over.
    pub(super) fn age(&mut self, now: u64) {
        let steps = now.saturating_sub(self.newest);
        if steps == 0 {
            return;
        }
        self.newest = now;
        let steps = usize::try_from(steps).unwrap_or(SLICES).min(SLICES);
        self.slices.rotate_right(steps);
        for slice in self.slices.iter_mut().take(steps) {
            *slice = Slice::default();
        }
        self.count = union(&self.slices);
    }

    /// Whether a value is known or has room.
    pub(super) fn has_room(&self, hash: u32, most: u32) -> bool {
        match self.knows(hash) {
            Some(known) => known || self.at_most() < most,
            None => self.at_most() <= most,
        }
    }

    /// Holds a place for a value until it is known whether it counts; whether it takes one.
    pub(super) fn hold(&mut self, hash: u32) -> bool {
        let takes = self.knows(hash) != Some(true);
        self.pending = self.pending.saturating_add(u32::from(takes));
        takes
    }

    /// Gives such a place back.
    pub(super) fn release(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// Notes a value, unless it is one more than `most`. Whether it was noted, or known.
    pub(super) fn note(&mut self, hash: u32, most: u32) -> bool {
        if !self.has_room(hash, most) {
            return false;
        }
        if self.knows(hash) == Some(false) {
            self.count += 1;
        }
        let [current, ..] = &mut self.slices;
        let changed = current.add(hash);
        if changed && self.is_rough() {
            self.count = union(&self.slices);
        }
        true
    }

    /// In how many slices from now a new value would be noted.
    pub(super) fn room_in(&self, most: u32) -> u64 {
        // What is under way now will stand in the current slice.
        let kept = |slices: usize| match slices {
            0 => 0,
            _ => union(self.slices.get(..slices).unwrap_or_default()).saturating_add(self.pending),
        };
        let enough = (0..SLICES).rev().find(|slices| kept(*slices) < most.max(1));
        (SLICES - enough.unwrap_or(0)) as u64
    }

    /// `None` where that cannot be told.
    fn knows(&self, hash: u32) -> Option<bool> {
        let mut known = false;
        for slice in &self.slices {
            match slice {
                Slice::Exact(hashes) => known |= hashes.contains(&hash),
                Slice::Rough(_) => return None,
            }
        }
        Some(known)
    }

    fn is_rough(&self) -> bool {
        let rough = |slice: &Slice| matches!(slice, Slice::Rough(_));
        self.slices.iter().any(rough)
    }
}

impl Slice {
    /// Whether that changed anything.
    fn add(&mut self, hash: u32) -> bool {
        match self {
            Self::Exact(hashes) if hashes.contains(&hash) => return false,
            Self::Exact(hashes) if hashes.len() < EXACT => hashes.push(hash),
            Self::Exact(_) => {
                let mut registers = Box::new([0; registers::COUNT]);
                self.add_to(&mut registers);
                registers::note(&mut registers, hash);
                *self = Self::Rough(registers);
            }
            Self::Rough(registers) => registers::note(registers, hash),
        }
        true
    }

    fn add_to(&self, registers: &mut Registers) {
        match self {
            Self::Exact(hashes) => {
                for hash in hashes {
                    registers::note(registers, *hash);
                }
            }
            Self::Rough(others) => registers::merge(registers, others),
        }
    }
}

impl Default for Slice {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

fn union(slices: &[Slice]) -> u32 {
    let exact = |slice: &Slice| match slice {
        Slice::Exact(hashes) => Some(hashes.clone()),
        Slice::Rough(_) => None,
    };
    let together: Option<Vec<Vec<u32>>> = slices.iter().map(exact).collect();
    if let Some(together) = together {
        let mut hashes = together.concat();
        hashes.sort_unstable();
        hashes.dedup();
        return u32::try_from(hashes.len()).unwrap_or(u32::MAX);
    }
    let mut registers = [0; registers::COUNT];
    slices.iter().for_each(|slice| slice.add_to(&mut registers));
    registers::estimate(&registers)
}
