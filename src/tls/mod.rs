//! TLS as the gateway's own side speaks it: certificates chosen by server name, and the configuration around them; and
//! what it trusts where it is the client.
//!
//! The only room that names rustls types beside `server` and `upstream::connect`. A pair that cannot be read, or whose key
//! is not the certificate's, refuses the whole configuration; one that has expired is served, with a warning.

mod client;
mod compile;
pub mod dev;
mod expiry;
mod load;
mod store;

#[cfg(test)]
mod tests;

pub use client::client_config;
pub use compile::Termination;
pub use expiry::NotAfter;
pub use store::Store;
