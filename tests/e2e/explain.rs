//! Why was this refused? `vestibule explain`, and the decision id from the client's answer to the operator's.

use serde_json::{Value, json};

use crate::support::binary::{run, vestibule, with_file};
use crate::support::client::{self, Told, Via, get, refused};
use crate::support::gateway::{Builder, conf};
use crate::support::issuer::{self, Fault, Issuer};
use crate::support::origin::{self, Origin, Reply};
use crate::support::pki;

const ROUTES: &str = r#"
    [[route]]
    name = "orders"
    path = "/orders"
    auth = { any = ["main"], scopes = ["orders:read"] }
    upstream = "api"
"#;

fn configured(issuer: &Issuer, origin: &Origin) -> Builder {
    conf(ROUTES).issuer(issuer).upstream("api", origin)
}

/// Exit code and output of `vestibule explain` with this configuration.
async fn explain(conf: &Builder, arguments: &[&str]) -> (Option<i32>, String) {
    let (text, arguments) = (conf.text(), arguments.join("\n"));
    // The issuer serves on this thread's runtime, so the command runs on another.
    let output = tokio::task::spawn_blocking(move || {
        with_file(&text, |path| {
            let mut all = vec!["explain", "-c", path];
            all.extend(arguments.lines());
            vestibule(&all)
        })
    });
    let output = output.await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_request_is_walked_through_every_stage_with_live_keys() {
    let (issuer, origin) = (issuer::run().await, origin::http().run().await);
    let conf = configured(&issuer, &origin);
    let good = issuer.token().claim("scope", "orders:read").sign();
    let poor = issuer.token().claim("scope", "orders").sign();
    let old = issuer.token().expired().sign();
    let forged = issuer
        .token()
        .signed_by(&issuer.key(jsonwebtoken::Algorithm::ES256).impostor())
        .sign();
    let url = "http://localhost/orders";
    for (token, code, told) in [
        (
            &good,
            0,
            &[
                "form: alg ES256",
                "issuer: `main`",
                "key and signature: good",
                "x-auth-user",
                "to `api`",
            ][..],
        ),
        (
            &poor,
            1,
            &["key and signature: good", "REFUSED 403 insufficient_scope"],
        ),
        (&old, 1, &["REFUSED 401 token_expired"]),
        (&forged, 1, &["REFUSED 401 token_signature"]),
    ] {
        let (exit, text) = explain(&conf, &["GET", url, "--token", token]).await;
        assert_eq!(exit, Some(code), "{text}");
        for told in told {
            assert!(text.contains(told), "{told}\n{text}");
        }
        assert!(
            !text.contains(token.as_str()),
            "the token is not printed:\n{text}"
        );
    }
    let (exit, text) = explain(&conf, &["GET", url]).await;
    assert_eq!(exit, Some(1));
    assert!(text.contains("REFUSED 401 credential_missing"), "{text}");
    let (_, text) = explain(&conf, &["GET", "http://localhost/a%2fb"]).await;
    assert!(text.contains("REFUSED"), "{text}");
    assert!(origin.saw_nothing(), "nothing is forwarded");
}

#[tokio::test]
async fn every_demand_of_a_route_is_told_and_what_becomes_of_bodies_and_streams() {
    let (issuer, origin) = (issuer::run().await, origin::http().run().await);
    let conf = conf(
        r#"
        [[route]]
        path = "/orders"
        auth = { any = ["main"], roles = ["writer", "admin"], claims = { tenant = "acme" }, when = 'claims.aal >= 2' }
        from = ["10.0.0.0/8"]
        revokes = { any = ["main"] }
        buffer = "64KiB"
        compress = ["application/json"]
        upstream = "api"
        "#,
    )
    .issuer(&issuer)
    .upstream("api", &origin);
    let token = || {
        let token = issuer.token().claim("roles", json!(["writer"]));
        token.claim("tenant", "acme").claim("aal", 2)
    };
    let walk = async |client: &str, token: String| {
        let url = "http://localhost/orders";
        let asked = ["GET", url, "--client", client, "--token", &token];
        explain(&conf, &asked).await
    };
    let held = [
        "network: met",
        "one role of [writer admin]: met",
        "claim `tenant` with [acme]: met",
        "`when`: met",
        "every demand is met",
    ];
    let (exit, text) = walk("10.1.2.3", token().sign()).await;
    assert_eq!(exit, Some(0), "{text}");
    let rest = [
        "a good answer ends what the caller shows",
        "up to 65536 bytes is taken in",
        "answers of the listed media types",
        "end with the credential",
    ];
    for told in held.iter().chain(&rest) {
        assert!(text.contains(told), "{told}\n{text}");
    }
    for (client, token, met, refusal) in [
        ("11.1.2.3", token(), 0, "REFUSED 403 network_forbidden"),
        (
            "10.1.2.3",
            token().claim("roles", json!([])),
            1,
            "none of the route's roles",
        ),
        (
            "10.1.2.3",
            token().without("tenant"),
            2,
            "has none of the route's values",
        ),
        (
            "10.1.2.3",
            token().claim("aal", 1),
            3,
            "`when` does not hold",
        ),
    ] {
        let (exit, text) = walk(client, token.sign()).await;
        assert_eq!(exit, Some(1), "{text}");
        assert!(text.contains(refusal), "{refusal}\n{text}");
        for (position, told) in held.iter().enumerate() {
            assert_eq!(text.contains(told), position < met, "{told}\n{text}");
        }
    }
}

#[tokio::test]
async fn pages_of_strangers_and_several_credentials_are_explained_too() {
    let backend = backend().await;
    let issuer = issuer::run().await;
    let conf = conf(
        r#"
        [[route]]
        path = "/me"
        auth = { any = ["browser"] }
        upstream = "api"
        [[route]]
        path = "/both"
        auth = { all = ["main", "browser"] }
        upstream = "api"
        [session.browser]
        cookie = "sid"
        probe = { upstream = "api", path = "/session" }
        "#,
    )
    .issuer(&issuer)
    .upstream("api", &backend);
    let cookie = "cookie: sid=good";
    let evil = "origin: https://evil.example";
    let post = ["POST", "http://localhost/me", "--live", "-H", cookie];
    let (exit, text) = explain(&conf, &post).await;
    assert_eq!(exit, Some(0), "{text}");
    assert!(text.contains("no page of another origin"), "{text}");
    assert!(text.contains("asked about every 30 s meanwhile"), "{text}");
    let (exit, text) = explain(&conf, &[&post[..], &["-H", evil]].concat()).await;
    assert_eq!(exit, Some(1), "{text}");
    assert!(text.contains("REFUSED 403 csrf_refused"), "{text}");

    let token = issuer.token().sign();
    let both = ["GET", "http://localhost/both", "--live", "-H", cookie];
    let (exit, text) = explain(&conf, &both).await;
    assert_eq!(exit, Some(1), "{text}");
    assert!(text.contains("REFUSED 401 credential_missing"), "{text}");
    let (exit, text) = explain(&conf, &[&both[..], &["--token", &token]].concat()).await;
    assert_eq!(exit, Some(0), "{text}");
    for told in [
        "bytes and the cookie `sid`",
        "key and signature: good",
        "the backend of `browser` says: user alice",
    ] {
        assert!(text.contains(told), "{told}\n{text}");
    }
    let other = issuer.token().claim("sub", "bob").sign();
    let (exit, text) = explain(&conf, &[&both[..], &["--token", &other]].concat()).await;
    assert_eq!(exit, Some(1), "{text}");
    assert!(text.contains("REFUSED 400 credential_ambiguous"), "{text}");
}

#[tokio::test]
async fn keys_in_a_file_judge_a_token_without_anybody_being_asked() {
    let (issuer, origin) = (issuer::run().await, origin::http().run().await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let jwk = issuer.key(jsonwebtoken::Algorithm::ES256).jwk();
    std::fs::write(&path, serde_json::json!({ "keys": [jwk] }).to_string()).unwrap();
    let conf = conf(ROUTES)
        .issuer_with(&issuer, &format!("jwks_file = {path:?}"))
        .upstream("api", &origin);
    let good = issuer.token().claim("scope", "orders:read").sign();
    let url = "http://localhost/orders";
    let (exit, text) = explain(&conf, &["GET", url, "--token", &good]).await;
    assert_eq!(exit, Some(0), "{text}");
    assert!(text.contains("key and signature: good"), "{text}");
    assert_eq!((issuer.fetches(), issuer.discoveries()), (0, 0));
}

#[tokio::test]
async fn a_decision_id_finds_its_reason_in_header_body_and_at_the_admin() {
    let (issuer, origin) = (issuer::run().await, origin::http().run().await);
    let gateway = configured(&issuer, &origin).run().await;
    gateway.ready().await;
    let answer = gateway
        .ask(get("/orders?secret=1").bearer(&issuer.token().sign()))
        .await;
    assert_eq!(answer.verdict(), refused(403, "insufficient_scope"));
    let id = answer.header("x-request-id").to_owned();
    assert_eq!(answer.at("/decision"), Value::from(id.as_str()));
    let told = gateway.admin(get(&format!("/decisions/{id}"))).await;
    assert_eq!(told.status, 200);
    for (pointer, value) in [
        ("/id", id.as_str()),
        ("/route", "orders"),
        ("/reason", "insufficient_scope"),
        ("/listener", "plain"),
        ("/detail", "none of the route's scopes"),
    ] {
        assert_eq!(told.at(pointer), Value::from(value), "{pointer}");
    }
    assert!(!told.text().contains("secret"));
    let good = issuer.token().claim("scope", "orders:read").sign();
    let passed = gateway.ask(get("/orders").bearer(&good)).await;
    let id = passed.header("x-request-id").to_owned();
    let told = gateway.admin(get(&format!("/decisions/{id}"))).await;
    assert_eq!(told.status, 404, "only refusals are kept");
}

#[tokio::test]
async fn the_command_asks_the_running_gateway_for_a_decision() {
    let (issuer, origin) = (issuer::run().await, origin::http().run().await);
    let process = run(&configured(&issuer, &origin)).await;
    let mut client = client::connect(process.at("plain"), Via::H1).await;
    let answer = client.send(get("/nowhere")).await;
    assert_eq!(answer.verdict(), refused(404, "no_route"));
    let id = answer.header("x-request-id").to_owned();
    // The same file, with the port that the process got.
    let text =
        configured(&issuer, &origin).and(&format!("[admin]\nbind = \"{}\"", process.admin()));
    let (exit, told) = explain(&text, &[&id]).await;
    assert_eq!(exit, Some(0), "{told}");
    assert!(told.contains("no_route") && told.contains(&id), "{told}");
    let (exit, told) = explain(&text, &["0123456789abcdef"]).await;
    assert_eq!(exit, Some(1));
    assert!(told.contains("does not know"), "{told}");
}

const ASKED: &str = r#"
    [session.browser]
    cookie = "sid"
    bearer = true
    probe = { upstream = "api", path = "/session" }
    [[route]]
    name = "me"
    path = "/me"
    auth = { any = ["browser"] }
    upstream = "api"
    [[route]]
    name = "orders"
    path = "/orders"
    auth = { any = ["main"], scopes = ["orders:read"] }
    upstream = "api"
"#;

/// The backend knows the session `good`; the issuer the opaque token `good`.
async fn backend() -> Origin {
    origin::http()
        .on("/session", |seen| {
            let is_good = seen.header("cookie") == "sid=good";
            if is_good || seen.header("authorization") == "Bearer good" {
                return Reply::json(&json!({ "user": { "user_id": "alice" } }));
            }
            Reply::json(&json!({ "error": { "code": "mfa_required" } })).status(401)
        })
        .on("/introspect", |seen| {
            let is_good = seen.body.starts_with(b"token=good&");
            let scope = "orders:read";
            Reply::json(&json!({ "active": is_good, "sub": "bob", "scope": scope }))
        })
        .run()
        .await
}

fn asking(backend: &Origin) -> Builder {
    let secret = pki::SHARED.file("explain-secret", "a secret of the gateway");
    let issuer = format!(
        r#"
        [issuer.main]
        url = "https://issuer.example"
        audiences = ["api"]
        [issuer.main.introspection]
        tokens = "all"
        url = "http://{}/introspect"
        client_id = "edge"
        client_secret = {{ file = {secret:?} }}
        "#,
        backend.address
    );
    conf(ASKED).and(&issuer).upstream("api", backend)
}

#[tokio::test]
async fn whoever_alone_knows_is_asked_only_live() {
    let backend = backend().await;
    let conf = asking(&backend);
    let me = ["GET", "http://localhost/me"];
    let orders = ["GET", "http://localhost/orders", "--token"];
    let (exit, text) = explain(&conf, &[&me[..], &["-H", "cookie: sid=good"]].concat()).await;
    assert_eq!(exit, Some(0), "{text}");
    assert!(
        text.contains("only the backend of `browser` knows; --live asks it"),
        "{text}"
    );
    let (_, text) = explain(&conf, &[&orders[..], &["good"]].concat()).await;
    assert!(text.contains("only `main` knows; --live asks it"), "{text}");
    assert!(backend.saw_nothing());

    for (arguments, code, told) in [
        (
            [&me[..], &["-H", "cookie: sid=good"]].concat(),
            0,
            &[
                "the backend of `browser` says: user alice",
                "x-auth-user: alice",
                "to `api`",
            ][..],
        ),
        (
            [&me[..], &["--token", "good"]].concat(),
            0,
            &["the backend of `browser` says: user alice"],
        ),
        (
            [&me[..], &["-H", "cookie: sid=half"]].concat(),
            1,
            &["REFUSED 401 session_step_up"],
        ),
        (
            [&orders[..], &["good"]].concat(),
            0,
            &[
                "`main` says: user bob",
                "scopes [orders:read]",
                "every demand is met",
            ],
        ),
        (
            [&orders[..], &["gone"]].concat(),
            1,
            &["REFUSED 401 token_inactive"],
        ),
    ] {
        let (exit, text) = explain(&conf, &[&arguments[..], &["--live"]].concat()).await;
        assert_eq!(exit, Some(code), "{text}");
        for told in told {
            assert!(text.contains(told), "{told}\n{text}");
        }
        assert!(
            !text.contains("sid=good"),
            "the credential is not printed:\n{text}"
        );
    }
    let asked = backend.saw().into_iter().map(|seen| seen.target);
    assert!(
        asked
            .into_iter()
            .all(|path| path == "/session" || path == "/introspect")
    );
}

#[tokio::test]
async fn a_backend_or_an_issuer_that_cannot_be_asked_is_said_to_be() {
    let backend = backend().await;
    let conf = asking(&backend);
    drop(backend);
    let me = [
        "GET",
        "http://localhost/me",
        "-H",
        "cookie: sid=good",
        "--live",
    ];
    let (exit, text) = explain(&conf, &me).await;
    assert_eq!(exit, Some(1), "{text}");
    assert!(text.contains("REFUSED 503 session_unavailable"), "{text}");

    let (issuer, origin) = (issuer::run().await, origin::http().run().await);
    let conf = configured(&issuer, &origin);
    let token = issuer.token().sign();
    let asked = ["GET", "http://localhost/orders", "--token", &token];
    let (_, text) = explain(&conf, &asked).await;
    assert!(text.contains("of `main`: 3 fetched"), "{text}");
    issuer.fails(Fault::Status500);
    let (exit, text) = explain(&conf, &asked).await;
    assert_eq!(exit, Some(1), "{text}");
    assert!(
        text.contains("of `main`: not fetched: discovery document: status 500"),
        "{text}"
    );
    assert!(text.contains("REFUSED 503 keys_unavailable"), "{text}");
}
