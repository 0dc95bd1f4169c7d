//! Headers: a name, and the value that one of its lines must have; `*` for any value.

use std::fmt;

use http::header::{AUTHORIZATION, COOKIE, FORWARDED, HOST, HeaderName, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue};

/// A header that must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::route) struct HeaderMatch {
    name: HeaderName,
    /// `None`: any value.
    value: Option<HeaderValue>,
}

impl HeaderMatch {
    /// Reads a matcher; the error says what is wrong with it.
    pub(in crate::route) fn parse(name: &str, value: &str) -> Result<Self, String> {
        let header: HeaderName = name
            .parse()
            .map_err(|_| format!("`{name}` is no header name"))?;
        if header == HOST {
            return Err("use `host` to match the host".to_owned());
        }
        if [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(&header) {
            return Err(format!(
                "`{name}` is a credential, which only authentication reads; use `auth`"
            ));
        }
        if header == FORWARDED || header.as_str().starts_with("x-forwarded-") {
            return Err(format!(
                "`{name}` can be forged by any client; use `from` or `trusted_proxies`"
            ));
        }
        let value = match value {
            "*" => None,
            _ => Some(
                value
                    .parse()
                    .map_err(|_| format!("`{value}` is no header value"))?,
            ),
        };
        Ok(Self {
            name: header,
            value,
        })
    }

    pub(in crate::route) fn name(&self) -> &HeaderName {
        &self.name
    }

    pub(in crate::route) fn matches(&self, headers: &HeaderMap) -> bool {
        match &self.value {
            None => headers.contains_key(&self.name),
            Some(value) => headers.get_all(&self.name).iter().any(|line| line == value),
        }
    }

    /// Whether a request that satisfies `others` must satisfy this one.
    pub(in crate::route) fn is_implied_by(&self, others: &[Self]) -> bool {
        others.iter().any(|other| {
            other.name == self.name && (self.value.is_none() || self.value == other.value)
        })
    }

    /// Whether a request with one line of this name cannot satisfy this one and `others` too.
    pub(in crate::route) fn contradicts(&self, others: &[Self]) -> bool {
        others.iter().any(|other| {
            let values = self.value.as_ref().zip(other.value.as_ref());
            other.name == self.name && values.is_some_and(|(ours, theirs)| ours != theirs)
        })
    }
}

impl fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            None => write!(f, "{}:*", self.name),
            Some(value) => write!(
                f,
                "{}:{}",
                self.name,
                String::from_utf8_lossy(value.as_bytes())
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(matcher: (&str, &str), lines: &[(&'static str, &'static str)], expected: bool) {
        let headers = lines
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()));
        let mut map = HeaderMap::new();
        map.extend(headers.map(|(name, value): (HeaderName, HeaderValue)| (Some(name), value)));
        let found = HeaderMatch::parse(matcher.0, matcher.1).unwrap();
        assert_eq!(found.matches(&map), expected, "{matcher:?} {lines:?}");
    }

    #[test]
    fn one_line_must_have_the_value() {
        check(("X-Tenant", "a"), &[("x-tenant", "a")], true);
        check(
            ("x-tenant", "a"),
            &[("x-tenant", "b"), ("x-tenant", "a")],
            true,
        );
        check(("x-tenant", "a"), &[("x-tenant", "A")], false);
        check(("x-tenant", "a"), &[], false);
        check(("x-tenant", "*"), &[("x-tenant", "")], true);
        check(("x-tenant", "*"), &[("x-other", "a")], false);
    }

    #[test]
    fn headers_that_other_rooms_judge_are_refused() {
        for name in [
            "host",
            "authorization",
            "Cookie",
            "x-forwarded-for",
            "forwarded",
            "a b",
            "",
        ] {
            assert!(HeaderMatch::parse(name, "*").is_err(), "{name}");
        }
        assert!(HeaderMatch::parse("x-a", "a\nb").is_err());
    }
}
