//! Finds the one credential of a request: a bearer token in `Authorization`, or a session cookie. The only reader of
//! both. Pure, and without an allocation.
//!
//! A request that shows two credentials is refused: the gateway would judge one, and the backend might use the other.
//! For the same reason a credential that another reader could understand differently is refused. Tokens in the query
//! are not looked at.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

use super::refused;
use crate::types::{Reason, Rejection};

/// What a route accepts.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// Whether a bearer token.
    pub bearer: bool,
    /// Names of session cookies.
    pub cookies: &'w [Box<str>],
}

/// What a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'h> {
    /// A bearer token.
    Bearer(&'h str),
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
    let cookie = session_cookie(headers, wanted.cookies)?;
    if cookie.is_some() && matches!(authorization, Authorization::Bearer(_)) {
        return Err(ambiguous("a bearer token and a session cookie"));
    }
    match authorization {
        Authorization::Bearer(token) if wanted.bearer => token68(token).map(Some),
        Authorization::Other if wanted.bearer && cookie.is_none() => Err(refused(
            Reason::CredentialMissing,
            "Authorization of another scheme than Bearer",
        )),
        _ => Ok(cookie),
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
    let mut found = Vec::with_capacity(wanted.cookies.len() + 1);
    match authorization(headers)? {
        Authorization::Bearer(token) if wanted.bearer => found.push(token68(token)?),
        Authorization::Bearer(_) => return Err(ambiguous("a bearer token beside the sessions")),
        _ if wanted.bearer => return Ok(None),
        _ => {}
    }
    for (position, name) in wanted.cookies.iter().enumerate() {
        match cookie(headers, name)? {
            Some(value) => found.push(Credential::Cookie { position, value }),
            None => return Ok(None),
        }
    }
    Ok(Some(found))
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
    let value = value.as_bytes().trim_ascii();
    let end = value
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t' | b','))
        .unwrap_or(value.len());
    let (scheme, rest) = value.split_at_checked(end).unwrap_or((value, &[]));
    if scheme.eq_ignore_ascii_case(b"bearer") {
        Ok(Authorization::Bearer(rest))
    } else {
        Ok(Authorization::Other)
    }
}

/// One or more spaces, then the token of RFC 6750 section 2.1 and nothing else.
fn token68(rest: &[u8]) -> Result<Credential<'_>, Rejection> {
    let malformed = || refused(Reason::CredentialMalformed, "no bearer token of RFC 6750");
    let text = std::str::from_utf8(rest).map_err(|_| malformed())?;
    let token = text.trim_start_matches(' ');
    let unpadded = token.trim_end_matches('=');
    let in_alphabet = unpadded.bytes().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
    });
    if token.len() == text.len() || unpadded.is_empty() || !in_alphabet {
        return Err(malformed());
    }
    Ok(Credential::Bearer(token))
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(fields: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn names() -> [Box<str>; 2] {
        ["sid".into(), "other".into()]
    }

    fn both(headers: &HeaderMap) -> Result<Option<Credential<'_>>, Reason> {
        let names = names();
        let wanted = Wanted {
            bearer: true,
            cookies: &names,
        };
        find(headers, wanted).map_err(|why| why.reason())
    }

    fn bearer(value: &[u8]) -> Result<Option<String>, Reason> {
        let headers = headers(&[("authorization", value)]);
        both(&headers).map(|found| match found {
            Some(Credential::Bearer(token)) => Some(token.to_owned()),
            None => None,
            other => panic!("{other:?}"),
        })
    }

    fn sid(fields: &[&[u8]]) -> Result<Option<String>, Reason> {
        let fields: Vec<_> = fields.iter().map(|value| ("cookie", *value)).collect();
        let headers = headers(&fields);
        both(&headers).map(|found| {
            found.map(|found| match found {
                Credential::Cookie { position: 0, value } => value.to_owned(),
                other => panic!("{other:?}"),
            })
        })
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        for value in [
            "Bearer a.b.c",
            "bearer a.b.c",
            "BEARER   a.b.c",
            " Bearer a.b.c ",
        ] {
            assert_eq!(
                bearer(value.as_bytes()),
                Ok(Some("a.b.c".to_owned())),
                "{value}"
            );
        }
    }

    #[test]
    fn a_bearer_token_holds_only_what_rfc_6750_lets_it_hold() {
        let bad: [&[u8]; 12] = [
            b"Bearer",
            b"Bearer ",
            b"Bearer =",
            b"Bearer a b",
            b"Bearer\ta",
            b"Bearer a,b",
            b"Bearer a, Bearer b",
            b"Bearer,a",
            b"Bearer \"a\"",
            b"Bearer a=b",
            b"Bearer \xe9",
            b"Bearer Bearer a",
        ];
        for value in bad {
            assert_eq!(
                bearer(value),
                Err(Reason::CredentialMalformed),
                "{}",
                String::from_utf8_lossy(value)
            );
        }
    }

    #[test]
    fn another_scheme_is_a_missing_credential() {
        for value in ["Basic dTpw", "DPoP a.b.c", "Bearerx a", "a.b.c", ""] {
            assert_eq!(
                bearer(value.as_bytes()),
                Err(Reason::CredentialMissing),
                "{value}"
            );
        }
    }

    #[test]
    fn two_credentials_are_one_too_many() {
        let cases: [&[(&'static str, &[u8])]; 4] = [
            &[
                ("authorization", b"Bearer a"),
                ("authorization", b"Bearer a"),
            ],
            &[
                ("authorization", b"Bearer a"),
                ("authorization", b"Basic a"),
            ],
            &[("authorization", b"Bearer a"), ("cookie", b"sid=1")],
            &[("cookie", b"sid=1; other=2")],
        ];
        for fields in cases {
            assert_eq!(
                both(&headers(fields)),
                Err(Reason::CredentialAmbiguous),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn a_bearer_beside_the_session_cookie_is_refused_although_the_route_wants_none() {
        let headers = headers(&[("authorization", b"Bearer a"), ("cookie", b"sid=1")]);
        let names = names();
        let wanted = Wanted {
            bearer: false,
            cookies: &names,
        };
        let why = find(&headers, wanted).unwrap_err();
        assert_eq!(why.reason(), Reason::CredentialAmbiguous);
    }

    #[test]
    fn cookies_of_other_names_play_no_part() {
        let headers = headers(&[
            ("authorization", b"Bearer a"),
            ("cookie", b"theme=dark; x=sid=1"),
        ]);
        assert_eq!(both(&headers), Ok(Some(Credential::Bearer("a"))));
        for value in [
            "xsid=1", "Sid=1", "sidx=1", "sid", "", ";;", "=sid", "a;sid",
        ] {
            assert_eq!(sid(&[value.as_bytes()]), Ok(None), "{value}");
        }
    }

    #[test]
    fn a_session_cookie_is_found_among_others_and_over_several_fields() {
        assert_eq!(sid(&[b"a=1; sid=x.y=; b=2"]), Ok(Some("x.y=".to_owned())));
        assert_eq!(sid(&[b"a=1", b"sid=x", b"b=2"]), Ok(Some("x".to_owned())));
        assert_eq!(sid(&[b"sid=x;sid=x", b"sid=x"]), Ok(Some("x".to_owned())));
    }

    #[test]
    fn a_session_cookie_that_occurs_twice_with_different_values_is_refused() {
        assert_eq!(sid(&[b"sid=x; sid=y"]), Err(Reason::CredentialAmbiguous));
        assert_eq!(sid(&[b"sid=x", b"sid=y"]), Err(Reason::CredentialAmbiguous));
        assert_eq!(sid(&[b"sid=x; sid="]), Err(Reason::CredentialAmbiguous));
    }

    #[test]
    fn a_session_cookie_that_readers_could_read_differently_is_refused() {
        let bad: [&[u8]; 6] = [
            b"sid=\"x\"",
            b"sid =x",
            b"sid=x y",
            b"sid=x,y",
            b"sid=x\\y",
            b"sid=\xe9",
        ];
        for value in bad {
            assert_eq!(
                sid(&[value]),
                Err(Reason::CredentialMalformed),
                "{}",
                String::from_utf8_lossy(value)
            );
        }
    }

    #[test]
    fn an_empty_session_cookie_is_no_credential() {
        assert_eq!(sid(&[b"sid="]), Ok(None));
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_panic(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..4)) {
            let mut headers = HeaderMap::new();
            for (position, value) in values.iter().enumerate() {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.append(if position % 2 == 0 { COOKIE } else { AUTHORIZATION }, value);
                }
            }
            let _ = both(&headers);
        }

        #[test]
        fn what_is_found_is_what_was_sent(token in "[A-Za-z0-9._~+/-]{1,40}={0,2}", value in "[!#-+.-:<-\\[\\]-~-]{1,40}") {
            prop_assert_eq!(bearer(format!("Bearer {token}").as_bytes()), Ok(Some(token)));
            prop_assert_eq!(sid(&[format!("a=b; sid={value}").as_bytes()]), Ok(Some(value)));
        }
    }
}
