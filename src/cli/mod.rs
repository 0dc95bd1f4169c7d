//! The commands, one a file.

pub mod schema;
pub mod show;
