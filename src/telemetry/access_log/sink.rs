//! Where lines end up; lives on the writing thread, and may block there.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Gathers lines and writes them together. What cannot be written is counted and given up: a full disk must not hold
/// up the lines that come after it.
pub(super) struct Sink<W> {
    to: W,
    batch: Vec<u8>,
    /// The destination ends in a piece of a line.
    torn: bool,
    lost: Arc<AtomicU64>,
    asked: Reopen,
    open_again: Option<Box<dyn FnMut() -> io::Result<W> + Send>>,
}

/// Asks for a file to be opened anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Reopen(Arc<AtomicBool>);

/// Bytes that are written at once.
const BATCH: usize = 64 * 1_024;

/// Standard output, by a descriptor of our own: `std::io::stdout` would lock out everybody else who prints.
pub(super) fn stdout() -> io::Result<Sink<File>> {
    let own = io::stdout().as_fd().try_clone_to_owned()?;
    Ok(Sink::new(File::from(own)))
}

/// A file, appended to, readable by owner and group only: it holds addresses and names.
pub(super) fn file(path: &Path) -> io::Result<Sink<File>> {
    let path: PathBuf = path.to_owned();
    let open = move || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&path)
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!(
                        "the access log {} cannot be opened: {error}",
                        path.display()
                    ),
                )
            })
    };
    let mut sink = Sink::new(open()?);
    sink.open_again = Some(Box::new(open));
    Ok(sink)
}

impl Reopen {
    pub(super) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn was_asked(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl<W: Write> Sink<W> {
    pub(super) fn new(to: W) -> Self {
        Self {
            to,
            batch: Vec::with_capacity(BATCH),
            torn: false,
            lost: Arc::default(),
            asked: Reopen::default(),
            open_again: None,
        }
    }

    /// The counter of lines that could not be written.
    pub(super) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    pub(super) fn reopen(&self) -> Reopen {
        self.asked.clone()
    }

    #[cfg(test)]
    pub(super) fn disk(&mut self) -> &mut W {
        &mut self.to
    }

    fn spill(&mut self) {
        self.reopen_if_asked();
        self.mend();
        let written = if self.torn {
            0
        } else {
            write_what_goes(&mut self.to, &self.batch)
        };
        let (done, rest) = self.batch.split_at(written.min(self.batch.len()));
        if let Some(last) = done.last() {
            self.torn = *last != b'\n';
        }
        self.lost.fetch_add(count_lines(rest), Ordering::Relaxed);
        self.batch.clear();
    }

    /// Ends the piece of a line that a full disk left behind, so that the next line stands alone.
    fn mend(&mut self) {
        if self.torn && write_what_goes(&mut self.to, b"\n") == 1 {
            self.torn = false;
        }
    }

    /// A file that cannot be opened leaves the one at hand in use.
    fn reopen_if_asked(&mut self) {
        let Some(open) = &mut self.open_again else {
            return;
        };
        if !self.asked.was_asked() {
            return;
        }
        match open() {
            Ok(to) => {
                self.to = to;
                self.torn = false;
            }
            Err(error) => tracing::warn!(%error, "the access log goes on where it was"),
        }
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.batch.len() + line.len() > BATCH {
            self.spill();
        }
        self.batch.extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.batch.is_empty() {
            self.spill();
        }
        Ok(())
    }
}

/// How many bytes were taken before there was an error, if there was one.
fn write_what_goes(to: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match to.write(rest) {
            Ok(taken) if taken > 0 => written += taken,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    written
}

/// A line that is cut counts.
fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
