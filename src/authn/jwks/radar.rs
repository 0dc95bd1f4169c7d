//! Follows the keys of one issuer through its rotations: when each was first seen and last used, and when it vanished.
//!
//! A key that vanishes while tokens that it signed are still good means that the issuer dropped it too early, and that
//! callers who did nothing wrong are refused. That is told: once in the log, and in a counter. Whether a token really is
//! of a vanished key is found out by its signature, so that nobody can raise the alarm by inventing a `kid`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::key::Key;
use super::set::KeySet;
use crate::types::clock::unix_seconds;

/// When a key was first seen and last used, in seconds since the epoch; 0 for never.
#[derive(Debug, Default)]
pub struct Sighting {
    first_seen: AtomicU64,
    last_used: AtomicU64,
}

/// What is known of the keys of one issuer.
#[derive(Debug, Default)]
pub struct Radar {
    ledger: Mutex<Ledger>,
    vanished_tokens: AtomicU64,
}

#[derive(Debug, Default)]
struct Ledger {
    present: Vec<Key>,
    vanished: VecDeque<Vanished>,
    warned: Option<SystemTime>,
}

#[derive(Debug)]
struct Vanished {
    key: Key,
    at: SystemTime,
}

/// What an operator may see of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// Its name, if it has one.
    pub kid: Option<Box<str>>,
    /// When it was first seen, in seconds since the epoch.
    pub first_seen: u64,
    /// When it last verified a token that was not cached; 0 for never.
    pub last_used: u64,
    /// When it left the set; `None` while it is there.
    pub vanished: Option<u64>,
}

/// How many vanished keys are remembered; the oldest is forgotten first.
const MOST_VANISHED: usize = 16;

/// Lines in the log for one set at most, and between two warnings of one issuer.
const MOST_LINES: usize = 16;
const WARN_EVERY: Duration = Duration::from_secs(60);

impl Sighting {
    /// The key has verified a token at `wall`.
    pub fn used(&self, wall: SystemTime) {
        self.last_used.store(unix_seconds(wall), Ordering::Relaxed);
    }
}

impl Radar {
    /// A set has come. Its keys take over what is known of them.
    pub fn note(&self, issuer: &str, set: &mut KeySet, wall: SystemTime) {
        let mut ledger = self.ledger.lock();
        let is_first = ledger.present.is_empty();
        let mut lines = MOST_LINES;
        let mut say = |kid: Option<&str>, what: &'static str| {
            if lines > 0 && !is_first {
                lines -= 1;
                tracing::info!(issuer, kid, "{what}");
            }
        };
        for key in set.keys_mut() {
            let known = ledger.present.iter().find(|known| known.is_same(key));
            if let Some(known) = known {
                key.follow(known);
                continue;
            }
            let back = ledger
                .vanished
                .iter()
                .position(|gone| gone.key.is_same(key));
            if let Some(gone) = back.and_then(|position| ledger.vanished.remove(position)) {
                key.follow(&gone.key);
                say(key.kid(), "a key of the issuer is back");
            } else {
                let first_seen = unix_seconds(wall);
                key.sighting()
                    .first_seen
                    .store(first_seen, Ordering::Relaxed);
                say(key.kid(), "first seen: a key of the issuer");
            }
        }
        let present = std::mem::replace(&mut ledger.present, set.keys().to_vec());
        for key in present {
            if set.keys().iter().any(|other| other.is_same(&key)) {
                continue;
            }
            say(
                key.kid(),
                "vanished: a key of the issuer; its tokens are refused",
            );
            if ledger.vanished.len() == MOST_VANISHED {
                ledger.vanished.pop_front();
            }
            ledger.vanished.push_back(Vanished { key, at: wall });
        }
    }

    /// A token that is good but for its `kid` was refused. If it is of a key that has vanished, as `is_signed_by` finds
    /// out, that is counted and told.
    pub fn refused(
        &self,
        issuer: &str,
        kid: Option<&str>,
        is_signed_by: impl Fn(&Key) -> bool,
        wall: SystemTime,
    ) {
        let gone = {
            let ledger = self.ledger.lock();
            let gone = ledger.vanished.iter().rev();
            let mut gone = gone.filter(|gone| kid.is_some() && gone.key.kid() == kid);
            gone.next().map(|gone| (gone.key.clone(), gone.at))
        };
        let Some((key, at)) = gone.filter(|(key, _)| is_signed_by(key)) else {
            return;
        };
        self.vanished_tokens.fetch_add(1, Ordering::Relaxed);
        key.sighting().used(wall);
        let mut ledger = self.ledger.lock();
        let is_due = ledger.warned.is_none_or(|last| {
            wall.duration_since(last)
                .map_or(true, |since| since >= WARN_EVERY)
        });
        if is_due {
            ledger.warned = Some(wall);
            drop(ledger);
            tracing::warn!(
                issuer,
                kid,
                vanished_at = unix_seconds(at),
                "tokens that have not expired are refused: the issuer no longer publishes the key that signed them"
            );
        }
    }

    /// Tokens that were refused because their key has vanished, since the start.
    #[must_use]
    pub fn vanished_tokens(&self) -> u64 {
        self.vanished_tokens.load(Ordering::Relaxed)
    }

    /// The keys that are there, then those that have vanished.
    #[must_use]
    pub fn facts(&self) -> Vec<KeyFacts> {
        let ledger = self.ledger.lock();
        let present = ledger.present.iter().map(|key| facts(key, None));
        let vanished = ledger.vanished.iter();
        let vanished = vanished.map(|gone| facts(&gone.key, Some(unix_seconds(gone.at))));
        present.chain(vanished).collect()
    }
}

fn facts(key: &Key, vanished: Option<u64>) -> KeyFacts {
    let seen = key.sighting();
    KeyFacts {
        kid: key.kid().map(Into::into),
        first_seen: seen.first_seen.load(Ordering::Relaxed),
        last_used: seen.last_used.load(Ordering::Relaxed),
        vanished,
    }
}

/// Shared by a key and its successors in later sets.
pub(super) type Followed = Arc<Sighting>;
