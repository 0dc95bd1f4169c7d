//! Requests in, canonical heads and refusals out.

use http::{HeaderValue, Request, Uri, Version};

use crate::route::{Head, HeadCaps};
use crate::types::{ConnFacts, Protocol, Reason, Rejection, Scheme};

const CAPS: HeadCaps = HeadCaps {
    max_target: 64,
    max_fields: 10,
    max_head: 1000,
};

fn h1(target: &str, hosts: &[&str]) -> Result<Head, Rejection> {
    head(
        Version::HTTP_11,
        "GET",
        target.parse().unwrap(),
        hosts,
        None,
    )
}

/// As hyper hands over an HTTP/2 request: the pseudo-headers as parts of the URI.
fn h2(
    scheme: &str,
    authority: Option<&str>,
    path: &str,
    hosts: &[&str],
) -> Result<Head, Rejection> {
    let mut uri = Uri::builder().path_and_query(path);
    if let Some(authority) = authority {
        uri = uri.scheme(scheme).authority(authority);
    }
    head(Version::HTTP_2, "GET", uri.build().unwrap(), hosts, None)
}

fn head(
    version: Version,
    method: &str,
    uri: Uri,
    hosts: &[&str],
    server_name: Option<&str>,
) -> Result<Head, Rejection> {
    let mut request = Request::builder().version(version).method(method).uri(uri);
    for host in hosts {
        request = request.header("host", *host);
    }
    Head::of(&request.body(()).unwrap(), &conn(server_name), &CAPS)
}

fn conn(server_name: Option<&str>) -> ConnFacts {
    ConnFacts {
        listener: 0,
        listener_name: "public".into(),
        peer: "192.0.2.1:5000".parse().unwrap(),
        peer_text: HeaderValue::from_static("192.0.2.1"),
        local: "192.0.2.2:443".parse().unwrap(),
        scheme: Scheme::Https,
        protocol: Protocol::Http1,
        server_name: server_name.map(Into::into),
        client_cert: None,
    }
}

fn reason(found: Result<Head, Rejection>) -> Option<Reason> {
    found.err().map(|why| why.reason())
}

#[test]
fn a_head_is_canonical() {
    let head = h1("//a/./%62?x=%2f&y", &["Example.COM.:8443"]).unwrap();
    assert_eq!(head.host(), "example.com");
    assert_eq!(head.authority(), "example.com:8443");
    assert_eq!(head.path(), "/a/b");
    assert_eq!(head.query(), Some("x=%2f&y"));
    assert_eq!(head.path_and_query(), "/a/b?x=%2f&y");
    assert!(!head.has_encoded_slash());
}

#[test]
fn a_canonical_target_is_shared_not_copied() {
    let uri: Uri = "/a/b?x".parse().unwrap();
    let address = uri.path().as_ptr();
    let head = head(Version::HTTP_11, "GET", uri, &["a"], None).unwrap();
    assert_eq!(head.path().as_ptr(), address);
}

#[test]
fn both_protocols_name_one_host() {
    for found in [
        h1("/x", &["a.example:81"]),
        h1("http://A.example:81/x", &["a.example.:81"]),
        h2("https", Some("A.example:81"), "/x", &[]),
        h2("http", Some("a.example.:81"), "/x", &["A.EXAMPLE:81"]),
        h2("https", None, "/x", &["a.example:81"]),
    ] {
        let head = found.unwrap();
        assert_eq!(
            (head.host(), head.authority().to_str().unwrap(), head.path()),
            ("a.example", "a.example:81", "/x")
        );
    }
    assert_eq!(h1("http://a.example", &["a.example"]).unwrap().path(), "/");
}

#[test]
fn an_address_is_a_host() {
    let head = h1("/", &["[0::1]:80"]).unwrap();
    assert_eq!(
        (head.host(), head.authority().to_str().unwrap()),
        ("[::1]", "[::1]:80")
    );
}

#[test]
fn a_missing_doubled_contradicted_or_malformed_host_is_refused() {
    let bad = Some(Reason::BadHost);
    assert_eq!(reason(h1("/", &[])), bad);
    assert_eq!(reason(h1("/", &["a", "a"])), bad);
    assert_eq!(reason(h1("http://a/", &[])), bad);
    assert_eq!(reason(h1("http://a/", &["b"])), bad);
    assert_eq!(reason(h1("http://a:80/", &["a"])), bad);
    assert_eq!(reason(h1("http://u@a/", &["u@a"])), bad);
    assert_eq!(reason(h2("https", None, "/", &[])), bad);
    assert_eq!(reason(h2("https", Some("a"), "/", &["b"])), bad);
    assert_eq!(reason(h2("https", Some("a"), "/", &["a", "a"])), bad);
    assert_eq!(reason(h2("https", Some("u:p@a"), "/", &[])), bad);
    for host in ["", "a b", "a/b", "u@a", "a:x", "a:", "..", "[::1"] {
        assert_eq!(reason(h1("/", &[host])), bad, "{host}");
    }
}

#[test]
fn targets_other_than_a_path_are_refused() {
    let bad = Some(Reason::BadTarget);
    for target in [
        "*",
        "!",
        "example.com:80",
        "ftp://a/",
        "/a/%2e%2e;/b",
        "/a\\b",
        "/é",
        "/a?é",
        "/a?b\\c",
    ] {
        assert_eq!(reason(h1(target, &["a"])), bad, "{target}");
    }
    for path in ["*", "?x", "/a\\b", "/%00"] {
        assert_eq!(reason(h2("https", Some("a"), path, &[])), bad, "{path}");
    }
    assert_eq!(reason(h2("ftp", Some("a"), "/", &[])), bad);
    assert_eq!(
        reason(head(
            Version::HTTP_11,
            "OPTIONS",
            "*".parse().unwrap(),
            &["a"],
            None
        )),
        bad
    );
}

#[test]
fn tunnels_and_echoes_are_refused() {
    for method in ["CONNECT", "TRACE"] {
        let found = head(Version::HTTP_11, method, "/".parse().unwrap(), &["a"], None);
        assert_eq!(reason(found), Some(Reason::MethodRefused), "{method}");
    }
    for method in ["get", "Post", "CONNECt"] {
        let found = head(Version::HTTP_2, method, "/".parse().unwrap(), &["a"], None);
        assert_eq!(reason(found), Some(Reason::BadMethod), "{method}");
    }
    for method in ["PROPFIND", "propfind"] {
        let found = head(
            Version::HTTP_2,
            method,
            "http://a/".parse().unwrap(),
            &[],
            None,
        );
        assert_eq!(reason(found), None, "{method} is for the table to judge");
    }
}

#[test]
fn a_target_is_bounded_with_its_query() {
    assert_eq!(reason(h1(&format!("/{}", "a".repeat(63)), &["a"])), None);
    assert_eq!(
        reason(h1(&format!("/a?{}", "a".repeat(62)), &["a"])),
        Some(Reason::TargetTooLong)
    );
}

#[test]
fn the_host_must_be_the_one_of_the_handshake() {
    let with = |name, host| {
        reason(head(
            Version::HTTP_11,
            "GET",
            "/".parse().unwrap(),
            &[host],
            Some(name),
        ))
    };
    assert_eq!(with("a.example", "A.example.:8443"), None);
    assert_eq!(with("a.example", "b.example"), Some(Reason::Misdirected));
    assert_eq!(with("a.example", "x.a.example"), Some(Reason::Misdirected));
}

#[test]
fn versions_that_nobody_speaks_are_refused() {
    let found = head(Version::HTTP_09, "GET", "/".parse().unwrap(), &["a"], None);
    assert_eq!(reason(found), Some(Reason::BadFraming));
}

#[test]
fn another_path_is_made_canonical_again() {
    let head = h1("/pub/x?q=1", &["a:81"]).unwrap();
    let other = head.with_path("/a/../admin").unwrap();
    assert_eq!(
        (
            other.path_and_query().as_str(),
            other.authority().to_str().unwrap()
        ),
        ("/admin?q=1", "a:81")
    );
    assert!(head.with_path("/x%2Fy").unwrap().has_encoded_slash());
    for path in ["", "admin", "/a?x", "/a%252f", "/a#b"] {
        assert_eq!(
            reason(head.with_path(path)),
            Some(Reason::BadTarget),
            "{path}"
        );
    }
}

#[test]
fn the_caps_are_those_of_the_listener() {
    let listen =
        toml::from_str("bind = '127.0.0.1:80'\nmax_fields = 7\nmax_target = '2KiB'").unwrap();
    let caps = HeadCaps::compile(&listen);
    assert_eq!(
        (caps.max_target, caps.max_fields, caps.max_head),
        (2048, 7, 32 * 1024)
    );
}

pub(super) fn at(host: &str, target: &str) -> Result<Head, Rejection> {
    h1(target, &[host])
}
