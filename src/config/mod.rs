//! What the user wrote: the file types of the configuration, validated in form and without behaviour.
//!
//! `load` reads files, `value` holds the small words (durations, sizes, rates, paths), `secret` reads what they refer to,
//! `error` says what is wrong and where, `schema` describes the types. What the words mean at run time is decided by the `compile.rs` of each stage room and by `snapshot`.

pub mod error;
pub mod load;
pub mod schema;
pub mod secret;
pub mod value;

mod admin;
mod assertion;
mod auth;
mod csrf;
mod issuer;
mod limit;
mod limit_key;
mod listen;
mod network;
mod route;
mod session;
mod store;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use admin::{AccessLog, Admin, Log};
pub use assertion::Assertion;
pub use auth::{Auth, AuthRules, OnIssuerDown};
pub use csrf::{Csrf, CsrfOrigins};
pub use error::{ConfigError, KeyPath, Problems};
pub use issuer::{Algorithm, ClientAuth, Introspected, Introspection, Issuer};
pub use limit::{
    Count, Distinct, Exempt, Failure, Limit, LimitMode, LimitUse, OnStoreDown, SharedLimit,
};
pub use limit_key::{LimitKey, LimitKeys};
pub use listen::{Certificate, HttpVersion, KeyPair, Listen, Tls, TlsVersion};
pub use load::{Loaded, Sources};
pub use network::Network;
pub use route::{
    BackchannelLogout, Bearer, Cookies, Cors, Edit, Edits, EncodedSlash, Errors, GrpcWeb, Publish,
    Redirect, Respond, Revokes, Rewrite, Route, SameSite, StreamAuth, Test,
};
pub use secret::{Secret, SecretError};
pub use session::{Probe, Session, SessionMap};
pub use store::{Store, StoreKind, Topology};
pub use upstream::{Balance, Health, Upstream, UpstreamTls};
pub use value::{
    ByteSize, Endpoint, EndpointScheme, OneOrMany, Rate, SecretRef, Span, StoreServer,
};

/// The whole configuration, includes merged in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Further files, merged in as if they were written here. Globs are resolved against this file's folder.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Worker threads. Default: the cores, or the container's quota.
    pub workers: Option<NonZeroUsize>,
    /// How long a stop waits for what is in flight.
    pub drain_timeout: Span,
    /// Most requests in flight in the whole process; more are answered 503.
    pub max_in_flight: u32,
    /// Most tunnels (switched protocols such as WebSocket) in the whole process; more are answered 503.
    pub max_tunnels: u32,
    /// Most memory of the process; while it holds more, requests are answered 503. Default: no bound of ours.
    pub max_memory: Option<ByteSize>,
    /// Folder for what should survive a restart.
    pub state_dir: Option<PathBuf>,
    /// Limits on every request of every listener, before routing; names of `[limit.*]`.
    pub limits: Vec<LimitUse>,
    /// The admin listener.
    pub admin: Admin,
    /// What is written down.
    pub log: Log,
    /// How the caller's identity is signed for upstreams.
    pub assertion: Assertion,
    /// Where replicas share what they count and what has ended.
    pub store: Store,
    /// Sockets that clients connect to, by name.
    pub listen: BTreeMap<String, Listen>,
    /// Groups of endpoints that requests are forwarded to, by name.
    pub upstream: BTreeMap<String, Upstream>,
    /// Who signs tokens, by name.
    pub issuer: BTreeMap<String, Issuer>,
    /// Sessions that a backend confirms, by name.
    pub session: BTreeMap<String, Session>,
    /// Sets of addresses, by name.
    pub network: BTreeMap<String, Network>,
    /// Bounds on rate, by name.
    pub limit: BTreeMap<String, Limit>,
    /// What is served. Order plays no part: the most specific route wins.
    pub route: Vec<Route>,
    /// Cases that `vestibule check` walks through the routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<Test>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            workers: None,
            drain_timeout: Span::seconds(30),
            max_in_flight: 10_000,
            max_tunnels: 10_000,
            max_memory: None,
            state_dir: None,
            limits: Vec::new(),
            admin: Admin::default(),
            log: Log::default(),
            assertion: Assertion::default(),
            store: Store::default(),
            listen: BTreeMap::new(),
            upstream: BTreeMap::new(),
            issuer: BTreeMap::new(),
            session: BTreeMap::new(),
            network: BTreeMap::new(),
            limit: BTreeMap::new(),
            route: Vec::new(),
            test: Vec::new(),
        }
    }
}
