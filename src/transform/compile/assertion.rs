//! `[assertion]`: the key that signs. Read where the configuration says, or made here.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use zeroize::Zeroizing;

use crate::config::{Config, KeyPath, Problems, Publish, SecretRef};
use crate::transform::Plan;
use crate::transform::assertion::{Assertion, Signer};

/// The key's name in `state_dir`.
const FILE: &str = "assertion.pem";

impl Plan {
    /// The same plan, with an assertion for `upstream`.
    #[must_use]
    pub fn asserting(self, signer: Arc<Signer>, upstream: &str) -> Self {
        Self {
            assertion: Some(Assertion::new(signer, upstream)),
            ..self
        }
    }
}

impl Signer {
    /// Whether any route of `config` needs one.
    #[must_use]
    pub fn is_needed(config: &Config) -> bool {
        let mut routes = config.route.iter();
        routes.any(|route| route.assertion || route.publish == Some(Publish::Jwks))
    }

    /// Finds the key: where `key` says, else that of `previous`, else in `state_dir`, else a new one.
    pub fn compile(
        config: &Config,
        previous: Option<&Arc<Self>>,
        problems: &mut Problems,
    ) -> Option<Arc<Self>> {
        let path = KeyPath::root().key("assertion");
        if config.assertion.issuer.is_empty() {
            problems.push(&path.key("issuer"), "is empty");
            return None;
        }
        let same = previous.filter(|previous| previous.config == config.assertion);
        if let (Some(previous), None) = (same, &config.assertion.key) {
            return Some(Arc::clone(previous));
        }
        let found = match &config.assertion.key {
            Some(reference) => read(reference).map(|pair| (pair, None)),
            None => kept_or_new(config.state_dir.as_deref()),
        };
        let (pair, unsaved) = match found {
            Ok(found) => found,
            Err(why) => {
                problems.push(&path.key("key"), why);
                return None;
            }
        };
        let signer = Self::new(config, pair, unsaved, previous);
        // The file may hold another key than before, or the same.
        match same.filter(|previous| previous.kid == signer.kid) {
            Some(previous) => Some(Arc::clone(previous)),
            None => Some(Arc::new(signer)),
        }
    }

    fn new(
        config: &Config,
        pair: Ed25519KeyPair,
        unsaved: Option<(PathBuf, Zeroizing<Vec<u8>>)>,
        previous: Option<&Arc<Self>>,
    ) -> Self {
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        // RFC 7638: the required members, in the order of their names.
        let thumbprint = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, thumbprint.as_bytes()));
        let header = json!({ "alg": "EdDSA", "kid": kid, "typ": "JWT" }).to_string();
        let retired = previous.filter(|previous| *previous.kid != *kid);
        Self {
            config: config.assertion.clone(),
            public: json!({
                "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": "EdDSA",
            }),
            retired: retired.map(|previous| previous.public.clone()),
            header: URL_SAFE_NO_PAD.encode(header),
            kid: kid.into(),
            pair,
            unsaved,
        }
    }

    /// Writes a key that was made here to `state_dir`, so that it outlives a restart. Called once it is in force, never
    /// by a command that only looks.
    ///
    /// # Errors
    /// When it cannot be written; the next start makes another one then.
    pub fn save(&self) -> io::Result<()> {
        let Some((path, pem)) = &self.unsaved else {
            return Ok(());
        };
        if path.exists() {
            return Ok(());
        }
        let unfinished = path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(pem)?;
        file.sync_all()?;
        fs::rename(unfinished, path)
    }
}

fn read(reference: &SecretRef) -> Result<Ed25519KeyPair, String> {
    let secret = reference.read().map_err(|why| why.to_string())?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(secret.expose())
        .map_err(|_| "holds no private key in PKCS#8 PEM".to_owned())?;
    Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| {
        "the key is no Ed25519 key; `openssl genpkey -algorithm ed25519` makes one".to_owned()
    })
}

type Made = (Ed25519KeyPair, Option<(PathBuf, Zeroizing<Vec<u8>>)>);

fn kept_or_new(state_dir: Option<&Path>) -> Result<Made, String> {
    let path = state_dir.map(|folder| folder.join(FILE));
    if let Some(path) = path.as_ref().filter(|path| path.exists()) {
        let pair = read(&SecretRef::File(path.clone()));
        return pair
            .map(|pair| (pair, None))
            .map_err(|why| format!("{}: {why}", path.display()));
    }
    let der = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new())
        .map_err(|_| "a key cannot be made".to_owned())?;
    let pair =
        Ed25519KeyPair::from_pkcs8(der.as_ref()).map_err(|_| "a key cannot be made".to_owned())?;
    Ok((pair, path.map(|path| (path, pem(der.as_ref())))))
}

/// The 48 bytes of such a key are one line.
fn pem(der: &[u8]) -> Zeroizing<Vec<u8>> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let text = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        *body
    );
    Zeroizing::new(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn compile(config: &Config, previous: Option<&Arc<Signer>>) -> Result<Arc<Signer>, String> {
        let mut problems = Problems::default();
        let signer = Signer::compile(config, previous, &mut problems);
        signer.ok_or_else(|| problems.into_errors()[0].to_string())
    }

    #[test]
    fn a_key_that_was_made_here_outlives_a_restart_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            state_dir: Some(folder.path().to_owned()),
            ..Config::default()
        };
        let made = compile(&config, None).unwrap();
        let path = folder.path().join(FILE);
        assert!(!path.exists(), "looking writes nothing");
        made.save().unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(compile(&config, None).unwrap().kid, made.kid);
    }

    #[test]
    fn a_reload_keeps_the_key_and_publishes_the_one_that_it_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let write = || {
            let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            fs::write(&path, pem(der.as_ref())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write();
        let mut config = Config::default();
        config.assertion.key = Some(SecretRef::File(path.clone()));
        let first = compile(&config, None).unwrap();
        assert!(Arc::ptr_eq(
            &first,
            &compile(&config, Some(&first)).unwrap()
        ));
        write();
        let second = compile(&config, Some(&first)).unwrap();
        let set: serde_json::Value = serde_json::from_slice(&second.key_set()).unwrap();
        let kids: Vec<_> = set["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| &key["kid"])
            .collect();
        assert_eq!(kids, [&*second.kid, &*first.kid]);
    }

    #[test]
    fn a_key_that_is_none_refuses_to_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let mut config = Config::default();
        config.assertion.key = Some(SecretRef::File(path.clone()));
        assert!(
            compile(&config, None)
                .unwrap_err()
                .contains("assertion.key")
        );
        fs::write(&path, "no key").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(compile(&config, None).unwrap_err().contains("PKCS#8"));
    }
}
