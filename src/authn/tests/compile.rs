use std::sync::Arc;

use serde_json::json;

use super::support::{
    KEYS, NOW, at, authn, authorities, compile, file, file_issuer, good_token, identify, key_set,
};
use crate::authn::{Authn, Authorities};
use crate::config::{Auth, KeyPath, Problems, Route};
use crate::types::Reason;

fn problems(toml: &str) -> String {
    compile(toml, None).1.join("\n")
}

/// An issuer with these lines besides a URL and an audience.
fn issuer(lines: &str) -> String {
    format!("[issuer.main]\nurl = \"https://a.example\"\naudiences = [\"x\"]\n{lines}\n")
}

#[test]
fn an_issuer_by_discovery_starts_without_keys_and_not_ready() {
    let authorities = authorities(&issuer(""));
    let main = &authorities.issuers["main"];
    assert!(!main.is_ready());
    assert_eq!(
        (main.age(), main.fetches_ok(), main.fetches_failed()),
        (None, 0, 0)
    );
}

#[test]
fn an_issuer_with_a_file_is_ready_at_once() {
    assert!(authorities(&file_issuer(&key_set(), "")).issuers["main"].is_ready());
}

#[test]
fn keys_come_over_https_from_loopback_or_from_where_the_operator_says() {
    for url in [
        "https://a.example",
        "http://127.0.0.1:1",
        "http://localhost:1/x/",
        "http://[::1]:1",
    ] {
        assert_eq!(
            problems(&issuer("").replace("https://a.example", url)),
            "",
            "{url}"
        );
        assert_eq!(
            problems(&issuer(&format!("jwks_url = \"{url}\""))),
            "",
            "{url}"
        );
    }
    for url in ["http://a.example", "http://10.0.0.1:8080"] {
        let lines = issuer(&format!("jwks_url = \"{url}\""));
        assert!(problems(&lines).contains("issuer.main.jwks_url"), "{url}");
        let lines = issuer("").replace("https://a.example", url);
        assert!(problems(&lines).contains("issuer.main.url"), "{url}");
        assert_eq!(
            problems(&format!("{lines}connect = \"http://zitadel:8080\"")),
            "",
            "{url}"
        );
    }
    let word = issuer("").replace("https://a.example", "IdentSphere");
    assert!(problems(&word).contains("`jwks_url`, `jwks_file` and `secret`"));
    for odd in [
        "ftp://a.example",
        "https://u@a.example",
        "https://",
        "/jwks",
    ] {
        assert!(
            problems(&issuer(&format!("jwks_url = \"{odd}\""))).contains("jwks_url"),
            "{odd}"
        );
    }
}

#[test]
fn a_secret_is_long_enough_for_every_algorithm_it_is_for() {
    let with = |bytes: usize, algorithm: &str| {
        let secret = file("s".repeat(bytes));
        problems(&issuer(&format!(
            "algorithms = [\"{algorithm}\"]\nsecret = {{ file = \"{secret}\" }}"
        )))
    };
    for (algorithm, least) in [("HS256", 32), ("HS384", 48), ("HS512", 64)] {
        assert_eq!(with(least, algorithm), "");
        let short = with(least - 1, algorithm);
        assert!(
            short.contains("issuer.main.secret") && short.contains(&least.to_string()),
            "{short}"
        );
    }
    let missing = issuer("algorithms = [\"HS256\"]\nsecret = { file = \"/nonexistent/secret\" }");
    assert!(problems(&missing).contains("cannot read"));
    let unset = issuer("algorithms = [\"HS256\"]\nsecret = { env = \"VESTIBULE_TEST_UNSET\" }");
    assert!(problems(&unset).contains("VESTIBULE_TEST_UNSET"));
}

#[test]
fn algorithm_families_never_mix() {
    let secret = file("s".repeat(64));
    let mixed = format!("algorithms = [\"HS256\", \"RS256\"]\nsecret = {{ file = \"{secret}\" }}");
    assert!(problems(&issuer(&mixed)).contains("issuer.main.algorithms"));
    assert!(problems(&issuer("algorithms = [\"HS256\"]")).contains("issuer.main.algorithms"));
    assert!(problems(&issuer("algorithms = []")).contains("issuer.main.algorithms"));
}

#[test]
fn what_contradicts_itself_is_a_problem() {
    for (lines, word) in [
        (
            "jwks_url = \"https://a.example\"\njwks_file = \"/x\"",
            "exclude each other",
        ),
        ("previous_secret = { env = \"X\" }", "previous_secret"),
        ("leeway = \"11m\"", "leeway"),
        ("token_cache = \"1KiB\"", "token_cache"),
        ("refresh = \"0s\"", "refresh"),
        ("refresh = \"99999999d\"", "refresh"),
        ("connect = \"zitadel:8080\"", "connect"),
        ("jwks_file = \"/nonexistent/keys\"", "cannot read"),
    ] {
        assert!(problems(&issuer(lines)).contains(word), "{lines}");
    }
    let no_audience = issuer("").replace("[\"x\"]", "[]");
    assert!(problems(&no_audience).contains("issuer.main.audiences"));
    let weak = file(json!({ "keys": [{ "kty": "oct", "k": "AA" }] }).to_string());
    assert!(problems(&issuer(&format!("jwks_file = \"{weak}\""))).contains("shared secret"));
}

#[test]
fn sessions_name_a_cookie_and_one_who_vouches() {
    let session = |lines: &str| format!("{}\n[session.web]\n{lines}\n", issuer(""));
    for (lines, word) in [
        ("cookie = \"a b\"\nissuer = \"main\"", "session.web.cookie"),
        ("cookie = \"\"\nissuer = \"main\"", "session.web.cookie"),
        ("cookie = \"at\"", "exactly one"),
        ("cookie = \"at\"\nissuer = \"mian\"", "did you mean `main`"),
        (
            "cookie = \"at\"\nprobe = { upstream = \"nowhere\", path = \"/\" }",
            "session.web.probe.upstream",
        ),
        (
            "cookie = \"at\"\nprobe = { upstream = \"api\", path = \"x\" }",
            "session.web.probe.path",
        ),
        (
            "cookie = \"at\"\ncache = \"2h\"\nprobe = { upstream = \"api\", path = \"/\" }",
            "session.web.cache",
        ),
    ] {
        let found = problems(&session(lines));
        assert!(found.contains(word), "{lines}: {found}");
    }
    let fine =
        session("cookie = \"at\"\nprobe = { upstream = \"api\", path = \"/v1/auth/session?x=1\" }");
    assert_eq!(problems(&fine), "");
    let same = format!(
        "{}\n[session.main]\ncookie = \"at\"\nissuer = \"main\"\n",
        issuer("")
    );
    assert!(problems(&same).contains("session.main"));
}

#[test]
fn a_reload_keeps_what_did_not_change() {
    let web = "[session.web]\ncookie = \"at\"\nissuer = \"main\"\n";
    let toml = format!("{}\n{web}", file_issuer(&key_set(), ""));
    let first = authorities(&toml);
    let (second, _) = compile(&toml, Some(&first));
    assert!(Arc::ptr_eq(&first.issuers["main"], &second.issuers["main"]));
    assert!(Arc::ptr_eq(&first.sessions["web"], &second.sessions["web"]));

    let (third, _) = compile(
        &format!("{}\n{web}", file_issuer(&key_set(), "leeway = \"1s\"")),
        Some(&first),
    );
    assert!(!Arc::ptr_eq(&first.issuers["main"], &third.issuers["main"]));
    assert!(
        !Arc::ptr_eq(&first.sessions["web"], &third.sessions["web"]),
        "its issuer changed"
    );
}

#[tokio::test]
async fn a_reload_with_other_keys_in_the_same_file_forgets_the_old_ones() {
    let toml = file_issuer(&key_set(), "");
    let name = toml
        .split("jwks_file = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let first = authorities(&toml);
    let bearer = format!("Bearer {}", good_token());
    let route = authn("{ any = [\"main\"] }", &first);
    assert!(
        identify(&route, "authorization", &bearer, at(NOW))
            .await
            .is_ok()
    );

    std::fs::write(
        name,
        json!({ "keys": [KEYS["rsa"].jwk("rsa")] }).to_string(),
    )
    .unwrap();
    let (second, problems) = compile(&toml, Some(&first));
    assert_eq!(problems, Vec::<String>::new());
    let route = authn("{ any = [\"main\"] }", &second);
    let verdict = identify(&route, "authorization", &bearer, at(NOW)).await;
    assert_eq!(verdict.map(drop), Err(Reason::TokenKey));
}

fn route_problem(auth: &str, authorities: &Authorities) -> String {
    let route: Route = toml::from_str(&format!("auth = {auth}")).unwrap();
    let mut problems = Problems::default();
    let compiled = Authn::compile(
        &route.auth,
        &KeyPath::root().key("auth"),
        authorities,
        &mut problems,
    );
    assert!(compiled.is_none() && matches!(route.auth, Auth::Rules(_)));
    let errors: Vec<_> = problems
        .into_errors()
        .iter()
        .map(ToString::to_string)
        .collect();
    errors.join("\n")
}

#[test]
fn a_route_names_who_exists_and_can_be_told_apart() {
    let web = "cookie = \"at\"\nissuer = \"main\"\n";
    let authorities = authorities(&format!(
        "{}\n{}\n[session.web]\n{web}[session.app]\n{web}",
        issuer(""),
        issuer("").replace("issuer.main", "issuer.twin"),
    ));
    for (auth, word) in [
        ("{ any = [] }", "nobody could pass"),
        ("{ any = [\"mian\"] }", "did you mean `main`"),
        ("{ any = [\"main\", \"main\"] }", "auth.any[1]"),
        ("{ any = [\"main\", \"twin\"] }", "auth.any[1]"),
        ("{ any = [\"web\", \"app\"] }", "auth.any[1]"),
    ] {
        let problem = route_problem(auth, &authorities);
        assert!(problem.contains(word), "{auth}: {problem}");
    }
}

#[test]
fn a_name_that_did_not_compile_is_complained_about_once() {
    let (broken, problems) = compile(
        &issuer("algorithms = []\njwks_file = \"/nonexistent\""),
        None,
    );
    assert!(!problems.is_empty());
    assert_eq!(route_problem("{ any = [\"main\"] }", &broken), "");
}
