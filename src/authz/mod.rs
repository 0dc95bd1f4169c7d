//! May the caller do this? Rules over networks, client certificates, roles, scopes and claims; the answer is a [`Permit`]. Pure.
//!
//! Who the caller is was found out by `authn`; limits are kept by `limit`. A rule that cannot be met refuses.

pub mod client_cert;
pub mod permit;
pub mod rule;
pub mod when;

mod compile;
mod values;

#[cfg(test)]
mod tests;

pub use permit::Permit;
pub use rule::{Asked, Rules};
