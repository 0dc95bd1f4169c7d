//! Keys, and tokens good or bad.

use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Map, Value, json};

/// A key pair and the name it is published under.
#[derive(Clone)]
pub struct Key {
    pub kid: String,
    pub algorithm: Algorithm,
    private: Arc<EncodingKey>,
    public: Value,
}

/// RSA keys take long to make, so there are two for all tests: the issuer's, and a stranger's.
static RSA: LazyLock<[Key; 2]> = LazyLock::new(|| [rsa(), rsa()]);

fn rsa() -> Key {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let private = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
    Key::new("rsa", Algorithm::RS256, private)
}

impl Key {
    pub fn generate(algorithm: Algorithm, kid: &str) -> Self {
        let random = SystemRandom::new();
        match algorithm {
            Algorithm::RS256 => Self::named(&RSA[0], kid),
            Algorithm::ES256 => {
                let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
                Self::new(
                    kid,
                    algorithm,
                    EncodingKey::from_ec_der(key.unwrap().as_ref()),
                )
            }
            Algorithm::EdDSA => {
                let key = Ed25519KeyPair::generate_pkcs8v1(&random).unwrap();
                Self::new(kid, algorithm, EncodingKey::from_ed_der(key.as_ref()))
            }
            other => panic!("no test signs with {other:?}"),
        }
    }

    /// A key of the same kind that the issuer does not know, under the name of this one.
    pub fn impostor(&self) -> Self {
        match self.algorithm {
            Algorithm::RS256 => Self::named(&RSA[1], &self.kid),
            algorithm => Self::generate(algorithm, &self.kid),
        }
    }

    fn named(key: &Self, kid: &str) -> Self {
        let mut named = key.clone();
        kid.clone_into(&mut named.kid);
        named.public["kid"] = kid.into();
        named
    }

    fn new(kid: &str, algorithm: Algorithm, private: EncodingKey) -> Self {
        let public = Jwk::from_encoding_key(&private, algorithm).unwrap();
        let mut public = serde_json::to_value(public).unwrap();
        public["kid"] = kid.into();
        public["use"] = "sig".into();
        Self {
            kid: kid.to_owned(),
            algorithm,
            private: Arc::new(private),
            public,
        }
    }

    /// The public half, as a key set lists it.
    pub fn jwk(&self) -> Value {
        self.public.clone()
    }

    /// The signature over `message`, base64url.
    pub fn sign(&self, message: &str) -> String {
        jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, self.algorithm).unwrap()
    }
}

/// A good access token, until told otherwise.
#[derive(Clone)]
pub struct Token {
    key: Key,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    header_text: Option<String>,
    claims_text: Option<String>,
}

impl Token {
    pub fn new(key: &Key, issuer: &str) -> Self {
        let now = now();
        let header =
            json!({ "alg": format!("{:?}", key.algorithm), "kid": key.kid, "typ": "at+jwt" });
        let claims = json!({
            "iss": issuer, "aud": "api", "sub": "alice", "iat": now, "nbf": now, "exp": now + 300,
        });
        Self {
            key: key.clone(),
            header: header.as_object().unwrap().clone(),
            claims: claims.as_object().unwrap().clone(),
            header_text: None,
            claims_text: None,
        }
    }

    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    pub fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// Signs with another key; the header stays.
    pub fn signed_by(mut self, key: &Key) -> Self {
        self.key = key.clone();
        self
    }

    /// The header as text, whatever it says; the signature covers it.
    pub fn raw_header(mut self, text: &str) -> Self {
        self.header_text = Some(text.to_owned());
        self
    }

    pub fn raw_claims(mut self, text: &str) -> Self {
        self.claims_text = Some(text.to_owned());
        self
    }

    pub fn expired(self) -> Self {
        let now = now();
        self.claim("iat", now - 7_200)
            .claim("nbf", now - 7_200)
            .claim("exp", now - 3_600)
    }

    /// Header and claims, as they are signed.
    pub fn signing_input(&self) -> String {
        let header = self.header_text.clone();
        let header = header.unwrap_or_else(|| Value::from(self.header.clone()).to_string());
        let claims = self.claims_text.clone();
        let claims = claims.unwrap_or_else(|| Value::from(self.claims.clone()).to_string());
        format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        )
    }

    /// The compact form with the right signature.
    pub fn sign(&self) -> String {
        let input = self.signing_input();
        let signature = self.key.sign(&input);
        format!("{input}.{signature}")
    }

    /// The compact form with these bytes as the signature.
    pub fn with_signature(&self, signature: &[u8]) -> String {
        format!(
            "{}.{}",
            self.signing_input(),
            URL_SAFE_NO_PAD.encode(signature)
        )
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}
