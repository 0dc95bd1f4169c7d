//! TLS as a client speaks it: what we trust.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use rustls_platform_verifier::BuilderVerifierExt;

/// A client configuration that trusts `ca` (a PEM bundle), or the system's roots without one.
///
/// The provider is named here, so that no feature of some crate in the tree can change it or leave us without.
///
/// # Errors
/// In words: a bundle that is none, or roots that cannot be loaded.
pub fn client_config(ca: Option<&[u8]>, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, String> {
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
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
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
        assert!(client_config(Some(b""), &[]).is_err());
        assert!(client_config(Some(b"-----BEGIN CERTIFICATE-----\n!"), &[b"h2"]).is_err());
    }
}
