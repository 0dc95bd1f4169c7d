//! `[network.NAME]`.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Addresses that belong together: an office, a partner, a carrier's gateway. Limits with the key `network` count each
/// set as one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its networks, `10.0.0.0/8` or `2001:db8::/32`. Where sets overlap, the longest prefix wins.
    #[schemars(with = "Vec<String>")]
    pub cidrs: Vec<IpNet>,
}
