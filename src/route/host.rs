//! Hosts in their canonical spelling: lower case, no trailing dot, the port only if it was sent.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::HeaderValue;

/// An authority, taken apart and made canonical.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HostPort<'a> {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub(super) host: Cow<'a, str>,
    /// The port.
    pub(super) port: Option<u16>,
}

impl<'a> HostPort<'a> {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; `None` for anything else, user information included.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = if text.starts_with('[') {
            let (address, port) = text.split_at_checked(text.find(']')? + 1)?;
            (canonical_v6(address)?, port)
        } else {
            let (name, port) = text.split_at_checked(text.find(':').unwrap_or(text.len()))?;
            (canonical_name(name)?, port)
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => Some(port_of(digits)?),
            None if port.is_empty() => None,
            None => return None,
        };
        Some(Self { host, port })
    }

    /// The text to send upstream; `None` only for what [`HostPort::parse`] would not have let through.
    pub(super) fn to_value(&self) -> Option<HeaderValue> {
        match self.port {
            Some(port) => HeaderValue::try_from(format!("{}:{port}", self.host)).ok(),
            None => HeaderValue::from_str(&self.host).ok(),
        }
    }

    /// Whether `text`, from which this was read, is spelt like this already. Ports have one spelling.
    pub(super) fn is_spelt(&self, text: &[u8]) -> bool {
        let port = self.port.map_or(0, |port| 2 + port.ilog10() as usize);
        self.host.len() + port == text.len() && text.starts_with(self.host.as_bytes())
    }
}

/// A DNS name or an IPv4 address, without port. Underscores are let through: internal names have them.
pub(super) fn canonical_name(name: &str) -> Option<Cow<'_, str>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > 253 {
        return None;
    }
    let mut upper = false;
    let mut label = 0;
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            b'A'..=b'Z' => {
                upper = true;
                label += 1;
            }
            b'.' if label > 0 => label = 0,
            _ => return None,
        }
        if label > 63 {
            return None;
        }
    }
    if label == 0 {
        return None;
    }
    Some(if upper {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

/// `[::1]`, in the shortest spelling (RFC 5952).
fn canonical_v6(text: &str) -> Option<Cow<'_, str>> {
    let address: Ipv6Addr = text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
    let spelt = format!("[{address}]");
    Some(if spelt == text {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(spelt)
    })
}

/// Never 0, and without zeros in front.
fn port_of(digits: &str) -> Option<u16> {
    let plain = !digits.starts_with('0') && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, host: &str, port: Option<u16>) {
        let found = HostPort::parse(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!((found.host.as_ref(), found.port), (host, port), "{text}");
        let value = found.to_value().unwrap_or_else(|| panic!("{text}"));
        assert!(found.is_spelt(value.as_bytes()), "{text}");
    }

    #[test]
    fn hosts_have_one_spelling() {
        check("example.com", "example.com", None);
        check("Example.COM.", "example.com", None);
        check("EXAMPLE.com.:8443", "example.com", Some(8443));
        check("10.0.0.1:80", "10.0.0.1", Some(80));
        check("my_host", "my_host", None);
        check("[::1]:8080", "[::1]", Some(8080));
        check("[0:0:0:0:0:0:0:1]", "[::1]", None);
        check("[2001:DB8::A]", "[2001:db8::a]", None);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            ":80",
            "a:",
            "a:0",
            "a:080",
            "a:65536",
            "a:+80",
            "a:8 0",
            "a:b",
            "a:1:2",
            "user@a",
            "user:pw@a",
            "a b",
            "a/b",
            "a%2eb",
            "é",
            "a\\b",
            "a,b",
            "*",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:",
            "[v1.x]",
            "[fe80::1%25eth0]",
            "[1.2.3.4]",
            "[]",
        ] {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
        assert_eq!(HostPort::parse(&"a".repeat(64)), None);
        assert_eq!(HostPort::parse(&"a.".repeat(140)), None);
    }

    #[test]
    fn a_canonical_host_is_borrowed() {
        let text = "auth.example.com:8443";
        let found = HostPort::parse(text).unwrap();
        assert!(matches!(found.host, Cow::Borrowed(_)) && found.is_spelt(text.as_bytes()));
        assert!(!HostPort::parse("a.").unwrap().is_spelt(b"a."));
    }
}
