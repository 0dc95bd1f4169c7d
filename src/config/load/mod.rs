//! Reads configuration files: includes, places of errors, every mistake of form at once.
//!
//! What the words mean together (names that nobody defined, keys that exclude each other) is judged when the snapshot
//! is compiled; [`Sources`] tells where those mistakes stand too.

mod de;
mod fault;
mod form;
mod include;
mod node;
mod sources;

use std::path::Path;

use include::Gathered;
pub use sources::Sources;

use super::{Config, ConfigError};

/// A configuration, and where each of its keys was written.
#[derive(Debug)]
pub struct Loaded {
    /// What the files say, includes merged in: its own `include` is empty, so that it can be written out and read again.
    pub config: Config,
    /// Where they say it.
    pub sources: Sources,
}

/// Reads the file at `path` and what it includes.
///
/// # Errors
///
/// Every mistake of form, sorted by file and line.
pub fn from_file(path: &Path) -> Result<Loaded, Vec<ConfigError>> {
    let name = path.display().to_string();
    let text = include::read(path).map_err(|message| vec![ConfigError::plain(message)])?;
    from_str(&name, &text)
}

/// Reads `text` as if it stood in a file called `name`; includes are looked for beside that file.
///
/// # Errors
///
/// Every mistake of form, sorted by file and line.
pub fn from_str(name: &str, text: &str) -> Result<Loaded, Vec<ConfigError>> {
    let Gathered {
        mut sources,
        mut errors,
        broken,
    } = include::gather(name, text);
    if broken {
        // What a broken line wanted to say is unknown, and so is whether the rest is wrong without it.
        return Err(sources.sort(errors));
    }
    let config = form::read(&mut sources, &mut errors);
    match config {
        Some(mut config) if errors.is_empty() => {
            config.include.clear();
            Ok(Loaded { config, sources })
        }
        _ => Err(sources.sort(errors)),
    }
}

#[cfg(test)]
mod tests;
