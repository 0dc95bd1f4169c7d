//! What the store is told after the fact: charges that are given back, forgiven, or stay.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::budget::Settlement;
use super::super::key::Key;
use super::super::timer::Timer;
use super::super::{Buckets, Limit};
use super::{SETTLE, Shared, signed};
use crate::store::{Line, Operation};
use crate::types::{clock, task};

/// A charge in the store whose outcome is awaited.
#[derive(Debug)]
pub(in crate::limit) struct Held {
    line: Arc<Line>,
    since: Instant,
}

/// Nobody waits for it but us.
const PATIENCE: Duration = Duration::from_millis(500);

impl Held {
    pub(super) fn new(line: &Arc<Line>) -> Self {
        Self {
            line: Arc::clone(line),
            since: clock::now(),
        }
    }
}

impl<C: Timer> Limit<C> {
    /// Ends the wait for the outcome of a request that the store has charged.
    pub(in crate::limit) fn settle_shared(
        &self,
        held: &Held,
        key: Key,
        cost: u32,
        outcome: Settlement,
    ) {
        let Some(shared) = &self.shared else { return };
        let passed = held.since.elapsed();
        shared.settle(&held.line, key, cost, passed, outcome);
        if outcome == Settlement::Failed {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        // The share that holds when the store is away learns of it as well.
        if let (Some(Buckets { budget, store }), false) =
            (&self.budget, outcome == Settlement::Released)
        {
            let now = self.now();
            let cost = cost.min(budget.least_depth());
            store.at(key, now, |words| budget.settle(words, now, cost, outcome));
        }
    }
}

impl Shared {
    /// Does not wait: a task of the worker tells the store.
    pub(super) fn settle(
        &self,
        line: &Arc<Line>,
        key: Key,
        cost: u32,
        passed: Duration,
        outcome: Settlement,
    ) {
        let word = match outcome {
            Settlement::Released => 0,
            Settlement::Failed => 1,
            Settlement::Forgiven => 2,
        };
        let passed = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let learns = i64::from(self.terms.learns);
        let mut arguments = vec![word, i64::from(cost), signed(passed), learns];
        let intervals = self.terms.windows.iter();
        arguments.extend(intervals.map(|(interval, _)| signed(*interval)));
        let (line, keys) = (Arc::clone(line), [self.name_of(key)]);
        // A worker that ends drops what is left: then the charge stays, and pays itself off.
        if tokio::runtime::Handle::try_current().is_ok() {
            task::spawn("settle", async move {
                let asked = line.run(Operation::Count, &SETTLE, &keys, &arguments, PATIENCE);
                let _ = asked.await; // counted, and the debt pays itself off
            });
        }
    }
}
