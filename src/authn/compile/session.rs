//! `[session.NAME]`: a cookie, and who vouches for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;

use crate::authn::session::{Probe, Proof};
use crate::authn::{Authorities, Bench, Issuer, Session};
use crate::config::{self, Config, KeyPath, Problems};
use crate::upstream::Cluster;

pub(super) struct Sources<'s> {
    pub(super) config: &'s Config,
    pub(super) clusters: &'s BTreeMap<String, Arc<Cluster>>,
    pub(super) authorities: &'s Authorities,
}

impl Session {
    pub(super) fn compile(
        name: &str,
        config: &config::Session,
        path: &KeyPath,
        sources: &Sources<'_>,
        previous: Option<&Arc<Self>>,
        problems: &mut Problems,
    ) -> Option<Arc<Self>> {
        if !is_cookie_name(&config.cookie) {
            problems.push(&path.key("cookie"), "is no name of a cookie");
            return None;
        }
        if config.bearer && config.probe.is_none() {
            problems.push(
                &path.key("bearer"),
                "has an effect with `probe` alone; name the issuer in `auth` beside the session",
            );
        }
        let proof = match (&config.issuer, &config.introspection, &config.probe) {
            (Some(issuer), None, None) => {
                let issuer = sources.issuer(issuer, &path.key("issuer"), problems)?;
                Proof::Token(Arc::clone(&issuer), Bench::alone(issuer))
            }
            (None, Some(issuer), None) => {
                let path = path.key("introspection");
                let issuer = sources.issuer(issuer, &path, problems)?;
                if !issuer.takes_opaque() {
                    problems.push(&path, "names an issuer without `introspection`");
                    return None;
                }
                Proof::Introspection(issuer)
            }
            (None, None, Some(probe)) => sources.probe(config, probe, path, problems)?,
            _ => {
                problems.push(
                    path,
                    "needs exactly one of `issuer`, `introspection` and `probe`",
                );
                return None;
            }
        };
        if let Some(previous) = previous
            && previous.config == *config
            && previous.proof.is_same(&proof)
        {
            return Some(Arc::clone(previous));
        }
        Some(Arc::new(Self {
            name: name.into(),
            config: config.clone(),
            cookie: config.cookie.as_str().into(),
            proof,
        }))
    }
}

impl Proof {
    /// Whether both ask the same live issuer or cluster.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(one, _), Self::Token(other, _))
            | (Self::Introspection(one), Self::Introspection(other)) => Arc::ptr_eq(one, other),
            (Self::Probe(one), Self::Probe(other)) => Arc::ptr_eq(&one.cluster, &other.cluster),
            _ => false,
        }
    }
}

impl Sources<'_> {
    fn issuer(&self, name: &str, path: &KeyPath, problems: &mut Problems) -> Option<Arc<Issuer>> {
        let known = &self.authorities.issuers;
        let issuer = known.get(name).map(Arc::clone);
        if issuer.is_none() && !self.authorities.broken.contains(name) {
            problems.unknown_name(path, "issuer", name, known.keys().map(String::as_str));
        }
        issuer
    }

    fn probe(
        &self,
        session: &config::Session,
        probe: &config::Probe,
        path: &KeyPath,
        problems: &mut Problems,
    ) -> Option<Proof> {
        if session.cache.0 > MOST_SESSION_CACHE {
            problems.push(
                &path.key("cache"),
                "longer than 1h: a logout elsewhere would not be seen",
            );
            return None;
        }
        let path = path.key("probe");
        let target: Option<PathAndQuery> = probe.path.parse().ok();
        let target = target.filter(|_| probe.path.starts_with('/') && !probe.path.contains('#'));
        if target.is_none() {
            problems.push(&path.key("path"), "is no path");
        }
        let cluster = self.clusters.get(&probe.upstream);
        // An upstream that is written but did not compile has been complained about already.
        if cluster.is_none() && !self.config.upstream.contains_key(&probe.upstream) {
            let known = self.config.upstream.keys().map(String::as_str);
            problems.unknown_name(&path.key("upstream"), "upstream", &probe.upstream, known);
        }
        Some(Proof::Probe(Box::new(Probe::new(
            Arc::clone(cluster?),
            target?,
            probe.timeout.0,
            session.cache.0,
            session.map.clone(),
        ))))
    }
}

/// A token of RFC 9110; what RFC 6265 lets a cookie be called.
fn is_cookie_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A logout that does not pass by here is seen after this time at the latest.
const MOST_SESSION_CACHE: Duration = Duration::from_secs(3_600);
