//! Hosts: an exact name, `*.example.com` for one label before a name, or any.

use std::cmp::Ordering;
use std::fmt;

use super::super::host::{HostPort, canonical_name};

/// What a route says about the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::route) enum HostPattern {
    /// One host, in canonical spelling.
    Exact(Box<str>),
    /// One label, then this name (kept without the leading dot).
    Wildcard(Box<str>),
    /// Every host.
    Any,
}

impl HostPattern {
    /// Reads a pattern; the error says what is wrong with it.
    pub(in crate::route) fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            let name = canonical_name(suffix).ok_or_else(|| no_host(text))?;
            return Ok(Self::Wildcard(name.as_ref().into()));
        }
        match HostPort::parse(text) {
            Some(HostPort { host, port: None }) => Ok(Self::Exact(host.as_ref().into())),
            Some(_) => Err(format!(
                "`{text}` has a port; hosts are compared without it"
            )),
            None => Err(no_host(text)),
        }
    }

    /// The more specific first: exact, then the longer wildcard, then any; names in alphabetical order.
    pub(in crate::route) fn precedence(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }

    /// Whether every host that matches `other` matches this one too, and not the other way round.
    pub(in crate::route) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, Self::Exact(_) | Self::Wildcard(_)) => true,
            (Self::Wildcard(parent), Self::Exact(name)) => {
                let above = name.split_once('.').map(|(_, above)| above);
                above == Some(parent)
            }
            _ => false,
        }
    }

    fn rank(&self) -> (u8, std::cmp::Reverse<usize>, &str) {
        match self {
            Self::Exact(name) => (0, std::cmp::Reverse(0), name),
            Self::Wildcard(name) => (1, std::cmp::Reverse(name.len()), name),
            Self::Any => (2, std::cmp::Reverse(0), ""),
        }
    }
}

fn no_host(text: &str) -> String {
    let about = if text.is_ascii() {
        "write `example.com`, `*.example.com` for one label, or an address"
    } else {
        "write an international name in its `xn--` form"
    };
    format!("`{text}` is no host: {about}")
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let found = HostPattern::parse(text).map(|pattern| pattern.to_string());
        assert_eq!(found.ok().as_deref(), expected, "{text}");
    }

    #[test]
    fn patterns_are_made_canonical() {
        check("Auth.Example.com.", Some("auth.example.com"));
        check("*.Example.com", Some("*.example.com"));
        check("[::1]", Some("[::1]"));
        check("10.0.0.1", Some("10.0.0.1"));
        check("*", Some("*"));
    }

    #[test]
    fn what_can_never_match_is_refused() {
        for text in [
            "",
            "a:443",
            "a.*",
            "*a.com",
            "*.",
            "*.*.a",
            "http://a",
            "bücher.example",
            "a/b",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_host_covers_what_is_narrower_and_not_itself() {
        let covers = |wide: &str, narrow: &str| {
            let [wide, narrow] = [wide, narrow].map(|text| HostPattern::parse(text).unwrap());
            wide.covers(&narrow)
        };
        assert!(covers("*", "a.example.com"));
        assert!(covers("*", "*.example.com"));
        assert!(covers("*.example.com", "a.example.com"));
        for (wide, narrow) in [
            ("*", "*"),
            ("a.example.com", "a.example.com"),
            ("*.example.com", "*.example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", "b.a.example.com"),
            ("*.example.com", "*.a.example.com"),
            ("a.example.com", "*"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }

    #[test]
    fn exact_comes_before_wildcard_before_any() {
        let order = ["b.example.com", "*.example.com", "*.com", "*"]
            .map(|text| HostPattern::parse(text).unwrap());
        assert!(order.is_sorted_by(|a, b| a.precedence(b).is_lt()));
    }
}
