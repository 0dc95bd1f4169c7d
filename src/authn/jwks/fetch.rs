//! Asks an issuer for its key set: OIDC discovery, then the set; https or loopback, no redirect, small, and soon.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, ETAG, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, Response, StatusCode, Uri};
use parking_lot::Mutex;
use serde_json::Value;

use super::plan::stated_lifetime;
use super::set::{KeySet, KeySetError, MAX_BYTES};
use crate::authn::jwt::json::{self, NotStrict};
use crate::config::{Algorithm, Endpoint};
use crate::upstream::FetchError;
use crate::upstream::connect::{FetchUrl, fetch_url};

/// Where an issuer's key set is.
#[derive(Debug)]
pub struct Remote {
    /// The exact `iss`.
    pub issuer: String,
    /// Where to begin.
    pub location: Location,
    /// Connect here instead of the host of the URL.
    pub connect: Option<Endpoint>,
    /// PEM bundle to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// What the issuer may sign with.
    pub allowed: Box<[Algorithm]>,
    /// Longest lifetime that the issuer may state.
    pub longest: Duration,
    /// Where discovery has led, and when.
    pub discovered: Mutex<Option<(Uri, Instant)>>,
    /// What the last set was marked with.
    pub validator: Mutex<Option<Validator>>,
}

/// The mark of a set, by which its issuer tells whether there is another one meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    place: Uri,
    field: HeaderName,
    value: HeaderValue,
}

/// Where to begin.
#[derive(Debug)]
pub enum Location {
    /// The discovery document of the issuer at this URL.
    Discovery {
        /// The issuer's URL.
        issuer: Uri,
        /// Its discovery document.
        document: Uri,
    },
    /// The key set itself.
    Keys(Uri),
}

/// What came of asking.
#[derive(Debug)]
pub enum Fetch {
    /// A key set.
    Set(Fetched),
    /// The set that was fetched last is still the one; and the lifetime that the issuer states now.
    Unchanged(Option<Duration>),
}

/// A key set, as it came.
#[derive(Debug)]
pub struct Fetched {
    /// The keys.
    pub set: KeySet,
    /// The bytes that they were read from.
    pub raw: Bytes,
    /// The lifetime that the issuer stated.
    pub stated: Option<Duration>,
}

/// Why no key set came.
#[derive(Debug)]
pub enum FetchFailure {
    /// No answer was read.
    NoAnswer(&'static str, FetchError),
    /// An answer, but not 200. Redirects are not followed.
    Status(&'static str, StatusCode),
    /// The discovery document is no JSON as we accept it.
    Discovery(NotStrict),
    /// The discovery document is of another issuer.
    OtherIssuer(String),
    /// The discovery document leads to no place that keys may be fetched from.
    BadLocation(String),
    /// The key set is refused.
    Keys(KeySetError),
}

const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest mark that is kept; a longer one is as good as none.
const MOST_MARK: usize = 256;

/// After this time discovery is done anew although the place it led to still answers.
const DISCOVERY_LASTS: Duration = Duration::from_secs(3_600);

impl Remote {
    /// Fetches the set. `holds_last`: whether what was fetched last is still held, so that it need not come again.
    ///
    /// # Errors
    /// [`FetchFailure`]; the next try begins with discovery again, and without conditions.
    pub async fn fetch(&self, now: Instant, holds_last: bool) -> Result<Fetch, FetchFailure> {
        let fetched = match self.place(now).await {
            Ok(place) => self.fetch_from(&place, holds_last).await,
            Err(why) => Err(why),
        };
        if fetched.is_err() {
            *self.discovered.lock() = None;
            *self.validator.lock() = None;
        }
        fetched
    }

    /// Where the set is.
    async fn place(&self, now: Instant) -> Result<Uri, FetchFailure> {
        let (issuer, document) = match &self.location {
            Location::Keys(url) => return Ok(url.clone()),
            Location::Discovery { issuer, document } => (issuer, document),
        };
        let known = self.discovered.lock().clone();
        if let Some((place, at)) = known
            && now.saturating_duration_since(at) < DISCOVERY_LASTS
        {
            return Ok(place);
        }
        let answer = self.get("discovery document", document, None).await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchFailure::Status("discovery document", answer.status()));
        }
        let place = keys_place(&self.issuer, issuer, answer.body())?;
        *self.discovered.lock() = Some((place.clone(), now));
        Ok(place)
    }

    async fn fetch_from(&self, place: &Uri, holds_last: bool) -> Result<Fetch, FetchFailure> {
        let known = self.validator.lock().clone();
        let known = known.filter(|known| holds_last && known.place == *place);
        let answer = self.get("key set", place, known.as_ref()).await?;
        let stated = stated_lifetime(answer.headers(), self.longest);
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if known.is_some() => return Ok(Fetch::Unchanged(stated)),
            other => return Err(FetchFailure::Status("key set", other)),
        }
        let set = KeySet::parse(answer.body(), &self.allowed).map_err(FetchFailure::Keys)?;
        *self.validator.lock() = Validator::of(place, answer.headers());
        Ok(Fetch::Set(Fetched {
            set,
            stated,
            raw: answer.into_body(),
        }))
    }

    async fn get(
        &self,
        what: &'static str,
        url: &Uri,
        condition: Option<&Validator>,
    ) -> Result<Response<Bytes>, FetchFailure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.extend(condition.map(|one| (one.field.clone(), one.value.clone())));
        let request = FetchUrl {
            url: url.clone(),
            connect: self.connect_for(url),
            ca: self.ca.clone(),
            headers,
            timeout: TIMEOUT,
            max_body: MAX_BYTES,
        };
        fetch_url(&request)
            .await
            .map_err(|why| FetchFailure::NoAnswer(what, why))
    }

    /// The internal address stands for the issuer's own host; a key set elsewhere is fetched from elsewhere.
    fn connect_for(&self, url: &Uri) -> Option<Endpoint> {
        match &self.location {
            Location::Discovery { issuer, .. } if !is_same_origin(issuer, url) => None,
            _ => self.connect.clone(),
        }
    }
}

impl Validator {
    /// An entity tag, or else the date of the last change.
    fn of(place: &Uri, headers: &HeaderMap) -> Option<Self> {
        let mark = |name: &HeaderName, field: HeaderName| {
            let value = headers.get(name).filter(|value| value.len() <= MOST_MARK)?;
            Some(Self {
                place: place.clone(),
                field,
                value: value.clone(),
            })
        };
        mark(&ETAG, IF_NONE_MATCH).or_else(|| mark(&LAST_MODIFIED, IF_MODIFIED_SINCE))
    }
}

/// Reads `jwks_uri` from a discovery document.
fn keys_place(issuer: &str, issuer_url: &Uri, document: &[u8]) -> Result<Uri, FetchFailure> {
    let document = json::object(document).map_err(FetchFailure::Discovery)?;
    let stated = document.get("issuer").and_then(Value::as_str).unwrap_or("");
    if stated != issuer {
        return Err(FetchFailure::OtherIssuer(
            stated.chars().take(256).collect(),
        ));
    }
    let written = document
        .get("jwks_uri")
        .and_then(Value::as_str)
        .unwrap_or("");
    let bad = || FetchFailure::BadLocation(written.chars().take(256).collect());
    let place: Uri = written.parse().map_err(|_| bad())?;
    // The issuer's own origin was judged when the configuration was compiled; any other must be https.
    let fits = is_plain_url(&place) && (is_https(&place) || is_same_origin(issuer_url, &place));
    fits.then_some(place).ok_or_else(bad)
}

/// Whether `url` is an absolute http or https URL without user information.
#[must_use]
pub fn is_plain_url(url: &Uri) -> bool {
    matches!(url.scheme_str(), Some("http" | "https"))
        && url.authority().is_some_and(|authority| {
            !authority.as_str().contains('@') && !authority.host().is_empty()
        })
}

/// Whether `url` is https.
#[must_use]
pub fn is_https(url: &Uri) -> bool {
    url.scheme_str() == Some("https")
}

/// Whether the host of `url` is this machine.
#[must_use]
pub fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or("");
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether both have scheme, host and port in common.
#[must_use]
pub fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    let host = |url: &Uri| url.host().unwrap_or("").to_ascii_lowercase();
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other)
}

fn port(url: &Uri) -> u16 {
    let default = if is_https(url) { 443 } else { 80 };
    url.port_u16().unwrap_or(default)
}

impl fmt::Display for FetchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(what, why) => write!(f, "{what}: {why}"),
            Self::Status(what, status) => write!(f, "{what}: status {}", status.as_u16()),
            Self::Discovery(why) => write!(f, "the discovery document is {why}"),
            Self::OtherIssuer(stated) => {
                write!(f, "the discovery document is of the issuer {stated:?}")
            }
            Self::BadLocation(place) => write!(
                f,
                "the discovery document names {place:?} as `jwks_uri`, which is neither https nor of the issuer's own origin"
            ),
            Self::Keys(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for FetchFailure {}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(jwks_uri: &str) -> Result<Uri, FetchFailure> {
        let document = format!(r#"{{"issuer":"http://localhost:9","jwks_uri":"{jwks_uri}"}}"#);
        let issuer = Uri::from_static("http://localhost:9");
        keys_place("http://localhost:9", &issuer, document.as_bytes())
    }

    #[test]
    fn keys_are_fetched_over_https_or_from_the_issuers_own_origin() {
        assert!(place("http://LOCALHOST:9/jwks").is_ok());
        assert!(place("https://elsewhere.example/jwks").is_ok());
        for bad in [
            "http://localhost:10/jwks",
            "http://elsewhere.example/jwks",
            "http://localhost/jwks",
            "file:///etc/passwd",
            "ftp://localhost:9/",
            "https://user@elsewhere.example/",
            "/jwks",
            "localhost:9",
            "",
        ] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_discovery_document_must_be_of_exactly_this_issuer() {
        let issuer = Uri::from_static("https://a.example");
        for stated in [
            "https://a.example/",
            "https://A.example",
            "https://b.example",
            "",
        ] {
            let document = format!(r#"{{"issuer":"{stated}","jwks_uri":"https://a.example/k"}}"#);
            let answer = keys_place("https://a.example", &issuer, document.as_bytes());
            assert!(
                matches!(answer, Err(FetchFailure::OtherIssuer(_))),
                "{stated}"
            );
        }
        let array = br#"{"issuer":["https://a.example"],"jwks_uri":"https://a.example/k"}"#;
        assert!(keys_place("https://a.example", &issuer, array).is_err());
        let twice =
            br#"{"issuer":"x","issuer":"https://a.example","jwks_uri":"https://a.example/k"}"#;
        assert!(keys_place("https://a.example", &issuer, twice).is_err());
    }

    #[test]
    fn the_internal_address_stands_for_the_issuers_host_alone() {
        let remote = Remote {
            issuer: "https://auth.example".to_owned(),
            location: Location::Discovery {
                issuer: Uri::from_static("https://auth.example"),
                document: Uri::from_static("https://auth.example/.well-known/openid-configuration"),
            },
            connect: Some("http://zitadel:8080".parse().unwrap()),
            ca: None,
            allowed: Box::default(),
            longest: Duration::MAX,
            discovered: Mutex::default(),
            validator: Mutex::default(),
        };
        let own = Uri::from_static("https://auth.example:443/oauth/v2/keys");
        assert!(remote.connect_for(&own).is_some());
        let other = Uri::from_static("https://keys.example/keys");
        assert!(remote.connect_for(&other).is_none());
    }

    #[test]
    fn loopback_is_told_from_what_only_looks_like_it() {
        for (url, expected) in [
            ("http://localhost:1/", true),
            ("http://127.1.2.3/", true),
            ("http://[::1]:1/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://localhost.example/", false),
            ("http://127.0.0.1.example/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
