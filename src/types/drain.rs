//! The stop: connections are told once to finish, tunnels to take leave, and what is left to end.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How far the stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Serving as usual.
    Serving,
    /// Nothing new is accepted; what is in flight is finished.
    Draining,
    /// The limit is near: what has no end of its own takes leave.
    Parting,
    /// What is left is cut off.
    Aborting,
}

/// The switch that stops all listeners and connections; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stage: AtomicU8,
    live: AtomicUsize,
    idle: Notify,
    next: AtomicU64,
    ears: Mutex<HashMap<u64, Waker, RandomState>>,
}

/// A connection that the drain waits for.
#[derive(Debug)]
pub struct Guest(Arc<Shared>);

/// Wakes one task when the stage changes. A look at the stage costs one atomic load; only the first one takes a lock.
#[derive(Debug)]
pub struct Ear {
    shared: Arc<Shared>,
    id: Option<u64>,
}

impl Drain {
    /// A drain that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How far the stop is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.shared.stage()
    }

    /// Connections that are open, over all listeners and workers.
    #[must_use]
    pub fn live(&self) -> usize {
        self.shared.live.load(Ordering::Acquire)
    }

    /// Stops accepting, and lets every connection end after what it has in flight.
    pub fn start(&self) {
        self.shared.reach(Stage::Draining);
    }

    /// Cuts off every connection.
    pub fn abort(&self) {
        self.shared.reach(Stage::Aborting);
    }

    /// Waits until all connections have ended. Shortly before `patience` is over tunnels are told to take leave, and
    /// with it the rest is cut off; says how many that were.
    pub async fn wait_idle(&self, patience: Duration) -> usize {
        let farewell = FAREWELL.min(patience / 4);
        let empty = |within| tokio::time::timeout(within, self.empty());
        if empty(patience - farewell).await.is_ok() {
            return 0;
        }
        self.shared.reach(Stage::Parting);
        if empty(farewell).await.is_ok() {
            return 0;
        }
        let left = self.live();
        self.abort();
        left
    }

    async fn empty(&self) {
        loop {
            let idle = self.shared.idle.notified();
            if self.live() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Counts a connection until the guest is dropped.
    #[must_use]
    pub fn enter(&self) -> Guest {
        self.shared.live.fetch_add(1, Ordering::AcqRel);
        Guest(Arc::clone(&self.shared))
    }

    /// Something to hear of the stages by.
    #[must_use]
    pub fn ear(&self) -> Ear {
        Ear {
            shared: Arc::clone(&self.shared),
            id: None,
        }
    }
}

impl Shared {
    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Serving,
            1 => Stage::Draining,
            2 => Stage::Parting,
            _ => Stage::Aborting,
        }
    }

    fn reach(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
        let wakers: Vec<Waker> = self.ears.lock().values().cloned().collect();
        for waker in wakers {
            waker.wake();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.0.live.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Ear {
    /// The stage; the task of `cx` is woken when it changes. Always called from one and the same task.
    pub fn stage(&mut self, cx: &Context<'_>) -> Stage {
        if self.id.is_none() {
            let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
            self.shared.ears.lock().insert(id, cx.waker().clone());
            self.id = Some(id);
        }
        self.shared.stage()
    }

    /// Runs `future` until it ends or `stage` is reached; `None` then.
    pub async fn until<F: Future>(&mut self, stage: Stage, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if self.stage(cx) >= stage {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.ears.lock().remove(&id);
        }
    }
}

/// How long tunnels have to take leave, at most.
const FAREWELL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test]
    async fn a_waiting_task_hears_of_the_stop() {
        let drain = Drain::new();
        let mut ear = drain.ear();
        let waited = ear.until(Stage::Draining, pending::<()>());
        let (outcome, ()) = tokio::join!(waited, async { drain.start() });
        assert_eq!(outcome, None);
        assert_eq!(ear.until(Stage::Aborting, async { 7 }).await, Some(7));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_last_connection() {
        let drain = Drain::new();
        let guest = drain.enter();
        drain.start();
        let (left, ()) = tokio::join!(drain.wait_idle(Duration::from_secs(60)), async {
            drop(guest);
        });
        assert_eq!((left, drain.stage()), (0, Stage::Draining));
    }

    #[tokio::test]
    async fn what_outlives_the_patience_is_cut_off() {
        let drain = Drain::new();
        let _guest = drain.enter();
        drain.start();
        assert_eq!(drain.wait_idle(Duration::ZERO).await, 1);
        assert_eq!(drain.stage(), Stage::Aborting);
    }

    #[test]
    fn a_task_that_is_gone_leaves_no_waker_behind() {
        let drain = Drain::new();
        let mut ear = drain.ear();
        assert_eq!(
            ear.stage(&Context::from_waker(Waker::noop())),
            Stage::Serving
        );
        drop(ear);
        assert!(drain.shared.ears.lock().is_empty());
    }
}
