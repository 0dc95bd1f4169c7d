//! Reads and judges signed tokens (behaviour.md 2.4). Pure: keys and time come in as parameters.
//!
//! The signature itself is verified by `jsonwebtoken`; everything that it leaves open is decided here: the shape of
//! the token, the names in its header, what its claims must hold. Nothing here fetches a key, and nothing in a token
//! (`jwk`, `jku`, `x5u`, `x5c`) ever names one.

pub mod claims;
pub mod facts;
pub mod json;
pub mod shape;
pub mod verify;

#[cfg(test)]
mod fuzz;

pub use claims::{Terms, Window};
pub use facts::Mapping;
pub use shape::Shape;
