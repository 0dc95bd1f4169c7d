//! A reload: compile off the workers, swap whole, or keep what is in force.

use std::sync::Arc;

use super::House;
use crate::config::ConfigError;
use crate::snapshot::Snapshot;
use crate::types::clock;

/// What a reload brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The generation now in force.
    pub generation: u64,
}

/// How the last reload went.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastReload {
    pub(super) ok: bool,
    pub(super) unix_seconds: u64,
}

/// Reads, compiles and swaps. The outcome is counted and logged either way.
pub(super) fn reload(house: &House) -> Result<Reloaded, Vec<ConfigError>> {
    let outcome = compile(house);
    let wall = clock::wall();
    *house.last_reload.lock() = Some(LastReload {
        ok: outcome.is_ok(),
        unix_seconds: clock::unix_seconds(wall),
    });
    match &outcome {
        Ok(snapshot) => {
            house.shared.snapshot.store(Arc::clone(snapshot));
            snapshot.save_keys();
            house.access_log.reopen(); // whoever rotated the file asks for this by the same signal
            warn_of_certificates(snapshot);
            house.metrics.config_in_force(snapshot.generation, wall);
            tracing::info!(generation = snapshot.generation, "reloaded");
        }
        Err(errors) => {
            let generation = house.shared.snapshot.load().generation;
            house.metrics.config_refused(wall);
            for error in errors {
                tracing::error!(%error, generation, "reload refused; the old configuration stays in force");
            }
        }
    }
    outcome.map(|snapshot| Reloaded {
        generation: snapshot.generation,
    })
}

/// Certificates near their end, keys open to others: worth a line, no reason to refuse.
pub(super) fn warn_of_certificates(snapshot: &Snapshot) {
    for (listener, warning) in snapshot.certificate_warnings() {
        tracing::warn!(listener, warning, "certificate");
    }
}

fn compile(house: &House) -> Result<Arc<Snapshot>, Vec<ConfigError>> {
    let loaded = house.source.load()?;
    let previous = house.shared.snapshot.load_full();
    Snapshot::compile(&Arc::new(loaded.config), Some(&previous), &house.metrics)
        .map(Arc::new)
        .map_err(|errors| loaded.sources.locate(errors))
}
