//! Drops what was meant for one connection only (RFC 9110 section 7.6.1), before headers of our own are added: a client
//! that lists our names in `Connection` removes its own copies and nothing else.
//!
//! Framing is not repaired here: `Content-Length` stays, `Transfer-Encoding` goes and the next connection frames anew.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, TRAILER};
use smallvec::SmallVec;

use super::forwarded;
use super::names::remove_where;
use crate::types::Dialect;

/// Drops the hop-by-hop fields of a request. `te: trailers` stays for gRPC, whose servers demand it, and goes otherwise:
/// REST gateways answer it with trailers that hang clients.
///
/// `Upgrade`, `Expect` and `Transfer-Encoding` are gone afterwards; who judges them does so before.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, dialect: Dialect) {
    let takes_trailers = dialect == Dialect::Grpc && takes_trailers(headers);
    strip(headers, |_| dialect);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Drops the hop-by-hop fields of a response.
pub(super) fn strip_response(headers: &mut HeaderMap) {
    strip(headers, Dialect::of);
}

fn strip(headers: &mut HeaderMap, dialect: impl FnOnce(&HeaderMap) -> Dialect) {
    strip_listed(headers);
    let keeps_trailer = headers.contains_key(TRAILER) && dialect(headers) == Dialect::Grpc;
    remove_where(headers, |name| {
        is_hop_by_hop(name.as_str()) && !(keeps_trailer && *name == TRAILER)
    });
}

/// Removes the fields that `Connection` names.
fn strip_listed(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let listed: SmallVec<[HeaderName; 4]> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| std::str::from_utf8(token.trim_ascii()).ok())
        .filter(|token| headers.contains_key(*token))
        .filter_map(|token| token.parse().ok())
        .filter(|name: &HeaderName| !is_end_to_end(name.as_str()))
        .collect();
    for name in listed {
        headers.remove(name);
    }
}

/// Whether the field never outlives a connection, listed or not. `proxy` is no field at all but the lever of httpoxy:
/// CGI makes it `HTTP_PROXY`.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "expect"
    )
}

/// Whether `Connection` has no say over the field: senders must not list it, and to obey would change what the message
/// is, whose it is, or (behind a proxy that passes `Connection` on) from where it came.
fn is_end_to_end(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "transfer-encoding"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "origin"
            | "cache-control"
    ) || forwarded::is_forwarding(name)
}

/// Whether one of the `TE` codings is `trailers`.
fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::IdentityNames;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn check(dialect: Dialect, lines: &[(&'static str, &str)], left: &[(&'static str, &str)]) {
        let mut stripped = headers(lines);
        strip_hop_by_hop(&mut stripped, dialect);
        assert_eq!(stripped, headers(left), "{lines:?}");
    }

    #[test]
    fn every_hop_by_hop_field_goes() {
        for name in [
            "connection",
            "keep-alive",
            "proxy",
            "proxy-connection",
            "proxy-authenticate",
            "proxy-authorization",
            "proxy-authentication-info",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "http2-settings",
            "expect",
        ] {
            let lines = [(name, "a"), (name, "b"), ("accept", "*/*")];
            check(Dialect::Http, &lines, &[("accept", "*/*")]);
        }
    }

    #[test]
    fn what_connection_lists_goes() {
        check(
            Dialect::Http,
            &[
                ("connection", "close, X-One ,, x-two,not a name"),
                ("connection", "x-three"),
                ("x-one", "1"),
                ("x-one", "11"),
                ("x-two", "2"),
                ("x-three", "3"),
                ("x-four", "4"),
            ],
            &[("x-four", "4")],
        );
    }

    #[test]
    fn connection_has_no_say_over_end_to_end_fields() {
        let kept = [
            ("host", "a.example"),
            ("content-length", "5"),
            ("content-type", "application/json"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-real-ip", "203.0.113.9"),
            ("forwarded", "for=203.0.113.9"),
        ];
        let mut lines = vec![(
            "connection",
            "host, content-length, content-type, authorization, cookie, X-Forwarded-For, x-real-ip, forwarded",
        )];
        lines.extend(kept);
        check(Dialect::Http, &lines, &kept);
    }

    #[test]
    fn identity_names_listed_in_connection_remove_only_the_clients_copies() {
        let mut stripped = headers(&[
            ("connection", "x-auth-user, x-auth-roles"),
            ("x-auth-user", "mallory"),
        ]);
        IdentityNames::new([]).strip(&mut stripped);
        strip_hop_by_hop(&mut stripped, Dialect::Http);
        assert!(stripped.is_empty());
        stripped.insert("x-auth-user", "alice".parse().unwrap());
        assert_eq!(stripped, headers(&[("x-auth-user", "alice")]));
    }

    #[test]
    fn only_grpc_keeps_te_and_only_its_word_trailers() {
        let lines = [("te", "gzip;q=1, Trailers"), ("connection", "te")];
        check(Dialect::Grpc, &lines, &[("te", "trailers")]);
        check(Dialect::Http, &lines, &[]);
        check(Dialect::GrpcWeb, &lines, &[]);
        check(Dialect::Connect, &lines, &[]);
        check(Dialect::Grpc, &[("te", "gzip")], &[]);
        check(Dialect::Grpc, &[("te", "trailersx")], &[]);
    }

    #[test]
    fn the_announcement_of_trailers_stays_for_grpc_only() {
        let lines = [("trailer", "grpc-status")];
        check(Dialect::Grpc, &lines, &lines);
        check(Dialect::Http, &lines, &[]);
    }

    #[test]
    fn a_response_keeps_no_te_at_all() {
        let mut response = headers(&[
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("connection", "keep-alive, x-debug"),
            ("x-debug", "1"),
            ("server", "origin"),
            ("trailer", "grpc-status"),
        ]);
        strip_response(&mut response);
        assert_eq!(
            response,
            headers(&[
                ("content-type", "application/grpc"),
                ("server", "origin"),
                ("trailer", "grpc-status"),
            ])
        );
    }
}
