//! The cookies that a backend sets, made no weaker than the connection that carries them. Attributes are added where
//! they are absent and nothing else is touched: not the name, the value, `Domain` or `Path`, nor an attribute that is
//! there. Names with a prefix that browsers enforce (`__Host-`, `__Secure-`, ...) say themselves what they demand.

use http::header::{Entry, HeaderMap, HeaderValue, SET_COOKIE};

/// What a route adds.
#[derive(Clone, Debug, Default)]
pub(super) struct Cookies {
    /// `Secure`, on what arrived over TLS.
    pub(super) secure: bool,
    pub(super) http_only: Names,
    pub(super) same_site: Option<&'static str>,
}

/// Which cookies.
#[derive(Clone, Debug, Default)]
pub(super) enum Names {
    #[default]
    None,
    Every,
    Listed(Box<[Box<str>]>),
}

impl Cookies {
    pub(super) fn apply(&self, headers: &mut HeaderMap, is_https: bool) {
        let Entry::Occupied(mut set) = headers.entry(SET_COOKIE) else {
            return;
        };
        for value in set.iter_mut() {
            if let Some(strengthened) = self.strengthen(value, is_https) {
                *value = strengthened;
            }
        }
    }

    /// `None`: it is as strong as it is meant to be.
    fn strengthen(&self, value: &HeaderValue, is_https: bool) -> Option<HeaderValue> {
        let mut parts = value.as_bytes().split(|byte| *byte == b';');
        let pair = parts.next()?;
        let name = pair.split(|byte| *byte == b'=').next()?.trim_ascii();
        if is_prefixed(name) {
            return None;
        }
        let has = |attribute: &str| {
            let mut parts = parts.clone();
            parts.any(|part| is_named(part, attribute))
        };
        let had_secure = has("secure");
        let secure = self.secure && is_https && !had_secure;
        let http_only = self.http_only.hold(name) && !has("httponly");
        // Browsers drop a cookie that is sent to every site and not kept to TLS.
        let same_site = self.same_site.filter(|word| {
            let fits = *word != "None" || secure || had_secure;
            fits && !has("samesite")
        });
        if !secure && !http_only && same_site.is_none() {
            return None;
        }
        let mut text = value.as_bytes().trim_ascii_end().to_vec();
        while text.last() == Some(&b';') {
            text.pop();
        }
        if secure {
            text.extend_from_slice(b"; Secure");
        }
        if http_only {
            text.extend_from_slice(b"; HttpOnly");
        }
        if let Some(word) = same_site {
            text.extend_from_slice(b"; SameSite=");
            text.extend_from_slice(word.as_bytes());
        }
        let mut strengthened = HeaderValue::try_from(text).ok()?;
        strengthened.set_sensitive(true);
        Some(strengthened)
    }
}

impl Names {
    fn hold(&self, name: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::Every => true,
            // Names of cookies are case-sensitive.
            Self::Listed(names) => names.iter().any(|one| one.as_bytes() == name),
        }
    }
}

fn is_named(part: &[u8], attribute: &str) -> bool {
    let name = part.split(|byte| *byte == b'=').next().unwrap_or_default();
    let name = name.trim_ascii();
    name.eq_ignore_ascii_case(attribute.as_bytes())
}

/// Browsers compare the prefixes without regard to case, lest a backend that does so be fooled.
fn is_prefixed(name: &[u8]) -> bool {
    ["__host-", "__secure-", "__http-"].iter().any(|prefix| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cookies: &Cookies, is_https: bool, sent: &[&'static str], left: &[&str]) {
        let mut headers = HeaderMap::new();
        for cookie in sent {
            headers.append(SET_COOKIE, HeaderValue::from_static(cookie));
        }
        cookies.apply(&mut headers, is_https);
        let seen: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(seen, left);
    }

    fn secure() -> Cookies {
        Cookies {
            secure: true,
            ..Cookies::default()
        }
    }

    #[test]
    fn secure_is_added_once_and_over_tls_alone() {
        check(&secure(), true, &[], &[]);
        check(
            &secure(),
            true,
            &["a=1", "b=2; Path=/x; Domain=d"],
            &["a=1; Secure", "b=2; Path=/x; Domain=d; Secure"],
        );
        check(
            &secure(),
            true,
            &["a=1; secure", "b=2;SECURE;Path=/", "c=3; Secure=x"],
            &["a=1; secure", "b=2;SECURE;Path=/", "c=3; Secure=x"],
        );
        check(&secure(), false, &["a=1"], &["a=1"]);
        check(&Cookies::default(), true, &["a=1"], &["a=1"]);
        // An attribute is none inside of a value, or as the name.
        check(
            &secure(),
            true,
            &["a=secure", "secure=1", "a=1;"],
            &["a=secure; Secure", "secure=1; Secure", "a=1; Secure"],
        );
    }

    #[test]
    fn prefixed_names_are_left_alone() {
        let all = Cookies {
            secure: true,
            http_only: Names::Every,
            same_site: Some("Strict"),
        };
        let prefixed = [
            "__Host-a=1",
            "__Secure-a=1; Path=/",
            "__HOST-a=1",
            "__Http-a=1",
        ];
        check(&all, true, &prefixed, &prefixed);
        check(
            &all,
            true,
            &["__Hosta=1"],
            &["__Hosta=1; Secure; HttpOnly; SameSite=Strict"],
        );
    }

    #[test]
    fn http_only_is_for_the_cookies_that_are_named() {
        let named = Cookies {
            http_only: Names::Listed(["sid".into()].into()),
            ..Cookies::default()
        };
        check(
            &named,
            true,
            &["sid=1", "SID=1", "csrf=1", "sid=2; httponly", " sid =3"],
            &[
                "sid=1; HttpOnly",
                "SID=1",
                "csrf=1",
                "sid=2; httponly",
                " sid =3; HttpOnly",
            ],
        );
    }

    #[test]
    fn same_site_is_added_where_absent_and_none_only_with_secure() {
        let same_site = |word| Cookies {
            secure: true,
            same_site: Some(word),
            ..Cookies::default()
        };
        check(
            &same_site("Lax"),
            false,
            &["a=1", "b=1; samesite=none"],
            &["a=1; SameSite=Lax", "b=1; samesite=none"],
        );
        check(
            &same_site("None"),
            true,
            &["a=1"],
            &["a=1; Secure; SameSite=None"],
        );
        check(
            &same_site("None"),
            false,
            &["a=1", "b=1; Secure"],
            &["a=1", "b=1; Secure; SameSite=None"],
        );
    }
}
