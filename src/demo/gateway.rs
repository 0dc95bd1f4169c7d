//! The configuration of the gateway in front of the demo backend, and how it is fitted to the ports in use.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{Certificate, Config};

/// `conf/examples/demo.toml`, so that the demo needs no file.
pub const CONFIG: &str = include_str!("../../conf/examples/demo.toml");

/// What the demo decides when it starts.
#[derive(Clone, Debug)]
pub struct Fitting {
    /// Port of the listeners with TLS.
    pub https: u16,
    /// Port of the cleartext listeners.
    pub http: u16,
    /// Port of the admin listener.
    pub admin: u16,
    /// Where the demo backend listens.
    pub backend: SocketAddr,
    /// Folder of the development certificate.
    pub certificates: PathBuf,
}

impl Fitting {
    /// The public origin, which is the issuer of the backend's tokens.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("https://localhost:{}", self.https)
    }

    /// Puts ports, addresses and the certificate's folder into `config`; everything else stays as written.
    pub fn fit(&self, config: &mut Config) {
        config.admin.bind.set_port(self.admin);
        for listen in config.listen.values_mut() {
            let port = if listen.tls.is_some() {
                self.https
            } else {
                self.http
            };
            for bind in &mut listen.bind.0 {
                bind.set_port(port);
            }
            if let Some(tls) = &mut listen.tls {
                tls.certificates = vec![Certificate::Folder(self.certificates.clone())];
            }
        }
        for upstream in config.upstream.values_mut() {
            for endpoint in &mut upstream.endpoints {
                endpoint.host = self.backend.ip().to_string();
                endpoint.port = self.backend.port();
            }
        }
        for issuer in config.issuer.values_mut() {
            issuer.url = self.origin();
            issuer.connect = Some(format!("http://{}", self.backend));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted() -> Config {
        let mut config: Config = toml::from_str(CONFIG).unwrap();
        let fitting = Fitting {
            https: 1,
            http: 2,
            admin: 3,
            backend: "127.0.0.1:4".parse().unwrap(),
            certificates: PathBuf::from("elsewhere"),
        };
        fitting.fit(&mut config);
        config
    }

    #[test]
    fn ports_and_addresses_are_those_of_the_running_demo() {
        let config = fitted();
        assert_eq!(config.listen["https"].bind.0[0].port(), 1);
        assert_eq!(config.listen["http"].bind.0[0].port(), 2);
        assert_eq!(config.admin.bind.port(), 3);
        let endpoint = &config.upstream["grpc"].endpoints[0];
        assert_eq!(endpoint.to_string(), "h2c://127.0.0.1:4");
        let issuer = &config.issuer["demo"];
        assert_eq!(issuer.url, "https://localhost:1");
        assert_eq!(issuer.connect.as_deref(), Some("http://127.0.0.1:4"));
    }

    #[test]
    fn everything_that_a_route_names_is_defined() {
        let config = fitted();
        for route in &config.route {
            let upstream = route.upstream.as_ref().unwrap();
            assert!(config.upstream.contains_key(upstream), "{upstream}");
            for limit in &route.limits {
                assert!(config.limit.contains_key(&limit.name), "{}", limit.name);
            }
        }
    }

    #[test]
    fn the_demo_listens_on_loopback_only() {
        let config = fitted();
        let binds = config.listen.values().flat_map(|listen| &listen.bind.0);
        assert!(binds.into_iter().all(|bind| bind.ip().is_loopback()));
        assert!(config.admin.bind.ip().is_loopback());
    }
}
