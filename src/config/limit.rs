//! `[limit.NAME]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::Rate;

/// A bound on the rate of requests of one key. A full bucket lets `burst` through, then `rate`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Such as `10/m`.
    pub rate: Rate,
    /// Depth of the bucket. Default: the count of `rate`.
    pub burst: Option<u32>,
    /// What shares a bucket; several parts make one key.
    #[serde(default = "by_ip")]
    pub key: Vec<LimitKey>,
    /// Most keys kept; beyond that, new keys share one bucket.
    #[serde(default = "one_million")]
    pub max_keys: u32,
}

/// A part of a limit's key: `ip`, `route`, `header:NAME`, `principal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// The client's address: IPv4 /32, IPv6 /64.
    Ip,
    /// The route's name.
    Route,
    /// The value of a header; absent counts as one value.
    Header(http::HeaderName),
    /// The authenticated caller; anonymous callers count by address.
    Principal,
}

fn by_ip() -> Vec<LimitKey> {
    vec![LimitKey::Ip]
}
fn one_million() -> u32 {
    1_000_000
}
