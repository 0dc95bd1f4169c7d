//! Collects the main file and what it includes into one tree.
//!
//! Named tables (`[listen.NAME]`) are merged, lists (`[[route]]`) are appended in the order of the files. What there is
//! only one of (`workers`, `[admin]`) stands in the main file, so that no file overrides another.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::node::{Entry, Node, Spot, SyntaxError, Value};
use super::sources::Sources;
use crate::config::ConfigError;
use crate::config::error::{KeyPath, Place};

/// Top-level tables of named things.
pub(super) const NAMED: &[&str] = &[
    "issuer", "limit", "listen", "network", "session", "upstream",
];
/// Top-level lists.
pub(super) const LISTS: &[&str] = &["route", "test"];
/// Top-level keys that there is one of.
pub(super) const MAIN_ONLY: &[&str] = &[
    "admin",
    "assertion",
    "drain_timeout",
    "include",
    "limits",
    "log",
    "max_in_flight",
    "max_tunnels",
    "max_memory",
    "state_dir",
    "store",
    "workers",
];

/// What was gathered, and the mistakes met on the way.
pub(super) struct Gathered {
    pub(super) sources: Sources,
    pub(super) errors: Vec<ConfigError>,
    /// A file is no TOML: what it wanted to say is unknown.
    pub(super) broken: bool,
}

/// Parses `text` and every file that it includes.
pub(super) fn gather(name: &str, text: &str) -> Gathered {
    let (root, broken) = Node::parse(0, text);
    let mut gathered = Gathered {
        sources: Sources::new(name, text, root),
        errors: Vec::new(),
        broken: false,
    };
    gathered.note_syntax(broken);
    gathered.include_all(Path::new(name));
    gathered
}

/// Reads a configuration file, within bounds.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let cannot = |why: String| format!("cannot read {}: {why}", path.display());
    let file = fs::File::open(path).map_err(|error| cannot(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| cannot(error.to_string()))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(cannot(format!("it is larger than {LARGEST_FILE} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        cannot(format!("it is no UTF-8 from byte {valid} on"))
    })
}

impl Gathered {
    fn include_all(&mut self, main: &Path) {
        let folder = main.parent().unwrap_or(Path::new("")).to_owned();
        let mut seen: BTreeSet<PathBuf> = main.canonicalize().into_iter().collect();
        for (path, place, pattern) in self.patterns() {
            match matches(&folder, &pattern) {
                Ok(files) => {
                    for file in files {
                        // Two patterns may meet in one file; it is read once.
                        if seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())) {
                            self.include(&file, &path, &place);
                        }
                    }
                }
                Err(message) => self.error(&path, message, place),
            }
        }
    }

    /// The patterns of `include`; what is no text there is for `form` to report.
    fn patterns(&self) -> Vec<(KeyPath, Place, String)> {
        let include = KeyPath::root().key("include");
        let items = self.sources.root().nearest(&include).items();
        let patterns = items.iter().enumerate().filter_map(|(index, item)| {
            let Value::Text(pattern) = &item.value else {
                return None;
            };
            let place = self.sources.place_of(item.spot);
            Some((include.index(index), place, pattern.clone()))
        });
        patterns.collect()
    }

    fn include(&mut self, file: &Path, path: &KeyPath, place: &Place) {
        let text = match read(file) {
            Ok(text) => text,
            Err(message) => return self.error(path, message, place.clone()),
        };
        let (root, broken) = Node::parse(self.sources.count(), &text);
        self.sources.add(&file.display().to_string(), &text);
        self.note_syntax(broken);
        if let Value::Table(entries) = root.value {
            for (key, entry) in entries {
                self.merge(&key, entry);
            }
        }
    }

    /// Adds one top-level entry of an included file.
    fn merge(&mut self, key: &str, entry: Entry) {
        let path = KeyPath::root().key(key);
        let place = self.sources.place_of(entry.key);
        match entry.node.value {
            Value::Table(more) if NAMED.contains(&key) => {
                let spot = entry.node.spot;
                for (name, named) in more {
                    self.merge_named(key, spot, name, named);
                }
            }
            Value::List(more) if LISTS.contains(&key) => self.append(key, entry.node.spot, more),
            _ if NAMED.contains(&key) => {
                let message = format!("expected tables such as [{key}.NAME]");
                self.error(&path, message, place);
            }
            _ if LISTS.contains(&key) => {
                let message = format!("expected tables such as [[{key}]]");
                self.error(&path, message, place);
            }
            _ if key == "include" => {
                let message = "an included file includes no further files";
                self.error(&path, message, place);
            }
            _ if MAIN_ONLY.contains(&key) => {
                let message = format!("`{key}` belongs into the main file");
                self.error(&path, message, place);
            }
            // Unknown: `form` says so.
            value => {
                let _ = self.sources.root_mut().entry(key, entry.key, value);
            }
        }
    }

    fn merge_named(&mut self, key: &str, spot: Spot, name: String, named: Entry) {
        let path = KeyPath::root().key(key).key(&name);
        let Some(Value::Table(table)) = self.top(key, spot, Value::Table(BTreeMap::new())) else {
            return; // The main file has the wrong type there, which `form` reports.
        };
        let first = match table.entry(name) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(named);
                return;
            }
            btree_map::Entry::Occupied(first) => first.get().node.spot,
        };
        let first = self.sources.place_of(first);
        let message = format!("`{path}` is defined twice, first at {first}");
        let place = self.sources.place_of(named.node.spot);
        self.error(&path, message, place);
    }

    fn append(&mut self, key: &str, spot: Spot, more: Vec<Node>) {
        if let Some(Value::List(list)) = self.top(key, spot, Value::List(Vec::new())) {
            list.extend(more);
        }
    }

    /// The top-level value of `key`, made where the main file has none.
    fn top(&mut self, key: &str, spot: Spot, empty: Value) -> Option<&mut Value> {
        let node = self.sources.root_mut().entry(key, spot, empty)?;
        Some(&mut node.value)
    }

    fn note_syntax(&mut self, errors: Vec<SyntaxError>) {
        let mut last_line = None;
        for (spot, message) in errors {
            let place = self.sources.place_of(spot);
            self.broken = true;
            // The parser's second complaint about a line is a consequence of the first.
            if last_line.replace(place.line) != Some(place.line) {
                self.error(&KeyPath::root(), message, place);
            }
        }
    }

    fn error(&mut self, path: &KeyPath, message: impl Into<String>, place: Place) {
        self.errors.push(ConfigError {
            path: path.clone(),
            message: message.into(),
            help: None,
            place: Some(place),
        });
    }
}

/// The files that `pattern` names, sorted. Only a pattern with `*` may name none.
fn matches(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let (parent, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    if pattern.contains(['?', '[', ']', '{', '}']) || parent.contains('*') {
        return Err("a pattern knows `*` alone, in the file name alone".to_owned());
    }
    let parent = match (parent, pattern.starts_with('/')) {
        ("", true) => PathBuf::from("/"),
        _ => folder.join(parent),
    };
    if !name.contains('*') {
        return Ok(vec![parent.join(name)]);
    }
    let listing = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &parent
    };
    let cannot = |error: std::io::Error| format!("cannot list {}: {error}", parent.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(listing).map_err(cannot)? {
        let file_name = entry.map_err(cannot)?.file_name();
        let file = parent.join(&file_name);
        if is_match(name, &file_name.to_string_lossy()) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether `name` is what `pattern` describes; as in a shell, `*` never stands for a leading dot.
fn is_match(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let last = pieces.next_back().unwrap_or_default();
    let middle = name
        .strip_prefix(first)
        .and_then(|rest| rest.strip_suffix(last));
    // Between the two ends the earliest place of each piece is as good as any later one.
    middle.is_some_and(|middle| {
        pieces
            .try_fold(middle, |rest, piece| {
                rest.find(piece)
                    .and_then(|start| rest.get(start + piece.len()..))
            })
            .is_some()
    })
}

const LARGEST_FILE: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, name: &str, expected: bool) {
        assert_eq!(is_match(pattern, name), expected, "{pattern} on {name}");
    }

    #[test]
    fn a_star_stands_for_anything_but_a_leading_dot() {
        check("*.toml", "a.toml", true);
        check("*.toml", ".toml", false);
        check("*.toml", ".a.toml", false);
        check("*.toml", "a.toml.bak", false);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c", false);
        check("ab*ba", "aba", false);
        check("*", "anything", true);
    }
}
