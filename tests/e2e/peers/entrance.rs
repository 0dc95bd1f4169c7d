//! The gateway as peers need it: addresses, and the authority as a file.

use std::net::SocketAddr;
use std::path::PathBuf;

use vestibule::demo::client::{ClientTls, Target};

use crate::support::gateway::{self, Gateway};
use crate::support::pki;

/// The public name of the gateway.
pub(crate) use crate::support::pki::HOST;

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) gateway: Gateway,
    /// The listener with TLS.
    pub(crate) tls: SocketAddr,
    /// The cleartext listener.
    pub(crate) plain: SocketAddr,
    /// The authority to trust.
    pub(crate) ca: PathBuf,
}

impl Entrance {
    /// Starts a gateway of two workers; `conf` is everything but the listeners.
    pub(crate) async fn open(conf: &str) -> Self {
        Self::open_with(conf, "").await
    }

    /// With further keys of both listeners.
    pub(crate) async fn open_with(conf: &str, listen: &str) -> Self {
        let conf = format!("workers = 2\n{conf}");
        let gateway = gateway::conf(&conf).listen(listen).run().await;
        Self {
            tls: gateway.at("secure"),
            plain: gateway.at("plain"),
            ca: pki::SHARED.ca(),
            gateway,
        }
    }

    /// Where our own client connects.
    pub(crate) fn target(&self, tls: bool, http2: bool) -> Target {
        Target {
            address: if tls { self.tls } else { self.plain },
            tls: tls.then(|| ClientTls {
                root_pem: std::fs::read_to_string(&self.ca).unwrap(),
                server_name: HOST.to_owned(),
            }),
            http2,
        }
    }
}
