//! Opaque tokens: the issuer is asked, once, as exactly one client, and believed for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::matrix;
use crate::support::client::{Told, Via, get, refused};
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::issuer::{self, Issuer};
use crate::support::origin::{self, Gate, Origin, Reply, Seen, gate};
use crate::support::token::now;
use crate::support::{eventually, pki};

const ROUTES: &str = r#"
    [[route]]
    name = "api"
    path = "/api"
    auth = { any = ["main"] }
    upstream = "api"
    [[route]]
    name = "optional"
    path = "/optional"
    auth = { any = ["main"], optional = true }
    upstream = "api"
    [[route]]
    name = "orders"
    path = "/orders"
    auth = { any = ["main"], scopes = ["orders:read"], claims = { tenant = "acme" } }
    upstream = "api"
"#;

/// An introspection endpoint that knows the tokens it was told of.
struct Endpoint {
    origin: Origin,
    asked: Arc<AtomicUsize>,
    says: Arc<Mutex<HashMap<String, Reply>>>,
}

async fn endpoint() -> Endpoint {
    endpoint_behind(None).await
}

async fn endpoint_behind(gate: Option<Gate>) -> Endpoint {
    let asked = Arc::<AtomicUsize>::default();
    let says = Arc::<Mutex<HashMap<String, Reply>>>::default();
    let (counter, told) = (Arc::clone(&asked), Arc::clone(&says));
    let origin = origin::http()
        .on("/introspect", move |seen| {
            counter.fetch_add(1, Ordering::SeqCst);
            let token = field(seen, "token").unwrap();
            let known = told.lock().get(&token).cloned();
            let reply = known.unwrap_or_else(|| Reply::json(&json!({ "active": false })));
            match &gate {
                Some(gate) => reply.behind(gate),
                None => reply,
            }
        })
        .run()
        .await;
    Endpoint {
        origin,
        asked,
        says,
    }
}

impl Endpoint {
    fn says(&self, token: &str, reply: Reply) {
        self.says.lock().insert(token.to_owned(), reply);
    }

    fn knows(&self, token: &str, answer: &Value) {
        self.says(token, Reply::json(answer));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn url(&self) -> String {
        format!("http://{}/introspect", self.origin.address)
    }

    /// `[issuer.main.introspection]` with a secret.
    fn section(&self, keys: &str) -> String {
        let secret = pki::SHARED.file("introspection-secret", "s3cr:t/ with%odd+signs");
        format!(
            "[issuer.main.introspection]\nurl = \"{}\"\nclient_id = \"edge:1\"\nclient_secret = {{ file = {secret:?} }}\n{keys}",
            self.url()
        )
    }
}

/// A field of a form; two of one name are a failure.
fn field(seen: &Seen, name: &str) -> Option<String> {
    let text = seen.text();
    let mut values = text.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| decoded(value))
    });
    let value = values.next();
    assert!(values.next().is_none(), "{name} twice: {text}");
    value
}

fn decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text)
        .decode_utf8()
        .unwrap()
        .into_owned()
}

fn alice() -> Value {
    json!({
        "active": true, "sub": "alice", "client_id": "web", "scope": "orders:read openid", "aud": ["api", "x"],
        "exp": now() + 300, "iat": now(), "iss": null, "token_type": "Bearer", "tenant": "acme",
        "email": "a@example.com", "roles": ["admin"],
    })
}

struct House {
    issuer: Issuer,
    endpoint: Endpoint,
    api: Origin,
    gateway: Gateway,
}

fn guarded(issuer: &Issuer, endpoint: &Endpoint, api: &Origin, keys: &str) -> Builder {
    conf(ROUTES)
        .issuer_with(issuer, &endpoint.section(keys))
        .upstream("api", api)
}

async fn house(keys: &str) -> House {
    house_behind(keys, None).await
}

async fn house_behind(keys: &str, gate: Option<Gate>) -> House {
    let issuer = issuer::run().await;
    let endpoint = endpoint_behind(gate).await;
    let api = origin::http().run().await;
    let gateway = guarded(&issuer, &endpoint, &api, keys).run().await;
    gateway.ready().await;
    House {
        issuer,
        endpoint,
        api,
        gateway,
    }
}

impl House {
    async fn verdict(&self, token: &str) -> (u16, String) {
        self.gateway.ask(get("/api").bearer(token)).await.verdict()
    }
}

matrix! {
    async fn an_opaque_token_passes_if_its_issuer_says_so(via, speaks) {
        let issuer = issuer::run().await;
        let endpoint = endpoint().await;
        let api = origin::speaking(speaks).run().await;
        let gateway = guarded(&issuer, &endpoint, &api, "").run().await;
        gateway.ready().await;
        endpoint.knows("opaque", &alice());
        let mut client = gateway.connect(via).await;

        let answer = client.send(get("/api").bearer("nobody")).await;
        assert_eq!(answer.verdict(), refused(401, "token_inactive"));
        assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""));
        assert!(api.saw_nothing());

        let answer = client.send(get("/api").bearer("opaque").header("x-auth-user", "root")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = api.last();
        let told = ["x-auth-user", "x-auth-email", "x-auth-roles", "x-auth-method"].map(|name| seen.header(name).to_owned());
        assert_eq!(told, ["alice", "a@example.com", "admin", "introspection"]);
        assert_eq!(client.send(get("/orders").bearer("opaque")).await.status, 200);
        assert_eq!(endpoint.asked(), 2);

        // A JWT is for the keys; it is never sent anywhere.
        assert_eq!(client.send(get("/api").bearer(&issuer.token().sign())).await.status, 200);
        let forged = issuer.token().signed_by(&issuer.key(jsonwebtoken::Algorithm::ES256).impostor()).sign();
        assert_eq!(client.send(get("/api").bearer(&forged)).await.verdict(), refused(401, "token_signature"));
        assert_eq!(endpoint.asked(), 2);
    }
}

#[tokio::test]
async fn the_question_names_the_gateway_once_and_encoded() {
    let house = house("").await;
    house.verdict("odd~token+/=").await;
    let seen = house.endpoint.origin.only();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("POST", "/introspect")
    );
    assert_eq!(
        seen.authority,
        house.endpoint.origin.address.to_string(),
        "the public Host"
    );
    assert_eq!(
        seen.header("content-type"),
        "application/x-www-form-urlencoded"
    );
    assert_eq!(field(&seen, "token").unwrap(), "odd~token+/=");
    assert_eq!(field(&seen, "token_type_hint").unwrap(), "access_token");
    let basic = seen.header("authorization").strip_prefix("Basic ").unwrap();
    let basic = String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap();
    assert_eq!(basic, "edge%3A1:s3cr%3At%2F%20with%25odd%2Bsigns");
    for other in ["client_id", "client_secret", "client_assertion"] {
        assert_eq!(field(&seen, other), None, "{other}");
    }
}

#[tokio::test]
async fn a_client_can_write_its_secret_into_the_form() {
    let house = house("auth = \"post\"").await;
    house.verdict("opaque").await;
    let seen = house.endpoint.origin.only();
    assert!(!seen.has("authorization"));
    assert_eq!(field(&seen, "client_id").unwrap(), "edge:1");
    let secret = field(&seen, "client_secret").unwrap();
    assert_eq!(secret, "s3cr:t/ with%odd+signs");
}

#[tokio::test]
async fn a_client_can_sign_and_signs_anew_each_time() {
    for (algorithm, kind) in [
        ("RS256", &rcgen::PKCS_RSA_SHA256),
        ("ES256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("ES384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("EdDSA", &rcgen::PKCS_ED25519),
    ] {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let pem = pki::SHARED.file(&format!("client-{algorithm}"), &pair.serialize_pem());
        let issuer = issuer::run().await;
        let endpoint = endpoint().await;
        let api = origin::http().run().await;
        let section = format!(
            "[issuer.main.introspection]\nurl = \"{}\"\nclient_id = \"edge\"\nauth = \"private_key_jwt\"\nkey = {{ file = {pem:?} }}\nkey_id = \"k1\"",
            endpoint.url()
        );
        let gateway = conf(ROUTES)
            .issuer_with(&issuer, &section)
            .upstream("api", &api);
        let gateway = gateway.run().await;
        for token in ["one", "two"] {
            gateway.ask(get("/api").bearer(token)).await;
        }
        let mut seen_ids = Vec::new();
        for seen in endpoint.origin.saw() {
            assert!(!seen.has("authorization"));
            assert_eq!(field(&seen, "client_id"), None);
            assert_eq!(field(&seen, "client_secret"), None);
            let kind = field(&seen, "client_assertion_type").unwrap();
            assert_eq!(
                kind,
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            );
            let assertion = field(&seen, "client_assertion").unwrap();
            let parts: Vec<&str> = assertion.split('.').collect();
            let read = |part: &str| -> Value {
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
            };
            let (header, claims) = (read(parts[0]), read(parts[1]));
            assert_eq!(
                header,
                json!({ "alg": algorithm, "kid": "k1", "typ": "JWT" })
            );
            assert_eq!(
                (&claims["iss"], &claims["sub"]),
                (&json!("edge"), &json!("edge"))
            );
            assert_eq!(claims["aud"], issuer.url());
            let (iat, exp) = (
                claims["iat"].as_i64().unwrap(),
                claims["exp"].as_i64().unwrap(),
            );
            assert!(exp - iat == 60 && (iat - now()).abs() < 60);
            seen_ids.push(claims["jti"].as_str().unwrap().to_owned());
            assert!(is_signed(&pair, algorithm, &assertion), "{algorithm}");
        }
        assert_eq!(seen_ids.len(), 2);
        assert_ne!(seen_ids[0], seen_ids[1]);
    }
}

fn is_signed(pair: &rcgen::KeyPair, algorithm: &str, assertion: &str) -> bool {
    use aws_lc_rs::signature;
    let (message, signature) = assertion.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let verifier: &dyn signature::VerificationAlgorithm = match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "ES256" => &signature::ECDSA_P256_SHA256_FIXED,
        "ES384" => &signature::ECDSA_P384_SHA384_FIXED,
        _ => &signature::ED25519,
    };
    signature::UnparsedPublicKey::new(verifier, rcgen::PublicKeyData::der_bytes(pair))
        .verify(message.as_bytes(), &signature)
        .is_ok()
}

#[tokio::test]
async fn a_good_answer_is_believed_for_its_time_and_asked_for_once() {
    let gate = gate();
    let house = house_behind("cache = \"60s\"", Some(gate.clone())).await;
    house.endpoint.knows("opaque", &alice());
    let client = house.gateway.connect(Via::H2c).await;
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let mut client = client.another();
            tokio::spawn(async move { client.send(get("/api").bearer("opaque")).await.status })
        })
        .collect();
    house.endpoint.origin.reached(1).await;
    house
        .gateway
        .counted("vestibule_requests_in_flight", &[], 50.0)
        .await;
    gate.open();
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), 200);
    }
    assert_eq!(house.verdict("opaque").await.0, 200);
    assert_eq!(house.endpoint.asked(), 1);
    let outcome = async |outcome| {
        let labels = [
            ("source", "main"),
            ("kind", "introspection"),
            ("outcome", outcome),
        ];
        house
            .gateway
            .metric("vestibule_confirmations_total", &labels)
            .await
    };
    assert!((outcome("confirmed").await - 1.0).abs() < 0.5);
    assert!(outcome("cached").await >= 1.0);
}

#[tokio::test]
async fn no_answer_outlives_its_token_and_a_no_is_soon_asked_for_again() {
    let house = house("cache = \"60s\"").await;
    let mut ending = alice();
    ending["exp"] = json!(now() + 2);
    house.endpoint.knows("ending", &ending);
    assert_eq!(house.verdict("ending").await.0, 200);
    house
        .endpoint
        .says("ending", Reply::json(&json!({ "active": false })));
    eventually("the token ends with its exp", async || {
        house.verdict("ending").await == refused(401, "token_inactive")
    })
    .await;

    assert_eq!(house.verdict("late").await, refused(401, "token_inactive"));
    let asked = house.endpoint.asked();
    assert_eq!(house.verdict("late").await, refused(401, "token_inactive"));
    assert_eq!(house.endpoint.asked(), asked, "believed for a moment");
    house.endpoint.knows("late", &alice());
    eventually("the token is known by now", async || {
        house.verdict("late").await.0 == 200
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_asked_is_503_and_never_anonymous() {
    let house = house("timeout = \"300ms\"").await;
    for (n, reply) in [
        Reply::empty(500),
        Reply::empty(401),
        Reply::empty(403),
        Reply::empty(302).header("location", "/elsewhere"),
        Reply::text("<html>").header("content-type", "text/html"),
        Reply::json(&json!({})),
        Reply::json(&json!([])),
        Reply::json(&json!({ "active": "true" })),
        Reply::json(&json!({ "active": 1 })),
        Reply::text("{\"active\":false,\"active\":true}"),
        Reply::text(vec![b' '; 1 << 20]),
        Reply::broken("{\"active\":true"),
        Reply::never(),
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("token{n}");
        house.endpoint.says(&token, reply.clone());
        for path in ["/api", "/optional"] {
            let answer = house.gateway.ask(get(path).bearer(&token)).await;
            let expected = refused(503, "introspection_unavailable");
            assert_eq!(answer.verdict(), expected, "{reply:?}");
            assert_eq!(answer.header("retry-after"), "1");
        }
        // A failure is not kept.
        house.endpoint.knows(&token, &alice());
        assert_eq!(house.verdict(&token).await.0, 200, "{reply:?}");
    }
    let address = house.endpoint.origin.stop().await;
    let verdict = house.gateway.ask(get("/api").bearer("new")).await.verdict();
    assert_eq!(
        verdict,
        refused(503, "introspection_unavailable"),
        "{address}"
    );
    // Everything else goes on.
    let jwt = house.issuer.token().sign();
    let answer = house.gateway.ask(get("/api").bearer(&jwt)).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn what_an_active_answer_says_must_fit() {
    let issuer = issuer::run().await;
    let endpoint = endpoint().await;
    let api = origin::http().run().await;
    let keys = format!("required_claims = [\"tenant\"]\n{}", endpoint.section(""));
    let gateway = conf(ROUTES)
        .issuer_with(&issuer, &keys)
        .upstream("api", &api);
    let gateway = gateway.run().await;
    let table: Vec<(&str, Value, &str)> = vec![
        ("iss", json!("https://evil.example"), "token_issuer"),
        ("iss", json!([issuer.url()]), "token_issuer"),
        ("aud", json!("other"), "token_audience"),
        ("aud", json!({ "api": 1 }), "token_audience"),
        ("exp", json!(now() - 60), "token_expired"),
        ("exp", json!("9999999999"), "token_claims"),
        ("nbf", json!(now() + 120), "token_not_yet_valid"),
        ("iat", json!(now() + 120), "token_not_yet_valid"),
        ("token_type", json!("DPoP"), "token_type"),
        ("token_type", json!("refresh_token"), "token_type"),
        ("token_type", json!(["Bearer"]), "token_type"),
        ("token_use", json!("refresh_token"), "token_type"),
        ("tenant", json!(null), "token_claims"),
    ];
    for (n, (name, value, code)) in table.into_iter().enumerate() {
        let token = format!("token{n}");
        let mut answer = alice();
        answer[name] = value.clone();
        endpoint.knows(&token, &answer);
        let verdict = gateway.ask(get("/api").bearer(&token)).await.verdict();
        assert_eq!(verdict, refused(401, code), "{name}: {value}");
    }
    let mut fits = alice();
    fits["iss"] = issuer.url().into();
    fits["token_type"] = json!("bearer");
    endpoint.knows("fits", &fits);
    assert_eq!(gateway.ask(get("/api").bearer("fits")).await.status, 200);
    assert_eq!(api.heads(), 1);
}

/// An answer may be as short as this; rules that need more say no.
#[tokio::test]
async fn a_minimal_answer_is_enough_to_be_somebody_without_a_name() {
    let house = house("").await;
    house
        .endpoint
        .knows("minimal", &json!({ "active": true, "username": "root" }));
    assert_eq!(house.verdict("minimal").await.0, 200);
    let seen = house.api.last();
    for name in ["x-auth-user", "x-auth-roles", "x-auth-email", "x-auth-org"] {
        assert!(!seen.has(name), "{name}");
    }
    assert_eq!(seen.header("x-auth-method"), "introspection");
    let answer = house.gateway.ask(get("/orders").bearer("minimal")).await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn where_all_tokens_are_asked_about_a_revoked_jwt_is_noticed() {
    let house = house("tokens = \"all\"\ncache = \"100ms\"").await;
    let token = house.issuer.token().sign();
    house.endpoint.knows(&token, &alice());
    assert_eq!(house.verdict(&token).await.0, 200);
    house.endpoint.says.lock().clear();
    eventually("the revocation is seen", async || {
        house.verdict(&token).await == refused(401, "token_inactive")
    })
    .await;
    assert_eq!((house.issuer.fetches(), house.issuer.discoveries()), (0, 0));
}

/// The same token at another issuer may be somebody else's.
#[tokio::test]
async fn what_one_endpoint_said_does_not_count_at_another() {
    let (one, other) = (endpoint().await, endpoint().await);
    let api = origin::http().run().await;
    let secret = pki::SHARED.file("introspection-secret", "s3cr:t/ with%odd+signs");
    let mut text = String::new();
    for (name, endpoint) in [("one", &one), ("other", &other)] {
        text.push_str(&format!(
            r#"
            [[route]]
            path = "/{name}"
            auth = {{ any = ["{name}"] }}
            upstream = "api"
            [issuer.{name}]
            url = "https://{name}.example"
            audiences = []
            introspection = {{ url = "{}", tokens = "all", client_id = "edge", client_secret = {{ file = {secret:?} }} }}
            "#,
            endpoint.url()
        ));
    }
    let gateway = conf(&text).upstream("api", &api).run().await;
    one.knows("token", &json!({ "active": true, "sub": "alice" }));
    other.knows("token", &json!({ "active": true, "sub": "bob" }));
    for (path, user) in [
        ("/one", "alice"),
        ("/other", "bob"),
        ("/one", "alice"),
        ("/other", "bob"),
    ] {
        let answer = gateway.ask(get(path).bearer("token")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(api.last().header("x-auth-user"), user);
    }
    assert_eq!((one.asked(), other.asked()), (1, 1));
}

#[tokio::test]
async fn questions_under_way_are_bounded() {
    let gate = gate();
    let house = house_behind("max_requests = 2\ntimeout = \"20s\"", Some(gate.clone())).await;
    let client = house.gateway.connect(Via::H2c).await;
    let waiting: Vec<_> = (0..2)
        .map(|n| {
            let mut client = client.another();
            let call = get("/api").bearer(&format!("slow{n}"));
            tokio::spawn(async move { client.send(call).await.verdict() })
        })
        .collect();
    house.endpoint.origin.reached(2).await;
    assert_eq!(
        house.verdict("third").await,
        refused(503, "introspection_unavailable")
    );
    gate.open();
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), refused(401, "token_inactive"));
    }
    assert_eq!(house.verdict("third").await.0, 401);
}

#[tokio::test]
async fn a_cookie_can_hold_what_the_issuer_is_asked_about() {
    let issuer = issuer::run().await;
    let endpoint = endpoint().await;
    let api = origin::http().run().await;
    let gateway = conf(
        r#"
        [[route]]
        path = "/asked"
        auth = { any = ["asked"] }
        upstream = "api"
        [[route]]
        path = "/either"
        auth = { any = ["either"] }
        upstream = "api"
        [session.asked]
        cookie = "at"
        introspection = "main"
        [session.either]
        cookie = "at"
        issuer = "main"
    "#,
    )
    .issuer_with(&issuer, &endpoint.section(""))
    .upstream("api", &api)
    .run()
    .await;
    gateway.ready().await;
    let jwt = issuer.token().sign();
    endpoint.knows("opaque", &alice());
    let ask = async |path: &str, value: &str| {
        let call = get(path).header("cookie", &format!("at={value}"));
        gateway.ask(call).await.verdict()
    };
    assert_eq!(ask("/asked", "opaque").await.0, 200);
    assert_eq!(ask("/either", "opaque").await.0, 200);
    assert_eq!(ask("/either", &jwt).await.0, 200);
    assert_eq!(endpoint.asked(), 1, "one answer for both routes");
    assert_eq!(ask("/asked", &jwt).await, refused(401, "token_inactive"));
    assert_eq!(ask("/asked", "b").await, refused(401, "token_inactive"));
}

#[tokio::test]
async fn what_does_not_fit_together_does_not_start() {
    let issuer = issuer::run().await;
    let endpoint = endpoint().await;
    let api = origin::http().run().await;
    let secret = pki::SHARED.file("introspection-secret", "s3cr:t/ with%odd+signs");
    let section = |keys: &str| {
        format!(
            "[issuer.main.introspection]\nurl = \"{}\"\n{keys}",
            endpoint.url()
        )
    };
    let with_secret = format!("client_id = \"e\"\nclient_secret = {{ file = {secret:?} }}");
    for (keys, why) in [
        (section("client_id = \"e\""), "client_secret"),
        (section(&with_secret.replace("\"e\"", "\"\"")), "client_id"),
        (
            section("client_id = \"e\"\nauth = \"private_key_jwt\""),
            "introspection.key",
        ),
        (
            section(&format!("auth = \"private_key_jwt\"\n{with_secret}")),
            "exactly one way",
        ),
        (
            section(&format!(
                "auth = \"private_key_jwt\"\nclient_id = \"e\"\nkey = {{ file = {secret:?} }}"
            )),
            "no private key",
        ),
        (section(&format!("cache = \"2h\"\n{with_secret}")), "cache"),
        (
            section(&with_secret).replace(&endpoint.url(), "http://10.0.0.1/introspect"),
            "introspection.url",
        ),
        (
            section(&with_secret).replace(&endpoint.url(), "/introspect"),
            "introspection.url",
        ),
        (
            format!(
                "{}\n[issuer.other]\nurl = \"https://other.example\"\naudiences = [\"api\"]\n{}",
                section(&with_secret),
                section(&with_secret).replace("issuer.main", "issuer.other")
            ),
            "which to ask cannot be told",
        ),
        (
            format!(
                "jwks_url = \"https://a.example/keys\"\n{}",
                section(&format!("tokens = \"all\"\n{with_secret}"))
            ),
            "jwks_url",
        ),
    ] {
        let mut routes = ROUTES.to_owned();
        if keys.contains("issuer.other") {
            routes = routes.replace("[\"main\"]", "[\"main\", \"other\"]");
        }
        let conf = conf(&routes)
            .issuer_with(&issuer, &keys)
            .upstream("api", &api);
        let refusal = conf.try_run().unwrap_err().to_string();
        assert!(refusal.contains(why), "{why}: {refusal}");
        assert!(!refusal.contains("s3cr"), "{refusal}");
    }
}
