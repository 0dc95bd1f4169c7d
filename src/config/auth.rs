//! `auth` of a route.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::value::OneOrMany;

/// What a route demands of its caller. Required on every route: nothing is public by accident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `"none"`: no credential is looked at.
    None,
    /// `"deny"`: the path is closed, whoever asks; also when a rewrite of another route leads here.
    Deny,
    /// A table: one of these credentials, and these rules.
    Rules(AuthRules),
}

/// The table form of `auth`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthRules {
    /// Names of issuers and sessions; one of them must vouch for the caller. Either this or `all`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<String>,
    /// Names of issuers and sessions; every one must vouch for the caller, and all for the same one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<String>,
    /// One of these roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// One of these scopes.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Claims that must have (or, in arrays, hold) one of these values; dots walk into objects.
    #[serde(default)]
    pub claims: BTreeMap<String, OneOrMany<String>>,
    /// One of these levels of authentication, in the claim `aal`.
    #[serde(default)]
    pub aal: Vec<String>,
    /// A rule in CEL over `claims`, `request` and `client`, for what the other keys cannot say.
    pub when: Option<String>,
    /// Let a request without credential through as anonymous; a bad credential is still refused.
    #[serde(default)]
    pub optional: bool,
}

impl AuthRules {
    /// Everybody who is named as vouching for the caller, under `any` or `all`.
    pub fn vouchers(&self) -> impl Iterator<Item = &String> {
        self.any.iter().chain(&self.all)
    }
}

impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrTable;

        impl<'de> Visitor<'de> for WordOrTable {
            type Value = Auth;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"none\", \"deny\" or a table such as { any = [\"main\"] }")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Auth, E> {
                match word {
                    "none" => Ok(Auth::None),
                    "deny" => Ok(Auth::Deny),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Auth, A::Error> {
                AuthRules::deserialize(de::value::MapAccessDeserializer::new(map)).map(Auth::Rules)
            }
        }

        deserializer.deserialize_any(WordOrTable)
    }
}

impl Serialize for Auth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Deny => serializer.serialize_str("deny"),
            Self::Rules(rules) => rules.serialize(serializer),
        }
    }
}

impl JsonSchema for Auth {
    fn schema_name() -> Cow<'static, str> {
        "Auth".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let rules = generator.subschema_for::<AuthRules>();
        json_schema!({ "anyOf": [{ "type": "string", "enum": ["none", "deny"] }, rules] })
    }
}
