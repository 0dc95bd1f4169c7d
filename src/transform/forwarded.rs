//! Drops every header that says where a request came from or what it was before, and says it anew.
//!
//! One value each, never a list: backends key limits and audit logs by the whole text of `X-Forwarded-For`. RFC 7239's
//! `Forwarded` is dropped and not written: ZITADEL reads it before the Host, so a second spelling of the same facts could
//! only ever disagree with the first.

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};

use super::Facts;
use super::names::{folds_to, folds_to_start, remove_where};
use crate::client_ip::Client;
use crate::route::Head;
use crate::types::{Scheme, address_text};

/// Whole families. `x-forwarded` has its ancient form without a tail.
const PREFIXES: [&str; 4] = ["x-forwarded", "forwarded", "x-original-", "x-envoy-"];

const NAMES: [&str; 22] = [
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "fastly-client-ip",
    "x-cluster-client-ip",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-forward-for",
    "x-rewrite-url",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-zitadel-instance-host",
    "x-zitadel-public-host",
    "x-zitadel-forward-host",
    "x-zitadel-forwarded",
    "x-tenant-id",
    "x-request-id",
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether `name`, in any spelling, tells where a request came from or what it was.
pub(super) fn is_forwarding(name: &str) -> bool {
    // Nearly all names of a request begin with another letter.
    matches!(name.as_bytes().first(), Some(b'x' | b'f' | b'c' | b't'))
        && (PREFIXES.iter().any(|start| folds_to_start(name, start))
            || NAMES.iter().any(|known| folds_to(name, known)))
}

/// Whether every request to an upstream gets the header from here.
pub(super) fn is_written(name: &str) -> bool {
    let written = [
        FORWARDED_FOR,
        FORWARDED_PROTO,
        FORWARDED_HOST,
        FORWARDED_PORT,
        REAL_IP,
        REQUEST_ID,
    ];
    written.iter().any(|ours| folds_to(name, ours.as_str()))
}

/// Removes what the client or a proxy in front said, then says what we know. `Host` is written too, from the same value.
pub(super) fn rewrite(headers: &mut HeaderMap, facts: &Facts<'_>) {
    remove_where(headers, |name| is_forwarding(name.as_str()));
    let host = facts.head.authority().clone();
    let address = address_value(facts);
    headers.insert(FORWARDED_FOR, address.clone());
    headers.insert(REAL_IP, address);
    headers.insert(FORWARDED_PROTO, proto_value(facts.client));
    headers.insert(FORWARDED_PORT, port_value(facts.head, facts.client));
    headers.insert(FORWARDED_HOST, host.clone());
    headers.insert(HOST, host);
    headers.insert(REQUEST_ID, facts.request_id.clone());
}

/// Nearly always the peer is the client, and its address is written already.
fn address_value(facts: &Facts<'_>) -> HeaderValue {
    let address = facts.client.ip.address();
    if address == facts.conn.peer.ip() {
        facts.conn.peer_text.clone()
    } else {
        address_text(address)
    }
}

fn proto_value(client: &Client) -> HeaderValue {
    HeaderValue::from_static(client.scheme.as_str())
}

/// The port of the URL that the client used.
fn port_value(head: &Head, client: &Client) -> HeaderValue {
    match (head.port(), client.scheme) {
        (Some(port), _) => HeaderValue::from(port),
        (None, Scheme::Http) => HeaderValue::from_static("80"),
        (None, Scheme::Https) => HeaderValue::from_static("443"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_every_name_is_a_forwarding_name() {
        let families = [
            "x-forwarded-for",
            "x-forwarded",
            "forwarded",
            "forwarded-for",
        ]
        .into_iter()
        .chain([
            "x-forwarded-client-cert",
            "x-original-url",
            "x-envoy-original-path",
        ]);
        for name in families.chain(NAMES) {
            for sign in ["-", "_", "."] {
                let spelling = name.replace('-', sign);
                assert!(is_forwarding(&spelling), "{spelling}");
            }
        }
    }

    #[test]
    fn what_backends_need_is_no_forwarding_name() {
        for name in [
            "x-zitadel-orgid",
            "x-zitadel-login-client",
            "x-grpc-web",
            "x-user-agent",
            "x-csrf-token",
            "x-requested-with",
            "traceparent",
            "tracestate",
            "te",
            "content-type",
            "content-length",
            "cookie",
            "cf-ray",
            "from",
            "host",
            "origin",
        ] {
            assert!(!is_forwarding(name), "{name}");
        }
    }
}
