//! TLS towards endpoints: what we trust, and which protocol we insist on.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt;

/// How one endpoint is verified.
#[derive(Clone, Debug)]
pub(super) struct Verify {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// A client configuration that trusts `ca` (a PEM bundle), or the system's roots without one.
///
/// The provider is named here, so that no feature of some crate in the tree can change it or leave us without.
pub(super) fn client_config(ca: Option<&[u8]>, h2: bool) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no common TLS version: {error}"))?;
    let builder = match ca {
        Some(pem) => builder.with_root_certificates(roots(pem)?),
        None => builder
            .with_platform_verifier()
            .map_err(|error| format!("the system's trusted roots cannot be loaded: {error}"))?,
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![if h2 {
        b"h2".to_vec()
    } else {
        b"http/1.1".to_vec()
    }];
    Ok(Arc::new(config))
}

/// The name that the endpoint's certificate must bear.
pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("`{name}` is no name that a certificate could bear"))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| format!("the bundle is no valid PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate of the bundle cannot be trusted: {error}"))?;
    }
    if roots.is_empty() {
        return Err("the bundle holds no certificate".to_owned());
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        assert!(client_config(Some(b""), false).is_err());
        assert!(client_config(Some(b"-----BEGIN CERTIFICATE-----\n!"), true).is_err());
    }

    #[test]
    fn addresses_and_names_can_be_verified() {
        assert!(server_name("zitadel.example").is_ok());
        assert!(server_name("10.0.0.1").is_ok());
        assert!(server_name("2001:db8::1").is_ok());
        assert!(server_name("not a name").is_err());
    }
}
