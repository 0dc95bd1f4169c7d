//! Where every key was written.

use super::node::{Node, Spot};
use crate::config::ConfigError;
use crate::config::error::{KeyPath, Place};

/// The files of a configuration, the included ones among them, and the place of every key.
#[derive(Debug)]
pub struct Sources {
    files: Vec<File>,
    root: Node,
}

/// One file as it was read.
#[derive(Debug)]
struct File {
    name: String,
    text: String,
}

impl Sources {
    /// The names of all files, the main one first.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.name.as_str())
    }

    /// Where the value at `path` stands; where it is not written, where its nearest parent stands.
    #[must_use]
    pub fn place(&self, path: &KeyPath) -> Place {
        self.place_of(self.root.nearest(path).spot)
    }

    /// Fills in the places that are missing, and sorts by file and line.
    #[must_use]
    pub fn locate(&self, mut errors: Vec<ConfigError>) -> Vec<ConfigError> {
        for error in &mut errors {
            if error.place.is_none() {
                error.place = Some(self.place(&error.path));
            }
        }
        self.sort(errors)
    }

    pub(super) fn new(name: &str, text: &str, root: Node) -> Self {
        let mut sources = Self {
            files: Vec::new(),
            root,
        };
        sources.add(name, text);
        sources
    }

    /// Remembers a further file; its index is what its spots must carry.
    pub(super) fn add(&mut self, name: &str, text: &str) {
        self.files.push(File {
            name: name.to_owned(),
            text: text.to_owned(),
        });
    }

    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    pub(super) fn root_mut(&mut self) -> &mut Node {
        &mut self.root
    }

    /// By file, then line, then column; mistakes without a place last.
    pub(super) fn sort(&self, mut errors: Vec<ConfigError>) -> Vec<ConfigError> {
        errors.sort_by_key(|error| {
            error.place.as_ref().map_or((usize::MAX, 0, 0), |place| {
                let file = self.files.iter().position(|file| file.name == place.file);
                (file.unwrap_or(usize::MAX), place.line, place.column)
            })
        });
        errors
    }

    /// Where the key itself stands, not its value.
    pub(super) fn place_of_key(&self, table: &KeyPath, key: &str) -> Place {
        let table = self.root.nearest(table);
        let entry = table.entries().find(|(name, _)| *name == key);
        self.place_of(entry.map_or(table.spot, |(_, entry)| entry.key))
    }

    pub(super) fn place_of(&self, spot: Spot) -> Place {
        let (name, text) = self
            .files
            .get(spot.file)
            .map_or(("", ""), |file| (file.name.as_str(), file.text.as_str()));
        let before = text.get(..spot.offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let in_line = before.get(line_start..).unwrap_or_default();
        Place {
            file: name.to_owned(),
            line: before.matches('\n').count() + 1,
            column: in_line.chars().count() + 1,
        }
    }
}
