//! grpcio (Python): the C core of gRPC as client, and as server.

use serde_json::json;

use super::entrance::{Entrance, HOST};
use super::program::{Program, Server};
use super::{greeter, greeter_conf, token};

const CLIENT: Program = Program::Python("grpc_client");
const SERVER: Program = Program::Python("grpc_server");

#[tokio::test]
async fn cases_hold_without_the_gateway() {
    let server = Server::start(SERVER, &json!({})).await;
    let target = format!("127.0.0.1:{}", server.port());
    CLIENT
        .passes(&json!({ "target": target, "token": "any" }))
        .await;
}

#[tokio::test]
async fn cases_hold_over_h2c() {
    let backend = greeter().await;
    let upstream = format!("h2c://{}", backend.address);
    let entrance = Entrance::open(&greeter_conf(&backend, &upstream, "pass")).await;
    let asked = json!({
        "target": entrance.plain.to_string(),
        "token": token(&backend),
        "refusals": true,
    });
    CLIENT.passes(&asked).await;
    // What was cancelled or came too late is not held on to.
    entrance.gateway.settled().await;
}

#[tokio::test]
async fn cases_hold_over_tls() {
    let backend = greeter().await;
    let upstream = format!("h2c://{}", backend.address);
    // Native gRPC is left alone where gRPC-Web is translated.
    let entrance = Entrance::open(&greeter_conf(&backend, &upstream, "translate")).await;
    let asked = json!({
        "target": entrance.tls.to_string(),
        "root": entrance.ca,
        "name": HOST,
        "token": token(&backend),
        "refusals": true,
    });
    CLIENT.passes(&asked).await;
    // What was cancelled or came too late is not held on to.
    entrance.gateway.settled().await;
}

#[tokio::test]
async fn cases_hold_with_grpcio_on_both_sides() {
    let backend = greeter().await;
    let server = Server::start(SERVER, &json!({})).await;
    let upstream = format!("h2c://127.0.0.1:{}", server.port());
    let entrance = Entrance::open(&greeter_conf(&backend, &upstream, "pass")).await;
    let asked = json!({
        "target": entrance.plain.to_string(),
        "token": token(&backend),
        "refusals": true,
    });
    CLIENT.passes(&asked).await;
    // What was cancelled or came too late is not held on to.
    entrance.gateway.settled().await;
}
