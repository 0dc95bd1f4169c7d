//! Which client certificates a route accepts: by one of the names in it, or by its fingerprint.

use crate::types::client_cert::{ClientCert, San};
use crate::types::{Reason, Rejection};

/// Some certificates; one that fits in either way is accepted.
#[derive(Debug)]
pub struct ClientCerts {
    names: Box<[San]>,
    fingerprints: Box<[[u8; 32]]>,
}

impl ClientCerts {
    /// Certificates of these names or fingerprints.
    #[must_use]
    pub fn new(names: Vec<San>, fingerprints: Vec<[u8; 32]>) -> Self {
        Self {
            names: names.into(),
            fingerprints: fingerprints.into(),
        }
    }

    /// Judges what the client has shown.
    ///
    /// # Errors
    /// [`Reason::Forbidden`] for none, or another one.
    pub(super) fn check(&self, shown: Option<&ClientCert>) -> Result<(), Rejection> {
        let Some(cert) = shown else {
            let detail = "the route wants a client certificate, and none was shown";
            return Err(Rejection::because(Reason::Forbidden, detail));
        };
        let by_name = cert.names.iter().any(|name| self.names.contains(name));
        if by_name || self.fingerprints.contains(&cert.fingerprint) {
            return Ok(());
        }
        let detail = "the client's certificate is none of the route's";
        Err(Rejection::because(Reason::Forbidden, detail))
    }
}
