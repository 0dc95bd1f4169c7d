//! What a limit counts by: the parts of its `key`, and how they are spelt.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::value::{BadValue, OneOrMany};

/// A part of a limit's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// The client's address: IPv4 /32, IPv6 /64, or as the limit's prefixes say.
    Ip,
    /// The `[network.NAME]` that the client is in; clients outside all of them count by address.
    Network,
    /// The route's name.
    Route,
    /// The request's method.
    Method,
    /// The gRPC service that is called: the first of the two segments of such a path.
    GrpcService,
    /// The value of a header; absent counts as one value.
    Header(http::HeaderName),
    /// The value of a cookie.
    Cookie(String),
    /// The user of HTTP Basic, which OAuth clients use for their id.
    BasicClientId,
    /// A claim of the caller's credential.
    Claim(String),
    /// The authenticated caller; anonymous callers count by address.
    Principal,
    /// A field of a JSON body.
    Json(String),
    /// A field of a form body.
    Form(String),
}

/// Parts written as one word: `ip+json:email`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitKeys(pub Vec<LimitKey>);

/// Reads `"ip+json:email"` and `["ip", "json:email"]` alike.
pub(super) fn parts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<LimitKey>, D::Error> {
    let written = OneOrMany::<LimitKeys>::deserialize(deserializer)?;
    Ok(written.0.into_iter().flat_map(|keys| keys.0).collect())
}

impl FromStr for LimitKeys {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        text.split('+')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for LimitKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.0.iter().enumerate() {
            let plus = if position == 0 { "" } else { "+" };
            write!(f, "{plus}{part}")?;
        }
        Ok(())
    }
}

impl FromStr for LimitKey {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let text = text.trim();
        let part = match text {
            "ip" => Some(Self::Ip),
            "network" => Some(Self::Network),
            "route" => Some(Self::Route),
            "method" => Some(Self::Method),
            "grpc:service" => Some(Self::GrpcService),
            "basic:client_id" => Some(Self::BasicClientId),
            "principal" => Some(Self::Principal),
            _ => named(text),
        };
        part.ok_or_else(|| BadValue::new(format!("`{text}` is no limit key; known are {KNOWN}")))
    }
}

/// The parts that name something: `header:x-tenant`.
fn named(text: &str) -> Option<LimitKey> {
    let (kind, name) = text.split_once(':')?;
    match kind {
        "header" => name.parse().ok().map(LimitKey::Header),
        "cookie" => is_cookie_name(name).then(|| LimitKey::Cookie(name.to_owned())),
        "claim" => (!name.is_empty()).then(|| LimitKey::Claim(name.to_owned())),
        "json" => is_path(name).then(|| LimitKey::Json(name.to_owned())),
        "form" => is_field(name).then(|| LimitKey::Form(name.to_owned())),
        _ => None,
    }
}

/// A token of RFC 9110, as RFC 6265 asks.
fn is_cookie_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(fits)
}

/// Dots lead into objects.
fn is_path(path: &str) -> bool {
    let names = path.split('.');
    names.clone().count() <= DEEPEST && names.into_iter().all(is_field)
}

/// Names are compared by their letters and digits, so that one without any would match everything.
fn is_field(name: &str) -> bool {
    name.chars().any(char::is_alphanumeric)
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip => f.write_str("ip"),
            Self::Network => f.write_str("network"),
            Self::Route => f.write_str("route"),
            Self::Method => f.write_str("method"),
            Self::GrpcService => f.write_str("grpc:service"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::BasicClientId => f.write_str("basic:client_id"),
            Self::Claim(path) => write!(f, "claim:{path}"),
            Self::Principal => f.write_str("principal"),
            Self::Json(path) => write!(f, "json:{path}"),
            Self::Form(field) => write!(f, "form:{field}"),
        }
    }
}

/// How many objects a path may lead into.
const DEEPEST: usize = 8;

const KNOWN: &str = "ip, network, route, method, principal, header:NAME, cookie:NAME, claim:PATH, json:PATH, form:FIELD, \
                     basic:client_id, grpc:service; several are joined by `+`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_written_as_they_are_read() {
        for text in [
            "ip",
            "network",
            "route",
            "method",
            "grpc:service",
            "header:x-tenant",
            "cookie:__Host-sid",
            "basic:client_id",
            "claim:urn:zitadel:iam:org:id",
            "principal",
            "json:checks.user.loginName",
            "form:client_id",
        ] {
            let part: LimitKey = text.parse().unwrap();
            assert_eq!(part.to_string(), text);
        }
        let joined: LimitKeys = "ip + json:email".parse().unwrap();
        assert_eq!(joined.to_string(), "ip+json:email");
        assert_eq!(joined.0, [LimitKey::Ip, LimitKey::Json("email".to_owned())]);
    }

    #[test]
    fn bad_parts_are_refused_with_the_good_ones() {
        for text in [
            "",
            "ip+",
            "+ip",
            "IP",
            "query:x",
            "header:",
            "header:a b",
            "cookie:",
            "cookie:a;b",
            "cookie:a=b",
            "claim:",
            "json:",
            "json:a..b",
            "json:.a",
            "json:_",
            "json:a.a.a.a.a.a.a.a.a",
            "form:",
            "form:--",
            "basic:user",
            "grpc:method",
        ] {
            let why = text.parse::<LimitKeys>().unwrap_err().to_string();
            assert!(why.contains("json:PATH"), "{text}: {why}");
        }
    }
}
