//! From the configuration to issuers and sessions that can judge. Everything that is missing, unreadable or weak is a
//! problem here, at start or reload, and never a surprise at the first request.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, Uri};
use jsonwebtoken::DecodingKey;
use parking_lot::Mutex;

use super::cache::{Fingerprint, Tokens, fingerprint};
use super::ending::Revokes;
use super::introspection::Introspection;
use super::issuer::{Issuer, Keys, Network, report_left_out};
use super::jwks::fetch::{Location, is_https, is_loopback, is_plain_url};
use super::jwks::plan::SHORTEST_LIFETIME;
use super::jwks::shelf::check_folder;
use super::jwks::store::Loaded;
use super::jwks::{KeySet, Remote, Shelf, Store};
use super::jwt::shape::media_type;
use super::jwt::verify::{is_hmac, least_secret, self_test};
use super::jwt::{Mapping, Terms};
use super::logout::Logout;
use super::revoke::Revoked;
use super::session::{MOST_BEARER, Probe, Proof, Session};
use super::{Authn, Authorities, Bench, Demand, Other, Places, TokenDemands};
use crate::config::{
    self, Algorithm, Auth, AuthRules, BackchannelLogout, Config, Introspected, KeyPath,
    OnIssuerDown, Problems, Secret, SecretRef,
};
use crate::types::clock;
use crate::upstream::Cluster;

/// A longer leeway would make `exp` mean little.
const MOST_LEEWAY: Duration = Duration::from_secs(600);

/// Shorter, and the issuer would be asked without a pause; longer, and a withdrawn key would live on for too long.
const REFRESH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// Longer tokens are no access tokens, and their logouts would have to be remembered for as long.
const LONGEST_TOKEN: Duration = Duration::from_secs(366 * 86_400);

/// Smaller, and nearly every request would cost a signature.
const TOKEN_CACHE: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 30;

/// Headers that mean something else to us or to others.
const NO_TOKEN_HEADERS: [&str; 18] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
    "x-request-id",
];
const NO_TOKEN_PREFIXES: [&str; 5] = ["x-auth-", "x-forwarded-", "x-user-", "x-vestibule-", "sec-"];

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
        let mut authorities = Self {
            relay: previous.and_then(|previous| previous.relay.clone()),
            vigils: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.vigils)),
            ..Self::default()
        };
        let state_dir = state_dir(config, problems);
        if let Err(why) = self_test() {
            problems.push(&KeyPath::root().key("issuer"), why.to_string());
        }
        for (name, issuer) in &config.issuer {
            let path = KeyPath::root().key("issuer").key(name);
            let earlier = previous.and_then(|previous| previous.issuers.get(name));
            let place = IssuerPlace {
                name,
                path: &path,
                state_dir,
                previous: earlier,
            };
            if let Some(issuer) = Issuer::compile(issuer, &place, problems) {
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

/// The folder for what should survive a restart, if it can be used.
fn state_dir<'c>(config: &'c Config, problems: &mut Problems) -> Option<&'c Path> {
    let folder = config.state_dir.as_deref()?;
    match check_folder(folder) {
        Ok(()) => Some(folder),
        Err(why) => {
            let help = format!(
                "install -d -m 0700 -o USER {}, USER being the one that the gateway runs as",
                folder.display()
            );
            problems.push_with_help(&KeyPath::root().key("state_dir"), why, Some(help));
            None
        }
    }
}

/// Where an issuer stands, and what there is of it already.
struct IssuerPlace<'p> {
    name: &'p str,
    path: &'p KeyPath,
    state_dir: Option<&'p Path>,
    previous: Option<&'p Arc<Issuer>>,
}

impl Issuer {
    fn compile(
        config: &config::Issuer,
        place: &IssuerPlace<'_>,
        problems: &mut Problems,
    ) -> Option<Arc<Self>> {
        let path = place.path;
        let previous = place.previous;
        check_terms(config, path, problems);
        check_algorithms(config, path, problems);
        let header = token_header(config, &path.key("header"), problems);
        let earlier = previous.and_then(|previous| previous.introspection.as_ref());
        let introspection = Introspection::compile(place.name, config, path, earlier, problems);
        let keys = keys(config, place, problems)?;
        if config.introspection.is_some() && introspection.is_none() {
            return None;
        }
        if let Some(previous) =
            previous.filter(|previous| previous.is_same(config, &keys, introspection.as_ref()))
        {
            return Some(Arc::clone(previous));
        }
        Some(Arc::new(Self {
            name: place.name.into(),
            config: config.clone(),
            header,
            algorithms: config.algorithms.clone().into(),
            terms: terms(config),
            mapping: Mapping {
                user: config.user_claim.clone(),
                org: config.org_claim.clone(),
                email: config.email_claim.clone(),
                roles: config.roles_claim.0.clone().into(),
                scopes: config.scopes_claim.0.clone().into(),
            },
            max_token: usize::try_from(config.max_token.0).unwrap_or(usize::MAX),
            keys,
            introspection,
            tokens: Tokens::new(config.token_cache.0),
            // A logout is not undone by a reload that changes something about the issuer.
            revoked: previous
                .filter(|previous| previous.config.url == config.url)
                .map_or_else(Revoked::new, |previous| Arc::clone(&previous.revoked)),
            longest_life: previous
                .map_or(0, |previous| previous.longest_life.load(Ordering::Relaxed))
                .into(),
            is_kept_fresh: AtomicBool::new(false),
        }))
    }

    /// Whether this issuer was made from the same words, and from the same secrets, files and folders.
    fn is_same(
        &self,
        config: &config::Issuer,
        keys: &Keys,
        introspection: Option<&Introspection>,
    ) -> bool {
        let asks_alike = match (&self.introspection, introspection) {
            (Some(one), Some(other)) => one.is_same(other),
            (None, None) => true,
            _ => false,
        };
        asks_alike
            && self.config == *config
            && self.keys.fingerprint() == keys.fingerprint()
            && self.keys.shelf() == keys.shelf()
    }

    /// Whether keys that were fetched under `other` are the keys of this issuer too.
    fn has_same_source(&self, other: &config::Issuer) -> bool {
        self.config.url == other.url
            && self.config.jwks_url == other.jwks_url
            && self.config.connect == other.connect
            && self.config.ca == other.ca
    }
}

fn terms(config: &config::Issuer) -> Terms {
    let mut required = config.required_claims.clone();
    // `sub` is required anyway; whatever else stands for the user must be there too.
    if config.user_claim != "sub" {
        required.push(config.user_claim.clone());
    }
    Terms {
        audiences: config.audiences.clone().into(),
        required: required.into(),
        typ: config.token_type.as_deref().map(media_type),
        leeway: config.leeway.0,
    }
}

impl Keys {
    fn fingerprint(&self) -> Option<&Fingerprint> {
        match self {
            Self::Secrets { fingerprint, .. } | Self::File { fingerprint, .. } => Some(fingerprint),
            Self::Remote(_) | Self::None => None,
        }
    }

    fn shelf(&self) -> Option<&Shelf> {
        match self {
            Self::Remote(network) => network.shelf.as_ref(),
            Self::Secrets { .. } | Self::File { .. } | Self::None => None,
        }
    }
}

/// A header that holds tokens and means nothing else.
fn token_header(
    config: &config::Issuer,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<HeaderName> {
    let written = config.header.as_deref()?;
    let name = HeaderName::from_bytes(written.as_bytes()).ok();
    let Some(name) = name.filter(|name| !name.as_str().contains('_')) else {
        problems.push(
            path,
            "is no name of a header; one with `_` is removed from every request",
        );
        return None;
    };
    let text = name.as_str();
    if NO_TOKEN_HEADERS.contains(&text) || NO_TOKEN_PREFIXES.iter().any(|p| text.starts_with(p)) {
        let why = format!("`{text}` means something else, or is removed from every request");
        problems.push(path, why);
        return None;
    }
    Some(name)
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
    if config.audiences.is_empty() && config.required_claims.is_empty() && !asks_about_all(config) {
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
    if !(SHORTEST_LIFETIME..=REFRESH.1).contains(&config.refresh_max.0) {
        problems.push(&path.key("refresh_max"), "not between 30s and 1d");
    }
    if !TOKEN_CACHE.contains(&config.token_cache.0) {
        problems.push(&path.key("token_cache"), "not between 64KiB and 16GiB");
    }
    if config.longest_token.0 > LONGEST_TOKEN {
        problems.push(&path.key("longest_token"), "longer than a year");
    }
    let claims = [
        ("user_claim", vec![&config.user_claim]),
        ("org_claim", vec![&config.org_claim]),
        ("email_claim", vec![&config.email_claim]),
        ("roles_claim", config.roles_claim.0.iter().collect()),
        ("scopes_claim", config.scopes_claim.0.iter().collect()),
    ];
    for (key, _) in claims
        .iter()
        .filter(|(_, paths)| paths.is_empty() || paths.iter().any(|path| path.is_empty()))
    {
        problems.push(&path.key(*key), "must name a claim");
    }
}

/// Whether no token of the issuer is judged without asking it.
fn asks_about_all(config: &config::Issuer) -> bool {
    config
        .introspection
        .as_ref()
        .is_some_and(|introspection| introspection.tokens == Introspected::All)
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
fn keys(config: &config::Issuer, place: &IssuerPlace<'_>, problems: &mut Problems) -> Option<Keys> {
    let path = place.path;
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
    if asks_about_all(config) {
        if let Some(first) = named.first() {
            let why = "has no effect: `introspection.tokens = \"all\"` asks about every token";
            problems.push(&path.key(*first), why);
            return None;
        }
        return Some(Keys::None);
    }
    if named.len() > 1 {
        problems.push(path, format!("{} exclude each other", named.join(" and ")));
        return None;
    }
    if config.previous_secret.is_some() && config.secret.is_none() {
        problems.push(&path.key("previous_secret"), "has no `secret` to precede");
    }
    let is_local = config.secret.is_some() || config.jwks_file.is_some();
    let fetches = !is_local || config.introspection.is_some();
    if !fetches && (config.connect.is_some() || config.ca.is_some()) {
        problems.push(
            path,
            "`connect` and `ca` have no effect: nothing is fetched",
        );
    }
    match (&config.secret, &config.jwks_file) {
        (Some(secret), _) => secrets(secret, config, path, problems),
        (None, Some(file)) => key_file(file, config, &path.key("jwks_file"), problems),
        (None, None) => remote(config, place, problems),
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
                fresh_until: clock::now(),
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
    place: &IssuerPlace<'_>,
    problems: &mut Problems,
) -> Option<Keys> {
    let connect = match config.connect.as_deref().map(str::parse).transpose() {
        Ok(connect) => connect,
        Err(why) => {
            let why: config::value::BadValue = why;
            problems.push(&place.path.key("connect"), why.to_string());
            return None;
        }
    };
    let location = match location(config) {
        Ok(location) => location,
        Err((key, why)) => {
            problems.push(&place.path.key(key), why);
            return None;
        }
    };
    let source = match &location {
        Location::Keys(url) => url.to_string(),
        Location::Discovery { document, .. } => document.to_string(),
    };
    let remote = Remote {
        issuer: config.url.clone(),
        location,
        connect,
        ca: config.ca.clone(),
        allowed: config.algorithms.clone().into(),
        longest: config.refresh_max.0,
        discovered: Mutex::default(),
        validator: Mutex::default(),
    };
    let shelf = place
        .state_dir
        .map(|folder| Shelf::new(folder, place.name, &config.url, &source));
    let network = Network {
        remote,
        store: Store::new(config.refresh.0, config.stale_max.0, clock::now()),
        radar: Arc::default(),
        shelf,
        shelved: Mutex::default(),
    };
    let earlier = place
        .previous
        .filter(|previous| previous.has_same_source(config));
    let earlier = earlier.and_then(|previous| previous.network());
    Some(Keys::Remote(Box::new(network.take_over(
        earlier,
        place.name,
        config.stale_max.0,
    ))))
}

impl Network {
    /// Takes over what is known already: from the issuer before a reload, or from the process before a restart.
    fn take_over(mut self, earlier: Option<&Self>, name: &str, stale_max: Duration) -> Self {
        if let Some(earlier) = earlier {
            self.radar = Arc::clone(&earlier.radar);
            if self.store.adopt(&earlier.store, &self.remote.allowed) {
                return self;
            }
        }
        let Some(shelf) = &self.shelf else {
            return self;
        };
        let file = shelf.file().display();
        match shelf.recall(&self.remote.allowed, stale_max, clock::wall()) {
            Ok(Some(mut kept)) => {
                tracing::info!(issuer = name, %file, age_seconds = kept.age.as_secs(), "keys of before the restart");
                self.radar.note(name, &mut kept.set, clock::wall());
                self.store.restore(kept, clock::now());
            }
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(issuer = name, %file, error = %why, "kept keys are not used");
            }
        }
        self
    }
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
        let named = Named::find(names, everybody, &path, authorities, problems)?;
        Some(Self {
            places: named.places(&path, problems)?,
            issuers: named.issuers.into(),
            sessions: named.sessions.into(),
            tokens: TokenDemands {
                typ: rules.token_type.as_deref().map(media_type),
                refuses_outlived_keys: rules.on_issuer_down == OnIssuerDown::Deny,
            },
            optional: rules.optional,
            first_of_all: names
                .first()
                .filter(|_| everybody)
                .map(|name| name.as_str().into()),
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

impl Revokes {
    /// Compiles what the good answers of a route end. `path` is that of `revokes`.
    pub fn compile(
        revokes: &config::Revokes,
        path: &KeyPath,
        authorities: &Authorities,
        problems: &mut Problems,
    ) -> Option<Self> {
        let path = path.key("any");
        if revokes.any.is_empty() {
            problems.push(&path, "is empty: nothing would end");
            return None;
        }
        let named = Named::find(&revokes.any, false, &path, authorities, problems)?;
        Some(Self {
            places: named.places(&path, problems)?,
            issuers: named.issuers.into(),
            sessions: named.sessions.into(),
            user: revokes.user,
        })
    }
}

impl Logout {
    /// Compiles the endpoint for an issuer's logout tokens. `path` is that of `backchannel_logout`.
    pub fn compile(
        logout: &BackchannelLogout,
        path: &KeyPath,
        authorities: &Authorities,
        problems: &mut Problems,
    ) -> Option<Self> {
        if logout.audiences.iter().any(String::is_empty) {
            problems.push(&path.key("audiences"), "an audience is empty");
        }
        let path = path.key("issuer");
        let known = &authorities.issuers;
        let Some(issuer) = known.get(&logout.issuer) else {
            if !authorities.broken.contains(&logout.issuer) {
                let known = known.keys().map(String::as_str);
                problems.unknown_name(&path, "issuer", &logout.issuer, known);
            }
            return None;
        };
        if matches!(issuer.keys, Keys::None) {
            problems.push(&path, "has no keys that could verify a logout token");
            return None;
        }
        if logout.audiences.is_empty() && issuer.terms.audiences.is_empty() {
            problems.push(
                &path,
                "has no audiences, so `audiences` must name those of its logout tokens",
            );
            return None;
        }
        Some(Self {
            issuer: Arc::clone(issuer),
            audiences: logout.audiences.clone().into(),
        })
    }
}

/// The issuers and sessions that a list names.
struct Named {
    issuers: Vec<Arc<Issuer>>,
    sessions: Vec<Arc<Session>>,
    /// Whether every one of them must vouch, not one alone.
    everybody: bool,
}

impl Named {
    fn find(
        names: &[String],
        everybody: bool,
        path: &KeyPath,
        authorities: &Authorities,
        problems: &mut Problems,
    ) -> Option<Self> {
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
        is_whole.then_some(Self {
            issuers,
            sessions,
            everybody,
        })
    }

    /// Where their credentials stand.
    fn places(&self, path: &KeyPath, problems: &mut Problems) -> Option<Places> {
        let mut headers: Vec<HeaderName> = Vec::new();
        for issuer in &self.issuers {
            let new = issuer.header.iter().filter(|name| !headers.contains(name));
            headers.extend(new.cloned().collect::<Vec<_>>());
        }
        let bearer = Bench::compile(self, None, path, problems)?;
        let header_benches: Option<Vec<Bench>> = headers
            .iter()
            .map(|name| Bench::compile(self, Some(name), path, problems))
            .collect();
        Some(Places {
            bearer: (!bearer.is_empty()).then_some(bearer),
            header_benches: header_benches?.into(),
            headers: headers.into(),
            cookies: self
                .sessions
                .iter()
                .map(|session| session.cookie().into())
                .collect(),
            sessions: self.sessions.clone().into(),
        })
    }
}

impl Bench {
    pub(super) fn alone(issuer: Arc<Issuer>) -> Self {
        let other = issuer
            .takes_opaque()
            .then(|| Other::Issuer(Arc::clone(&issuer)));
        Self::of(vec![issuer], other)
    }

    fn of(issuers: Vec<Arc<Issuer>>, other: Option<Other>) -> Self {
        let most = issuers.iter().map(|issuer| issuer.max_token).max();
        let most_of_other = match &other {
            Some(Other::Session(_)) => MOST_BEARER,
            Some(Other::Issuer(_)) | None => 0,
        };
        Self {
            most_token: most.unwrap_or(0).max(most_of_other),
            issuers: issuers.into(),
            other,
        }
    }

    /// Of those who are named, who judges tokens in the header `name`, or in `Authorization`.
    fn compile(
        named: &Named,
        name: Option<&HeaderName>,
        path: &KeyPath,
        problems: &mut Problems,
    ) -> Option<Self> {
        let stands_here = |issuer: &&Arc<Issuer>| issuer.header.as_ref() == name;
        let issuers: Vec<_> = named.issuers.iter().filter(stands_here).cloned().collect();
        if named.everybody && issuers.len() > 1 {
            let message = "two issuers cannot both vouch: a request has room for one bearer token";
            problems.push(path, message);
            return None;
        }
        let opaque = issuers.iter().filter(|issuer| issuer.takes_opaque());
        let mut others: Vec<(Other, Arc<str>)> = opaque
            .map(|issuer| (Other::Issuer(Arc::clone(issuer)), Arc::clone(issuer.name())))
            .collect();
        // Where all must vouch, a session does so by its cookie.
        if name.is_none() && !named.everybody {
            let asked = named.sessions.iter().filter(|one| one.takes_bearer());
            others
                .extend(asked.map(|one| (Other::Session(Arc::clone(one)), Arc::clone(one.name()))));
        }
        if let [(_, one), (_, other), ..] = others.as_slice() {
            let why = format!(
                "`{one}` and `{other}` both judge tokens that are no JWT of a known issuer; which to ask cannot be told"
            );
            problems.push(path, why);
            return None;
        }
        Some(Self::of(issuers, others.pop().map(|(other, _)| other)))
    }

    fn is_empty(&self) -> bool {
        self.issuers.as_slice().is_empty() && self.other.is_none()
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
