//! Metrics: cells that requests count into, and the text that Prometheus reads.
//!
//! Three kinds, by who owns the number. *Handles* ([`RouteMetrics`] and its like) are resolved when a snapshot is
//! compiled and counted into per request, without a look-up by label; they vanish from the text with the last snapshot
//! that holds them. *Samples* are read off other rooms' live state when a scrape comes. *Process-wide* numbers stand in
//! a registry.

mod exemplar;
mod family;
mod handles;
mod in_use;
pub mod open;
mod own_process;
mod registry;
mod samples;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use prometheus::TextEncoder;

pub use handles::{
    AuthMetrics, ListenerMetrics, OpenConnection, RouteMetrics, TunnelMetrics, UpstreamMetrics,
};
pub use samples::{
    CertificateSample, ConfirmationSample, EndpointSample, IssuerSample, LimitSample, Samples,
    StoreSample, UpstreamSample,
};

use crate::types::clock::unix_seconds;
use family::{Family, Gathered};
use in_use::InUse;
use registry::ProcessWide;

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of the process; one, passed by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    process_wide: ProcessWide,
    routes: InUse<(Arc<str>, Arc<str>), RouteMetrics>,
    auth: InUse<Arc<str>, AuthMetrics>,
    listeners: InUse<Arc<str>, ListenerMetrics>,
    upstreams: InUse<Arc<str>, UpstreamMetrics>,
    tunnels: InUse<Arc<str>, TunnelMetrics>,
}

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            process_wide: ProcessWide::new(),
            routes: InUse::default(),
            auth: InUse::default(),
            listeners: InUse::default(),
            upstreams: InUse::default(),
            tunnels: InUse::default(),
        })
    }

    /// The handle of one route on one listener; the one in use, if there is one. A request that matched no route counts
    /// under the empty name.
    #[must_use]
    pub fn route(&self, listener: &str, route: &str) -> Arc<RouteMetrics> {
        let key = (Arc::from(listener), Arc::from(route));
        self.routes
            .find_or_make(&key, |(listener, route)| RouteMetrics::new(listener, route))
    }

    /// The handle of one issuer or session; the empty name stands for requests without a credential.
    #[must_use]
    pub fn auth(&self, source: &str) -> Arc<AuthMetrics> {
        self.auth.find_or_make(&Arc::from(source), AuthMetrics::new)
    }

    /// The handle of one listener.
    #[must_use]
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        self.listeners
            .find_or_make(&Arc::from(name), ListenerMetrics::new)
    }

    /// The handle of one upstream.
    #[must_use]
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        self.upstreams
            .find_or_make(&Arc::from(name), |name| UpstreamMetrics::new(name))
    }

    /// The handle of the tunnels of one route.
    #[must_use]
    pub fn tunnels(&self, route: &str) -> Arc<TunnelMetrics> {
        self.tunnels
            .find_or_make(&Arc::from(route), TunnelMetrics::new)
    }

    /// A task ended in a panic.
    pub fn panicked(&self) {
        self.process_wide.panics.inc();
    }

    /// A configuration was loaded and is in force; `generation` counts them from 1. The first one is no reload.
    pub fn config_in_force(&self, generation: u64, at: SystemTime) {
        if generation > 1 {
            self.process_wide.reloads_done.inc();
        }
        self.process_wide.last_reload_success.set(1);
        self.process_wide
            .last_reload_at
            .set(signed(unix_seconds(at)));
        self.process_wide.generation.set(signed(generation));
    }

    /// A reload was refused and the old configuration stays in force.
    pub fn config_refused(&self, at: SystemTime) {
        self.process_wide.reloads_refused.inc();
        self.process_wide.last_reload_success.set(0);
        self.process_wide
            .last_reload_at
            .set(signed(unix_seconds(at)));
    }

    /// Everything in Prometheus' text format. Reads `/proc`: for the admin thread.
    #[must_use]
    pub fn render(&self, samples: &Samples) -> String {
        let gathered = self.gather(samples).into_iter();
        let families: Vec<_> = gathered.map(|gathered| gathered.family).collect();
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "metrics are incomplete");
        }
        text
    }

    /// The same in OpenMetrics' text format, with the last request behind each refusal and each slow answer.
    #[must_use]
    pub fn render_open(&self, samples: &Samples) -> String {
        open::encode(&self.gather(samples))
    }

    fn gather(&self, samples: &Samples) -> Vec<Gathered> {
        self.process_wide.in_flight.set(signed(samples.in_flight));
        let own = self.process_wide.families().into_iter();
        let mut families: Vec<Gathered> = own.map(Gathered::from).collect();
        let mut add = |more: Vec<Family>| {
            families.extend(more.into_iter().filter_map(Family::gathered));
        };
        add(handles::route_families(&self.routes.each()));
        add(handles::auth_families(&self.auth.each()));
        add(handles::listener_families(&self.listeners.each()));
        add(handles::upstream_families(&self.upstreams.each()));
        add(handles::tunnel_families(&self.tunnels.each()));
        add(samples.families());
        add(own_process::families());
        families.sort_by(|one, other| one.family.name().cmp(other.family.name()));
        families
    }
}

/// Gauges are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
