//! A key set (RFC 7517), judged whole before one of its keys is used.

use std::collections::HashSet;
use std::fmt;

use serde_json::{Map, Value};

use super::key::{Key, Unfit};
use crate::authn::jwt::json::{self, NotStrict};
use crate::config::Algorithm;

/// The keys of an issuer that may verify tokens; at least one.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Box<[Key]>,
    left_out: Box<[LeftOut]>,
}

/// An entry that is not used, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its `kid`, if it has one.
    pub kid: Option<String>,
    /// Why.
    pub why: Unfit,
}

/// Why a key set is refused whole.
#[derive(Debug)]
pub enum KeySetError {
    /// Larger than [`MAX_BYTES`].
    TooLarge,
    /// No JSON as we accept it.
    NotJson(NotStrict),
    /// Without a list `keys` of objects.
    NoList,
    /// One name for two keys.
    DuplicateKid(String),
    /// A shared secret in a set that anyone can read.
    SharedSecret,
    /// No key that may verify tokens is left; what was wrong with those that were there.
    NoKey(Box<[LeftOut]>),
}

/// Why no key of a set fits a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The set has no key of this name.
    UnknownKid,
    /// The key of this name is for another algorithm.
    OtherAlgorithm,
    /// The token names no key, and not exactly one fits.
    NotOne,
}

/// Largest key set, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

impl KeySet {
    /// Reads a key set. `allowed` is what the issuer may sign with.
    ///
    /// # Errors
    /// [`KeySetError`] when the whole set must be refused.
    pub fn parse(bytes: &[u8], allowed: &[Algorithm]) -> Result<Self, KeySetError> {
        if bytes.len() > MAX_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let set = json::object(bytes).map_err(KeySetError::NotJson)?;
        let entries = entries(&set)?;
        refuse_shared_secrets(&entries)?;
        refuse_duplicate_kids(&entries)?;

        let mut keys = Vec::new();
        let mut left_out = Vec::new();
        for entry in entries {
            match Key::parse(entry, allowed) {
                Ok(key) => keys.push(key),
                Err(why) => left_out.push(LeftOut {
                    kid: kid(entry).map(str::to_owned),
                    why,
                }),
            }
        }
        if keys.is_empty() {
            return Err(KeySetError::NoKey(left_out.into()));
        }
        Ok(Self {
            keys: keys.into(),
            left_out: left_out.into(),
        })
    }

    /// The key for a token that names `kid` and claims `algorithm`.
    ///
    /// # Errors
    /// [`Miss`] when there is none.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&Key, Miss> {
        let Some(kid) = kid else {
            let mut fitting = self.keys.iter().filter(|key| key.verifies(algorithm));
            return match (fitting.next(), fitting.next()) {
                (Some(only), None) => Ok(only),
                _ => Err(Miss::NotOne),
            };
        };
        let named = self.keys.iter().find(|key| key.kid() == Some(kid));
        let key = named.ok_or(Miss::UnknownKid)?;
        if key.verifies(algorithm) {
            Ok(key)
        } else {
            Err(Miss::OtherAlgorithm)
        }
    }

    /// Whether a key goes by this name.
    #[must_use]
    pub fn names(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
    }

    /// Whether every key of this set is still in `newer`; if not, what was verified with this set must be verified anew.
    #[must_use]
    pub fn is_kept_by(&self, newer: &Self) -> bool {
        self.keys
            .iter()
            .all(|key| newer.keys.iter().any(|other| key.is_kept_by(other)))
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Takes over what is known of the keys that were in `earlier` too.
    pub(super) fn follow(&mut self, earlier: &Self) {
        for key in &mut self.keys {
            if let Some(known) = earlier.keys.iter().find(|known| known.is_same(key)) {
                key.follow(known);
            }
        }
    }

    pub(super) fn keys_mut(&mut self) -> &mut [Key] {
        &mut self.keys
    }

    /// The entries that are not used.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}

fn entries(set: &Map<String, Value>) -> Result<Vec<&Map<String, Value>>, KeySetError> {
    set.get("keys")
        .and_then(Value::as_array)
        .and_then(|keys| keys.iter().map(Value::as_object).collect())
        .ok_or(KeySetError::NoList)
}

fn refuse_shared_secrets(entries: &[&Map<String, Value>]) -> Result<(), KeySetError> {
    let shared = |entry: &&&Map<String, Value>| {
        entry.contains_key("k") || entry.get("kty").is_some_and(|kty| kty == "oct")
    };
    match entries.iter().find(shared) {
        Some(_) => Err(KeySetError::SharedSecret),
        None => Ok(()),
    }
}

fn refuse_duplicate_kids(entries: &[&Map<String, Value>]) -> Result<(), KeySetError> {
    let mut seen = HashSet::new();
    match entries
        .iter()
        .filter_map(|entry| kid(entry))
        .find(|kid| !seen.insert(*kid))
    {
        Some(twice) => Err(KeySetError::DuplicateKid(twice.to_owned())),
        None => Ok(()),
    }
}

fn kid(entry: &Map<String, Value>) -> Option<&str> {
    entry.get("kid").and_then(Value::as_str)
}

impl fmt::Display for KeySetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "the key set is larger than {MAX_BYTES} bytes"),
            Self::NotJson(why) => write!(f, "the key set is {why}"),
            Self::NoList => f.write_str("the key set has no list `keys` of objects"),
            Self::DuplicateKid(kid) => write!(f, "the key set has two keys named {kid:?}"),
            Self::SharedSecret => f.write_str("the key set publishes a shared secret (oct)"),
            Self::NoKey(left_out) => {
                f.write_str("the key set has no key that may verify tokens")?;
                for entry in left_out.iter().take(4) {
                    write!(f, "; {entry}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for KeySetError {}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "key {kid:?} is {}", self.why),
            None => write!(f, "a key without kid is {}", self.why),
        }
    }
}
