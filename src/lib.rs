//! Vestibule: an edge reverse proxy and auth gateway for identity backends.

pub mod cli;
pub mod config;
pub mod demo;
pub mod types;
