//! The room as a whole.

mod heads;
mod routes;
