//! A table of keys and their words, in which a look-up touches one place in memory.
//!
//! Keys and words stand together in one array, in the order of the keys, each at the place that its key points to or as
//! close behind it as there is room (linear probing, after Knuth 6.4, kept sorted as Amble and Knuth do). Keys are hashes
//! by a secret, so that they spread evenly and nobody can aim at a place. With an index beside the array, one decision
//! among a million keys waited for memory three times; here it waits once.

use super::key::Key;

/// Keys, and as many words for each.
#[derive(Debug)]
pub(super) struct Slots {
    /// For each slot two words of key, then its own. Free: all zero.
    words: Box<[u64]>,
    /// How many slots keys point to. Behind them are some more for what the last ones push on.
    homes: usize,
    len: usize,
    stride: usize,
}

/// The key of a slot as it stands there: never zero, and ordered by what places it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    order: u64,
    rest: u64,
}

/// Words that a key itself takes.
const KEY_WORDS: usize = 2;
/// Slots behind the last place that a key points to, unless that turns out to be too few.
const SPILL: usize = 32;
const FEWEST: usize = 16;

impl Slots {
    pub(super) fn new(words: usize) -> Self {
        Self {
            words: Box::default(),
            homes: 0,
            len: 0,
            stride: KEY_WORDS + words,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where `key` is.
    pub(super) fn find(&self, key: Key) -> Option<usize> {
        let name = Name::of(key);
        let home = self.home(name);
        let behind = self.words.get(home * self.stride..)?;
        for (passed, slot) in behind.chunks(self.stride).enumerate() {
            let found = Name::at(slot)?;
            if found == name {
                return Some(home + passed);
            }
            if found.order > name.order {
                return None;
            }
        }
        None
    }

    /// The words of the key at `position`.
    pub(super) fn words(&mut self, position: usize) -> &mut [u64] {
        let start = position * self.stride;
        let slot = self.words.get_mut(start + KEY_WORDS..start + self.stride);
        slot.unwrap_or_default()
    }

    /// The key at `position`, and its words, if there is one.
    pub(super) fn entry(&self, position: usize) -> Option<(Key, &[u64])> {
        let slot = self.slot(position)?;
        let name = Name::at(slot)?;
        Some((name.key(), slot.get(KEY_WORDS..)?))
    }

    /// What stands at `position`: whether a key is there, and its words. Asks nothing of memory before it is needed, so
    /// that who looks at several places waits for all of them at once.
    pub(super) fn look(&self, position: usize) -> (bool, &[u64]) {
        let start = position * self.stride;
        let slot = self.words.get(start..start + self.stride);
        match slot.unwrap_or_default() {
            [_, rest, words @ ..] => (*rest != 0, words),
            _ => (false, &[]),
        }
    }

    /// The place that `dice` point to.
    pub(super) fn place(&self, dice: u64) -> usize {
        scale(dice, self.slots())
    }

    /// The first key at or behind `position`, or else the first of all.
    pub(super) fn next_from(&self, position: usize) -> Option<usize> {
        let mut places = (position..self.slots()).chain(0..position);
        places.find(|place| self.is_taken(*place))
    }

    /// Adds a key that is not there yet, with words that are zero.
    pub(super) fn insert(&mut self, key: Key) -> usize {
        if self.len >= self.homes - self.homes / 4 {
            self.resize(self.homes + self.homes / 4, SPILL);
        }
        let name = Name::of(key);
        loop {
            if let Some(position) = self.squeeze_in(name) {
                self.len += 1;
                return position;
            }
            self.resize(self.homes, 2 * (self.slots() - self.homes)); // no room behind the last place
        }
    }

    /// Removes the key at `position`; those behind it move up as far as they may.
    pub(super) fn remove(&mut self, position: usize) {
        if !self.is_taken(position) {
            return;
        }
        let mut end = position + 1;
        while let Some(name) = self.slot(end).and_then(Name::at)
            && self.home(name) < end
        {
            end += 1;
        }
        let (start, last) = (position * self.stride, (end - 1) * self.stride);
        self.words
            .copy_within(start + self.stride..last + self.stride, start);
        self.clear(end - 1);
        self.len -= 1;
    }

    /// Keeps the keys whose words are such, in one pass.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&[u64]) -> bool) {
        let mut free = 0;
        for position in 0..self.slots() {
            let Some(slot) = self.slot(position) else {
                return;
            };
            let Some(name) = Name::at(slot) else { continue };
            if keep(slot.get(KEY_WORDS..).unwrap_or_default()) {
                let to = self.home(name).max(free); // never behind where it was
                self.shift(position, to);
                free = to + 1;
            } else {
                self.clear(position);
                self.len -= 1;
            }
        }
    }

    /// Gives memory back when most of it is unused.
    pub(super) fn shrink(&mut self) {
        if self.len == 0 {
            (self.words, self.homes) = (Box::default(), 0);
        } else if self.homes > FEWEST && self.len < self.homes / 4 {
            self.resize(self.len * 2, SPILL);
        }
    }

    /// Makes room for `name` where it belongs; `None` where those behind it would be pushed out of the table.
    fn squeeze_in(&mut self, name: Name) -> Option<usize> {
        let mut position = self.home(name);
        while let Some(found) = Name::at(self.slot(position)?)
            && found.order <= name.order
        {
            position += 1;
        }
        let mut end = position;
        while Name::at(self.slot(end)?).is_some() {
            end += 1;
        }
        let start = position * self.stride;
        self.words
            .copy_within(start..end * self.stride, start + self.stride);
        let slot = self.words.get_mut(start..start + self.stride)?;
        slot.fill(0);
        if let [order, rest, ..] = slot {
            (*order, *rest) = (name.order, name.rest);
        }
        Some(position)
    }

    /// Moves all keys to a table with so many places that they point to, and at least so many behind them.
    fn resize(&mut self, homes: usize, spill: usize) {
        let (homes, mut spill) = (homes.max(FEWEST), spill.max(SPILL));
        while !self.move_to(homes, spill) {
            spill *= 2;
        }
    }

    /// Whether all of them fitted in; if not, nothing has changed.
    fn move_to(&mut self, homes: usize, spill: usize) -> bool {
        let mut larger = Self {
            words: vec![0; (homes + spill) * self.stride].into(),
            homes,
            len: self.len,
            stride: self.stride,
        };
        let mut free = 0;
        for slot in self.words.chunks_exact(self.stride) {
            let Some(name) = Name::at(slot) else { continue };
            let to = larger.home(name).max(free);
            let start = to * self.stride;
            let Some(place) = larger.words.get_mut(start..start + self.stride) else {
                return false;
            };
            place.copy_from_slice(slot);
            free = to + 1;
        }
        *self = larger;
        true
    }

    fn shift(&mut self, from: usize, to: usize) {
        if from != to {
            let start = from * self.stride;
            self.words
                .copy_within(start..start + self.stride, to * self.stride);
            self.clear(from);
        }
    }

    fn clear(&mut self, position: usize) {
        let start = position * self.stride;
        if let Some(slot) = self.words.get_mut(start..start + self.stride) {
            slot.fill(0);
        }
    }

    fn slot(&self, position: usize) -> Option<&[u64]> {
        let start = position * self.stride;
        self.words.get(start..start + self.stride)
    }

    fn is_taken(&self, position: usize) -> bool {
        self.slot(position).and_then(Name::at).is_some()
    }

    pub(super) fn slots(&self) -> usize {
        self.words.len() / self.stride
    }

    fn home(&self, name: Name) -> usize {
        scale(name.order, self.homes)
    }
}

impl Name {
    /// The first byte of a key says in which shard it is: what comes after it orders the keys of one.
    #[allow(clippy::cast_possible_truncation, reason = "halves are meant")]
    fn of(key: Key) -> Self {
        let bits = (key.bits() | TAKEN).rotate_left(SHARD_BITS);
        Self {
            order: (bits >> 64) as u64,
            rest: bits as u64,
        }
    }

    fn at(slot: &[u64]) -> Option<Self> {
        match slot {
            [order, rest, ..] if *rest != 0 => Some(Self {
                order: *order,
                rest: *rest,
            }),
            _ => None,
        }
    }

    fn key(self) -> Key {
        let bits = u128::from(self.order) << 64 | u128::from(self.rest);
        Key::from_bits(bits.rotate_right(SHARD_BITS))
    }
}

/// The position of `number` in its range, as one of `parts`: larger numbers never stand in front of smaller ones.
#[allow(clippy::cast_possible_truncation, reason = "below `parts`")]
fn scale(number: u64, parts: usize) -> usize {
    ((u128::from(number) * parts as u128) >> 64) as usize
}

const SHARD_BITS: u32 = 8;
/// The bit of a key that is set in every slot that is taken. No shard and no place depends on it.
const TAKEN: u128 = 1 << 127;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u128),
        Remove(usize),
        Draw(u64),
        Retain(u64),
        Shrink,
    }

    /// Keys that crowd at the front, at the back and in one place, and keys that do not.
    fn keys() -> impl Strategy<Value = u128> {
        let tail = 0..64_u128;
        let front = tail.clone();
        let back = tail.clone().prop_map(|tail| (!0 >> 8) - tail);
        let middle = tail.prop_map(|tail| (1 << 119) + tail);
        prop_oneof![front, back, middle, any::<u128>().prop_map(|key| key >> 8)]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            20 => keys().prop_map(Step::Insert),
            8 => any::<usize>().prop_map(Step::Remove),
            4 => any::<u64>().prop_map(Step::Draw),
            1 => (2..6_u64).prop_map(Step::Retain),
            1 => Just(Step::Shrink),
        ];
        prop::collection::vec(step, 1..400)
    }

    /// What makes every key be found: each stands in order, not before its place, and no gap lies between.
    fn hold_order(slots: &Slots) {
        let taken: Vec<_> = (0..slots.slots())
            .map(|at| Name::at(slots.slot(at).unwrap()))
            .collect();
        for (at, name) in taken.iter().enumerate() {
            let Some(name) = name else { continue };
            let home = slots.home(*name);
            assert!(home <= at && taken[home..at].iter().all(Option::is_some));
        }
        let orders: Vec<_> = taken.iter().flatten().map(|name| name.order).collect();
        assert!(orders.is_sorted());
        assert_eq!(orders.len(), slots.len());
    }

    proptest! {
        #[test]
        fn any_sequence_of_steps_leaves_what_a_map_would_hold(words in 1..7_usize, steps in steps()) {
            let mut slots = Slots::new(words);
            let mut map: BTreeMap<u128, u64> = BTreeMap::new();
            for (number, step) in (1..).zip(steps) {
                match step {
                    Step::Insert(bits) => {
                        let key = Key::from_bits(bits);
                        prop_assert_eq!(slots.find(key).is_some(), map.contains_key(&bits));
                        let at = slots.find(key).unwrap_or_else(|| slots.insert(key));
                        let fresh = slots.words(at);
                        prop_assert_eq!(fresh.len(), words);
                        prop_assert_eq!(fresh[words - 1], map.get(&bits).copied().unwrap_or(0));
                        fresh.fill(number);
                        map.insert(bits, number);
                    }
                    Step::Remove(nth) => {
                        let Some(bits) = map.keys().nth(nth % map.len().max(1)).copied() else { continue };
                        slots.remove(slots.find(Key::from_bits(bits)).unwrap());
                        map.remove(&bits);
                    }
                    Step::Draw(dice) => {
                        let place = slots.place(dice);
                        prop_assert_eq!(slots.look(place).0, slots.entry(place).is_some());
                        let drawn = slots.next_from(place);
                        prop_assert_eq!(drawn.is_some(), !map.is_empty());
                        if let Some(at) = drawn {
                            let (key, found) = slots.entry(at).unwrap();
                            prop_assert_eq!(map.get(&(key.bits() & !TAKEN)), found.first());
                            prop_assert_eq!(slots.look(at), (true, found));
                        }
                    }
                    Step::Retain(divisor) => {
                        slots.retain(|words| words[0] % divisor != 0);
                        map.retain(|_, number| *number % divisor != 0);
                    }
                    Step::Shrink => slots.shrink(),
                }
                hold_order(&slots);
                prop_assert_eq!(slots.len(), map.len());
            }
            for (bits, number) in map {
                let at = slots.find(Key::from_bits(bits)).unwrap();
                prop_assert_eq!(slots.words(at)[0], number);
            }
        }
    }

    #[test]
    fn a_table_grows_with_its_keys_and_gives_memory_back() {
        let mut slots = Slots::new(1);
        // Any odd number: its multiples spread evenly over the range.
        let odd = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835_u128;
        let key = |n| Key::from_bits(odd.wrapping_mul(n) >> 8);
        for n in 1..=10_000 {
            slots.insert(key(n));
            assert!(slots.slots() * 3 <= slots.len() * 5 + 3 * (FEWEST + SPILL));
        }
        assert!((1..=10_000).all(|n| slots.find(key(n)).is_some()));
        let mut left = 0;
        slots.retain(|_| {
            left += 1;
            left <= 100
        });
        slots.shrink();
        assert_eq!(slots.len(), 100);
        assert!(slots.slots() <= 200 + SPILL);
        hold_order(&slots);
    }

    #[test]
    fn keys_of_one_place_find_room_however_many_they_are() {
        for place in [0, u64::MAX >> 8] {
            let mut slots = Slots::new(1);
            for n in 0..1_000_u64 {
                slots.insert(Key::from_bits(u128::from(place) << 64 | u128::from(n)));
            }
            hold_order(&slots);
            assert!(slots.slots() < 4_000);
        }
    }
}
