//! The end of a log: what is queued is written, but a stuck reader does not keep the process from ending.

use std::fmt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::WorkerGuard;

/// Keeps a log's writing thread alive; dropped last, it waits for the queue to be written, two seconds at most.
#[must_use = "a log ends with its guard"]
pub struct Guard {
    worker: Option<WorkerGuard>,
}

const PATIENCE: Duration = Duration::from_secs(2);

impl Guard {
    pub(super) fn new(worker: WorkerGuard) -> Self {
        Self {
            worker: Some(worker),
        }
    }

    /// For a log that is off.
    pub(super) fn idle() -> Self {
        Self { worker: None }
    }
}

impl Drop for Guard {
    /// The appender's own guard prints to standard output when the queue is full, which is the very pipe that may be
    /// stuck. So it is dropped on a thread that may stay behind.
    fn drop(&mut self) {
        let Some(worker) = self.worker.take() else {
            return;
        };
        let (done, ended) = mpsc::channel();
        let ending = thread::Builder::new()
            .name("log-end".to_owned())
            .spawn(move || {
                drop(worker);
                let _ = done.send(());
            });
        if ending.is_ok() {
            let _ = ended.recv_timeout(PATIENCE);
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("on", &self.worker.is_some())
            .finish()
    }
}
