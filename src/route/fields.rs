//! One pass over the header fields: how many, how large, and whether the framing is beyond doubt (behaviour 2.2).
//!
//! Control bytes need no look: a [`HeaderValue`] cannot hold any but the tab, and a test below keeps that true.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Version};

use super::head::HeadCaps;
use crate::types::{Reason, Rejection};

/// What RFC 9113 (and HPACK) count for a field beside its name and value.
const FIELD_OVERHEAD: usize = 32;

/// Holds the fields against the caps and the framing rules; the one Host header, if there is one.
pub(super) fn inspect<'a>(
    headers: &'a HeaderMap,
    version: Version,
    caps: &HeadCaps,
) -> Result<Option<&'a HeaderValue>, Rejection> {
    if headers.len() > caps.max_fields {
        return Err(Rejection::new(Reason::TooManyFields));
    }
    let mut size = 0;
    let mut host = None;
    let mut framing = Framing::default();
    for (name, value) in headers {
        size += name.as_str().len() + value.len() + FIELD_OVERHEAD;
        if version == Version::HTTP_2 && is_padded(value) {
            return Err(Rejection::because(
                Reason::BadField,
                "a field value is padded",
            ));
        }
        if *name == HOST {
            if host.replace(value).is_some() {
                return Err(Rejection::because(Reason::BadHost, "two Host headers"));
            }
        } else if *name == CONTENT_LENGTH {
            framing.take_length(value)?;
        } else if *name == TRANSFER_ENCODING {
            framing.take_coding(value, version)?;
        } else if *name == EXPECT && !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(Rejection::new(Reason::BadExpectation));
        }
    }
    if size > caps.max_head {
        return Err(Rejection::new(Reason::HeadTooLarge));
    }
    if framing.length && framing.coding {
        return Err(bad("both Content-Length and Transfer-Encoding"));
    }
    Ok(host)
}

/// HTTP/1 takes the white space around a value away; in HTTP/2 it must not be there (RFC 9113 section 8.2.1). Were it let
/// through, it would be gone behind an HTTP/1 hop, and two readers had read two values.
fn is_padded(value: &HeaderValue) -> bool {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let bytes = value.as_bytes();
    bytes.first().is_some_and(is_space) || bytes.last().is_some_and(is_space)
}

#[derive(Default)]
struct Framing {
    length: bool,
    coding: bool,
}

impl Framing {
    fn take_length(&mut self, value: &HeaderValue) -> Result<(), Rejection> {
        if std::mem::replace(&mut self.length, true) {
            return Err(bad("two Content-Length headers"));
        }
        let digits = value.to_str().unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(bad("Content-Length is not a number"));
        }
        match digits.parse::<u64>() {
            Ok(_) => Ok(()),
            Err(_) => Err(bad("Content-Length is too large")),
        }
    }

    fn take_coding(&mut self, value: &HeaderValue, version: Version) -> Result<(), Rejection> {
        if std::mem::replace(&mut self.coding, true) {
            return Err(bad("two Transfer-Encoding headers"));
        }
        if version != Version::HTTP_11 {
            return Err(bad("Transfer-Encoding outside HTTP/1.1"));
        }
        if value.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Ok(());
        }
        Err(judge_coding(value))
    }
}

/// A coding that we do not know is honest and unsupported; everything else is an attempt to be read in two ways.
fn judge_coding(value: &HeaderValue) -> Rejection {
    let codings = value.to_str().unwrap_or_default();
    let mut last_is_chunked = false;
    for coding in codings
        .split(',')
        .map(|coding| coding.trim_matches([' ', '\t']))
    {
        if last_is_chunked || !is_token(coding) {
            return bad("Transfer-Encoding is malformed");
        }
        last_is_chunked = coding.eq_ignore_ascii_case("chunked");
    }
    if codings.contains(',') || !last_is_chunked {
        return Rejection::new(Reason::UnsupportedCoding);
    }
    bad("Transfer-Encoding is padded")
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn bad(detail: &'static str) -> Rejection {
    Rejection::because(Reason::BadFraming, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: HeadCaps = HeadCaps {
        max_target: 8192,
        max_fields: 4,
        max_head: 200,
    };

    fn judge(version: Version, lines: &[(&'static str, &str)]) -> Option<Reason> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        inspect(&headers, version, &CAPS)
            .err()
            .map(|why| why.reason())
    }

    fn check(lines: &[(&'static str, &str)], expected: Option<Reason>) {
        assert_eq!(judge(Version::HTTP_11, lines), expected, "{lines:?}");
    }

    #[test]
    fn one_framing_header_that_means_one_thing_passes() {
        check(&[], None);
        check(&[("transfer-encoding", "chunked")], None);
        check(&[("transfer-encoding", "Chunked")], None);
        check(&[("content-length", "0")], None);
        check(&[("content-length", "18446744073709551615")], None);
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let bad = Some(Reason::BadFraming);
        for value in [
            ",chunked",
            "chunked,",
            "chunked, identity",
            "chunked, chunked",
            "",
            "chunked;q=1",
            "chun ked",
            "chunked\tx",
        ] {
            check(&[("transfer-encoding", value)], bad);
        }
        for value in [
            "",
            "+5",
            "-1",
            "0x5",
            "5, 5",
            "5,6",
            "1_0",
            "18446744073709551616",
            "5 5",
        ] {
            check(&[("content-length", value)], bad);
        }
        check(
            &[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            bad,
        );
        check(&[("content-length", "5"), ("content-length", "5")], bad);
        check(
            &[("content-length", "5"), ("transfer-encoding", "chunked")],
            bad,
        );
        assert_eq!(
            judge(Version::HTTP_10, &[("transfer-encoding", "chunked")]),
            bad
        );
        assert_eq!(
            judge(Version::HTTP_2, &[("transfer-encoding", "chunked")]),
            bad
        );
    }

    #[test]
    fn an_unknown_coding_is_unsupported() {
        for value in ["gzip", "identity", "xchunked", "gzip, chunked"] {
            check(
                &[("transfer-encoding", value)],
                Some(Reason::UnsupportedCoding),
            );
        }
    }

    #[test]
    fn padded_values_are_refused_in_http_2() {
        for value in [" a", "a ", "\ta", "a\t", " "] {
            let lines = [("x", value)];
            assert_eq!(judge(Version::HTTP_2, &lines), Some(Reason::BadField));
            assert_eq!(judge(Version::HTTP_11, &lines), None);
        }
        assert_eq!(judge(Version::HTTP_2, &[("x", ""), ("y", "a b")]), None);
    }

    #[test]
    fn only_one_expectation_is_known() {
        check(&[("expect", "100-Continue")], None);
        check(&[("expect", "200-ok")], Some(Reason::BadExpectation));
        check(
            &[("expect", "100-continue"), ("expect", "x")],
            Some(Reason::BadExpectation),
        );
    }

    #[test]
    fn heads_are_bounded_in_number_and_size() {
        let field = ("a", "b");
        check(&[field; 4], None);
        check(&[field; 5], Some(Reason::TooManyFields));
        check(&[("a", &"x".repeat(167))], None);
        check(&[("a", &"x".repeat(168))], Some(Reason::HeadTooLarge));
    }

    #[test]
    fn two_hosts_are_refused_even_when_equal() {
        check(&[("host", "a"), ("host", "a")], Some(Reason::BadHost));
    }

    #[test]
    fn header_values_cannot_hold_control_bytes() {
        for byte in (0..=0x1f).chain([0x7f]).filter(|byte| *byte != b'\t') {
            assert!(
                HeaderValue::from_bytes(&[b'a', byte, b'b']).is_err(),
                "{byte:#x}"
            );
        }
    }
}
