//! From the configuration to issuers and sessions that can judge. Everything that is missing, unreadable or weak is a
//! problem here, at start or reload, and never a surprise at the first request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;
use jsonwebtoken::DecodingKey;
use parking_lot::Mutex;

use super::cache::{Fingerprint, Tokens, fingerprint};
use super::issuer::{Issuer, Keys, report_left_out};
use super::jwks::fetch::{Location, is_https, is_loopback, is_plain_url};
use super::jwks::store::Loaded;
use super::jwks::{KeySet, Remote, Store};
use super::jwt::shape::media_type;
use super::jwt::verify::{is_hmac, least_secret, self_test};
use super::jwt::{Mapping, Terms};
use super::session::{Probe, Proof, Session};
use super::{Authn, Authorities, Demand};
use crate::config::{
    self, Algorithm, Auth, AuthRules, Config, KeyPath, Problems, Secret, SecretRef,
};
use crate::types::clock;
use crate::upstream::Cluster;

/// A longer leeway would make `exp` mean little.
const MOST_LEEWAY: Duration = Duration::from_secs(600);

/// Shorter, and the issuer would be asked without a pause; longer, and a withdrawn key would live on for too long.
const REFRESH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// A logout that does not pass by here is seen after this time at the latest.
const MOST_SESSION_CACHE: Duration = Duration::from_secs(3_600);

impl Authorities {
    /// Compiles all issuers and sessions. What `previous` holds under the same name and configuration is taken over as
    /// it is; an issuer that changed keeps its keys where their source did not.
    #[must_use]
    pub fn compile(
        config: &Config,
        clusters: &BTreeMap<String, Arc<Cluster>>,
        previous: Option<&Self>,
        problems: &mut Problems,
    ) -> Self {
        let mut authorities = Self::default();
        if let Err(why) = self_test() {
            problems.push(&KeyPath::root().key("issuer"), why.to_string());
        }
        for (name, issuer) in &config.issuer {
            let path = KeyPath::root().key("issuer").key(name);
            let earlier = previous.and_then(|previous| previous.issuers.get(name));
            if let Some(issuer) = Issuer::compile(name, issuer, &path, earlier, problems) {
                authorities.issuers.insert(name.clone(), issuer);
            } else {
                authorities.broken.insert(name.clone());
            }
        }
        for (name, session) in &config.session {
            let path = KeyPath::root().key("session").key(name);
            if config.issuer.contains_key(name) {
                problems.push(
                    &path,
                    "an issuer has the same name, so that routes could mean either",
                );
            }
            let earlier = previous.and_then(|previous| previous.sessions.get(name));
            let sources = Sources {
                config,
                clusters,
                authorities: &authorities,
            };
            let compiled = Session::compile(name, session, &path, &sources, earlier, problems);
            if let Some(session) = compiled {
                authorities.sessions.insert(name.clone(), session);
            } else {
                authorities.broken.insert(name.clone());
            }
        }
        authorities
    }
}

impl Issuer {
    fn compile(
        name: &str,
        config: &config::Issuer,
        path: &KeyPath,
        previous: Option<&Arc<Self>>,
        problems: &mut Problems,
    ) -> Option<Arc<Self>> {
        check_terms(config, path, problems);
        check_algorithms(config, path, problems);
        let keys = keys(config, path, previous.map(AsRef::as_ref), problems)?;
        if let Some(previous) = previous.filter(|previous| previous.is_same(config, &keys)) {
            return Some(Arc::clone(previous));
        }
        Some(Arc::new(Self {
            name: name.into(),
            config: config.clone(),
            algorithms: config.algorithms.clone().into(),
            terms: Terms {
                audiences: config.audiences.clone().into(),
                required: config.required_claims.clone().into(),
                typ: config.token_type.as_deref().map(media_type),
                leeway: config.leeway.0,
            },
            mapping: Mapping {
                org: config.org_claim.clone(),
                roles: config.roles_claim.clone(),
            },
            max_token: usize::try_from(config.max_token.0).unwrap_or(usize::MAX),
            keys,
            tokens: Tokens::new(),
            is_kept_fresh: AtomicBool::new(false),
        }))
    }

    /// Whether this issuer was made from the same words, and from the same secrets or file.
    fn is_same(&self, config: &config::Issuer, keys: &Keys) -> bool {
        self.config == *config && self.keys.fingerprint() == keys.fingerprint()
    }

    /// Whether keys that were fetched under `other` are the keys of this issuer too.
    fn has_same_source(&self, other: &config::Issuer) -> bool {
        self.config.url == other.url
            && self.config.jwks_url == other.jwks_url
            && self.config.connect == other.connect
            && self.config.ca == other.ca
    }
}

impl Keys {
    fn fingerprint(&self) -> Option<&Fingerprint> {
        match self {
            Self::Secrets { fingerprint, .. } | Self::File { fingerprint, .. } => Some(fingerprint),
            Self::Remote { .. } => None,
        }
    }
}

fn check_terms(config: &config::Issuer, path: &KeyPath, problems: &mut Problems) {
    if config.url.is_empty() {
        problems.push(
            &path.key("url"),
            "must not be empty: it is the `iss` of every token",
        );
    }
    if config.audiences.iter().any(String::is_empty) {
        problems.push(&path.key("audiences"), "an audience is empty");
    }
    if config.audiences.is_empty() && config.required_claims.is_empty() {
        problems.push_with_help(
            &path.key("audiences"),
            "without an audience, any token of the issuer would pass for an access token",
            Some("name the audiences, or tell access tokens by `required_claims`".to_owned()),
        );
    }
    if config.leeway.0 > MOST_LEEWAY {
        problems.push(&path.key("leeway"), "longer than 10m");
    }
    if !(REFRESH.0..=REFRESH.1).contains(&config.refresh.0) {
        problems.push(&path.key("refresh"), "not between 1s and 1d");
    }
}

/// Families never mix: with both in one list, a public key could be taken for a shared secret.
fn check_algorithms(config: &config::Issuer, path: &KeyPath, problems: &mut Problems) {
    let path = path.key("algorithms");
    if config.algorithms.is_empty() {
        problems.push(&path, "must name at least one algorithm");
    }
    let (hmac, public): (Vec<Algorithm>, Vec<Algorithm>) =
        config.algorithms.iter().partition(|one| is_hmac(**one));
    if config.secret.is_some() && !public.is_empty() {
        problems.push_with_help(
            &path,
            format!("a secret cannot verify {:?}", public),
            Some("with a secret, algorithms = [\"HS256\"]".to_owned()),
        );
    }
    if config.secret.is_none() && !hmac.is_empty() {
        problems.push(
            &path,
            format!("{hmac:?} need a `secret`; no key set may hold one"),
        );
    }
}

/// Finds out where the keys come from; exactly one source.
fn keys(
    config: &config::Issuer,
    path: &KeyPath,
    previous: Option<&Issuer>,
    problems: &mut Problems,
) -> Option<Keys> {
    let sources = [
        ("secret", config.secret.is_some()),
        ("jwks_file", config.jwks_file.is_some()),
        ("jwks_url", config.jwks_url.is_some()),
    ];
    let named: Vec<&str> = sources
        .iter()
        .filter(|one| one.1)
        .map(|one| one.0)
        .collect();
    if named.len() > 1 {
        problems.push(path, format!("{} exclude each other", named.join(" and ")));
        return None;
    }
    if config.previous_secret.is_some() && config.secret.is_none() {
        problems.push(&path.key("previous_secret"), "has no `secret` to precede");
    }
    let is_local = config.secret.is_some() || config.jwks_file.is_some();
    if is_local && (config.connect.is_some() || config.ca.is_some()) {
        problems.push(
            path,
            "`connect` and `ca` have no effect: nothing is fetched",
        );
    }
    match (&config.secret, &config.jwks_file) {
        (Some(secret), _) => secrets(secret, config, path, problems),
        (None, Some(file)) => key_file(file, config, &path.key("jwks_file"), problems),
        (None, None) => remote(config, path, previous, problems),
    }
}

fn secrets(
    secret: &SecretRef,
    config: &config::Issuer,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Keys> {
    let current = secret_bytes(secret, config, &path.key("secret"), problems);
    let previous = config
        .previous_secret
        .as_ref()
        .map(|previous| secret_bytes(previous, config, &path.key("previous_secret"), problems));
    let mut all = vec![current?];
    if let Some(previous) = previous {
        all.push(previous?);
    }
    let parts: Vec<&[u8]> = all.iter().map(|secret| secret.expose()).collect();
    Some(Keys::Secrets {
        secrets: parts
            .iter()
            .map(|part| DecodingKey::from_secret(part))
            .collect(),
        fingerprint: fingerprint(&parts),
    })
}

fn secret_bytes(
    secret: &SecretRef,
    config: &config::Issuer,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Secret> {
    let secret = match secret.read() {
        Ok(secret) => secret,
        Err(why) => {
            problems.push(path, why.to_string());
            return None;
        }
    };
    let hardest = config
        .algorithms
        .iter()
        .copied()
        .max_by_key(|one| least_secret(*one));
    let (algorithm, least) = hardest.map_or((Algorithm::HS256, 32), |one| (one, least_secret(one)));
    let length = secret.expose().len();
    if length < least {
        let message = format!("the secret has {length} bytes; {algorithm:?} needs {least}");
        let help = "openssl rand -base64 48".to_owned();
        problems.push_with_help(path, message, Some(help));
        return None;
    }
    Some(secret)
}

fn key_file(
    file: &std::path::Path,
    config: &config::Issuer,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Keys> {
    let read = std::fs::read(file)
        .map_err(|why| format!("cannot read `{}`: {why}", file.display()))
        .and_then(|bytes| {
            let set = KeySet::parse(&bytes, &config.algorithms).map_err(|why| why.to_string())?;
            report_left_out(&path.to_string(), set.left_out(), &[]);
            Ok((set, Bytes::from(bytes)))
        });
    match read {
        Ok((set, raw)) => Some(Keys::File {
            fingerprint: fingerprint(&[&raw]),
            loaded: Box::new(Loaded {
                set,
                raw,
                generation: 0,
                at: clock::now(),
            }),
        }),
        Err(why) => {
            problems.push(path, why);
            None
        }
    }
}

fn remote(
    config: &config::Issuer,
    path: &KeyPath,
    previous: Option<&Issuer>,
    problems: &mut Problems,
) -> Option<Keys> {
    let connect = match config.connect.as_deref().map(str::parse).transpose() {
        Ok(connect) => connect,
        Err(why) => {
            let why: config::value::BadValue = why;
            problems.push(&path.key("connect"), why.to_string());
            return None;
        }
    };
    let location = match location(config) {
        Ok(location) => location,
        Err((key, why)) => {
            problems.push(&path.key(key), why);
            return None;
        }
    };
    let remote = Remote {
        issuer: config.url.clone(),
        location,
        connect,
        ca: config.ca.clone(),
        allowed: config.algorithms.clone().into(),
        discovered: Mutex::default(),
    };
    let store = Store::new(config.refresh.0, config.stale_max.0, clock::now());
    if let Some(Keys::Remote { store: earlier, .. }) = previous
        .filter(|previous| previous.has_same_source(config))
        .map(|previous| &previous.keys)
    {
        store.adopt(earlier, &remote.allowed);
    }
    Some(Keys::Remote {
        remote: Box::new(remote),
        store,
    })
}

/// https, or http where nothing leaves this machine or the operator named where to connect.
fn location(config: &config::Issuer) -> Result<Location, (&'static str, String)> {
    let (key, written) = match &config.jwks_url {
        Some(written) => ("jwks_url", written),
        None => ("url", &config.url),
    };
    let url: Option<Uri> = written.parse().ok().filter(is_plain_url);
    let Some(url) = url else {
        let why = match key {
            "url" => {
                "is no URL, so one of `jwks_url`, `jwks_file` and `secret` must tell where the keys are"
            }
            _ => "is no http or https URL",
        };
        return Err((key, why.to_owned()));
    };
    if !is_https(&url) && !is_loopback(&url) && config.connect.is_none() {
        let why = "is neither https nor on loopback: whoever is in between could exchange the keys";
        return Err((key, why.to_owned()));
    }
    if key == "jwks_url" {
        return Ok(Location::Keys(url));
    }
    let document = format!(
        "{}/.well-known/openid-configuration",
        written.trim_end_matches('/')
    );
    let document = document
        .parse()
        .map_err(|_| (key, "is no URL that a path can follow".to_owned()))?;
    Ok(Location::Discovery {
        issuer: url,
        document,
    })
}

struct Sources<'s> {
    config: &'s Config,
    clusters: &'s BTreeMap<String, Arc<Cluster>>,
    authorities: &'s Authorities,
}

impl Session {
    fn compile(
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
        let proof = match (&config.issuer, &config.probe) {
            (Some(issuer), None) => sources.token(issuer, &path.key("issuer"), problems)?,
            (None, Some(probe)) => sources.probe(config, probe, path, problems)?,
            _ => {
                problems.push(path, "needs exactly one of `issuer` and `probe`");
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
            (Self::Token(one), Self::Token(other)) => Arc::ptr_eq(one, other),
            (Self::Probe(one), Self::Probe(other)) => Arc::ptr_eq(&one.cluster, &other.cluster),
            _ => false,
        }
    }
}

impl Sources<'_> {
    fn token(&self, name: &str, path: &KeyPath, problems: &mut Problems) -> Option<Proof> {
        let known = &self.authorities.issuers;
        let issuer = known.get(name).map(Arc::clone);
        if issuer.is_none() && !self.authorities.broken.contains(name) {
            problems.unknown_name(path, "issuer", name, known.keys().map(String::as_str));
        }
        issuer.map(Proof::Token)
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

impl Authn {
    /// Compiles what a route asks of its callers. `path` is that of the route's `auth`.
    pub fn compile(
        auth: &Auth,
        path: &KeyPath,
        authorities: &Authorities,
        problems: &mut Problems,
    ) -> Option<Self> {
        let demand = match auth {
            Auth::None | Auth::Deny => None,
            Auth::Rules(rules) => Some(Demand::compile(rules, path, authorities, problems)?),
        };
        Some(Self { demand })
    }
}

impl Demand {
    fn compile(
        rules: &AuthRules,
        path: &KeyPath,
        authorities: &Authorities,
        problems: &mut Problems,
    ) -> Option<Self> {
        let (names, path) = vouchers(rules, path, problems)?;
        let everybody = !rules.all.is_empty();
        let mut issuers: Vec<Arc<Issuer>> = Vec::new();
        let mut sessions: Vec<Arc<Session>> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut is_whole = true;
        for (position, name) in names.iter().enumerate() {
            let path = path.index(position);
            if !seen.insert(name) {
                problems.push(&path, format!("`{name}` is named twice"));
                is_whole = false;
            } else if let Some(issuer) = authorities.issuers.get(name) {
                is_whole &= no_clash(&issuers, issuer, |one| one.url(), &path, problems);
                issuers.push(Arc::clone(issuer));
            } else if let Some(session) = authorities.sessions.get(name) {
                is_whole &= no_clash(&sessions, session, |one| one.cookie(), &path, problems);
                sessions.push(Arc::clone(session));
            } else {
                authorities.complain_of(name, &path, problems);
                is_whole = false;
            }
        }
        if everybody && issuers.len() > 1 {
            let message = "two issuers cannot both vouch: a request has room for one bearer token";
            problems.push(&path, message);
            is_whole = false;
        }
        is_whole.then(|| Self {
            first_of_all: names
                .first()
                .filter(|_| everybody)
                .map(|name| name.as_str().into()),
            cookies: sessions.iter().map(|one| one.cookie().into()).collect(),
            issuers: issuers.into(),
            sessions: sessions.into(),
            optional: rules.optional,
        })
    }
}

/// The names under `any` or `all`, and where they stand.
fn vouchers<'r>(
    rules: &'r AuthRules,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<(&'r [String], KeyPath)> {
    match (rules.any.is_empty(), rules.all.is_empty()) {
        (true, true) => {
            problems.push(
                &path.key("any"),
                "nobody is named here or under `all`: nobody could pass",
            );
            None
        }
        (false, false) => {
            problems.push(&path.key("all"), "there is `any` already: say one of them");
            None
        }
        (true, false) if rules.optional => {
            problems.push(&path.key("optional"), "goes with `any` only");
            None
        }
        (true, false) => Some((&rules.all, path.key("all"))),
        (false, true) => Some((&rules.any, path.key("any"))),
    }
}

/// Two issuers of one URL, or two sessions of one cookie, could not be told apart by what a request shows.
fn no_clash<T>(
    earlier: &[Arc<T>],
    new: &Arc<T>,
    told_by: fn(&T) -> &str,
    path: &KeyPath,
    problems: &mut Problems,
) -> bool {
    let told = told_by(new);
    let clashes = earlier.iter().any(|one| told_by(one) == told);
    if clashes {
        problems.push(path, format!("`{told}` is that of another one named here"));
    }
    !clashes
}

impl Authorities {
    fn complain_of(&self, name: &str, path: &KeyPath, problems: &mut Problems) {
        // One that is written but did not compile has been complained about already.
        if !self.broken.contains(name) {
            let known = self.issuers.keys().chain(self.sessions.keys());
            problems.unknown_name(path, "issuer or session", name, known.map(String::as_str));
        }
    }
}
