//! Vestibule: an edge reverse proxy and auth gateway for identity backends.

pub mod authn;
pub mod authz;
pub mod cli;
pub mod client_ip;
pub mod config;
pub mod cors;
pub mod demo;
pub mod limit;
pub mod route;
pub mod telemetry;
pub mod tls;
pub mod transform;
pub mod types;
pub mod upstream;
