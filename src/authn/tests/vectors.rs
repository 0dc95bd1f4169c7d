//! Signature vectors in Wycheproof's format: our own, and the public ones as `tests/peers/install` fetches them.
//!
//! The payloads of the public files are no claims, so that this asks one layer below the claims: the shape of the JWS,
//! the key set, the signature. Every `invalid` must be refused; a `valid` one that is refused must be listed with its rule.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};

use super::support::{NOW, at, compile, file, file_issuer, judged, key_set};
use crate::authn::Issuer;
use crate::authn::jwt::shape::Jws;

/// Valid vectors that are refused: file, `tcId`s, and the rule of behaviour.md 2.4 that refuses them.
const REFUSED_BY_RULE: &[(&str, &[u64], &str)] = &[
    (
        "json_web_signature_test.json",
        &[346, 350],
        "the algorithm is that of the key entry (PS256), and the header says PS384",
    ),
    (
        "json_web_signature_test.json",
        &[347, 351],
        "ES512 is on no allow-list, and the entry calls it ES521",
    ),
    (
        "json_web_signature_test.json",
        &[372, 373],
        "no canonical base64url: a stray byte in a part",
    ),
    (
        "json_web_key_test.json",
        &[2],
        "a set with oct keys is refused whole",
    ),
    (
        "json_web_crypto_test.json",
        &[48],
        "a set with oct keys is refused whole",
    ),
    ("json_web_crypto_test.json", &[50, 67], "a JWE"),
];

#[tokio::test]
async fn our_own_vectors_are_judged_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/jose");
    let judged = judge_file(&folder.join("vestibule_signature_test.json")).await;
    assert!(judged > 150, "{judged}");
}

#[tokio::test]
async fn the_public_vectors_are_judged_right() {
    for (name, least) in [
        ("json_web_signature_test.json", 350),
        ("json_web_key_test.json", 20),
        ("json_web_crypto_test.json", 70),
    ] {
        let judged = judge_file(&public(name)).await;
        assert!(judged >= least, "{name}: {judged}");
    }
}

/// What they encrypt plays no part: nothing encrypted is a credential here, whatever key is published.
#[tokio::test]
async fn nothing_encrypted_is_taken() {
    let vectors = read(&public("json_web_encryption_test.json"));
    let issuer = issuer_of(&json!({ "public": { "keys": key_set()["keys"] } })).unwrap();
    let mut judged_all = 0;
    for group in vectors["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            judged_all += 1;
            let refused = is_refused_as_bearer(Some(&issuer), test).await;
            assert!(refused, "{}", test["tcId"]);
        }
    }
    assert!(judged_all >= 60, "{judged_all}");
}

/// A public file, unchanged. Missing, it fails the test.
fn public(name: &str) -> PathBuf {
    let folder = std::env::var_os("VESTIBULE_WYCHEPROOF").map(PathBuf::from);
    let installed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/wycheproof");
    let file = folder.unwrap_or_else(installed).join(name);
    assert!(
        file.is_file(),
        "{} is missing: run tests/peers/install, or set VESTIBULE_WYCHEPROOF to the folder that holds it",
        file.display()
    );
    file
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

async fn judge_file(path: &Path) -> usize {
    let vectors = read(path);
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut wrong = Vec::new();
    let mut judged = 0;
    for group in vectors["testGroups"].as_array().unwrap() {
        let issuer = issuer_of(group);
        let tests = group["tests"].as_array().unwrap();
        for test in tests {
            judged += 1;
            let id = test["tcId"].as_u64().unwrap();
            let accepted = accepts(issuer.as_deref(), test).await;
            if accepted != expected(name, id, test, tests) {
                let (group, test) = (&group["comment"], &test["comment"]);
                wrong.push(format!("{id} {group} {test}: accepted = {accepted}"));
            }
            if test["result"] == "invalid" {
                let refused = is_refused_as_bearer(issuer.as_ref(), test).await;
                assert!(refused, "{name}: {id} as a bearer token");
            }
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    judged
}

fn expected(name: &str, id: u64, test: &Value, tests: &[Value]) -> bool {
    let by_rule = REFUSED_BY_RULE
        .iter()
        .any(|(file, ids, _)| *file == name && ids.contains(&id));
    // Two vectors of the public file lost the padding that made them invalid, and equal a valid one to the byte; as
    // bearer tokens they are refused, since their payload holds no claims.
    let is_a_valid_one = tests
        .iter()
        .any(|other| other["result"] == "valid" && token(other) == token(test));
    is_a_valid_one && !by_rule
}

async fn is_refused_as_bearer(issuer: Option<&Arc<Issuer>>, test: &Value) -> bool {
    let Some(issuer) = issuer else { return true };
    let verdict = judged(issuer, &token(test), at(NOW)).await;
    verdict.is_err_and(|why| why.reason().status() == StatusCode::UNAUTHORIZED)
}

fn token(test: &Value) -> String {
    let written = test.get("jws").or_else(|| test.get("jwe")).unwrap();
    written
        .as_str()
        .map_or_else(|| written.to_string(), str::to_owned)
}

async fn accepts(issuer: Option<&Issuer>, test: &Value) -> bool {
    let token = token(test);
    let (Some(issuer), Ok(jws)) = (issuer, Jws::parse(&token)) else {
        return false;
    };
    issuer.check_algorithm(&jws).is_ok() && issuer.check_signature(&jws, at(NOW)).await.is_ok()
}

/// The issuer that has the keys of a group: one shared secret is a local secret, everything else a key set. `None`
/// when the configuration is refused.
fn issuer_of(group: &Value) -> Option<Arc<Issuer>> {
    let source = group
        .get("public")
        .or_else(|| group.get("private"))
        .unwrap();
    let keys = match source.get("keys") {
        Some(keys) => keys.as_array().unwrap().clone(),
        None => vec![source.clone()],
    };
    let toml = match keys.as_slice() {
        [only] if only["kty"] == "oct" => secret_issuer(only),
        _ => file_issuer(
            &json!({ "keys": keys }),
            r#"algorithms = ["RS256","RS384","RS512","PS256","PS384","PS512","ES256","ES384","EdDSA"]"#,
        ),
    };
    let (authorities, problems) = compile(&toml, None);
    let issuer = authorities.issuers.get("main").map(Arc::clone);
    issuer.filter(|_| problems.is_empty())
}

fn secret_issuer(key: &Value) -> String {
    // An algorithm that no configuration can name is no algorithm for secrets.
    let alg = key["alg"].as_str().filter(|alg| alg.starts_with("HS"));
    let alg = alg.unwrap_or("RS256");
    let secret = file(URL_SAFE_NO_PAD.decode(key["k"].as_str().unwrap()).unwrap());
    format!(
        "[issuer.main]\nurl = \"x\"\naudiences = [\"x\"]\nalgorithms = [\"{alg}\"]\nsecret = {{ file = \"{secret}\" }}\n"
    )
}
