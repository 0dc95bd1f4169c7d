//! `[issuer.NAME]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::{ByteSize, OneOrMany, SecretRef, Span};

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
    /// Where keys and discovery are really fetched, when `url` is not reachable from here: `http://zitadel:8080`. The public host is sent as Host, the public scheme as X-Forwarded-Proto.
    pub connect: Option<String>,
    /// PEM bundle to trust when fetching instead of the system's.
    pub ca: Option<PathBuf>,
    /// Header that holds the token, instead of `Authorization: Bearer`. In a cookie it belongs to a `[session.NAME]`.
    pub header: Option<String>,
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
    /// Most memory for tokens that were verified already, by estimate; each takes some four times its length and 1 KiB.
    #[serde(default = "token_cache")]
    pub token_cache: ByteSize,
    /// How long a key set is used when it cannot be fetched anew.
    #[serde(default = "one_day")]
    pub stale_max: Span,
    /// Lifetime of a key set where the issuer states none; it is fetched anew after 80 % of it.
    #[serde(default = "five_minutes")]
    pub refresh: Span,
    /// Longest lifetime of a key set that the issuer may state; the shortest is 30 s.
    #[serde(default = "one_hour")]
    pub refresh_max: Span,
    /// For how long a logout is remembered against tokens that were issued before it: their longest life.
    #[serde(default = "one_day")]
    pub longest_token: Span,
    /// Claim that holds the user; dots walk into objects.
    #[serde(default = "user_claim")]
    pub user_claim: String,
    /// Claim that holds the organisation.
    #[serde(default = "org_claim")]
    pub org_claim: String,
    /// Claim that holds the e-mail address. One that `email_verified` calls unverified is not passed on.
    #[serde(default = "email_claim")]
    pub email_claim: String,
    /// Claims that hold the roles, one or a list: a string, an array, or an object whose keys are the roles.
    #[serde(default = "roles_claim")]
    pub roles_claim: OneOrMany<String>,
    /// Claims that hold the scopes; the first that is there counts.
    #[serde(default = "scopes_claim")]
    pub scopes_claim: OneOrMany<String>,
    /// Where tokens that are no JWT are asked about.
    pub introspection: Option<Introspection>,
}

/// RFC 7662: who knows what an opaque token stands for. `connect` and `ca` of the issuer hold here too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Introspection {
    /// The endpoint. https, or http on loopback or where `connect` says so.
    pub url: String,
    /// Which tokens are asked about.
    #[serde(default)]
    pub tokens: Introspected,
    /// How the gateway proves who asks; exactly one way is used.
    #[serde(default)]
    pub auth: ClientAuth,
    /// The gateway's id at the issuer.
    pub client_id: String,
    /// Its secret, for `basic` and `post`.
    pub client_secret: Option<SecretRef>,
    /// Its private key in PEM, for `private_key_jwt`: RSA, P-256 or P-384 (PKCS #8), or Ed25519.
    pub key: Option<SecretRef>,
    /// The `kid` of that key at the issuer.
    pub key_id: Option<String>,
    /// `aud` of what is signed with it. Default: the issuer's `url`.
    pub audience: Option<String>,
    /// How long an answer is believed, but never beyond the token's `exp`. A revocation takes effect within this time.
    #[serde(default = "ten_seconds")]
    pub cache: Span,
    /// Longest wait for the answer.
    #[serde(default = "two_seconds")]
    pub timeout: Span,
    /// Most questions in flight; more are answered 503, so that invented tokens cannot bury the issuer.
    #[serde(default = "one_hundred")]
    pub max_requests: u32,
}

/// Which tokens an introspection endpoint is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Introspected {
    /// Those that have not the three parts of a JWT; JWTs are verified with the issuer's keys.
    #[default]
    Opaque,
    /// All of them; no keys are fetched.
    All,
}

/// How the gateway proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// Id and secret in `Authorization: Basic`.
    #[default]
    Basic,
    /// Id and secret in the form.
    Post,
    /// A JWT signed with `key`.
    PrivateKeyJwt,
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
fn two_seconds() -> Span {
    Span::seconds(2)
}
fn ten_seconds() -> Span {
    Span::seconds(10)
}
fn one_hundred() -> u32 {
    100
}
fn one_hour() -> Span {
    Span::seconds(3_600)
}
fn one_day() -> Span {
    Span::seconds(86_400)
}
fn token_size() -> ByteSize {
    ByteSize::kib(16)
}
fn token_cache() -> ByteSize {
    ByteSize::mib(32)
}
fn org_claim() -> String {
    "org".to_owned()
}
fn user_claim() -> String {
    "sub".to_owned()
}
fn email_claim() -> String {
    "email".to_owned()
}
fn roles_claim() -> OneOrMany<String> {
    OneOrMany(vec!["roles".to_owned()])
}
fn scopes_claim() -> OneOrMany<String> {
    OneOrMany(vec!["scope".to_owned(), "scp".to_owned()])
}
