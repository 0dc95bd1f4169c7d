//! `[store]`.

use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limit::OnStoreDown;
use super::upstream::UpstreamTls;
use super::value::{OneOrMany, SecretRef, Span, StoreServer};

/// Where replicas share what they count and what has ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Where it is.
    pub kind: StoreKind,
    /// How many servers there are, and how the right one is found.
    pub topology: Topology,
    /// The server; the sentinels; some nodes of the cluster.
    pub servers: OneOrMany<StoreServer>,
    /// The name of the master that the sentinels watch.
    pub master: Option<String>,
    /// The database; a cluster has one only.
    pub database: u32,
    /// TLS towards `rediss` servers.
    pub tls: UpstreamTls,
    /// ACL user.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretRef>,
    /// ACL user of the sentinels.
    pub sentinel_user: Option<String>,
    /// Password of the sentinels.
    pub sentinel_password: Option<SecretRef>,
    /// What replicas hash and sign with; the same for all of them, at least 32 bytes.
    pub key_secret: Option<SecretRef>,
    /// What the keys in the store begin with.
    pub prefix: String,
    /// Longest that the store may delay one request, in all.
    pub timeout: Span,
    /// How many replicas share the store: where it cannot be asked, each keeps to its share.
    pub replicas: NonZeroU16,
    /// What holds for limits while the store is away, unless they say otherwise.
    pub on_failure: OnStoreDown,
    /// Whether the gateway counts as ready only while the store answers.
    pub required: bool,
}

/// Where what is counted is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// In this process alone.
    #[default]
    Memory,
    /// In Redis or Valkey.
    Redis,
}

/// How the right server is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Topology {
    /// There is one.
    #[default]
    Single,
    /// Sentinels know the master.
    Sentinel,
    /// A cluster: keys are spread over its nodes.
    Cluster,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreKind::Memory,
            topology: Topology::Single,
            servers: OneOrMany(Vec::new()),
            master: None,
            database: 0,
            tls: UpstreamTls::default(),
            user: None,
            password: None,
            sentinel_user: None,
            sentinel_password: None,
            key_secret: None,
            prefix: "vestibule".to_owned(),
            timeout: Span(std::time::Duration::from_millis(50)),
            replicas: THREE,
            on_failure: OnStoreDown::Local,
            required: false,
        }
    }
}

/// What the smallest deployment that survives the loss of a machine has.
const THREE: NonZeroU16 = match NonZeroU16::new(3) {
    Some(three) => three,
    None => NonZeroU16::MIN,
};
