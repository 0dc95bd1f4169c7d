use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::json;

use super::{Addresses, Key, KeyPlan, KeySecret, Networks};
use crate::client_ip::ClientIp;
use crate::config::{LimitKey, LimitKeys};
use crate::limit::peek::PeekPlan;
use crate::limit::{Credentials, KeyInputs, Peeked, Shown};
use crate::types::principal::PrincipalFacts;
use crate::types::{AuthMethod, Principal};

/// A request under construction.
#[derive(Default)]
struct Visit {
    ip: Option<IpAddr>,
    method: Method,
    path: &'static str,
    headers: HeaderMap,
    body: Option<String>,
    principal: Option<Principal>,
}

fn from(ip: &str) -> Visit {
    Visit {
        ip: Some(ip.parse().unwrap()),
        ..Visit::default()
    }
}

fn here() -> Visit {
    from("192.0.2.1")
}

fn elsewhere() -> Visit {
    from("198.51.100.7")
}

impl Visit {
    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    fn json(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self.header("content-type", "application/json")
    }

    fn form(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self.header("content-type", "application/x-www-form-urlencoded")
    }

    fn claims(mut self, source: &str, claims: &serde_json::Value) -> Self {
        self.principal = Some(Principal {
            method: AuthMethod::Jwt,
            source: Arc::from(source),
            facts: Arc::new(PrincipalFacts {
                claims: claims.as_object().unwrap().clone(),
                ..PrincipalFacts::default()
            }),
            beside: None,
        });
        self
    }
}

/// Reads the headers `x-cookie-NAME` and `x-basic`: what they mean is tested where they are read.
#[derive(Debug)]
struct Told;

fn told<'h>(headers: &'h HeaderMap, name: &str) -> Shown<'h> {
    match headers.get(name).map(|value| value.to_str().unwrap()) {
        None => Shown::Absent,
        Some("?") => Shown::Unclear,
        Some(text) => Shown::Text(Cow::Borrowed(text)),
    }
}

impl Credentials for Told {
    fn cookie<'h>(&self, headers: &'h HeaderMap, name: &str) -> Shown<'h> {
        told(headers, &format!("x-cookie-{name}"))
    }

    fn basic_user<'h>(&self, headers: &'h HeaderMap) -> Shown<'h> {
        told(headers, "x-basic")
    }
}

struct Plan {
    key: KeyPlan,
    peek: Option<PeekPlan>,
}

fn plan(key: &str) -> Plan {
    plan_with(key, 32, 64, &[], KeySecret::draw())
}

fn plan_with(key: &str, v4: u8, v6: u8, named: &[(&str, &str)], secret: KeySecret) -> Plan {
    let parts: LimitKeys = key.parse().unwrap();
    let named = named
        .iter()
        .map(|(name, net)| (*name, net.parse().unwrap()));
    let networks = Networks::new(named).unwrap();
    Plan {
        key: KeyPlan::new(&parts.0, Addresses::new(v4, v6, networks), secret),
        peek: PeekPlan::of_parts(&parts.0),
    }
}

impl Plan {
    fn of(&self, visit: &Visit) -> Key {
        let peeked = match (&self.peek, &visit.body) {
            (Some(peek), Some(body)) => peek.read(&visit.headers, None, body.as_bytes()),
            _ => Peeked::default(),
        };
        self.key.of(&KeyInputs {
            route: "login",
            method: &visit.method,
            path: visit.path,
            credentials: &Told,
            principal: visit.principal.as_ref(),
            ..KeyInputs::of(ClientIp::new(visit.ip.unwrap()), &visit.headers, &peeked)
        })
    }
}

fn alike(key: &str, one: &Visit, other: &Visit) {
    let plan = plan(key);
    assert!(plan.of(one) == plan.of(other), "{key}");
}

fn apart(key: &str, one: &Visit, other: &Visit) {
    let plan = plan(key);
    assert!(plan.of(one) != plan.of(other), "{key}");
}

#[test]
fn an_account_counts_wherever_it_is_tried_and_however_it_is_spelt() {
    for spelling in [
        r#"{"email":"ada@example.com"}"#,
        r#"{"email":" ADA@Example.com\t"}"#,
        r#"{"email":"\u0061da@example.com"}"#,
        r#"{"Email":"ada@example.com"}"#,
        r#"{"\u0065mail":"ada@example.com"}"#,
        r#"{"e_mail":"ada@example.com","password":"x"}"#,
        "{\"email\":\"\u{a0}ada@example.com\u{2003}\"}",
    ] {
        let one = here().json(r#"{"email":"ada@example.com"}"#);
        alike("json:email", &one, &elsewhere().json(spelling));
        apart("ip+json:email", &one, &elsewhere().json(spelling));
    }
    let straße = here().json(r#"{"email":"STRAẞE@ÉXAMPLE.com"}"#);
    let lower = elsewhere().json(r#"{"email":"straße@éxample.com"}"#);
    alike("json:email", &straße, &lower);
}

#[test]
fn an_account_that_backends_fold_is_folded() {
    for (one, other) in [
        ("zo\u{eb}@example.com", "zoe\u{308}@example.com"),
        ("ada@example.com", "\u{ff41}da@example.com"),
        ("ada@example.com", "\u{1d4d0}DA@example.com"),
        ("fina@example.com", "\u{fb01}na@example.com"),
        ("kim.s@example.com", "\u{212a}im.\u{17f}@example.com"),
        ("\u{c5}sa", "\u{212b}sa"),
        ("ΝΙΚΟΣ", "νικος"),
        ("İvan", "i\u{307}van"),
    ] {
        let body = |name: &str| format!(r#"{{"email":"{name}"}}"#);
        alike(
            "json:email",
            &here().json(&body(one)),
            &elsewhere().json(&body(other)),
        );
    }
    for (one, other) in [
        ("ada", "adа"),
        ("a", "á"),
        ("o", "0"),
        ("l", "1"),
        ("ss", "ß"),
    ] {
        let body = |name: &str| format!(r#"{{"email":"{name}"}}"#);
        apart(
            "json:email",
            &here().json(&body(one)),
            &here().json(&body(other)),
        );
    }
}

#[test]
fn accounts_are_told_apart() {
    let ada = here().json(r#"{"email":"ada@example.com"}"#);
    let bob = here().json(r#"{"email":"bob@example.com"}"#);
    apart("json:email", &ada, &bob);
    apart("ip+json:email", &ada, &bob);
    let form = here().form("email=ada%40example.com");
    alike(
        "form:email",
        &form,
        &elsewhere().form("x=1&email=Ada@Example.com"),
    );
    apart("form:email", &form, &here().form("email=bob@example.com"));
}

#[test]
fn a_body_that_names_nobody_counts_by_address() {
    for body in [
        "{}",
        r#"{"email":""}"#,
        r#"{"email":"  "}"#,
        r#"{"user":"ada"}"#,
    ] {
        alike("json:email", &here().json(body), &here());
        apart("json:email", &here().json(body), &elsewhere().json(body));
    }
}

#[test]
fn whatever_cannot_be_read_is_one_key_wherever_it_comes_from() {
    let one = here().json("nonsense");
    for body in [
        r#"{"email":"a","email":"b"}"#,
        r#"{"email":"a","EMAIL":"b"}"#,
        r#"{"email":7}"#,
        r#"{"email":["a"]}"#,
        r#"{"email":"a""#,
        "[]",
    ] {
        alike("json:email", &one, &elsewhere().json(body));
        apart("ip+json:email", &one, &elsewhere().json(body));
        alike("ip+json:email", &one, &here().json(body));
    }
    apart("json:email", &one, &here());
    apart("json:email", &one, &here().json(r#"{"email":"nonsense"}"#));
}

#[test]
fn cookies_and_client_ids_count_like_accounts() {
    let one = here().header("x-cookie-rt", "T0ken");
    alike(
        "cookie:rt",
        &one,
        &elsewhere().header("x-cookie-rt", "t0ken"),
    );
    apart("cookie:rt", &one, &here().header("x-cookie-rt", "other"));
    alike(
        "cookie:rt",
        &here().header("x-cookie-other", "T0ken"),
        &here(),
    );
    let client = here().header("x-basic", "billing");
    alike(
        "basic:client_id",
        &client,
        &elsewhere().header("x-basic", "Billing"),
    );
    apart("basic:client_id", &here(), &elsewhere());
    let unclear = here().header("x-basic", "?");
    alike(
        "basic:client_id",
        &unclear,
        &elsewhere().header("x-basic", "?"),
    );
    apart("basic:client_id", &unclear, &here());
}

#[test]
fn claims_count_by_who_made_them() {
    let one = here().claims("main", &json!({ "org": "Acme", "n": 7, "set": ["a"] }));
    for key in ["claim:org", "claim:n", "claim:set"] {
        let same = elsewhere().claims("main", &json!({ "org": "acme", "n": 7, "set": ["a"] }));
        alike(key, &one, &same);
        let foreign = here().claims("other", &json!({ "org": "acme", "n": 7, "set": ["a"] }));
        apart(key, &one, &foreign);
        let other = here().claims("main", &json!({ "org": "b", "n": 8, "set": [] }));
        apart(key, &one, &other);
    }
    let nameless = here().claims("main", &json!({ "org": null }));
    alike("claim:org", &nameless, &here());
    apart("claim:org", &nameless, &elsewhere());
}

#[test]
fn headers_count_without_case_and_space() {
    let one = here().header("x-key", "Alpha");
    alike(
        "header:x-key",
        &one,
        &elsewhere().header("x-key", " alpha "),
    );
    apart("header:x-key", &one, &here().header("x-key", "beta"));
    alike(
        "header:x-key",
        &here().header("x-key", "\u{c9}"),
        &here().header("x-key", "\u{e9}"),
    );
}

#[test]
fn services_and_methods_are_told_apart() {
    let call = |path| Visit { path, ..here() };
    alike("grpc:service", &call("/a.B/C"), &call("/a.B/D"));
    apart("grpc:service", &call("/a.B/C"), &call("/a.E/C"));
    for path in ["/a.B", "/a.B/C/D", "/a.B/", "//C", "/a-b/C", "/"] {
        alike("grpc:service", &call(path), &call("/"));
    }
    let post = Visit {
        method: Method::POST,
        ..here()
    };
    apart("method", &here(), &post);
    alike("ip", &here(), &post);
}

#[test]
fn prefixes_say_how_much_of_an_address_counts() {
    let wide = plan_with("ip", 24, 48, &[], KeySecret::draw());
    let share = |one: &str, other: &str| wide.of(&from(one)) == wide.of(&from(other));
    assert!(share("192.0.2.1", "192.0.2.255") && !share("192.0.2.1", "192.0.3.1"));
    assert!(share("::ffff:192.0.2.1", "192.0.2.9"));
    assert!(share("2001:db8:1::1", "2001:db8:1:ffff::") && !share("2001:db8:1::", "2001:db8:2::"));
    let exact = plan_with("ip", 32, 128, &[], KeySecret::draw());
    assert!(exact.of(&from("2001:db8::1")) != exact.of(&from("2001:db8::2")));
    assert!(exact.of(&from("192.0.2.1")) != exact.of(&from("192.0.2.2")));
}

#[test]
fn a_network_counts_as_one_and_everybody_else_alone() {
    let named = [
        ("office", "10.0.0.0/8"),
        ("office", "2001:db8::/32"),
        ("lab", "10.1.0.0/16"),
    ];
    let plan = plan_with("network", 32, 64, &named, KeySecret::draw());
    let share = |one: &str, other: &str| plan.of(&from(one)) == plan.of(&from(other));
    assert!(share("10.0.0.1", "10.200.3.4") && share("10.0.0.1", "2001:db8::1"));
    assert!(share("::ffff:10.0.0.1", "10.0.0.2"));
    assert!(!share("10.0.0.1", "10.1.0.1") && share("10.1.0.1", "10.1.9.9"));
    assert!(!share("192.0.2.1", "192.0.2.2") && share("2001:db9::1", "2001:db9::2"));
}

#[test]
fn a_shared_secret_makes_the_same_keys_everywhere_and_others_for_another_limit() {
    let secret = |name: &str| KeySecret::shared(b"0123456789abcdef0123456789abcdef", name);
    let key = |secret| {
        plan_with("ip+json:email", 32, 64, &[], secret).of(&here().json(r#"{"email":"a"}"#))
    };
    assert!(key(secret("login")) == key(secret("login")));
    assert!(key(secret("login")) != key(secret("mail")));
    assert!(key(secret("login")) != key(KeySecret::shared(b"another", "login")));
    assert!(key(KeySecret::draw()) != key(KeySecret::draw()));
    assert_eq!(format!("{:?}", secret("login")), "KeySecret(***)");
}

#[test]
fn a_shared_key_is_a_code_over_what_it_is_made_of() {
    use aws_lc_rs::hmac::{HMAC_SHA256, Key as Hmac, sign};
    let root = Hmac::new(HMAC_SHA256, b"secret");
    let derived = sign(&root, b"vestibule limit login");
    let code = sign(
        &Hmac::new(HMAC_SHA256, derived.as_ref()),
        &[1, 192, 0, 2, 1],
    );
    let plan = plan_with("ip", 32, 64, &[], KeySecret::shared(b"secret", "login"));
    let expected = u128::from_be_bytes(*code.as_ref().first_chunk().unwrap());
    assert!(plan.of(&here()) == Key(expected));
}

#[test]
fn parts_are_what_the_configuration_says() {
    assert!(plan("claim:org").key.needs_principal() && plan("principal").key.needs_principal());
    assert!(!plan("ip+json:email").key.needs_principal());
    let in_body: Vec<_> = plan("ip+json:email+form:x")
        .key
        .in_body()
        .cloned()
        .collect();
    let expected = [
        LimitKey::Json("email".to_owned()),
        LimitKey::Form("x".to_owned()),
    ];
    assert_eq!(in_body, expected);
}
