//! What was made of a credential's facts and need not be made again: it goes when they go, so nothing has to evict it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use parking_lot::Mutex;

/// Most things of one kind that are remembered; a caller meets few routes with a rule or an upstream of its own.
const MOST: usize = 8;

/// A few things, by name. The first to come in is the first to go.
pub struct Memo<T> {
    entries: Mutex<Vec<(Arc<str>, T)>>,
}

/// What can be kept with the facts of a caller.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The verdicts of rules that look at claims alone, by their text.
    pub verdicts: Memo<bool>,
    /// Signed assertions, by signer and audience.
    pub assertions: Memo<Signed>,
}

/// A signed assertion, and until when it may still be sent.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The header value.
    pub value: HeaderValue,
    /// Sent before this moment only.
    pub until: SystemTime,
}

impl<T: Clone> Memo<T> {
    /// What was kept under `name`.
    #[must_use]
    pub fn find(&self, name: &Arc<str>) -> Option<T> {
        let entries = self.entries.lock();
        let entry = entries.iter().find(|(known, _)| is_same(known, name));
        entry.map(|(_, made)| made.clone())
    }

    /// Keeps `made` under `name`, instead of what was kept there before.
    pub fn keep(&self, name: &Arc<str>, made: T) {
        let mut entries = self.entries.lock();
        entries.retain(|(known, _)| !is_same(known, name));
        if entries.len() >= MOST {
            entries.remove(0);
        }
        entries.push((Arc::clone(name), made));
    }
}

/// The same allocation as a rule, hence usually without a look at the text.
fn is_same(one: &Arc<str>, other: &Arc<str>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self {
            entries: Mutex::new(Vec::new()),
        }
    }
}

/// A copy of facts may be changed; what was made of the original is not taken along.
impl<T> Clone for Memo<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> fmt::Debug for Memo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo")
            .field("count", &self.entries.lock().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_by_its_name_and_the_oldest_goes_first() {
        let memo = Memo::default();
        let name = |number: usize| Arc::<str>::from(number.to_string());
        for number in 0..=MOST {
            memo.keep(&name(number), number);
        }
        assert_eq!(memo.find(&name(0)), None);
        assert_eq!(memo.find(&name(1)), Some(1));
        memo.keep(&name(1), 100);
        assert_eq!(memo.find(&name(1)), Some(100));
        assert_eq!(memo.find(&name(2)), Some(2), "renewing pushes nobody out");
        assert_eq!(memo.clone().find(&name(1)), None);
    }
}
