//! The three identity backends: their example configurations as they are shipped, in front of small servers shaped like
//! each backend. What is asserted is what an operator asks of the edge: every protocol arrives, closed paths stay closed,
//! guessing is bounded, and nothing that a client invents is believed.

mod identsphere;
mod opentrusty;
mod servers;
mod wire;
mod zitadel;

use std::sync::{Arc, LazyLock};

use vestibule::config::load;
use vestibule::snapshot::{Snapshot, Walk};
use vestibule::telemetry::Metrics;

use crate::support::client::{self, Answer, Call, Via};
use crate::support::gateway::{self, Gateway};
use crate::support::{eventually, pki};

/// One of `conf/examples/`, in force.
struct Site {
    gateway: Gateway,
    host: &'static str,
}

/// The file's own text; only ports, certificates and endpoints are the tests' own. Beside its public listener there is
/// the same one without TLS (`plain`), and one behind a proxy that is believed (`behind`).
fn fitted(example: &str, endpoints: &[(&str, String)]) -> gateway::Builder {
    let mut text = example.to_owned();
    let mut replace = |ours: &str, theirs: &str| {
        assert!(text.contains(ours), "the example does not say {ours}");
        text = text.replace(ours, theirs);
    };
    replace("[listen.public]", "[listen.secure]");
    replace("\"[::]:443\"", "\"127.0.0.1:0\"");
    replace("\"[::]:80\"", "\"127.0.0.1:0\"");
    replace("\"/etc/vestibule/certs\"", &CERTIFICATE);
    for (written, endpoint) in endpoints {
        replace(written, endpoint);
    }
    let public = "bind = \"127.0.0.1:0\"\nlimits = [\"overall\"]";
    gateway::conf(&text)
        .and(&format!("[listen.plain]\n{public}"))
        .and(&format!(
            "[listen.behind]\n{public}\ntrusted_proxies = [\"127.0.0.0/8\"]"
        ))
}

/// For the hosts of all examples, by the authority that the tests' clients trust.
static CERTIFICATE: LazyLock<String> = LazyLock::new(|| {
    pki::SHARED.leaf("examples", &["*.example.com"]);
    pki::SHARED.pair("examples")
});

impl Site {
    async fn open(host: &'static str, conf: gateway::Builder) -> Self {
        let gateway = conf.run().await;
        Self { gateway, host }
    }

    /// One request on a connection of its own.
    async fn ask(&self, via: Via, call: Call) -> Answer {
        self.ask_at(self.host, via, call).await
    }

    async fn ask_at(&self, host: &str, via: Via, call: Call) -> Answer {
        let address = self.gateway.address(via);
        let mut client = client::connect_as(address, via, host).await;
        client.send(call.host(host)).await
    }

    /// The same from another address, as a proxy in front would tell it.
    async fn ask_from(&self, address: &str, call: Call) -> Answer {
        let mut client = client::connect(self.gateway.at("behind"), Via::H1).await;
        let call = call.header("x-forwarded-for", address);
        client.send(call.host(self.host)).await
    }

    /// As a browser does it: follows redirects within the site.
    async fn visit(&self, via: Via, path: &str) -> Answer {
        let mut path = path.to_owned();
        for _ in 0..5 {
            let answer = self.ask(via, client::get(&path)).await;
            if !answer.status.is_redirection() {
                return answer;
            }
            path = answer.header("location").to_owned();
            assert!(path.starts_with('/'), "sent off to {path:?}");
        }
        panic!("redirected for ever, last to {path}");
    }

    /// Whether the checks of the file found every endpoint of `upstream` well.
    async fn is_healthy(&self, upstream: &str) -> bool {
        let status = self.gateway.admin(client::get("/status")).await;
        let endpoints = status.at(&format!("/upstreams/{upstream}"));
        let endpoints = endpoints.as_array().cloned().unwrap_or_default();
        !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint["healthy"] == true)
    }

    async fn healthy(&self, upstream: &str) {
        let what = format!("{upstream} is healthy");
        eventually(&what, async || self.is_healthy(upstream).await).await;
    }
}

/// What `vestibule check` does with the file's own cases.
fn check(conf: &gateway::Builder) {
    let loaded = load::from_str("example.toml", &conf.text()).unwrap();
    let config = Arc::new(loaded.config);
    let snapshot = Snapshot::compile(&config, None, &Metrics::new()).unwrap();
    assert!(!config.test.is_empty());
    for case in &config.test {
        let outcome = Walk::of(case).unwrap().through(&snapshot);
        assert_eq!(outcome, case.expect, "{} {}", case.method, case.url);
    }
    let shadowed = snapshot.routes.shadowed();
    assert!(shadowed.is_empty(), "never reached: {shadowed:?}");
}

/// Expands to a module with a test for each way in which a client may speak to the gateway.
macro_rules! over_every_protocol {
    ($(#[doc = $doc:literal])* async fn $name:ident($via:ident) $body:block) => {
        mod $name {
            use super::*;

            $(#[doc = $doc])*
            async fn feature($via: Via) $body

            #[tokio::test]
            async fn h1() {
                feature(Via::H1).await;
            }

            #[tokio::test]
            async fn tls_h1() {
                feature(Via::TlsH1).await;
            }

            #[tokio::test]
            async fn tls_h2() {
                feature(Via::TlsH2).await;
            }

            #[tokio::test]
            async fn h2c() {
                feature(Via::H2c).await;
            }
        }
    };
}
use over_every_protocol;
