//! The signed word of the gateway on who calls; what becomes of the bearer token.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::matrix;
use crate::support::client::get;
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::issuer::{self, Issuer};
use crate::support::origin::{self, Origin, Seen, Speaks};
use crate::support::token::now;

const ROUTES: &str = r#"
    [[route]]
    path = "/asserted"
    auth = { any = ["main"], optional = true }
    assertion = true
    bearer = "strip"
    upstream = "api"
    [[route]]
    path = "/plain"
    auth = { any = ["main"] }
    upstream = "api"
    [[route]]
    path = "/.well-known/gateway.json"
    auth = "none"
    publish = "jwks"
    [assertion]
    issuer = "https://gateway.example.com"
"#;

fn configured(issuer: &Issuer, origin: &Origin) -> Builder {
    conf(ROUTES).issuer(issuer).upstream("api", origin)
}

async fn house(speaks: Speaks) -> (Issuer, Origin, Gateway) {
    let issuer = issuer::run().await;
    let origin = origin::speaking(speaks).run().await;
    let gateway = configured(&issuer, &origin).run().await;
    gateway.ready().await;
    (issuer, origin, gateway)
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The claims of an assertion, verified as an upstream would.
fn verified(seen: &Seen, set: &Value) -> Value {
    let token = seen.header("x-vestibule-assertion");
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let header = decoded(header);
    assert_eq!(header["alg"], "EdDSA");
    let keys = set["keys"].as_array().unwrap();
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).unwrap();
    assert!(key.get("d").is_none());
    let public = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(&ED25519, public)
        .verify(message.as_bytes(), &signature)
        .unwrap();
    decoded(claims)
}

matrix! {
    async fn an_upstream_can_verify_who_calls(via, speaks) {
        let (issuer, origin, gateway) = house(speaks).await;
        let mut client = gateway.connect(via).await;
        let public = client.send(get("/.well-known/gateway.json")).await;
        assert_eq!(public.header("content-type"), "application/jwk-set+json");
        let admin = gateway.admin(get("/jwks.json")).await;
        assert_eq!(public.text(), admin.text());
        let set = serde_json::from_str(&public.text()).unwrap();

        let token = issuer.token().claim("sub", "alice").claim("org", "acme").claim("roles", json!(["reader"])).sign();
        let call = get("/asserted").bearer(&token).header("x-vestibule-assertion", "forged").header("X_Vestibule.Assertion", "forged");
        assert_eq!(client.send(call).await.status, 200);
        let seen = origin.last();
        let claims = verified(&seen, &set);
        assert_eq!(claims["iss"], "https://gateway.example.com");
        assert_eq!((&claims["aud"], &claims["sub"]), (&json!("api"), &json!("alice")));
        assert_eq!((&claims["org"], &claims["roles"]), (&json!("acme"), &json!(["reader"])));
        let left = claims["exp"].as_i64().unwrap() - now();
        assert!((50..=60).contains(&left), "{left}");
        assert!(!seen.has("authorization"), "stripped");

        client.send(get("/asserted").bearer(&token)).await;
        assert_eq!(origin.last().all("x-vestibule-assertion"), seen.all("x-vestibule-assertion"), "made once");
    }
}

#[tokio::test]
async fn nothing_is_asserted_of_strangers_or_where_nobody_asked() {
    let (issuer, origin, gateway) = house(Speaks::Http).await;
    let forged = get("/asserted").header("x-vestibule-assertion", "forged");
    assert_eq!(gateway.ask(forged).await.status, 200);
    assert!(!origin.last().has("x-vestibule-assertion"));
    let token = issuer.token().sign();
    assert_eq!(gateway.ask(get("/plain").bearer(&token)).await.status, 200);
    let seen = origin.last();
    assert!(!seen.has("x-vestibule-assertion"));
    assert_eq!(seen.header("authorization"), format!("Bearer {token}"));
}

#[tokio::test]
async fn a_reload_keeps_the_key() {
    let (issuer, origin, gateway) = house(Speaks::Http).await;
    let before = gateway.admin(get("/jwks.json")).await.text();
    let reloaded = gateway.reload(&configured(&issuer, &origin)).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    assert_eq!(gateway.admin(get("/jwks.json")).await.text(), before);
}
