//! One upstream address: where it is, how it fares, what is under way there. Shared by all workers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;

use super::balance::Standing;
use super::connect::{ConnectError, Opened, Purpose, Target};
use super::counter::Counter;
use super::health::{Health, State};
use super::outlier::{Misconduct, Record, Verdict};
use crate::config::Endpoint as Address;
use crate::types::body::Gauge;

/// One upstream address.
#[derive(Debug)]
pub struct Endpoint {
    id: u64,
    label: Arc<str>,
    host: HeaderValue,
    target: Target,
    settings: Settings,
    addresses: ArcSwap<Vec<SocketAddr>>,
    /// Rises when `addresses` changes, so that a connection can tell cheaply that nothing did.
    generation: AtomicU64,
    turn: AtomicUsize,
    in_flight: Arc<Gauge>,
    health: Health,
    /// Whether `record` holds anything; read by every request, while the record is locked by few.
    troubled: AtomicBool,
    record: Mutex<Record>,
    requests: Counter,
    connects: Counter,
    connect_failures: Counter,
    ejections: Counter,
}

/// What connections to an endpoint go by. An endpoint survives a reload if these are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) address: Address,
    pub(super) server_name: Option<String>,
    /// The trusted bundle itself, so that a new bundle under the old name is noticed.
    pub(super) ca: Option<Arc<[u8]>>,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
}

impl Endpoint {
    pub(super) fn new(settings: Settings, target: Target, host: HeaderValue) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let literal = target.address.host.parse::<IpAddr>().ok();
        let addresses = literal
            .map(|ip| SocketAddr::new(ip, target.address.port))
            .into_iter()
            .collect();
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            label: target.address.to_string().into(),
            host,
            target,
            settings,
            addresses: ArcSwap::from_pointee(addresses),
            generation: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            in_flight: Arc::default(),
            health: Health::default(),
            troubled: AtomicBool::new(false),
            record: Mutex::default(),
            requests: Counter::default(),
            connects: Counter::default(),
            connect_failures: Counter::default(),
            ejections: Counter::default(),
        }
    }

    /// As written in the configuration: `h2c://10.0.0.5:8080`.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Requests sent here.
    #[must_use]
    pub fn requests(&self) -> &Counter {
        &self.requests
    }

    /// Connections opened.
    #[must_use]
    pub fn connects(&self) -> &Counter {
        &self.connects
    }

    /// Connections that could not be opened.
    #[must_use]
    pub fn connect_failures(&self) -> &Counter {
        &self.connect_failures
    }

    /// How often the endpoint was put aside because of its behaviour.
    #[must_use]
    pub fn ejections(&self) -> &Counter {
        &self.ejections
    }

    /// Requests under way, from the choice of the endpoint to the end of the response body.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.count()
    }

    /// Whether it gets requests at `now`: its checks do not fail, and it is not put aside.
    #[must_use]
    pub fn is_healthy(&self, now: Instant) -> bool {
        self.health.state() != State::Unhealthy && !matches!(self.verdict(now), Verdict::Aside(_))
    }

    /// Whether its name was ever resolved, or needs no resolution.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        !self.addresses.load().is_empty()
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Its own authority, as a Host field.
    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn gauge(&self) -> &Arc<Gauge> {
        &self.in_flight
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    pub(super) fn count_request(&self) {
        self.requests.add();
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether `peer` is still one of its addresses.
    pub(super) fn lives_at(&self, peer: SocketAddr) -> bool {
        self.addresses.load().contains(&peer)
    }

    /// How far it can be relied on.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        if self.health.state() == State::Unhealthy {
            return Standing::Out;
        }
        match self.verdict(now) {
            Verdict::In | Verdict::Trial => Standing::Good,
            Verdict::Aside(Misconduct::Silent) => Standing::Doubtful,
            Verdict::Aside(Misconduct::Unreachable) => Standing::Out,
        }
    }

    fn verdict(&self, now: Instant) -> Verdict {
        if self.troubled.load(Ordering::Relaxed) {
            self.record.lock().verdict(now)
        } else {
            Verdict::In
        }
    }

    /// It was chosen for a request.
    pub(super) fn chosen(&self, now: Instant) {
        if self.troubled.load(Ordering::Relaxed) {
            self.record.lock().on_trial(now);
        }
    }

    /// It answered a request.
    pub(super) fn answered(&self) {
        if self.troubled.load(Ordering::Relaxed) {
            let mut record = self.record.lock();
            record.answered();
            self.troubled.store(false, Ordering::Relaxed);
        }
    }

    /// A check got through to it.
    pub(super) fn reachable(&self) {
        if self.troubled.load(Ordering::Relaxed) {
            let mut record = self.record.lock();
            record.reachable();
            self.troubled.store(!record.is_clean(), Ordering::Relaxed);
        }
    }

    /// It failed a request.
    pub(super) fn failed(&self, why: Misconduct, now: Instant) {
        let mut record = self.record.lock();
        let put_aside = record.failed(why, now);
        self.troubled.store(!record.is_clean(), Ordering::Relaxed);
        drop(record);
        if put_aside {
            self.ejections.add();
            tracing::warn!(endpoint = &*self.label, ?why, "put aside");
        }
    }

    /// Opens a connection. A name that was never resolved is resolved first.
    pub(super) async fn open(
        &self,
        purpose: Purpose,
    ) -> Result<(Opened, SocketAddr), ConnectError> {
        let patience = self.settings.connect_timeout;
        if !self.is_resolved() {
            let refresh = tokio::time::timeout(patience, self.refresh_addresses());
            refresh.await.unwrap_or_else(|_| {
                Err(ConnectError::new(format!(
                    "{}: not resolved within {patience:?}",
                    self.label
                )))
            })?;
        }
        let addresses = self.addresses.load_full();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let opened = self.target.open(&addresses, turn, patience, purpose).await;
        match opened {
            Ok(_) => self.connects.add(),
            Err(_) => self.connect_failures.add(),
        }
        opened
    }

    /// Looks its name up. An error or an empty answer leaves what was known.
    pub(super) async fn refresh_addresses(&self) -> Result<(), ConnectError> {
        let found = self.target.resolve().await?;
        self.learn_addresses(found);
        Ok(())
    }

    /// Whether its address is a name.
    pub(super) fn has_name(&self) -> bool {
        self.target.address.host.parse::<IpAddr>().is_err()
    }

    pub(super) fn learn_addresses(&self, found: Vec<SocketAddr>) {
        if found.is_empty() || **self.addresses.load() == found {
            return;
        }
        tracing::info!(endpoint = &*self.label, addresses = ?found, "resolved");
        self.addresses.store(Arc::new(found));
        self.generation.fetch_add(1, Ordering::Release);
    }
}
