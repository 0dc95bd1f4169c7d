//! What a scrape reads off other rooms: counts that they keep for their own use, as they stand now.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::family::Family;
use crate::types::clock::unix_seconds;

/// All of it; what has left the configuration is simply not there.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// One for each upstream.
    pub upstreams: Vec<UpstreamSample>,
    /// One for each issuer.
    pub issuers: Vec<IssuerSample>,
    /// One for each backend or issuer that is asked about credentials.
    pub confirmations: Vec<ConfirmationSample>,
    /// One for each limit.
    pub limits: Vec<LimitSample>,
    /// One for each certificate that a listener serves.
    pub certificates: Vec<CertificateSample>,
    /// What replicas share, where there are several.
    pub store: Option<StoreSample>,
    /// Lines that the access log had to drop; see `AccessLog::dropped`.
    pub access_log_dropped: u64,
    /// Requests in flight in the process.
    pub in_flight: u64,
}

/// An upstream. The words of the counts are words of the code.
#[derive(Clone, Debug)]
pub struct UpstreamSample {
    /// Its name.
    pub upstream: Arc<str>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointSample>,
    /// Connections attempted, by result.
    pub connects: Vec<(&'static str, u64)>,
    /// Requests that were sent again.
    pub retries: u64,
}

/// An endpoint of an upstream.
#[derive(Clone, Debug)]
pub struct EndpointSample {
    /// Its address as configured.
    pub endpoint: Arc<str>,
    /// Whether it is given requests.
    pub healthy: bool,
    /// Requests it is answering.
    pub in_flight: u64,
    /// Requests it was given, by outcome.
    pub requests: Vec<(&'static str, u64)>,
}

/// An issuer.
#[derive(Clone, Debug)]
pub struct IssuerSample {
    /// Its name.
    pub issuer: Arc<str>,
    /// Keys in use.
    pub keys: u64,
    /// How old they are; `None` before the first set.
    pub age: Option<Duration>,
    /// Attempts to fetch them, by result.
    pub fetches: Vec<(&'static str, u64)>,
    /// Tokens refused although they were good, because the key that signed them is no longer published.
    pub vanished_key_tokens: u64,
    /// Verified tokens that are kept.
    pub cached_tokens: u64,
    /// Tokens that were looked for among them, by result.
    pub cache: Vec<(&'static str, u64)>,
    /// Logouts and their like.
    pub revocations: u64,
    /// Of those, what is still remembered.
    pub revoked: u64,
}

/// Somebody who is asked about credentials.
#[derive(Clone, Debug)]
pub struct ConfirmationSample {
    /// The issuer or session.
    pub source: Arc<str>,
    /// In which way: `probe` or `introspection`.
    pub kind: &'static str,
    /// Credentials that were to be confirmed, by outcome.
    pub outcomes: Vec<(&'static str, u64)>,
}

/// A limit; see `Limit::tally`.
#[derive(Clone, Debug)]
pub struct LimitSample {
    /// Its name.
    pub limit: Arc<str>,
    /// Keys kept.
    pub keys: u64,
    /// Requests, by decision.
    pub decisions: Vec<(&'static str, u64)>,
    /// Requests whose body could not be read.
    pub unreadable: u64,
    /// Requests that were one account, network or the like too many for their key.
    pub spread: u64,
    /// The most different ones that one key was seen with.
    pub highest_spread: u64,
    /// Failures charged.
    pub failures: u64,
    /// Bans begun.
    pub bans: u64,
    /// Keys that made room for others, by what they owed.
    pub evictions: Vec<(&'static str, u64)>,
    /// Requests that wait for others of their key to end.
    pub waiting: u64,
    /// Refusals that are held back now.
    pub held: u64,
    /// Refusals, by whether there was a slot to hold them back in.
    pub tarpit: Vec<(&'static str, u64)>,
    /// Decisions made without the store that replicas share; `None` for a limit that is not shared.
    pub alone: Option<u64>,
}

/// A certificate.
#[derive(Clone, Debug)]
pub struct CertificateSample {
    /// The listener.
    pub listener: Arc<str>,
    /// Its first name.
    pub name: Arc<str>,
    /// When it ends.
    pub not_after: SystemTime,
}

/// The store that replicas share.
#[derive(Clone, Debug)]
pub struct StoreSample {
    /// Whether every connection to it works.
    pub up: bool,
    /// Connections that there should be.
    pub lines: u64,
    /// Of those, the ones that nobody waits for because the circuit is open.
    pub open: u64,
    /// What was asked of it: operation, outcome, count.
    pub operations: Vec<(&'static str, &'static str, u64)>,
    /// Upper bounds in seconds, each with the number of answers up to it; the last is infinite.
    pub latency: Vec<(f64, u64)>,
    /// Sum of all latencies, in seconds.
    pub latency_sum: f64,
    /// Messages between replicas, by what came of them.
    pub messages: Vec<(&'static str, u64)>,
}

impl Samples {
    pub(super) fn families(&self) -> Vec<Family> {
        let mut dropped = Family::counter(
            "vestibule_access_log_dropped_total",
            "Lines of the access log that were dropped because its reader or its disk did not keep up.",
        );
        dropped.count(&[], self.access_log_dropped);
        let mut families = vec![dropped, self.certificate_family()];
        families.extend(self.upstream_families());
        families.extend(self.endpoint_families());
        families.extend(self.issuer_families());
        families.extend(self.token_families());
        families.push(self.confirmation_family());
        families.extend(self.limit_families());
        families.extend(self.store_families());
        families
    }

    fn certificate_family(&self) -> Family {
        let mut ends = Family::gauge(
            "vestibule_tls_certificate_not_after_seconds",
            "When a certificate ends, in Unix time.",
        );
        for sample in &self.certificates {
            let labels = [("listener", &*sample.listener), ("name", &*sample.name)];
            ends.count(&labels, unix_seconds(sample.not_after));
        }
        ends
    }

    fn upstream_families(&self) -> Vec<Family> {
        let mut connects = Family::counter(
            "vestibule_upstream_connects_total",
            "Connections to endpoints attempted, by result.",
        );
        let mut retries = Family::counter(
            "vestibule_upstream_retries_total",
            "Requests that were sent to an upstream again.",
        );
        for sample in &self.upstreams {
            let upstream = ("upstream", &*sample.upstream);
            for (result, count) in &sample.connects {
                connects.count(&[upstream, ("result", result)], *count);
            }
            retries.count(&[upstream], sample.retries);
        }
        vec![connects, retries]
    }

    fn endpoint_families(&self) -> Vec<Family> {
        let mut requests = Family::counter(
            "vestibule_upstream_requests_total",
            "Requests sent to an endpoint, by outcome.",
        );
        let mut in_flight = Family::gauge(
            "vestibule_upstream_in_flight",
            "Requests that an endpoint is answering.",
        );
        let mut healthy = Family::gauge(
            "vestibule_upstream_healthy",
            "1 if an endpoint is given requests, 0 if it is passed over.",
        );
        let endpoints = self
            .upstreams
            .iter()
            .flat_map(|sample| sample.endpoints.iter().map(|end| (&*sample.upstream, end)));
        for (upstream, sample) in endpoints {
            let labels = [("upstream", upstream), ("endpoint", &*sample.endpoint)];
            let [upstream, endpoint] = labels;
            for (outcome, count) in &sample.requests {
                requests.count(&[upstream, endpoint, ("outcome", outcome)], *count);
            }
            in_flight.count(&labels, sample.in_flight);
            healthy.count(&labels, u64::from(sample.healthy));
        }
        vec![requests, in_flight, healthy]
    }

    fn issuer_families(&self) -> Vec<Family> {
        let mut keys = Family::gauge("vestibule_jwks_keys", "Keys of an issuer in use.");
        let mut age = Family::gauge(
            "vestibule_jwks_age_seconds",
            "Time since the keys of an issuer were last fetched.",
        );
        let mut fetches = Family::counter(
            "vestibule_jwks_fetches_total",
            "Attempts to fetch the keys of an issuer, by result.",
        );
        for sample in &self.issuers {
            let issuer = ("issuer", &*sample.issuer);
            keys.count(&[issuer], sample.keys);
            if let Some(passed) = sample.age {
                age.push(&[issuer], passed.as_secs_f64());
            }
            for (result, count) in &sample.fetches {
                fetches.count(&[issuer, ("result", result)], *count);
            }
        }
        vec![keys, age, fetches]
    }

    fn token_families(&self) -> Vec<Family> {
        let mut vanished = Family::counter(
            "vestibule_jwks_vanished_key_tokens_total",
            "Tokens refused although they had not expired: their issuer no longer publishes the key that signed them.",
        );
        let mut cached = Family::gauge("vestibule_token_cache_entries", "Verified tokens kept.");
        let mut lookups = Family::counter(
            "vestibule_token_cache_lookups_total",
            "Tokens looked for among those verified before, by result.",
        );
        let mut revocations = Family::counter(
            "vestibule_revocations_total",
            "Logouts and their like that ended tokens of an issuer.",
        );
        let mut revoked = Family::gauge(
            "vestibule_revocations_remembered",
            "Ended tokens, users and logins that are remembered until their tokens expire.",
        );
        for sample in &self.issuers {
            let issuer = ("issuer", &*sample.issuer);
            vanished.count(&[issuer], sample.vanished_key_tokens);
            cached.count(&[issuer], sample.cached_tokens);
            for (result, count) in &sample.cache {
                lookups.count(&[issuer, ("result", result)], *count);
            }
            revocations.count(&[issuer], sample.revocations);
            revoked.count(&[issuer], sample.revoked);
        }
        vec![vanished, cached, lookups, revocations, revoked]
    }

    fn confirmation_family(&self) -> Family {
        let mut confirmations = Family::counter(
            "vestibule_confirmations_total",
            "Credentials that a backend (probe) or an issuer (introspection) is asked about, by outcome; cached: nobody was asked.",
        );
        for sample in &self.confirmations {
            let labels = [("source", &*sample.source), ("kind", sample.kind)];
            let [source, kind] = labels;
            for (outcome, count) in &sample.outcomes {
                confirmations.count(&[source, kind, ("outcome", outcome)], *count);
            }
        }
        confirmations
    }

    fn store_families(&self) -> Vec<Family> {
        let Some(sample) = &self.store else {
            return Vec::new();
        };
        let mut up = Family::gauge(
            "vestibule_store_up",
            "1 if every connection to the store works, 0 if one does not.",
        );
        up.count(&[], u64::from(sample.up));
        let mut lines = Family::gauge(
            "vestibule_store_circuits",
            "Connections to the store, one for each worker and one more, by the state of their circuit.",
        );
        lines.count(
            &[("state", "closed")],
            sample.lines.saturating_sub(sample.open),
        );
        lines.count(&[("state", "open")], sample.open);
        let mut operations = Family::counter(
            "vestibule_store_operations_total",
            "What the store was asked for, by outcome; open: it was not asked, because the circuit is open.",
        );
        for (operation, outcome, count) in &sample.operations {
            let labels = [("operation", *operation), ("outcome", *outcome)];
            operations.count(&labels, *count);
        }
        let mut latency = Family::histogram(
            "vestibule_store_latency_seconds",
            "How long the store takes to answer.",
        );
        latency.push_buckets(&sample.latency, sample.latency_sum);
        let mut messages = Family::counter(
            "vestibule_store_messages_total",
            "Messages of logouts between replicas, by what came of them.",
        );
        for (outcome, count) in &sample.messages {
            messages.count(&[("outcome", outcome)], *count);
        }
        vec![up, lines, operations, latency, messages]
    }

    fn limit_families(&self) -> Vec<Family> {
        let mut decisions =
            Family::counter("vestibule_limit_decisions_total", "Decisions of a limit.");
        let mut failures = Family::counter(
            "vestibule_limit_failures_total",
            "Failures that a limit was charged with.",
        );
        let mut bans = Family::counter("vestibule_limit_bans_total", "Bans that a limit began.");
        let mut evictions = Family::counter(
            "vestibule_limit_evictions_total",
            "Keys that made room for others because as many as max_keys were kept.",
        );
        let mut unreadable = Family::counter(
            "vestibule_limit_unreadable_decisions_total",
            "Decisions on bodies that could not be read as the limit's key asks.",
        );
        let mut spread = Family::counter(
            "vestibule_limit_distinct_exceeded_total",
            "Requests that were one value too many of what a limit counts under a key.",
        );
        let mut highest = Family::gauge(
            "vestibule_limit_distinct_highest",
            "The most values that a limit has counted under one key in the window.",
        );
        let mut keys = Family::gauge("vestibule_limit_keys", "Keys that a limit keeps.");
        let mut alone = Family::counter(
            "vestibule_limit_store_down_decisions_total",
            "Decisions of a shared limit that were made without the store, as its on_store_down says.",
        );
        let mut waiting = Family::gauge(
            "vestibule_limit_waiting",
            "Requests that wait until others of their key have ended.",
        );
        let mut held = Family::gauge(
            "vestibule_limit_tarpit_held",
            "Refusals that a limit holds back now.",
        );
        let mut tarpit = Family::counter(
            "vestibule_limit_tarpit_total",
            "Refusals of a limit with a tarpit, by whether a slot was free to hold them back in.",
        );
        for sample in &self.limits {
            let limit = ("limit", &*sample.limit);
            held.count(&[limit], sample.held);
            for (outcome, count) in &sample.tarpit {
                tarpit.count(&[limit, ("outcome", outcome)], *count);
            }
            for (decision, count) in &sample.decisions {
                decisions.count(&[limit, ("decision", decision)], *count);
            }
            for (state, count) in &sample.evictions {
                evictions.count(&[limit, ("state", state)], *count);
            }
            unreadable.count(&[limit], sample.unreadable);
            spread.count(&[limit], sample.spread);
            highest.count(&[limit], sample.highest_spread);
            failures.count(&[limit], sample.failures);
            bans.count(&[limit], sample.bans);
            keys.count(&[limit], sample.keys);
            waiting.count(&[limit], sample.waiting);
            if let Some(count) = sample.alone {
                alone.count(&[limit], count);
            }
        }
        vec![
            decisions, failures, bans, evictions, unreadable, spread, highest, keys, alone,
            waiting, held, tarpit,
        ]
    }
}
