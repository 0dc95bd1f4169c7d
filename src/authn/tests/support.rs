//! Keys, tokens and issuers for the tests of this room. Keys are made anew in every run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::authn::{Authn, Authorities, Bench, Issuer, TokenDemands};
use crate::config::{Config, KeyPath, Problems};
use crate::types::{Principal, Reason, Rejection};
use crate::upstream::{Cluster, Pools};

/// A private key.
pub(crate) enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Secret(Vec<u8>),
}

/// The keys of the issuer that tests trust: `rsa`, `p256`, `p384`, `ed`.
pub(crate) static KEYS: LazyLock<BTreeMap<&'static str, Signer>> = LazyLock::new(make_keys);

/// The keys of somebody else.
pub(crate) static STRANGER: LazyLock<BTreeMap<&'static str, Signer>> = LazyLock::new(make_keys);

fn make_keys() -> BTreeMap<&'static str, Signer> {
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    BTreeMap::from([
        (
            "rsa",
            Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
        ),
        ("p256", Signer::P256(p256)),
        ("p384", Signer::P384(p384)),
        ("ed", Signer::Ed(Ed25519KeyPair::generate().unwrap())),
    ])
}

impl Signer {
    pub(crate) fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let padding: &'static dyn RsaEncoding = match alg {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::P256(key) | Self::P384(key) => {
                key.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::Secret(secret) => {
                let hash = match alg {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message)
                    .as_ref()
                    .to_vec()
            }
        }
    }

    /// The public key, as the library knows it.
    pub(crate) fn public(&self) -> Vec<u8> {
        match self {
            Self::Rsa(key) => key.public_key().as_ref().to_vec(),
            Self::P256(key) | Self::P384(key) => key.public_key().as_ref().to_vec(),
            Self::Ed(key) => key.public_key().as_ref().to_vec(),
            Self::Secret(secret) => secret.clone(),
        }
    }

    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let public = self.public();
        match self {
            Self::Rsa(key) => json!({
                "kty": "RSA", "kid": kid,
                "n": b64(key.public_key().modulus().big_endian_without_leading_zero()),
                "e": b64(key.public_key().exponent().big_endian_without_leading_zero()),
            }),
            Self::P256(_) => point("P-256", kid, &public),
            Self::P384(_) => point("P-384", kid, &public),
            Self::Ed(_) => json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(&public) }),
            Self::Secret(_) => json!({ "kty": "oct", "kid": kid, "k": b64(&public) }),
        }
    }
}

fn point(curve: &str, kid: &str, public: &[u8]) -> Value {
    let (x, y) = public[1..].split_at(public.len() / 2);
    json!({ "kty": "EC", "crv": curve, "kid": kid, "x": b64(x), "y": b64(y) })
}

/// The key set of the trusted issuer.
pub(crate) fn key_set() -> Value {
    json!({ "keys": KEYS.iter().map(|(kid, key)| key.jwk(kid)).collect::<Vec<_>>() })
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token made of exactly these texts, signed as its header would say.
pub(crate) fn token_of(
    header: impl AsRef<[u8]>,
    payload: impl AsRef<[u8]>,
    alg: &str,
    key: &Signer,
) -> String {
    let message = format!("{}.{}", b64(header), b64(payload));
    let signature = key.sign(alg, message.as_bytes());
    format!("{message}.{}", b64(signature))
}

/// The moment at which all tests take place.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(crate) const ISSUER: &str = "https://auth.example.com";

/// Claims that the trusted issuer's policy accepts.
pub(crate) fn good_claims() -> Value {
    json!({ "iss": ISSUER, "aud": "billing", "sub": "u1", "exp": NOW + 600, "iat": NOW, "org": "o1" })
}

/// A good token of the P-256 key.
pub(crate) fn good_token() -> String {
    token(
        &json!({ "alg": "ES256", "kid": "p256", "typ": "at+jwt" }),
        &good_claims(),
    )
}

/// A token with this header and these claims, signed by the key that `kid` names.
pub(crate) fn token(header: &Value, claims: &Value) -> String {
    let kid = header["kid"].as_str().unwrap();
    let alg = header["alg"].as_str().unwrap();
    token_of(header.to_string(), claims.to_string(), alg, &KEYS[kid])
}

thread_local! {
    /// Each test runs in a thread of its own, and its files go with the thread.
    static FOLDER: TempDir = tempfile::tempdir().unwrap();
}

/// A file with this content, for the time of the test.
pub(crate) fn file(content: impl AsRef<[u8]>) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = COUNT.fetch_add(1, Ordering::Relaxed).to_string();
    let file = FOLDER.with(|folder| folder.path().join(name));
    std::fs::write(&file, content).unwrap();
    let mine_alone = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mine_alone).unwrap();
    file.display().to_string()
}

/// The configuration of an issuer whose key set is in a file.
pub(crate) fn file_issuer(keys: &Value, more: &str) -> String {
    let file = file(keys.to_string());
    format!(
        "[issuer.main]\nurl = \"{ISSUER}\"\naudiences = [\"billing\"]\njwks_file = \"{file}\"\n{more}\n"
    )
}

pub(crate) fn compile(toml: &str, previous: Option<&Authorities>) -> (Authorities, Vec<String>) {
    let config: Config = toml::from_str(toml).unwrap();
    let mut problems = Problems::default();
    let upstream = toml::from_str("endpoints = [\"http://127.0.0.1:1\"]").unwrap();
    let api = Cluster::compile("api", &upstream, &KeyPath::root(), None, &mut problems);
    let clusters = BTreeMap::from([("api".to_owned(), api.unwrap())]);
    let authorities = Authorities::compile(&config, &clusters, previous, &mut problems);
    let errors = problems.into_errors();
    (
        authorities,
        errors.iter().map(ToString::to_string).collect(),
    )
}

pub(crate) fn authorities(toml: &str) -> Authorities {
    let (authorities, problems) = compile(toml, None);
    assert_eq!(problems, Vec::<String>::new());
    authorities
}

/// What a route asks, as its `auth` is written.
pub(crate) fn authn(auth: &str, authorities: &Authorities) -> Authn {
    let mut problems = Problems::default();
    let route: crate::config::Route = toml::from_str(&format!("auth = {auth}")).unwrap();
    let authn = Authn::compile(&route.auth, &KeyPath::root(), authorities, &mut problems);
    assert!(problems.is_empty(), "{:?}", problems.into_errors());
    authn.unwrap()
}

/// The issuer's verdict on a token.
pub(crate) async fn judged(
    issuer: &Arc<Issuer>,
    token: &str,
    wall: SystemTime,
) -> Result<Principal, Rejection> {
    let bench = Bench::alone(Arc::clone(issuer));
    let demands = TokenDemands::default();
    bench.identify(&demands, &Pools::new(), token, wall).await
}

/// Shows `value` in the header `name`.
pub(crate) async fn identify(
    authn: &Authn,
    name: &'static str,
    value: &str,
    wall: SystemTime,
) -> Result<Principal, Reason> {
    let mut headers = http::HeaderMap::new();
    headers.insert(name, value.parse().unwrap());
    let pools = Pools::new();
    let verdict = authn.identify(&pools, &headers, wall).await;
    verdict.map_err(|why| {
        let needs_challenge = why.reason().status() == http::StatusCode::UNAUTHORIZED;
        assert_eq!(
            why.www_authenticate().is_some(),
            needs_challenge,
            "{:?}",
            why.reason()
        );
        why.reason()
    })
}
