//! The words of forwarding headers: addresses with or without port, and schemes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::types::Scheme;

/// Reads `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`, in canonical form.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        if !(port.is_empty() || port.strip_prefix(':').is_some_and(is_port)) {
            return None;
        }
        IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)
    } else if let Some((address, _)) = text.split_once(':').filter(|(_, port)| is_port(port)) {
        IpAddr::V4(address.parse::<Ipv4Addr>().ok()?)
    } else {
        text.parse::<IpAddr>().ok()?
    };
    Some(address.to_canonical())
}

/// Reads `http` or `https`, and what proxies write for WebSockets.
pub(super) fn scheme(text: &str) -> Option<Scheme> {
    let is_one_of = |words: [&str; 2]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_one_of(["https", "wss"]) {
        Some(Scheme::Https)
    } else if is_one_of(["http", "ws"]) {
        Some(Scheme::Http)
    } else {
        None
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let expected = expected.map(|address| address.parse().unwrap());
        assert_eq!(address(text), expected, "{text}");
    }

    #[test]
    fn addresses_come_with_and_without_port() {
        check("192.0.2.1", Some("192.0.2.1"));
        check("192.0.2.1:8080", Some("192.0.2.1"));
        check("2001:db8::1", Some("2001:db8::1"));
        check("[2001:db8::1]", Some("2001:db8::1"));
        check("[2001:db8::1]:443", Some("2001:db8::1"));
        check("1::2", Some("1::2"));
        check("::ffff:192.0.2.1", Some("192.0.2.1"));
        check("[::ffff:192.0.2.1]:9", Some("192.0.2.1"));
    }

    #[test]
    fn everything_else_is_malformed() {
        for text in [
            "",
            "unknown",
            "_hidden",
            "example.com",
            "192.0.2",
            "192.0.2.1.5",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:99999",
            "[192.0.2.1]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]443",
            "[2001:db8::1]:",
            "fe80::1%eth0",
            "0x7f.0.0.1",
            "127.1",
            "010.0.0.1",
            "192.0.2.1 ",
            "\"192.0.2.1\"",
            "192.0.2.1/24",
            "192.0.2.1:+80",
        ] {
            check(text, None);
        }
    }
}
