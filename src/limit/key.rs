//! What shares a bucket: the parts of a key, folded into 128 bits.
//!
//! A key is kept as a hash and never as text: no address, caller or header value stands in memory, and every key costs
//! the same. The hash is keyed with secrets that the operating system drew for this limit alone and that leave it in no
//! form, so nobody can choose a value that shares the bucket of somebody else; at 128 bits, two of a million keys meet
//! by chance once in 10^26 limits. It is no message authentication code: a store shared by replicas will need one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use http::{HeaderMap, HeaderName};

use super::KeyInputs;
use crate::config::LimitKey;
use crate::types::Principal;

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
    secrets: [Secret; 2],
}

struct Secret {
    start: u64,
    seeds: SharedSeed,
}

impl KeyPlan {
    pub(super) fn new(parts: &[LimitKey]) -> Self {
        Self {
            parts: parts.into(),
            secrets: [Secret::draw(), Secret::draw()],
        }
    }

    pub(super) fn needs_principal(&self) -> bool {
        self.parts.contains(&LimitKey::Principal)
    }

    /// Whether the key names an address together with what the client claims to be: whoever succeeds with such a pair is
    /// no guesser of it.
    pub(super) fn is_pair(&self) -> bool {
        let names = |part: fn(&LimitKey) -> bool| self.parts.iter().any(part);
        names(|part| *part == LimitKey::Ip)
            && names(|part| !matches!(part, LimitKey::Ip | LimitKey::Route))
    }

    pub(super) fn of(&self, inputs: &KeyInputs<'_>) -> Key {
        let [high, low] = &self.secrets;
        let fold = |secret: &Secret| {
            let mut hasher = FoldHasher::with_seed(secret.start, &secret.seeds);
            for part in &self.parts {
                absorb_part(&mut hasher, part, inputs);
            }
            hasher.finish()
        };
        Key(u128::from(fold(high)) << 64 | u128::from(fold(low)))
    }
}

impl Secret {
    /// The standard library's `RandomState` is seeded by the operating system; foldhash's own seed is not.
    fn draw() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        Self {
            start: random(),
            seeds: SharedSeed::from_u64(random()),
        }
    }
}

/// Every part opens with a tag that says what follows, and text states its length: no two different keys read alike.
fn absorb_part(hasher: &mut impl Hasher, part: &LimitKey, inputs: &KeyInputs<'_>) {
    match part {
        LimitKey::Ip => absorb_address(hasher, inputs.ip.group()),
        LimitKey::Route => absorb_text(hasher, inputs.route.as_bytes()),
        LimitKey::Header(name) => absorb_field(hasher, inputs.headers, name),
        LimitKey::Principal => match inputs.principal {
            Some(principal) if principal.is_authenticated() => absorb_caller(hasher, principal),
            _ => absorb_address(hasher, inputs.ip.group()),
        },
    }
}

fn absorb_address(hasher: &mut impl Hasher, address: IpAddr) {
    match address {
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

/// The same user id means another caller under another issuer.
fn absorb_caller(hasher: &mut impl Hasher, principal: &Principal) {
    hasher.write_u8(tag::CALLER);
    absorb_text(hasher, principal.source.as_bytes());
    absorb_text(hasher, principal.facts.user.as_bytes());
}

/// An absent field counts as one value, and so does a repeated one: which of several values the backend believes is
/// not known here, and must not decide who is charged. Space around a value is no part of it (HTTP/2 hands it on).
fn absorb_field(hasher: &mut impl Hasher, headers: &HeaderMap, name: &HeaderName) {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => hasher.write_u8(tag::ABSENT),
        (Some(value), None) => absorb_text(hasher, value.as_bytes().trim_ascii()),
        (Some(_), Some(_)) => hasher.write_u8(tag::REPEATED),
    }
}

fn absorb_text(hasher: &mut impl Hasher, text: &[u8]) {
    hasher.write_u8(tag::TEXT);
    hasher.write_usize(text.len());
    hasher.write(text);
}

mod tag {
    pub(super) const V4: u8 = 1;
    pub(super) const V6: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const CALLER: u8 = 4;
    pub(super) const ABSENT: u8 = 5;
    pub(super) const REPEATED: u8 = 6;
}
