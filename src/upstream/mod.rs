//! Where requests go: clusters of endpoints, the connections to them, and one request's way there and back.
//!
//! The decisions (`balance`, `outlier`, `retry`, `patience`) are pure and take the time as a parameter. The state that all workers
//! share (addresses, health, counts) lives in [`Cluster`] and [`Endpoint`]; connections live in [`Pools`], one a
//! worker, and never cross threads. Who may be forwarded is not judged here: a `Permit` is the proof that it was.

mod balance;
mod cluster;
pub mod connect;
mod counter;
mod endpoint;
mod fetch;
mod forward;
mod health;
mod message;
mod outlier;
mod patience;
mod pool;
mod retry;
mod tls;
mod upgrade;

#[cfg(test)]
mod tests;

pub use cluster::{Cluster, Fault};
pub use counter::Counter;
pub use endpoint::Endpoint;
pub use fetch::{FetchError, FetchErrorKind, FetchUrl, fetch_url};
pub use forward::{Facts, Failed, Forward};
pub use pool::Pools;
pub use upgrade::{Admitted, Asked, Direction, Ended, GOING_AWAY, Leave, Tunnel, Upgrades};
