//! `[issuer.NAME]`: what an issuer's tokens must say, and whether a reload has changed it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderName;

use super::keys::keys;
use crate::authn::Issuer;
use crate::authn::cache::Tokens;
use crate::authn::introspection::Introspection;
use crate::authn::issuer::Keys;
use crate::authn::jwks::plan::SHORTEST_LIFETIME;
use crate::authn::jwt::shape::media_type;
use crate::authn::jwt::verify::is_hmac;
use crate::authn::jwt::{Mapping, Terms};
use crate::authn::revoke::Revoked;
use crate::config::{self, Algorithm, Introspected, KeyPath, Problems};

/// Where an issuer stands, and what there is of it already.
pub(super) struct IssuerPlace<'p> {
    pub(super) name: &'p str,
    pub(super) path: &'p KeyPath,
    pub(super) state_dir: Option<&'p Path>,
    pub(super) previous: Option<&'p Arc<Issuer>>,
}

impl Issuer {
    pub(super) fn compile(
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
    pub(super) fn has_same_source(&self, other: &config::Issuer) -> bool {
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
pub(super) fn asks_about_all(config: &config::Issuer) -> bool {
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
