//! WebSockets of others, as clients and as servers: websockets (Python) and ws (npm), byte by byte.

use serde_json::{Value, json};

use super::entrance::{Entrance, HOST};
use super::program::{Program, Server};
use super::{ISSUER, greeter, token};

const PYTHON_SERVER: Program = Program::Python("websocket_server");
const PYTHON_CLIENT: Program = Program::Python("websocket_client");
const NODE_SERVER: Program = Program::Node("websocket_server");
const NODE_CLIENT: Program = Program::Node("websocket_client");

#[tokio::test]
async fn cases_hold_without_the_gateway() {
    for (server, client) in [(PYTHON_SERVER, PYTHON_CLIENT), (NODE_SERVER, NODE_CLIENT)] {
        let server = Server::start(server, &json!({})).await;
        let url = format!("ws://127.0.0.1:{}", server.port());
        client.passes(&json!({ "url": url, "token": "any" })).await;
    }
}

#[tokio::test]
async fn websockets_of_python_pass_in_front_of_both() {
    passes(PYTHON_CLIENT, "1.1", &[PYTHON_SERVER, NODE_SERVER]).await;
}

#[tokio::test]
async fn ws_passes_in_front_of_both() {
    passes(NODE_CLIENT, "1.1", &[NODE_SERVER, PYTHON_SERVER]).await;
}

#[tokio::test]
async fn ws_passes_over_http2() {
    passes(NODE_CLIENT, "2", &[NODE_SERVER, PYTHON_SERVER]).await;
}

/// In cleartext and over TLS.
async fn passes(client: Program, http: &str, servers: &[Program]) {
    let issuer = greeter().await;
    for server in servers {
        let server = Server::start(*server, &json!({})).await;
        let conf = format!(
            r#"
            [upstream.chat]
            endpoints = ["http://127.0.0.1:{port}"]
            [issuer.demo]
            url        = "{ISSUER}"
            connect    = "http://{address}"
            audiences  = ["demo"]
            algorithms = ["ES256"]
            [[route]]
            name     = "chat"
            auth     = {{ any = ["demo"] }}
            upgrade  = ["websocket"]
            upstream = "chat"
            "#,
            port = server.port(),
            address = issuer.address,
        );
        let entrance = Entrance::open(&conf).await;
        entrance.gateway.ready().await;
        let asked = |url: String| json!({ "url": url, "http": http, "token": token(&issuer), "refusals": true });
        client
            .passes(&asked(format!("ws://{}", entrance.plain)))
            .await;
        let mut over_tls = asked(format!("wss://{HOST}:{}", entrance.tls.port()));
        over_tls["root"] = Value::from(entrance.ca.to_str());
        client.passes(&over_tls).await;
        // What has ended is not held on to.
        let tunnels = entrance
            .gateway
            .metric("vestibule_tunnel_bytes_total", &[])
            .await;
        assert!(tunnels > 4e6, "{tunnels}");
        entrance
            .gateway
            .counted("vestibule_tunnels_open", &[], 0.0)
            .await;
    }
}
