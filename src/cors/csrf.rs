//! The guard against cross-site request forgery: a browser sends a session cookie along whoever made it send the request,
//! so a request that changes something must come from a page of the site itself, or of an origin that was listed.
//!
//! Browsers say where a request comes from, and pages cannot change what they say: `Sec-Fetch-Site` (Fetch Metadata) in
//! new ones, `Origin` in all. A request with neither was not made by a page; the guard lets it pass, authentication has
//! judged it.

use http::header::{HeaderName, ORIGIN, SEC_WEBSOCKET_KEY};
use http::{HeaderMap, HeaderValue, Method};

use super::{Cors, Origins, origin, the_one};
use crate::config::{self, KeyPath, Problems, Route};
use crate::types::{Reason, Rejection, Scheme};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The guard of one route.
#[derive(Clone, Debug)]
pub struct Csrf {
    /// Origins whose pages may, beside the site itself. Serialised as browsers do it.
    allowed: Box<[HeaderValue]>,
}

/// The site itself: what the browser takes the gateway for.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The scheme that the client used. Cleartext may have been TLS in front of a proxy that is not believed.
    pub scheme: Scheme,
    /// Host, with the port if one was sent.
    pub authority: &'a str,
}

impl Csrf {
    /// Compiles the guard of `route`, which stands at `path`; `Some(None)` where it is off, `None` where it is wrong.
    pub fn compile(
        route: &Route,
        cors: Option<&Cors>,
        path: &KeyPath,
        problems: &mut Problems,
    ) -> Option<Option<Self>> {
        let listed = match &route.csrf {
            config::Csrf::Off => return Some(None),
            config::Csrf::On => &[][..],
            config::Csrf::Origins(table) => &table.origins,
        };
        let mut allowed = match cors.map(|cors| &cors.origins) {
            // Every sandboxed frame is `null`, whoever wrote it.
            Some(Origins::Listed(origins)) => {
                let named = origins.iter().filter(|origin| *origin != "null");
                named.cloned().collect()
            }
            Some(Origins::Any) | None => Vec::new(),
        };
        let path = path.key("csrf").key("origins");
        let mut is_whole = true;
        for (position, text) in listed.iter().enumerate() {
            let found = origin::parse(text).and_then(|origin| {
                if origin == "null" {
                    let why = "`null` is the origin of every sandboxed frame, whoever wrote it";
                    return Err(why.to_owned());
                }
                HeaderValue::try_from(origin).map_err(|_| format!("`{text}` is no header value"))
            });
            match found {
                Ok(origin) => allowed.push(origin),
                Err(why) => {
                    problems.push(&path.index(position), why);
                    is_whole = false;
                }
            }
        }
        is_whole.then(|| {
            Some(Self {
                allowed: allowed.into(),
            })
        })
    }

    /// Refuses a request that a page of a stranger made.
    ///
    /// # Errors
    /// [`Reason::CsrfRefused`].
    pub fn check(
        &self,
        method: &Method,
        headers: &HeaderMap,
        site: Site<'_>,
    ) -> Result<(), Rejection> {
        if is_safe(method, headers) {
            return Ok(());
        }
        let (fetch_site, origin) = (headers.get(&SEC_FETCH_SITE), headers.get(ORIGIN));
        let agreed = match (fetch_site, origin) {
            (None, None) => true,
            // Some proxies and old pages send both; what the browser itself concludes comes first.
            (Some(_), _) if is_own_fetch(headers) => true,
            (None, Some(_)) if is_own_origin(headers, site) => true,
            _ => the_one(headers, &ORIGIN).is_some_and(|origin| self.allows(origin)),
        };
        if agreed {
            return Ok(());
        }
        Err(Rejection::because(
            Reason::CsrfRefused,
            "a page of another origin made this request with the session cookie",
        ))
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.allowed
            .iter()
            .any(|one| one.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
    }
}

/// Methods that change nothing by definition (RFC 9110 section 9.2.1). The handshake of a WebSocket is a GET that opens
/// a door for everything that follows, and no rule about origins holds a page back from it.
fn is_safe(method: &Method, headers: &HeaderMap) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
        && !headers.contains_key(SEC_WEBSOCKET_KEY)
}

/// A page of the same origin, or the user by the address bar or a bookmark.
fn is_own_fetch(headers: &HeaderMap) -> bool {
    the_one(headers, &SEC_FETCH_SITE).is_some_and(|site| site == "same-origin" || site == "none")
}

fn is_own_origin(headers: &HeaderMap, site: Site<'_>) -> bool {
    let origin = the_one(headers, &ORIGIN).and_then(|origin| origin.to_str().ok());
    let Some((scheme, authority)) = origin.and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let scheme = match scheme {
        "https" => Scheme::Https,
        "http" if site.scheme == Scheme::Http => Scheme::Http,
        _ => return false,
    };
    without_port(authority, scheme).eq_ignore_ascii_case(without_port(site.authority, scheme))
}

/// `authority` without the port that its scheme implies.
fn without_port(authority: &str, scheme: Scheme) -> &str {
    let implied = match scheme {
        Scheme::Https => ":443",
        Scheme::Http => ":80",
    };
    authority.strip_suffix(implied).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(route: &str) -> Csrf {
        let text = format!("upstream = \"api\"\nauth = \"none\"\n{route}");
        let route: Route = toml::from_str(&text).unwrap();
        let mut problems = Problems::default();
        let path = KeyPath::root();
        let cors = route.cors.as_ref();
        let cors = cors.and_then(|cors| Cors::compile(cors, &route, &path, &mut problems));
        let guard = Csrf::compile(&route, cors.as_ref(), &path, &mut problems);
        assert!(problems.is_empty(), "{:?}", problems.into_errors());
        guard.unwrap().unwrap()
    }

    fn check(
        guard: &Csrf,
        method: &Method,
        scheme: Scheme,
        fields: &[(&'static str, &'static str)],
    ) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let site = Site {
            scheme,
            authority: "app.example.com",
        };
        let verdict = guard.check(method, &headers, site);
        if let Err(why) = &verdict {
            assert_eq!(why.reason(), Reason::CsrfRefused);
        }
        verdict.is_ok()
    }

    #[test]
    fn what_the_browser_says_of_the_page_decides() {
        let guard = guard("csrf = { origins = [\"https://idp.example.org\"] }");
        let told = [
            (&[][..], true),
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "")], false),
            (
                &[
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
            (
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "https://idp.example.org"),
                ],
                true,
            ),
            (
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "https://app.example.com"),
                ],
                false,
            ),
            (&[("origin", "https://app.example.com")], true),
            (&[("origin", "https://app.example.com:443")], true),
            (&[("origin", "https://app.example.com:8443")], false),
            (&[("origin", "http://app.example.com")], false),
            (&[("origin", "https://evil.example.com")], false),
            (&[("origin", "https://app.example.com.evil.org")], false),
            (&[("origin", "null")], false),
            (&[("origin", "app.example.com")], false),
            (&[("origin", "https://idp.example.org")], true),
            (
                &[
                    ("origin", "https://app.example.com"),
                    ("origin", "https://evil.org"),
                ],
                false,
            ),
        ];
        for (fields, passes) in told {
            for method in [&Method::POST, &Method::PUT, &Method::PATCH, &Method::DELETE] {
                assert_eq!(
                    check(&guard, method, Scheme::Https, fields),
                    passes,
                    "{fields:?}"
                );
            }
            assert!(
                check(&guard, &Method::GET, Scheme::Https, fields),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn a_websocket_handshake_is_no_safe_request() {
        let guard = guard("");
        let fields = [("origin", "https://evil.org"), ("sec-websocket-key", "x")];
        assert!(!check(&guard, &Method::GET, Scheme::Https, &fields));
    }

    #[test]
    fn behind_a_proxy_that_ends_tls_the_page_may_be_https() {
        let guard = guard("");
        for origin in ["http://app.example.com", "https://app.example.com"] {
            assert!(
                check(&guard, &Method::POST, Scheme::Http, &[("origin", origin)]),
                "{origin}"
            );
        }
    }

    #[test]
    fn the_origins_of_cors_may_unless_they_are_everybody() {
        let listed =
            guard("cors = { origins = [\"https://spa.example.com\"], credentials = true }");
        let foreign = [
            ("sec-fetch-site", "same-site"),
            ("origin", "https://spa.example.com"),
        ];
        assert!(check(&listed, &Method::POST, Scheme::Https, &foreign));
        let everybody = guard("cors = { origins = [\"*\"] }");
        assert!(!check(&everybody, &Method::POST, Scheme::Https, &foreign));
    }
}
