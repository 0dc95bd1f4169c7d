//! Key sets over time: conditional requests, restarts during outages, rotations, outages beside each other; and where
//! a token may stand.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::matrix;
use crate::support::client::{Told, get, refused};
use crate::support::eventually;
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::issuer::{self, Fault, Issuer};
use crate::support::origin::{self, Origin, Reply, Seen, Speaks};
use crate::support::pki;
use crate::support::raw;
use crate::support::token::{Key, Token};

const ROUTES: &str = r#"
    [[route]]
    path = "/api"
    auth = { any = ["main"] }
    upstream = "api"
    [[route]]
    path = "/strict"
    auth = { any = ["main"], on_issuer_down = "deny" }
    upstream = "api"
    [[route]]
    path = "/typed"
    auth = { any = ["main"], token_type = "at+jwt" }
    upstream = "api"
"#;

fn guarded(issuer: &Issuer, origin: &Origin, keys: &str) -> Builder {
    conf(ROUTES)
        .issuer_with(issuer, keys)
        .upstream("api", origin)
}

async fn ask(gateway: &Gateway, path: &str, token: &str) -> (u16, String) {
    gateway.ask(get(path).bearer(token)).await.verdict()
}

matrix! {
    async fn a_token_may_stand_in_a_header_of_its_own(via, speaks) {
        let issuer = issuer::run().await;
        let origin = origin::speaking(speaks).run().await;
        let gateway = guarded(&issuer, &origin, "header = \"cf-access-token\"").run().await;
        gateway.ready().await;
        let mut client = gateway.connect(via).await;
        let token = issuer.token().sign();

        let answer = client.send(get("/api").header("cf-access-token", &token)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(origin.last().header("x-auth-user"), "alice");
        let beside_another = get("/api").header("cf-access-token", &token).header("authorization", "Basic YTpi");
        assert_eq!(client.send(beside_another).await.status, 200);

        // There, and nowhere else.
        assert_eq!(client.send(get("/api").bearer(&token)).await.verdict(), refused(401, "credential_missing"));
        let twice = get("/api").header("cf-access-token", &token).header("cf-access-token", &token);
        assert_eq!(client.send(twice).await.verdict(), refused(400, "credential_ambiguous"));
        let both = get("/api").header("cf-access-token", &token).bearer(&token);
        assert_eq!(client.send(both).await.verdict(), refused(400, "credential_ambiguous"));
        let prefixed = get("/api").header("cf-access-token", &format!("Bearer {token}"));
        assert_eq!(client.send(prefixed).await.verdict(), refused(401, "credential_malformed"));
        let forged = issuer.token().signed_by(&issuer.key(Algorithm::ES256).impostor()).sign();
        let answer = client.send(get("/api").header("cf-access-token", &forged)).await;
        assert_eq!(answer.verdict(), refused(401, "token_signature"));
    }
}

#[tokio::test]
async fn a_header_that_means_something_else_holds_no_token() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    for header in [
        "authorization",
        "cookie",
        "x-auth-user",
        "x-forwarded-for",
        "a_b",
        "a b",
        "",
    ] {
        let conf = guarded(&issuer, &origin, &format!("header = {header:?}"));
        let refusal = conf.try_run().unwrap_err().to_string();
        assert!(
            refusal.contains("issuer.main.header"),
            "{header}: {refusal}"
        );
    }
}

#[tokio::test]
async fn a_route_may_demand_a_type_that_its_issuer_does_not() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = guarded(&issuer, &origin, "").run().await;
    gateway.ready().await;
    let id_token = issuer.token().header("typ", "JWT").sign();
    for _ in 0..2 {
        assert_eq!(ask(&gateway, "/api", &id_token).await.0, 200);
        assert_eq!(
            ask(&gateway, "/typed", &id_token).await,
            refused(401, "token_type")
        );
    }
    assert_eq!(ask(&gateway, "/typed", &issuer.token().sign()).await.0, 200);
}

#[tokio::test]
async fn claims_are_found_where_the_operator_says() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let keys = r#"
        user_claim = "account.id"
        org_claim = "urn:zitadel:iam:user:resourceowner:id"
        email_claim = "mail"
        roles_claim = ["urn:zitadel:iam:org:project:roles", "urn:zitadel:iam:org:project:112233:roles", "groups"]
    "#;
    let gateway = guarded(&issuer, &origin, keys).run().await;
    gateway.ready().await;
    let token = issuer
        .token()
        .claim("account", json!({ "id": 4711 }))
        .claim("mail", "a@example.com")
        .claim("urn:zitadel:iam:user:resourceowner:id", "7")
        .claim(
            "urn:zitadel:iam:org:project:roles",
            json!({ "reader": { "7": "acme.example" } }),
        )
        .claim(
            "urn:zitadel:iam:org:project:112233:roles",
            json!({ "writer": {}, "reader": {} }),
        )
        .claim("groups", json!(["staff"]));
    assert_eq!(ask(&gateway, "/api", &token.sign()).await.0, 200);
    let seen = origin.last();
    let told = ["x-auth-user", "x-auth-org", "x-auth-email", "x-auth-roles"]
        .map(|name| seen.header(name).to_owned());
    assert_eq!(told, ["4711", "7", "a@example.com", "reader,writer,staff"]);

    let unverified = token.clone().claim("email_verified", false).sign();
    assert_eq!(ask(&gateway, "/api", &unverified).await.0, 200);
    assert!(
        !origin.last().has("x-auth-email"),
        "anybody can type one in"
    );
    let nobody = token.without("account").sign();
    assert_eq!(
        ask(&gateway, "/api", &nobody).await,
        refused(401, "token_claims")
    );
}

#[tokio::test]
async fn a_key_set_that_is_the_same_does_not_come_again() {
    let issuer = issuer::run().await;
    issuer.marks();
    let origin = origin::http().run().await;
    let gateway = guarded(&issuer, &origin, "refresh = \"1s\"").run().await;
    gateway.ready().await;
    eventually("the set is asked for again", async || {
        issuer.unchanged() >= 2
    })
    .await;
    assert_eq!(issuer.fetches() - issuer.unchanged(), 1, "it came once");
    let labels = [("issuer", "main"), ("result", "ok")];
    let fetched = gateway
        .metric("vestibule_jwks_fetches_total", &labels)
        .await;
    assert!(fetched >= 3.0);
    assert_eq!(ask(&gateway, "/api", &issuer.token().sign()).await.0, 200);
    let old = issuer.token().sign();
    issuer.rotate(false);
    eventually("the new set is in force", async || {
        ask(&gateway, "/api", &issuer.token().sign()).await.0 == 200
    })
    .await;
    assert_eq!(ask(&gateway, "/api", &old).await, refused(401, "token_key"));
}

/// Keys change several times in a row, each time with a token signed at once.
#[tokio::test]
async fn three_rotations_in_a_row_are_followed() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = guarded(&issuer, &origin, "").run().await;
    gateway.ready().await;
    for _ in 0..3 {
        issuer.rotate(false);
        assert_eq!(ask(&gateway, "/api", &issuer.token().sign()).await.0, 200);
    }
    assert_eq!(issuer.fetches(), 4);
}

#[tokio::test]
async fn tokens_of_a_vanished_key_are_counted_and_forgeries_are_not() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = guarded(&issuer, &origin, "").run().await;
    gateway.ready().await;
    let (old, forged) = {
        let key = issuer.key(Algorithm::ES256);
        (issuer.token(), issuer.token().signed_by(&key.impostor()))
    };
    let keys = async |name: &str| gateway.metric(name, &[("issuer", "main")]).await;
    assert!((keys("vestibule_jwks_keys").await - 3.0).abs() < 0.5);
    assert_eq!(ask(&gateway, "/api", &old.sign()).await.0, 200);
    issuer.rotate(false);
    assert_eq!(ask(&gateway, "/api", &issuer.token().sign()).await.0, 200);
    for n in 0..3 {
        let old = old.clone().claim("n", n).sign();
        assert_eq!(ask(&gateway, "/api", &old).await, refused(401, "token_key"));
        let forged = forged.clone().claim("n", n).sign();
        assert_eq!(
            ask(&gateway, "/api", &forged).await,
            refused(401, "token_key")
        );
    }
    let expired = old.expired().sign();
    assert_eq!(
        ask(&gateway, "/api", &expired).await,
        refused(401, "token_expired")
    );
    let vanished = keys("vestibule_jwks_vanished_key_tokens_total").await;
    assert!((vanished - 3.0).abs() < 0.5, "{vanished}");

    let status: Value = gateway.admin(get("/status")).await.json();
    let keys = status["issuers"]["main"]["keys"].as_array().unwrap();
    let kid = |key: &Value| key["kid"].as_str().unwrap().to_owned();
    let gone = |key: &&Value| !key["vanished"].is_null();
    assert_eq!(keys.iter().filter(gone).count(), 3);
    let used = keys.iter().find(|key| kid(key) == "ES256-0").unwrap();
    assert!(used["last_used"].as_u64() >= used["first_seen"].as_u64());
    assert_eq!(status["issuers"]["main"]["state"], "fresh");
}

#[tokio::test]
async fn the_cache_of_verified_tokens_is_counted() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = guarded(&issuer, &origin, "").run().await;
    gateway.ready().await;
    let token = issuer.token().sign();
    for _ in 0..5 {
        assert_eq!(ask(&gateway, "/api", &token).await.0, 200);
    }
    for (result, expected) in [("hit", 4.0), ("miss", 1.0)] {
        let labels = [("issuer", "main"), ("result", result)];
        let found = gateway
            .metric("vestibule_token_cache_lookups_total", &labels)
            .await;
        assert!((found - expected).abs() < 0.5, "{result}: {found}");
    }
}

#[tokio::test]
async fn a_strict_route_closes_when_the_keys_have_outlived_their_time() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = guarded(&issuer, &origin, "refresh = \"1s\"").run().await;
    gateway.ready().await;
    let token = issuer.token().sign();
    assert_eq!(ask(&gateway, "/strict", &token).await.0, 200);
    issuer.fails(Fault::Status500);
    eventually("the strict route closes", async || {
        ask(&gateway, "/strict", &token).await == refused(503, "keys_unavailable")
    })
    .await;
    assert_eq!(
        ask(&gateway, "/api", &token).await.0,
        200,
        "the other does not"
    );
    assert!(gateway.is_ready().await);
    issuer.fails(None);
    eventually("it opens again", async || {
        ask(&gateway, "/strict", &token).await.0 == 200
    })
    .await;
}

/// One issuer's trouble is its own.
#[tokio::test]
async fn an_issuer_that_hangs_delays_no_other() {
    beside_one_that(Fault::Hangs).await;
}

#[tokio::test]
async fn an_issuer_that_answers_a_byte_a_second_delays_no_other() {
    beside_one_that(Fault::Drips).await;
}

async fn beside_one_that(fails: Fault) {
    let (good, hanging) = (issuer::run().await, issuer::run().await);
    hanging.fails(fails);
    let origin = origin::http().run().await;
    let gateway = conf(
        r#"
        [[route]]
        path = "/both"
        auth = { any = ["main", "other"] }
        upstream = "api"
    "#,
    )
    .issuer_with(&good, "refresh = \"1s\"")
    .and(&format!(
        "[issuer.other]\nurl = \"{}\"\naudiences = [\"api\"]",
        hanging.url()
    ))
    .upstream("api", &origin)
    .run()
    .await;
    let token = good.token().sign();
    eventually("the good one's keys are there", async || {
        ask(&gateway, "/both", &token).await.0 == 200
    })
    .await;
    let verdict = ask(&gateway, "/both", &hanging.token().sign()).await;
    assert_eq!(verdict, refused(503, "keys_unavailable"));
    let ready = gateway.admin(get("/readyz")).await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.text().contains("issuer other has no keys yet"),
        "{}",
        ready.text()
    );
    assert!(!ready.text().contains("main"), "{}", ready.text());
    // Rotations of the good one are followed while the other one hangs.
    good.rotate(false);
    assert_eq!(ask(&gateway, "/both", &good.token().sign()).await.0, 200);
    let fetches = good.fetches();
    eventually("it is refreshed on time", async || {
        good.fetches() >= fetches + 2
    })
    .await;
}

/// A discovery document counts that is the issuer's own, and keys come over https or from its own origin.
#[tokio::test]
async fn discovery_that_leads_elsewhere_leads_nowhere() {
    type Says = fn(&str, &str) -> Reply;
    let good: Says =
        |own, _| Reply::json(&json!({ "issuer": own, "jwks_uri": format!("{own}/keys") }));
    let cases: [(&str, Says, bool); 10] = [
        (
            "of another issuer",
            |own, _| {
                Reply::json(
                    &json!({ "issuer": "https://evil.example", "jwks_uri": format!("{own}/keys") }),
                )
            },
            false,
        ),
        (
            "with a slash",
            |own, _| {
                Reply::json(
                    &json!({ "issuer": format!("{own}/"), "jwks_uri": format!("{own}/keys") }),
                )
            },
            false,
        ),
        (
            "a list",
            |own, _| Reply::json(&json!({ "issuer": [own], "jwks_uri": format!("{own}/keys") })),
            false,
        ),
        (
            "of nobody",
            |own, _| Reply::json(&json!({ "jwks_uri": format!("{own}/keys") })),
            false,
        ),
        (
            "twice",
            |own, elsewhere| {
                Reply::text(format!(
                    r#"{{"issuer":"{own}","jwks_uri":"{elsewhere}","jwks_uri":"{own}/keys"}}"#
                ))
            },
            false,
        ),
        (
            "keys elsewhere, in the clear",
            |own, elsewhere| Reply::json(&json!({ "issuer": own, "jwks_uri": elsewhere })),
            false,
        ),
        (
            "no keys",
            |own, _| Reply::json(&json!({ "issuer": own })),
            false,
        ),
        (
            "large",
            |own, _| {
                let padding = " ".repeat(70 << 10);
                Reply::text(format!(
                    r#"{{"issuer":"{own}","jwks_uri":"{own}/keys"{padding}}}"#
                ))
            },
            false,
        ),
        (
            "redirected",
            |_, elsewhere| Reply::empty(302).header("location", elsewhere),
            false,
        ),
        ("with keys that are redirected", good, true),
    ];
    let canary = raw::silent_counting().await;
    let elsewhere = format!("http://{}/keys", canary.address);
    let key = Key::generate(Algorithm::ES256, "k");
    let keys = Reply::json(&json!({ "keys": [key.jwk()] }));
    let ask_under = async |says: Says, keys: Reply, failing: bool| {
        let place = elsewhere.clone();
        let provider = origin::http()
            .on("/.well-known/openid-configuration", move |seen| {
                says(&format!("http://{}", seen.authority), &place)
            })
            .path("/keys", keys)
            .run()
            .await;
        let url = format!("http://{}", provider.address);
        let api = origin::http().run().await;
        let gateway = conf(ROUTES)
            .and(&format!(
                "[issuer.main]\nurl = \"{url}\"\naudiences = [\"api\"]"
            ))
            .upstream("api", &api)
            .run()
            .await;
        let result = if failing { "failed" } else { "ok" };
        let labels = [("issuer", "main"), ("result", result)];
        eventually("the issuer was asked", async || {
            gateway
                .metric("vestibule_jwks_fetches_total", &labels)
                .await
                >= 1.0
        })
        .await;
        assert_eq!(gateway.is_ready().await, !failing);
        ask(&gateway, "/api", &Token::new(&key, &url).sign()).await
    };
    for (name, says, moves_keys) in cases {
        let keys = if moves_keys {
            Reply::empty(307).header("location", &elsewhere)
        } else {
            keys.clone()
        };
        let verdict = ask_under(says, keys, true).await;
        assert_eq!(verdict, refused(503, "keys_unavailable"), "{name}");
    }
    assert_eq!(canary.connections(), 0);
    assert_eq!(ask_under(good, keys.clone(), false).await.0, 200);
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        allow(folder.path(), 0o700);
        Self(folder)
    }

    fn line(&self) -> String {
        format!("state_dir = {:?}\n", self.0.path())
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    async fn kept(&self) -> PathBuf {
        eventually("the keys are kept", async || {
            let files = self.files();
            files.len() == 1 && files[0].extension().is_some_and(|end| end == "json")
        })
        .await;
        self.files().remove(0)
    }
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn keeping(folder: &Folder, issuer: &Issuer, origin: &Origin, keys: &str) -> Builder {
    conf(&format!("{}{ROUTES}", folder.line()))
        .issuer_with(issuer, keys)
        .upstream("api", origin)
}

#[tokio::test]
async fn a_restart_during_an_outage_still_knows_the_keys() {
    let (issuer, folder) = (issuer::run().await, Folder::new());
    let origin = origin::http().run().await;
    let first = keeping(&folder, &issuer, &origin, "").run().await;
    first.ready().await;
    let file = folder.kept().await;
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    drop(first);

    issuer.fails(Fault::Down);
    let second = keeping(&folder, &issuer, &origin, "").run().await;
    assert!(second.is_ready().await, "at once");
    let token = issuer.token().sign();
    assert_eq!(ask(&second, "/api", &token).await.0, 200);
    // Nobody has said that they are still good.
    assert_eq!(
        ask(&second, "/strict", &token).await,
        refused(503, "keys_unavailable")
    );
    let age = second.metric("vestibule_jwks_age_seconds", &[]).await;
    assert!((0.0..60.0).contains(&age), "{age}");
    issuer.fails(None);
    eventually("the issuer is asked", async || {
        ask(&second, "/strict", &token).await.0 == 200
    })
    .await;
}

#[tokio::test]
async fn keys_that_cannot_be_trusted_are_not_taken_over() {
    let (issuer, folder) = (issuer::run().await, Folder::new());
    let origin = origin::http().run().await;
    drop({
        let gateway = keeping(&folder, &issuer, &origin, "").run().await;
        gateway.ready().await;
        folder.kept().await;
        gateway
    });
    let file = folder.kept().await;
    let good = std::fs::read_to_string(&file).unwrap();
    let whole: Value = serde_json::from_str(&good).unwrap();
    let with = |name: &str, value: Value| {
        let mut changed = whole.clone();
        changed[name] = value;
        changed.to_string()
    };
    let fetched_at = whole["fetched_at"].as_u64().unwrap();
    issuer.fails(Fault::Down);
    let token = issuer.token().sign();
    let verdict = async |keys: &str| {
        let gateway = keeping(&folder, &issuer, &origin, keys).run().await;
        ask(&gateway, "/api", &token).await
    };
    for (name, content) in [
        ("cut off", good[..good.len() / 2].to_owned()),
        ("empty", String::new()),
        ("other keys", good.replace("ES256-0", "ES256-1")),
        (
            "older than it was",
            with("fetched_at", json!(fetched_at + 1)),
        ),
        (
            "of another issuer",
            with("issuer", json!("https://evil.example")),
        ),
        ("of another format", with("format", json!(2))),
        ("large", format!("{good}{}", " ".repeat(1 << 20))),
    ] {
        std::fs::write(&file, content).unwrap();
        assert_eq!(
            verdict("").await,
            refused(503, "keys_unavailable"),
            "{name}"
        );
    }
    std::fs::write(&file, &good).unwrap();
    allow(&file, 0o666);
    assert_eq!(
        verdict("").await,
        refused(503, "keys_unavailable"),
        "open to all"
    );
    allow(&file, 0o600);
    assert_eq!(
        verdict("jwks_url = \"https://127.0.0.1:1/keys\"").await.0,
        503,
        "of another source"
    );
    assert_eq!(verdict("").await.0, 200, "as it was written");
    // Too old: `stale_max` holds across restarts.
    assert_eq!(verdict("stale_max = \"0s\"\nrefresh = \"1s\"").await.0, 503);
}

#[tokio::test]
async fn without_a_folder_nothing_is_written_and_a_bad_one_does_not_start() {
    let (issuer, folder) = (issuer::run().await, Folder::new());
    let origin = origin::http().run().await;
    let missing = folder.0.path().join("missing");
    let file = folder.0.path().join("file");
    std::fs::write(&file, "").unwrap();
    let open = folder.0.path().join("open");
    std::fs::create_dir(&open).unwrap();
    allow(&open, 0o777);
    for (path, why) in [
        (&missing, "install -d -m 0700"),
        (&file, "is no folder"),
        (&open, "can be written by others"),
    ] {
        let conf = conf(&format!("state_dir = {path:?}\n{ROUTES}"))
            .issuer(&issuer)
            .upstream("api", &origin);
        let refusal = conf.try_run().unwrap_err().to_string();
        assert!(
            refusal.contains("state_dir") && refusal.contains(why),
            "{refusal}"
        );
    }
    assert_eq!(folder.files().len(), 2);
}

/// The issuer's own word, within bounds, decides when the set is fetched anew.
#[tokio::test]
async fn the_issuers_cache_control_counts() {
    let issuer = issuer::run().await;
    issuer.caches("max-age=0");
    let origin = origin::http().run().await;
    let gateway = guarded(&issuer, &origin, "refresh = \"1s\"").run().await;
    gateway.ready().await;
    let fetched = issuer.fetches();
    // Bounded from below by 30 s: no second fetch although `refresh` alone would have caused several.
    let other = issuer::run().await;
    let second = guarded(&other, &origin, "refresh = \"1s\"").run().await;
    second.ready().await;
    eventually("a set without a word is fetched again", async || {
        other.fetches() >= 4
    })
    .await;
    assert_eq!(issuer.fetches(), fetched);
}

/// A provider that knows its own URL from the request alone, as ZITADEL does: the Host, and the scheme that a proxy
/// tells.
fn own_url(seen: &Seen) -> String {
    let scheme = match seen.header("x-forwarded-proto") {
        "" => "http",
        told => told,
    };
    format!("{scheme}://{}", seen.authority)
}

#[tokio::test]
async fn at_an_internal_address_the_issuer_learns_its_public_name_and_scheme() {
    for speaks in [Speaks::Http, Speaks::H2c] {
        let key = Key::generate(Algorithm::ES256, "k");
        let published = json!({ "keys": [key.jwk()] });
        let provider = origin::speaking(speaks)
            .on("/.well-known/openid-configuration", |seen| {
                let own = own_url(seen);
                Reply::json(&json!({ "issuer": own, "jwks_uri": format!("{own}/keys") }))
            })
            .path("/keys", Reply::json(&published))
            .on("/introspect", |seen| {
                let iss = own_url(seen);
                Reply::json(&json!({ "active": true, "iss": iss, "sub": "alice", "aud": "api" }))
            })
            .run()
            .await;
        let origin = origin::http().run().await;
        let secret = pki::SHARED.file("public-name-secret", "a secret of the gateway");
        let issuer = format!(
            r#"
            [issuer.main]
            url = "https://auth.example"
            connect = "{}"
            audiences = ["api"]
            [issuer.main.introspection]
            url = "https://auth.example/introspect"
            client_id = "edge"
            client_secret = {{ file = {secret:?} }}
            "#,
            provider.endpoint()
        );
        let gateway = conf(ROUTES)
            .and(&issuer)
            .upstream("api", &origin)
            .run()
            .await;
        gateway.ready().await;
        let token = Token::new(&key, "https://auth.example").sign();
        assert_eq!(ask(&gateway, "/api", &token).await.0, 200, "{speaks:?}");
        assert_eq!(ask(&gateway, "/api", "opaque").await.0, 200, "{speaks:?}");
        for seen in provider.saw() {
            let told = (&*seen.authority, seen.header("x-forwarded-proto"));
            assert_eq!(told, ("auth.example", "https"), "{}", seen.target);
        }
    }
}

/// Whoever is reached under its own name knows it, and is told nothing of proxies.
#[tokio::test]
async fn at_its_own_address_the_issuer_is_told_of_no_proxy() {
    let key = Key::generate(Algorithm::ES256, "k");
    let provider = origin::http()
        .on("/.well-known/openid-configuration", |seen| {
            let own = format!("http://{}", seen.authority);
            Reply::json(&json!({ "issuer": own, "jwks_uri": format!("{own}/keys") }))
        })
        .path("/keys", Reply::json(&json!({ "keys": [key.jwk()] })))
        .run()
        .await;
    let origin = origin::http().run().await;
    let url = format!("http://{}", provider.address);
    let gateway = conf(ROUTES)
        .and(&format!(
            "[issuer.main]\nurl = \"{url}\"\naudiences = [\"api\"]"
        ))
        .upstream("api", &origin)
        .run()
        .await;
    gateway.ready().await;
    let seen = provider.saw();
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter()
            .all(|one| one.all("x-forwarded-proto").is_empty())
    );
}
