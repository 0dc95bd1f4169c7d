//! The last good key set of an issuer in a file, so that a restart during an outage still knows the keys.
//!
//! What is read back is trusted no more than what is fetched: it goes through the same reader, must be of the same
//! issuer, and counts from the moment at which it was fetched, so that `stale_max` holds across restarts. The file is
//! replaced whole, is ours alone, and is ignored when others could have written it: whoever can put a key there can
//! sign tokens.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::set::{KeySet, KeySetError, MAX_BYTES};
use crate::authn::cache::fingerprint;
use crate::authn::jwt::json::{self as strict, NotStrict};
use crate::config::Algorithm;
use crate::types::clock::unix_seconds;

/// Where the key set of one issuer is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf {
    file: PathBuf,
    /// The exact `iss`, and where the keys were fetched: the keys of another source are not those of this issuer.
    issuer: String,
    source: String,
}

/// A set that was kept.
#[derive(Debug)]
pub struct Kept {
    /// The keys.
    pub set: KeySet,
    /// The bytes that they were read from.
    pub raw: Bytes,
    /// How long ago it was fetched, by wall time.
    pub age: Duration,
}

/// Why a file is not used.
#[derive(Debug)]
pub enum Unusable {
    /// It cannot be read.
    Unreadable(io::Error),
    /// Others than its owner may write it.
    Exposed(u32),
    /// It is not what was written.
    Damaged(&'static str),
    /// It is no JSON as we accept it.
    NotJson(NotStrict),
    /// The keys in it are refused.
    Keys(KeySetError),
    /// It is older than `stale_max`, or from the future.
    Age,
}

const FORMAT: u64 = 1;

/// A key set, twice for the escapes of JSON, and what stands around it.
const MOST_BYTES: u64 = 2 * MAX_BYTES as u64 + 4_096;

/// Clocks that step back a little do not make a file one from the future.
const CLOCK_STEP: Duration = Duration::from_secs(120);

/// Checks that `folder` can keep what should survive a restart. It is not made: whoever checks a configuration is not
/// always the user that the gateway runs as.
///
/// # Errors
/// What is wrong with it.
pub fn check_folder(folder: &Path) -> Result<(), String> {
    let shown = folder.display();
    let facts = fs::metadata(folder).map_err(|why| format!("`{shown}` cannot be read: {why}"))?;
    if !facts.is_dir() {
        return Err(format!("`{shown}` is no folder"));
    }
    let mode = facts.permissions().mode() & 0o777;
    if mode & OTHERS_WRITE != 0 {
        return Err(format!(
            "`{shown}` can be written by others (mode {mode:03o}): whoever can put a key there can sign tokens"
        ));
    }
    let probe = folder.join(format!(".vestibule-{}", std::process::id()));
    let written = write_new(&probe, b"").and_then(|()| fs::remove_file(&probe));
    written.map_err(|why| format!("`{shown}` cannot be written: {why}"))
}

const OTHERS_WRITE: u32 = 0o022;

impl Shelf {
    /// The shelf of the issuer `name`, with this `iss`, whose keys are fetched at `source`.
    #[must_use]
    pub fn new(folder: &Path, name: &str, issuer: &str, source: &str) -> Self {
        // A name in the configuration may hold anything, a file's name may not.
        let readable: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(64)
            .collect();
        let print = fingerprint(&[name.as_bytes()]);
        let print = URL_SAFE_NO_PAD.encode(print.get(..9).unwrap_or_default());
        Self {
            file: folder.join(format!("jwks-{readable}-{print}.json")),
            issuer: issuer.to_owned(),
            source: source.to_owned(),
        }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Keeps the bytes of a set that was fetched at `wall`. Blocks.
    ///
    /// # Errors
    /// Those of the disk; what was kept before is then still there.
    pub fn keep(&self, raw: &[u8], wall: SystemTime) -> io::Result<()> {
        let keys = std::str::from_utf8(raw).map_err(io::Error::other)?;
        let fetched_at = unix_seconds(wall);
        let content = json!({
            "format": FORMAT,
            "issuer": self.issuer,
            "source": self.source,
            "fetched_at": fetched_at,
            "sha256": self.digest(fetched_at, raw),
            "keys": keys,
        });
        let beside = self
            .file
            .with_extension(format!("{}.new", std::process::id()));
        match fs::remove_file(&beside) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        let done = write_new(&beside, content.to_string().as_bytes())
            .and_then(|()| fs::rename(&beside, &self.file));
        if done.is_err() {
            // Best effort: a full disk is not made fuller.
            let _ = fs::remove_file(&beside);
        }
        done?;
        // The name is durable once the folder is; not every file system can do that.
        if let Some(folder) = self
            .file
            .parent()
            .and_then(|folder| File::open(folder).ok())
        {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// Reads back what was kept, if it may still be used. `allowed` is what the issuer may sign with.
    ///
    /// # Errors
    /// [`Unusable`]; a file that is not there is none.
    pub fn recall(
        &self,
        allowed: &[Algorithm],
        stale_max: Duration,
        wall: SystemTime,
    ) -> Result<Option<Kept>, Unusable> {
        let Some(content) = self.read()? else {
            return Ok(None);
        };
        let content = strict::object(&content).map_err(Unusable::NotJson)?;
        let text = |name: &str| content.get(name).and_then(Value::as_str);
        let number = |name: &str| content.get(name).and_then(Value::as_u64);
        if number("format") != Some(FORMAT) {
            return Err(Unusable::Damaged("of another format"));
        }
        if text("issuer") != Some(&self.issuer) || text("source") != Some(&self.source) {
            return Err(Unusable::Damaged("of another issuer or source"));
        }
        let (Some(keys), Some(fetched_at)) = (text("keys"), number("fetched_at")) else {
            return Err(Unusable::Damaged("incomplete"));
        };
        if text("sha256") != Some(&self.digest(fetched_at, keys.as_bytes())) {
            return Err(Unusable::Damaged("not what was written"));
        }
        let age = age(fetched_at, wall).filter(|age| *age <= stale_max);
        Ok(Some(Kept {
            set: KeySet::parse(keys.as_bytes(), allowed).map_err(Unusable::Keys)?,
            raw: Bytes::copy_from_slice(keys.as_bytes()),
            age: age.ok_or(Unusable::Age)?,
        }))
    }

    fn read(&self) -> Result<Option<Vec<u8>>, Unusable> {
        let file = match File::open(&self.file) {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(Unusable::Unreadable(why)),
        };
        let facts = file.metadata().map_err(Unusable::Unreadable)?;
        let mode = facts.permissions().mode() & 0o777;
        if !facts.is_file() || facts.len() > MOST_BYTES {
            return Err(Unusable::Damaged("no file that we wrote"));
        }
        if mode & OTHERS_WRITE != 0 {
            return Err(Unusable::Exposed(mode));
        }
        let mut content = Vec::new();
        file.take(MOST_BYTES)
            .read_to_end(&mut content)
            .map_err(Unusable::Unreadable)?;
        Ok(Some(content))
    }

    /// Tells a damaged disk from a good one; against somebody who may write the file it proves nothing.
    fn digest(&self, fetched_at: u64, keys: &[u8]) -> String {
        let parts: [&[u8]; 4] = [
            self.issuer.as_bytes(),
            self.source.as_bytes(),
            &fetched_at.to_be_bytes(),
            keys,
        ];
        URL_SAFE_NO_PAD.encode(fingerprint(&parts))
    }
}

fn age(fetched_at: u64, wall: SystemTime) -> Option<Duration> {
    let fetched_at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(fetched_at))?;
    match wall.duration_since(fetched_at) {
        Ok(age) => Some(age),
        Err(ahead) => (ahead.duration() <= CLOCK_STEP).then_some(Duration::ZERO),
    }
}

/// Writes a file that did not exist, for its owner alone, down to the disk.
fn write_new(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    file.write_all(content)?;
    file.sync_all()
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "it cannot be read: {why}"),
            Self::Exposed(mode) => write!(f, "others may write it (mode {mode:03o})"),
            Self::Damaged(how) => write!(f, "it is {how}"),
            Self::NotJson(why) => write!(f, "it is {why}"),
            Self::Keys(why) => why.fmt(f),
            Self::Age => f.write_str("it is older than `stale_max`, or from the future"),
        }
    }
}

impl std::error::Error for Unusable {}
