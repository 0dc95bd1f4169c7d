//! The access log: one JSON object a line for each request, written by a thread of its own.
//!
//! A request hands over one finished line and goes on. When the reader or the disk does not keep up, lines are dropped
//! and counted; no request ever waits. What must not be logged (cookies, credentials, values of a query) has no field in
//! [`Record`].

mod record;
mod sink;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder};

pub use record::{Outcome, Record};

use super::Guard;
use crate::config;
use sink::{Reopen, Sink};

/// Where lines are handed in; cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    on: Option<On>,
}

#[derive(Clone, Debug)]
struct On {
    queue: NonBlocking,
    lost: Arc<AtomicU64>,
    reopen: Reopen,
}

/// Lines that may wait. A line is seldom one KiB, and no more than three of what the pipeline lets through, so that a
/// stuck reader costs 6 MiB as a rule and 25 MiB under an attack.
const QUEUE: usize = 8_192;

impl AccessLog {
    /// Opens the destination and starts the writing thread. The log ends with the guard.
    ///
    /// # Errors
    ///
    /// When the destination cannot be opened.
    pub fn start(log: &config::Log) -> io::Result<(Self, Guard)> {
        match &log.access {
            config::AccessLog::Off => Ok((Self::off(), Guard::idle())),
            config::AccessLog::Stdout => Ok(Self::over(sink::stdout()?, QUEUE)),
            config::AccessLog::File(path) => Ok(Self::over(sink::file(path)?, QUEUE)),
        }
    }

    /// A log that writes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self { on: None }
    }

    fn over<W: Write + Send + 'static>(sink: Sink<W>, lines: usize) -> (Self, Guard) {
        let (lost, reopen) = (sink.lost(), sink.reopen());
        let (queue, worker) = NonBlockingBuilder::default()
            .buffered_lines_limit(lines)
            .lossy(true)
            .thread_name("access-log")
            .finish(sink);
        let on = On {
            queue,
            lost,
            reopen,
        };
        (Self { on: Some(on) }, Guard::new(worker))
    }

    /// Whether it is worth putting a record together.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Hands in one line; never waits.
    pub fn write(&self, record: &Record<'_>) {
        let Some(on) = &self.on else { return };
        // A thread that is coming to its end has no buffer any more; it logs nothing then.
        let _ = LINE.try_with(|line| {
            let Ok(mut line) = line.try_borrow_mut() else {
                return;
            };
            line.clear();
            record.write_line(&mut line);
            // A lossy queue never fails; it counts.
            let _ = on.queue.clone().write_all(&line);
        });
    }

    /// Lines dropped since the start: for a full queue, or for a destination that could not be written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.on.as_ref().map_or(0, |on| {
            let unqueued = u64::try_from(on.queue.error_counter().dropped_lines());
            unqueued
                .unwrap_or(u64::MAX)
                .saturating_add(on.lost.load(Ordering::Relaxed))
        })
    }

    /// Opens a file anew before the next line, as log rotation asks for; other destinations stay as they are.
    pub fn reopen(&self) {
        if let Some(on) = &self.on {
            on.reopen.ask();
        }
    }
}

thread_local! {
    static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1_024));
}
