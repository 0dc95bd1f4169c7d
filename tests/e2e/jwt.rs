//! Bearer tokens: who passes, every way to forge one (behaviour 2.4), and issuers that fail (R11 to R14).

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::matrix;
use crate::support::client::{Told, Via, get, post, refused};
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::issuer::{self, Fault, Issuer};
use crate::support::origin::{self, Origin};
use crate::support::token::{Key, Token, now};
use crate::support::{eventually, raw};

const GUARDED: &str = r#"
    [[route]]
    name = "public"
    path = "/public"
    auth = "none"
    upstream = "api"
    [[route]]
    name = "api"
    path = "/api"
    auth = { any = ["main"] }
    upstream = "api"
    [[route]]
    name = "web"
    path = "/web"
    auth = { any = ["web"] }
    upstream = "api"
    [session.web]
    cookie = "sid"
    issuer = "main"
    [[route]]
    name = "optional"
    path = "/optional"
    auth = { any = ["main"], optional = true }
    upstream = "api"
"#;

struct House {
    issuer: Issuer,
    origin: Origin,
    gateway: Gateway,
}

async fn house_with(keys: &str) -> House {
    let issuer = issuer::run().await;
    let origin = origin::h2c().run().await;
    let gateway = guarded(&issuer, &origin, keys).run().await;
    gateway.ready().await;
    House {
        issuer,
        origin,
        gateway,
    }
}

fn guarded(issuer: &Issuer, origin: &Origin, keys: &str) -> Builder {
    conf(GUARDED)
        .issuer_with(issuer, keys)
        .upstream("api", origin)
}

impl House {
    async fn verdict(&self, token: &str) -> (u16, String) {
        self.gateway.ask(get("/api").bearer(token)).await.verdict()
    }
}

matrix! {
    async fn a_good_token_passes_and_no_token_does_not(via, speaks) {
        let issuer = issuer::run().await;
        let origin = origin::speaking(speaks).run().await;
        let gateway = guarded(&issuer, &origin, "").run().await;
        gateway.ready().await;
        let mut client = gateway.connect(via).await;

        let answer = client.send(get("/api")).await;
        assert_eq!(answer.verdict(), refused(401, "credential_missing"));
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"vestibule\"");
        assert!(origin.saw_nothing());

        for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
            let answer = client.send(get("/api").bearer(&issuer.token_by(algorithm).sign())).await;
            assert_eq!(answer.status, 200, "{algorithm:?} {}", answer.text());
            assert_eq!(origin.last().header("x-auth-user"), "alice");
        }
        let answer = client.send(get("/api").bearer(&issuer.token().expired().sign())).await;
        assert_eq!(answer.verdict(), refused(401, "token_expired"));
        assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""));
        assert_eq!(origin.heads(), 3);
    }
}

/// Every line of behaviour 2.4 that a client can try, in the header and in a cookie, over HTTP/1.1 and HTTP/2.
#[tokio::test]
async fn forged_tokens_are_refused_each_for_its_reason() {
    let house = house_with("").await;
    let mut clients = Vec::new();
    for via in [Via::H1, Via::TlsH1, Via::H2c, Via::TlsH2] {
        clients.push((via, house.gateway.connect(via).await));
    }
    let issuer = &house.issuer;
    let key = issuer.key(Algorithm::ES256);
    let good = || issuer.token();
    let kid = &key.kid;
    let header = |text: &str| good().raw_header(text).sign();
    let with_alg = |alg: &str| header(&format!(r#"{{"alg":{alg},"kid":"{kid}","typ":"at+jwt"}}"#));
    let claims = |text: &str| {
        let url = issuer.url();
        let exp = now() + 300;
        good()
            .raw_claims(&format!(
                r#"{{"iss":"{url}","aud":"api","sub":"alice","exp":{exp}{text}}}"#
            ))
            .sign()
    };
    let (head, payload) = {
        let input = good().signing_input();
        let (head, payload) = input.split_once('.').unwrap();
        (head.to_owned(), payload.to_owned())
    };
    let compact = good().sign();
    let n = [0xff_u8; 32];
    let zeros = [0_u8; 64];
    let mut r_zero = [0_u8; 64];
    r_zero[63] = 1;
    let der = [0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01];
    let large = [n, n].concat();

    let table: Vec<(&str, String, &str)> = vec![
        // Algorithm.
        ("none", with_alg(r#""none""#), "token_algorithm"),
        ("None", with_alg(r#""None""#), "token_algorithm"),
        (
            "escaped none",
            with_alg(r#""\u006eone""#),
            "token_algorithm",
        ),
        (
            "none, unsigned",
            format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#)),
            "",
        ),
        (
            "HS256 with the public key",
            with_alg(r#""HS256""#),
            "token_algorithm",
        ),
        (
            "another algorithm than the key's",
            with_alg(r#""RS256""#),
            "token_algorithm",
        ),
        ("ES384", with_alg(r#""ES384""#), "token_algorithm"),
        ("ES512", with_alg(r#""ES512""#), "token_algorithm"),
        ("alg is a number", with_alg("5"), ""),
        ("no alg", good().without_header("alg").sign(), ""),
        // Shape of the header.
        (
            "crit",
            good()
                .header("crit", json!(["exp"]))
                .header("exp", 1)
                .sign(),
            "token_header",
        ),
        (
            "empty crit",
            good().header("crit", json!([])).sign(),
            "token_header",
        ),
        ("b64", good().header("b64", false).sign(), "token_header"),
        ("zip", good().header("zip", "DEF").sign(), "token_header"),
        ("cty", good().header("cty", "JWT").sign(), "token_header"),
        (
            "duplicate alg",
            header(&format!(r#"{{"alg":"ES256","alg":"none","kid":"{kid}"}}"#)),
            "",
        ),
        (
            "duplicate kid",
            header(&format!(r#"{{"alg":"ES256","kid":"{kid}","kid":"x"}}"#)),
            "",
        ),
        ("header is an array", header("[]"), ""),
        ("header is no JSON", header("alg"), ""),
        // Keys.
        (
            "unknown kid",
            good().header("kid", "nobody").sign(),
            "token_key",
        ),
        (
            "kid is a path",
            good().header("kid", "../../etc/passwd").sign(),
            "token_key",
        ),
        ("long kid", good().header("kid", "k".repeat(300)).sign(), ""),
        ("kid is a number", good().header("kid", 5).sign(), ""),
        // Shape of the whole.
        (
            "two parts",
            format!("{head}.{payload}"),
            "credential_malformed",
        ),
        ("four parts", format!("{compact}.x"), "credential_malformed"),
        ("JWE", format!("{head}.a.b.c.d"), ""),
        (
            "padded",
            format!("{head}.{payload}=.x"),
            "credential_malformed",
        ),
        (
            "trailing bit",
            format!(
                "{}.{payload}.AB",
                URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#)
            ),
            "",
        ),
        (
            "standard alphabet",
            format!("{head}.{payload}.{}", STANDARD.encode([0xff; 64])),
            "credential_malformed",
        ),
        ("no token", "x".to_owned(), "credential_malformed"),
        ("empty parts", "..".to_owned(), "credential_malformed"),
        // Signature.
        (
            "a stranger's",
            good().signed_by(&key.impostor()).sign(),
            "token_signature",
        ),
        (
            "a stranger's RSA",
            issuer
                .token_by(Algorithm::RS256)
                .signed_by(&issuer.key(Algorithm::RS256).impostor())
                .sign(),
            "token_signature",
        ),
        (
            "a stranger's Ed25519",
            issuer
                .token_by(Algorithm::EdDSA)
                .signed_by(&issuer.key(Algorithm::EdDSA).impostor())
                .sign(),
            "token_signature",
        ),
        (
            "psychic: r = s = 0",
            good().with_signature(&zeros),
            "token_signature",
        ),
        ("r = 0", good().with_signature(&r_zero), "token_signature"),
        (
            "r, s >= n",
            good().with_signature(&large),
            "token_signature",
        ),
        ("DER", good().with_signature(&der), "token_signature"),
        ("empty", good().with_signature(&[]), ""),
        (
            "of other claims",
            format!(
                "{}.{}",
                good().claim("sub", "root").signing_input(),
                compact.rsplit_once('.').unwrap().1
            ),
            "token_signature",
        ),
        // Claims.
        ("expired", good().expired().sign(), "token_expired"),
        ("no exp", good().without("exp").sign(), "token_claims"),
        (
            "exp is text",
            good().claim("exp", "9999999999").sign(),
            "token_claims",
        ),
        ("exp is huge", claims(r#","nbf":1e400"#), ""),
        (
            "exp beyond 2^53",
            good().claim("exp", 9_007_199_254_740_993_i64).sign(),
            "token_claims",
        ),
        (
            "nbf ahead",
            good().claim("nbf", now() + 120).sign(),
            "token_not_yet_valid",
        ),
        (
            "iat ahead",
            good().claim("iat", now() + 120).sign(),
            "token_not_yet_valid",
        ),
        (
            "another iss",
            good().claim("iss", "https://evil.example").sign(),
            "token_issuer",
        ),
        (
            "iss with a slash",
            good().claim("iss", format!("{}/", issuer.url())).sign(),
            "token_issuer",
        ),
        (
            "iss is an array",
            good().claim("iss", json!([issuer.url()])).sign(),
            "token_issuer",
        ),
        ("no iss", good().without("iss").sign(), "token_issuer"),
        (
            "another aud",
            good().claim("aud", "other").sign(),
            "token_audience",
        ),
        (
            "aud in an object",
            good().claim("aud", json!({ "api": true })).sign(),
            "",
        ),
        (
            "aud with a number",
            good().claim("aud", json!(["api", 5])).sign(),
            "",
        ),
        ("no aud", good().without("aud").sign(), ""),
        ("no sub", good().without("sub").sign(), "token_claims"),
        ("empty sub", good().claim("sub", "").sign(), "token_claims"),
        ("duplicate sub", claims(r#","sub":"root""#), ""),
        (
            "duplicate name deep down",
            claims(r#","a":{"b":1,"b":2}"#),
            "",
        ),
        (
            "deep",
            claims(&format!(r#","a":{}{}"#, "[".repeat(20), "]".repeat(20))),
            "",
        ),
        ("claims are an array", good().raw_claims("[]").sign(), ""),
        ("claims are no JSON", good().raw_claims("{").sign(), ""),
        (
            "bytes after the claims",
            good().raw_claims("{} {}").sign(),
            "",
        ),
        // Size.
        (
            "large",
            good().claim("pad", "x".repeat(17 * 1024)).sign(),
            "token_too_large",
        ),
    ];
    for (name, token, code) in &table {
        let cookie = format!("sid={token}");
        for (via, client) in &mut clients {
            let bearer = get("/api").bearer(token);
            let in_cookie = get("/web").header("cookie", &cookie);
            for (place, call) in [("bearer", bearer), ("cookie", in_cookie)] {
                let answer = client.send(call).await;
                let (status, told) = answer.verdict();
                let what = format!("{name} as {place} over {via:?}");
                assert_eq!(status, 401, "{what}: {told}");
                assert!(!answer.header("www-authenticate").is_empty(), "{what}");
                // What no cookie can hold is malformed before it is a token.
                let is_malformed = told == "credential_malformed";
                if code.is_empty() || (place == "cookie" && is_malformed) {
                    assert!(told.starts_with("token_") || is_malformed, "{what}: {told}");
                } else {
                    assert_eq!(&told, code, "{what}");
                }
            }
        }
    }
    assert!(house.origin.saw_nothing());
    let cookie = format!("sid={compact}");
    for (via, client) in &mut clients {
        let bearer = client.send(get("/api").bearer(&compact)).await;
        let in_cookie = client.send(get("/web").header("cookie", &cookie)).await;
        assert_eq!(
            (bearer.verdict().0, in_cookie.verdict().0),
            (200, 200),
            "{via:?}"
        );
    }
}

/// Wherever the token stands, whatever key it is signed with, and also while keys are looked for.
#[tokio::test]
async fn keys_named_by_the_token_are_never_fetched() {
    let canary = raw::silent_counting().await;
    let house = house_with("").await;
    let key = house.issuer.key(Algorithm::ES256);
    let impostor = key.impostor();
    let url = format!("http://{}/keys", canary.address);
    let named: [(&str, Value); 4] = [
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("jwk", impostor.jwk()),
        ("x5c", json!([STANDARD.encode(&url)])),
    ];
    let forged = |kid: &str| {
        let token = named
            .iter()
            .fold(house.issuer.token(), |token, (name, value)| {
                token.header(name, value.clone())
            });
        let mut jwk = impostor.jwk();
        jwk["kid"] = kid.into();
        jwk["jku"] = url.as_str().into();
        let token = token.header("kid", kid).header("jwk", jwk);
        token.signed_by(&impostor).sign()
    };
    for via in Via::ALL {
        let mut client = house.gateway.connect(via).await;
        let mut ask = async |token: &str| {
            let cookie = format!("sid={token}");
            let bearer = client.send(get("/api").bearer(token)).await.verdict();
            let in_cookie = client.send(get("/web").header("cookie", &cookie)).await;
            assert_eq!(bearer, in_cookie.verdict(), "{via:?}");
            bearer
        };
        for (name, value) in &named {
            let token = || house.issuer.token().header(name, value.clone());
            assert_eq!(ask(&token().sign()).await.0, 200, "{name} over {via:?}");
            let by_itself = token().signed_by(&impostor).sign();
            let verdict = ask(&by_itself).await;
            assert_eq!(verdict, refused(401, "token_signature"), "{name}");
        }
        assert_eq!(
            ask(&forged(&key.kid)).await,
            refused(401, "token_signature")
        );
        assert_eq!(ask(&forged("nobody")).await, refused(401, "token_key"));
        assert_eq!(ask(&forged(&url)).await, refused(401, "token_key"));
    }
    assert_eq!(house.origin.heads(), 2 * 4 * named.len());
    assert_eq!(canary.connections(), 0);
    // It would have been noticed.
    let _connection = tokio::net::TcpStream::connect(canary.address).await;
    eventually("a connection is counted", async || {
        canary.connections() == 1
    })
    .await;
}

#[tokio::test]
async fn a_request_shows_one_credential() {
    let house = house_with("").await;
    let token = house.issuer.token().sign();
    let two = get("/api").bearer(&token).bearer(&token);
    assert_eq!(
        house.gateway.ask(two).await.verdict(),
        refused(400, "credential_ambiguous")
    );
    for value in [
        "Bearer",
        "Bearer ",
        "Bearer a b",
        "Bearer\ttoken",
        "Bearer a,b",
    ] {
        let answer = house
            .gateway
            .ask(get("/api").header("authorization", value))
            .await;
        assert_eq!(
            answer.verdict(),
            refused(401, "credential_malformed"),
            "{value:?}"
        );
    }
    let basic = get("/api").header("authorization", "Basic YTpi");
    assert_eq!(
        house.gateway.ask(basic).await.verdict(),
        refused(401, "credential_missing")
    );
    let in_query = get(&format!("/api?access_token={token}"));
    assert_eq!(
        house.gateway.ask(in_query).await.verdict(),
        refused(401, "credential_missing")
    );
    assert!(house.origin.saw_nothing());
}

#[tokio::test]
async fn optional_means_absent_or_good() {
    let house = house_with("").await;
    assert_eq!(house.gateway.ask(get("/optional")).await.status, 200);
    assert!(!house.origin.last().has("x-auth-user"));
    let bad = get("/optional").bearer(&house.issuer.token().expired().sign());
    assert_eq!(
        house.gateway.ask(bad).await.verdict(),
        refused(401, "token_expired")
    );
    let good = get("/optional").bearer(&house.issuer.token().sign());
    assert_eq!(house.gateway.ask(good).await.status, 200);
    assert_eq!(house.origin.last().header("x-auth-user"), "alice");
}

#[tokio::test]
async fn a_type_can_be_demanded() {
    let house = house_with("token_type = \"at+jwt\"\nrequired_claims = [\"client_id\"]").await;
    let token = || house.issuer.token().claim("client_id", "c");
    assert_eq!(house.verdict(&token().sign()).await.0, 200);
    assert_eq!(
        house
            .verdict(&token().header("typ", "AT+JWT").sign())
            .await
            .0,
        200
    );
    for typ in ["JWT", "logout+jwt", ""] {
        let id_token = token().header("typ", typ).sign();
        assert_eq!(
            house.verdict(&id_token).await,
            refused(401, "token_type"),
            "{typ}"
        );
    }
    let untyped = token().without_header("typ").sign();
    assert_eq!(house.verdict(&untyped).await, refused(401, "token_type"));
    let incomplete = house.issuer.token().sign();
    assert_eq!(
        house.verdict(&incomplete).await,
        refused(401, "token_claims")
    );
}

#[tokio::test]
async fn a_token_dies_with_its_exp_however_often_it_was_seen() {
    let house = house_with("leeway = \"0s\"").await;
    let token = house.issuer.token().claim("exp", now() + 2).sign();
    assert_eq!(house.verdict(&token).await.0, 200);
    eventually("the token expires", async || {
        house.verdict(&token).await == refused(401, "token_expired")
    })
    .await;
}

#[tokio::test]
async fn a_shared_secret_signs_for_its_own_issuer_only() {
    let secret = "0123456789abcdef0123456789abcdef";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, secret).unwrap();
    std::os::unix::fs::chown(&path, None, None).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let origin = origin::http().run().await;
    let gateway = conf(&format!(
        r#"
        [[route]]
        auth = {{ any = ["local"] }}
        upstream = "api"
        [issuer.local]
        url = "backend"
        audiences = ["api"]
        algorithms = ["HS256"]
        secret = {{ file = "{}" }}
    "#,
        path.display()
    ))
    .upstream("api", &origin)
    .run()
    .await;
    let sign = |secret: &str| {
        let claims = json!({ "iss": "backend", "aud": "api", "sub": "alice", "exp": now() + 60 });
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::new(Algorithm::HS256), &claims, &key).unwrap()
    };
    assert_eq!(
        gateway.ask(get("/").bearer(&sign(secret))).await.status,
        200
    );
    let forged = gateway
        .ask(get("/").bearer(&sign("another secret of thirty-two byte")))
        .await;
    assert_eq!(forged.verdict(), refused(401, "token_signature"));
    assert_eq!(origin.heads(), 1);
}

#[tokio::test]
async fn grpc_callers_learn_it_in_grpc_status() {
    let house = house_with("").await;
    let call = post("/api", "").header("content-type", "application/grpc");
    let answer = house.gateway.send(Via::H2c, call).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("grpc-status")),
        (200, "16")
    );
    assert!(answer.header("grpc-message").contains("credential_missing"));
    assert!(house.origin.saw_nothing());
}

/// R11: an issuer that is down at the start closes what needs it, and nothing else, until it is back.
#[tokio::test]
async fn without_keys_protected_routes_are_503_and_public_ones_work() {
    let issuer = issuer::run().await;
    issuer.fails(Fault::Down);
    let origin = origin::http().run().await;
    let gateway = guarded(&issuer, &origin, "").run().await;
    let token = issuer.token().sign();

    assert!(!gateway.is_ready().await);
    let answer = gateway.ask(get("/api").bearer(&token)).await;
    assert_eq!(answer.verdict(), refused(503, "keys_unavailable"));
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(gateway.ask(get("/public")).await.status, 200);
    assert_eq!(origin.heads(), 1);

    issuer.fails(None);
    gateway.ready().await;
    assert_eq!(gateway.ask(get("/api").bearer(&token)).await.status, 200);
}

#[tokio::test]
async fn a_key_set_that_cannot_be_trusted_is_no_key_set() {
    for fault in [
        Fault::Status500,
        Fault::Html,
        Fault::EmptySet,
        Fault::Huge,
        Fault::Hangs,
        Fault::Drips,
    ] {
        let issuer = issuer::run().await;
        issuer.fails(fault);
        let origin = origin::http().run().await;
        let gateway = guarded(&issuer, &origin, "").run().await;
        eventually("the issuer was asked", async || {
            issuer.fetches() + issuer.discoveries() > 0
        })
        .await;
        let answer = gateway
            .ask(get("/api").bearer(&issuer.token().sign()))
            .await;
        assert_eq!(
            answer.verdict(),
            refused(503, "keys_unavailable"),
            "{fault:?}"
        );
        assert!(!gateway.is_ready().await, "{fault:?}");
        assert!(origin.saw_nothing());
    }
    let secret = json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0", "alg": "HS256" });
    let twice = {
        let key = Key::generate(Algorithm::ES256, "same").jwk();
        vec![key.clone(), key]
    };
    let issuer = issuer::run().await;
    for set in [vec![issuer.key(Algorithm::ES256).jwk(), secret], twice] {
        let issuer = issuer::run().await;
        issuer.publish(set);
        let origin = origin::http().run().await;
        let gateway = guarded(&issuer, &origin, "").run().await;
        eventually("the key set was fetched", async || issuer.fetches() > 0).await;
        let answer = gateway
            .ask(get("/api").bearer(&issuer.token().sign()))
            .await;
        assert_eq!(answer.verdict(), refused(503, "keys_unavailable"));
    }
}

/// R12: an outage of the issuer logs nobody out, whatever kind it is of, and as long as fetches go on failing.
#[tokio::test]
async fn known_keys_go_on_through_every_outage() {
    tokio::join!(
        sit_out(Fault::Down),
        sit_out(Fault::Status500),
        sit_out(Fault::Html),
        sit_out(Fault::EmptySet),
        sit_out(Fault::Huge),
        sit_out(Fault::Hangs),
        sit_out(Fault::Drips),
    );
}

async fn sit_out(fault: Fault) {
    let house = house_with("refresh = \"1s\"").await;
    let metric =
        async |name: &str, labels: &[(&str, &str)]| house.gateway.metric(name, labels).await;
    let failures = async || {
        let labels = [("issuer", "main"), ("result", "failed")];
        metric("vestibule_jwks_fetches_total", &labels).await
    };
    let age = async || metric("vestibule_jwks_age_seconds", &[("issuer", "main")]).await;
    house.issuer.fails(fault);
    let asked = || house.issuer.discoveries() + house.issuer.fetches();
    let (before, mut users) = (asked(), 0);
    let mut known = async || {
        users += 1;
        let token = house.issuer.token().claim("sub", format!("user {users}"));
        assert_eq!(house.verdict(&token.sign()).await.0, 200, "{fault:?}");
    };
    eventually("a fetch has failed", async || {
        known().await;
        failures().await >= 1.0
    })
    .await;
    // The step after the first failure is a second; what asked may still be waiting for its answer.
    assert!(asked() - before <= 2, "{fault:?}: {}", asked() - before);
    assert!(age().await > 0.5, "{fault:?}");
    // A reload in the middle of it keeps the keys, too.
    let conf = guarded(&house.issuer, &house.origin, "refresh = \"2s\"");
    assert_eq!(house.gateway.reload(&conf).await.status, 200);
    known().await;
    assert!(house.gateway.is_ready().await);
    // Whose key may exist: the issuer cannot be asked, so nobody knows.
    let unknown = house.issuer.token().header("kid", "new").sign();
    let verdict = house.verdict(&unknown).await;
    assert_eq!(verdict, refused(503, "keys_unavailable"), "{fault:?}");
    known().await;
}

/// R12: while an issuer fails, it is asked ever more seldom.
#[tokio::test]
async fn an_issuer_that_fails_is_asked_once_a_step_of_the_backoff() {
    let house = house_with("refresh = \"1s\"").await;
    house.issuer.fails(Fault::Status500);
    let failures = async || {
        let labels = [("issuer", "main"), ("result", "failed")];
        let count = house
            .gateway
            .metric("vestibule_jwks_fetches_total", &labels);
        count.await
    };
    eventually("the first failure", async || failures().await >= 1.0).await;
    let (started, asked) = (
        Instant::now(),
        house.issuer.discoveries() + house.issuer.fetches(),
    );
    eventually("two steps later", async || failures().await >= 3.0).await;
    // The steps are 1 s and 2 s, each up to a quarter shorter.
    assert!(
        started.elapsed().as_secs_f64() > 2.0,
        "{:?}",
        started.elapsed()
    );
    // A fetch that fails begins with discovery, and gets no further.
    let asked = house.issuer.discoveries() + house.issuer.fetches() - asked;
    assert!(asked <= 3, "{asked}");
    assert_eq!(house.verdict(&house.issuer.token().sign()).await.0, 200);
    let age = house
        .gateway
        .metric("vestibule_jwks_age_seconds", &[])
        .await;
    assert!(age > 2.0, "it rises: {age}");
}

/// R13: publish, sign with the new key at once.
#[tokio::test]
async fn a_rotated_key_is_found_by_its_first_token() {
    let house = house_with("").await;
    let old = house.issuer.token();
    assert_eq!(house.verdict(&old.sign()).await.0, 200);
    house.issuer.rotate(true);
    let new = house.issuer.token();
    assert_eq!(house.verdict(&new.sign()).await.0, 200);
    assert_eq!(house.verdict(&old.claim("n", 2).sign()).await.0, 200);
    assert!(house.issuer.fetches() <= 2);
}

#[tokio::test]
async fn a_key_that_was_withdrawn_is_refused_once_the_set_is_fetched() {
    let house = house_with("").await;
    let old = house.issuer.token();
    assert_eq!(house.verdict(&old.sign()).await.0, 200);
    house.issuer.rotate(false);
    assert_eq!(house.verdict(&house.issuer.token().sign()).await.0, 200);
    // Judged anew, even the very token that was judged good before.
    assert_eq!(house.verdict(&old.sign()).await, refused(401, "token_key"));
}

/// R14: whoever invents key ids costs the issuer nothing.
#[tokio::test]
async fn five_thousand_invented_kids_cost_two_fetches() {
    let house = house_with("").await;
    let (before, started) = (house.issuer.fetches(), Instant::now());
    let client = house.gateway.connect(Via::H2c).await;
    let forged: Token = house.issuer.token();
    let mut workers = Vec::new();
    for worker in 0..50 {
        let (mut client, forged) = (client.another(), forged.clone());
        workers.push(tokio::spawn(async move {
            for n in 0..100 {
                let token = forged
                    .clone()
                    .header("kid", format!("{worker}-{n}"))
                    .with_signature(&[1; 64]);
                let answer = client.send(get("/api").bearer(&token)).await;
                assert_eq!(answer.verdict(), refused(401, "token_key"));
            }
        }));
    }
    for n in 0..20 {
        let token = house.issuer.token().claim("n", n).sign();
        assert_eq!(house.verdict(&token).await.0, 200);
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let fetched = house.issuer.fetches() - before;
    // One may follow every ten seconds, on machines that are so slow.
    let tens = usize::try_from(started.elapsed().as_secs() / 10).unwrap();
    assert!(fetched <= 2 + tens, "{fetched}");
    assert_eq!(house.origin.heads(), 20);
    let told = house
        .gateway
        .metric("vestibule_rejections_total", &[("reason", "token_key")])
        .await;
    assert!((told - 5_000.0).abs() < 0.5, "{told}");
}
