//! The embedded identity backend behind `vestibule demo`: a real small server, and real small clients for it.
//!
//! It speaks HTTP/1.1 and h2c with prior knowledge on one port and is shaped like the backends that the gateway is
//! built for: OpenID discovery with a key set and a token endpoint (`oidc`), logins with cookies in the way of
//! IdentSphere (`identsphere`), gRPC (`grpc`), and plain paths that tell what arrived (`echo`). Everything is kept in
//! memory and every secret in here is public: it is for trying the gateway and for testing it, nothing else.

pub mod backend;
pub mod client;
pub mod gateway;
pub mod grpc;
pub mod keys;
pub mod oidc;
pub mod tour;

mod account;
mod answer;
mod echo;
mod identsphere;

#[cfg(test)]
mod tests;

pub use account::{SEEDED_EMAIL, SEEDED_PASSWORD};
pub use backend::{Backend, Settings};
pub use keys::{Previous, Signing, Token};
