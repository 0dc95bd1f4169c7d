//! Cross-origin rules of a route, as the Fetch standard has browsers ask for them: answers preflights, and dresses
//! responses so that the allowed origins may read them.
//!
//! A guard for browsers and nothing more: a client that sends no Origin is not held back here, authentication does that.
//! Whatever the backend says about origins is replaced, since two answers are as bad as none.

mod compile;
mod csrf;
mod origin;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use smallvec::SmallVec;

use crate::types::{Body, Reason, Rejection, Response};

pub use csrf::{Csrf, Site};

/// The cross-origin rules of one route.
#[derive(Clone, Debug)]
pub struct Cors {
    origins: Origins,
    /// Beside what is listed; never with credentials.
    patterns: Box<[origin::Pattern]>,
    credentials: bool,
    private_network: bool,
    methods: HeaderValue,
    headers: HeaderValue,
    expose: HeaderValue,
    max_age: HeaderValue,
}

#[derive(Clone, Debug)]
enum Origins {
    Any,
    /// Serialised as browsers do it.
    Listed(Box<[HeaderValue]>),
}

/// The method that a preflight asks for; `None` for what is no preflight: OPTIONS with Origin and
/// Access-Control-Request-Method.
#[must_use]
pub fn preflight_method(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

impl Cors {
    /// The answer to a preflight: 204 with everything that the route allows. The browser holds its request against that.
    ///
    /// # Errors
    /// [`Reason::CorsRefused`] when the origin is not allowed.
    pub fn preflight(&self, headers: &HeaderMap) -> Result<Response, Rejection> {
        let allowed = the_one(headers, &ORIGIN).and_then(|origin| self.allow(origin));
        let allowed = allowed.ok_or_else(|| Rejection::new(Reason::CorsRefused))?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
        answer.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        answer.insert(VARY, PREFLIGHT_VARY);
        if self.private_network {
            answer.append(VARY, VARY_PRIVATE_NETWORK);
            if headers.get(&REQUEST_PRIVATE_NETWORK) == Some(&TRUE) {
                answer.insert(ALLOW_PRIVATE_NETWORK, TRUE);
            }
        }
        Ok(response)
    }

    /// Replaces what the backend says about origins by what the route says, for a request with this Origin.
    pub fn dress(&self, origin: Option<&HeaderValue>, response: &mut HeaderMap) {
        strip(response);
        if !matches!(self.origins, Origins::Any) {
            add_vary(response);
        }
        let Some(allowed) = origin.and_then(|origin| self.allow(origin)) else {
            return;
        };
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone());
    }

    /// The value of Access-Control-Allow-Origin for this origin, if it is allowed.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(ANY),
            Origins::Listed(listed) => {
                let same =
                    |one: &&HeaderValue| one.as_bytes().eq_ignore_ascii_case(origin.as_bytes());
                let listed = listed.iter().find(same).cloned();
                listed.or_else(|| self.allow_by_pattern(origin))
            }
        }
    }
}

impl Cors {
    fn allow_by_pattern(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let mut patterns = self.patterns.iter();
        let fits = patterns.any(|pattern| pattern.fits(origin.as_bytes()));
        fits.then(|| origin.clone())
    }
}

/// A header that must not be repeated.
fn the_one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).into_iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// Removes every `Access-Control-*`, those included that no standard knows yet.
fn strip(headers: &mut HeaderMap) {
    let theirs = |name: &&HeaderName| name.as_str().starts_with("access-control-");
    let names: SmallVec<[HeaderName; 6]> = headers.keys().filter(theirs).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Caches must not hand the answer for one origin to another. Said once: `*` covers it too.
fn add_vary(headers: &mut HeaderMap) {
    let covers = |field: &str| field == "*" || field.eq_ignore_ascii_case("origin");
    let covered = headers.get_all(VARY).iter().any(|line| {
        let fields = line.to_str().unwrap_or_default();
        fields.split(',').any(|field| covers(field.trim()))
    });
    if !covered {
        headers.append(VARY, VARY_ORIGIN);
    }
}

/// Private Network Access: a page from the internet asks for an address that the internet does not reach.
const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const VARY_PRIVATE_NETWORK: HeaderValue =
    HeaderValue::from_static("Access-Control-Request-Private-Network");
const PREFLIGHT_VARY: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);

#[cfg(test)]
mod tests;
