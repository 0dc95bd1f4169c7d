//! `[limit.NAME]`, and how a listener or a route names one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::limit_key::{self, LimitKey, LimitKeys};
use super::value::{ByteSize, OneOrMany, Rate, Span};

/// A bound on the rate, the failures or the concurrency of requests of one key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Such as `10/m`, or several windows that all must have room: `["5/m", "20/h"]`. Either this or `concurrency`.
    pub rate: Option<OneOrMany<Rate>>,
    /// Depth of the bucket of the first window. Default, and for the others: the count of the rate.
    pub burst: Option<u32>,
    /// What shares a bucket; several parts make one key: `["ip", "json:email"]` or `"ip+json:email"`.
    #[serde(default = "by_ip", deserialize_with = "limit_key::parts")]
    #[schemars(with = "OneOrMany<LimitKeys>")]
    pub key: Vec<LimitKey>,
    /// How much of an IPv4 address counts.
    #[serde(default = "one_address")]
    pub ipv4_prefix: u8,
    /// How much of an IPv6 address counts: a customer roams in a /64, and some in a /56 or /48.
    #[serde(default = "one_customer")]
    pub ipv6_prefix: u8,
    /// Names of the networks that `network` tells apart. Empty: all.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Largest body that is read for `json:` and `form:`.
    #[serde(default = "sixteen_kib")]
    pub peek: ByteSize,
    /// Longest wait for that body.
    #[serde(default = "five_seconds")]
    pub peek_timeout: Span,
    /// What uses the budget up.
    #[serde(default)]
    pub count: Count,
    /// What counts as failed, for `count = "failures"`.
    #[serde(default)]
    pub failure: Failure,
    /// Whether the limit's word is obeyed.
    #[serde(default)]
    pub mode: LimitMode,
    /// How long a key is refused altogether once it found its budget used up. Default: not beyond what `rate` says.
    pub ban: Option<Span>,
    /// Most requests of a key under way at once. Default: no bound.
    pub concurrency: Option<u32>,
    /// Most requests of a key that wait for one of those to end. Default: as many as `concurrency`.
    pub queue: Option<u32>,
    /// Longest such wait.
    #[serde(default = "one_second")]
    pub queue_timeout: Span,
    /// How long the answer to a refused request is held back. Default: it goes out at once.
    pub tarpit: Option<Span>,
    /// Most answers held back at once; without a free slot an answer goes out at once.
    #[serde(default = "sixty_four")]
    pub tarpit_slots: u32,
    /// Most different values of something under one key: accounts of an address, or addresses of an account.
    pub distinct: Option<Distinct>,
    /// Who is never counted.
    #[serde(default)]
    pub allow: Exempt,
    /// Tell clients that pass what is left, in `RateLimit`; those that are refused are always told.
    #[serde(default)]
    pub headers: bool,
    /// Whether all replicas count together, in the store. Default: exactly where failures count, where there is a ban, and
    /// where a budget is below 100; else fast. Off without a store.
    pub shared: Option<SharedLimit>,
    /// What holds while the store is away. Default: `on_failure` of `[store]`.
    pub on_store_down: Option<OnStoreDown>,
    /// Most keys kept; beyond that, the key with the least left to pay makes room.
    #[serde(default = "one_million")]
    pub max_keys: u32,
}

/// What uses a budget up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// Every request.
    #[default]
    All,
    /// Requests whose answer is a failure. Those under way count until their answer is known.
    Failures,
}

/// How replicas count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SharedLimit {
    /// Every request is decided by the store.
    Exact,
    /// Replicas lease batches of the budget, and may together be up to 5 % off.
    Fast,
    /// Each replica counts by itself.
    Off,
}

/// What holds while the store cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreDown {
    /// Each replica keeps to its share of the budget.
    #[default]
    Local,
    /// Requests are refused with 503.
    Deny,
    /// Requests pass.
    Allow,
}

/// Whether a limit's word is obeyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitMode {
    /// What is over the limit is refused.
    #[default]
    Enforce,
    /// Decisions are counted and logged; nothing is refused.
    Observe,
}

/// Answers that are failures; one of these suffices.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Failure {
    /// HTTP statuses.
    pub status: Vec<u16>,
    /// gRPC statuses, in headers or trailers.
    pub grpc_status: Vec<u32>,
    /// Response headers: a value, `"*"` for any value, or `"~ REGEX"`. For backends that answer a wrong password with a
    /// page or a redirect: `{ location = "~ [?&]error=" }`.
    pub headers: BTreeMap<String, String>,
}

/// How many different values of something one key may be seen with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Distinct {
    /// Of what: a part as in `key`.
    pub of: LimitKey,
    /// The window, which slides.
    pub per: Span,
    /// Most of them; further ones are refused.
    pub above: u32,
}

/// Who is never counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Exempt {
    /// Networks of clients.
    #[schemars(with = "Vec<String>")]
    pub networks: Vec<IpNet>,
    /// Callers, as `SOURCE/USER`: the issuer or session that vouches for them, and their user id.
    pub principals: Vec<String>,
}

/// A limit where it acts: its name, or a table with what one request costs there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitUse {
    /// The limit.
    pub name: String,
    /// How many one request counts for.
    pub cost: NonZeroU32,
}

impl Default for Failure {
    fn default() -> Self {
        Self {
            status: vec![401, 403],
            grpc_status: vec![7, 16],
            headers: BTreeMap::new(),
        }
    }
}

impl LimitUse {
    /// One request counts once.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            cost: NonZeroU32::MIN,
        }
    }
}

/// The table form of a [`LimitUse`].
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Costly {
    /// The limit.
    name: String,
    /// How many one request counts for: a password hash weighs more than the read of a key set.
    #[serde(default = "once")]
    cost: NonZeroU32,
}

impl<'de> Deserialize<'de> for LimitUse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrTable;

        impl<'de> Visitor<'de> for NameOrTable {
            type Value = LimitUse;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a limit or a table such as { name = \"login\", cost = 5 }")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<LimitUse, E> {
                Ok(LimitUse::of(name))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LimitUse, A::Error> {
                let Costly { name, cost } =
                    Costly::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(LimitUse { name, cost })
            }
        }

        deserializer.deserialize_any(NameOrTable)
    }
}

impl Serialize for LimitUse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.cost == NonZeroU32::MIN {
            return serializer.serialize_str(&self.name);
        }
        let (name, cost) = (self.name.clone(), self.cost);
        Costly { name, cost }.serialize(serializer)
    }
}

impl JsonSchema for LimitUse {
    fn schema_name() -> Cow<'static, str> {
        "LimitUse".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<Costly>();
        json_schema!({ "anyOf": [{ "type": "string" }, table] })
    }
}

fn by_ip() -> Vec<LimitKey> {
    vec![LimitKey::Ip]
}
fn one_address() -> u8 {
    32
}
fn one_customer() -> u8 {
    64
}
fn sixteen_kib() -> ByteSize {
    ByteSize::kib(16)
}
fn five_seconds() -> Span {
    Span::seconds(5)
}
fn once() -> NonZeroU32 {
    NonZeroU32::MIN
}
fn sixty_four() -> u32 {
    64
}
fn one_million() -> u32 {
    1_000_000
}
fn one_second() -> Span {
    Span::seconds(1)
}
