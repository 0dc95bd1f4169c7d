//! `csrf` of a route.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Whether requests that a page of another site made are told apart, where a cookie is the credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Csrf {
    /// `"on"`: the site itself, and the origins of `cors`.
    #[default]
    On,
    /// `"off"`: every site may, for callbacks that are form posts of another site by design.
    Off,
    /// A table: further origins may.
    Origins(CsrfOrigins),
}

/// The table form of `csrf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct CsrfOrigins {
    /// Exact origins whose pages may, beside the site itself and the origins of `cors`.
    pub origins: Vec<String>,
}

impl<'de> Deserialize<'de> for Csrf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrTable;

        impl<'de> Visitor<'de> for WordOrTable {
            type Value = Csrf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "\"on\", \"off\" or a table such as { origins = [\"https://app.example.com\"] }",
                )
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Csrf, E> {
                match word {
                    "on" => Ok(Csrf::On),
                    "off" => Ok(Csrf::Off),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Csrf, A::Error> {
                CsrfOrigins::deserialize(de::value::MapAccessDeserializer::new(map))
                    .map(Csrf::Origins)
            }
        }

        deserializer.deserialize_any(WordOrTable)
    }
}

impl Serialize for Csrf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::On => serializer.serialize_str("on"),
            Self::Off => serializer.serialize_str("off"),
            Self::Origins(origins) => origins.serialize(serializer),
        }
    }
}

impl JsonSchema for Csrf {
    fn schema_name() -> Cow<'static, str> {
        "Csrf".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<CsrfOrigins>();
        json_schema!({ "anyOf": [{ "type": "string", "enum": ["on", "off"] }, table] })
    }
}
