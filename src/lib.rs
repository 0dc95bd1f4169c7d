//! Vestibule: an edge reverse proxy and auth gateway for identity backends.
//!
//! The rooms stand in the order in which a request walks through them; a room imports lower floors only.
//!
//! ```text
//! cli → process, demo → server → pipeline → exchange → snapshot
//!     → client_ip route limit cors authn authz transform upstream tls → config, telemetry → types
//! ```
//!
//! - [`cli`]: one file a command; the only room that prints.
//! - [`process`]: threads, sockets, reload, stop, the admin listener.
//! - [`demo`]: the embedded identity backend, and the tour.
//! - [`server`]: connections, their deadlines and caps, TLS handshakes, the choice of protocol.
//! - [`pipeline`]: one request, top to bottom. [`exchange`]: its ledger, closed at the last byte.
//! - [`snapshot`]: the configuration made ready to run.
//! - [`tls`]: certificates by server name.
//! - [`client_ip`]: who is held responsible. [`route`]: the canonical head, and the route that it takes.
//! - [`limit`]: how often. [`cors`]: for which origins.
//! - [`authn`]: who the caller is. [`authz`]: what the caller may do.
//! - [`transform`]: what the upstream and the client may see.
//! - [`upstream`]: endpoints, their health, connections, the forward.
//! - [`store`]: what replicas share.
//! - [`config`]: what the user wrote. [`telemetry`]: metrics and logs.
//! - [`types`]: the words that cross walls.
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

pub mod store;

pub mod config;
pub mod telemetry;

pub mod types;
