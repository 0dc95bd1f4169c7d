//! What must hold for any bytes, one function a target. `tests/e2e/corpora.rs` runs the same over the committed corpora.

mod checks;

pub use checks::*;
