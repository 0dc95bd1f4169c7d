//! Finds the one credential of a request: a bearer token in `Authorization` or in a header of the operator's choice, or
//! a session cookie. The only reader of them. Pure, and without an allocation.
//!
//! A request that shows two credentials is refused: the gateway would judge one, and the backend might use the other.
//! For the same reason a credential that another reader could understand differently is refused. Tokens in the query
//! are not looked at.

#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::refused;
use crate::types::{Reason, Rejection};

/// What a route accepts.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// Whether a bearer token.
    pub bearer: bool,
    /// Headers that hold a token.
    pub headers: &'w [HeaderName],
    /// Names of session cookies.
    pub cookies: &'w [Box<str>],
}

/// What a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'h> {
    /// A bearer token.
    Bearer(&'h str),
    /// The token in the header at this position of [`Wanted::headers`].
    Header {
        /// The position.
        position: usize,
        /// The value, not empty.
        value: &'h str,
    },
    /// The value of the session cookie at this position of [`Wanted::cookies`].
    Cookie {
        /// The position.
        position: usize,
        /// The value, not empty.
        value: &'h str,
    },
}

/// Finds the credential among `headers`; `None` when there is none.
///
/// # Errors
/// [`Reason::CredentialAmbiguous`] for more than one, [`Reason::CredentialMalformed`] for one that cannot be read in
/// one way only, [`Reason::CredentialMissing`] for an `Authorization` of a scheme that is not ours to judge.
pub fn find<'h>(
    headers: &'h HeaderMap,
    wanted: Wanted<'_>,
) -> Result<Option<Credential<'h>>, Rejection> {
    let authorization = authorization(headers)?;
    let found = in_headers(headers, wanted.headers)?;
    let cookie = session_cookie(headers, wanted.cookies)?;
    let bearer = matches!(authorization, Authorization::Bearer(_));
    if usize::from(bearer) + usize::from(found.is_some()) + usize::from(cookie.is_some()) > 1 {
        return Err(ambiguous(
            "a credential in more than one of Authorization, a header and a cookie",
        ));
    }
    match authorization {
        Authorization::Bearer(token) if wanted.bearer => {
            bearer_token(token).map(|token| Some(Credential::Bearer(token)))
        }
        Authorization::Other if wanted.bearer && found.is_none() && cookie.is_none() => {
            Err(refused(
                Reason::CredentialMissing,
                "Authorization of another scheme than Bearer",
            ))
        }
        _ => Ok(found.or(cookie)),
    }
}

/// Finds every wanted credential, for a route that demands all of them; `None` when one is missing.
///
/// # Errors
/// As [`find`]; and [`Reason::CredentialAmbiguous`] for a bearer token that nobody asked for.
pub fn find_all<'h>(
    headers: &'h HeaderMap,
    wanted: Wanted<'_>,
) -> Result<Option<Vec<Credential<'h>>>, Rejection> {
    let mut found = Vec::with_capacity(wanted.headers.len() + wanted.cookies.len() + 1);
    match authorization(headers)? {
        Authorization::Bearer(token) if wanted.bearer => {
            found.push(Credential::Bearer(bearer_token(token)?));
        }
        Authorization::Bearer(_) => {
            return Err(ambiguous("a bearer token beside what was asked for"));
        }
        _ if wanted.bearer => return Ok(None),
        _ => {}
    }
    for position in 0..wanted.headers.len() {
        match in_header(headers, wanted.headers, position)? {
            Some(credential) => found.push(credential),
            None => return Ok(None),
        }
    }
    for (position, name) in wanted.cookies.iter().enumerate() {
        match cookie(headers, name)? {
            Some(value) => found.push(Credential::Cookie { position, value }),
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// Everything among `headers` that could be one of the wanted credentials, however many there are: for whoever ends
/// credentials, never for whoever lets somebody in.
pub fn each<'h>(headers: &'h HeaderMap, wanted: Wanted<'_>) -> Vec<Credential<'h>> {
    let mut found = Vec::new();
    if let (true, Ok(Authorization::Bearer(token))) = (wanted.bearer, authorization(headers)) {
        found.extend(bearer_token(token).ok().map(Credential::Bearer));
    }
    for position in 0..wanted.headers.len() {
        found.extend(in_header(headers, wanted.headers, position).ok().flatten());
    }
    for (position, name) in wanted.cookies.iter().enumerate() {
        let value = cookie(headers, name).ok().flatten();
        found.extend(value.map(|value| Credential::Cookie { position, value }));
    }
    found
}

/// The fields in which the wanted credentials stand, for whoever shows them again later: a share of each, no copy.
pub fn fields<'h>(
    headers: &'h HeaderMap,
    wanted: Wanted<'h>,
) -> impl Iterator<Item = (HeaderName, HeaderValue)> + 'h {
    let is_bearer = wanted.bearer && has_bearer(headers);
    let bearer = headers.get_all(AUTHORIZATION).iter();
    let bearer = bearer.filter(move |_| is_bearer);
    let bearer = bearer.map(|value| (AUTHORIZATION, value.clone()));
    let named = wanted.headers.iter().flat_map(|name| {
        let values = headers.get_all(name).iter();
        values.map(|value| (name.clone(), value.clone()))
    });
    let holds_one = move |field: &&HeaderValue| {
        let mut pairs = field.as_bytes().split(|byte| *byte == b';');
        pairs.any(|pair| {
            let mut names = wanted.cookies.iter();
            names.any(|name| !matches!(value_of(pair, name), Ok(None)))
        })
    };
    let cookies = headers.get_all(COOKIE).iter().filter(holds_one);
    let cookies = cookies.map(|value| (COOKIE, value.clone()));
    bearer.chain(named).chain(cookies)
}

/// Whether a bearer token is shown.
#[must_use]
pub fn has_bearer(headers: &HeaderMap) -> bool {
    matches!(authorization(headers), Ok(Authorization::Bearer(_)))
}

/// The value of the cookie `name`, for whoever counts by it and believes nothing; `None` when absent or empty.
///
/// # Errors
/// As [`find`], for a cookie that cannot be read in one way only.
pub fn cookie_named<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Rejection> {
    cookie(headers, name)
}

/// The user of HTTP Basic, form-decoded as RFC 6749 section 2.3.1 asks of client ids, for whoever counts by it and
/// believes nothing; `None` without HTTP Basic.
///
/// # Errors
/// As [`find`], for a field that cannot be read in one way only.
pub fn basic_user(headers: &HeaderMap) -> Result<Option<String>, Rejection> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ambiguous("two Authorization fields"));
    }
    let (scheme, rest) = split_scheme(value.as_bytes());
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Ok(None);
    }
    let malformed = || refused(Reason::CredentialMalformed, "no HTTP Basic of RFC 7617");
    // Readers differ about the padding; both spellings are one user.
    let encoded = rest.trim_ascii();
    let padding = encoded.iter().rev().take_while(|byte| **byte == b'=');
    let unpadded = encoded.len() - padding.count();
    let encoded = encoded.get(..unpadded).unwrap_or_default();
    let decoded = STANDARD_NO_PAD.decode(encoded).map_err(|_| malformed())?;
    let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
    let (user, _) = decoded.split_once(':').ok_or_else(malformed)?;
    let user = user.replace('+', " ");
    let user = percent_encoding::percent_decode_str(&user).decode_utf8();
    user.map(|user| Some(user.into_owned()))
        .map_err(|_| malformed())
}

enum Authorization<'h> {
    Absent,
    Bearer(&'h [u8]),
    Other,
}

fn authorization(headers: &HeaderMap) -> Result<Authorization<'_>, Rejection> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(Authorization::Absent);
    };
    if values.next().is_some() {
        return Err(ambiguous("two Authorization fields"));
    }
    let (scheme, rest) = split_scheme(value.as_bytes());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        Ok(Authorization::Bearer(rest))
    } else {
        Ok(Authorization::Other)
    }
}

fn split_scheme(value: &[u8]) -> (&[u8], &[u8]) {
    let value = value.trim_ascii();
    let end = value
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t' | b','))
        .unwrap_or(value.len());
    value.split_at_checked(end).unwrap_or((value, &[]))
}

/// One or more spaces, then the token of RFC 6750 section 2.1 and nothing else.
fn bearer_token(rest: &[u8]) -> Result<&str, Rejection> {
    let malformed = || refused(Reason::CredentialMalformed, "no bearer token of RFC 6750");
    let text = std::str::from_utf8(rest).map_err(|_| malformed())?;
    let token = text.trim_start_matches(' ');
    if token.len() == text.len() || !is_token68(token) {
        return Err(malformed());
    }
    Ok(token)
}

/// The alphabet of RFC 6750 section 2.1, which has room for tokens of every kind.
fn is_token68(token: &str) -> bool {
    let unpadded = token.trim_end_matches('=');
    !unpadded.is_empty()
        && unpadded.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
        })
}

/// The one token in the named headers.
fn in_headers<'h>(
    headers: &'h HeaderMap,
    names: &[HeaderName],
) -> Result<Option<Credential<'h>>, Rejection> {
    let mut found = None;
    for position in 0..names.len() {
        let one = in_header(headers, names, position)?;
        if one.is_some() && found.is_some() {
            return Err(ambiguous("two headers that hold a token"));
        }
        found = found.or(one);
    }
    Ok(found)
}

fn in_header<'h>(
    headers: &'h HeaderMap,
    names: &[HeaderName],
    position: usize,
) -> Result<Option<Credential<'h>>, Rejection> {
    let Some(name) = names.get(position) else {
        return Ok(None);
    };
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ambiguous("the header that holds the token occurs twice"));
    }
    let value = std::str::from_utf8(value.as_bytes().trim_ascii())
        .ok()
        .filter(|value| is_token68(value))
        .ok_or_else(|| {
            refused(
                Reason::CredentialMalformed,
                "the header holds what no token may hold",
            )
        })?;
    Ok(Some(Credential::Header { position, value }))
}

/// The one session cookie; an empty value counts as absent.
fn session_cookie<'h>(
    headers: &'h HeaderMap,
    names: &[Box<str>],
) -> Result<Option<Credential<'h>>, Rejection> {
    let mut found = None;
    for (position, name) in names.iter().enumerate() {
        let Some(value) = cookie(headers, name)? else {
            continue;
        };
        if found.is_some() {
            return Err(ambiguous("two session cookies"));
        }
        found = Some(Credential::Cookie { position, value });
    }
    Ok(found)
}

/// The value of the cookie `name` over all Cookie fields; HTTP/2 may split them (RFC 9113 section 8.2.3).
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Rejection> {
    let mut found: Option<&[u8]> = None;
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    for pair in pairs {
        let Some(value) = value_of(pair, name)? else {
            continue;
        };
        if found.is_some_and(|known| known != value) {
            return Err(ambiguous("the session cookie occurs twice"));
        }
        found = Some(value);
    }
    // The octets were checked, so this is ASCII.
    let text = found.and_then(|value| std::str::from_utf8(value).ok());
    Ok(text.filter(|value| !value.is_empty()))
}

/// The value of `pair` if its name is `name`. Readers differ about spaces before the `=` and quotes around the value,
/// so our cookie has none.
fn value_of<'p>(pair: &'p [u8], name: &str) -> Result<Option<&'p [u8]>, Rejection> {
    let pair = pair.trim_ascii();
    let equals = pair.iter().position(|byte| *byte == b'=');
    let Some((found, value)) = equals.and_then(|equals| pair.split_at_checked(equals)) else {
        return Ok(None);
    };
    if found.trim_ascii_end() != name.as_bytes() {
        return Ok(None);
    }
    let value = value.get(1..).unwrap_or_default();
    if found != name.as_bytes() || !value.iter().copied().all(is_cookie_octet) {
        return Err(refused(
            Reason::CredentialMalformed,
            "the session cookie holds what a cookie may not hold",
        ));
    }
    Ok(Some(value))
}

/// RFC 6265 section 4.1.1.
fn is_cookie_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

fn ambiguous(detail: &'static str) -> Rejection {
    Rejection::because(Reason::CredentialAmbiguous, detail)
}
