//! The certificates of one listener, chosen by the name that the client asks for.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::load::Loaded;

/// Certificates by name. Immutable; a reload builds another.
#[derive(Debug, Default)]
pub struct Store {
    exact: HashMap<String, Keys>,
    /// By what follows `*.`; a wildcard stands for exactly one label.
    wildcard: HashMap<String, Keys>,
    default: Keys,
}

/// Certificates for one name, of different key types. The cheapest to sign with comes first.
type Keys = Vec<Arc<CertifiedKey>>;

impl Store {
    /// The first certificate also serves clients that ask for an unknown name, or for none. `Host` is compared with the
    /// name of the handshake later, request by request.
    pub(super) fn new(loaded: &[Loaded]) -> Self {
        let mut store = Self::default();
        for certificate in loaded {
            for name in &certificate.names {
                let keys = match name.strip_prefix("*.") {
                    Some(parent) => store.wildcard.entry(parent.to_owned()).or_default(),
                    None => store.exact.entry(name.clone()).or_default(),
                };
                add(keys, &certificate.key);
            }
        }
        if let Some(first) = loaded.first() {
            add(&mut store.default, &first.key);
            let siblings = first.names.first().and_then(|name| store.find(name));
            for key in siblings.cloned().unwrap_or_default() {
                add(&mut store.default, &key);
            }
        }
        store
    }

    /// The certificate for `name`, of a type that the client can verify.
    pub(super) fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let keys = name
            .and_then(|name| self.find(name))
            .unwrap_or(&self.default);
        keys.iter()
            .find(|key| key.key.choose_scheme(schemes).is_some())
            .or_else(|| keys.first())
            .cloned()
    }

    fn find(&self, name: &str) -> Option<&Keys> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let parent = || name.split_once('.').map(|(_, parent)| parent);
        self.exact
            .get(&name)
            .or_else(|| self.wildcard.get(parent()?))
            // The first name of the default certificate may itself be the wildcard.
            .or_else(|| self.wildcard.get(name.strip_prefix("*.")?))
    }
}

/// Of two certificates of one type for one name the first stays: the order in the file decides.
fn add(keys: &mut Keys, key: &Arc<CertifiedKey>) {
    let algorithm = key.key.algorithm();
    if keys.iter().all(|known| known.key.algorithm() != algorithm) {
        keys.push(Arc::clone(key));
        keys.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}
