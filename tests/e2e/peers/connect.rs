//! Connect (npm): its browser and Node clients as gRPC-Web through the translation, and its own protocol passed through to
//! its own server.

use serde_json::{Value, json};

use super::entrance::Entrance;
use super::program::{Program, Server};
use super::{greeter, greeter_conf, token};

const CLIENT: Program = Program::Node("connect_client");
const BACKEND: Program = Program::Node("connect_backend");

#[tokio::test]
async fn cases_hold_without_the_gateway() {
    let server = Server::start(BACKEND, &json!({ "http": "1.1" })).await;
    let url = format!("http://127.0.0.1:{}", server.port());
    for transport in ["web-grpc-web", "node-connect"] {
        CLIENT
            .passes(&json!({ "url": url, "transport": transport, "token": "any" }))
            .await;
    }
}

#[tokio::test]
async fn grpc_web_of_browsers_is_translated() {
    is_translated("web-grpc-web", "1.1").await;
}

#[tokio::test]
async fn grpc_web_over_h2_is_translated() {
    is_translated("node-grpc-web", "2").await;
}

#[tokio::test]
async fn native_grpc_passes_beside_the_translation() {
    is_translated("node-grpc", "2").await;
}

/// The backend speaks native gRPC over h2c, and nothing else.
async fn is_translated(transport: &str, http: &str) {
    let backend = greeter().await;
    let upstream = format!("h2c://{}", backend.address);
    let entrance = Entrance::open(&greeter_conf(&backend, &upstream, "translate")).await;
    CLIENT
        .passes(&asked(&entrance, transport, http, &token(&backend)))
        .await;
    entrance.gateway.settled().await;
}

#[tokio::test]
async fn connect_passes_over_h1_to_h1() {
    passes(&["web-connect"], "1.1", "1.1").await;
}

#[tokio::test]
async fn connect_and_grpc_web_pass_over_h1_to_h2c() {
    passes(&["node-connect", "web-grpc-web"], "1.1", "2").await;
}

#[tokio::test]
async fn connect_passes_over_h2_to_h1() {
    passes(&["node-connect-json"], "2", "1.1").await;
}

#[tokio::test]
async fn connect_and_grpc_web_pass_over_h2_to_h2c() {
    passes(&["node-connect", "node-grpc-web"], "2", "2").await;
}

/// Byte for byte: the backend speaks all of it.
async fn passes(transports: &[&str], client: &str, server: &str) {
    let issuer = greeter().await;
    let backend = Server::start(BACKEND, &json!({ "http": server })).await;
    let scheme = if server == "2" { "h2c" } else { "http" };
    let upstream = format!("{scheme}://127.0.0.1:{}", backend.port());
    for transport in transports {
        let entrance = Entrance::open(&greeter_conf(&issuer, &upstream, "pass")).await;
        CLIENT
            .passes(&asked(&entrance, transport, client, &token(&issuer)))
            .await;
    }
}

fn asked(entrance: &Entrance, transport: &str, http: &str, token: &str) -> Value {
    json!({
        "url": format!("http://{}", entrance.plain),
        "transport": transport,
        "http": http,
        "token": token,
        "refusals": true,
    })
}
