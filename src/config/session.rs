//! `[session.NAME]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::Span;

/// A login that lives in a cookie: a token that an issuer signed, or a handle that the backend confirms.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Name of the cookie.
    pub cookie: String,
    /// Name of the issuer whose token the cookie holds.
    pub issuer: Option<String>,
    /// Name of the issuer that is asked about what the cookie holds, JWT or not; it needs an `introspection`.
    pub introspection: Option<String>,
    /// Where the backend tells whether the session is good.
    pub probe: Option<Probe>,
    /// Whether the probe is also asked about `Authorization: Bearer`, which it is then shown instead of the cookie.
    #[serde(default)]
    pub bearer: bool,
    /// How long an answer of the probe is believed.
    #[serde(default = "five_seconds")]
    pub cache: Span,
    /// Where the facts are in the probe's JSON answer.
    #[serde(default)]
    pub map: SessionMap,
}

/// A GET that answers 200 with JSON for a good session and 401 otherwise. The credential is sent along; nothing else of the request is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Name of the upstream.
    pub upstream: String,
    /// Path.
    pub path: String,
    /// Longest wait for the answer.
    #[serde(default = "two_seconds")]
    pub timeout: Span,
}

/// Dotted paths into the probe's answer. The defaults are IdentSphere's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SessionMap {
    /// User id; must exist.
    pub user: String,
    /// Organisation.
    pub org: String,
    /// E-mail address.
    pub email: String,
    /// Role or roles.
    pub roles: String,
    /// Permissions; they count as scopes.
    pub scopes: String,
}

impl Default for SessionMap {
    fn default() -> Self {
        Self {
            user: "user.user_id".to_owned(),
            org: "user.organization_id".to_owned(),
            email: "user.email".to_owned(),
            roles: "capabilities.role".to_owned(),
            scopes: "capabilities.permissions".to_owned(),
        }
    }
}

fn two_seconds() -> Span {
    Span::seconds(2)
}
fn five_seconds() -> Span {
    Span::seconds(5)
}
