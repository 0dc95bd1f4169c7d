//! TLS towards endpoints: which protocol we insist on, and whose certificate we want to see.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use crate::tls;

/// How one endpoint is verified.
#[derive(Clone, Debug)]
pub(super) struct Verify {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// A client configuration that trusts `ca` (a PEM bundle), or the system's roots without one.
pub(super) fn client_config(ca: Option<&[u8]>, h2: bool) -> Result<Arc<ClientConfig>, String> {
    tls::client_config(ca, &[if h2 { b"h2" } else { b"http/1.1" }])
}

/// The name that the endpoint's certificate must bear.
pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("`{name}` is no name that a certificate could bear"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_can_be_verified() {
        assert!(server_name("zitadel.example").is_ok());
        assert!(server_name("10.0.0.1").is_ok());
        assert!(server_name("2001:db8::1").is_ok());
        assert!(server_name("not a name").is_err());
    }
}
