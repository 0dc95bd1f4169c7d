//! What may be written in a route, and what is said about the rest.

use super::*;

/// Compiles a route with these further lines, and returns what is wrong with it.
fn problems(lines: &str) -> Vec<String> {
    let text = format!("auth = \"none\"\nupstream = \"api\"\n{lines}");
    let route: config::Route = toml::from_str(&text).unwrap();
    let mut problems = Problems::default();
    let plan = Plan::compile(
        &route,
        &KeyPath::root().key("route").index(0),
        &mut problems,
    );
    let errors: Vec<_> = problems
        .into_errors()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(plan.is_some(), errors.is_empty(), "{lines}: {errors:?}");
    errors
}

fn check(lines: &str, expected: &str) {
    match problems(lines).as_slice() {
        [] => assert_eq!(expected, "", "{lines}"),
        [error] => assert!(
            !expected.is_empty() && error.contains(expected),
            "{lines}: {error}"
        ),
        many => panic!("{lines}: {many:?}"),
    }
}

#[test]
fn a_route_without_a_word_about_it_has_a_plan() {
    check("", "");
}

#[test]
fn a_source_word_must_be_known() {
    check(
        r#"identity_headers = { x-id = "user", x-t = "claim:a.b" }"#,
        "",
    );
    check(
        r#"identity_headers = { x-id = "usr" }"#,
        "route[0].identity_headers.x-id: `usr` is no source of an identity header (did you mean `user`?)",
    );
    check(
        r#"identity_headers = { x-id = "subject" }"#,
        "known are user, org, roles, email, method and claim:PATH",
    );
    check(r#"identity_headers = { x-id = "claim:" }"#, "no source");
}

#[test]
fn an_identity_header_must_not_have_another_meaning() {
    for name in [
        "authorization",
        "Cookie",
        "host",
        "connection",
        "content-type",
        "x-forwarded-for",
        "x-real-ip",
        "x-request-id",
        "origin",
        "te",
    ] {
        check(
            &format!("identity_headers = {{ {name} = \"user\" }}"),
            "cannot be an identity header",
        );
    }
    check(r#"identity_headers = { x_id = "user" }"#, "write `x-id`");
    check(
        r#"identity_headers = { "x id" = "user" }"#,
        "is no header name",
    );
    for name in [
        "x-forwarded-user",
        "x-tenant-id",
        "remote-user",
        "x-user-id",
    ] {
        check(&format!("identity_headers = {{ {name} = \"user\" }}"), "");
    }
}

#[test]
fn edits_leave_framing_and_identity_alone() {
    for name in [
        "Host",
        "content-length",
        "transfer-encoding",
        "connection",
        "te",
        "x-auth-user",
        "x-user-id",
        "x-vestibule-a",
        "remote-user",
    ] {
        check(
            &format!("headers.request.remove = [\"{name}\"]"),
            "cannot be edited",
        );
        check(
            &format!("headers.request.set = {{ {name} = \"a\" }}"),
            "cannot be edited",
        );
        check(
            &format!("headers.request.default = {{ {name} = \"a\" }}"),
            "cannot be edited",
        );
    }
    check(
        "identity_headers = { who = \"user\" }\nheaders.request.set = { Who = \"me\" }",
        "route[0].headers.request.set.Who: `who` cannot be edited",
    );
    check(
        r#"headers.response.set = { content-length = "1" }"#,
        "cannot be edited",
    );
    check(
        r#"headers.response.remove = ["connection"]"#,
        "cannot be edited",
    );
    check(
        r#"headers.response.remove = ["host", "server", "x-user-id"]"#,
        "",
    );
}

#[test]
fn edits_need_names_and_values_that_can_be_sent() {
    check(
        r#"headers.request.remove = ["a", "b c"]"#,
        "route[0].headers.request.remove[1]: `b c` is no header name",
    );
    check(
        r#"headers.request.set = { a = "x\r\ny" }"#,
        "control character",
    );
    check(
        r#"headers.response.set = { a = " x" }"#,
        "space at its start",
    );
    check(r#"headers.response.default = { a = "" }"#, "");
}

#[test]
fn a_header_is_named_once_whatever_its_case() {
    check(
        r#"headers.request.set = { X-A = "1", x-a = "2" }"#,
        "route[0].headers.request.set: `x-a` is named twice",
    );
    check(
        r#"identity_headers = { X-A = "user", x-a = "org" }"#,
        "route[0].identity_headers: `x-a` is named twice",
    );
}

#[test]
fn every_mistake_is_told_at_once() {
    let found = problems(
        "strip_prefix = \"pub\"\nrewrite = { from = \"(\", to = \"/\" }\n\
         headers.request.set = { host = \"a\\u0000\" }\nheaders.response.remove = [\"\"]\n\
         identity_headers = { a = \"b\" }",
    );
    assert_eq!(found.len(), 6, "{found:#?}");
}

#[test]
fn a_credential_in_an_edit_does_not_show_in_debug() {
    let text = "auth = \"none\"\nheaders.request.set = { authorization = \"Basic c2VjcmV0\" }";
    let route = toml::from_str(text).unwrap();
    let plan = Plan::compile(&route, &KeyPath::root(), &mut Problems::default()).unwrap();
    assert!(!format!("{plan:?}").contains("c2VjcmV0"));
}

#[test]
fn a_prefix_is_canonical() {
    for prefix in ["/pub", "/a/b", "/a-b_c~d", "/%C3%BC", "/a%20b"] {
        check(&format!("strip_prefix = \"{prefix}\""), "");
    }
    for prefix in [
        "pub", "", "/", "/pub/", "//pub", "/a//b", "/a/../b", "/./a", "/pub/*", "/a?b", "/a#b",
        "/a b", "/ü", "/%c3", "/%41", "/%2F", "/%25", "/%2", "/%", "/a\\\\b",
    ] {
        check(&format!("strip_prefix = \"{prefix}\""), "is no prefix");
    }
}

#[test]
fn a_rewrite_names_groups_that_exist() {
    let rewrite = |from: &str, to: &str| format!("rewrite = {{ from = '{from}', to = '{to}' }}");
    check(&rewrite("^/r/(.*)$", "/$1"), "");
    check(&rewrite("^/(?P<a>x)", "/$a/${a}/$0/$$9"), "");
    check(&rewrite("^/r/(.*)$", "/$2"), "no group `2`");
    check(&rewrite("^/r/(.*)$", "/$1x"), "no group `1x`");
    check(&rewrite("^/r/(.*)$", "/${1}x"), "");
    check(
        &rewrite("^/r/(.*)$", "/$1?a=b"),
        "rewrite.to: it holds a character",
    );
    check(&rewrite("^/r/(.*)$", "/a b"), "it holds a character");
    check(
        &rewrite("(", "/"),
        "rewrite.from: the regex does not compile",
    );
    check(
        &rewrite("(a{1000}){1000}", "/"),
        "the regex does not compile",
    );
}
