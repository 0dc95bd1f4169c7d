use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{Field, PeekPlan, Peeked};
use crate::config::{LimitKey, LimitKeys};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

fn parts(key: &str) -> Vec<LimitKey> {
    key.parse::<LimitKeys>().unwrap().0
}

fn plan(key: &str) -> PeekPlan {
    PeekPlan::of_parts(&parts(key)).unwrap()
}

/// What the first field of `key` holds in a body of this type.
fn read(key: &str, media: &str, query: Option<&str>, body: impl AsRef<[u8]>) -> String {
    let headers = headers(&[("content-type", media)]);
    told(&plan(key).read(&headers, query, body.as_ref()), key)
}

fn told(peeked: &Peeked, key: &str) -> String {
    match peeked.find(&parts(key)[0]) {
        Field::Text(text) => text.to_owned(),
        Field::Absent => "(absent)".to_owned(),
        Field::Opaque => "(opaque)".to_owned(),
        Field::Unreadable(why) => format!("({why})"),
    }
}

fn json(key: &str, body: &str, expected: &str) {
    assert_eq!(read(key, JSON, None, body), expected, "{key} in {body}");
}

fn form(key: &str, body: &str, expected: &str) {
    assert_eq!(read(key, FORM, None, body), expected, "{key} in {body}");
}

#[test]
fn a_field_is_found_wherever_it_stands() {
    json("json:email", r#"{"email":"a"}"#, "a");
    json(
        "json:email",
        r#" {"x":[{"email":"no"}],"y":{"email":"no"},"email" : "a" } "#,
        "a",
    );
    json("json:email", r#"{"email":"\u00e9\ud83d\ude00\n"}"#, "é😀\n");
    json(
        "json:checks.user.loginName",
        r#"{"checks":{"password":{},"user":{"loginName":"a"}}}"#,
        "a",
    );
    json(
        "json:checks.user.loginName",
        r#"{"checks":{"user":{"login_name":"a"}}}"#,
        "a",
    );
    json("json:a.b", r#"{"a.b":"no","a":{"b":"yes"}}"#, "yes");
    form("form:email", "email=a", "a");
    form("form:email", "&x=1&&email=a+b%2B%63&y", "a b+c");
    form("form:email", "email", "(absent)");
    form("form:client_id", "clientId=a", "a");
    // Go takes the long s for an s, and the Kelvin sign for a k.
    json(
        "json:checks.user",
        "{\"chec\u{212a}\u{17f}\":{\"u\u{17f}er\":\"a\"}}",
        "a",
    );
    form("form:user", "u%C5%BFer=a", "a");
}

#[test]
fn a_field_that_is_not_there_is_absent() {
    for body in [
        "{}",
        r#"{"x":"email"}"#,
        r#"{"mail":"a"}"#,
        r#"{"x":{"email":"a"}}"#,
    ] {
        json("json:email", body, "(absent)");
    }
    json("json:a.b", r#"{"a":{}}"#, "(absent)");
    form("form:email", "x=email&mail=a", "(absent)");
    json("json:email", "", "(absent)");
}

#[test]
fn a_field_that_occurs_twice_is_unreadable_in_every_spelling() {
    for body in [
        r#"{"email":"a","email":"a"}"#,
        r#"{"email":"a","\u0065mail":"b"}"#,
        r#"{"email":"a","Email":"b"}"#,
        r#"{"email":"a","\uff45mail":"b"}"#,
        r#"{"email":null,"email":"b"}"#,
        r#"{"e-mail":"a","email":{}}"#,
        r#"{"email":"a","email":"b","email":"c"}"#,
    ] {
        json("json:email", body, "(a field occurs twice)");
    }
    for body in [
        r#"{"checks":{"user":{"loginName":"a"}},"checks":{}}"#,
        r#"{"checks":{},"CHECKS":{"user":{"loginName":"a"}}}"#,
        r#"{"checks":{"user":{"loginName":"a"},"user":{}}}"#,
        r#"{"checks":{"user":{"loginName":"a","login_name":"b"}}}"#,
    ] {
        json("json:checks.user.loginName", body, "(a field occurs twice)");
    }
    for body in [
        "email=a&email=a",
        "email=a&EMAIL=b",
        "email=a&%65mail=b",
        "email&email",
    ] {
        form("form:email", body, "(a field occurs twice)");
    }
}

#[test]
fn a_field_of_another_type_is_unreadable() {
    for value in [
        "1",
        "-1.5",
        "true",
        "null",
        "[]",
        r#"["a"]"#,
        "{}",
        r#"{"email":"a"}"#,
    ] {
        let body = format!("{{\"email\":{value}}}");
        json("json:email", &body, "(a field of another type)");
    }
    for value in ["1", "\"a\"", "null", r#"[{"b":"a"}]"#] {
        json(
            "json:a.b",
            &format!("{{\"a\":{value}}}"),
            "(a field of another type)",
        );
    }
    for body in ["email[]=a", "email[0]=a", "email%5B%5D=a"] {
        form("form:email", body, "(a list of values)");
    }
}

#[test]
fn two_limits_of_one_route_may_want_different_depths() {
    let plan = plan("json:a+json:a.b+json:a.c.d+form:x");
    let headers = headers(&[("content-type", JSON)]);
    let peeked = plan.read(&headers, None, br#"{"a":{"b":"1","c":{"d":"2"}}}"#);
    assert_eq!(told(&peeked, "json:a"), "(a field of another type)");
    assert_eq!(told(&peeked, "json:a.b"), "1");
    assert_eq!(told(&peeked, "json:a.c.d"), "2");
    assert_eq!(told(&peeked, "form:x"), "(absent)");
}

#[test]
fn what_is_no_json_object_is_unreadable() {
    for body in [
        "nonsense",
        "[]",
        "\"email\"",
        "null",
        "{",
        r#"{"email":"a"}{"#,
        r#"{"email":"a"} {"email":"b"}"#,
        r#"{"email":"a",}"#,
        r#"{'email':'a'}"#,
        r#"{email:"a"}"#,
        r#"{"email":"\ud800"}"#,
        "{\"email\":\"a\nb\"}",
        "\u{feff}{\"email\":\"a\"}",
        "/**/{\"email\":\"a\"}",
    ] {
        json("json:email", body, "(no JSON object)");
    }
    let latin: &[u8] = b"{\"x\":\"\xe9\",\"email\":\"a\"}";
    assert_eq!(read("json:email", JSON, None, latin), "(no UTF-8)");
    assert_eq!(read("form:email", FORM, None, b"email=\xe9"), "(no UTF-8)");
    form("form:email", "email=%e9", "(no UTF-8)");
    let deep = format!(
        "{{\"x\":{}1{},\"email\":\"a\"}}",
        "[".repeat(8_000),
        "]".repeat(8_000)
    );
    assert!(["a", "(no JSON object)"].contains(&read("json:email", JSON, None, deep).as_str()));
}

#[test]
fn a_form_is_read_strictly() {
    for body in ["email=%", "email=%6", "email=a&x=%zz", "%+1=a"] {
        form("form:email", body, "(a stray percent sign)");
    }
    for body in [r#"{"email":"a"}"#, r#" ["email"]"#] {
        form("form:email", body, "(JSON in a form)");
    }
}

#[test]
fn a_field_in_the_query_is_no_way_out() {
    let twice = |query| read("form:email", FORM, Some(query), "email=a");
    assert_eq!(twice("x=1"), "a");
    for query in [
        "email=b",
        "x&EMAIL=b",
        "%65mail=b",
        "email[]=b",
        "email",
        "e%6dail=%",
    ] {
        assert_eq!(twice(query), "(a field in the query)", "{query}");
        assert_eq!(
            read("form:email", FORM, Some(query), "x=1"),
            "(a field in the query)",
            "{query}"
        );
    }
    let nested = read(
        "json:a.email",
        JSON,
        Some("a.email=b"),
        r#"{"a":{"email":"a"}}"#,
    );
    assert_eq!(nested, "a");
}

#[test]
fn the_head_tells_what_cannot_be_read() {
    let foresee = |fields: &[(&'static str, &str)]| {
        let foreseen = plan("json:email").foresee(&headers(fields));
        foreseen.map(|peeked| told(&peeked, "json:email"))
    };
    for fine in [
        JSON,
        "Application/JSON; charset=UTF-8",
        "application/json;charset=\"utf-8\"",
        "application/problem+json",
        "application/json; version=1",
    ] {
        assert_eq!(foresee(&[("content-type", fine)]), None, "{fine}");
    }
    for other in [
        "text/plain",
        "text/json",
        "application/jsonx",
        "application/json, text/plain",
        "multipart/form-data; boundary=x",
        FORM,
        "application/grpc+json",
        "application/grpc",
        "application/connect+json",
        "application/proto",
        "",
    ] {
        let why = foresee(&[("content-type", other)]);
        assert_eq!(why.as_deref(), Some("(another content type)"), "{other}");
    }
    for charset in [
        "application/json; charset=utf-16",
        "application/json; charset=",
        "application/json;a=b; Charset = latin1",
    ] {
        let why = foresee(&[("content-type", charset)]);
        assert_eq!(
            why.as_deref(),
            Some("(another charset than UTF-8)"),
            "{charset}"
        );
    }
    let two = foresee(&[("content-type", JSON), ("content-type", JSON)]);
    assert_eq!(two.as_deref(), Some("(no content type, or two)"));
    assert_eq!(foresee(&[]).as_deref(), Some("(no content type, or two)"));
    for coding in ["gzip", "identity, br", "x"] {
        let why = foresee(&[("content-type", JSON), ("content-encoding", coding)]);
        assert_eq!(why.as_deref(), Some("(a compressed body)"), "{coding}");
    }
    assert_eq!(
        foresee(&[("content-type", JSON), ("content-encoding", "identity")]),
        None
    );
}

#[test]
fn messages_are_opaque_on_a_route_of_services_only() {
    let headers = |media| headers(&[("content-type", media)]);
    let grpc = PeekPlan {
        grpc: true,
        ..plan("json:email")
    };
    for media in [
        "application/grpc",
        "application/grpc+json",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/connect+json",
        "application/proto",
    ] {
        let foreseen = grpc.foresee(&headers(media)).unwrap();
        assert_eq!(told(&foreseen, "json:email"), "(opaque)", "{media}");
    }
    assert!(grpc.foresee(&headers(JSON)).is_none());
    let text = grpc.foresee(&headers("text/plain")).unwrap();
    assert_eq!(told(&text, "json:email"), "(another content type)");
}

#[test]
fn a_route_that_wants_json_and_forms_reads_either() {
    let plan = plan("json:email+form:email");
    for (media, body) in [(JSON, r#"{"email":"a"}"#), (FORM, "email=a")] {
        let peeked = plan.read(&headers(&[("content-type", media)]), None, body.as_bytes());
        let found = [told(&peeked, "json:email"), told(&peeked, "form:email")];
        let expected = if media == JSON {
            ["a", "(absent)"]
        } else {
            ["(absent)", "a"]
        };
        assert_eq!(found, expected);
    }
}

/// What fuzzers of such readers found elsewhere, and what two readers disagree about.
const CORPUS: &[&str] = &[
    "",
    "{}",
    "{\"",
    "{\"email\":",
    "{\"email\":\"",
    "{\"email\":\"\\",
    "{\"email\":\"\\u",
    "{\"email\":\"\\uD83D\"}",
    "{\"email\":\"\\uD83D\\u0041\"}",
    "{\"email\":1e999}",
    "{\"email\":-}",
    "{\"email\":[[[[[[",
    "{\"checks\":{\"user\":{\"loginName\":{\"loginName\":\"a\"}}}}",
    "{\"\":\"\"}",
    "{\"\\u0000\":\"\\u0000\",\"email\":\"\\u0000\"}",
    "{\"email\":\"a\"}\u{0}",
    "email=%00&email=%",
    "=&=&==&email==",
    "email=a;email=b",
    "email[=a&email]=b",
    "%",
    "+",
    "&&&&",
];

fn keys() -> [&'static str; 4] {
    [
        "json:email",
        "json:checks.user.loginName",
        "form:email",
        "json:a+form:a",
    ]
}

fn read_every_way(body: &[u8], query: &str) {
    for key in keys() {
        for media in [JSON, FORM] {
            let found = read(key, media, Some(query), body);
            assert!(found.len() <= body.len().max(64), "nothing is made up");
        }
    }
}

#[test]
fn the_corpus_does_no_harm() {
    for body in CORPUS {
        for query in CORPUS {
            read_every_way(body.as_bytes(), query);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(body in proptest::collection::vec(any::<u8>(), 0..200), query in "\\PC{0,40}") {
        read_every_way(&body, &query);
    }

    #[test]
    fn nothing_that_looks_like_json_makes_the_reader_panic(body in "[\\[\\]{}\":,0-9a\\\\u. -]{0,60}") {
        read_every_way(body.as_bytes(), "");
    }

    #[test]
    fn nothing_that_looks_like_a_form_makes_the_reader_panic(body in "[&=%+0-9a-f\\[\\]email]{0,60}") {
        read_every_way(body.as_bytes(), &body);
    }

    #[test]
    fn a_tree_says_the_same(value in "\\PC{0,20}", other in "\\PC{0,20}", name in "[a-z]{0,6}") {
        prop_assume!(name != "email" && !name.is_empty());
        let tree = serde_json::json!({ name: other, "email": value, "z": { "email": other } });
        prop_assert_eq!(read("json:email", JSON, None, tree.to_string()), blank(&value));
    }

    #[test]
    fn a_form_is_taken_apart_as_it_was_put_together(value in "\\PC{0,20}", other in "\\PC{0,20}") {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let body = format!("z={}&email={}", encode(&other), encode(&value));
        prop_assert_eq!(read("form:email", FORM, None, body), blank(&value));
    }
}

fn blank(value: &str) -> String {
    if value.trim().is_empty() {
        "(absent)".to_owned()
    } else {
        value.to_owned()
    }
}
