//! `[assertion]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::SecretRef;

/// How `x-vestibule-assertion` is signed. It is sent where a route says `assertion = true`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Assertion {
    /// An Ed25519 key in PKCS#8 PEM. Default: made at start, and kept in `state_dir` where there is one.
    pub key: Option<SecretRef>,
    /// The `iss` of the assertions: by this name upstreams know the gateway.
    pub issuer: String,
}

impl Default for Assertion {
    fn default() -> Self {
        Self {
            key: None,
            issuer: "vestibule".to_owned(),
        }
    }
}
