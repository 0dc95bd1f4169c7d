//! Real peers: clients, providers and measuring tools that others wrote, driven through the gateway as separate
//! programs. `tests/peers/install` brings them; a peer that is missing is an error, never a skipped test.
//!
//! One file a peer. `entrance` starts the gateway, `program` starts and reads programs, `tap` judges their reports. Where a
//! peer has a server of its own, the same cases run against it without the gateway first: what fails there proves nothing.

mod canaille;
mod chromium;
mod connect;
mod curl;
mod entrance;
mod grpc_web;
mod grpcio;
mod h2load;
mod h2spec;
mod interop;
mod interop_tonic;
mod kubernetes;
mod oidc_provider;
mod program;
mod prometheus;
mod promtool;
mod slowhttptest;
mod sslscan;
mod sslyze;
mod tap;
mod testssl;
mod websockets;

use vestibule::demo::backend::{self, Backend, Settings};
use vestibule::demo::keys::Signing;

/// The demo backend, whose tokens have the given issuer.
async fn greeter() -> Backend {
    backend::start(Settings {
        issuer: Some(ISSUER.to_owned()),
        ..Settings::default()
    })
    .await
    .unwrap()
}

/// A good access token of the demo backend.
fn token(backend: &Backend) -> String {
    backend.token(Signing::Es256).sign().unwrap()
}

/// What the tokens of the demo backend say; the gateway connects to the backend itself.
const ISSUER: &str = "https://issuer.example.test";

/// An issuer, an upstream of each protocol, and the routes to demo.v1.Greeter: with a token, with a token and a limit,
/// and the health check without either. `grpc_web` is `pass` or `translate`.
fn greeter_conf(backend: &Backend, upstream: &str, grpc_web: &str) -> String {
    format!(
        r#"
        [upstream.greeter]
        endpoints = ["{upstream}"]

        [issuer.demo]
        url        = "{ISSUER}"
        connect    = "http://{backend}"
        audiences  = ["demo"]
        algorithms = ["RS256", "ES256", "EdDSA"]

        [limit.calls]
        rate  = "1/h"
        burst = 1

        [[route]]
        name     = "greeter"
        path     = "/demo.v1.Greeter/*"
        auth     = {{ any = ["demo"] }}
        max_body = "4MiB"
        grpc_web = "{grpc_web}"
        upstream = "greeter"

        [[route]]
        name     = "greeter-limited"
        path     = "/demo.v1.Greeter/*"
        match_headers = {{ x-limited = "yes" }}
        auth     = {{ any = ["demo"] }}
        limits   = ["calls"]
        grpc_web = "{grpc_web}"
        upstream = "greeter"

        [[route]]
        name     = "grpc-health"
        grpc     = "grpc.health.v1.Health"
        auth     = "none"
        grpc_web = "{grpc_web}"
        upstream = "greeter"
        "#,
        backend = backend.address,
    )
}
