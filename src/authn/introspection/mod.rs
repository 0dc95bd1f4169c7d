//! Asks an issuer what a token stands for (RFC 7662), for tokens that do not say so themselves.
//!
//! The answer is believed for a while, and asked for once however many requests wait for it. An issuer that cannot be
//! asked is no reason to call a token bad: that is 503, never 401 and never anonymous.

mod client;
mod compile;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderName, Method, Request, Response, StatusCode, Uri};
use serde_json::{Map, Value};

use super::answers::{Answer, Answers, Confirmed, NoWord, Owner};
use super::cache::{Fingerprint, fingerprint};
use super::jwt::{Mapping, Terms, Window, json};
use crate::types::{Reason, Rejection, clock};
use crate::upstream::{Cluster, FetchErrorKind, Pools};
use client::Client;

/// The introspection endpoint of one issuer.
pub(super) struct Introspection {
    /// The endpoint's address, with connections like any upstream's.
    pub(super) cluster: Arc<Cluster>,
    /// Whether JWTs are asked about too.
    pub(super) takes_all: bool,
    url: String,
    path: PathAndQuery,
    host: HeaderValue,
    /// Under which scheme the issuer's public name is reached, where an internal address stands for it.
    scheme: Option<(HeaderName, HeaderValue)>,
    client: Client,
    /// Of the client's secret or key: a reload that finds another one makes another client.
    secret: Fingerprint,
    timeout: Duration,
    cache: Duration,
    pub(super) answers: Answers,
}

/// What the issuer's tokens must say.
#[derive(Clone, Copy)]
pub(super) struct Judge<'j> {
    /// The issuer's name in the configuration.
    pub(super) name: &'j Arc<str>,
    /// The exact `iss`.
    pub(super) issuer: &'j str,
    pub(super) terms: &'j Terms,
    pub(super) mapping: &'j Mapping,
    pub(super) wall: SystemTime,
}

/// Largest answer.
const MOST_ANSWER: usize = 64 * 1024;

/// How long a token that is not active stays so. A token may be asked about before its issuer's replicas know it.
const INACTIVE_FOR: Duration = Duration::from_secs(2);

impl Introspection {
    /// Who the caller is, by the token.
    pub(super) async fn confirm(
        &self,
        pools: &Pools,
        token: &str,
        judge: Judge<'_>,
    ) -> Result<Arc<Confirmed>, NoWord> {
        let ask = || async {
            let answer = self.ask(pools, token, judge.wall).await?;
            self.read(&answer, judge)
        };
        let print = self.fingerprint(token);
        let confirmed = self.answers.confirm(print, ask).await?;
        // An answer is kept by a clock that is never set; the token ends by the one that tells the time.
        if confirmed.facts.has_ended(judge.wall, judge.terms.leeway) {
            self.answers.evict_one(&print).await;
            let detail = Cow::Borrowed("`exp` has passed");
            return Err(NoWord::Bad(Reason::TokenExpired, detail));
        }
        Ok(confirmed)
    }

    /// The name of a token in the cache. The endpoint and the client are part of it: another one may answer otherwise.
    pub(super) fn fingerprint(&self, token: &str) -> Fingerprint {
        fingerprint(&[
            b"introspection",
            self.url.as_bytes(),
            self.client.id().as_bytes(),
            token.as_bytes(),
        ])
    }

    /// Whether both ask in the same way, where their configuration is the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.secret == other.secret && Arc::ptr_eq(&self.cluster, &other.cluster)
    }

    /// How long an answer is believed at most.
    pub(super) fn cache(&self) -> Duration {
        self.cache
    }

    /// Asking changes nothing at the issuer, so a connection that ended under the question is no answer: a second one
    /// is tried.
    async fn ask(
        &self,
        pools: &Pools,
        token: &str,
        wall: SystemTime,
    ) -> Result<Response<Bytes>, NoWord> {
        let until = clock::now() + self.timeout;
        let first = self.ask_once(pools, token, wall, self.timeout).await?;
        let answer = match first {
            Err(why) if why.kind == FetchErrorKind::Connect => {
                let left = until.saturating_duration_since(clock::now());
                self.ask_once(pools, token, wall, left).await?
            }
            first => first,
        };
        answer.map_err(|why| NoWord::Unavailable(why.to_string()))
    }

    async fn ask_once(
        &self,
        pools: &Pools,
        token: &str,
        wall: SystemTime,
        timeout: Duration,
    ) -> Result<Result<Response<Bytes>, crate::upstream::FetchError>, NoWord> {
        let request = self.request(token, wall)?;
        Ok(pools
            .fetch(&self.cluster, request, timeout, MOST_ANSWER)
            .await)
    }

    fn request(&self, token: &str, wall: SystemTime) -> Result<Request<Bytes>, NoWord> {
        let mut form = format!(
            "token={}&token_type_hint=access_token",
            client::encoded(token)
        );
        let authorization = self
            .client
            .authenticate(&mut form, wall)
            .map_err(NoWord::Unavailable)?;
        let mut request = Request::new(Bytes::from(form));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(self.path.clone());
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.extend(self.scheme.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form);
        headers.extend(authorization.map(|value| (http::header::AUTHORIZATION, value)));
        Ok(request)
    }

    fn read(&self, answer: &Response<Bytes>, judge: Judge<'_>) -> Result<Answer, NoWord> {
        match answer.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(NoWord::Unavailable(format!(
                    "status {}: the gateway's own credentials are refused",
                    status.as_u16()
                )));
            }
            other => return Err(NoWord::Unavailable(format!("status {}", other.as_u16()))),
        }
        let claims = json::object(answer.body())
            .map_err(|why| NoWord::Unavailable(format!("the answer is {why}")))?;
        match claims.get("active") {
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => {
                return Err(NoWord::Bad(
                    Reason::TokenInactive,
                    Cow::Borrowed("the issuer says so"),
                ));
            }
            _ => {
                let why = "the answer does not say whether the token is active";
                return Err(NoWord::Unavailable(why.to_owned()));
            }
        }
        let window = judge.check(&claims).map_err(|why| no(&why))?;
        let left = window.left(judge.wall);
        let owner = Owner::of(&claims);
        let mut facts = judge.mapping.facts(claims, window.expires_at());
        let leeway = judge.terms.leeway;
        facts.mark = Some(owner.mark(judge.name, Fingerprint::default(), window.issued(), leeway));
        Ok(Answer {
            owner,
            facts,
            length: answer.body().len(),
            lasts: left.map_or(self.cache, |left| left.min(self.cache)),
        })
    }
}

impl Judge<'_> {
    /// Holds what the answer says against what the issuer's tokens must say. What it does not say is the issuer's word.
    fn check(&self, claims: &Map<String, Value>) -> Result<Window, Rejection> {
        let issuer = claims.get("iss").filter(|issuer| !issuer.is_null());
        if issuer.is_some_and(|issuer| issuer != self.issuer) {
            return Err(super::refused(
                Reason::TokenIssuer,
                "the token is of another issuer",
            ));
        }
        let window = Window::of_answer(claims)?;
        window.check(self.wall, self.terms.leeway)?;
        self.terms.check_answer(claims)?;
        Ok(window)
    }
}

fn no(why: &Rejection) -> NoWord {
    NoWord::Bad(why.reason(), Cow::Owned(why.detail().to_owned()))
}

impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspection")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
