//! `vestibule show`: the configuration as the gateway understands it, every default written out.

use serde::Serialize as _;
use serde::ser::Error as _;
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};

use crate::config::Config;

/// The effective configuration as TOML, itself a valid configuration. Secrets stay the references they are.
#[must_use]
pub fn render(config: &Config) -> String {
    // What was read from TOML can be written as TOML; a configuration made in code could hold a path that is no text.
    written(config).unwrap_or_else(|error| format!("# cannot be written as TOML: {error}\n"))
}

fn written(config: &Config) -> Result<String, toml::ser::Error> {
    // Of the serializers this one alone keeps the order of the types, tables included.
    let mut text = "config = ".to_owned();
    config.serialize(toml::ser::ValueSerializer::new(&mut text))?;
    let written: DocumentMut = text.parse().map_err(toml::ser::Error::custom)?;
    let Some(Item::Value(Value::InlineTable(written))) = written.into_table().remove("config")
    else {
        return Err(toml::ser::Error::custom("a configuration is a table"));
    };
    let mut document = DocumentMut::new();
    for (key, value) in written {
        if let Some(item) = top_level(value) {
            document.insert(&key, item);
        }
    }
    Ok(document.to_string())
}

/// Headers for what is named at the top, one line for each of its keys. What is empty is left out.
fn top_level(value: Value) -> Option<Item> {
    match value {
        Value::InlineTable(table) if table.is_empty() => None,
        Value::Array(items) if items.is_empty() => None,
        Value::InlineTable(table) if table.iter().all(|(_, named)| named.is_inline_table()) => {
            let mut names = Table::new();
            names.set_implicit(true);
            for (name, value) in table {
                names.insert(&name, section(value));
            }
            Some(Item::Table(names))
        }
        Value::Array(items) if items.iter().all(Value::is_inline_table) => {
            let tables = items.into_iter().filter_map(|item| match item {
                Value::InlineTable(table) => Some(lines(table)),
                _ => None,
            });
            Some(Item::ArrayOfTables(tables.collect::<ArrayOfTables>()))
        }
        value => Some(section(value)),
    }
}

fn section(value: Value) -> Item {
    match value {
        Value::InlineTable(table) => Item::Table(lines(table)),
        mut value => {
            value.decor_mut().clear();
            Item::Value(value)
        }
    }
}

fn lines(table: InlineTable) -> Table {
    let mut table = table.into_table();
    table.fmt();
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    const SMALL: &str = r#"
        [listen.public]
        bind = "[::]:443"
        tls = { certificates = ["live", { chain = "a.crt", key = "a.key" }] }
        [upstream.api]
        endpoints = ["h2c://api:8080"]
        health = { path = "/ready" }
        [issuer.main]
        url = "https://id.example.com"
        audiences = ["api"]
        secret = { env = "JWT_SECRET" }
        [limit."log in"]
        rate = "10/m"
        [[route]]
        auth = { any = ["main"], claims = { org = "42", "https://a.b/c" = ["d", "e"] } }
        upstream = "api"
        [[route]]
        host = ["a.example.com", "b.example.com"]
        auth = "none"
        redirect = { to = "/" }
        [log]
        access = { file = "/var/log/access.log" }
        [[test]]
        url = "https://a.example.com/"
        expect = "no_route"
    "#;

    #[test]
    fn what_is_shown_is_the_same_configuration_again() {
        let loaded = load::from_str("small.toml", SMALL).unwrap();
        let shown = render(&loaded.config);
        let again = load::from_str("shown.toml", &shown).unwrap();
        assert_eq!(again.config, loaded.config, "{shown}");
        assert_eq!(render(&again.config), shown);
    }

    #[test]
    fn defaults_are_written_out_and_secrets_stay_references() {
        let loaded = load::from_str("small.toml", SMALL).unwrap();
        let shown = render(&loaded.config);
        for line in [
            r#"drain_timeout = "30s""#,
            "[listen.public]",
            r#"handshake_timeout = "10s""#,
            r#"tls = { certificates = ["live", { chain = "a.crt", key = "a.key" }], min_version = "1.2" }"#,
            r#"secret = { env = "JWT_SECRET" }"#,
            r#"[limit."log in"]"#,
            r#"redirect = { to = "/", status = 302 }"#,
            r#"access = { file = "/var/log/access.log" }"#,
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
    }
}
