//! What the library alone would let through (behaviour.md 0.6), and ours refuses. Each line stands for a layer of ours:
//! were it taken away, the line would fail; should the library become stricter, its half of the line tells.

use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::support::{
    ISSUER, KEYS, NOW, Signer, at, authorities, compile, file, file_issuer, good_claims, judged,
    key_set, token, token_of,
};
use crate::authn::jwks::{KeySet, KeySetError};
use crate::config::Algorithm as Ours;
use crate::types::Reason;

const HEADER: &str = r#"{"alg":"ES256","kid":"p256","typ":"at+jwt"}"#;

/// The verdict of `jsonwebtoken` with what its documentation shows: the algorithm, the audience and the issuer named.
fn library_accepts(token: &str) -> bool {
    // Tests elsewhere may have set it already: it is the same one.
    let _ = DEFAULT_PROVIDER.install_default();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["billing"]);
    validation.set_issuer(&[ISSUER]);
    // The tests stand at one moment for ever; the library reads the clock.
    validation.validate_exp = false;
    let key = DecodingKey::from_ec_der(&KEYS["p256"].public());
    jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
}

async fn ours_refuses(what: &str, token: &str, more: &str, reason: Reason) {
    let house = authorities(&file_issuer(&key_set(), more));
    let verdict = judged(&house.issuers["main"], token, at(NOW)).await;
    assert_eq!(verdict.map(drop).unwrap_err().reason(), reason, "{what}");
}

fn with_header(header: &str) -> String {
    token_of(header, good_claims().to_string(), "ES256", &KEYS["p256"])
}

fn with_claims(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = good_claims();
    change(&mut claims);
    token_of(HEADER, claims.to_string(), "ES256", &KEYS["p256"])
}

fn without(name: &str) -> String {
    with_claims(|claims| {
        claims.as_object_mut().unwrap().remove(name);
    })
}

#[tokio::test]
async fn what_the_library_alone_lets_through_is_refused() {
    let header =
        |extension: &str| with_header(&format!(r#"{{"alg":"ES256","kid":"p256",{extension}}}"#));
    let large = with_claims(|claims| claims["pad"] = "x".repeat(17 * 1024).into());
    for (what, token, more, reason) in [
        ("crit", header(r#""crit":["exp"]"#), "", Reason::TokenHeader),
        (
            "an empty crit",
            header(r#""crit":[]"#),
            "",
            Reason::TokenHeader,
        ),
        (
            "an unencoded payload",
            header(r#""b64":false,"crit":["b64"]"#),
            "",
            Reason::TokenHeader,
        ),
        (
            "iss as an array",
            with_claims(|claims| claims["iss"] = json!(["https://evil.example", ISSUER])),
            "",
            Reason::TokenIssuer,
        ),
        ("no iss", without("iss"), "", Reason::TokenIssuer),
        ("no aud", without("aud"), "", Reason::TokenAudience),
        (
            "nbf to come",
            with_claims(|claims| claims["nbf"] = (u64::MAX >> 12).into()),
            "",
            Reason::TokenNotYetValid,
        ),
        (
            "a logout token",
            header(r#""typ":"logout+jwt""#),
            "",
            Reason::TokenType,
        ),
        (
            "an ID token where access tokens are demanded",
            header(r#""typ":"JWT""#),
            "token_type = \"at+jwt\"",
            Reason::TokenType,
        ),
        ("a large one", large, "", Reason::TokenTooLarge),
    ] {
        assert!(
            library_accepts(&token),
            "the library has become stricter: {what}"
        );
        ours_refuses(what, &token, more, reason).await;
    }
}

/// The library forgives 60 s; ours as many as the operator says, 30 s by default.
#[tokio::test]
async fn a_leeway_of_a_minute_is_not_ours() {
    assert_eq!(Validation::new(Algorithm::ES256).leeway, 60);
    let old = with_claims(|claims| claims["exp"] = (NOW - 45).into());
    ours_refuses("45 s ago", &old, "", Reason::TokenExpired).await;
}

/// A set is any JSON of the right shape to the library: what keys are for, how often a name occurs and whether there are
/// secrets among them is left to whoever uses it.
#[test]
fn sets_that_the_library_reads_are_refused_or_left_out() {
    let key = |extra: Value| {
        let mut key = KEYS["p256"].jwk("p256");
        key.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        key
    };
    let read = |keys: Vec<Value>| {
        let text = json!({ "keys": keys }).to_string();
        let library: Result<JwkSet, _> = serde_json::from_str(&text);
        assert!(library.is_ok(), "the library has become stricter: {text}");
        KeySet::parse(text.as_bytes(), &[Ours::ES256])
    };
    let twice = read(vec![key(json!({})), key(json!({}))]);
    assert!(matches!(twice, Err(KeySetError::DuplicateKid(_))));
    let mixed = read(vec![
        key(json!({})),
        json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "s" }),
    ]);
    assert!(matches!(mixed, Err(KeySetError::SharedSecret)));
    for other_use in [json!({ "use": "enc" }), json!({ "key_ops": ["encrypt"] })] {
        let set = read(vec![key(other_use)]);
        assert!(matches!(set, Err(KeySetError::NoKey(_))), "{set:?}");
    }
}

/// One byte is a secret to the library.
#[test]
fn a_short_secret_refuses_to_start() {
    let short = Signer::Secret(b"x".to_vec());
    let claims = json!({ "sub": "u1", "exp": u64::MAX >> 12 });
    let token = token_of(r#"{"alg":"HS256"}"#, claims.to_string(), "HS256", &short);
    let _ = DEFAULT_PROVIDER.install_default();
    let key = DecodingKey::from_secret(b"x");
    let validation = Validation::new(Algorithm::HS256);
    let accepted = jsonwebtoken::decode::<Value>(&token, &key, &validation);
    assert!(
        accepted.is_ok(),
        "the library has become stricter: {accepted:?}"
    );
    let secret = file("x");
    let toml = format!(
        "[issuer.main]\nurl = \"x\"\naudiences = [\"y\"]\nalgorithms = [\"HS256\"]\nsecret = {{ file = \"{secret}\" }}\n"
    );
    let (_, problems) = compile(&toml, None);
    assert!(
        problems[0].contains("the secret has 1 bytes; HS256 needs 32"),
        "{problems:?}"
    );
}

/// The library has no ES512; neither have we, and neither takes it for something else.
#[tokio::test]
async fn what_neither_knows_is_refused_by_name() {
    let token = token(&json!({ "alg": "ES256", "kid": "p256" }), &good_claims());
    let rest = token.split_once('.').unwrap().1;
    let header = super::support::b64(r#"{"alg":"ES512","kid":"p256"}"#);
    let forged = format!("{header}.{rest}");
    assert!(!library_accepts(&forged));
    ours_refuses("ES512", &forged, "", Reason::TokenAlgorithm).await;
}
