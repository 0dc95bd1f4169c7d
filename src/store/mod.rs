//! The store that replicas share: Redis or Valkey; one server, the master that Sentinels know, or a Cluster.
//!
//! What is kept there is decided elsewhere (`limit`, `authn`); here are connections, deadlines, the circuit, and what an
//! operator may see of them. Every worker has a [`Line`] of its own; nobody else opens connections to the store.

mod bulletin;
mod cluster;
mod compile;
mod connect;
mod health;
mod line;
mod script;
mod stats;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;

use crate::config::{self, Secret};
use connect::Place;
use health::Health;
use stats::Stats;

pub use bulletin::Bulletin;
pub use health::Status;
pub use line::Line;
pub use script::Script;
pub use stats::{Operation, Outcome};

/// The store, as all workers share it. Carried over by reloads; other servers need a restart.
pub struct Store {
    written: config::Store,
    place: Place,
    prefix: Arc<str>,
    timeout: Duration,
    secret: hmac::Key,
    bulletin: Bulletin,
    stats: Stats,
    health: Health,
}

/// Why the store did not answer a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was not asked: the circuit is open.
    Open,
    /// It took too long.
    Timeout,
    /// It answered with an error, or the connection broke.
    Error,
    /// It does not know the script.
    NoScript,
}

/// What a scrape reads off a store.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its health.
    pub status: Status,
    /// What was asked of it: operation, outcome, count.
    pub operations: Vec<(&'static str, &'static str, u64)>,
    /// Latencies: upper bounds in seconds, with the number of answers up to each.
    pub latency: Vec<(f64, u64)>,
    /// Sum of all latencies, in seconds.
    pub latency_sum: f64,
    /// Messages between replicas, by what came of them.
    pub messages: Vec<(&'static str, u64)>,
}

impl Store {
    /// How many replicas share it.
    #[must_use]
    pub fn replicas(&self) -> u16 {
        self.written.replicas.get()
    }

    /// What limits do while it is away, unless they say otherwise.
    #[must_use]
    pub fn on_failure(&self) -> config::OnStoreDown {
        self.written.on_failure
    }

    /// Whether keys lie on several nodes.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.written.topology == config::Topology::Cluster
    }

    /// Longest that it may delay one request, in all.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A secret for one purpose; the same on every replica.
    #[must_use]
    pub fn secret_for(&self, purpose: &str) -> Secret {
        Secret::new(
            hmac::sign(&self.secret, purpose.as_bytes())
                .as_ref()
                .to_vec(),
        )
    }

    /// What replicas tell each other.
    #[must_use]
    pub fn bulletin(&self) -> &Bulletin {
        &self.bulletin
    }

    /// Whether it is there.
    #[must_use]
    pub fn status(&self) -> Status {
        self.health.status()
    }

    /// What keeps the gateway from being ready, in words.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        let status = self.status();
        if !status.known || !self.bulletin.is_caught_up() {
            return Some("the store has not been asked yet".to_owned());
        }
        (self.written.required && !status.up).then(|| "the store cannot be used".to_owned())
    }

    /// What it was asked, and how it went.
    #[must_use]
    pub fn sample(&self) -> Sample {
        let (latency, latency_sum) = self.stats.latency();
        Sample {
            status: self.status(),
            operations: self.stats.operations(),
            latency,
            latency_sum,
            messages: self.bulletin.messages(),
        }
    }
}

fn derive(secret: &hmac::Key, purpose: &str) -> hmac::Key {
    let derived = hmac::sign(secret, purpose.as_bytes());
    hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("place", &self.place)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
