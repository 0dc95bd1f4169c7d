//! Headers in, clients out.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::types::{Protocol, address_text};

/// Trusts 10.0.0.0/8 and 2001:db8:ffff::/48.
fn trust() -> Trust {
    let networks = ["10.0.0.0/8", "2001:db8:ffff::/48"];
    Trust {
        proxies: CidrSet::new(networks.map(|network| network.parse().unwrap())),
    }
}

fn conn(peer: &str) -> ConnFacts {
    ConnFacts {
        listener: 0,
        listener_name: "public".into(),
        peer: std::net::SocketAddr::new(peer.parse().unwrap(), 5000),
        peer_text: address_text(peer.parse().unwrap()),
        local: "10.0.0.2:80".parse().unwrap(),
        scheme: Scheme::Http,
        protocol: Protocol::Http1,
        server_name: None,
        client_cert: None,
    }
}

fn find(peer: &str, lines: &[(&'static str, &str)]) -> Result<Client, Reason> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    trust()
        .find(&conn(peer), &headers)
        .map_err(|why| why.reason())
}

fn listed(peer: &str, list: &str, expected: &str) {
    check(peer, &[("x-forwarded-for", list)], expected);
}

fn check(peer: &str, lines: &[(&'static str, &str)], expected: &str) {
    let found = find(peer, lines).map(|client| client.ip.address());
    assert_eq!(found, Ok(expected.parse().unwrap()), "{peer} {lines:?}");
}

fn refuse(lines: &[(&'static str, &str)]) {
    assert_eq!(
        find("10.0.0.1", lines),
        Err(Reason::BadForwarding),
        "{lines:?}"
    );
}

fn scheme(peer: &str, lines: &[(&'static str, &str)], expected: Scheme) {
    let found = find(peer, lines).map(|client| client.scheme);
    assert_eq!(found, Ok(expected), "{peer} {lines:?}");
}

const XFF: &str = "x-forwarded-for";
const XFP: &str = "x-forwarded-proto";
const FWD: &str = "forwarded";

#[test]
fn an_untrusted_peer_is_the_client_whatever_it_says() {
    listed("203.0.113.9", "1.1.1.1", "203.0.113.9");
    check(
        "203.0.113.9",
        &[(FWD, "for=1.1.1.1;proto=https"), (XFF, "garbage")],
        "203.0.113.9",
    );
    scheme("203.0.113.9", &[(XFP, "https")], Scheme::Http);
    assert!(!find("203.0.113.9", &[]).unwrap().via_trusted);
    assert!(find("10.0.0.1", &[]).unwrap().via_trusted);
}

#[test]
fn nobody_is_trusted_by_default() {
    let mut headers = HeaderMap::new();
    headers.insert(XFF, HeaderValue::from_static("1.1.1.1"));
    let client = Trust::default().find(&conn("127.0.0.1"), &headers).unwrap();
    assert_eq!(client.ip.address(), IpAddr::from([127, 0, 0, 1]));
}

#[test]
fn the_list_is_walked_from_the_right_over_trusted_hops() {
    listed("10.0.0.1", "203.0.113.7", "203.0.113.7");
    listed("10.0.0.1", "1.1.1.1, 203.0.113.7, 10.0.0.9", "203.0.113.7");
    listed("10.0.0.1", "1.1.1.1, 203.0.113.7", "203.0.113.7");
    listed("10.0.0.1", "10.9.9.9, 203.0.113.7", "203.0.113.7");
    listed("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"); // all trusted: the leftmost
    check(
        "10.0.0.1",
        &[
            (XFF, "1.1.1.1"),
            (XFF, "203.0.113.7,10.0.0.2"),
            (XFF, "10.0.0.3"),
        ],
        "203.0.113.7",
    );
    check("10.0.0.1", &[], "10.0.0.1");
    listed("10.0.0.1", "", "10.0.0.1");
    listed("10.0.0.1", " , 203.0.113.7 ,\t", "203.0.113.7");
}

#[test]
fn what_the_client_wrote_is_not_even_read() {
    listed("10.0.0.1", "unknown, <script>, 203.0.113.7", "203.0.113.7");
    check(
        "10.0.0.1",
        &[(XFF, "é"), (XFF, "203.0.113.7")],
        "203.0.113.7",
    );
    check(
        "10.0.0.1",
        &[(FWD, "for=\""), (FWD, "for=203.0.113.7")],
        "203.0.113.7",
    );
    listed(
        "10.0.0.1",
        &format!("{}203.0.113.7", "1.1.1.1,".repeat(500)),
        "203.0.113.7",
    );
}

#[test]
fn ports_brackets_and_mapped_addresses_are_understood() {
    listed("10.0.0.1", "203.0.113.7:5000", "203.0.113.7");
    listed("10.0.0.1", "2001:db8::1", "2001:db8::1");
    listed("10.0.0.1", "[2001:db8::1]:443", "2001:db8::1");
    listed("10.0.0.1", "203.0.113.7, [2001:db8:ffff::1]", "203.0.113.7");
    listed("10.0.0.1", "203.0.113.7, ::ffff:10.0.0.7", "203.0.113.7");
    listed("::ffff:10.0.0.1", "::ffff:203.0.113.7", "203.0.113.7");
    listed("2001:db8:ffff::1", "203.0.113.7", "203.0.113.7");
}

#[test]
fn forwarded_is_read_alike() {
    check(
        "10.0.0.1",
        &[(FWD, "for=1.1.1.1, for=203.0.113.7, for=10.0.0.9")],
        "203.0.113.7",
    );
    check(
        "10.0.0.1",
        &[(FWD, "for=1.1.1.1"), (FWD, "for=\"[2001:db8::1]:80\"")],
        "2001:db8::1",
    );
    check(
        "10.0.0.1",
        &[(FWD, "for=10.0.0.3, for=10.0.0.2")],
        "10.0.0.3",
    );
}

#[test]
fn a_malformed_hop_is_refused_and_never_skipped() {
    for list in [
        "unknown",
        "203.0.113.7, x",
        "1.1.1.1, unknown, 10.0.0.2",
        "203.0.113.7 10.0.0.1",
        "a.example",
    ] {
        refuse(&[(XFF, list)]);
    }
    refuse(&[(XFF, "203.0.113.7"), (XFF, "é")]);
    for line in [
        "for=unknown",
        "for=_x",
        "proto=https",
        "by=10.0.0.1",
        "for=1.1.1.1, for=unknown",
        "for=203.0.113.7;",
        "é",
    ] {
        refuse(&[(FWD, line)]);
    }
}

#[test]
fn hops_are_bounded() {
    let hops = |count| vec!["10.0.0.2"; count].join(",");
    listed("10.0.0.1", &hops(64), "10.0.0.2");
    refuse(&[(XFF, &hops(65))]);
    refuse(&[(XFF, &hops(40)), (XFF, &hops(40))]);
    let forwarded = |count| vec!["for=10.0.0.2"; count].join(",");
    check("10.0.0.1", &[(FWD, &forwarded(64))], "10.0.0.2");
    refuse(&[(FWD, &forwarded(65))]);
    refuse(&[(FWD, &forwarded(40)), (FWD, &forwarded(40))]);
}

#[test]
fn two_kinds_of_headers_must_agree() {
    check(
        "10.0.0.1",
        &[(XFF, "203.0.113.7"), (FWD, "for=\"203.0.113.7:80\"")],
        "203.0.113.7",
    );
    refuse(&[(XFF, "203.0.113.7"), (FWD, "for=1.1.1.1")]);
    refuse(&[(XFP, "http"), (FWD, "for=1.1.1.1;proto=https")]);
    scheme(
        "10.0.0.1",
        &[(XFP, "https"), (FWD, "for=1.1.1.1;proto=https")],
        Scheme::Https,
    );
}

#[test]
fn a_trusted_peer_tells_the_scheme() {
    scheme("10.0.0.1", &[], Scheme::Http);
    scheme("10.0.0.1", &[(XFP, "https")], Scheme::Https);
    scheme("10.0.0.1", &[(XFP, "HTTPS")], Scheme::Https);
    scheme("10.0.0.1", &[(XFP, "http, https")], Scheme::Https);
    scheme("10.0.0.1", &[(XFP, "https"), (XFP, "http")], Scheme::Http);
    scheme("10.0.0.1", &[(XFP, "wss")], Scheme::Https);
    scheme(
        "10.0.0.1",
        &[(FWD, "for=1.1.1.1;proto=https, for=10.0.0.2;proto=http")],
        Scheme::Https,
    );
    for value in ["ftp", "https;", "on", "é"] {
        refuse(&[(XFP, value)]);
    }
}

#[test]
fn limits_count_ipv6_customers_by_their_network() {
    let group = |text: &str| ClientIp::new(text.parse().unwrap()).group().to_string();
    assert_eq!(group("203.0.113.7"), "203.0.113.7");
    assert_eq!(group("::ffff:203.0.113.7"), "203.0.113.7");
    assert_eq!(group("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
}

#[test]
fn trust_is_what_the_listener_says() {
    let trust = |more: &str| {
        Trust::compile(&toml::from_str(&format!("bind = '0.0.0.0:80'\n{more}")).unwrap())
    };
    let proxy = IpAddr::from([10, 0, 0, 1]);
    assert!(!trust("").trusts(proxy));
    assert!(trust("trusted_proxies = ['10.0.0.0/8']").trusts(proxy));
}

proptest! {
    #[test]
    fn what_stands_left_of_the_client_changes_nothing(left in "[ -~]{0,40}") {
        let list = format!("{left}, 203.0.113.7, 10.0.0.9");
        listed("10.0.0.1", &list, "203.0.113.7");
    }

    #[test]
    fn any_header_is_judged_without_a_panic(value in any::<Vec<u8>>(), forwarded in "[ -~]{0,60}") {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.insert(XFF, value);
        }
        headers.insert(FWD, forwarded.parse().unwrap());
        let _ = trust().find(&conn("10.0.0.1"), &headers);
    }
}
