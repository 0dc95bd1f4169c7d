//! Holds `conf/vestibule.toml` to the types: every key is in it, and the defaults that it shows are the defaults.
//!
//! In that file `# text` is prose and `#key = value` a key that is commented out. So there are two documents in it: what
//! is active, and everything, with those lines uncommented.

use std::collections::BTreeSet;

use serde_json::Value;
use toml_edit::{DocumentMut, Item, TableLike};

use super::{Config, load, schema};

const TEXT: &str = include_str!("../../conf/vestibule.toml");

pub(super) fn everything() -> String {
    let lines = TEXT.lines().map(|line| match line.strip_prefix('#') {
        Some(rest)
            if rest.starts_with(|start: char| start.is_ascii_lowercase() || start == '[') =>
        {
            rest
        }
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn read(text: &str) -> Config {
    match load::from_str("conf/vestibule.toml", text) {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("{errors:#?}"),
    }
}

/// Calls `see(path, value, schema)` for every value of `document` and every form that the schema allows it.
fn walk<'a>(
    root: &'a Value,
    schema: &'a Value,
    document: &'a Value,
    path: &str,
    see: &mut impl FnMut(&str, &'a Value, &'a Value),
) {
    for form in schema::forms(root, schema) {
        see(path, document, form);
        match document {
            Value::Object(table) => {
                for (key, value) in table {
                    let named = form.get("properties").and_then(|keys| keys.get(key));
                    if let Some(below) = named.or_else(|| form.get("additionalProperties")) {
                        walk(root, below, value, &format!("{path}.{key}"), see);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(below) = form.get("items") {
                    for item in items {
                        walk(root, below, item, &format!("{path}[]"), see);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The keys of a table with a default that is written as one value, not as a table of its own or not at all.
fn plain_defaults<'a>(
    root: &'a Value,
    table: &'a Value,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let keys = table.get("properties").and_then(Value::as_object);
    keys.into_iter().flatten().filter_map(|(key, schema)| {
        let default = schema.get("default").filter(|default| !default.is_null())?;
        let has_keys = |schema: &Value| {
            schema::forms(root, schema)
                .iter()
                .any(|form| form.get("properties").is_some())
        };
        let is_section = |schema: &Value| {
            has_keys(schema)
                || schema.get("items").is_some_and(has_keys)
                || schema.get("additionalProperties").is_some_and(has_keys)
        };
        // `access` is a word or a table; as its default is a word, it is written as one.
        (default.is_string() || !is_section(schema)).then_some((key, default))
    })
}

fn as_json(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

#[test]
fn the_active_part_is_a_configuration_that_serves() {
    let config = read(TEXT);
    assert_eq!(
        (
            config.listen.len(),
            config.upstream.len(),
            config.route.len()
        ),
        (1, 1, 1)
    );
}

#[test]
fn every_key_of_the_types_is_in_the_file() {
    let root = schema::json();
    let document = as_json(&everything());
    let mut missing: BTreeSet<String> = BTreeSet::new();
    let mut shown: BTreeSet<String> = BTreeSet::new();
    let definitions = root["$defs"].as_object().unwrap();
    let names = definitions
        .iter()
        .map(|(name, schema)| (name.as_str(), schema));
    for (name, table) in names.clone().chain([("Config", &root)]) {
        let keys = table.get("properties").and_then(Value::as_object);
        missing.extend(
            keys.into_iter()
                .flatten()
                .map(|(key, _)| format!("{name}.{key}")),
        );
    }
    walk(&root, &root, &document, "", &mut |_, value, form| {
        let name = names
            .clone()
            .find(|(_, schema)| std::ptr::eq(*schema, form))
            .map_or("Config", |(name, _)| name);
        let keys = value.as_object().into_iter().flatten();
        shown.extend(keys.map(|(key, _)| format!("{name}.{key}")));
    });
    missing.retain(|key| !shown.contains(key));
    assert!(missing.is_empty(), "conf/vestibule.toml lacks {missing:?}");
}

#[test]
fn the_defaults_that_the_file_shows_are_the_defaults() {
    let root = schema::json();
    let document = serde_json::to_value(read(&everything())).unwrap();
    walk(&root, &root, &document, "", &mut |path, value, form| {
        for (key, default) in plain_defaults(&root, form) {
            if let Some(shown) = value.get(key) {
                assert_eq!(shown, default, "{path}.{key} in conf/vestibule.toml");
            }
        }
    });
}

#[test]
fn what_has_a_default_is_active() {
    let root = schema::json();
    let document = as_json(TEXT);
    walk(&root, &root, &document, "", &mut |path, value, form| {
        if value.is_object() {
            for (key, _) in plain_defaults(&root, form) {
                assert!(
                    value.get(key).is_some(),
                    "{path}.{key} is not active in conf/vestibule.toml"
                );
            }
        }
    });
}

/// The keys of `table` in their order; sections come after values by the rules of TOML, so they are left out.
fn values(table: &dyn TableLike) -> Vec<String> {
    let values = table.iter().filter(|(_, item)| item.is_value());
    values.map(|(key, _)| key.to_owned()).collect()
}

fn assert_same_order(path: &str, file: &dyn TableLike, types: &dyn TableLike) {
    let (mut in_file, mut in_types) = (values(file), values(types));
    in_file.retain(|key| in_types.contains(key)); // `include` is gone once it is followed.
    in_types.retain(|key| in_file.contains(key));
    assert_eq!(in_file, in_types, "order of {path} in conf/vestibule.toml");
    for (key, item) in file.iter() {
        let path = format!("{path}.{key}");
        match (item, types.get(key)) {
            (Item::ArrayOfTables(file), Some(Item::ArrayOfTables(types))) => {
                for (file, types) in file.iter().zip(types) {
                    assert_same_order(&path, file, types);
                }
            }
            (file, Some(types)) => {
                if let (Some(file), Some(types)) = (file.as_table_like(), types.as_table_like()) {
                    assert_same_order(&path, file, types);
                }
            }
            (_, None) => {}
        }
    }
}

#[test]
fn the_keys_stand_in_the_order_of_the_types() {
    let file: DocumentMut = everything().parse().unwrap();
    let types: DocumentMut = crate::cli::show::render(&read(&everything()))
        .parse()
        .unwrap();
    assert_same_order("", file.as_table(), types.as_table());
}
