//! Whether the store is there, seen over the lines of all workers. One line in the log for each change.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The lines of one store.
#[derive(Debug, Default)]
pub(super) struct Health {
    lines: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Lines that are connected.
    up: usize,
    /// What was told last; nothing before the first connection, or the first failure.
    told: Option<Told>,
    last_error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Up,
    Down,
}

/// The health of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether every line is connected.
    pub up: bool,
    /// Whether it is known whether it is there.
    pub known: bool,
    /// Lines: one for each worker, and one more.
    pub lines: usize,
    /// Of those, the ones whose circuit is open.
    pub open: usize,
    /// Why it could not be reached last.
    pub last_error: Option<String>,
}

impl Health {
    pub(super) fn add_line(&self) {
        self.lines.fetch_add(1, Ordering::Relaxed);
    }

    /// A line was connected.
    pub(super) fn up(&self) {
        let lines = self.lines.load(Ordering::Relaxed);
        let mut state = self.state.lock();
        state.up += 1;
        if state.up >= lines && state.told != Some(Told::Up) {
            state.told = Some(Told::Up);
            tracing::info!(lines, "the store answers; limits and logouts are shared");
        }
    }

    /// A line that was connected is no more.
    pub(super) fn down(&self, why: String) {
        let mut state = self.state.lock();
        state.up = state.up.saturating_sub(1);
        state.tell_down(why);
    }

    /// A line that is not connected could not be.
    pub(super) fn still_down(&self, why: String) {
        self.state.lock().tell_down(why);
    }

    pub(super) fn status(&self) -> Status {
        let lines = self.lines.load(Ordering::Relaxed);
        let state = self.state.lock();
        Status {
            up: state.told == Some(Told::Up),
            known: state.told.is_some(),
            lines,
            open: lines.saturating_sub(state.up),
            last_error: state.last_error.clone(),
        }
    }
}

impl State {
    fn tell_down(&mut self, why: String) {
        if self.told != Some(Told::Down) {
            self.told = Some(Told::Down);
            tracing::warn!(%why, "the store cannot be used; limits follow `on_failure` or `on_store_down`, logouts hold here alone");
        }
        self.last_error = Some(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_up_once_all_lines_are_and_down_with_the_first() {
        let health = Health::default();
        health.add_line();
        health.add_line();
        assert!(!health.status().known);
        health.up();
        assert!(!health.status().up, "one of two");
        health.up();
        assert!(health.status().up);
        health.down("gone".to_owned());
        let status = health.status();
        assert_eq!((status.up, status.known, status.open), (false, true, 1));
        assert_eq!(status.last_error.as_deref(), Some("gone"));
        health.up();
        assert!(health.status().up);
    }
}
