//! `vestibule schema`: the JSON Schema of the configuration, for editors and for validators of other tools.

use crate::config;

/// The schema, ready to be printed.
#[must_use]
pub fn render() -> String {
    format!("{:#}\n", config::schema::json())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_json_that_knows_every_top_level_key() {
        let schema: serde_json::Value = serde_json::from_str(&render()).unwrap();
        for key in ["listen", "upstream", "route", "drain_timeout"] {
            assert!(schema["properties"].get(key).is_some(), "{key}");
        }
        assert_eq!(schema["additionalProperties"], false);
    }
}
