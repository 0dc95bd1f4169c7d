//! The signing keys of the demo backend and the tokens that they sign.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::RwLock;
use serde_json::{Map, Value};

/// An algorithm that the demo backend signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signing {
    /// RSA with SHA-256, a key of 2048 bits.
    Rs256,
    /// ECDSA on P-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Signing {
    /// Every algorithm, in the order of the key set.
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// The name of RFC 7518 and RFC 8037.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|signing| signing.as_str() == name)
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// A key, or a signature, that could not be made.
#[derive(Debug)]
pub struct KeyError(String);

impl KeyError {
    fn new(what: &str, why: &dyn std::fmt::Display) -> Self {
        Self(format!("{what}: {why}"))
    }
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

/// What becomes of the keys in use when new ones take their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Previous {
    /// Still published, so that tokens signed before stay good: a planned rotation.
    Published,
    /// Gone, with all their tokens: a restart, or a compromise.
    Gone,
}

/// The keys in force; replaced as a whole.
#[derive(Debug)]
pub(super) struct Keyring {
    keys: RwLock<Arc<KeySet>>,
}

/// One key an algorithm.
#[derive(Debug)]
struct KeySet {
    rsa: Key,
    ecdsa: Key,
    ed25519: Key,
    published: JwkSet,
}

#[derive(Debug)]
struct Key {
    signing: Signing,
    private: EncodingKey,
    public: Jwk,
}

impl Keyring {
    pub(super) fn generate() -> Result<Self, KeyError> {
        let keys = KeySet::generate(Vec::new())?;
        Ok(Self {
            keys: RwLock::new(Arc::new(keys)),
        })
    }

    pub(super) fn rotate(&self, previous: Previous) -> Result<(), KeyError> {
        let kept = match previous {
            Previous::Published => self.published().keys,
            Previous::Gone => Vec::new(),
        };
        let keys = KeySet::generate(kept)?;
        *self.keys.write() = Arc::new(keys);
        Ok(())
    }

    /// The public halves, as the key set is served.
    pub(super) fn published(&self) -> JwkSet {
        self.now().published.clone()
    }

    /// Signs `claims` in the way of RFC 9068 or with another `typ`.
    pub(super) fn sign(
        &self,
        signing: Signing,
        typ: &str,
        claims: &Map<String, Value>,
    ) -> Result<String, KeyError> {
        let keys = self.now();
        let key = keys.key(signing);
        key.sign(&key.header(typ), claims)
    }

    fn now(&self) -> Arc<KeySet> {
        Arc::clone(&self.keys.read())
    }
}

impl KeySet {
    fn generate(kept: Vec<Jwk>) -> Result<Self, KeyError> {
        let [rsa, ecdsa, ed25519] = [
            Key::generate(Signing::Rs256)?,
            Key::generate(Signing::Es256)?,
            Key::generate(Signing::EdDsa)?,
        ];
        let mut published: Vec<Jwk> = [&rsa, &ecdsa, &ed25519]
            .into_iter()
            .map(|key| key.public.clone())
            .collect();
        published.extend(kept.into_iter().take(MAX_KEPT_KEYS));
        Ok(Self {
            rsa,
            ecdsa,
            ed25519,
            published: JwkSet { keys: published },
        })
    }

    fn key(&self, signing: Signing) -> &Key {
        match signing {
            Signing::Rs256 => &self.rsa,
            Signing::Es256 => &self.ecdsa,
            Signing::EdDsa => &self.ed25519,
        }
    }
}

impl Key {
    fn generate(signing: Signing) -> Result<Self, KeyError> {
        let private = private_key(signing)?;
        let mut public = Jwk::from_encoding_key(&private, signing.algorithm())
            .map_err(|error| KeyError::new("public key", &error))?;
        let thumbprint = public
            .thumbprint(ThumbprintHash::SHA256)
            .map_err(|error| KeyError::new("thumbprint", &error))?;
        let short = thumbprint.get(..12).unwrap_or(&thumbprint);
        public.common.key_id = Some(format!("{}-{short}", signing.as_str().to_lowercase()));
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self {
            signing,
            private,
            public,
        })
    }

    fn header(&self, typ: &str) -> Header {
        let mut header = Header::new(self.signing.algorithm());
        header.typ = Some(typ.to_owned());
        header.kid.clone_from(&self.public.common.key_id);
        header
    }

    fn sign(&self, header: &Header, claims: &Map<String, Value>) -> Result<String, KeyError> {
        jsonwebtoken::encode(header, claims, &self.private)
            .map_err(|error| KeyError::new("signature", &error))
    }
}

/// Each kind of key in the encoding that the signer reads: PKCS#8 for the curves, and for RSA what it makes of PEM.
fn private_key(signing: Signing) -> Result<EncodingKey, KeyError> {
    let random = SystemRandom::new();
    match signing {
        Signing::Rs256 => {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)
                .map_err(|error| KeyError::new("RSA key", &error))?;
            EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes())
                .map_err(|error| KeyError::new("RSA key", &error))
        }
        Signing::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map(|document| EncodingKey::from_ec_der(document.as_ref()))
            .map_err(|error| KeyError::new("P-256 key", &error)),
        Signing::EdDsa => Ed25519KeyPair::generate_pkcs8v1(&random)
            .map(|document| EncodingKey::from_ed_der(document.as_ref()))
            .map_err(|error| KeyError::new("Ed25519 key", &error)),
    }
}

/// A token in the making: a good access token, until told otherwise.
#[derive(Debug)]
pub struct Token<'a> {
    keyring: &'a Keyring,
    signing: Signing,
    typ: String,
    kid: Option<String>,
    forged: bool,
    claims: Map<String, Value>,
}

impl<'a> Token<'a> {
    pub(super) fn new(keyring: &'a Keyring, signing: Signing, claims: Map<String, Value>) -> Self {
        Self {
            keyring,
            signing,
            typ: ACCESS_TOKEN_TYPE.to_owned(),
            kid: None,
            forged: false,
            claims,
        }
    }

    /// Sets a claim, whatever it was.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves a claim out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets the header parameter `typ`.
    #[must_use]
    pub fn typ(mut self, typ: &str) -> Self {
        typ.clone_into(&mut self.typ);
        self
    }

    /// Names another key than the one that signs.
    #[must_use]
    pub fn kid(mut self, kid: &str) -> Self {
        self.kid = Some(kid.to_owned());
        self
    }

    /// Ended an hour ago.
    #[must_use]
    pub fn expired(self) -> Self {
        let issued = self
            .claims
            .get("iat")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        self.claim("iat", issued.saturating_sub(7_200))
            .claim("nbf", issued.saturating_sub(7_200))
            .claim("exp", issued.saturating_sub(3_600))
    }

    /// Signed with a stranger's key under the name of the real one.
    #[must_use]
    pub fn forged(mut self) -> Self {
        self.forged = true;
        self
    }

    /// The compact form.
    ///
    /// # Errors
    /// When the system yields no randomness, or a key cannot be made or used.
    pub fn sign(self) -> Result<String, KeyError> {
        let keys = self.keyring.now();
        let real = keys.key(self.signing);
        let mut header = real.header(&self.typ);
        if self.kid.is_some() {
            header.kid = self.kid;
        }
        if self.forged {
            Key::generate(self.signing)?.sign(&header, &self.claims)
        } else {
            real.sign(&header, &self.claims)
        }
    }
}

/// The `typ` of RFC 9068.
pub(super) const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// How many old public keys stay in the set, however often keys are rotated.
const MAX_KEPT_KEYS: usize = 6;

/// 192 random bits in 32 characters that need no escaping anywhere.
pub(super) fn random_id() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes::<24>())
}

/// Fresh random bytes.
pub(super) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .expect("the generator of aws-lc ends the process rather than fail");
    bytes
}
