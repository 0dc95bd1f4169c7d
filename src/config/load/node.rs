//! A configuration file as a tree that remembers where everything stands.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, de::DeInteger};

use crate::config::error::{KeyPath, Segment};

/// A place, cheap to copy: which file, and the byte in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) file: usize,
    pub(super) offset: usize,
}

/// A value and where it starts; a table starts at its header.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) spot: Spot,
    pub(super) value: Value,
    /// Already reported as wrong: read on as if it were not there.
    pub(super) skipped: bool,
}

/// What stands there.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime,
    List(Vec<Node>),
    Table(BTreeMap<String, Entry>),
}

/// A key of a table and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Spot,
    pub(super) node: Node,
}

/// What the TOML parser objects to, and where.
pub(super) type SyntaxError = (Spot, String);

impl Node {
    /// Parses a whole file; what could be read is returned even where some of it could not.
    pub(super) fn parse(file: usize, text: &str) -> (Self, Vec<SyntaxError>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let errors = errors
            .iter()
            .map(|error| syntax_error(file, text, error))
            .collect();
        let root = Self {
            spot: Spot { file, offset: 0 },
            value: table_of(file, table.into_inner()),
            skipped: false,
        };
        (root, errors)
    }

    fn new(file: usize, value: Spanned<DeValue<'_>>) -> Self {
        let spot = Spot {
            file,
            offset: value.span().start,
        };
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => Value::Integer(integer(&number)),
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(yes) => Value::Boolean(yes),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(items) => Value::List(
                items
                    .into_iter()
                    .map(|item| Self::new(file, item))
                    .collect(),
            ),
            DeValue::Table(table) => table_of(file, table),
        };
        Self {
            spot,
            value,
            skipped: false,
        }
    }

    /// The value one step down.
    pub(super) fn step(&self, segment: &Segment) -> Option<&Self> {
        match (segment, &self.value) {
            (Segment::Key(key), Value::Table(table)) => table.get(key).map(|entry| &entry.node),
            (Segment::Index(index), Value::List(items)) => items.get(*index),
            _ => None,
        }
    }

    /// The value at `path`, to be changed.
    pub(super) fn find_mut(&mut self, path: &KeyPath) -> Option<&mut Self> {
        path.segments()
            .iter()
            .try_fold(self, |node, segment| match (segment, &mut node.value) {
                (Segment::Key(key), Value::Table(table)) => {
                    table.get_mut(key).map(|entry| &mut entry.node)
                }
                (Segment::Index(index), Value::List(items)) => items.get_mut(*index),
                _ => None,
            })
    }

    /// The value at `path`, or the last one on the way there.
    pub(super) fn nearest(&self, path: &KeyPath) -> &Self {
        let mut node = self;
        for segment in path.segments() {
            match node.step(segment) {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// The value of `key` in this table; `empty` is put there where nothing stands.
    pub(super) fn entry(&mut self, key: &str, spot: Spot, empty: Value) -> Option<&mut Self> {
        let Value::Table(table) = &mut self.value else {
            return None;
        };
        let entry = table.entry(key.to_owned()).or_insert_with(|| Entry {
            key: spot,
            node: Self {
                spot,
                value: empty,
                skipped: false,
            },
        });
        Some(&mut entry.node)
    }

    /// The keys of a table; empty for everything else.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        match &self.value {
            Value::Table(table) => Some(table.iter()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }

    /// The items of a list; empty for everything else.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }
}

fn table_of(file: usize, table: DeTable<'_>) -> Value {
    let entries = table.into_iter().map(|(key, value)| {
        let spot = Spot {
            file,
            offset: key.span().start,
        };
        let entry = Entry {
            key: spot,
            node: Node::new(file, value),
        };
        (key.into_inner().into_owned(), entry)
    });
    Value::Table(entries.collect())
}

/// A number too large for any key is as wrong as the largest one.
fn integer(number: &DeInteger<'_>) -> i128 {
    i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX)
}

fn syntax_error(file: usize, text: &str, error: &toml::de::Error) -> SyntaxError {
    let span = error.span().unwrap_or(text.len()..text.len());
    let message = match (error.message(), text.get(span.clone())) {
        ("duplicate key", Some(key)) => format!("`{key}` is written twice"),
        (message, _) => message.to_owned(),
    };
    let spot = Spot {
        file,
        offset: span.start,
    };
    (spot, message)
}
