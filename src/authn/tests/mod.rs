//! The room as a whole: forged tokens against every line of the rules, public signature vectors, what compiles.

mod cache_keys;
mod compile;
mod ending;
mod forged;
mod library;
pub(crate) mod support;
mod vectors;
