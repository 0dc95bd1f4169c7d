//! `vestibule run`: serve until told to stop.

use std::path::Path;
use std::process::ExitCode;

use super::{complain, fail, load};
use crate::process::{self, Source, StartError};
use crate::telemetry::log;

pub(super) fn execute(path: &Path) -> ExitCode {
    let loaded = match load(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let event_log = match log::start(&loaded.config.log) {
        Ok(guard) => guard,
        Err(error) => return fail(&format!("the event log cannot be started: {error}")),
    };
    match process::start(Source::File(path.to_owned())) {
        Ok(running) => {
            for bound in &running.bound {
                tracing::info!(listener = %bound.listener, address = %bound.address, "listening");
            }
            tracing::info!(admin = %running.admin, "serving");
            running.join(); // a signal ends it
            drop(event_log); // flushes
            ExitCode::SUCCESS
        }
        Err(StartError::Config(errors)) => complain(&errors),
        Err(why) => fail(&why.to_string()),
    }
}
