//! The shape of a token, before any key is touched: size, parts, encoding, header, claims object.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json;
use super::verify::algorithm_named;
use crate::authn::refused;
use crate::config::Algorithm;
use crate::types::{Reason, Rejection};

/// A token whose parts are well-formed. Nothing in it is believed yet.
#[derive(Debug)]
pub struct Shape<'t> {
    /// What is signed, and how.
    pub jws: Jws<'t>,
    /// The claims.
    pub claims: Map<String, Value>,
}

/// A compact JWS, whatever its payload is.
#[derive(Debug)]
pub struct Jws<'t> {
    /// What the header asks for.
    pub header: Header,
    /// The payload, decoded.
    pub payload: Vec<u8>,
    /// What was signed: header and payload as they were sent, with the dot between them.
    pub message: &'t str,
    /// The signature, decoded.
    pub signature: Vec<u8>,
}

/// The part of a token's header that plays a role. Every other name in it is ignored, or refuses the token.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    /// The algorithm that the token claims; the key decides whether that is so.
    pub algorithm: Algorithm,
    /// Which key of the issuer.
    pub kid: Option<String>,
    /// The type, without `application/`, in lower case.
    pub typ: Option<String>,
}

/// Longest `kid`, in bytes.
pub const MAX_KID: usize = 256;

/// Checks the size of a token; the first thing that is done with one.
///
/// # Errors
/// [`Reason::TokenTooLarge`].
pub fn check_size(token: &str, max: usize) -> Result<(), Rejection> {
    if token.len() > max {
        return Err(refused(Reason::TokenTooLarge, "larger than `max_token`"));
    }
    Ok(())
}

/// Whether `token` has the three parts of a signed token; anything else is for whoever knows opaque tokens.
#[must_use]
pub fn has_three_parts(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl<'t> Shape<'t> {
    /// Takes a token apart. The caller has called [`check_size`].
    ///
    /// # Errors
    /// A rejection that names the first rule which the token breaks.
    pub fn parse(token: &'t str) -> Result<Self, Rejection> {
        let mut jws = Jws::parse(token)?;
        let claims = json::object(&std::mem::take(&mut jws.payload))
            .map_err(|why| refused(Reason::CredentialMalformed, format!("payload: {why}")))?;
        Ok(Self { jws, claims })
    }
}

impl<'t> Jws<'t> {
    /// Takes a compact JWS apart, and judges its header.
    ///
    /// # Errors
    /// A rejection that names the first rule which it breaks.
    pub fn parse(token: &'t str) -> Result<Self, Rejection> {
        let (message, signature) = token.rsplit_once('.').ok_or_else(not_three_parts)?;
        let (header, payload) = message.split_once('.').ok_or_else(not_three_parts)?;
        if payload.contains('.') || header.is_empty() {
            return Err(not_three_parts());
        }
        Ok(Self {
            header: Header::parse(&decode(header)?)?,
            payload: decode(payload)?,
            message,
            signature: decode(signature)?,
        })
    }
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let header = json::object(bytes)
            .map_err(|why| refused(Reason::TokenHeader, format!("header: {why}")))?;
        refuse_extensions(&header)?;
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) => algorithm_named(name)
                .ok_or_else(|| refused(Reason::TokenAlgorithm, "`alg` names no known algorithm"))?,
            _ => {
                return Err(refused(
                    Reason::TokenHeader,
                    "`alg` is missing or no string",
                ));
            }
        };
        let kid = text(&header, "kid")?;
        if kid.is_some_and(|kid| kid.len() > MAX_KID) {
            return Err(refused(Reason::TokenHeader, "`kid` is too long"));
        }
        Ok(Self {
            algorithm,
            kid: kid.map(str::to_owned),
            typ: text(&header, "typ")?.map(media_type),
        })
    }
}

/// What would make the token something else than it seems: extensions that must be understood, an unencoded payload,
/// compression, encryption, a token in a token.
fn refuse_extensions(header: &Map<String, Value>) -> Result<(), Rejection> {
    const REFUSED: [(&str, &str); 4] = [
        ("crit", "`crit` is present"),
        ("b64", "`b64` is present"),
        ("zip", "`zip` is present"),
        ("enc", "`enc` is present"),
    ];
    for (name, detail) in REFUSED {
        if header.contains_key(name) {
            return Err(refused(Reason::TokenHeader, detail));
        }
    }
    match text(header, "cty")?.map(media_type) {
        Some(cty) if cty == "jwt" || cty.ends_with("+jwt") => Err(refused(
            Reason::TokenHeader,
            "`cty` says that a token is inside",
        )),
        _ => Ok(()),
    }
}

fn text<'h>(
    header: &'h Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'h str>, Rejection> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(refused(
            Reason::TokenHeader,
            format!("`{name}` is no string"),
        )),
    }
}

/// `at+jwt` and `application/AT+JWT` are the same type (RFC 7515 section 4.1.9).
#[must_use]
pub fn media_type(written: &str) -> String {
    let lower = written.to_ascii_lowercase();
    match lower.strip_prefix("application/") {
        Some(rest) if !rest.contains('/') => rest.to_owned(),
        _ => lower,
    }
}

/// The one spelling of base64url: no padding, no stray bits, no byte from outside the alphabet.
fn decode(part: &str) -> Result<Vec<u8>, Rejection> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| {
        refused(
            Reason::CredentialMalformed,
            "a part is no canonical base64url",
        )
    })
}

fn not_three_parts() -> Rejection {
    refused(
        Reason::CredentialMalformed,
        "not three parts with dots between them",
    )
}
