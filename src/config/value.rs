//! The small words of the configuration: durations, sizes, rates, secrets, endpoints.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::limit_key::{LimitKey, LimitKeys};

/// A duration: `"250ms"`, `"10s"`, `"5m"`, `"1h"`, `"2d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes: `"512B"`, `"64KiB"`, `"5MiB"`, `"1GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A rate: `"10/s"`, `"10/m"`, `"100/h"`, `"3/d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// The address of an endpoint: `h2c://10.0.0.5:8080`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// How it is spoken to.
    pub scheme: EndpointScheme,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// How an endpoint is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointScheme {
    /// HTTP/1.1, cleartext.
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 with prior knowledge, cleartext.
    H2c,
    /// HTTP/2 over TLS.
    H2,
}

/// The address of a store's server: `redis://10.0.0.5:6379`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreServer {
    /// Whether the connection is encrypted (`rediss`).
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A secret by reference: `{ env = "X" }` or `{ file = "/run/secrets/x" }`. The secret itself never stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretRef {
    /// Name of an environment variable.
    Env(String),
    /// A file; one trailing line end is not part of the secret.
    File(PathBuf),
}

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl Span {
    /// Whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl ByteSize {
    /// Multiples of 1,024 bytes.
    #[must_use]
    pub const fn kib(count: u64) -> Self {
        Self(count * 1024)
    }

    /// Multiples of 1,048,576 bytes.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count * 1024 * 1024)
    }
}

/// What a small word of the configuration should have been.
#[derive(Debug, PartialEq, Eq)]
pub struct BadValue(Cow<'static, str>);

impl BadValue {
    pub(super) fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadValue {}

impl FromStr for Span {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || {
            BadValue(
                format!(
                    "`{text}` is no duration such as \"250ms\", \"10s\", \"5m\", \"1h\" or \"2d\""
                )
                .into(),
            )
        };
        let (number, unit) = split_unit(text).ok_or_else(bad)?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        number
            .checked_mul(millis)
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or_else(bad)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let units = [
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "m"),
            (1_000, "s"),
        ];
        let exact = units
            .iter()
            .find(|(size, _)| millis != 0 && millis.is_multiple_of(*size));
        match exact {
            Some((size, unit)) => write!(f, "{}{unit}", millis / size),
            None => write!(f, "{millis}ms"),
        }
    }
}

impl FromStr for ByteSize {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || {
            BadValue(
                format!("`{text}` is no size such as \"512B\", \"64KiB\", \"5MiB\" or \"1GiB\"")
                    .into(),
            )
        };
        let (number, unit) = split_unit(text).ok_or_else(bad)?;
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(bad()),
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let exact = units
            .iter()
            .find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift));
        match exact {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Rate {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || {
            BadValue(
                format!("`{text}` is no rate such as \"10/s\", \"10/m\", \"100/h\" or \"3/d\"")
                    .into(),
            )
        };
        let (count, unit) = text.split_once('/').ok_or_else(bad)?;
        let count = count
            .trim()
            .parse()
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(bad)?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(bad()),
        };
        Ok(Self {
            count,
            per: Duration::from_secs(seconds),
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            3_600 => "h",
            _ => "d",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl FromStr for Endpoint {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = |why: &str| {
            BadValue(format!("`{text}` is no endpoint such as \"http://10.0.0.5:3000\" or \"h2c://zitadel:8080\": {why}").into())
        };
        if text.contains('@') {
            // The text is not repeated: it may hold a password.
            return Err(BadValue(
                "an endpoint holds no user information (`user:password@`)".into(),
            ));
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("the scheme is missing"))?;
        let (scheme, default_port) = match scheme {
            "http" => (EndpointScheme::Http, Some(80)),
            "https" => (EndpointScheme::Https, Some(443)),
            "h2c" => (EndpointScheme::H2c, None),
            "h2" => (EndpointScheme::H2, Some(443)),
            _ => return Err(bad("the scheme is none of http, https, h2c, h2")),
        };
        let authority: http::uri::Authority = rest
            .trim_end_matches('/')
            .parse()
            .map_err(|_| bad("the host is malformed, or a path follows it"))?;
        let port = authority
            .port_u16()
            .or(default_port)
            .ok_or_else(|| bad("the port is missing"))?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase();
        if host.is_empty() || port == 0 {
            return Err(bad("the host or the port is missing"));
        }
        Ok(Self { scheme, host, port })
    }
}

impl EndpointScheme {
    /// As written in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::H2 => "h2",
        }
    }

    /// Whether the endpoint speaks HTTP/2.
    #[must_use]
    pub fn is_h2(self) -> bool {
        matches!(self, Self::H2c | Self::H2)
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::H2)
    }
}

impl Endpoint {
    /// `host:port`, with brackets around IPv6 addresses.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl FromStr for StoreServer {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = |why: &str| {
            BadValue(format!("`{text}` is no server such as \"redis://10.0.0.5:6379\" or \"rediss://redis.internal:6379\": {why}").into())
        };
        if text.contains('@') {
            // The text is not repeated: it may hold a password.
            return Err(BadValue(
                "a server holds no user information: write `user` and `password`".into(),
            ));
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("the scheme is missing"))?;
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(bad("the scheme is neither redis nor rediss")),
        };
        let authority: http::uri::Authority = rest
            .trim_end_matches('/')
            .parse()
            .map_err(|_| bad("the host is malformed, or a path follows it"))?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(6_379);
        if host.is_empty() || port == 0 {
            return Err(bad("the host or the port is missing"));
        }
        Ok(Self { tls, host, port })
    }
}

impl fmt::Display for StoreServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// `"512B"` is 512 and `B`.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

macro_rules! written_as_text {
    ($($type:ty, $name:literal, $pattern:literal, $about:literal;)+) => { $(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl<'de> Visitor<'de> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($about)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $about })
            }
        }
    )+ };
}

written_as_text! {
    Span, "Span", "^[0-9]+ ?(ms|s|m|h|d)$", r#"a duration such as "250ms", "10s", "5m", "1h" or "2d""#;
    ByteSize, "ByteSize", "^[0-9]+ ?(B|KiB|MiB|GiB)$", r#"a size such as "512B", "64KiB", "5MiB" or "1GiB""#;
    Rate, "Rate", "^[1-9][0-9]*/(s|m|h|d)$", r#"a rate such as "10/s", "10/m", "100/h" or "3/d""#;
    Endpoint, "Endpoint", "^(http|https|h2c|h2)://[^/]+/?$", r#"an endpoint such as "http://10.0.0.5:3000" or "h2c://zitadel:8080""#;
    StoreServer, "StoreServer", "^rediss?://[^/]+/?$", r#"a server such as "redis://10.0.0.5:6379" or "rediss://redis.internal:6379""#;
    LimitKey, "LimitKey", "^(ip|network|route|method|principal|basic:client_id|grpc:service|(header|cookie|claim|json|form):.+)$", r#"a part of a limit's key, such as "ip", "json:email" or "header:NAME""#;
    LimitKeys, "LimitKeys", "^(ip|network|route|method|principal|basic:client_id|grpc:service|(header|cookie|claim|json|form):.+)([+].+)?$", r#"a limit's key, such as "ip", "ip+json:email" or "header:NAME""#;
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Any<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(text.into_deserializer()).map(|one| OneOrMany(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut many = Vec::new();
                while let Some(item) = items.next_element()? {
                    many.push(item);
                }
                Ok(OneOrMany(many))
            }
        }

        deserializer.deserialize_any(Any(std::marker::PhantomData))
    }
}

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

// By hand, so that a secret written where its reference belongs is refused without being repeated in the message.
impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reference;

        impl<'de> Visitor<'de> for Reference {
            type Value = SecretRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reference, { env = \"NAME\" } or { file = \"/run/secrets/name\" }: a secret never stands in the file")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretRef, A::Error> {
                let reference = match map.next_key::<String>()?.as_deref() {
                    Some("env") => SecretRef::Env(map.next_value()?),
                    Some("file") => SecretRef::File(map.next_value()?),
                    Some(other) => return Err(de::Error::unknown_field(other, &["env", "file"])),
                    None => return Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
                };
                match map.next_key::<String>()? {
                    None => Ok(reference),
                    Some(_) => Err(de::Error::custom(
                        "a secret has one source, `env` or `file`",
                    )),
                }
            }
        }

        deserializer.deserialize_any(Reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: FromStr<Err = BadValue> + fmt::Display>(text: &str) {
        assert_eq!(
            text.parse::<T>().map(|value| value.to_string()),
            Ok(text.to_owned())
        );
    }

    #[test]
    fn words_are_written_as_they_are_read() {
        round_trip::<Span>("250ms");
        round_trip::<Span>("90s");
        round_trip::<Span>("1h");
        round_trip::<ByteSize>("5MiB");
        round_trip::<ByteSize>("1000B");
        round_trip::<Rate>("10/m");
        round_trip::<Endpoint>("h2c://zitadel:8080");
        round_trip::<Endpoint>("https://[2001:db8::1]:443");
        round_trip::<StoreServer>("redis://10.0.0.5:6379");
        round_trip::<StoreServer>("rediss://[2001:db8::1]:7000");
    }

    #[test]
    fn bad_words_are_refused_with_an_example() {
        for text in ["10", "s", "10 parsecs", "-1s", ""] {
            assert!(
                text.parse::<Span>()
                    .unwrap_err()
                    .to_string()
                    .contains("10s"),
                "{text}"
            );
        }
        assert!("0/s".parse::<Rate>().is_err());
        assert!("5/fortnight".parse::<Rate>().is_err());
        assert!("1MB".parse::<ByteSize>().is_err());
    }

    #[test]
    fn an_endpoint_is_an_origin_and_nothing_more() {
        for text in [
            "zitadel:8080",
            "ftp://x:1",
            "h2c://zitadel",
            "http://a/b",
            "http://u@a:1",
            "http://:80",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
