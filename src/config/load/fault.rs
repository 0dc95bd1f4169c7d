//! What deserialising objects to: one mistake, with the path to it, in words an operator knows.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

use crate::config::ConfigError;
use crate::config::error::{KeyPath, Place, Segment, nearest};

/// The first mistake that deserialising met.
#[derive(Debug)]
pub(super) struct Fault {
    /// Innermost step first: the path grows while the error travels outwards.
    steps: Vec<Segment>,
    pub(super) kind: Kind,
}

/// What is wrong.
#[derive(Debug)]
pub(super) enum Kind {
    /// The table knows no such key.
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    /// A list of words knows no such word.
    UnknownWord {
        word: String,
        known: &'static [&'static str],
    },
    /// The table lacks a key.
    Missing(String),
    /// The value is wrong.
    Bad(String),
}

impl Fault {
    /// The value is wrong, and this is why.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Kind::Bad(message.into()).into()
    }

    /// Notes that the fault lies inside `segment`.
    pub(super) fn under(mut self, segment: Segment) -> Self {
        self.steps.push(segment);
        self
    }

    /// The value the fault is about; of an unknown or missing key, its table.
    pub(super) fn path(&self) -> KeyPath {
        let outermost_first = self.steps.iter().rev();
        outermost_first.fold(KeyPath::root(), |path, step| match step {
            Segment::Key(key) => path.key(key.clone()),
            Segment::Index(index) => path.index(*index),
        })
    }
}

impl From<Kind> for Fault {
    fn from(kind: Kind) -> Self {
        Self {
            steps: Vec::new(),
            kind,
        }
    }
}

impl Kind {
    /// The error to report about `path`.
    pub(super) fn at(&self, path: &KeyPath, place: Place) -> ConfigError {
        ConfigError {
            path: path.clone(),
            message: self.message(),
            help: self.help(),
            place: Some(place),
        }
    }

    /// What is wrong, in one sentence.
    fn message(&self) -> String {
        match self {
            Self::UnknownKey { key, .. } => format!("unknown key `{key}`"),
            Self::UnknownWord { word, .. } => format!("unknown word `{}`", shortened(word)),
            Self::Missing(key) => format!("missing key `{key}`"),
            Self::Bad(message) => message.clone(),
        }
    }

    /// What to do about it.
    fn help(&self) -> Option<String> {
        match self {
            Self::UnknownKey { key, known } => Some(proposal(key, known, "keys here")),
            Self::UnknownWord { word, known } => Some(proposal(word, known, "known")),
            Self::Missing(_) => None,
            Self::Bad(message) => example(message).map(str::to_owned),
        }
    }
}

impl Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::bad(message.to_string())
    }

    // The value itself is not repeated: where the type is wrong it may be a secret in the wrong place.
    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::bad(format!(
            "expected {}, found {}",
            wanted(expected),
            kind_of(&unexpected)
        ))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::bad(format!(
            "expected {}, found {}",
            wanted(expected),
            shown(&unexpected)
        ))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let key = field.to_owned();
        Kind::UnknownKey {
            key,
            known: expected,
        }
        .into()
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let word = variant.to_owned();
        Kind::UnknownWord {
            word,
            known: expected,
        }
        .into()
    }

    fn missing_field(field: &'static str) -> Self {
        Kind::Missing(field.to_owned()).into()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path(), self.kind.message())
    }
}

impl std::error::Error for Fault {}

/// The nearest word, or what there is to choose from.
fn proposal(word: &str, known: &[&str], heading: &str) -> String {
    if let Some(word) = nearest(word, known.iter().copied()) {
        return format!("did you mean `{word}`?");
    }
    let listed: Vec<_> = known.iter().take(LISTED_WORDS).copied().collect();
    let more = match known.len().saturating_sub(LISTED_WORDS) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    format!("{heading}: {}{more}", listed.join(", "))
}

/// What serde calls the expected thing, in the words of a TOML file.
fn wanted(expected: &dyn Expected) -> String {
    let words = expected.to_string();
    let ours = match words.as_str() {
        "a sequence" => "a list",
        "a map" => "a table",
        "a boolean" => "true or false",
        "path string" => "a path",
        "string" => "a string",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number",
        "a nonzero usize" => "a whole number from 1",
        "socket address" => "an address with its port",
        "IP address" => "an IP address",
        "IPv4 or IPv6 network address" => "a network such as \"10.0.0.0/8\"",
        words if words.starts_with("struct ") => "a table",
        words => words,
    };
    ours.to_owned()
}

fn kind_of<'a>(unexpected: &Unexpected<'a>) -> &'a str {
    match unexpected {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a number",
        Unexpected::Float(_) => "a decimal number",
        Unexpected::Str(_) => "a string",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a table",
        Unexpected::Other(words) => words,
        _ => "something else",
    }
}

fn shown(unexpected: &Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("`{value}`"),
        Unexpected::Signed(value) => format!("`{value}`"),
        Unexpected::Float(value) => format!("`{value}`"),
        Unexpected::Str(value) => format!("`{}`", shortened(value)),
        other => kind_of(other).to_owned(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_ECHO) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// How the standard types' terse complaints are mended.
fn example(message: &str) -> Option<&'static str> {
    match message {
        "invalid socket address syntax" => {
            Some("write address and port, such as \"0.0.0.0:443\" or \"[::]:443\"")
        }
        "invalid IP address syntax" => {
            Some("write \"10.0.0.7\", or for a network \"10.0.0.0/8\" or \"2001:db8::/32\"")
        }
        _ => None,
    }
}

const LISTED_WORDS: usize = 12;
const LONGEST_ECHO: usize = 60;
