//! What shares a bucket: the parts of a key, folded into 128 bits.
//!
//! A key is kept as a hash and never as text (see `secret`): no address, account or header value stands in memory, in
//! a log or in a store, and every key costs the same.
//!
//! What names an account (a field of the body, a cookie, a client id, a claim, a header) is trimmed and folded first
//! (see `spelling`): nobody gets a second budget by a capital letter. Who names none is counted by address. What cannot be read
//! in one way only is counted as one: see [`UNREADABLE`](tag::UNREADABLE).

mod network;
mod secret;
mod spelling;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName};
use serde_json::Value;
use smallvec::SmallVec;

use super::inputs::{KeyInputs, Shown};
use super::peek::Field;
use crate::config::LimitKey;
use crate::types::Principal;

pub(super) use network::Networks;
pub use secret::KeySecret;
pub(super) use spelling::folded;

/// The folded key of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u128);

impl Key {
    pub(super) fn bits(self) -> u128 {
        self.0
    }

    pub(super) fn from_bits(bits: u128) -> Self {
        Self(bits)
    }
}

/// How one limit makes its keys.
pub(super) struct KeyPlan {
    parts: Box<[LimitKey]>,
    secret: KeySecret,
    addresses: Addresses,
}

/// How addresses are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    v4_mask: u32,
    v6_mask: u128,
    networks: Networks,
}

impl KeyPlan {
    pub(super) fn new(parts: &[LimitKey], addresses: Addresses, secret: KeySecret) -> Self {
        Self {
            parts: parts.into(),
            secret,
            addresses,
        }
    }

    pub(super) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    pub(super) fn needs_principal(&self) -> bool {
        let needs = |part: &LimitKey| matches!(part, LimitKey::Principal | LimitKey::Claim(_));
        self.parts.iter().any(needs)
    }

    /// Whether the key names an address together with what the client claims to be: whoever succeeds with such a pair
    /// is no guesser of it.
    pub(super) fn is_pair(&self) -> bool {
        let claims_to_be = |part: &LimitKey| match part {
            LimitKey::Ip
            | LimitKey::Network
            | LimitKey::Route
            | LimitKey::Method
            | LimitKey::GrpcService => false,
            LimitKey::Header(_)
            | LimitKey::Cookie(_)
            | LimitKey::BasicClientId
            | LimitKey::Claim(_)
            | LimitKey::Principal
            | LimitKey::Json(_)
            | LimitKey::Form(_) => true,
        };
        self.parts.contains(&LimitKey::Ip) && self.parts.iter().any(claims_to_be)
    }

    /// The parts that stand in the body.
    pub(super) fn in_body(&self) -> impl Iterator<Item = &LimitKey> {
        let is_in_body = |part: &&LimitKey| matches!(part, LimitKey::Json(_) | LimitKey::Form(_));
        self.parts.iter().filter(is_in_body)
    }

    pub(super) fn of(&self, inputs: &KeyInputs<'_>) -> Key {
        self.secret.fold(|hasher| {
            for part in &self.parts {
                self.addresses.absorb_part(hasher, part, inputs);
            }
        })
    }

    /// Why the body could not be read, if the key asks for it.
    pub(super) fn unreadable(&self, inputs: &KeyInputs<'_>) -> Option<&'static str> {
        self.in_body()
            .find_map(|part| match inputs.peeked.find(part) {
                Field::Unreadable(why) => Some(why),
                Field::Text(_) | Field::Absent | Field::Opaque => None,
            })
    }
}

impl Addresses {
    /// Prefixes beyond the length of an address are its length.
    pub(super) fn new(v4_prefix: u8, v6_prefix: u8, networks: Networks) -> Self {
        let (v4, v6) = (u32::from(v4_prefix), u32::from(v6_prefix));
        Self {
            v4_mask: u32::MAX.checked_shl(32_u32.saturating_sub(v4)).unwrap_or(0),
            v6_mask: u128::MAX
                .checked_shl(128_u32.saturating_sub(v6))
                .unwrap_or(0),
            networks,
        }
    }

    /// Every part opens with a tag that says what follows, and text states its length: no two different keys read
    /// alike.
    fn absorb_part(&self, hasher: &mut dyn Hasher, part: &LimitKey, inputs: &KeyInputs<'_>) {
        match part {
            LimitKey::Ip => self.absorb_address(hasher, inputs),
            LimitKey::Network => match self.networks.find(inputs.ip.address()) {
                Some(name) => absorb_bytes(hasher, tag::NETWORK, name.as_bytes()),
                None => self.absorb_address(hasher, inputs),
            },
            LimitKey::Route => absorb_bytes(hasher, tag::TEXT, inputs.route.as_bytes()),
            LimitKey::Method => absorb_bytes(hasher, tag::TEXT, inputs.method.as_str().as_bytes()),
            LimitKey::GrpcService => match grpc_service(inputs.path) {
                Some(service) => absorb_bytes(hasher, tag::TEXT, service.as_bytes()),
                None => hasher.write_u8(tag::ABSENT),
            },
            LimitKey::Header(name) => absorb_header(hasher, inputs.headers, name),
            LimitKey::Cookie(name) => {
                let shown = inputs.credentials.cookie(inputs.headers, name);
                self.absorb_shown(hasher, &shown, inputs);
            }
            LimitKey::BasicClientId => {
                let shown = inputs.credentials.basic_user(inputs.headers);
                self.absorb_shown(hasher, &shown, inputs);
            }
            LimitKey::Claim(path) => match caller(inputs).zip(claim(inputs, path)) {
                Some((caller, text)) => {
                    absorb_bytes(hasher, tag::SOURCE, caller.source.as_bytes());
                    absorb_account(hasher, &text);
                }
                None => self.absorb_address(hasher, inputs),
            },
            LimitKey::Principal => match caller(inputs) {
                Some(caller) => absorb_caller(hasher, caller),
                None => self.absorb_address(hasher, inputs),
            },
            LimitKey::Json(_) | LimitKey::Form(_) => match inputs.peeked.find(part) {
                Field::Text(text) => absorb_account(hasher, text),
                Field::Absent => self.absorb_address(hasher, inputs),
                Field::Unreadable(_) => hasher.write_u8(tag::UNREADABLE),
                Field::Opaque => {
                    hasher.write_u8(tag::UNREADABLE);
                    self.absorb_address(hasher, inputs);
                }
            },
        }
    }

    fn absorb_address(&self, hasher: &mut dyn Hasher, inputs: &KeyInputs<'_>) {
        match self.group(inputs.ip.address()) {
            IpAddr::V4(address) => {
                hasher.write_u8(tag::V4);
                hasher.write_u32(address.to_bits());
            }
            IpAddr::V6(address) => {
                hasher.write_u8(tag::V6);
                hasher.write_u128(address.to_bits());
            }
        }
    }

    /// The network that is counted as one address. The address is in canonical form: none is an IPv4 one in disguise.
    fn group(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(address) => Ipv4Addr::from(address.to_bits() & self.v4_mask).into(),
            IpAddr::V6(address) => Ipv6Addr::from(address.to_bits() & self.v6_mask).into(),
        }
    }

    fn absorb_shown(&self, hasher: &mut dyn Hasher, shown: &Shown<'_>, inputs: &KeyInputs<'_>) {
        match shown {
            Shown::Text(text) => absorb_account(hasher, text),
            Shown::Absent => self.absorb_address(hasher, inputs),
            Shown::Unclear => hasher.write_u8(tag::UNREADABLE),
        }
    }
}

fn caller<'a>(inputs: &KeyInputs<'a>) -> Option<&'a Principal> {
    inputs
        .principal
        .filter(|principal| principal.is_authenticated())
}

/// The claim as text. Lists and objects are their JSON, whose names are sorted.
fn claim<'a>(inputs: &KeyInputs<'a>, path: &str) -> Option<Cow<'a, str>> {
    match inputs.principal?.facts.claim(path)? {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        other => Some(Cow::Owned(other.to_string())),
    }
}

/// `pkg.Service` of `/pkg.Service/Method`; no other path calls a service.
fn grpc_service(path: &str) -> Option<&str> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
    let is_call = !service.is_empty() && !method.is_empty() && !method.contains('/');
    (is_call && service.bytes().all(fits)).then_some(service)
}

/// The same user id means another caller under another issuer.
fn absorb_caller(hasher: &mut dyn Hasher, principal: &Principal) {
    absorb_bytes(hasher, tag::SOURCE, principal.source.as_bytes());
    absorb_bytes(hasher, tag::CALLER, principal.facts.user.as_bytes());
}

/// An absent field counts as one value, and so does a repeated one: which of several values the backend believes is
/// not known here, and must not decide who is charged.
fn absorb_header(hasher: &mut dyn Hasher, headers: &HeaderMap, name: &HeaderName) {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => hasher.write_u8(tag::ABSENT),
        (Some(value), None) => match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => absorb_account(hasher, text),
            Err(_) => absorb_bytes(hasher, tag::BYTES, value.as_bytes().trim_ascii()),
        },
        (Some(_), Some(_)) => hasher.write_u8(tag::REPEATED),
    }
}

/// Space around a name and the spelling of its letters tell no accounts apart.
fn absorb_account(hasher: &mut dyn Hasher, text: &str) {
    let mut lower: SmallVec<[u8; 128]> = SmallVec::new();
    let text = text.trim();
    if text.is_ascii() {
        lower.extend(text.bytes().map(|byte| byte.to_ascii_lowercase()));
    } else {
        let mut utf8 = [0; 4];
        for letter in folded(text) {
            lower.extend_from_slice(letter.encode_utf8(&mut utf8).as_bytes());
        }
    }
    absorb_bytes(hasher, tag::TEXT, &lower);
}

fn absorb_bytes(hasher: &mut dyn Hasher, tag: u8, bytes: &[u8]) {
    hasher.write_u8(tag);
    hasher.write_usize(bytes.len());
    hasher.write(bytes);
}

mod tag {
    pub(super) const V4: u8 = 1;
    pub(super) const V6: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const CALLER: u8 = 4;
    pub(super) const ABSENT: u8 = 5;
    pub(super) const REPEATED: u8 = 6;
    pub(super) const NETWORK: u8 = 7;
    pub(super) const SOURCE: u8 = 8;
    pub(super) const BYTES: u8 = 9;
    /// What a client that means well does not send. One value for all of it: whoever could choose among several ways
    /// to be misread would have as many budgets. Nobody is hurt by sharing it with an attacker but others of that kind.
    pub(super) const UNREADABLE: u8 = 10;
}
