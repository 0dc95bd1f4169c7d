//! What the store remembers of keys that had to make room: coarsely, in 8 bytes each.
//!
//! A flood of keys evicts others, and an offender that was evicted must not come back with a full bucket. Each time
//! that a key still had to wait for is kept in a table of fixed size under a fingerprint of 29 bits, rounded up by at
//! most 1/4096 of the longest wait, and decays by itself. A newcomer is taken for somebody else once in about
//! 30 million times, and then waits as that one would have. Where a set of the table is full, the time that ends first
//! makes room: more offenders than the table has places are remembered by how much they owe.

use super::key::Key;

/// The times of evicted keys, of one shard of the store.
#[derive(Debug, Default)]
pub(super) struct Debts {
    cells: Box<[Cell]>,
}

/// Which of the times of a key is meant, and in which unit it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    kind: u64,
    shift: u32,
}

/// Fingerprint (29 bits), kind (3 bits), end of the wait in units (32 bits, wrapping). 0: free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell(u64);

/// Cells that a key can stand in: one line of the processor's cache.
const WAYS: usize = 8;

impl Unit {
    /// The units of times that lie at most `spans` ahead.
    pub(super) fn of(spans: &[u64]) -> Box<[Self]> {
        let units = (0..).zip(spans).map(|(kind, span)| Self {
            kind,
            shift: (u64::BITS - span.leading_zeros()).saturating_sub(RESOLUTION),
        });
        units.collect()
    }

    /// The time, rounded up.
    #[allow(clippy::cast_possible_truncation, reason = "wraps on purpose")]
    fn coarse(self, time: u64) -> u32 {
        ((time >> self.shift) + 1) as u32
    }

    /// How long after `now` a cell's time lies; 0 if it has passed.
    #[allow(clippy::cast_possible_truncation, reason = "wraps on purpose")]
    fn remaining(self, cell: Cell, now: u64) -> u64 {
        let ahead = cell.until().wrapping_sub((now >> self.shift) as u32);
        if ahead > FURTHEST {
            return 0;
        }
        u64::from(ahead) << self.shift
    }
}

impl Debts {
    /// Whether nothing was ever kept.
    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Keeps the `times` of an evicted key, one for each of `units`, in a table for the times of `capacity` of them.
    pub(super) fn keep(
        &mut self,
        key: Key,
        times: &[u64],
        units: &[Unit],
        now: u64,
        capacity: usize,
    ) {
        if self.cells.is_empty() {
            let cells = capacity * units.len();
            self.cells = vec![Cell::default(); cells.next_multiple_of(WAYS)].into();
        }
        for (unit, time) in units.iter().zip(times).filter(|(_, time)| **time > now) {
            let new = Cell::new(key, *unit, *time);
            let Some(set) = self.set(key) else { return };
            let mut least = (u64::MAX, None);
            for cell in set {
                if cell.names() == new.names() {
                    least = (0, Some(cell));
                    break;
                }
                let remaining = cell.remaining(units, now);
                if remaining < least.0 {
                    least = (remaining, Some(cell));
                }
            }
            if let (remaining, Some(cell)) = least
                && remaining < *time - now
            {
                *cell = new;
            }
        }
    }

    /// What a key that comes back has to wait for, written into `times`. The table forgets it: the key has its own
    /// words again.
    pub(super) fn recall(&mut self, key: Key, times: &mut [u64], units: &[Unit], now: u64) {
        let Some(set) = self.set(key) else { return };
        for cell in set {
            for (unit, time) in units.iter().zip(times.iter_mut()) {
                if cell.names() == Cell::new(key, *unit, 0).names() {
                    let remaining = unit.remaining(*cell, now);
                    *time = (*time).max(if remaining > 0 { now + remaining } else { 0 });
                    *cell = Cell::default();
                    break;
                }
            }
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "32 bits are meant")]
    fn set(&mut self, key: Key) -> Option<&mut [Cell]> {
        let sets = (self.cells.len() / WAYS) as u64;
        let spread = (key.bits() >> 32 & 0xffff_ffff) as u64; // of the bits, those that place nothing else
        let set = usize::try_from((spread * sets) >> 32).ok()?;
        self.cells.get_mut(set * WAYS..(set + 1) * WAYS)
    }
}

impl Cell {
    #[allow(clippy::cast_possible_truncation, reason = "29 bits are meant")]
    fn new(key: Key, unit: Unit, time: u64) -> Self {
        let fingerprint = (key.bits() >> 64) as u64 & 0x1fff_ffff | 1;
        Self(fingerprint << 35 | unit.kind << 32 | u64::from(unit.coarse(time)))
    }

    fn names(self) -> u64 {
        self.0 >> 32
    }

    #[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
    fn until(self) -> u32 {
        self.0 as u32
    }

    fn remaining(self, units: &[Unit], now: u64) -> u64 {
        let unit = units.iter().find(|unit| unit.kind == self.names() & 7);
        match unit {
            Some(unit) if self.0 != 0 => unit.remaining(self, now),
            _ => 0,
        }
    }
}

/// Bits that the longest wait takes in units.
const RESOLUTION: u32 = 14;
/// Longest wait in units, rounded up; whatever lies further ahead has wrapped around and is long gone.
const FURTHEST: u32 = (1 << RESOLUTION) + 1;
