//! A plan at work: what a client sends, and what the upstream sees.

use std::sync::Arc;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};

use super::{Facts, IdentityNames, Plan, strip_hop_by_hop};
use crate::client_ip::{Client, ClientIp};
use crate::config::{Config, KeyPath, Problems};
use crate::route::{Head, HeadCaps};
use crate::types::principal::PrincipalFacts;
use crate::types::{AuthMethod, Body, ConnFacts, Dialect, Principal, Protocol, Reason, Scheme};

pub(super) fn conn() -> ConnFacts {
    ConnFacts {
        listener: 0,
        listener_name: Arc::from("public"),
        peer: "198.51.100.1:40000".parse().unwrap(),
        peer_text: HeaderValue::from_static("198.51.100.1"),
        local: "192.0.2.1:8443".parse().unwrap(),
        scheme: Scheme::Https,
        protocol: Protocol::Http1,
        server_name: None,
        client_cert: None,
    }
}

/// The head of a GET for `url`, as an HTTP/1.1 client sends it.
pub(super) fn head(url: &str) -> Head {
    let rest = url.split_once("://").unwrap().1;
    let slash = rest.find('/').unwrap();
    let request = http::Request::get(&rest[slash..])
        .header(HOST, &rest[..slash])
        .body(())
        .unwrap();
    let caps = HeadCaps {
        max_target: 8192,
        max_fields: 100,
        max_head: 32_768,
    };
    Head::of(&request, &conn(), &caps).unwrap()
}

fn alice() -> Principal {
    Principal {
        method: AuthMethod::Jwt,
        source: Arc::from("main"),
        facts: Arc::new(PrincipalFacts {
            user: "alice".to_owned(),
            roles: vec!["reader".to_owned()],
            ..PrincipalFacts::default()
        }),
        beside: None,
    }
}

/// One request through the room, as the pipeline sends it.
struct Case {
    config: String,
    url: &'static str,
    scheme: Scheme,
    client: &'static str,
    principal: Principal,
    sent: Vec<(&'static str, &'static str)>,
}

fn case() -> Case {
    Case {
        config: "[[route]]\nauth = \"none\"\n".to_owned(),
        url: "https://auth.example.com/x?q=1",
        scheme: Scheme::Https,
        client: "203.0.113.7",
        principal: Principal::anonymous(),
        sent: Vec::new(),
    }
}

impl Case {
    fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self
    }

    fn send(mut self, name: &'static str, value: &'static str) -> Self {
        self.sent.push((name, value));
        self
    }

    fn run(&self) -> Result<http::request::Parts, Reason> {
        let config: Config = toml::from_str(&self.config).unwrap();
        let mut problems = Problems::default();
        let plan = Plan::compile(&config.route[0], &KeyPath::root(), &mut problems);
        let plan = plan.unwrap_or_else(|| panic!("{:?}", problems.into_errors()));

        let head = head(self.url);
        let mut request = http::Request::get(self.url)
            .header(HOST, head.authority())
            .body(Body::empty())
            .unwrap();
        let headers = request.headers_mut();
        for (name, value) in &self.sent {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_static(value));
        }

        IdentityNames::compile(&config).strip(headers);
        let dialect = Dialect::of(headers);
        strip_hop_by_hop(headers, dialect);
        let rewritten = plan.rewrite(&head).map_err(|why| why.reason())?;
        let client = Client {
            ip: ClientIp::new(self.client.parse().unwrap()),
            scheme: self.scheme,
            via_trusted: false,
        };
        let facts = Facts {
            conn: &conn(),
            principal: &self.principal,
            client: &client,
            head: rewritten.as_ref().unwrap_or(&head),
            request_id: &HeaderValue::from_static("id-1"),
            dialect: Dialect::Http,
            time_left: None,
            wall: || std::time::SystemTime::UNIX_EPOCH,
        };
        plan.request(&mut request, &facts)
            .map_err(|why| why.reason())?;
        Ok(request.into_parts().0)
    }

    /// What the upstream sees, sorted by name.
    fn sees(&self) -> Vec<(String, String)> {
        sorted(&self.run().unwrap().headers)
    }
}

fn sorted(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    lines.sort();
    lines
}

fn lines(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

const FACTS: [(&str, &str); 7] = [
    ("host", "auth.example.com"),
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-host", "auth.example.com"),
    ("x-forwarded-port", "443"),
    ("x-forwarded-proto", "https"),
    ("x-real-ip", "203.0.113.7"),
    ("x-request-id", "id-1"),
];

#[test]
fn the_upstream_sees_our_facts_and_no_others() {
    assert_eq!(case().sees(), lines(&FACTS));
}

#[test]
fn nothing_that_a_client_claims_about_itself_arrives() {
    let case = case()
        .config("identity_headers = { tenant-user = \"user\" }")
        .send("x-forwarded-for", "10.0.0.1")
        .send("x-forwarded-for", "10.0.0.2")
        .send("x.forwarded.for", "10.0.0.1")
        .send("X_Forwarded_For", "10.0.0.1")
        .send("x-forwarded-host", "evil.invalid")
        .send("x-forwarded-prefix", "/evil")
        .send("x-forwarded-client-cert", "Subject=admin")
        .send("forwarded", "for=10.0.0.1;host=evil.invalid")
        .send("x-real-ip", "10.0.0.1")
        .send("true-client-ip", "10.0.0.1")
        .send("x-original-url", "/admin")
        .send("x-rewrite-url", "/admin")
        .send("x-http-method-override", "DELETE")
        .send("x-envoy-original-path", "/admin")
        .send("x-zitadel-instance-host", "evil.invalid")
        .send("x-zitadel-public-host", "evil.invalid")
        .send("x-zitadel-forward-host", "evil.invalid")
        .send("x-zitadel-forwarded", "host=evil.invalid")
        .send("x-tenant-id", "1")
        .send("x-request-id", "theirs")
        .send("x.request.id", "theirs")
        .send("x-auth-user", "admin")
        .send("X_Auth_User", "admin")
        .send("x.auth.roles", "admin")
        .send("tenant.user", "admin")
        .send("connection", "x-auth-user, x-forwarded-for, host")
        .send("proxy", "http://evil.invalid")
        .send("te", "trailers")
        .send("expect", "100-continue")
        .send("upgrade", "h2c")
        .send("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA");
    assert_eq!(case.sees(), lines(&FACTS));
}

#[test]
fn what_backends_need_arrives_untouched() {
    let needed = [
        ("authorization", "Bearer x"),
        ("connect-protocol-version", "1"),
        ("dpop", "x"),
        ("grpc-timeout", "1S"),
        ("traceparent", "00-x"),
        ("x-csrf-token", "x"),
        ("x-grpc-web", "1"),
        ("x-user-agent", "grpc-web-javascript/0.1"),
        ("x-zitadel-login-client", "1"),
        ("x-zitadel-orgid", "1"),
    ];
    let case = needed
        .iter()
        .fold(case(), |case, (name, value)| case.send(name, value));
    let mut expected = lines(&FACTS);
    expected.extend(lines(&needed));
    expected.sort();
    assert_eq!(case.sees(), expected);
}

#[test]
fn the_port_and_scheme_are_those_of_the_clients_url() {
    let check = |url, scheme, expected: [&str; 3]| {
        let parts = Case {
            url,
            scheme,
            ..case()
        }
        .run()
        .unwrap();
        let seen = ["x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"]
            .map(|name| parts.headers[name].to_str().unwrap());
        assert_eq!(seen, expected, "{url}");
        assert_eq!(parts.headers[HOST], expected[0]);
    };
    check(
        "http://a.example/",
        Scheme::Http,
        ["a.example", "80", "http"],
    );
    check(
        "https://a.example/",
        Scheme::Https,
        ["a.example", "443", "https"],
    );
    check(
        "https://a.example:8443/",
        Scheme::Https,
        ["a.example:8443", "8443", "https"],
    );
    // Behind a proxy that ends TLS the client's scheme is not the connection's.
    check(
        "http://a.example/",
        Scheme::Https,
        ["a.example", "443", "https"],
    );
}

#[test]
fn addresses_are_written_without_brackets_and_without_mapping() {
    let check = |client, expected: &str| {
        let parts = Case { client, ..case() }.run().unwrap();
        assert_eq!(parts.headers["x-forwarded-for"], expected);
        assert_eq!(parts.headers["x-real-ip"], expected);
    };
    check("2001:db8::1", "2001:db8::1");
    check("::ffff:203.0.113.7", "203.0.113.7");
}

#[test]
fn the_uri_is_the_path_and_query_of_the_rewritten_head() {
    let case = case().config("strip_prefix = \"/x\"");
    let check = |url, expected: &str| {
        let parts = Case {
            url,
            config: case.config.clone(),
            ..self::case()
        }
        .run()
        .unwrap();
        assert_eq!(parts.uri.to_string(), expected, "{url}");
        assert!(parts.uri.authority().is_none() && parts.uri.scheme().is_none());
        assert_eq!(parts.headers.get_all(HOST).iter().count(), 1);
    };
    check("https://auth.example.com/x/y?q=1", "/y?q=1");
    check("https://auth.example.com/x", "/");
    check("https://auth.example.com/z", "/z");
}

#[test]
fn identity_is_written_over_everything_that_came_before() {
    let case = Case {
        principal: alice(),
        ..case()
    }
    .send("x-auth-user", "admin")
    .send("x-auth-org", "admin")
    .send("connection", "x-auth-user, x-auth-method");
    let mut expected = lines(&FACTS);
    expected.extend(lines(&[
        ("x-auth-method", "jwt"),
        ("x-auth-roles", "reader"),
        ("x-auth-user", "alice"),
    ]));
    expected.sort();
    assert_eq!(case.sees(), expected);
}

#[test]
fn a_route_may_name_the_identity_headers_itself() {
    let case = Case {
        principal: alice(),
        ..case()
    }
    .config("identity_headers = { x-forwarded-user = \"user\", x-tenant-id = \"method\" }")
    .send("x-forwarded-user", "admin")
    .send("x-tenant-id", "admin");
    let mut expected = lines(&FACTS);
    expected.extend(lines(&[
        ("x-forwarded-user", "alice"),
        ("x-tenant-id", "jwt"),
    ]));
    expected.sort();
    assert_eq!(case.sees(), expected);
}

#[test]
fn an_identity_that_cannot_be_sent_refuses_the_caller() {
    let mut principal = alice();
    principal.facts = Arc::new(PrincipalFacts {
        roles: vec!["reader,admin".to_owned()],
        ..PrincipalFacts::default()
    });
    let case = Case {
        principal,
        ..case()
    };
    assert_eq!(case.run().err(), Some(Reason::TokenClaims));
}

#[test]
fn the_operators_edits_come_last() {
    let case = case()
        .config(
            "headers.request = { remove = [\"x-drop\", \"x-forwarded-port\"], set = { x-set = \"ours\", x-forwarded-prefix = \"/app\" }, default = { x-set = \"no\", x-kept = \"no\", x-new = \"yes\" } }",
        )
        .send("x-drop", "1")
        .send("x-set", "theirs")
        .send("x-kept", "theirs");
    let mut expected = lines(&FACTS);
    expected.retain(|(name, _)| name != "x-forwarded-port");
    expected.extend(lines(&[
        ("x-forwarded-prefix", "/app"),
        ("x-kept", "theirs"),
        ("x-new", "yes"),
        ("x-set", "ours"),
    ]));
    expected.sort();
    assert_eq!(case.sees(), expected);
}

#[test]
fn a_response_loses_its_connection_fields_and_gains_the_edits() {
    let config: Config = toml::from_str(
        "[[route]]\nauth = \"none\"\nheaders.response = { remove = [\"x-powered-by\"], set = { x-frame-options = \"DENY\" }, default = { cache-control = \"no-store\" } }",
    )
    .unwrap();
    let plan = Plan::compile(&config.route[0], &KeyPath::root(), &mut Problems::default()).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "close, x-internal"),
        ("x-internal", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("proxy-authenticate", "Basic"),
        ("upgrade", "h2c"),
        ("server", "origin"),
        ("x-powered-by", "php"),
        ("x-frame-options", "SAMEORIGIN"),
        ("set-cookie", "a=1"),
        ("cache-control", "max-age=300"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    plan.response(&mut headers, Scheme::Https);
    plan.dress(&mut headers, Scheme::Https, Dialect::Http);
    assert_eq!(
        sorted(&headers),
        lines(&[
            ("cache-control", "max-age=300"),
            ("server", "origin"),
            ("set-cookie", "a=1; Secure"),
            ("x-frame-options", "DENY"),
        ])
    );
}

#[test]
fn cookies_of_an_http2_client_arrive_as_one_field() {
    let case = case().send("cookie", "a=1").send("cookie", "b=2");
    let parts = case.run().unwrap();
    let cookies: Vec<_> = parts.headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2"]);
}

#[test]
fn grpc_web_is_translated_only_where_the_route_says_so() {
    let check = |lines: &str, sent: &str, expected: &str| {
        let text = format!("[[route]]\nauth = \"none\"\n{lines}");
        let config: Config = toml::from_str(&text).unwrap();
        let plan = Plan::compile(&config.route[0], &KeyPath::root(), &mut Problems::default());
        let plan = plan.unwrap();
        let mut request = http::Request::post("/")
            .header("content-type", sent)
            .body(Body::full("x"))
            .unwrap();
        let dialect = Dialect::of(request.headers());
        plan.request_body(&mut request, dialect).unwrap();
        assert_eq!(request.headers()["content-type"], expected, "{lines}");
        let mut response = http::Response::new(Body::empty());
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        let response = plan.response_body(response, dialect);
        let back = if sent == expected {
            "application/grpc"
        } else {
            sent
        };
        assert_eq!(response.headers()["content-type"], back, "{lines}");
    };
    let web = "application/grpc-web";
    check("grpc_web = \"translate\"", web, "application/grpc");
    check("grpc_web = \"translate\"", "text/plain", "text/plain");
    check("grpc_web = \"pass\"", web, web);
    check("", web, web);
}
