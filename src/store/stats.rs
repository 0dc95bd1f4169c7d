//! What was asked of the store, and how it went: for metrics and for operators.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the store is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To decide on a request.
    Decide,
    /// For a batch of a budget.
    Lease,
    /// To count something after the fact.
    Count,
    /// To tell other replicas something.
    Publish,
    /// What other replicas have told.
    Follow,
    /// Whether it is there.
    Probe,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Ok,
    /// It answered with an error.
    Error,
    /// It did not answer in time.
    Timeout,
    /// Nobody was asked: the circuit is open.
    Open,
}

/// Counts, shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Stats {
    operations: [[AtomicU64; 4]; 6],
    /// Answers within each of [`BUCKETS`]; the last holds those beyond.
    latency: [AtomicU64; BUCKETS.len() + 1],
    latency_micros: AtomicU64,
}

/// Upper bounds of latencies, in microseconds.
pub(super) const BUCKETS: [u64; 9] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000,
];

impl Operation {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Decide,
        Self::Lease,
        Self::Count,
        Self::Publish,
        Self::Follow,
        Self::Probe,
    ];

    /// As metrics name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decide => "decide",
            Self::Lease => "lease",
            Self::Count => "count",
            Self::Publish => "publish",
            Self::Follow => "follow",
            Self::Probe => "probe",
        }
    }
}

impl Outcome {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Error, Self::Timeout, Self::Open];

    /// As metrics name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Open => "open",
        }
    }
}

impl Stats {
    pub(super) fn count(&self, operation: Operation, outcome: Outcome) {
        let row = self.operations.get(operation as usize);
        if let Some(cell) = row.and_then(|row| row.get(outcome as usize)) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn answered_after(&self, wait: Duration) {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|bound| *bound < micros);
        if let Some(cell) = self.latency.get(bucket) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        self.latency_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn operations(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut all = Vec::new();
        for (operation, row) in Operation::ALL.iter().zip(&self.operations) {
            for (outcome, cell) in Outcome::ALL.iter().zip(row) {
                let count = cell.load(Ordering::Relaxed);
                all.push((operation.as_str(), outcome.as_str(), count));
            }
        }
        all
    }

    /// Upper bounds in seconds with the number of answers up to each, and the sum of all in seconds.
    #[allow(
        clippy::cast_precision_loss,
        reason = "the text format has no other numbers"
    )]
    pub(super) fn latency(&self) -> (Vec<(f64, u64)>, f64) {
        let mut total = 0;
        let bounds = BUCKETS
            .iter()
            .map(|micros| *micros as f64 / 1e6)
            .chain([f64::INFINITY]);
        let buckets = bounds.zip(&self.latency).map(|(bound, cell)| {
            total += cell.load(Ordering::Relaxed);
            (bound, total)
        });
        let buckets = buckets.collect();
        let sum = self.latency_micros.load(Ordering::Relaxed) as f64 / 1e6;
        (buckets, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_in_the_order_of_their_cells() {
        let stats = Stats::default();
        for (index, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, index);
        }
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
        stats.count(Operation::Probe, Outcome::Open);
        let counted: Vec<_> = stats.operations();
        assert_eq!(counted.last(), Some(&("probe", "open", 1)));
        assert_eq!(counted.iter().map(|(_, _, count)| count).sum::<u64>(), 1);
    }

    #[test]
    fn a_latency_counts_in_every_bucket_that_it_fits() {
        let stats = Stats::default();
        stats.answered_after(Duration::from_micros(250));
        stats.answered_after(Duration::from_millis(7));
        stats.answered_after(Duration::from_secs(3));
        let (buckets, sum) = stats.latency();
        assert_eq!(buckets.first(), Some(&(0.000_25, 1)));
        assert_eq!(buckets[5], (0.01, 2));
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, 3)));
        assert!((sum - 3.007_25).abs() < 1e-9);
    }
}
