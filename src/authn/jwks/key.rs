//! One entry of a key set: whether it may verify tokens, and with which algorithms.

use std::fmt;

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::radar::{Followed, Sighting};
use crate::authn::jwt::shape::MAX_KID;
use crate::authn::jwt::verify::{algorithm_named, is_rsa};
use crate::config::Algorithm;

/// A public key that may verify tokens.
#[derive(Clone, Debug)]
pub struct Key {
    kid: Option<Box<str>>,
    algorithms: Box<[Algorithm]>,
    material: Material,
    decoding: DecodingKey,
    sighting: Followed,
}

/// The public numbers; what makes two keys the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Point(Vec<u8>),
}

/// Why an entry of a key set is not used. The other keys of the set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is meant for something else (`use`, `key_ops`).
    OtherUse,
    /// Its type, curve or algorithm is not known, or not allowed for this issuer.
    Unsupported,
    /// A member is missing or not written as it must be.
    Malformed,
    /// An RSA key below 2048 bits or above 8192, with a useless exponent, or from a generator known to be broken.
    Weak,
    /// It is no point of its curve, or one that verifies signatures of everybody.
    BadPoint,
    /// Its private half stands beside it: whoever read the set can sign.
    Private,
}

impl Unfit {
    /// Whether key sets often hold such entries for good reasons.
    #[must_use]
    pub fn is_harmless(self) -> bool {
        matches!(self, Self::OtherUse | Self::Unsupported)
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherUse => "not meant for signatures",
            Self::Unsupported => "of a kind that is not known or not allowed here",
            Self::Malformed => "malformed",
            Self::Weak => "too weak (RSA needs 2048 to 8192 bits and an odd exponent from 3)",
            Self::BadPoint => "no safe point of its curve",
            Self::Private => "published together with its private half",
        })
    }
}

impl Key {
    /// Reads an entry of a key set. `allowed` is what the issuer may sign with.
    ///
    /// # Errors
    /// [`Unfit`] when the key must not be used.
    pub fn parse(entry: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Self, Unfit> {
        check_use(entry)?;
        if entry.contains_key("d") {
            return Err(Unfit::Private);
        }
        let (material, decoding, fitting) = match text(entry, "kty")? {
            "RSA" => rsa(entry)?,
            "EC" => elliptic(entry)?,
            "OKP" => edwards(entry)?,
            _ => return Err(Unfit::Unsupported),
        };
        Ok(Self {
            kid: kid(entry)?,
            algorithms: choose(entry, fitting, allowed)?,
            material,
            decoding,
            sighting: Followed::default(),
        })
    }

    /// The name by which tokens call it.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether it may verify signatures of `algorithm`.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// The key as the library wants it.
    #[must_use]
    pub fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// When it was seen and used.
    #[must_use]
    pub fn sighting(&self) -> &Sighting {
        &self.sighting
    }

    /// Takes over what is known of `known`, the same key in an earlier set.
    pub(super) fn follow(&mut self, known: &Self) {
        self.sighting = Followed::clone(&known.sighting);
    }

    /// Whether `other` is the same key under the same name.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.kid == other.kid && self.material == other.material
    }

    /// Whether `other` is the same key under the same name for at least the same algorithms.
    #[must_use]
    pub fn is_kept_by(&self, other: &Self) -> bool {
        self.is_same(other) && self.algorithms.iter().all(|one| other.verifies(*one))
    }
}

/// `use` must be `sig` and `key_ops` must hold `verify`, where they are there.
fn check_use(entry: &Map<String, Value>) -> Result<(), Unfit> {
    let intended = match entry.get("use") {
        None => true,
        Some(intended) => intended == "sig",
    };
    let operations = match entry.get("key_ops") {
        None => true,
        Some(Value::Array(operations)) => operations.iter().any(|operation| operation == "verify"),
        Some(_) => false,
    };
    if intended && operations {
        Ok(())
    } else {
        Err(Unfit::OtherUse)
    }
}

fn kid(entry: &Map<String, Value>) -> Result<Option<Box<str>>, Unfit> {
    match entry.get("kid") {
        None => Ok(None),
        Some(Value::String(kid)) if kid.len() <= MAX_KID => Ok(Some(kid.as_str().into())),
        Some(_) => Err(Unfit::Malformed),
    }
}

/// The entry's own `alg` decides; without one, every algorithm that fits the key and is allowed.
fn choose(
    entry: &Map<String, Value>,
    fitting: fn(Algorithm) -> bool,
    allowed: &[Algorithm],
) -> Result<Box<[Algorithm]>, Unfit> {
    let stated = match entry.get("alg") {
        None => None,
        // RFC 9864 gives Ed25519 a name of its own; tokens go on saying EdDSA.
        Some(Value::String(alg)) if alg == "Ed25519" => Some(Algorithm::EdDSA),
        Some(Value::String(alg)) => Some(algorithm_named(alg).ok_or(Unfit::Unsupported)?),
        Some(_) => return Err(Unfit::Malformed),
    };
    let chosen: Box<[Algorithm]> = allowed
        .iter()
        .copied()
        .filter(|one| fitting(*one) && stated.is_none_or(|stated| stated == *one))
        .collect();
    if chosen.is_empty() {
        return Err(Unfit::Unsupported);
    }
    Ok(chosen)
}

type Parsed = (Material, DecodingKey, fn(Algorithm) -> bool);

fn rsa(entry: &Map<String, Value>) -> Result<Parsed, Unfit> {
    let n = without_leading_zeros(bytes(entry, "n")?);
    let e = without_leading_zeros(bytes(entry, "e")?);
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    let exponent_is_one = e == [1];
    if !(2048..=8192).contains(&bits)
        || !odd(&n)
        || !odd(&e)
        || exponent_is_one
        || e.len() > 4
        || is_from_broken_generator(&n)
    {
        return Err(Unfit::Weak);
    }
    let decoding = DecodingKey::from_rsa_raw_components(&n, &e);
    Ok((Material::Rsa { n, e }, decoding, is_rsa))
}

fn elliptic(entry: &Map<String, Value>) -> Result<Parsed, Unfit> {
    let (width, curve, fitting): (_, &'static dyn VerificationAlgorithm, fn(Algorithm) -> bool) =
        match text(entry, "crv")? {
            "P-256" => (32, &signature::ECDSA_P256_SHA256_FIXED, |one| {
                one == Algorithm::ES256
            }),
            "P-384" => (48, &signature::ECDSA_P384_SHA384_FIXED, |one| {
                one == Algorithm::ES384
            }),
            _ => return Err(Unfit::Unsupported),
        };
    let (x, y) = (bytes(entry, "x")?, bytes(entry, "y")?);
    if x.len() != width || y.len() != width {
        return Err(Unfit::Malformed);
    }
    let point: Vec<u8> = std::iter::once(4).chain(x).chain(y).collect();
    ParsedPublicKey::new(curve, &point).map_err(|_| Unfit::BadPoint)?;
    let decoding = DecodingKey::from_ec_der(&point);
    Ok((Material::Point(point), decoding, fitting))
}

fn edwards(entry: &Map<String, Value>) -> Result<Parsed, Unfit> {
    if text(entry, "crv")? != "Ed25519" {
        return Err(Unfit::Unsupported);
    }
    let point: [u8; 32] = bytes(entry, "x")?
        .try_into()
        .map_err(|_| Unfit::Malformed)?;
    if is_small_or_not_canonical(&point) {
        return Err(Unfit::BadPoint);
    }
    ParsedPublicKey::new(&signature::ED25519, point).map_err(|_| Unfit::BadPoint)?;
    let decoding = DecodingKey::from_ed_der(&point);
    Ok((Material::Point(point.to_vec()), decoding, |one| {
        one == Algorithm::EdDSA
    }))
}

/// Points of small order make one signature good for many messages; the library takes them. Listed by their y, without
/// the bit that holds the sign of x; together with every y that is not written in its shortest form.
fn is_small_or_not_canonical(point: &[u8; 32]) -> bool {
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut y = *point;
    y[31] &= 0x7f;
    let [low, middle @ .., high] = y;
    // y = 0 and y = 1: orders 4 and 1. y = p - 1 is of order 2, and from p on nothing is canonical.
    let is_zero_or_one = low <= 1 && high == 0 && middle.iter().all(|byte| *byte == 0);
    let is_minus_one_or_more =
        low >= 0xec && high == 0x7f && middle.iter().all(|byte| *byte == 0xff);
    is_zero_or_one || is_minus_one_or_more || ORDER_8.contains(&y)
}

/// ROCA (CVE-2017-15361): moduli of a broken generator are powers of 65537 modulo each small prime.
fn is_from_broken_generator(n: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89,
        97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.iter().all(|prime| {
        let rest = n
            .iter()
            .fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        std::iter::successors(Some(1), |power| Some(power * 65_537 % prime))
            .take(*prime as usize)
            .any(|power| power == rest)
    })
}

fn text<'e>(entry: &'e Map<String, Value>, name: &str) -> Result<&'e str, Unfit> {
    entry
        .get(name)
        .and_then(Value::as_str)
        .ok_or(Unfit::Malformed)
}

fn bytes(entry: &Map<String, Value>, name: &str) -> Result<Vec<u8>, Unfit> {
    URL_SAFE_NO_PAD
        .decode(text(entry, name)?)
        .map_err(|_| Unfit::Malformed)
}

fn without_leading_zeros(number: Vec<u8>) -> Vec<u8> {
    number.into_iter().skip_while(|byte| *byte == 0).collect()
}
