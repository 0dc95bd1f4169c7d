//! Who is the caller? Reads the one credential of a request and judges it (behaviour.md 2.4).
//!
//! What the caller may do is decided in `authz`. The parts: `extract` finds the credential, `jwt` judges tokens, `jwks`
//! keeps the keys, `introspection` and `session` ask issuers and backends, `cache` and `answers` remember, `revoke` and
//! `ending` make them forget, `vigil` ends streams with their credentials, `again` asks about those meanwhile, `logout`
//! takes an issuer's word that somebody has logged out; `extract`, `jwt` and the decisions of `jwks` are pure.
//!
//! The law of the room: a bad credential is 401, more than one is 400, and an issuer or backend that cannot be asked is
//! 503; nothing that fails ever lets a caller in.

pub mod cache;
pub mod ending;
pub mod extract;
pub mod issuer;
pub mod jwks;
pub mod jwt;
pub mod logout;
pub mod revoke;
pub mod session;
pub mod vigil;

mod again;
mod all;
mod answers;
mod choice;
mod compile;
mod explain;
mod introspection;
mod relay;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, StatusCode};

use crate::types::rejection::Challenge;
use crate::types::{Principal, Reason, Rejection};
use crate::upstream::{Cluster, Pools};
use cache::{Fingerprint, token_fingerprint};
use choice::Choice;
use extract::{Credential, Wanted};
use jwt::{Shape, claims, shape};

pub use again::Keepsake;
pub use ending::{Ending, Revokes};
pub use explain::Check;
pub use issuer::Issuer;
pub use jwt::verify::{SelfTestFailed, self_test};
pub use logout::Logout;
pub use revoke::{Ended, Relay, Revocation};
pub use session::Session;
pub use vigil::{Lapse, Vigil, Vigils};

/// Everybody who can vouch for a caller, by name. Live: carried over by a reload where the configuration is equal.
#[derive(Debug, Default)]
pub struct Authorities {
    /// Who signs tokens.
    pub issuers: BTreeMap<String, Arc<Issuer>>,
    /// Logins in cookies.
    pub sessions: BTreeMap<String, Arc<Session>>,
    /// Names that are written, but could not be compiled.
    broken: BTreeSet<String>,
    /// Who waits for credentials to end.
    vigils: Arc<Vigils>,
    /// Who tells other replicas what was revoked here; nobody, where there is one replica.
    relay: Option<Arc<dyn Relay>>,
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
    places: Places,
    tokens: TokenDemands,
    optional: bool,
    /// Under `all`: the one by whose word the caller is known. Every one must vouch then, not one alone.
    first_of_all: Option<Arc<str>>,
}

/// Where credentials may stand, and who judges what stands there.
#[derive(Debug, Default)]
struct Places {
    /// In `Authorization`.
    bearer: Option<Bench>,
    /// The headers of the operator's choice, and in their order who judges them.
    headers: Box<[HeaderName]>,
    header_benches: Box<[Bench]>,
    /// The cookies, and in their order the sessions that they are of.
    cookies: Box<[Box<str>]>,
    sessions: Box<[Arc<Session>]>,
}

/// Who judges tokens that stand in one place.
#[derive(Debug, Default)]
struct Bench {
    /// `iss` chooses among them.
    issuers: Choice,
    /// Judges what is no JWT of theirs.
    other: Option<Other>,
    /// The longest token that one of them judges.
    most_token: usize,
}

/// Who judges what is not for the keys of an issuer.
#[derive(Clone, Debug)]
enum Other {
    /// Asks the issuer what a token stands for that is no JWT.
    Issuer(Arc<Issuer>),
    /// Asks a backend about every token that is of none of the issuers.
    Session(Arc<Session>),
}

/// What one route demands of tokens, beyond what their issuers do.
#[derive(Debug, Default)]
struct TokenDemands {
    /// Demanded `typ`, as [`shape::media_type`] spells it.
    typ: Option<String>,
    /// Whether keys that have outlived their time and cannot be fetched anew are as bad as none.
    refuses_outlived_keys: bool,
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
    pub fn is_by_cookie(&self, principal: &Principal, headers: &HeaderMap) -> bool {
        let Some(demand) = &self.demand else {
            return false;
        };
        let mut sessions = demand.sessions.iter();
        let session = sessions.find(|session| *session.name() == principal.source);
        session.is_some_and(|session| {
            // A session that takes bearers was shown one, where there is one: a request shows one credential.
            let by_bearer = session.takes_bearer() && demand.first_of_all.is_none();
            !(by_bearer && extract::has_bearer(headers))
        })
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
        match extract::find(headers, demand.places.wanted())? {
            Some(credential) => demand.identify(credential, pools, wall).await,
            None if demand.optional => Ok(Principal::anonymous()),
            None => Err(missing()),
        }
    }
}

impl Demand {
    /// Who the caller is, by one credential: whoever judges the place where it stands tells.
    async fn identify(
        &self,
        credential: Credential<'_>,
        pools: &Pools,
        wall: SystemTime,
    ) -> Result<Principal, Rejection> {
        let (places, tokens) = (&self.places, &self.tokens);
        match credential {
            Credential::Bearer(token) => {
                let bench = places.bearer.as_ref().ok_or_else(missing)?;
                bench.identify(tokens, pools, token, wall).await
            }
            Credential::Header { position, value } => {
                let bench = places.header_benches.get(position).ok_or_else(missing)?;
                bench.identify(tokens, pools, value, wall).await
            }
            Credential::Cookie { position, value } => {
                let session = places.sessions.get(position).ok_or_else(missing)?;
                session.identify_cookie(tokens, pools, value, wall).await
            }
        }
    }
}

impl Places {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            bearer: self.bearer.is_some(),
            headers: &self.headers,
            cookies: &self.cookies,
        }
    }
}

impl Bench {
    /// Judges a token: a JWT by the issuer that it names, anything else by whoever knows what it stands for.
    async fn identify(
        &self,
        demands: &TokenDemands,
        pools: &Pools,
        token: &str,
        wall: SystemTime,
    ) -> Result<Principal, Rejection> {
        shape::check_size(token, self.most_token)?;
        let print = token_fingerprint(token);
        let known = |issuer: &Arc<Issuer>| issuer.recall(&print, demands, wall);
        if let Some(verdict) = self.issuers.familiar(token).iter().find_map(known) {
            return verdict;
        }
        // Boxed: this is the rare way, and its size would be the size of every exchange.
        Box::pin(self.judge(demands, pools, token, print, wall)).await
    }

    /// Judges a token that is new to us.
    async fn judge(
        &self,
        demands: &TokenDemands,
        pools: &Pools,
        token: &str,
        print: Fingerprint,
        wall: SystemTime,
    ) -> Result<Principal, Rejection> {
        if !shape::has_three_parts(token) {
            match &self.other {
                Some(Other::Issuer(issuer)) => {
                    shape::check_size(token, issuer.max_token)?;
                    return issuer.introspect(pools, token, wall).await;
                }
                Some(Other::Session(session)) => {
                    return session.identify_bearer(pools, token).await;
                }
                // Says what is wrong with it.
                None => return Err(no_jwt(token)),
            }
        }
        // Where nothing has to be chosen, the token need not be understood by us.
        match (&self.other, self.issuers.as_slice()) {
            (Some(Other::Session(session)), []) => {
                return session.identify_bearer(pools, token).await;
            }
            (_, [only]) if only.introspects_all() => {
                return only.introspect(pools, token, wall).await;
            }
            _ => {}
        }
        let shape = Shape::parse(token)?;
        let Some(issuer) = chosen(&self.issuers, &shape) else {
            return match &self.other {
                Some(Other::Session(session)) => session.identify_bearer(pools, token).await,
                _ => Err(other_issuer()),
            };
        };
        shape::check_size(token, issuer.max_token)?;
        if issuer.introspects_all() {
            return issuer.introspect(pools, token, wall).await;
        }
        // One that writes `iss` where nobody looks for it is recognised here.
        if !self.issuers.are_few()
            && let Some(verdict) = issuer.recall(&print, demands, wall)
        {
            return verdict;
        }
        issuer
            .verify(print, token.len(), shape, demands, wall)
            .await
    }
}

impl TokenDemands {
    fn check_type(&self, stated: Option<&str>) -> Result<(), Rejection> {
        if self.typ.is_none() || self.typ.as_deref() == stated {
            return Ok(());
        }
        Err(refused(
            Reason::TokenType,
            "`typ` is not the one that the route demands",
        ))
    }
}

impl Authorities {
    /// Ends what `revocation` names, everywhere in this process before this returns, and tells other replicas.
    pub async fn revoke(&self, revocation: &Revocation, wall: SystemTime) {
        self.revoke_here(revocation, wall).await;
        if let Some(relay) = &self.relay {
            relay.publish(revocation);
        }
    }

    /// Ends what `revocation` names in this process alone; for what other replicas have told.
    pub async fn revoke_here(&self, revocation: &Revocation, wall: SystemTime) {
        if let Some(issuer) = self.issuers.get(&*revocation.source) {
            issuer.revoke(revocation, wall).await;
        } else if let Some(session) = self.sessions.get(&*revocation.source) {
            session.revoke(revocation).await;
        }
        // Last: a stream that is opened now is judged by what was remembered above.
        self.vigils.tell(revocation);
    }

    /// Who waits for credentials to end.
    #[must_use]
    pub fn vigils(&self) -> &Arc<Vigils> {
        &self.vigils
    }

    /// Tells `relay` of everything that is revoked here from now on.
    #[must_use]
    pub fn with_relay(mut self, relay: Arc<dyn Relay>) -> Self {
        self.relay = Some(relay);
        self
    }

    /// Where issuers are asked about tokens: addresses that must be kept current like any upstream's.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        let issuers = self.issuers.values();
        issuers.filter_map(|issuer| issuer.introspection_cluster())
    }
}

fn chosen<'i>(issuers: &'i Choice, shape: &Shape<'_>) -> Option<&'i Issuer> {
    let stated = claims::issuer(&shape.claims)?;
    issuers.named(stated).map(AsRef::as_ref)
}

fn other_issuer() -> Rejection {
    refused(Reason::TokenIssuer, "`iss` is none of the route's issuers")
}

fn no_jwt(token: &str) -> Rejection {
    Shape::parse(token).err().unwrap_or_else(missing)
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
