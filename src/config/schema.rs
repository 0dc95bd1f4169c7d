//! The JSON Schema of the file types, and what `load` looks up in it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Config;
use super::error::{KeyPath, Segment};

/// The JSON Schema (draft 2020-12) of the configuration.
#[must_use]
pub fn json() -> Value {
    schemars::schema_for!(Config).to_value()
}

/// The keys that the table at `path` must have.
pub(super) fn required(path: &KeyPath) -> BTreeSet<String> {
    let schema = json();
    let tables = path
        .segments()
        .iter()
        .fold(forms(&schema, &schema), |forms_here, segment| {
            let below = forms_here
                .into_iter()
                .filter_map(|form| step(form, segment));
            below.flat_map(|form| forms(&schema, form)).collect()
        });
    tables
        .into_iter()
        .filter_map(|table| table.get("required")?.as_array())
        .flatten()
        .filter_map(|key| key.as_str().map(str::to_owned))
        .collect()
}

/// The schemas that `schema` stands for: references followed, alternatives spread out.
pub(super) fn forms<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let definition = name
            .strip_prefix('#')
            .and_then(|pointer| root.pointer(pointer));
        return definition.map_or_else(Vec::new, |definition| forms(root, definition));
    }
    for word in ["anyOf", "oneOf", "allOf"] {
        if let Some(alternatives) = schema.get(word).and_then(Value::as_array) {
            return alternatives
                .iter()
                .flat_map(|alternative| forms(root, alternative))
                .collect();
        }
    }
    vec![schema]
}

fn step<'a>(schema: &'a Value, segment: &Segment) -> Option<&'a Value> {
    match segment {
        Segment::Key(key) => schema
            .get("properties")
            .and_then(|properties| properties.get(key))
            .or_else(|| schema.get("additionalProperties")),
        Segment::Index(_) => schema.get("items"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &KeyPath, expected: &[&str]) {
        let required = required(path);
        assert!(required.iter().eq(expected), "{path}: {required:?}");
    }

    #[test]
    fn required_keys_are_found_through_names_lists_and_alternatives() {
        let root = KeyPath::root();
        check(&root, &[]);
        check(&root.key("issuer").key("any name"), &["audiences", "url"]);
        check(&root.key("route").index(7), &["auth"]);
        check(&root.key("route").index(7).key("csrf"), &["origins"]);
        let tls = root.key("listen").key("public").key("tls");
        check(&tls, &["certificates"]);
        check(&tls.key("certificates").index(0), &["chain", "key"]);
    }
}
