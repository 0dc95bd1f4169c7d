//! A login that lives in a cookie: a token that an issuer signed, or a handle that the backend confirms.
//!
//! The backend's word is believed for a few seconds, and asked for once however many requests wait for it. A backend
//! that cannot be asked is no reason to call a session bad: that is 503, never 401 and never anonymous.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, COOKIE, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use serde_json::{Map, Value};

use super::cache::{Fingerprint, fingerprint, weight};
use super::issuer::Issuer;
use super::jwt::facts::{scopes, text_at, words};
use super::jwt::json;
use super::refused;
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
    /// The cookie holds a token of this issuer.
    Token(Arc<Issuer>),
    /// The backend is asked.
    Probe(Box<Probe>),
}

/// A request that asks the backend whether a session is good, and what came of it lately.
pub(super) struct Probe {
    pub(super) cluster: Arc<Cluster>,
    path: PathAndQuery,
    timeout: Duration,
    map: SessionMap,
    good: moka::future::Cache<Fingerprint, Arc<Confirmed>, foldhash::fast::RandomState>,
    bad: moka::sync::Cache<Fingerprint, Reason, foldhash::fast::RandomState>,
    evictions: AtomicU64,
}

struct Confirmed {
    facts: Arc<PrincipalFacts>,
    length: usize,
}

/// What a probe came to when nothing may be kept of it.
enum Unkept {
    /// The session is good; but some session was evicted meanwhile, and it may have been this one.
    Good(Arc<Confirmed>),
    /// The backend says no.
    Bad(Reason),
    /// The backend said nothing that could be understood.
    Unavailable(String),
}

/// Largest answer of a probe.
const MOST_ANSWER: usize = 64 * 1024;

/// Most memory for confirmed sessions, in bytes by estimate.
const MOST_BYTES: u64 = 32 * 1024 * 1024;

/// How long a refusal is believed, and how many are remembered.
const BAD_FOR: Duration = Duration::from_secs(1);
const MOST_BAD: u64 = 4_096;

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

    /// Forgets what is known of the session in this cookie. Called when a logout passes by, before its answer leaves:
    /// no later request is let in by what was known earlier, nor by a probe that was under way.
    pub async fn evict(&self, cookie_value: &str) {
        match &self.proof {
            Proof::Token(issuer) => issuer.evict(cookie_value),
            Proof::Probe(probe) => {
                let session = self.fingerprint(cookie_value);
                probe.evictions.fetch_add(1, Ordering::AcqRel);
                probe.good.invalidate(&session).await;
                probe.bad.invalidate(&session);
            }
        }
    }

    /// Who the caller is, by the value of the session cookie.
    pub(super) async fn identify(
        &self,
        pools: &Pools,
        value: &str,
        wall: SystemTime,
    ) -> Result<Principal, Rejection> {
        match &self.proof {
            Proof::Token(issuer) => {
                let token = super::identify_token(std::slice::from_ref(issuer), value, wall);
                let principal = token.await?;
                Ok(Principal {
                    source: Arc::clone(&self.name),
                    ..principal
                })
            }
            Proof::Probe(probe) => {
                let session = self.fingerprint(value);
                let asked = probe.ask(pools, &self.cookie, value);
                // Boxed: this is the rare way, and its size would be the size of every exchange.
                let facts = Box::pin(self.confirm(probe, session, asked)).await?;
                Ok(Principal {
                    method: AuthMethod::Session,
                    source: Arc::clone(&self.name),
                    facts,
                })
            }
        }
    }

    /// What is known of the session, or else what `asked` comes to; asked once, however many wait for it.
    async fn confirm(
        &self,
        probe: &Probe,
        session: Fingerprint,
        asked: impl Future<Output = Result<Arc<Confirmed>, Unkept>>,
    ) -> Result<Arc<PrincipalFacts>, Rejection> {
        if let Some(confirmed) = probe.good.get(&session).await {
            return Ok(Arc::clone(&confirmed.facts));
        }
        if let Some(reason) = probe.bad.get(&session) {
            return Err(refused(reason, "the backend said so a moment ago"));
        }
        let evictions = probe.evictions.load(Ordering::Acquire);
        match probe.good.try_get_with(session, asked).await {
            Ok(confirmed) => {
                // An eviction between the answer and its keeping found nothing to evict.
                if probe.evictions.load(Ordering::Acquire) != evictions {
                    probe.good.invalidate(&session).await;
                }
                Ok(Arc::clone(&confirmed.facts))
            }
            Err(unkept) => match &*unkept {
                Unkept::Good(confirmed) => Ok(Arc::clone(&confirmed.facts)),
                Unkept::Bad(reason) => {
                    probe.bad.insert(session, *reason);
                    Err(refused(*reason, "the backend says so"))
                }
                Unkept::Unavailable(why) => Err(self.unavailable(why)),
            },
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

    fn fingerprint(&self, value: &str) -> Fingerprint {
        fingerprint(&[self.name.as_bytes(), value.as_bytes()])
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
        let good = moka::future::Cache::builder()
            .max_capacity(MOST_BYTES)
            .weigher(|_, confirmed: &Arc<Confirmed>| weight(confirmed.length))
            .time_to_live(cache)
            .build_with_hasher(foldhash::fast::RandomState::default());
        let bad = moka::sync::Cache::builder()
            .max_capacity(MOST_BAD)
            .time_to_live(BAD_FOR.min(cache))
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self {
            cluster,
            path,
            timeout,
            map,
            good,
            bad,
            evictions: AtomicU64::new(0),
        }
    }

    /// Asks the backend. The cookie is all that it is told of the request.
    async fn ask(
        &self,
        pools: &Pools,
        cookie: &str,
        value: &str,
    ) -> Result<Arc<Confirmed>, Unkept> {
        let evictions = self.evictions.load(Ordering::Acquire);
        let request = self.request(cookie, value)?;
        let answer = pools
            .fetch(&self.cluster, request, self.timeout, MOST_ANSWER)
            .await
            .map_err(|why| Unkept::Unavailable(why.to_string()))?;
        self.settle(&answer, evictions)
    }

    /// Takes the answer to a question that was asked after so many evictions.
    fn settle(&self, answer: &Response<Bytes>, evictions: u64) -> Result<Arc<Confirmed>, Unkept> {
        let confirmed = Arc::new(self.read(answer)?);
        if self.evictions.load(Ordering::Acquire) == evictions {
            Ok(confirmed)
        } else {
            Err(Unkept::Good(confirmed))
        }
    }

    fn request(&self, cookie: &str, value: &str) -> Result<Request<Bytes>, Unkept> {
        let odd = |_| Unkept::Unavailable("the cookie cannot be sent".to_owned());
        let mut pair = HeaderValue::from_str(&format!("{cookie}={value}")).map_err(odd)?;
        pair.set_sensitive(true);
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = Uri::from(self.path.clone());
        request.headers_mut().insert(COOKIE, pair);
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static("application/json"));
        Ok(request)
    }

    fn read(&self, answer: &Response<Bytes>) -> Result<Confirmed, Unkept> {
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED if wants_another_factor(answer.body()) => {
                return Err(Unkept::Bad(Reason::SessionStepUp));
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Unkept::Bad(Reason::SessionInvalid));
            }
            other => return Err(Unkept::Unavailable(format!("status {}", other.as_u16()))),
        }
        let claims = json::object(answer.body())
            .map_err(|why| Unkept::Unavailable(format!("the answer is {why}")))?;
        let facts = facts(&self.map, claims)
            .ok_or_else(|| Unkept::Unavailable(format!("the answer has no `{}`", self.map.user)))?;
        Ok(Confirmed {
            facts: Arc::new(facts),
            length: answer.body().len(),
        })
    }
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
