//! The grammar of `Forwarded` (RFC 7239 section 4), read strictly: a quote that a client left open must not swallow what
//! our proxy appended behind it.

use std::net::IpAddr;

use smallvec::SmallVec;

use super::node;
use crate::types::Scheme;

/// One element: what one proxy said about the hop before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// `for`; `None` if it is missing, `unknown` or an obfuscated name.
    pub(super) address: Option<IpAddr>,
    /// `proto`.
    pub(super) scheme: Option<Scheme>,
}

/// The elements of one line, left to right; `None` when it is malformed or has more than `most`.
pub(super) fn parse(line: &str, most: usize) -> Option<SmallVec<[Element; 4]>> {
    let mut elements = SmallVec::new();
    let mut rest = skip_space(line);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(',') {
            rest = skip_space(after);
            continue;
        }
        let (element, after) = parse_element(rest)?;
        if elements.len() >= most {
            return None;
        }
        elements.push(element);
        rest = skip_space(after);
    }
    Some(elements)
}

/// Pairs with `;` between them, up to a comma or the end.
fn parse_element(text: &str) -> Option<(Element, &str)> {
    let mut element = Element::default();
    let mut seen = (false, false);
    let mut rest = text;
    loop {
        let (name, after) = take_token(rest)?;
        let (value, after) = take_value(after.strip_prefix('=')?)?;
        if name.eq_ignore_ascii_case("for") {
            if std::mem::replace(&mut seen.0, true) {
                return None;
            }
            element.address = parse_node(value)?;
        } else if name.eq_ignore_ascii_case("proto") {
            if std::mem::replace(&mut seen.1, true) {
                return None;
            }
            element.scheme = Some(node::scheme(value)?);
        }
        rest = skip_space(after);
        match rest.strip_prefix(';') {
            Some(after) => rest = skip_space(after),
            None if rest.is_empty() || rest.starts_with(',') => return Some((element, rest)),
            None => return None,
        }
    }
}

/// An address, or a name that hides one; `None` for what is neither. IPv6 must have its brackets.
fn parse_node(value: &str) -> Option<Option<IpAddr>> {
    let name = value.split(':').next().unwrap_or_default();
    if name.eq_ignore_ascii_case("unknown") || name.starts_with('_') {
        return Some(None);
    }
    let bare_v6 = !value.starts_with('[') && value.matches(':').count() > 1;
    if bare_v6 {
        return None;
    }
    node::address(value).map(Some)
}

fn take_token(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|one: char| !is_token_char(one))
        .unwrap_or(text.len());
    text.split_at_checked(end)
        .filter(|(token, _)| !token.is_empty())
}

/// A token or a quoted string. Escapes inside quotes have no place in an address or a scheme: they are refused.
fn take_value(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('"') {
        Some(quoted) => quoted
            .split_once('"')
            .filter(|(value, _)| !value.contains('\\')),
        None => take_token(text),
    }
}

fn is_token_char(one: char) -> bool {
    one.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(one)
}

fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &[(Option<&str>, Option<Scheme>)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(address, scheme)| Element {
                address: address.map(|address| address.parse().unwrap()),
                scheme: *scheme,
            })
            .collect();
        assert_eq!(
            parse(line, 4).map(SmallVec::into_vec),
            Some(expected),
            "{line}"
        );
    }

    #[test]
    fn elements_are_read_as_the_rfc_writes_them() {
        let https = Some(Scheme::Https);
        check("", &[]);
        check("for=192.0.2.43", &[(Some("192.0.2.43"), None)]);
        check(
            "For=\"[2001:db8:cafe::17]:4711\"",
            &[(Some("2001:db8:cafe::17"), None)],
        );
        check(
            "for=192.0.2.60;proto=HTTPS;by=203.0.113.43",
            &[(Some("192.0.2.60"), https)],
        );
        check(
            "for=192.0.2.43, for=\"198.51.100.17:80\" ; host=\"a,b;c=d\"",
            &[(Some("192.0.2.43"), None), (Some("198.51.100.17"), None)],
        );
        check("for=_mdn, for=unknown", &[(None, None), (None, None)]);
        check("proto=https", &[(None, https)]);
        check(",, for=192.0.2.1 ,", &[(Some("192.0.2.1"), None)]);
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in [
            "for",
            "for=",
            "=x",
            "for=192.0.2.1;",
            "for =192.0.2.1",
            "for= 192.0.2.1",
            "for=192.0.2.1 by=x",
            ";for=192.0.2.1",
            "for=192.0.2.1;for=192.0.2.2",
            "proto=http;proto=https",
            "for=2001:db8::1",
            "for=\"2001:db8::1\"",
            "for=[2001:db8::1]",
            "for=example.com",
            "proto=ftp",
            "for=\"192.0.2.1",
            "for=\"192.0.2.1\"x",
            "for=\"192\\.0.2.1\"",
        ] {
            assert_eq!(parse(line, 4), None, "{line}");
        }
    }

    #[test]
    fn an_open_quote_swallows_nothing() {
        // What a client may send, followed by what a proxy appends to the same line.
        for sent in ["for=1.1.1.1;x=\"", "x=\"", "for=\"", "for=1.1.1.1;x=\"\\"] {
            for appended in [
                "for=192.0.2.1",
                "for=192.0.2.1;host=\"a\"",
                "for=\"[2001:db8::1]:80\";proto=https",
            ] {
                assert_eq!(
                    parse(&format!("{sent}, {appended}"), 4),
                    None,
                    "{sent} {appended}"
                );
            }
        }
    }

    #[test]
    fn elements_are_bounded() {
        assert!(parse(&["for=192.0.2.1"; 4].join(","), 4).is_some());
        assert!(parse(&["for=192.0.2.1"; 5].join(","), 4).is_none());
    }
}
