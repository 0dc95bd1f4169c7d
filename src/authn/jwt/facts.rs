//! From claims to the gateway's own words: user, organisation, roles, scopes.

use std::collections::HashSet;
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::authn::refused;
use crate::types::{PrincipalFacts, Reason, Rejection, claim_at};

/// Where an issuer's tokens hold what the gateway wants to know.
#[derive(Debug)]
pub struct Mapping {
    /// Path of the user.
    pub user: String,
    /// Path of the organisation.
    pub org: String,
    /// Path of the e-mail address.
    pub email: String,
    /// Paths of the roles; those of all count.
    pub roles: Box<[String]>,
    /// Paths of the scopes; the first that is there counts.
    pub scopes: Box<[String]>,
}

impl Mapping {
    /// Takes the facts from claims that were found good. A claim that is not there is a fact that is not known.
    #[must_use]
    pub fn facts(
        &self,
        claims: Map<String, Value>,
        expires_at: Option<SystemTime>,
    ) -> PrincipalFacts {
        PrincipalFacts {
            user: text_at(&claims, &self.user).unwrap_or_default(),
            org: text_at(&claims, &self.org),
            email: text_at(&claims, &self.email).filter(|_| !is_unverified(&claims)),
            roles: self.roles(&claims),
            scopes: scopes(self.scopes.iter().find_map(|path| claim_at(&claims, path))),
            expires_at,
            claims,
            mark: None,
            kept: crate::types::memo::Kept::default(),
        }
    }

    /// Checks that the claims say who the user is, where the operator says that they do.
    ///
    /// # Errors
    /// [`Reason::TokenClaims`].
    pub fn check_user(&self, claims: &Map<String, Value>) -> Result<(), Rejection> {
        if text_at(claims, &self.user).is_some() {
            return Ok(());
        }
        let detail = format!("`{}` is empty, or no text and no number", self.user);
        Err(refused(Reason::TokenClaims, detail))
    }

    fn roles(&self, claims: &Map<String, Value>) -> Vec<String> {
        let mut paths = self.roles.iter();
        let first = paths
            .next()
            .map_or_else(Vec::new, |path| words(claim_at(claims, path)));
        paths.fold(first, |mut roles, path| {
            let known: HashSet<String> = roles.iter().cloned().collect();
            let more = words(claim_at(claims, path)).into_iter();
            roles.extend(more.filter(|role| !known.contains(role)));
            roles
        })
    }
}

/// Whether the issuer says that nobody has proved to own the address. Whoever types in somebody else's must not be
/// taken for them.
fn is_unverified(claims: &Map<String, Value>) -> bool {
    claims
        .get("email_verified")
        .is_some_and(|said| *said == Value::Bool(false) || said == "false")
}

/// The text at `path`; numbers count as the text they are written with.
#[must_use]
pub fn text_at(claims: &Map<String, Value>, path: &str) -> Option<String> {
    match claim_at(claims, path)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A string, the strings of an array, or the names of an object (ZITADEL's role maps: `{"admin": {"org": "domain"}}`).
/// A name whose value is `false` or null is not given.
#[must_use]
pub fn words(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(one)) if !one.is_empty() => vec![one.clone()],
        Some(Value::Array(many)) => many
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        Some(Value::Object(map)) => map
            .iter()
            .filter(|(_, given)| !matches!(given, Value::Null | Value::Bool(false)))
            .map(|(name, _)| name.clone())
            .collect(),
        _ => Vec::new(),
    }
}

/// Scopes stand in one string with spaces between them (RFC 6749 section 3.3), or in an array.
#[must_use]
pub fn scopes(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(list)) => list.split_ascii_whitespace().map(str::to_owned).collect(),
        other => words(other),
    }
}
