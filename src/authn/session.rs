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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::tests::support::{authn, authorities, identify};
    use serde_json::json;
    use std::sync::atomic::AtomicUsize;

    const TOML: &str = "[session.web]\ncookie = \"at\"\nprobe = { upstream = \"api\", path = \"/v1/auth/session\" }\n";

    fn session(more: &str) -> Arc<Session> {
        let toml = TOML.replace("cookie", &format!("{more}\ncookie"));
        Arc::clone(&authorities(&toml).sessions["web"])
    }

    fn probe(session: &Session) -> &Probe {
        match &session.proof {
            Proof::Probe(probe) => probe,
            Proof::Token(_) => panic!("a token"),
        }
    }

    fn answer(status: u16, body: &str) -> Response<Bytes> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Response::builder().status(status).body(body).unwrap()
    }

    fn good() -> Response<Bytes> {
        let body = json!({
            "user": { "user_id": "u1", "organization_id": 7, "email": "a@example.com" },
            "capabilities": { "role": "owner", "permissions": ["billing.read", "billing.write"] },
        });
        answer(200, &body.to_string())
    }

    /// Shows the cookie `x`; the backend answers with `answer`, counted in `asked`.
    async fn confirm(
        session: &Session,
        asked: &AtomicUsize,
        answer: Response<Bytes>,
    ) -> Result<Arc<PrincipalFacts>, Rejection> {
        let probe = probe(session);
        let ask = async {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            probe.settle(&answer, probe.evictions.load(Ordering::Relaxed))
        };
        session.confirm(probe, session.fingerprint("x"), ask).await
    }

    #[test]
    fn the_probe_tells_the_backend_the_cookie_and_nothing_else() {
        let session = session("");
        let request = probe(&session).request("at", "x.y").ok().unwrap();
        assert_eq!(
            (
                request.method().as_str(),
                request.uri().to_string().as_str()
            ),
            ("GET", "/v1/auth/session")
        );
        assert_eq!(request.headers().len(), 2);
        assert_eq!(request.headers()["cookie"], "at=x.y");
        assert!(request.headers()["cookie"].is_sensitive());
    }

    #[tokio::test]
    async fn a_good_session_is_mapped_and_believed_for_a_while() {
        let (session, asked) = (session(""), AtomicUsize::new(0));
        let facts = confirm(&session, &asked, good()).await.unwrap();
        assert_eq!(
            (facts.user.as_str(), facts.org.as_deref()),
            ("u1", Some("7"))
        );
        assert_eq!(facts.roles, ["owner"]);
        assert_eq!(facts.scopes, ["billing.read", "billing.write"]);
        assert!(
            confirm(&session, &asked, answer(500, "")).await.is_ok(),
            "from the cache"
        );
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn many_requests_at_once_ask_once() {
        let (session, asked) = (session(""), AtomicUsize::new(0));
        let (one, two, three) = tokio::join!(
            confirm(&session, &asked, good()),
            confirm(&session, &asked, good()),
            confirm(&session, &asked, good()),
        );
        assert!(one.is_ok() && two.is_ok() && three.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn the_backends_answers_are_told_apart() {
        let step_up = r#"{"error":{"code":"mfa_required","message":"m","type":"t"}}"#;
        for (status, body, expected) in [
            (401, "", Reason::SessionInvalid),
            (
                401,
                r#"{"error":{"code":"authentication_required"}}"#,
                Reason::SessionInvalid,
            ),
            (401, step_up, Reason::SessionStepUp),
            (403, step_up, Reason::SessionInvalid),
            (200, "", Reason::SessionUnavailable),
            (200, "<html>", Reason::SessionUnavailable),
            (200, "{}", Reason::SessionUnavailable),
            (
                200,
                r#"{"user":{"user_id":""}}"#,
                Reason::SessionUnavailable,
            ),
            (204, "", Reason::SessionUnavailable),
            (302, "", Reason::SessionUnavailable),
            (404, "", Reason::SessionUnavailable),
            (429, "", Reason::SessionUnavailable),
            (500, "", Reason::SessionUnavailable),
        ] {
            let (session, asked) = (session(""), AtomicUsize::new(0));
            let why = confirm(&session, &asked, answer(status, body))
                .await
                .unwrap_err();
            assert_eq!(why.reason(), expected, "{status} {body}");
            let is_open = expected == Reason::SessionUnavailable;
            assert_eq!(why.wait().is_some(), is_open, "{status} {body}");
            // A refusal is believed for a moment; a failure is never kept.
            let again = confirm(&session, &asked, good()).await;
            assert_eq!(again.is_ok(), is_open, "{status} {body}");
        }
    }

    #[tokio::test]
    async fn a_backend_that_cannot_be_asked_is_503_and_never_anonymous() {
        let authorities = authorities(TOML);
        let route = authn("{ any = [\"web\"], optional = true }", &authorities);
        let verdict = identify(&route, "cookie", "at=x", SystemTime::UNIX_EPOCH).await;
        assert_eq!(verdict.map(drop), Err(Reason::SessionUnavailable));
    }

    #[tokio::test]
    async fn a_logout_is_seen_at_once() {
        let (session, asked) = (session(""), AtomicUsize::new(0));
        confirm(&session, &asked, good()).await.unwrap();
        session.evict("x").await;
        let why = confirm(&session, &asked, answer(401, ""))
            .await
            .unwrap_err();
        assert_eq!(why.reason(), Reason::SessionInvalid);
    }

    #[tokio::test]
    async fn a_probe_that_a_logout_overtakes_is_not_kept() {
        let (session, asked) = (session(""), AtomicUsize::new(0));
        let probe = probe(&session);
        let ask = async {
            let before = probe.evictions.load(Ordering::Relaxed);
            session.evict("x").await;
            probe.settle(&good(), before)
        };
        let overtaken = session.confirm(probe, session.fingerprint("x"), ask).await;
        assert!(overtaken.is_ok(), "it was good when it was asked for");
        assert!(
            confirm(&session, &asked, answer(401, "")).await.is_err(),
            "and is asked for anew"
        );
    }

    #[tokio::test]
    async fn without_a_cache_every_request_asks() {
        let (session, asked) = (session("cache = \"0s\""), AtomicUsize::new(0));
        for _ in 0..3 {
            confirm(&session, &asked, good()).await.unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }
}
