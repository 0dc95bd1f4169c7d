//! How the gateway proves to an issuer who asks (RFC 6749 section 2.3, RFC 7523). Exactly one way a request: an issuer
//! that sees two refuses both.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::HeaderValue;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, EncodingKey};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use zeroize::Zeroizing;

use crate::config::Secret;
use crate::types::clock::unix_seconds;

/// The gateway at one issuer.
pub(super) enum Client {
    /// `client_secret_basic`.
    Basic {
        /// Its id.
        id: String,
        /// The whole field.
        authorization: HeaderValue,
    },
    /// `client_secret_post`.
    Post {
        /// Its id.
        id: String,
        /// What is added to the form.
        credentials: Zeroizing<String>,
    },
    /// `private_key_jwt`.
    Key {
        /// Its id.
        id: String,
        /// Signs.
        signer: Signer,
    },
}

/// A private key and what is said with it.
pub(super) struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    /// The header of what is signed, encoded.
    header: String,
    audience: String,
}

/// Everything that a decoder of forms or of URLs could take for something else. Spaces become `%20`, which both read.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// How long an assertion is good, in seconds.
const ASSERTION_LASTS: u64 = 60;

/// `text` as a name or value of a form.
pub(super) fn encoded(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, FORM)
}

impl Client {
    /// Both halves are encoded as in a form before they are joined (RFC 6749 section 2.3.1); a secret that holds a
    /// colon or a percent sign is misread otherwise.
    pub(super) fn basic(id: &str, secret: &Secret) -> Option<Self> {
        let secret = std::str::from_utf8(secret.expose()).ok()?;
        let joined = Zeroizing::new(format!("{}:{}", encoded(id), encoded(secret)));
        let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(joined.as_bytes())));
        let mut authorization = HeaderValue::from_str(&text).ok()?;
        authorization.set_sensitive(true);
        Some(Self::Basic {
            id: id.to_owned(),
            authorization,
        })
    }

    pub(super) fn post(id: &str, secret: &Secret) -> Option<Self> {
        let secret = std::str::from_utf8(secret.expose()).ok()?;
        Some(Self::Post {
            id: id.to_owned(),
            credentials: Zeroizing::new(format!(
                "&client_id={}&client_secret={}",
                encoded(id),
                encoded(secret)
            )),
        })
    }

    pub(super) fn with_key(id: &str, signer: Signer) -> Self {
        Self::Key {
            id: id.to_owned(),
            signer,
        }
    }

    /// The id at the issuer.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Basic { id, .. } | Self::Post { id, .. } | Self::Key { id, .. } => id,
        }
    }

    /// Adds to the form what belongs there, or returns the `Authorization` to send.
    pub(super) fn authenticate(
        &self,
        form: &mut String,
        wall: SystemTime,
    ) -> Result<Option<HeaderValue>, String> {
        match self {
            Self::Basic { authorization, .. } => return Ok(Some(authorization.clone())),
            Self::Post { credentials, .. } => form.push_str(credentials),
            Self::Key { id, signer } => {
                form.push_str("&client_assertion_type=");
                form.push_str("urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer");
                form.push_str("&client_assertion=");
                form.push_str(&signer.assertion(id, wall)?);
            }
        }
        Ok(None)
    }
}

impl Signer {
    /// A private key in PEM: RSA, P-256, P-384 or Ed25519; the key tells which, and so how it signs.
    pub(super) fn new(pem: &Secret, kid: Option<&str>, audience: &str) -> Result<Self, String> {
        let (key, algorithm) = Self::key(pem.expose()).ok_or(
            "is no private key in PEM that can sign: RSA of at least 2048 bits, P-256 or P-384 in PKCS #8, Ed25519",
        )?;
        let name = format!("{algorithm:?}");
        let header = match kid {
            Some(kid) => json!({ "alg": name, "typ": "JWT", "kid": kid }),
            None => json!({ "alg": name, "typ": "JWT" }),
        };
        Ok(Self {
            key,
            algorithm,
            header: URL_SAFE_NO_PAD.encode(header.to_string()),
            audience: audience.to_owned(),
        })
    }

    fn key(pem: &[u8]) -> Option<(EncodingKey, Algorithm)> {
        let candidates = [
            (EncodingKey::from_rsa_pem(pem), &[Algorithm::RS256][..]),
            (
                EncodingKey::from_ec_pem(pem),
                &[Algorithm::ES256, Algorithm::ES384],
            ),
            (EncodingKey::from_ed_pem(pem), &[Algorithm::EdDSA]),
        ];
        // A key fits an algorithm if it signs with it.
        candidates.into_iter().find_map(|(key, algorithms)| {
            let key = key.ok()?;
            let fits = |one: &&Algorithm| sign(&key, **one, b"").is_some();
            let algorithm = *algorithms.iter().find(fits)?;
            Some((key, algorithm))
        })
    }

    /// Each is good for one question: issuers refuse a `jti` that they have seen.
    fn assertion(&self, id: &str, wall: SystemTime) -> Result<String, String> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| "there is no randomness".to_owned())?;
        let now = unix_seconds(wall);
        let claims = json!({
            "iss": id,
            "sub": id,
            "aud": self.audience,
            "jti": URL_SAFE_NO_PAD.encode(random),
            "iat": now,
            "exp": now + ASSERTION_LASTS,
        });
        let message = format!(
            "{}.{}",
            self.header,
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = sign(&self.key, self.algorithm, message.as_bytes())
            .ok_or_else(|| "the assertion cannot be signed".to_owned())?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn sign(key: &EncodingKey, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
    // The provider is named here, so that no process-wide default can be missing or be another one.
    let signer = (DEFAULT_PROVIDER.signer_factory)(&algorithm, key).ok()?;
    signer.try_sign(message).ok()
}
