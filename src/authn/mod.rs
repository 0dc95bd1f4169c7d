//! Who is the caller? Reads the one credential of a request and judges it (behaviour.md 2.4).
//!
//! What the caller may do is decided in `authz`. The parts: `extract` finds the credential, `jwt` judges tokens, `jwks`
//! keeps the keys, `session` asks backends, `cache` remembers; `extract`, `jwt` and the decisions of `jwks` are pure.
//!
//! The law of the room: a bad credential is 401, more than one is 400, and an issuer or backend that cannot be asked is
//! 503; nothing that fails ever lets a caller in.

pub mod cache;
pub mod extract;
pub mod issuer;
pub mod jwks;
pub mod jwt;
pub mod session;

mod all;
mod compile;
mod explain;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use crate::types::rejection::Challenge;
use crate::types::{Principal, Reason, Rejection};
use crate::upstream::Pools;
use cache::{Fingerprint, token_fingerprint};
use extract::{Credential, Wanted};
use jwt::{Shape, claims, shape};

pub use explain::Check;
pub use issuer::Issuer;
pub use jwt::verify::{SelfTestFailed, self_test};
pub use session::Session;

/// Everybody who can vouch for a caller, by name. Live: carried over by a reload where the configuration is equal.
#[derive(Debug, Default)]
pub struct Authorities {
    /// Who signs tokens.
    pub issuers: BTreeMap<String, Arc<Issuer>>,
    /// Logins in cookies.
    pub sessions: BTreeMap<String, Arc<Session>>,
    /// Names that are written, but could not be compiled.
    broken: BTreeSet<String>,
}

/// What one route asks of its callers.
#[derive(Debug)]
pub struct Authn {
    demand: Option<Demand>,
}

/// One of these must vouch for the caller.
#[derive(Debug)]
struct Demand {
    issuers: Box<[Arc<Issuer>]>,
    sessions: Box<[Arc<Session>]>,
    /// The cookies of `sessions`, in their order.
    cookies: Box<[Box<str>]>,
    optional: bool,
    /// Under `all`: the one by whose word the caller is known. Every one must vouch then, not one alone.
    first_of_all: Option<Arc<str>>,
}

impl Authn {
    /// Whether the route looks at credentials at all.
    #[must_use]
    pub fn wants_credential(&self) -> bool {
        self.demand.is_some()
    }

    /// The issuers that a caller of the route may come from.
    #[must_use]
    pub fn issuers(&self) -> &[Arc<Issuer>] {
        self.demand.as_ref().map_or(&[], |demand| &demand.issuers)
    }

    /// The sessions that a caller of the route may have.
    #[must_use]
    pub fn sessions(&self) -> &[Arc<Session>] {
        self.demand.as_ref().map_or(&[], |demand| &demand.sessions)
    }

    /// Whether a cookie told who the caller is: a browser sends it along, whoever made it send the request.
    #[must_use]
    pub fn is_by_cookie(&self, principal: &Principal) -> bool {
        self.sessions()
            .iter()
            .any(|session| *session.name() == principal.source)
    }

    /// Finds out who sent a request with these headers.
    ///
    /// # Errors
    /// 401 for a credential that is missing or bad, 400 for more than one, 503 when nobody can judge it now.
    pub async fn identify(
        &self,
        pools: &Pools,
        headers: &HeaderMap,
        wall: SystemTime,
    ) -> Result<Principal, Rejection> {
        let Some(demand) = &self.demand else {
            return Ok(Principal::anonymous());
        };
        if let Some(first) = &demand.first_of_all {
            // Boxed: this is the rare way, and its size would be the size of every exchange.
            return Box::pin(demand.identify_all(first, pools, headers, wall)).await;
        }
        match extract::find(headers, demand.wanted())? {
            Some(Credential::Bearer(token)) => identify_token(&demand.issuers, token, wall).await,
            Some(Credential::Cookie { position, value }) => {
                let session = demand.sessions.get(position).ok_or_else(missing)?;
                session.identify(pools, value, wall).await
            }
            None if demand.optional => Ok(Principal::anonymous()),
            None => Err(missing()),
        }
    }
}

impl Demand {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            bearer: !self.issuers.is_empty(),
            cookies: &self.cookies,
        }
    }
}

/// Judges a token that one of `issuers` must have signed.
async fn identify_token(
    issuers: &[Arc<Issuer>],
    token: &str,
    wall: SystemTime,
) -> Result<Principal, Rejection> {
    let most = issuers.iter().map(|issuer| issuer.max_token).max();
    shape::check_size(token, most.unwrap_or(0))?;
    let print = token_fingerprint(token);
    if let Some(verdict) = issuers
        .iter()
        .find_map(|issuer| issuer.recall(&print, wall))
    {
        return verdict;
    }
    // Boxed: this is the rare way, and its size would be the size of every exchange.
    Box::pin(judge_token(issuers, token, print, wall)).await
}

/// Judges a token that is new to us.
async fn judge_token(
    issuers: &[Arc<Issuer>],
    token: &str,
    print: Fingerprint,
    wall: SystemTime,
) -> Result<Principal, Rejection> {
    let shape = Shape::parse(token)?;
    let issuer = chosen(issuers, &shape)?;
    shape::check_size(token, issuer.max_token)?;
    issuer.verify(print, token.len(), shape, wall).await
}

/// `iss` chooses, before any key is touched.
fn chosen<'i>(issuers: &'i [Arc<Issuer>], shape: &Shape<'_>) -> Result<&'i Issuer, Rejection> {
    let stated = claims::issuer(&shape.claims);
    issuers
        .iter()
        .find(|issuer| stated == Some(issuer.url()))
        .map(AsRef::as_ref)
        .ok_or_else(|| refused(Reason::TokenIssuer, "`iss` is none of the route's issuers"))
}

fn missing() -> Rejection {
    refused(Reason::CredentialMissing, "")
}

/// A refusal of this room: a 401 tells how to do better (RFC 9110 section 15.5.2).
fn refused(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Rejection {
    let rejection = Rejection::because(reason, detail);
    if reason.status() == StatusCode::UNAUTHORIZED {
        rejection.challenge(Challenge::default())
    } else {
        rejection
    }
}
