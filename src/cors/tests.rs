//! Origins in, headers out.

use http_body::Body as _;

use super::*;
use crate::config::{KeyPath, Problems, Route};

fn compile(cors: &str) -> Result<Cors, Vec<String>> {
    compile_with("", cors)
}

fn compile_with(route: &str, cors: &str) -> Result<Cors, Vec<String>> {
    let route: Route = toml::from_str(&format!("auth = 'none'\n{route}\n[cors]\n{cors}")).unwrap();
    let mut problems = Problems::default();
    let path = KeyPath::root().key("cors");
    let found = Cors::compile(route.cors.as_ref().unwrap(), &route, &path, &mut problems);
    let errors: Vec<_> = problems
        .into_errors()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found.is_none(), !errors.is_empty(), "{cors}");
    found.ok_or(errors)
}

fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

/// name: value, sorted, values of one name in their order.
fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

fn preflight(cors: &str, origin: &'static str) -> Result<Vec<String>, Reason> {
    let asked = map(&[
        ("origin", origin),
        ("access-control-request-method", "POST"),
    ]);
    match compile(cors).unwrap().preflight(&asked) {
        Ok(response) => {
            assert_eq!(response.status(), 204);
            assert!(response.body().is_end_stream());
            Ok(lines(response.headers()))
        }
        Err(why) => Err(why.reason()),
    }
}

fn dressed(
    cors: &str,
    origin: Option<&'static str>,
    backend: &[(&'static str, &'static str)],
) -> Vec<String> {
    let mut headers = map(backend);
    let origin = origin.map(HeaderValue::from_static);
    compile(cors).unwrap().dress(origin.as_ref(), &mut headers);
    lines(&headers)
}

const ONE: &str = "origins = ['https://app.example.com']\nexpose = ['x-a']";

#[test]
fn only_options_with_both_headers_is_a_preflight() {
    let both = [
        ("origin", "https://a"),
        ("access-control-request-method", "PUT"),
    ];
    assert_eq!(
        preflight_method(&Method::OPTIONS, &map(&both)),
        Some(Method::PUT)
    );
    assert_eq!(preflight_method(&Method::GET, &map(&both)), None);
    assert_eq!(preflight_method(&Method::OPTIONS, &map(&both[..1])), None);
    assert_eq!(preflight_method(&Method::OPTIONS, &map(&both[1..])), None);
    let odd = [
        ("origin", "https://a"),
        ("access-control-request-method", "P T"),
    ];
    assert_eq!(preflight_method(&Method::OPTIONS, &map(&odd)), None);
}

#[test]
fn a_preflight_of_an_allowed_origin_is_answered_in_full() {
    let cors = "origins = ['https://App.example.com:443']\ncredentials = true\nmethods = ['PUT', 'PURGE']\nheaders = ['X-A', 'x-b']\nmax_age = '5m'";
    assert_eq!(
        preflight(cors, "https://app.example.com").unwrap(),
        [
            "access-control-allow-credentials: true",
            "access-control-allow-headers: x-a, x-b",
            "access-control-allow-methods: PUT, PURGE",
            "access-control-allow-origin: https://app.example.com",
            "access-control-max-age: 300",
            "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ]
    );
}

#[test]
fn defaults_serve_grpc_web_connect_and_json() {
    let answer = preflight("origins = ['*']", "https://anyone.example").unwrap();
    assert_eq!(
        answer,
        [
            "access-control-allow-headers: content-type, authorization, x-grpc-web, x-user-agent, grpc-timeout, connect-protocol-version, connect-timeout-ms, x-csrf-token, x-requested-with, accept-language, x-zitadel-orgid",
            "access-control-allow-methods: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            "access-control-allow-origin: *",
            "access-control-max-age: 600",
            "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ]
    );
    let response = dressed("origins = ['*']", Some("https://anyone.example"), &[]);
    assert!(response.contains(
        &"access-control-expose-headers: grpc-status, grpc-message, grpc-status-details-bin, x-request-id".to_owned()
    ));
}

#[test]
fn the_methods_of_the_route_are_the_default() {
    let cors = compile_with("methods = ['GET', 'PURGE']", "origins = ['*']").unwrap();
    assert_eq!(cors.methods, "GET, PURGE");
}

#[test]
fn origins_are_compared_whole() {
    for origin in [
        "https://app.example.com.evil.example",
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com:444",
        "https://xapp.example.com",
        "https://app.example.com/",
        "null",
        "",
        "*",
        "https://app.example.com, https://evil.example",
    ] {
        assert_eq!(preflight(ONE, origin), Err(Reason::CorsRefused), "{origin}");
        assert_eq!(
            dressed(ONE, Some(origin), &[]),
            ["vary: Origin"],
            "{origin}"
        );
    }
    assert!(preflight(ONE, "https://app.example.com").is_ok());
}

#[test]
fn two_origins_are_none() {
    let asked = map(&[
        ("origin", "https://app.example.com"),
        ("origin", "https://evil.example"),
    ]);
    let refused = compile(ONE).unwrap().preflight(&asked).unwrap_err();
    assert_eq!(refused.reason(), Reason::CorsRefused);
}

#[test]
fn null_is_allowed_only_where_it_is_listed() {
    assert!(preflight("origins = ['null']", "null").is_ok());
    assert_eq!(preflight(ONE, "null"), Err(Reason::CorsRefused));
}

#[test]
fn what_the_backend_says_is_replaced() {
    let backend = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-origin", "https://evil.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "set-cookie"),
        ("access-control-allow-private-network", "true"),
        ("access-control-of-tomorrow", "x"),
        ("content-type", "text/plain"),
    ];
    let own = [
        "access-control-allow-origin: https://app.example.com",
        "access-control-expose-headers: x-a",
        "content-type: text/plain",
        "vary: Origin",
    ];
    assert_eq!(dressed(ONE, Some("https://app.example.com"), &backend), own);
    assert_eq!(
        dressed(ONE, Some("https://evil.example"), &backend),
        own[2..]
    );
    assert_eq!(dressed(ONE, None, &backend), own[2..]);
}

#[test]
fn vary_is_added_once() {
    assert_eq!(
        dressed(ONE, None, &[("vary", "Accept-Encoding")]),
        ["vary: Accept-Encoding", "vary: Origin"]
    );
    for present in ["origin", "Accept, Origin", "Origin , Accept", "*"] {
        assert_eq!(
            dressed(ONE, None, &[("vary", present)]),
            [format!("vary: {present}")]
        );
    }
}

fn refuse(cors: &str, expected: &str) {
    let errors = compile(cors).map(|_| ()).unwrap_err();
    assert!(
        errors.iter().any(|error| error.contains(expected)),
        "{cors}: {errors:?}"
    );
}

#[test]
fn dangerous_and_meaningless_rules_are_refused() {
    refuse(
        "origins = ['*']\ncredentials = true",
        "cors.origins: `*` together with `credentials`",
    );
    refuse("origins = []", "cors.origins: no origin");
    refuse(
        "origins = ['*', 'https://a']",
        "cors.origins: `*` stands alone",
    );
    refuse(
        "origins = ['https://a', 'https://b/']",
        "cors.origins[1]: `https://b/` is no origin",
    );
    refuse("origins = ['https://*.a']", "at least two labels");
    refuse("origins = ['https://a.*.b']", "one label");
    refuse(
        "origins = ['https://*.a.b']\ncredentials = true",
        "lets every host below act",
    );
    refuse(
        "origins = ['null']\ncredentials = true",
        "every sandboxed frame has it",
    );
    refuse(
        "origins = ['https://a']\ncredentials = true\nheaders = ['*']",
        "cors.headers[0]: browsers do not take `*`",
    );
    refuse(
        "origins = ['https://a']\nheaders = ['a b']",
        "cors.headers[0]: `a b`",
    );
    refuse(
        "origins = ['https://a']\nmethods = ['TRACE']",
        "cors.methods[0]",
    );
    refuse("origins = ['https://a']\nexpose = ['é']", "cors.expose[0]");
    assert!(compile("origins = ['*']\nheaders = ['*']").is_ok());
}
