//! What requests and connections count into.
//!
//! The cells are shared atomics. Should many cores ever contend for them, each worker gets cells of its own behind
//! these same methods, and a scrape adds them up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use prometheus::{Histogram, HistogramOpts};

use super::exemplar::{Exemplar, LastRefused, LastSlow, SLOW};
use super::family::Family;
use crate::telemetry::labels::{METHODS, ReasonCounts, STATUSES, method_index, status_index};
use crate::types::{Protocol, Reason};

/// The answers of one route on one listener.
#[derive(Debug)]
pub struct RouteMetrics {
    listener: Arc<str>,
    route: Arc<str>,
    /// A row for each method, a column for each common status.
    answers: Box<[AtomicU64]>,
    rare_answers: Mutex<BTreeMap<(usize, u16), u64>>,
    rejections: ReasonCounts,
    last_rejected: LastRefused,
    /// Answers that ended with their credential, by how.
    lapsed: Mutex<BTreeMap<&'static str, u64>>,
    duration: Histogram,
    last_slow: LastSlow,
}

/// What authentication by one source came to.
#[derive(Debug)]
pub struct AuthMetrics {
    source: Arc<str>,
    accepted: AtomicU64,
    refused: ReasonCounts,
    last_refused: LastRefused,
}

/// The connections of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    listener: Arc<str>,
    http1: Connections,
    http2: Connections,
    handshake_failures: AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// A connection that is counted as open.
#[derive(Debug)]
pub struct OpenConnection {
    listener: Arc<ListenerMetrics>,
    protocol: Protocol,
}

/// The tunnels of one route: requests that switched to another protocol.
#[derive(Debug)]
pub struct TunnelMetrics {
    route: Arc<str>,
    open: AtomicI64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    ended: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Debug, Default)]
struct Connections {
    open: AtomicI64,
    total: AtomicU64,
}

/// How long one upstream takes.
#[derive(Debug)]
pub struct UpstreamMetrics {
    first_byte: Histogram,
}

const DURATION: &str = "vestibule_request_duration_seconds";
const DURATION_HELP: &str = "Time from the head of a request to the last byte of its answer.";
const FIRST_BYTE: &str = "vestibule_upstream_first_byte_seconds";
const FIRST_BYTE_HELP: &str =
    "Time from forwarding a request to the head of the upstream's answer.";

/// In seconds, from a hit in a cache to the longest patience.
const BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

impl RouteMetrics {
    pub(super) fn new(listener: &Arc<str>, route: &Arc<str>) -> Self {
        let labels = [("listener", &**listener), ("route", &**route)];
        Self {
            listener: Arc::clone(listener),
            route: Arc::clone(route),
            answers: zeros(METHODS.len() * STATUSES.len()),
            rare_answers: Mutex::default(),
            rejections: ReasonCounts::new(),
            last_rejected: LastRefused::default(),
            lapsed: Mutex::default(),
            duration: histogram(DURATION, DURATION_HELP, &labels),
            last_slow: LastSlow::default(),
        }
    }

    /// Counts an answered request; refusals are answers too.
    pub fn observe(&self, method: &Method, status: StatusCode, duration: Duration) {
        let row = method_index(method);
        let cell = status_index(status.as_u16())
            .and_then(|column| self.answers.get(row * STATUSES.len() + column));
        match cell {
            Some(cell) => {
                cell.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                *self
                    .rare_answers
                    .lock()
                    .entry((row, status.as_u16()))
                    .or_default() += 1;
            }
        }
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts a refusal; [`Self::observe`] counts its answer.
    pub fn reject(&self, reason: Reason, id: &HeaderValue, at: SystemTime) {
        self.rejections.count(reason);
        self.last_rejected.keep(reason, id, at);
    }

    /// Whether an answer that took so long is worth a look: [`Self::remember`] keeps its id.
    #[must_use]
    pub fn is_slow(duration: Duration) -> bool {
        duration > SLOW
    }

    /// Keeps the id of a slow answer beside the number that it was counted into.
    pub fn remember(&self, duration: Duration, id: &HeaderValue, at: SystemTime) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.iter().take_while(|bound| seconds > **bound).count();
        self.last_slow.keep(bucket, seconds, id, at);
    }

    /// An answer ended with the credential that it was given for; `how` is a word of the code.
    pub fn lapsed(&self, how: &'static str) {
        *self.lapsed.lock().entry(how).or_default() += 1;
    }

    /// The answers counted, by method and status.
    fn answers(&self) -> BTreeMap<(usize, u16), u64> {
        let mut answers = self.rare_answers.lock().clone();
        for (row, cells) in self.answers.chunks(STATUSES.len()).enumerate() {
            for (status, cell) in STATUSES.iter().zip(cells) {
                let count = cell.load(Ordering::Relaxed);
                if count > 0 {
                    answers.insert((row, *status), count);
                }
            }
        }
        answers
    }
}

impl AuthMetrics {
    pub(super) fn new(source: &Arc<str>) -> Self {
        Self {
            source: Arc::clone(source),
            accepted: AtomicU64::new(0),
            refused: ReasonCounts::new(),
            last_refused: LastRefused::default(),
        }
    }

    /// A credential was accepted, or none was needed.
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// The caller was refused.
    pub fn refused(&self, reason: Reason, id: &HeaderValue, at: SystemTime) {
        self.refused.count(reason);
        self.last_refused.keep(reason, id, at);
    }
}

impl ListenerMetrics {
    pub(super) fn new(listener: &Arc<str>) -> Self {
        Self {
            listener: Arc::clone(listener),
            http1: Connections::default(),
            http2: Connections::default(),
            handshake_failures: AtomicU64::new(0),
            refused: Mutex::default(),
        }
    }

    /// A connection speaks HTTP now, until what is returned is dropped.
    #[must_use]
    pub fn open(self: &Arc<Self>, protocol: Protocol) -> OpenConnection {
        let connections = self.of(protocol);
        connections.open.fetch_add(1, Ordering::Relaxed);
        connections.total.fetch_add(1, Ordering::Relaxed);
        OpenConnection {
            listener: Arc::clone(self),
            protocol,
        }
    }

    /// A TLS handshake failed or took too long.
    pub fn handshake_failed(&self) {
        self.handshake_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was turned away; `reason` is a word of the code, never of a client.
    pub fn refused(&self, reason: &'static str) {
        *self.refused.lock().entry(reason).or_default() += 1;
    }

    fn of(&self, protocol: Protocol) -> &Connections {
        match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let connections = self.listener.of(self.protocol);
        connections.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TunnelMetrics {
    pub(super) fn new(route: &Arc<str>) -> Self {
        Self {
            route: Arc::clone(route),
            open: AtomicI64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            ended: Mutex::default(),
        }
    }

    /// A tunnel begins; [`Self::ended`] must follow.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// A tunnel has ended; `how` is a word of the code.
    pub fn ended(&self, how: &'static str) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        *self.ended.lock().entry(how).or_default() += 1;
    }

    /// Bytes came from the client.
    pub fn passed_in(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes came from the upstream.
    pub fn passed_out(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl UpstreamMetrics {
    pub(super) fn new(upstream: &str) -> Self {
        Self {
            first_byte: histogram(FIRST_BYTE, FIRST_BYTE_HELP, &[("upstream", upstream)]),
        }
    }

    /// The upstream has begun to answer after `wait`.
    pub fn answered_after(&self, wait: Duration) {
        self.first_byte.observe(wait.as_secs_f64());
    }
}

pub(super) fn route_families(routes: &[Arc<RouteMetrics>]) -> Vec<Family> {
    let mut requests = Family::counter(
        "vestibule_requests_total",
        "Requests answered, refusals included.",
    );
    let mut durations = Family::histogram(DURATION, DURATION_HELP);
    for handle in routes {
        let (listener, route) = (&*handle.listener, &*handle.route);
        for ((row, status), count) in handle.answers() {
            let method = METHODS.get(row).copied().unwrap_or("OTHER");
            let status = status.to_string();
            let labels = [
                ("listener", listener),
                ("route", route),
                ("method", method),
                ("status", &*status),
            ];
            requests.count(&labels, count);
        }
        durations.push_histogram(&handle.duration);
        for (bucket, exemplar) in handle.last_slow.each() {
            durations.exemplify(bucket, Some(exemplar));
        }
    }
    vec![
        requests,
        durations,
        rejection_family(routes),
        lapse_family(routes),
    ]
}

/// Every reason is there from the start, under the empty route, so that an alert can be written before the first one.
fn rejection_family(routes: &[Arc<RouteMetrics>]) -> Family {
    let mut counts: BTreeMap<(&str, &str), (u64, Option<Exemplar>)> = Reason::ALL
        .iter()
        .map(|reason| (("", reason.code()), (0, None)))
        .collect();
    for handle in routes {
        for (reason, count) in handle.rejections.each().filter(|(_, count)| *count > 0) {
            let entry = counts.entry((&handle.route, reason.code())).or_default();
            let last = handle.last_rejected.find(reason);
            *entry = (entry.0 + count, Exemplar::later(entry.1, last));
        }
    }
    let mut rejections = Family::counter(
        "vestibule_rejections_total",
        "Requests refused by the gateway, by reason; no route: refused before one was found.",
    );
    for ((route, reason), (count, last)) in counts {
        rejections.count(&[("route", route), ("reason", reason)], count);
        rejections.exemplify(0, last);
    }
    rejections
}

fn lapse_family(routes: &[Arc<RouteMetrics>]) -> Family {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for handle in routes {
        for (how, count) in handle.lapsed.lock().iter() {
            *counts.entry((&handle.route, how)).or_default() += count;
        }
    }
    let mut lapsed = Family::counter(
        "vestibule_streams_lapsed_total",
        "Answers that ended before their end because the caller's credential did, by how.",
    );
    for ((route, how), count) in counts {
        lapsed.count(&[("route", route), ("how", how)], count);
    }
    lapsed
}

pub(super) fn auth_families(sources: &[Arc<AuthMetrics>]) -> Vec<Family> {
    let mut decisions = Family::counter(
        "vestibule_auth_decisions_total",
        "Decisions of authentication, by issuer or session and outcome.",
    );
    for handle in sources {
        let source = &*handle.source;
        let accepted = handle.accepted.load(Ordering::Relaxed);
        decisions.count(&[("source", source), ("outcome", "accepted")], accepted);
        for (reason, count) in handle.refused.each().filter(|(_, count)| *count > 0) {
            decisions.count(&[("source", source), ("outcome", reason.code())], count);
            decisions.exemplify(0, handle.last_refused.find(reason));
        }
    }
    vec![decisions]
}

pub(super) fn listener_families(listeners: &[Arc<ListenerMetrics>]) -> Vec<Family> {
    let mut open = Family::gauge(
        "vestibule_connections_open",
        "Connections open now, by protocol.",
    );
    let mut total = Family::counter(
        "vestibule_connections_total",
        "Connections that came to speak HTTP, by protocol.",
    );
    let mut refused = Family::counter(
        "vestibule_connections_refused_total",
        "Connections turned away, by reason.",
    );
    let mut handshakes = Family::counter(
        "vestibule_tls_handshake_failures_total",
        "TLS handshakes that failed or took too long.",
    );
    for handle in listeners {
        let listener = ("listener", &*handle.listener);
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let labels = [listener, ("protocol", protocol.as_str())];
            let connections = handle.of(protocol);
            let now = connections.open.load(Ordering::Relaxed);
            open.count(&labels, u64::try_from(now).unwrap_or(0));
            total.count(&labels, connections.total.load(Ordering::Relaxed));
        }
        for (reason, count) in handle.refused.lock().iter() {
            refused.count(&[listener, ("reason", reason)], *count);
        }
        handshakes.count(
            &[listener],
            handle.handshake_failures.load(Ordering::Relaxed),
        );
    }
    vec![open, total, refused, handshakes]
}

pub(super) fn tunnel_families(tunnels: &[Arc<TunnelMetrics>]) -> Vec<Family> {
    let mut open = Family::gauge(
        "vestibule_tunnels_open",
        "Switched protocols (WebSocket and others) under way.",
    );
    let mut bytes = Family::counter(
        "vestibule_tunnel_bytes_total",
        "Bytes passed by tunnels, by direction: in is from the client.",
    );
    let mut ended = Family::counter(
        "vestibule_tunnels_ended_total",
        "Tunnels that have ended, by how.",
    );
    for handle in tunnels {
        let route = ("route", &*handle.route);
        let now = handle.open.load(Ordering::Relaxed);
        open.count(&[route], u64::try_from(now).unwrap_or(0));
        for (direction, count) in [("in", &handle.bytes_in), ("out", &handle.bytes_out)] {
            let labels = [route, ("direction", direction)];
            bytes.count(&labels, count.load(Ordering::Relaxed));
        }
        for (how, count) in handle.ended.lock().iter() {
            ended.count(&[route, ("how", how)], *count);
        }
    }
    vec![open, bytes, ended]
}

pub(super) fn upstream_families(upstreams: &[Arc<UpstreamMetrics>]) -> Vec<Family> {
    let mut first_byte = Family::histogram(FIRST_BYTE, FIRST_BYTE_HELP);
    for handle in upstreams {
        first_byte.push_histogram(&handle.first_byte);
    }
    vec![first_byte]
}

fn zeros(count: usize) -> Box<[AtomicU64]> {
    std::iter::repeat_with(|| AtomicU64::new(0))
        .take(count)
        .collect()
}

fn histogram(name: &str, help: &str, labels: &[(&str, &str)]) -> Histogram {
    let opts = labels.iter().fold(
        HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()),
        |opts, (label, value)| opts.const_label(*label, *value),
    );
    Histogram::with_opts(opts)
        .expect("names, labels and buckets are literals of this file, and valid")
}
