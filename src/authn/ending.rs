//! A logout, a password change or their like, seen passing by: what the caller showed ends with a good answer, at once
//! and in every cache of the process, before the answer leaves.
//!
//! What ends is found before the request goes on, because afterwards the backend no longer knows it. Nobody is asked:
//! what is not known here needs no forgetting.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use super::answers::{Owner, user_fingerprint};
use super::cache::token_fingerprint;
use super::extract::{self, Credential};
use super::issuer::Known;
use super::jwt::{Shape, claims, shape};
use super::revoke::{Ended, Revocation};
use super::session::Shown;
use super::{Authorities, Bench, Issuer, Other, Places, Session};
use crate::types::{Principal, clock};

/// What the good answers of one route end.
#[derive(Debug)]
pub struct Revokes {
    pub(super) places: Places,
    pub(super) issuers: Box<[Arc<Issuer>]>,
    pub(super) sessions: Box<[Arc<Session>]>,
    /// Whether all credentials of the user end, not only the one that was shown.
    pub(super) user: bool,
}

/// What ends if a request is answered well.
#[derive(Debug)]
pub struct Ending(Vec<Revocation>);

/// Who vouches for a credential that is about to end.
#[derive(Clone, Copy)]
pub(super) enum Source<'s> {
    Issuer(&'s Arc<Issuer>),
    Session(&'s Arc<Session>),
}

impl Revokes {
    /// Finds what a request with these headers would end. `principal` is who was found to have sent it.
    pub async fn watch(
        &self,
        headers: &HeaderMap,
        principal: &Principal,
        wall: SystemTime,
    ) -> Ending {
        let mut ending = Ending(Vec::new());
        for credential in extract::each(headers, self.places.wanted()) {
            if let Some((source, known)) = self.known(credential, wall).await {
                if let Some(owner) = known.owner.filter(|_| self.user) {
                    ending.user(source, owner, wall);
                }
                ending.add(source, known.what, known.until);
            }
        }
        if let Some((source, owner)) = self.owner(principal).filter(|_| self.user) {
            ending.user(source, owner, wall);
        }
        ending
    }

    async fn known(
        &self,
        credential: Credential<'_>,
        wall: SystemTime,
    ) -> Option<(Source<'_>, Known)> {
        match credential {
            Credential::Bearer(token) => self.places.bearer.as_ref()?.known(token, wall).await,
            Credential::Header { position, value } => {
                let bench = self.places.header_benches.get(position)?;
                bench.known(value, wall).await
            }
            Credential::Cookie { position, value } => {
                let session = self.places.sessions.get(position)?;
                let known = session.known(Shown::Cookie(value), wall).await?;
                Some((Source::of(session), known))
            }
        }
    }

    /// The source that vouched for `principal`, if it is one of ours, and to whom its credentials belong.
    fn owner(&self, principal: &Principal) -> Option<(Source<'_>, Owner)> {
        let facts = principal.is_authenticated().then_some(&principal.facts)?;
        let issuer = |issuer: &&Arc<Issuer>| *issuer.name() == principal.source;
        if let Some(issuer) = self.issuers.iter().find(issuer) {
            return Some((Source::Issuer(issuer), Owner::of(&facts.claims)));
        }
        let session = |session: &&Arc<Session>| *session.name() == principal.source;
        let source = Source::of(self.sessions.iter().find(session)?);
        let owner = match source {
            Source::Issuer(_) => Owner::of(&facts.claims),
            Source::Session(_) => Owner {
                user: Some(user_fingerprint(&facts.user)),
                login: None,
            },
        };
        Some((source, owner))
    }
}

impl Bench {
    /// What a token is known to be, by whoever would judge it (see [`Bench::identify`]): one of them, however many are
    /// named.
    pub(super) async fn known(&self, token: &str, wall: SystemTime) -> Option<(Source<'_>, Known)> {
        if token.len() > self.most_token {
            return None;
        }
        if !shape::has_three_parts(token) {
            return self.known_other(token, wall).await;
        }
        let print = token_fingerprint(token);
        for issuer in self.issuers.familiar(token) {
            if let Some(known) = issuer.known_verified(&print) {
                return Some((Source::Issuer(issuer), known));
            }
        }
        let chosen = match self.issuers.as_slice() {
            [] => None,
            // Whatever it looks like, it is asked about.
            [only] if only.introspects_all() => Some((only, None)),
            _ => {
                let shape = Shape::parse(token).ok()?;
                let stated = claims::issuer(&shape.claims);
                let issuer = stated.and_then(|url| self.issuers.named(url));
                issuer.map(|issuer| (issuer, Some(shape)))
            }
        };
        let (issuer, known) = match chosen {
            None => return self.known_other(token, wall).await,
            Some((issuer, Some(shape))) if !issuer.introspects_all() => {
                (issuer, issuer.known_jwt(print, &shape, wall))
            }
            Some((issuer, _)) => (issuer, issuer.known_answer(token, wall).await),
        };
        Some((Source::Issuer(issuer), known?))
    }

    /// The same of a token that is of none of the issuers' keys.
    async fn known_other(&self, token: &str, wall: SystemTime) -> Option<(Source<'_>, Known)> {
        match self.other.as_ref()? {
            Other::Issuer(_) if shape::has_three_parts(token) => None,
            Other::Issuer(issuer) => {
                let known = issuer.known_answer(token, wall).await?;
                Some((Source::Issuer(issuer), known))
            }
            Other::Session(session) => {
                let known = Box::pin(session.known(Shown::Bearer(token), wall)).await?;
                Some((Source::Session(session), known))
            }
        }
    }
}

impl<'s> Source<'s> {
    /// What a session's issuer vouched for is remembered with the issuer.
    fn of(session: &'s Arc<Session>) -> Self {
        session
            .issuer()
            .map_or(Self::Session(session), Self::Issuer)
    }

    fn name(self) -> &'s Arc<str> {
        match self {
            Self::Issuer(issuer) => issuer.name(),
            Self::Session(session) => session.name(),
        }
    }

    fn cut_off_until(self, wall: SystemTime) -> SystemTime {
        match self {
            Self::Issuer(issuer) => issuer.cut_off_until(wall),
            Self::Session(session) => wall + session.cache(),
        }
    }
}

impl Ending {
    /// What ends. Nothing, unless the request is answered well.
    #[must_use]
    pub fn revocations(&self) -> &[Revocation] {
        &self.0
    }

    /// Ends it all, if the answer with this head says that it was done.
    pub async fn settle(
        &self,
        authorities: &Authorities,
        status: StatusCode,
        headers: &HeaderMap,
        wall: SystemTime,
    ) {
        if !was_done(status, headers) {
            return;
        }
        for revocation in &self.0 {
            authorities.revoke(revocation, wall).await;
        }
    }

    fn add(&mut self, source: Source<'_>, what: Ended, until: SystemTime) {
        let source = Arc::clone(source.name());
        let revocation = Revocation {
            source,
            what,
            until,
        };
        if !self.0.contains(&revocation) {
            self.0.push(revocation);
        }
    }

    /// All that the user was given before this second: what the answer itself brings is not ended with the rest.
    fn user(&mut self, source: Source<'_>, owner: Owner, wall: SystemTime) {
        let Some(user) = owner.user else { return };
        let second = Duration::from_secs(clock::unix_seconds(wall));
        let before = SystemTime::UNIX_EPOCH + second;
        self.add(
            source,
            Ended::User(user, before),
            source.cut_off_until(wall),
        );
    }
}

/// A 2xx; one of gRPC may say in its head that it is none.
fn was_done(status: StatusCode, headers: &HeaderMap) -> bool {
    let grpc_status = headers.get("grpc-status");
    status.is_success() && grpc_status.is_none_or(|status| status == "0")
}
