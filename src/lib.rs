//! Vestibule: an edge reverse proxy and auth gateway for identity backends.
//!
//! The rooms stand in the order in which a request walks through them; a room imports lower floors only.
//!
//! ```text
//! cli → process, demo → server → pipeline → exchange → snapshot
//!     → client_ip route limit cors authn authz transform upstream tls → config, telemetry → types
//! ```
//!
//! The life of a request is [`pipeline`], top to bottom; `ARCHITECTURE.md` is the map.

pub mod cli;
pub mod process;

pub mod demo;

pub mod server;

pub mod exchange;
pub mod pipeline;

pub mod snapshot;

pub mod tls;

pub mod client_ip;
pub mod route;

pub mod limit;

pub mod cors;

pub mod authn;

pub mod authz;

pub mod transform;

pub mod upstream;

pub mod config;
pub mod telemetry;

pub mod types;
