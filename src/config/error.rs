//! What is wrong with a configuration, and where. Errors are collected, never the first one alone.

use std::fmt;

/// Where in the configuration: `route[3].limits[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath {
    segments: Vec<Segment>,
}

/// One step of a [`KeyPath`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A key of a table.
    Key(String),
    /// A position in an array.
    Index(usize),
}

impl KeyPath {
    /// The whole file.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The value of `key` in the table at this path.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.with(Segment::Key(key.into()))
    }

    /// The element `index` of the array at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// The steps, outermost first.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.segments.clone();
        segments.push(segment);
        Self { segments }
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::Key(key) => {
                    let dot = if position == 0 { "" } else { "." };
                    let bare = !key.is_empty()
                        && key.bytes().all(|byte| {
                            byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
                        });
                    if bare {
                        write!(f, "{dot}{key}")?
                    } else {
                        write!(f, "{dot}{key:?}")?
                    }
                }
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key it is about.
    pub path: KeyPath,
    /// What is wrong, in one sentence without the path.
    pub message: String,
    /// What to do about it: the nearest valid word, the flag, the command.
    pub help: Option<String>,
    /// Where that is in the files; filled in by `load`.
    pub place: Option<Place>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, in characters from 1.
    pub column: usize,
}

impl ConfigError {
    /// A mistake of the whole configuration, with no key and no place to name.
    pub fn plain(message: impl Into<String>) -> Self {
        Self {
            path: KeyPath::root(),
            message: message.into(),
            help: None,
            place: None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        let path = self.path.to_string();
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Collects mistakes while a configuration is compiled.
#[derive(Debug, Default)]
pub struct Problems {
    errors: Vec<ConfigError>,
}

impl Problems {
    /// Notes that the value at `path` is wrong.
    pub fn push(&mut self, path: &KeyPath, message: impl Into<String>) {
        self.push_with_help(path, message, None);
    }

    /// The same, with what to do about it.
    pub fn push_with_help(
        &mut self,
        path: &KeyPath,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.errors.push(ConfigError {
            path: path.clone(),
            message: message.into(),
            help,
            place: None,
        });
    }

    /// Notes that `name` is not one of `known`, and proposes the nearest.
    pub fn unknown_name<'a>(
        &mut self,
        path: &KeyPath,
        kind: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        let help = nearest(name, known).map(|word| format!("did you mean `{word}`?"));
        self.push_with_help(path, format!("there is no {kind} named `{name}`"), help);
    }

    /// Whether nothing is wrong so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// All mistakes, in the order in which they were found.
    #[must_use]
    pub fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }
}

/// The word of `known` that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().max(3) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_toml_does() {
        let path = KeyPath::root()
            .key("route")
            .index(3)
            .key("match headers")
            .key("x");
        assert_eq!(path.to_string(), r#"route[3]."match headers".x"#);
    }

    #[test]
    fn the_nearest_word_is_proposed_only_when_it_is_near() {
        assert_eq!(nearest("upsteam", ["upstream", "listen"]), Some("upstream"));
        assert_eq!(nearest("banana", ["upstream", "listen"]), None);
    }
}
