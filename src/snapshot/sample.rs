//! What a scrape reads off the live state that a snapshot holds.

use std::sync::Arc;
use std::time::Instant;

use super::Snapshot;
use crate::authn::Issuer;
use crate::limit::Limit;
use crate::store::Store;
use crate::telemetry::metrics::{
    CertificateSample, ConfirmationSample, EndpointSample, IssuerSample, LimitSample, Samples,
    StoreSample, UpstreamSample,
};
use crate::upstream::{Cluster, Endpoint};

impl Snapshot {
    /// Reads every cluster, issuer, limit and certificate.
    #[must_use]
    pub fn samples(&self, now: Instant) -> Samples {
        Samples {
            upstreams: self
                .clusters
                .values()
                .chain(self.authorities.clusters())
                .map(|cluster| upstream(cluster, now))
                .collect(),
            issuers: self
                .authorities
                .issuers
                .values()
                .map(|issuer| issuer_sample(issuer))
                .collect(),
            confirmations: self.confirmations(),
            limits: self
                .limits
                .values()
                .map(|limit| limit_sample(limit))
                .collect(),
            certificates: self.certificates(),
            store: self.store.as_ref().map(|store| store_sample(store)),
            ..Samples::default()
        }
    }

    fn confirmations(&self) -> Vec<ConfirmationSample> {
        let sample = |source: &Arc<str>, kind, outcomes: [(&'static str, u64); 4]| {
            let source = Arc::clone(source);
            ConfirmationSample {
                source,
                kind,
                outcomes: outcomes.to_vec(),
            }
        };
        let issuers = self.authorities.issuers.values().filter_map(|issuer| {
            let outcomes = issuer.introspections()?;
            Some(sample(issuer.name(), "introspection", outcomes))
        });
        let sessions = self.authorities.sessions.values().filter_map(|session| {
            let outcomes = session.probes()?;
            Some(sample(session.name(), "probe", outcomes))
        });
        issuers.chain(sessions).collect()
    }

    fn certificates(&self) -> Vec<CertificateSample> {
        let mut samples = Vec::new();
        for listener in &self.listeners {
            let ends = listener.tls.iter().flat_map(|tls| tls.not_after());
            samples.extend(ends.map(|end| CertificateSample {
                listener: listener.name.clone(),
                name: end.name.clone(),
                not_after: std::time::UNIX_EPOCH + std::time::Duration::from_secs(end.unix_seconds),
            }));
        }
        samples
    }
}

fn upstream(cluster: &Cluster, now: Instant) -> UpstreamSample {
    let sum = |of: fn(&Endpoint) -> u64| {
        cluster
            .endpoints()
            .iter()
            .map(|endpoint| of(endpoint))
            .sum::<u64>()
    };
    let connects = sum(|endpoint| endpoint.connects().count());
    let failed = sum(|endpoint| endpoint.connect_failures().count());
    UpstreamSample {
        upstream: cluster.name().clone(),
        connects: vec![("ok", connects.saturating_sub(failed)), ("failed", failed)],
        retries: cluster.retries().count(),
        endpoints: cluster
            .endpoints()
            .iter()
            .map(|endpoint| EndpointSample {
                endpoint: endpoint.label().clone(),
                healthy: endpoint.is_healthy(now),
                in_flight: u64::from(endpoint.in_flight()),
                requests: vec![("sent", endpoint.requests().count())],
            })
            .collect(),
    }
}

fn issuer_sample(issuer: &Issuer) -> IssuerSample {
    let (hits, misses) = issuer.cache_hits_and_misses();
    let (revocations, revoked) = issuer.revocations();
    IssuerSample {
        issuer: issuer.name().clone(),
        keys: issuer.key_count() as u64,
        age: issuer.age(),
        fetches: vec![
            ("ok", issuer.fetches_ok()),
            ("failed", issuer.fetches_failed()),
        ],
        vanished_key_tokens: issuer.vanished_key_tokens(),
        cached_tokens: issuer.cached_tokens(),
        cache: vec![("hit", hits), ("miss", misses)],
        revocations,
        revoked,
    }
}

fn store_sample(store: &Store) -> StoreSample {
    let sample = store.sample();
    StoreSample {
        up: sample.status.up,
        lines: sample.status.lines as u64,
        open: sample.status.open as u64,
        operations: sample.operations,
        latency: sample.latency,
        latency_sum: sample.latency_sum,
        messages: sample.messages,
    }
}

fn limit_sample(limit: &Limit) -> LimitSample {
    let tally = limit.tally();
    let over = if limit.is_enforced() {
        "refused"
    } else {
        "observed"
    };
    LimitSample {
        limit: limit.name().clone(),
        keys: limit.keys() as u64,
        decisions: vec![
            ("allowed", tally.allowed),
            (over, tally.refused),
            ("exempt", tally.exempt),
        ],
        unreadable: tally.unreadable,
        spread: tally.spread,
        highest_spread: u64::from(tally.highest_spread),
        failures: tally.failed,
        bans: tally.bans,
        evictions: vec![
            ("clear", tally.evicted_clear),
            ("owing", tally.evicted_owing),
        ],
        waiting: tally.waiting,
        held: u64::from(tally.held.now),
        tarpit: vec![("held", tally.held.total), ("no_slot", tally.held.no_slot)],
        alone: tally.alone,
    }
}
