//! `[issuer.NAME]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::{ByteSize, SecretRef, Span};

/// Who signs tokens, and which of its tokens we accept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The exact `iss`. Where it is an https (or loopback) URL and no other source of keys is named, keys are found by OIDC discovery.
    pub url: String,
    /// Where the key set is, instead of discovery. https, or http on loopback.
    pub jwks_url: Option<String>,
    /// A key set in a file, instead of discovery.
    pub jwks_file: Option<PathBuf>,
    /// A shared secret of at least 32 bytes, for HS256, HS384, HS512 only.
    pub secret: Option<SecretRef>,
    /// The previous secret, accepted too while a rotation is under way.
    pub previous_secret: Option<SecretRef>,
    /// Where keys and discovery are really fetched, when `url` is not reachable from here: `http://zitadel:8080`. The public host is sent as Host.
    pub connect: Option<String>,
    /// PEM bundle to trust when fetching instead of the system's.
    pub ca: Option<PathBuf>,
    /// Accepted audiences; a token must name at least one.
    pub audiences: Vec<String>,
    /// Accepted algorithms.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Demanded `typ`, such as `at+jwt`.
    pub token_type: Option<String>,
    /// Claims that must exist.
    #[serde(default)]
    pub required_claims: Vec<String>,
    /// Clock difference that is forgiven.
    #[serde(default = "thirty_seconds")]
    pub leeway: Span,
    /// Largest token.
    #[serde(default = "token_size")]
    pub max_token: ByteSize,
    /// How long a key set is used when it cannot be fetched anew.
    #[serde(default = "one_day")]
    pub stale_max: Span,
    /// How long a key set is used before it is fetched anew, where the issuer does not say. The issuer's word is bounded by [30 s, 300 s].
    #[serde(default = "five_minutes")]
    pub refresh: Span,
    /// Claim that holds the organisation; dots walk into objects.
    #[serde(default = "org_claim")]
    pub org_claim: String,
    /// Claim that holds the roles: a string, an array, or an object whose keys are the roles.
    #[serde(default = "roles_claim")]
    pub roles_claim: String,
}

/// A signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[allow(clippy::upper_case_acronyms, reason = "RFC 7518 spells them so")]
#[expect(missing_docs, reason = "RFC 7518 and RFC 8037 define them")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
    HS256,
    HS384,
    HS512,
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![
        Algorithm::RS256,
        Algorithm::PS256,
        Algorithm::ES256,
        Algorithm::EdDSA,
    ]
}
fn thirty_seconds() -> Span {
    Span::seconds(30)
}
fn five_minutes() -> Span {
    Span::seconds(300)
}
fn one_day() -> Span {
    Span::seconds(86_400)
}
fn token_size() -> ByteSize {
    ByteSize::kib(16)
}
fn org_claim() -> String {
    "org".to_owned()
}
fn roles_claim() -> String {
    "roles".to_owned()
}
