//! Vestibule.
pub mod cli;
pub mod config;
pub mod demo;
pub mod types;
