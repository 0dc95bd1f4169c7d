//! grpc-web (npm): the official browser client, in Node. The backend behind the gateway speaks native gRPC only.

use serde_json::json;

use super::entrance::Entrance;
use super::interop_tonic as tonic;
use super::program::{Program, Server};
use super::{greeter, greeter_conf, token};

const CLIENT: Program = Program::Node("grpc_web");

#[tokio::test]
async fn cases_hold_without_the_gateway() {
    let server = Server::start(Program::Node("connect_backend"), &json!({ "http": "1.1" })).await;
    let url = format!("http://127.0.0.1:{}", server.port());
    CLIENT
        .passes(&json!({ "url": url, "format": "binary", "token": "any" }))
        .await;
}

#[tokio::test]
async fn binary_is_translated() {
    is_translated("binary").await;
}

#[tokio::test]
async fn text_is_translated() {
    is_translated("text").await;
}

async fn is_translated(format: &str) {
    let backend = greeter().await;
    let upstream = format!("h2c://{}", backend.address);
    let interop = tonic::serve().await;
    let conf = greeter_conf(&backend, &upstream, "translate");
    let conf = format!(
        r#"{conf}
        [upstream.interop]
        endpoints = ["h2c://{}"]
        [[route]]
        name     = "interop"
        grpc     = "grpc.testing.TestService"
        auth     = "none"
        grpc_web = "translate"
        upstream = "interop"
        "#,
        interop.address
    );
    let entrance = Entrance::open(&conf).await;
    let asked = json!({
        "url": format!("http://{}", entrance.plain),
        "format": format,
        "token": token(&backend),
        "refusals": true,
        "interop": true,
    });
    CLIENT.passes(&asked).await;
}
