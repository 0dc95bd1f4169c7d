//! What is known of a connection before its first request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;

use super::client_cert::ClientCert;

/// The facts of one accepted connection; shared by all its exchanges.
#[derive(Clone, Debug)]
pub struct ConnFacts {
    /// Position of the listener in the snapshot (listeners are sorted by name and fixed at start).
    pub listener: usize,
    /// The listener's name, for logs and metrics.
    pub listener_name: Arc<str>,
    /// The socket's peer; the client itself unless a trusted proxy stands between.
    pub peer: SocketAddr,
    /// The peer's address as header fields carry it: written once, not for every request.
    pub peer_text: HeaderValue,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// Whether the bytes on this connection are encrypted by our own listener.
    pub scheme: Scheme,
    /// The protocol that ALPN or the preface chose.
    pub protocol: Protocol,
    /// The server name of the TLS handshake, lower case; `None` for cleartext or a client without SNI.
    pub server_name: Option<Arc<str>>,
    /// The certificate that the client has shown and the listener's authority vouches for; `None` for any other.
    pub client_cert: Option<Arc<ClientCert>>,
}

/// `address` as header fields carry it.
#[must_use]
pub fn address_text(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_string()).expect("addresses are spelt in visible ASCII")
}

/// The scheme under which a request reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL of this scheme may leave out.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The HTTP version spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2, over TLS or with prior knowledge.
    Http2,
}

impl Protocol {
    /// `h1` or `h2`, as used in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "h1",
            Self::Http2 => "h2",
        }
    }
}
