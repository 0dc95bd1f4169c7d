//! From claims to the gateway's own words: user, organisation, roles, scopes.

use serde_json::{Map, Value};

use super::claims::Window;
use crate::types::{PrincipalFacts, claim_at};

/// Where an issuer's tokens hold what the gateway wants to know.
#[derive(Debug)]
pub struct Mapping {
    /// Path of the organisation.
    pub org: String,
    /// Path of the roles.
    pub roles: String,
}

impl Mapping {
    /// Takes the facts from claims that were verified.
    #[must_use]
    pub fn facts(&self, claims: Map<String, Value>, window: &Window) -> PrincipalFacts {
        PrincipalFacts {
            user: text_at(&claims, "sub").unwrap_or_default(),
            org: text_at(&claims, &self.org),
            email: text_at(&claims, "email"),
            roles: words(claim_at(&claims, &self.roles)),
            scopes: scopes(claims.get("scope").or_else(|| claims.get("scp"))),
            expires_at: window.expires_at(),
            claims,
            kept: crate::types::memo::Kept::default(),
        }
    }
}

/// The text at `path`; numbers count as the text they are written with.
#[must_use]
pub fn text_at(claims: &Map<String, Value>, path: &str) -> Option<String> {
    match claim_at(claims, path)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A string, the strings of an array, or the names of an object (ZITADEL's role maps: `{"admin": {"org": "domain"}}`).
/// A name whose value is `false` or null is not given.
#[must_use]
pub fn words(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(one)) if !one.is_empty() => vec![one.clone()],
        Some(Value::Array(many)) => many
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        Some(Value::Object(map)) => map
            .iter()
            .filter(|(_, given)| !matches!(given, Value::Null | Value::Bool(false)))
            .map(|(name, _)| name.clone())
            .collect(),
        _ => Vec::new(),
    }
}

/// Scopes stand in one string with spaces between them (RFC 6749 section 3.3), or in an array.
#[must_use]
pub fn scopes(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(list)) => list.split_ascii_whitespace().map(str::to_owned).collect(),
        other => words(other),
    }
}
