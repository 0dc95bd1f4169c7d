//! The slow tasks that keep live state current: key sets, endpoint addresses and health, limit sweeps. They run on the
//! control thread, one per thing, and follow the snapshot: what a reload brings is started, what it drops is ended.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::pipeline::Shared;
use crate::snapshot::Snapshot;
use crate::types::task;

/// How often limits forget keys whose bucket is full again.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The running tasks, by the identity of what they keep current.
#[derive(Debug, Default)]
pub(super) struct Background {
    tasks: HashMap<usize, JoinHandle<()>>,
}

impl Background {
    /// Starts tasks for what is new in `snapshot` and ends those of what is gone.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let mut kept = HashMap::new();
        let asked = snapshot.authorities.clusters();
        for cluster in snapshot.clusters.values().chain(asked) {
            let cluster = Arc::clone(cluster);
            self.keep(&mut kept, identity(&cluster), "upstream", || {
                cluster.keep_current()
            });
        }
        for issuer in snapshot.authorities.issuers.values() {
            let issuer = Arc::clone(issuer);
            self.keep(&mut kept, identity(&issuer), "issuer", || {
                issuer.keep_fresh()
            });
        }
        for gone in std::mem::replace(&mut self.tasks, kept).into_values() {
            gone.abort();
        }
    }

    fn keep<F>(
        &mut self,
        kept: &mut HashMap<usize, JoinHandle<()>>,
        identity: usize,
        name: &'static str,
        start: impl FnOnce() -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = self
            .tasks
            .remove(&identity)
            .filter(|running| !running.is_finished());
        kept.insert(
            identity,
            running.unwrap_or_else(|| task::spawn(name, start())),
        );
    }
}

/// Live state is carried over by sharing, so its address tells whether it is the same. The snapshot in force holds it,
/// hence the address is not taken by something else while its task is in the map.
fn identity<T>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).addr()
}

/// Sweeps the limits of the snapshot in force, for ever.
pub(super) async fn sweep_limits(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(SWEEP_EVERY);
    loop {
        tick.tick().await;
        for limit in shared.snapshot.load_full().limits.values() {
            limit.sweep();
        }
    }
}
