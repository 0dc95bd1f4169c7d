//! Handles by name, for as long as somebody holds them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Holds no handle itself: a route that left the configuration leaves the metrics when its last request has ended,
/// and a route that stays keeps its counts across the reload.
#[derive(Debug)]
pub(super) struct InUse<K, T> {
    handles: Mutex<BTreeMap<K, Weak<T>>>,
}

impl<K, T> Default for InUse<K, T> {
    fn default() -> Self {
        Self {
            handles: Mutex::new(BTreeMap::new()),
        }
    }
}

impl<K: Ord + Clone, T> InUse<K, T> {
    pub(super) fn find_or_make(&self, key: &K, make: impl FnOnce(&K) -> T) -> Arc<T> {
        let mut handles = self.handles.lock();
        if let Some(handle) = handles.get(key).and_then(Weak::upgrade) {
            return handle;
        }
        let handle = Arc::new(make(key));
        handles.insert(key.clone(), Arc::downgrade(&handle));
        handle
    }

    /// Those in use, in the order of their names; forgets the others.
    pub(super) fn each(&self) -> Vec<Arc<T>> {
        let mut handles = self.handles.lock();
        handles.retain(|_, handle| handle.strong_count() > 0);
        handles.values().filter_map(Weak::upgrade).collect()
    }
}
