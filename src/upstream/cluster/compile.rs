//! `[upstream.NAME]` to [`Cluster`]; what is live is carried over from the previous one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use http::uri::Authority;
use http::{HeaderValue, StatusCode, Uri};
use rustls::ClientConfig;

use super::{Cluster, Counter};
use crate::config::{self, KeyPath, Problems};
use crate::upstream::connect::Target;
use crate::upstream::endpoint::{Endpoint, Settings};
use crate::upstream::health::Check;
use crate::upstream::retry::Budget;
use crate::upstream::tls::{self, Verify};

impl Cluster {
    /// Compiles `[upstream.NAME]`. The previous cluster of that name is kept if nothing about it changed, and those of
    /// its endpoints of which nothing changed are kept in any case, with their health and their connections.
    pub fn compile(
        name: &str,
        upstream: &config::Upstream,
        path: &KeyPath,
        previous: Option<&Arc<Self>>,
        problems: &mut Problems,
    ) -> Option<Arc<Self>> {
        let mut mistakes = Problems::default();
        let host = host(upstream, path, &mut mistakes);
        let check = check(upstream, path, &mut mistakes);
        judge_numbers(upstream, path, &mut mistakes);
        let endpoints = endpoints(upstream, path, previous, &mut mistakes);
        if !mistakes.is_empty() {
            for mistake in mistakes.into_errors() {
                problems.push_with_help(&mistake.path, mistake.message, mistake.help);
            }
            return None;
        }
        if let Some(previous) = previous.filter(|previous| previous.serves(upstream, &endpoints)) {
            return Some(Arc::clone(previous));
        }
        Some(Arc::new(Self {
            name: name.into(),
            written: upstream.clone(),
            endpoints,
            balance: upstream.balance,
            turn: AtomicUsize::new(0),
            max_requests: upstream.max_requests,
            retries: upstream.retries,
            body_timeout: upstream.body_timeout.0,
            host,
            check: check.map(Arc::new),
            budget: Budget::default(),
            requests: Counter::default(),
            retried: Counter::default(),
            faults: Default::default(),
        }))
    }

    fn serves(&self, upstream: &config::Upstream, endpoints: &[Arc<Endpoint>]) -> bool {
        self.written == *upstream
            && self.endpoints.len() == endpoints.len()
            && self
                .endpoints
                .iter()
                .zip(endpoints)
                .all(|(old, new)| Arc::ptr_eq(old, new))
    }
}

fn read(file: &Path) -> Result<Arc<[u8]>, String> {
    std::fs::read(file)
        .map(Arc::from)
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))
}

fn host(
    upstream: &config::Upstream,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<HeaderValue> {
    let host = upstream.host.as_deref()?;
    let value = authority_value(host);
    if value.is_none() {
        problems.push(&path.key("host"), format!("`{host}` is no host"));
    }
    value
}

fn authority_value(text: &str) -> Option<HeaderValue> {
    let authority: Authority = text.parse().ok()?;
    if authority.as_str().contains('@') {
        return None;
    }
    HeaderValue::from_str(text).ok()
}

fn check(upstream: &config::Upstream, path: &KeyPath, problems: &mut Problems) -> Option<Check> {
    let health = upstream.health.as_ref()?;
    let path = path.key("health");
    let uri = health
        .path
        .parse::<Uri>()
        .ok()
        .filter(|uri| health.path.starts_with('/') && uri.authority().is_none());
    if uri.is_none() {
        problems.push(
            &path.key("path"),
            format!("`{}` is no path such as \"/healthz\"", health.path),
        );
    }
    let mut statuses = Vec::new();
    for (index, status) in health.statuses.iter().enumerate() {
        match StatusCode::from_u16(*status) {
            Ok(status) if !status.is_informational() => statuses.push(status),
            _ => problems.push(
                &path.key("statuses").index(index),
                format!("{status} is no status of an answer"),
            ),
        }
    }
    let host = health.host.as_deref().and_then(|host| {
        let value = authority_value(host);
        if value.is_none() {
            problems.push(&path.key("host"), format!("`{host}` is no host"));
        }
        value
    });
    for (key, span) in [("interval", health.interval), ("timeout", health.timeout)] {
        if span.0.is_zero() {
            problems.push(&path.key(key), "must be more than nothing");
        }
    }
    Some(Check {
        path: uri?,
        host,
        statuses,
        interval: health.interval.0,
        timeout: health.timeout.0,
        unhealthy_after: health.unhealthy_after,
        healthy_after: health.healthy_after,
    })
}

fn judge_numbers(upstream: &config::Upstream, path: &KeyPath, problems: &mut Problems) {
    for (key, span) in [
        ("connect_timeout", upstream.connect_timeout),
        ("idle_timeout", upstream.idle_timeout),
        ("body_timeout", upstream.body_timeout),
    ] {
        if span.0.is_zero() {
            problems.push(&path.key(key), "must be more than nothing");
        }
    }
    if upstream.max_requests == 0 {
        problems.push(&path.key("max_requests"), "0 would refuse every request");
    }
    let encrypted = |endpoint: &config::Endpoint| endpoint.scheme.is_tls();
    if upstream.tls != config::UpstreamTls::default() && !upstream.endpoints.iter().any(encrypted) {
        problems.push_with_help(
            &path.key("tls"),
            "no endpoint of this upstream is encrypted",
            Some("write https:// or h2:// endpoints, or drop `tls`".to_owned()),
        );
    }
}

fn endpoints(
    upstream: &config::Upstream,
    path: &KeyPath,
    previous: Option<&Arc<Cluster>>,
    problems: &mut Problems,
) -> Vec<Arc<Endpoint>> {
    let key = path.key("endpoints");
    if upstream.endpoints.is_empty() {
        problems.push(&key, "an upstream needs at least one endpoint");
    }
    let ca = upstream.tls.ca.as_deref().and_then(|file| {
        read(file)
            .map_err(|why| problems.push(&path.key("tls").key("ca"), why))
            .ok()
    });
    let mut trust = Trust::new(ca.clone());
    let mut compiled: Vec<Arc<Endpoint>> = Vec::with_capacity(upstream.endpoints.len());
    for (index, address) in upstream.endpoints.iter().enumerate() {
        let key = key.index(index);
        let settings = Settings {
            address: address.clone(),
            server_name: upstream.tls.server_name.clone(),
            ca: ca.clone(),
            connect_timeout: upstream.connect_timeout.0,
            idle_timeout: upstream.idle_timeout.0,
        };
        if compiled.iter().any(|other| *other.settings() == settings) {
            problems.push(&key, format!("`{address}` is named twice"));
            continue;
        }
        let kept = previous.and_then(|previous| {
            let mut known = previous.endpoints.iter();
            known.find(|endpoint| *endpoint.settings() == settings)
        });
        if let Some(kept) = kept {
            compiled.push(Arc::clone(kept));
            continue;
        }
        match endpoint(settings, &mut trust) {
            Ok(endpoint) => compiled.push(Arc::new(endpoint)),
            Err(why) => problems.push(&key, why),
        }
    }
    compiled
}

/// Roots are parsed once for all endpoints of a cluster, not once for each.
struct Trust {
    ca: Option<Arc<[u8]>>,
    h1: Option<Arc<ClientConfig>>,
    h2: Option<Arc<ClientConfig>>,
}

impl Trust {
    fn new(ca: Option<Arc<[u8]>>) -> Self {
        Self {
            ca,
            h1: None,
            h2: None,
        }
    }

    fn client_config(&mut self, h2: bool) -> Result<Arc<ClientConfig>, String> {
        let slot = if h2 { &mut self.h2 } else { &mut self.h1 };
        if let Some(config) = slot {
            return Ok(Arc::clone(config));
        }
        let config = tls::client_config(self.ca.as_deref(), h2)?;
        Ok(Arc::clone(slot.insert(config)))
    }
}

fn endpoint(settings: Settings, trust: &mut Trust) -> Result<Endpoint, String> {
    let address = &settings.address;
    let host = authority_value(&address.authority())
        .ok_or_else(|| format!("`{}` is no host", address.host))?;
    let verify = if address.scheme.is_tls() {
        Some(Verify {
            config: trust.client_config(address.scheme.is_h2())?,
            name: tls::server_name(settings.server_name.as_deref().unwrap_or(&address.host))?,
        })
    } else {
        None
    };
    let target = Target {
        address: address.clone(),
        verify,
    };
    Ok(Endpoint::new(settings, target, host))
}
