//! What operators see: metrics, the access log, the event log. It decides nothing, and nothing waits for it: logs are
//! handed to threads of their own and dropped, counted, when those cannot keep up.

pub mod access_log;
pub mod decisions;
pub mod log;
pub mod metrics;

mod guard;
mod labels;
mod stamp;

pub use access_log::{AccessLog, Outcome, Record};
pub use decisions::{Decision, Decisions};
pub use guard::Guard;
pub use metrics::{Metrics, Samples};
