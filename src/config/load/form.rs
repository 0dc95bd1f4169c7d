//! Reads the tree into [`Config`], noting every mistake instead of the first alone.
//!
//! serde stops at the first fault. So the faulty value is noted, marked as skipped, and the tree is read again, until it
//! passes. A key that is missing only because it was skipped, or misspelt, is not reported a second time.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::fault::{Fault, Kind};
use super::node::Node;
use super::sources::Sources;
use crate::config::error::{KeyPath, Segment, nearest};
use crate::config::{Config, ConfigError, schema};

/// The configuration that is left once every faulty value is skipped; `errors` says which were.
pub(super) fn read(sources: &mut Sources, errors: &mut Vec<ConfigError>) -> Option<Config> {
    for _ in 0..MOST_ROUNDS {
        match Config::deserialize(sources.root()) {
            Ok(config) => return Some(config),
            Err(fault) => {
                errors.extend(explain(&fault, sources));
                skip(&fault, sources.root_mut());
            }
        }
    }
    errors.push(ConfigError::plain(
        "there are further mistakes, shown once these are mended",
    ));
    None
}

fn explain(fault: &Fault, sources: &Sources) -> Vec<ConfigError> {
    let path = fault.path();
    match &fault.kind {
        Kind::Missing(key) => missing(sources.root().nearest(&path), &path, key)
            .into_iter()
            .map(|key| Kind::Missing(key).at(&path, sources.place(&path)))
            .collect(),
        Kind::UnknownKey { key, .. } => {
            let place = sources.place_of_key(&path, key);
            vec![fault.kind.at(&path.key(key.clone()), place)]
        }
        // What is wrong about the rest of a value, once a part of it was skipped, may be wrong for that alone.
        Kind::Bad(_) if has_skipped(sources.root().nearest(&path)) => Vec::new(),
        Kind::UnknownWord { .. } | Kind::Bad(_) => {
            vec![fault.kind.at(&path, sources.place(&path))]
        }
    }
}

/// The keys that `table` lacks, `key` among them: serde names the first alone. Keys that were skipped are there, and a
/// misspelt key was reported under its own name.
fn missing(table: &Node, path: &KeyPath, key: &str) -> Vec<String> {
    let mut required = schema::required(path);
    required.insert(key.to_owned());
    let misspelt: BTreeSet<_> = table
        .entries()
        .filter(|(_, entry)| entry.node.skipped)
        .filter_map(|(name, _)| nearest(name, required.iter().map(String::as_str)))
        .map(str::to_owned)
        .collect();
    required
        .into_iter()
        .filter(|key| table.step(&Segment::Key(key.clone())).is_none())
        .filter(|key| !misspelt.contains(key))
        .collect()
}

fn has_skipped(node: &Node) -> bool {
    node.entries().any(|(_, entry)| entry.node.skipped)
        || node.items().iter().any(|item| item.skipped)
}

fn skip(fault: &Fault, root: &mut Node) {
    let path = match &fault.kind {
        Kind::UnknownKey { key, .. } => fault.path().key(key.clone()),
        _ => fault.path(),
    };
    if let Some(node) = root.find_mut(&path) {
        node.skipped = true;
    }
}

/// Bounds the work that a hopeless file makes.
const MOST_ROUNDS: usize = 200;
