//! `[upstream.NAME]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::{Endpoint, Span};

/// A group of endpoints that serve the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `http://` (HTTP/1.1), `https://` (HTTP/1.1 over TLS), `h2c://` (HTTP/2, cleartext), `h2://` (HTTP/2 over TLS).
    /// Names are resolved anew.
    pub endpoints: Vec<Endpoint>,
    /// How an endpoint is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// Active health check; absent means that endpoints are only judged by their answers.
    pub health: Option<Health>,
    /// Longest TCP connect plus TLS handshake.
    #[serde(default = "two_seconds")]
    pub connect_timeout: Span,
    /// How long an unused connection is kept.
    #[serde(default = "fifty_seconds")]
    pub idle_timeout: Span,
    /// Longest wait for the next piece of a response body.
    #[serde(default = "sixty_seconds")]
    pub body_timeout: Span,
    /// Most requests in flight to one endpoint; more are answered 503.
    #[serde(default = "one_thousand")]
    pub max_requests: u32,
    /// Further tries of an idempotent request that never got an answer.
    #[serde(default = "one")]
    pub retries: u32,
    /// Sent as Host instead of the public one.
    pub host: Option<String>,
    /// TLS towards `https` and `h2` endpoints.
    #[serde(default)]
    pub tls: UpstreamTls,
}

impl Upstream {
    /// One endpoint with the defaults of the file, for requests of our own.
    #[must_use]
    pub fn of(endpoint: Endpoint) -> Self {
        Self {
            endpoints: vec![endpoint],
            balance: Balance::default(),
            health: None,
            connect_timeout: two_seconds(),
            idle_timeout: fifty_seconds(),
            body_timeout: sixty_seconds(),
            max_requests: one_thousand(),
            retries: one(),
            host: None,
            tls: UpstreamTls::default(),
        }
    }
}

/// How an endpoint is chosen among the healthy ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The one with fewer requests in flight of two picked in turn.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
}

/// An active health check: GET on every endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Path.
    pub path: String,
    /// Statuses that mean healthy. Default: 200 to 299.
    #[serde(default)]
    pub statuses: Vec<u16>,
    /// Host header; the endpoint's own authority by default.
    pub host: Option<String>,
    /// Time between checks.
    #[serde(default = "five_seconds")]
    pub interval: Span,
    /// Longest wait for the answer.
    #[serde(default = "two_seconds")]
    pub timeout: Span,
    /// Failures in a row that take an endpoint out.
    #[serde(default = "two")]
    pub unhealthy_after: u32,
    /// Successes in a row that bring it back.
    #[serde(default = "one")]
    pub healthy_after: u32,
}

/// How `https` and `h2` endpoints are verified. There is no way to switch verification off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// PEM bundle to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Name to verify instead of the endpoint's host.
    pub server_name: Option<String>,
}

fn two_seconds() -> Span {
    Span::seconds(2)
}
fn five_seconds() -> Span {
    Span::seconds(5)
}
fn fifty_seconds() -> Span {
    Span::seconds(50)
}
fn sixty_seconds() -> Span {
    Span::seconds(60)
}
fn one() -> u32 {
    1
}
fn two() -> u32 {
    2
}
fn one_thousand() -> u32 {
    1_000
}
