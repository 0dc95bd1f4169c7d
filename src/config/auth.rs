//! `auth` of a route.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Names of issuers and sessions; one of them must vouch for the caller.
    pub any: Vec<String>,
    /// One of these roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// One of these scopes.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Claims that must have (or, in arrays, hold) one of these values; dots walk into objects.
    #[serde(default)]
    pub claims: BTreeMap<String, OneOrMany<String>>,
    /// Let a request without credential through as anonymous; a bad credential is still refused.
    #[serde(default)]
    pub optional: bool,
}
