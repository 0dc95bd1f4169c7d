//! `[listen.NAME]`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::limit::LimitUse;
use super::route::Errors;
use super::value::{ByteSize, OneOrMany, Span};

/// A listener. Only `bind` is required; every default is safe on the public internet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Addresses; `[::]:443` serves IPv4 too.
    pub bind: OneOrMany<SocketAddr>,
    /// Versions of HTTP: `h1` (HTTP/1.1 and 1.0) and `h2`; with TLS they are what ALPN offers.
    #[serde(default = "both")]
    pub protocols: Vec<HttpVersion>,
    /// TLS; absent means cleartext with HTTP/1.1 and h2c prior knowledge on one port.
    pub tls: Option<Tls>,
    /// Answer every request with 308 to the same URL under https.
    #[serde(default)]
    pub redirect_https: bool,
    /// Peers whose forwarding headers are believed. Empty: nobody.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// Limits on every request of this listener, before routing; names of `[limit.*]`.
    #[serde(default)]
    pub limits: Vec<LimitUse>,
    /// What the body of a refusal looks like where no route says otherwise.
    #[serde(default)]
    pub errors: Errors,
    /// Longest TLS handshake.
    #[serde(default = "ten_seconds")]
    pub handshake_timeout: Span,
    /// Longest wait for a complete request head, the h2 preface included.
    #[serde(default = "ten_seconds")]
    pub head_timeout: Span,
    /// Longest idle time of a connection between requests; PINGs do not count as use.
    #[serde(default = "sixty_seconds")]
    pub idle_timeout: Span,
    /// Longest wait for the next piece of a request body.
    #[serde(default = "fifteen_seconds")]
    pub body_timeout: Span,
    /// Bytes a second that a request body must reach on average after 10 s.
    #[serde(default = "one_kib")]
    pub body_min_rate: ByteSize,
    /// Longest time that a client may refuse to take bytes of a response.
    #[serde(default = "thirty_seconds")]
    pub write_timeout: Span,
    /// Most connections at once; more wait in the kernel's queue.
    #[serde(default = "ten_thousand")]
    pub max_connections: u32,
    /// Most connections at once of one address (IPv6: one /64). Trusted proxies are not counted.
    #[serde(default = "one_thousand")]
    pub max_connections_per_ip: u32,
    /// Most requests on one connection, then it is ended gracefully.
    #[serde(default = "ten_thousand")]
    pub max_requests_per_connection: u32,
    /// Longest life of a connection, then it is ended gracefully.
    #[serde(default = "one_hour")]
    pub max_connection_age: Span,
    /// Largest request head.
    #[serde(default = "head_size")]
    pub max_head: ByteSize,
    /// Most header fields.
    #[serde(default = "one_hundred")]
    pub max_fields: u32,
    /// Longest request target.
    #[serde(default = "target_size")]
    pub max_target: ByteSize,
    /// Most concurrent streams of an h2 connection.
    #[serde(default = "one_hundred")]
    pub max_streams: u32,
    /// Most PINGs and SETTINGS of an h2 client in 10 s, beyond those that answer what we sent; more end the connection.
    #[serde(default = "one_hundred")]
    pub max_control_frames: u32,
    /// Most streams that an h2 client may reset in 10 s, a quarter of them as soon as they are opened; more end the
    /// connection.
    #[serde(default = "two_hundred")]
    pub max_resets: u32,
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpVersion {
    /// HTTP/1.1, and 1.0.
    H1,
    /// HTTP/2; without TLS with prior knowledge.
    H2,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Folders (every `NAME.crt`/`NAME.pem` with a `NAME.key` beside it, or `fullchain.pem` with `privkey.pem`, one level
    /// deep) and pairs. Chosen by server name; the first one serves unknown names.
    pub certificates: Vec<Certificate>,
    /// Oldest protocol version.
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// One source of certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Certificate {
    /// A folder.
    Folder(PathBuf),
    /// A chain and its key.
    Pair(KeyPair),
}

/// A certificate chain and its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// Leaf first.
    pub chain: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V13,
}

// By hand, because what serde says of an untagged enum names neither the mistake nor its place.
impl<'de> Deserialize<'de> for Certificate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FolderOrPair;

        impl<'de> Visitor<'de> for FolderOrPair {
            type Value = Certificate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a folder, or a pair such as { chain = \"site.crt\", key = \"site.key\" }",
                )
            }

            fn visit_str<E: de::Error>(self, folder: &str) -> Result<Certificate, E> {
                Ok(Certificate::Folder(folder.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Certificate, A::Error> {
                KeyPair::deserialize(de::value::MapAccessDeserializer::new(map))
                    .map(Certificate::Pair)
            }
        }

        deserializer.deserialize_any(FolderOrPair)
    }
}

fn both() -> Vec<HttpVersion> {
    vec![HttpVersion::H1, HttpVersion::H2]
}
fn ten_seconds() -> Span {
    Span::seconds(10)
}
fn fifteen_seconds() -> Span {
    Span::seconds(15)
}
fn thirty_seconds() -> Span {
    Span::seconds(30)
}
fn sixty_seconds() -> Span {
    Span::seconds(60)
}
fn one_hour() -> Span {
    Span::seconds(3600)
}
fn one_kib() -> ByteSize {
    ByteSize::kib(1)
}
fn head_size() -> ByteSize {
    ByteSize::kib(32)
}
fn target_size() -> ByteSize {
    ByteSize::kib(8)
}
fn one_hundred() -> u32 {
    100
}
fn two_hundred() -> u32 {
    200
}
fn one_thousand() -> u32 {
    1_000
}
fn ten_thousand() -> u32 {
    10_000
}
