//! A login that lives in a cookie: a token that an issuer signed or is asked about, or a handle that the backend confirms.
//!
//! The backend's word is believed for a few seconds, and asked for once however many requests wait for it. A backend
//! that cannot be asked is no reason to call a session bad: that is 503, never 401 and never anonymous.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, COOKIE, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use serde_json::{Map, Value};

use super::answers::{Answer, Answers, NoWord, Owner, user_fingerprint};
use super::cache::{Fingerprint, fingerprint};
use super::issuer::{Issuer, Known};
use super::jwt::facts::{scopes, text_at, words};
use super::jwt::json;
use super::revoke::{Ended, Revocation};
use super::{Bench, TokenDemands, refused};
use crate::config::{self, SessionMap};
use crate::types::{AuthMethod, Principal, PrincipalFacts, Reason, Rejection, claim_at};
use crate::upstream::{Cluster, Pools};

/// A session as the configuration names it. Lives on across reloads that do not change it.
pub struct Session {
    pub(super) name: Arc<str>,
    pub(super) config: config::Session,
    pub(super) cookie: Box<str>,
    pub(super) proof: Proof,
}

/// Who vouches for the cookie.
pub(super) enum Proof {
    /// The cookie holds a token of this issuer, who alone sits on the bench.
    Token(Arc<Issuer>, Bench),
    /// This issuer is asked, whatever the cookie holds.
    Introspection(Arc<Issuer>),
    /// The backend is asked.
    Probe(Box<Probe>),
}

/// A request that asks the backend whether a session is good, and what came of it lately.
pub(super) struct Probe {
    pub(super) cluster: Arc<Cluster>,
    path: PathAndQuery,
    timeout: Duration,
    cache: Duration,
    map: SessionMap,
    answers: Answers,
}

/// What the backend is shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown<'s> {
    /// The session cookie.
    Cookie(&'s str),
    /// A bearer token.
    Bearer(&'s str),
}

/// Largest answer of a probe.
const MOST_ANSWER: usize = 64 * 1024;

/// Longest bearer token that a backend is asked about.
pub(super) const MOST_BEARER: usize = 16 * 1024;

/// How long a refusal is believed.
const BAD_FOR: Duration = Duration::from_secs(1);

impl Session {
    /// The name in the configuration.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The name of the cookie.
    #[must_use]
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    /// What the probe came to, by outcome; `None` where there is none.
    #[must_use]
    pub fn probes(&self) -> Option<[(&'static str, u64); 4]> {
        Some(self.probe()?.answers.outcomes())
    }

    /// The issuer of the token in the cookie.
    pub(super) fn issuer(&self) -> Option<&Arc<Issuer>> {
        match &self.proof {
            Proof::Token(issuer, _) | Proof::Introspection(issuer) => Some(issuer),
            Proof::Probe(_) => None,
        }
    }

    /// How long an answer of the backend is believed.
    pub(super) fn cache(&self) -> Duration {
        self.config.cache.0
    }

    /// Whether the backend is asked about bearer tokens too.
    pub(super) fn takes_bearer(&self) -> bool {
        self.config.bearer
    }

    /// Who the caller is, by the value of the session cookie.
    pub(super) async fn identify_cookie(
        &self,
        demands: &TokenDemands,
        pools: &Pools,
        value: &str,
        wall: SystemTime,
    ) -> Result<Principal, Rejection> {
        let principal = match &self.proof {
            Proof::Token(_, bench) => bench.identify(demands, pools, value, wall).await?,
            Proof::Introspection(issuer) => {
                super::shape::check_size(value, issuer.max_token)?;
                issuer.introspect(pools, value, wall).await?
            }
            Proof::Probe(probe) => return self.ask(probe, pools, Shown::Cookie(value)).await,
        };
        Ok(Principal {
            source: Arc::clone(&self.name),
            ..principal
        })
    }

    /// Who the caller is, by a bearer token that no issuer claims.
    pub(super) async fn identify_bearer(
        &self,
        pools: &Pools,
        token: &str,
    ) -> Result<Principal, Rejection> {
        self.identify_shown(pools, Shown::Bearer(token)).await
    }

    /// Who the caller is, by the backend's word alone.
    pub(super) async fn identify_shown(
        &self,
        pools: &Pools,
        shown: Shown<'_>,
    ) -> Result<Principal, Rejection> {
        match &self.proof {
            Proof::Probe(probe) => self.ask(probe, pools, shown).await,
            Proof::Token(..) | Proof::Introspection(_) => Err(super::missing()),
        }
    }

    /// What a credential of this session is known to be without asking anybody, for whoever ends it.
    pub(super) async fn known(&self, shown: Shown<'_>, wall: SystemTime) -> Option<Known> {
        let probe = match (&self.proof, shown) {
            (Proof::Probe(probe), _) => probe,
            (Proof::Token(_, bench), Shown::Cookie(value)) => {
                return bench.known(value, wall).await.map(|(_, known)| known);
            }
            (Proof::Introspection(issuer), Shown::Cookie(value)) => {
                return issuer.known_answer(value, wall).await;
            }
            _ => return None,
        };
        let print = self.fingerprint(shown);
        let answer = probe.answers.known(&print).await;
        Some(Known {
            what: Ended::Answer(print),
            owner: answer.map(|answer| answer.owner),
            until: wall + probe.cache,
        })
    }

    /// Forgets what `revocation` ends. Called before the answer to a logout leaves.
    pub(super) async fn revoke(&self, revocation: &Revocation) {
        let Some(probe) = self.probe() else { return };
        match revocation.what {
            Ended::Token(print) | Ended::Answer(print) => probe.answers.evict(&print).await,
            Ended::User(owner, _) | Ended::Login(owner, _) | Ended::UserWithoutLogin(owner, _) => {
                probe.answers.evict_all_of(owner);
            }
        }
    }

    async fn ask(
        &self,
        probe: &Probe,
        pools: &Pools,
        shown: Shown<'_>,
    ) -> Result<Principal, Rejection> {
        let ask = || probe.ask(pools, self, shown);
        // Boxed: this is the rare way, and its size would be the size of every exchange.
        let facts = Box::pin(self.confirm(probe, self.fingerprint(shown), ask)).await?;
        Ok(Principal {
            method: AuthMethod::Session,
            source: Arc::clone(&self.name),
            facts,
            beside: None,
        })
    }

    async fn confirm<F>(
        &self,
        probe: &Probe,
        session: Fingerprint,
        ask: impl Fn() -> F,
    ) -> Result<Arc<PrincipalFacts>, Rejection>
    where
        F: Future<Output = Result<Answer, NoWord>>,
    {
        match probe.answers.confirm(session, ask).await {
            Ok(confirmed) => Ok(Arc::clone(&confirmed.facts)),
            Err(NoWord::Bad(reason, detail)) => Err(refused(reason, detail)),
            Err(NoWord::Unavailable(why)) => Err(self.unavailable(&why)),
        }
    }

    fn unavailable(&self, why: &str) -> Rejection {
        Rejection::because(
            Reason::SessionUnavailable,
            format!("session `{}`: {why}", self.name),
        )
        .retry_after(Duration::from_secs(1))
        .policy(&self.name)
    }

    fn probe(&self) -> Option<&Probe> {
        match &self.proof {
            Proof::Probe(probe) => Some(probe),
            Proof::Token(..) | Proof::Introspection(_) => None,
        }
    }

    fn fingerprint(&self, shown: Shown<'_>) -> Fingerprint {
        let (place, value) = match shown {
            Shown::Cookie(value) => (&b"cookie"[..], value),
            Shown::Bearer(value) => (&b"bearer"[..], value),
        };
        fingerprint(&[self.name.as_bytes(), place, value.as_bytes()])
    }
}

impl Probe {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        path: PathAndQuery,
        timeout: Duration,
        cache: Duration,
        map: SessionMap,
    ) -> Self {
        Self {
            cluster,
            path,
            timeout,
            cache,
            map,
            answers: Answers::new(cache, BAD_FOR),
        }
    }

    /// Asks the backend. The credential is all that it is told of the request.
    async fn ask(
        &self,
        pools: &Pools,
        session: &Session,
        shown: Shown<'_>,
    ) -> Result<Answer, NoWord> {
        let request = self.request(&session.cookie, shown)?;
        let answer = pools
            .fetch(&self.cluster, request, self.timeout, MOST_ANSWER)
            .await
            .map_err(|why| NoWord::Unavailable(why.to_string()))?;
        self.read(&session.name, &answer)
    }

    fn request(&self, cookie: &str, shown: Shown<'_>) -> Result<Request<Bytes>, NoWord> {
        let odd = |_| NoWord::Unavailable("the credential cannot be sent".to_owned());
        let (name, value): (HeaderName, String) = match shown {
            Shown::Cookie(value) => (COOKIE, format!("{cookie}={value}")),
            Shown::Bearer(token) => (AUTHORIZATION, format!("Bearer {token}")),
        };
        let mut value = HeaderValue::from_str(&value).map_err(odd)?;
        value.set_sensitive(true);
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = Uri::from(self.path.clone());
        request.headers_mut().insert(name, value);
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static("application/json"));
        Ok(request)
    }

    fn read(&self, session: &Arc<str>, answer: &Response<Bytes>) -> Result<Answer, NoWord> {
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED if wants_another_factor(answer.body()) => {
                return Err(says_no(Reason::SessionStepUp));
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(says_no(Reason::SessionInvalid));
            }
            other => return Err(NoWord::Unavailable(format!("status {}", other.as_u16()))),
        }
        let claims = json::object(answer.body())
            .map_err(|why| NoWord::Unavailable(format!("the answer is {why}")))?;
        let mut facts = facts(&self.map, claims)
            .ok_or_else(|| NoWord::Unavailable(format!("the answer has no `{}`", self.map.user)))?;
        let owner = Owner {
            user: Some(user_fingerprint(&facts.user)),
            login: None,
        };
        let unknown = f64::NEG_INFINITY;
        facts.mark = Some(owner.mark(session, Fingerprint::default(), unknown, Duration::ZERO));
        Ok(Answer {
            owner,
            facts,
            length: answer.body().len(),
            lasts: self.cache,
        })
    }
}

fn says_no(reason: Reason) -> NoWord {
    NoWord::Bad(reason, Cow::Borrowed("the backend says so"))
}

fn facts(map: &SessionMap, claims: Map<String, Value>) -> Option<PrincipalFacts> {
    Some(PrincipalFacts {
        user: text_at(&claims, &map.user)?,
        org: text_at(&claims, &map.org),
        email: text_at(&claims, &map.email),
        roles: words(claim_at(&claims, &map.roles)),
        scopes: scopes(claim_at(&claims, &map.scopes)),
        expires_at: None,
        claims,
        mark: None,
        kept: crate::types::memo::Kept::default(),
    })
}

/// IdentSphere's envelope: `{"error":{"code":"mfa_required",…}}`.
fn wants_another_factor(body: &[u8]) -> bool {
    json::object(body).is_ok_and(|answer| {
        claim_at(&answer, "error.code").is_some_and(|code| code == "mfa_required")
    })
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("name", &self.name)
            .field("cookie", &self.cookie)
            .finish_non_exhaustive()
    }
}
