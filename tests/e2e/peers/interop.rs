//! The interoperability cases of gRPC for each pair of languages: grpcio (Python), @grpc/grpc-js (Node) and tonic (Rust),
//! each as client and as server; without the gateway, through it in cleartext, through it over TLS, and once with TLS to the
//! upstream.

use serde_json::{Value, json};

use super::interop_tonic as tonic;
use super::program::{Program, Server};
use crate::support::gateway::{self, Gateway};
use crate::support::pki;

/// The servers, and a gateway with two listeners for each.
struct Ring {
    python: Server,
    node: Server,
    tonic: tonic::Server,
    gateway: Gateway,
    /// In front of the other's TLS listener for Python: HTTP/2 over TLS to the upstream.
    outer: Gateway,
}

/// A way to a server.
pub(super) struct Way {
    /// `node, h2c`
    pub(super) label: String,
    pub(super) address: String,
    pub(super) tls: bool,
}

const SERVERS: [&str; 3] = ["python", "node", "tonic"];

impl Ring {
    async fn start() -> Self {
        let python = Server::start(Program::Python("interop_server"), &json!({})).await;
        let node = Server::start(Program::Node("interop_server"), &json!({})).await;
        let tonic = tonic::serve().await;
        let ports = [python.port(), node.port(), tonic.address.port()];
        let pair = pki::SHARED.pair("leaf");
        let mut conf = gateway::conf("workers = 2");
        for (name, port) in SERVERS.into_iter().zip(ports) {
            conf = conf.and(&format!(
                r#"
                [upstream.{name}]
                endpoints = ["h2c://127.0.0.1:{port}"]
                [[route]]
                name     = "{name}"
                listen   = ["{name}", "{name}-tls"]
                auth     = "none"
                max_body = "4MiB"
                upstream = "{name}"
                [listen.{name}]
                bind = "127.0.0.1:0"
                [listen.{name}-tls]
                bind = "127.0.0.1:0"
                tls  = {{ certificates = [{pair}] }}
                "#
            ));
        }
        let gateway = conf.run().await;
        let outer = gateway::conf(&format!(
            r#"
            [[route]]
            auth     = "none"
            max_body = "4MiB"
            upstream = "inner"
            [upstream.inner]
            endpoints = ["h2://{}"]
            host      = "{}"
            tls       = {{ ca = {:?}, server_name = "{}" }}
            "#,
            gateway.at("python-tls"),
            pki::HOST,
            pki::SHARED.ca(),
            pki::HOST,
        ));
        Self {
            python,
            node,
            tonic,
            gateway,
            outer: outer.run().await,
        }
    }

    fn ways(&self) -> Vec<Way> {
        let direct = [
            self.python.port(),
            self.node.port(),
            self.tonic.address.port(),
        ];
        let mut ways = Vec::new();
        for (name, port) in SERVERS.into_iter().zip(direct) {
            for (how, address) in [
                ("direct", format!("127.0.0.1:{port}")),
                ("h2c", self.gateway.at(name).to_string()),
                ("tls", self.gateway.at(&format!("{name}-tls")).to_string()),
            ] {
                ways.push(Way {
                    label: format!("{name}, {how}"),
                    address,
                    tls: how == "tls",
                });
            }
        }
        ways.push(Way {
            label: "python, tls to the upstream".to_owned(),
            address: self.outer.at("plain").to_string(),
            tls: false,
        });
        ways
    }

    fn asked(&self) -> Value {
        let targets: Vec<Value> = self
            .ways()
            .into_iter()
            .map(|way| match way.tls {
                true => json!({
                    "label": way.label,
                    "target": way.address,
                    "root": pki::SHARED.ca(),
                    "name": pki::HOST,
                }),
                false => json!({ "label": way.label, "target": way.address }),
            })
            .collect();
        json!({ "targets": targets })
    }

    /// What was cancelled or came too late is not held on to.
    async fn settled(self) {
        self.outer.settled().await;
        self.gateway.settled().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcio_meets_every_server() {
    let ring = Ring::start().await;
    Program::Python("interop_client")
        .passes(&ring.asked())
        .await;
    ring.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_js_meets_every_server() {
    let ring = Ring::start().await;
    Program::Node("interop_client").passes(&ring.asked()).await;
    ring.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tonic_meets_every_server() {
    let ring = Ring::start().await;
    for way in ring.ways() {
        tonic::meet(&way).await;
    }
    ring.settled().await;
}
