//! `[[route]]` and `[[test]]`.

use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::Auth;
use super::csrf::Csrf;
use super::limit::LimitUse;
use super::value::{ByteSize, OneOrMany, Span};

/// What is served where, to whom, and how. Exactly one of `upstream`, `redirect`, `respond`, `publish`,
/// `backchannel_logout`, unless `auth = "deny"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Labels metrics and logs. Default: made from host and path.
    pub name: Option<String>,
    /// Listeners that serve it. Default: every one.
    #[serde(default)]
    pub listen: Vec<String>,
    /// Host names, `*.example.com` for one label. Default: any host.
    pub host: Option<OneOrMany<String>>,
    /// `/exact`, `/prefix/*`, or `~ ^/regex$`. Default: every path.
    pub path: Option<OneOrMany<String>>,
    /// Methods. Default: the methods of RFC 9110 and PATCH, without CONNECT and TRACE.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Header values that must be there; `"*"` for any value.
    #[serde(default)]
    pub match_headers: BTreeMap<String, String>,
    /// gRPC services `pkg.Service` or methods `pkg.Service/Method`; stands for `path`.
    pub grpc: Option<OneOrMany<String>>,
    /// What is demanded of the caller.
    pub auth: Auth,
    /// Networks that the client must be in. Empty: any.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub from: Vec<IpNet>,
    /// Names of limits, or tables `{ name = "login", cost = 5 }`.
    #[serde(default)]
    pub limits: Vec<LimitUse>,
    /// Name of the upstream.
    pub upstream: Option<String>,
    /// Answer with a redirect.
    pub redirect: Option<Redirect>,
    /// Answer from here.
    pub respond: Option<Respond>,
    /// Answer with something that the gateway itself has to tell.
    pub publish: Option<Publish>,
    /// Take an issuer's logout tokens (OpenID Connect Back-Channel Logout) and refuse what was issued before them.
    pub backchannel_logout: Option<BackchannelLogout>,
    /// What a 2xx answer ends: the credential that was shown, at once and in every cache.
    pub revokes: Option<Revokes>,
    /// Largest request body.
    #[serde(default = "one_mib")]
    pub max_body: ByteSize,
    /// Request bodies that announce a length of at most this are taken in whole before anything is sent: so a request
    /// with a body can be sent again where one without could. Default: none are.
    pub buffer: Option<ByteSize>,
    /// Longest wait for the first byte of the response.
    #[serde(default = "fifteen_seconds")]
    pub timeout: Span,
    /// What the body of a refusal looks like. Default: as the listener says.
    pub errors: Option<Errors>,
    /// Cross-origin rules. Absent: the backend's own answer stands.
    pub cors: Option<Cors>,
    /// Guard against requests that other sites make with a session cookie of the visitor: `"on"`, `"off"`, or
    /// `{ origins = [...] }` for further origins that may.
    #[serde(default)]
    pub csrf: Csrf,
    /// What happens to `%2F` in the path.
    #[serde(default)]
    pub encoded_slash: EncodedSlash,
    /// Removed from the front of the path.
    pub strip_prefix: Option<String>,
    /// Path rewrite by regex, after `strip_prefix`. The result is made canonical and held against closed routes again.
    pub rewrite: Option<Rewrite>,
    /// gRPC-Web: pass it on, or translate it to gRPC.
    #[serde(default)]
    pub grpc_web: GrpcWeb,
    /// Headers that tell the upstream who the caller is: name to `claim:PATH`, `user`, `org`, `roles`, `email` or `method`. Default: `x-auth-*`.
    pub identity_headers: Option<BTreeMap<String, String>>,
    /// What becomes of the `Authorization` header towards the upstream.
    #[serde(default)]
    pub bearer: Bearer,
    /// Tell the upstream who the caller is once more, signed, in `x-vestibule-assertion`.
    #[serde(default)]
    pub assertion: bool,
    /// Media types of answers that are compressed (zstd, br, gzip): `text/*`, `application/json`. Default: none.
    #[serde(default)]
    pub compress: Vec<String>,
    /// Compress answers that are for one caller too: to a request with a credential or a cookie, or that set a cookie or
    /// are private.
    #[serde(default)]
    pub compress_private: bool,
    /// Add the security headers that browsers heed, where absent: `strict-transport-security` (over TLS),
    /// `x-content-type-options`, `x-frame-options` and `referrer-policy`.
    #[serde(default)]
    pub security_headers: bool,
    /// Other protocols that a request may switch to: `"websocket"`, or the token of another one.
    #[serde(default)]
    pub upgrade: Vec<String>,
    /// Longest time without a byte in either direction, once the protocol is switched.
    #[serde(default = "five_minutes")]
    pub upgrade_idle_timeout: Span,
    /// Whether streams and tunnels end with the credential that opened them.
    #[serde(default)]
    pub stream_auth: StreamAuth,
    /// How often the backend or issuer that vouches for a session or an opaque token is asked again while a stream of it
    /// lasts.
    #[serde(default = "thirty_seconds")]
    pub stream_recheck: Span,
    /// Header edits.
    #[serde(default)]
    pub headers: Edits,
    /// What is added to the cookies that the upstream sets.
    #[serde(default)]
    pub cookies: Cookies,
}

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Path or absolute URL.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "found")]
    pub status: u16,
}

/// Where an issuer tells who has logged out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackchannelLogout {
    /// Name of the issuer.
    pub issuer: String,
    /// Accepted audiences of logout tokens: the ids of the clients. Empty: those of the issuer.
    #[serde(default)]
    pub audiences: Vec<String>,
}

/// Whose credentials end with a 2xx answer of a logout, a password change and their like.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revokes {
    /// Names of issuers and sessions.
    pub any: Vec<String>,
    /// Not only the credential that was shown, but all of its user.
    #[serde(default)]
    pub user: bool,
}

/// An answer given by the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// Status.
    pub status: u16,
    /// Body.
    #[serde(default)]
    pub body: String,
    /// Content type of the body.
    #[serde(default = "plain_text")]
    pub content_type: String,
}

/// What the gateway itself has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Publish {
    /// The key set by which upstreams verify `x-vestibule-assertion`.
    Jwks,
}

/// What becomes of the `Authorization` header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bearer {
    /// It is passed on: the upstream may verify the token once more.
    #[default]
    Forward,
    /// It ends here.
    Strip,
}

/// What the body of a refusal looks like. gRPC and Connect have their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Errors {
    /// A problem document (RFC 9457), `application/problem+json`.
    #[default]
    Problem,
    /// `{ "error": { "code", "message", "type" } }`, as IdentSphere's clients know it.
    IdentSphere,
    /// `{ "error", "error_description" }`, as OAuth clients know it (RFC 6749 section 5.2).
    OAuth,
}

/// Which origins may read the answers. The gateway then answers preflights itself and replaces the backend's CORS headers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Exact origins; `"https://*.example.com"` for one label, or `"*"` (both never together with `credentials`).
    pub origins: Vec<String>,
    /// Allow cookies and authorization.
    #[serde(default)]
    pub credentials: bool,
    /// Add what gRPC-Web and Connect need to `methods`, `headers` and `expose`, where those are given.
    #[serde(default)]
    pub grpc_web: bool,
    /// Methods that a preflight may ask for. Default: the route's.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Headers that a preflight may ask for. Default: what gRPC-Web, Connect and JSON clients send.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Response headers that scripts may read. Default: the grpc ones.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Allow pages of public addresses to reach a private one (Private Network Access).
    #[serde(default)]
    pub private_network: bool,
    /// How long a browser may keep the preflight's answer.
    #[serde(default = "ten_minutes")]
    pub max_age: Span,
}

/// What happens to `%2F` in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodedSlash {
    /// 400.
    #[default]
    Refuse,
    /// Passed on as it is, never taken for a slash.
    Keep,
}

/// A regex rewrite of the path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// Regex on the canonical path.
    pub from: String,
    /// Replacement; `$1` is the first group.
    pub to: String,
}

/// What happens to gRPC-Web requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GrpcWeb {
    /// Byte for byte: the backend speaks it.
    #[default]
    Pass,
    /// Made gRPC towards the backend, and gRPC-Web again towards the client.
    Translate,
}

/// Attributes for cookies of the upstream that lack them. Cookies named `__Host-` or `__Secure-` are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cookies {
    /// Add `Secure` to what a client receives over https.
    pub secure: bool,
    /// Names of cookies that scripts must not read; `"*"` for every one.
    pub http_only: Vec<String>,
    /// Add `SameSite`.
    pub same_site: Option<SameSite>,
}

impl Default for Cookies {
    fn default() -> Self {
        Self {
            secure: true,
            http_only: Vec::new(),
            same_site: None,
        }
    }
}

/// To which sites' requests a browser adds a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Those of its own site, and links to it.
    Lax,
    /// Those of its own site.
    Strict,
    /// All; only together with `Secure`.
    None,
}

/// How long a stream or a tunnel may go on, with regard to the credential that opened it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamAuth {
    /// It ends when the credential expires or is revoked.
    #[default]
    Bound,
    /// It goes on: the credential was good when it began.
    Free,
}

/// Header edits of both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Edits {
    /// Towards the upstream.
    pub request: Edit,
    /// Towards the client.
    pub response: Edit,
}

/// Header edits of one direction, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Edit {
    /// Removed.
    pub remove: Vec<String>,
    /// Set, whatever was there.
    pub set: BTreeMap<String, String>,
    /// Set where absent.
    pub default: BTreeMap<String, String>,
}

/// A case for `vestibule check`: a request, and what must become of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// Method.
    #[serde(default = "get")]
    pub method: String,
    /// URL, with scheme and host.
    pub url: String,
    /// Client address.
    #[schemars(with = "Option<String>")]
    pub client: Option<std::net::IpAddr>,
    /// Request headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Name of the route that must match, or a reason code such as `no_route`.
    pub expect: String,
}

fn found() -> u16 {
    302
}
fn get() -> String {
    "GET".to_owned()
}
fn plain_text() -> String {
    "text/plain; charset=utf-8".to_owned()
}
fn one_mib() -> ByteSize {
    ByteSize::mib(1)
}
fn fifteen_seconds() -> Span {
    Span::seconds(15)
}
fn thirty_seconds() -> Span {
    Span::seconds(30)
}
fn five_minutes() -> Span {
    Span::seconds(300)
}
fn ten_minutes() -> Span {
    Span::seconds(600)
}
