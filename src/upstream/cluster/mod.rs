//! A named set of endpoints: the choice among them, their upkeep, and what telemetry may read.

mod compile;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::task::JoinHandle;

use super::balance::{self, Standing, Visited};
use super::counter::Counter;
use super::endpoint::Endpoint;
use super::health::{self, Check, State};
use super::retry::Budget;
use crate::config::{self, Balance};
use crate::types::body::InFlight;
use crate::types::task;

/// Between look-ups of a name. The system's resolver hides the TTL, so we ask often; it caches.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);
/// Longest look-up.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A named set of endpoints that serve the same thing; shared by all workers.
#[derive(Debug)]
pub struct Cluster {
    name: Arc<str>,
    written: config::Upstream,
    endpoints: Vec<Arc<Endpoint>>,
    balance: Balance,
    turn: AtomicUsize,
    max_requests: u32,
    retries: u32,
    body_timeout: Duration,
    host: Option<HeaderValue>,
    check: Option<Arc<Check>>,
    budget: Budget,
    requests: Counter,
    retried: Counter,
    faults: [Counter; Fault::ALL.len()],
}

/// The ways in which a request to a cluster can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Every endpoint was out.
    NoEndpoint,
    /// Every usable endpoint had as many requests in flight as it may.
    Overloaded,
    /// No connection.
    Unreachable,
    /// The connection ended before the answer.
    Reset,
    /// The answer was not HTTP as it should be.
    Malformed,
    /// No answer in time.
    Timeout,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::NoEndpoint,
        Self::Overloaded,
        Self::Unreachable,
        Self::Reset,
        Self::Malformed,
        Self::Timeout,
    ];

    /// The metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no_endpoint",
            Self::Overloaded => "overloaded",
            Self::Unreachable => "unreachable",
            Self::Reset => "reset",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
        }
    }
}

/// Why no endpoint could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoChoice {
    AllOut,
    AllFull,
}

impl Cluster {
    /// As written in the configuration.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// In the order of the configuration.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Requests that were to be sent here.
    #[must_use]
    pub fn requests(&self) -> &Counter {
        &self.requests
    }

    /// Further tries.
    #[must_use]
    pub fn retries(&self) -> &Counter {
        &self.retried
    }

    /// Requests that failed so.
    #[must_use]
    pub fn failures(&self, fault: Fault) -> u64 {
        self.counter(fault).map_or(0, Counter::count)
    }

    /// Requests under way at all endpoints.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.in_flight())
            .fold(0, u32::saturating_add)
    }

    /// Whether a request sent at `now` has somewhere to go. Where health is checked, one endpoint must have passed.
    #[must_use]
    pub fn is_ready(&self, now: Instant) -> bool {
        self.endpoints.iter().any(|endpoint| {
            let checked = self.check.is_none() || endpoint.health().state() == State::Healthy;
            checked && endpoint.is_resolved() && endpoint.standing(now) != Standing::Out
        })
    }

    /// Looks names up anew and asks endpoints for their health, for ever; run on the admin runtime. Dropping the
    /// future (aborting the task) ends all of it.
    pub async fn keep_current(self: Arc<Self>) {
        let mut chores = Chores(Vec::new());
        for endpoint in &self.endpoints {
            if endpoint.has_name() {
                chores.add("resolve endpoint", keep_resolved(Arc::clone(endpoint)));
            }
            if let Some(check) = &self.check {
                let asking = health::keep_asking(
                    Arc::clone(endpoint),
                    Arc::clone(check),
                    Arc::clone(&self.name),
                );
                chores.add("check endpoint", asking);
            }
        }
        std::future::pending::<()>().await;
    }

    pub(super) fn retry_limit(&self) -> u32 {
        self.retries
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(super) fn body_timeout(&self) -> Duration {
        self.body_timeout
    }

    /// What is sent as Host instead of the public one.
    pub(super) fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    pub(super) fn count_request(&self) {
        self.requests.add();
        self.budget.earn();
    }

    pub(super) fn count_retry(&self) {
        self.retried.add();
    }

    pub(super) fn count_failure(&self, fault: Fault) {
        if let Some(counter) = self.counter(fault) {
            counter.add();
        }
    }

    fn counter(&self, fault: Fault) -> Option<&Counter> {
        self.faults.get(fault as usize)
    }

    /// Chooses an endpoint and counts the request as under way there.
    pub(super) fn choose(
        &self,
        visited: &mut Visited,
        now: Instant,
    ) -> Result<(&Arc<Endpoint>, InFlight), NoChoice> {
        let turn = match self.endpoints.len() {
            1 => 0,
            _ => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        let mut full = Visited::default();
        loop {
            let standing = |position: usize| match self.endpoints.get(position) {
                Some(endpoint) if !full.has(position) => endpoint.standing(now),
                _ => Standing::Out,
            };
            let load = |position: usize| {
                self.endpoints
                    .get(position)
                    .map_or(u32::MAX, |endpoint| endpoint.in_flight())
            };
            let count = self.endpoints.len();
            let chosen = balance::choose(self.balance, turn, count, *visited, standing, load);
            let nothing_left = if full == Visited::default() {
                NoChoice::AllOut
            } else {
                NoChoice::AllFull
            };
            let position = chosen.ok_or(nothing_left)?;
            let endpoint = self.endpoints.get(position).ok_or(nothing_left)?;
            if let Some(permit) = endpoint.gauge().enter(self.max_requests) {
                visited.add(position);
                endpoint.chosen(now);
                return Ok((endpoint, permit));
            }
            if position >= 64 {
                return Err(NoChoice::AllFull);
            }
            full.add(position);
        }
    }
}

async fn keep_resolved(endpoint: Arc<Endpoint>) {
    let mut beat = tokio::time::interval(RESOLVE_INTERVAL);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        match tokio::time::timeout(RESOLVE_TIMEOUT, endpoint.refresh_addresses()).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::warn!(endpoint = &**endpoint.label(), %why, "not resolved"),
            Err(_) => tracing::warn!(endpoint = &**endpoint.label(), "not resolved in time"),
        }
    }
}

/// Tasks that end with their owner.
struct Chores(Vec<JoinHandle<()>>);

impl Chores {
    fn add(&mut self, name: &'static str, chore: impl Future<Output = ()> + Send + 'static) {
        self.0.push(task::spawn(name, chore));
    }
}

impl Drop for Chores {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}
