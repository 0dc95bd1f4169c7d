//! What a route demands of a request and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http::{Method, StatusCode};

use super::Listener;
use crate::authn::{Authn, Logout, Revokes};
use crate::authz;
use crate::client_ip::Client;
use crate::config::EncodedSlash;
use crate::cors::{Cors, Csrf, Site};
use crate::limit::{Charges, KeyInputs, Limit, Limits, PeekPlan};
use crate::route::Head;
use crate::telemetry::metrics::{AuthMetrics, RouteMetrics, TunnelMetrics, UpstreamMetrics};
use crate::transform::Plan;
use crate::types::body::Bounds;
use crate::types::{
    Body, Dialect, Envelope, Principal, Reason, Rejection, Request, Response, Scheme, clock,
};
use crate::upstream::{Asked, Cluster, Upgrades};

/// A route, compiled.
#[derive(Debug)]
pub struct Policy {
    /// Its name, for labels and logs.
    pub name: Arc<str>,
    /// Which credentials it accepts.
    pub authn: Authn,
    /// Which callers it accepts.
    pub authz: authz::Rules,
    /// Cross-origin rules; absent: the backend's own stand.
    pub cors: Option<Cors>,
    /// The guard against requests of other sites; absent: off.
    pub csrf: Option<Csrf>,
    /// What happens to the request and the response on their way.
    pub transform: Plan,
    /// Where the request goes.
    pub action: Action,
    /// What a good answer ends.
    pub revokes: Option<Revokes>,
    /// Other protocols that a request may switch to; absent: none.
    pub upgrades: Option<Upgrades>,
    /// Metrics of what they become.
    pub tunnel_metrics: Option<Arc<TunnelMetrics>>,
    /// Whether streams end with the credential that opened them.
    pub binds_streams: bool,
    /// How often a credential that does not say when it ends is asked about meanwhile.
    pub stream_recheck: Duration,
    /// Longest wait for the first byte of the response.
    pub timeout: Duration,
    /// What refusals look like; absent: as the listener says.
    pub errors: Option<Envelope>,
    /// What its limits want to know of the body.
    pub peek: Option<PeekPlan>,
    /// The largest request body that is taken in whole before it is sent; 0: none is.
    pub(super) buffer: u64,
    pub(super) early_limits: Limits,
    pub(super) body_limits: Limits,
    pub(super) late_limits: Limits,
    pub(super) max_body: u64,
    pub(super) encoded_slash: EncodedSlash,
    pub(super) closed: bool,
    pub(super) auth_metrics: AuthCounters,
    pub(super) upstream_metrics: Option<Arc<UpstreamMetrics>>,
    /// By listener.
    pub(super) metrics: Box<[Arc<RouteMetrics>]>,
}

/// What the issuers and sessions of a route count into.
#[derive(Debug)]
pub(super) struct AuthCounters {
    /// Counts the refusals of all.
    first: Option<Arc<AuthMetrics>>,
    /// In the order of their names: a route may name very many.
    by_name: Box<[(Arc<str>, Arc<AuthMetrics>)]>,
}

impl AuthCounters {
    pub(super) fn new(mut named: Vec<(Arc<str>, Arc<AuthMetrics>)>) -> Self {
        let first = named.first().map(|(_, metrics)| Arc::clone(metrics));
        named.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self {
            first,
            by_name: named.into(),
        }
    }

    fn of(&self, source: &str) -> Option<&AuthMetrics> {
        let found = self
            .by_name
            .binary_search_by(|(name, _)| (**name).cmp(source));
        Some(&self.by_name.get(found.ok()?)?.1)
    }
}

/// Where a request goes.
#[derive(Debug)]
pub enum Action {
    /// To a cluster.
    Forward(Arc<Cluster>),
    /// Nowhere: this is the answer.
    Answer(Answer),
    /// Nowhere: it tells who has logged out.
    Logout(Logout),
}

/// An answer that the gateway gives itself.
#[derive(Debug)]
pub struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Policy {
    /// Whether the route is closed, whoever asks.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The name of the cluster behind the route.
    #[must_use]
    pub fn upstream_name(&self) -> Option<&str> {
        match &self.action {
            Action::Forward(cluster) => Some(cluster.name()),
            Action::Answer(_) | Action::Logout(_) => None,
        }
    }

    /// The route's metrics on a listener.
    #[must_use]
    pub fn metrics(&self, listener: usize) -> Option<&Arc<RouteMetrics>> {
        self.metrics.get(listener)
    }

    /// Refuses an encoded slash unless the route keeps them, and everything on a closed route.
    ///
    /// # Errors
    /// `RouteClosed`, `BadTarget`.
    pub fn check_head(&self, head: &Head) -> Result<(), Rejection> {
        if self.closed {
            return Err(Rejection::new(Reason::RouteClosed));
        }
        if head.has_encoded_slash() && self.encoded_slash == EncodedSlash::Refuse {
            return Err(Rejection::because(
                Reason::BadTarget,
                "an encoded slash in the path",
            ));
        }
        Ok(())
    }

    /// Whether the protocol that was asked for is one of the route's.
    #[must_use]
    pub fn may_switch(&self, asked: Option<&Asked>) -> bool {
        let (Some(upgrades), Some(asked)) = (&self.upgrades, asked) else {
            return false;
        };
        upgrades.list(asked)
    }

    /// Refuses a body that announces itself as too large, before anybody is asked who sends it.
    ///
    /// # Errors
    /// `BodyTooLarge`.
    pub fn check_announced_body(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        if announced(headers).is_some_and(|length| length > self.max_body) {
            return Err(Rejection::new(Reason::BodyTooLarge));
        }
        Ok(())
    }

    /// How many bytes of body to take in before the request is sent. Only a body that says how long it is is sure to end
    /// before its answer begins: the streams of gRPC wait for each other.
    #[must_use]
    pub fn holds(&self, request: &Request, dialect: Dialect) -> Option<usize> {
        if self.buffer == 0 || request.body().is_empty() || dialect == Dialect::Grpc {
            return None;
        }
        let length = announced(request.headers()).filter(|length| *length <= self.buffer);
        length.and_then(|length| usize::try_from(length).ok())
    }

    /// The limits of the route.
    pub fn limits(&self) -> impl Iterator<Item = &Arc<Limit>> {
        let early = self.early_limits.iter().chain(self.body_limits.iter());
        early.chain(self.late_limits.iter())
    }

    /// Refuses what a page of another site made the browser of a session's user send.
    ///
    /// # Errors
    /// `CsrfRefused`.
    pub fn check_csrf(
        &self,
        principal: &Principal,
        client: &Client,
        head: &Head,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<(), Rejection> {
        let Some(csrf) = &self.csrf else {
            return Ok(());
        };
        if !self.authn.is_by_cookie(principal, headers) {
            return Ok(());
        }
        let site = Site {
            scheme: client.scheme,
            // A host is ASCII; nobody has the empty one for an origin.
            authority: head.authority().to_str().unwrap_or_default(),
        };
        csrf.check(method, headers, site)
    }

    /// Limits on what the head says. A refusal states a wait that those of the listener honour too.
    ///
    /// # Errors
    /// `RateLimited`, `ConcurrencyLimited`.
    pub async fn check_early_limits(
        &self,
        listener: &Listener,
        inputs: KeyInputs<'_>,
        charges: &mut Charges,
    ) -> Result<(), Rejection> {
        let inputs = self.routed(inputs);
        let checked = self.early_limits.check(&inputs, charges).await;
        checked.map_err(|why| listener.limits.prolong(why, &inputs.before_routing()))
    }

    /// Limits on what the body says.
    ///
    /// # Errors
    /// `RateLimited`, `ConcurrencyLimited`.
    pub async fn check_body_limits(
        &self,
        listener: &Listener,
        inputs: KeyInputs<'_>,
        charges: &mut Charges,
    ) -> Result<(), Rejection> {
        let inputs = self.routed(inputs);
        let checked = self.body_limits.check(&inputs, charges).await;
        checked.map_err(|why| {
            let why = self.early_limits.prolong(why, &inputs);
            listener.limits.prolong(why, &inputs.before_routing())
        })
    }

    /// Limits on who the caller is.
    ///
    /// # Errors
    /// `RateLimited`, `ConcurrencyLimited`.
    pub async fn check_late_limits(
        &self,
        listener: &Listener,
        inputs: KeyInputs<'_>,
        principal: &Principal,
        charges: &mut Charges,
    ) -> Result<(), Rejection> {
        let inputs = KeyInputs {
            principal: Some(principal),
            ..self.routed(inputs)
        };
        let checked = self.late_limits.check(&inputs, charges).await;
        checked.map_err(|why| {
            let why = self.early_limits.prolong(why, &inputs);
            let why = self.body_limits.prolong(why, &inputs);
            listener.limits.prolong(why, &inputs.before_routing())
        })
    }

    fn routed<'a>(&'a self, inputs: KeyInputs<'a>) -> KeyInputs<'a> {
        KeyInputs {
            route: &self.name,
            ..inputs
        }
    }

    /// The metrics of the cluster behind the route.
    #[must_use]
    pub fn upstream_metrics(&self) -> Option<&UpstreamMetrics> {
        self.upstream_metrics.as_deref()
    }

    /// Counts what authentication said; routes that ask for no credential decide nothing. A refusal cannot be laid at
    /// the door of one source where several are named: the first stands for all.
    pub fn count_decision(&self, id: &HeaderValue, decision: Result<&Principal, &Rejection>) {
        match decision {
            Ok(principal) => {
                if let Some(metrics) = self.auth_metrics.of(&principal.source) {
                    metrics.accepted();
                }
            }
            Err(why) => {
                if let Some(metrics) = &self.auth_metrics.first {
                    metrics.refused(why.reason(), id, clock::wall());
                }
            }
        }
    }

    /// Bounds of a request body on this route and listener.
    #[must_use]
    pub fn bounds(&self, listener: &Listener) -> Bounds {
        Bounds {
            max_bytes: self.max_body,
            idle: listener.body_patience.0,
            min_rate: listener.body_patience.1,
            grace: BODY_GRACE,
        }
    }

    /// Makes the route's edits on an answer; on every one, refusals included.
    pub fn edit(&self, response: &mut Response, scheme: Scheme, dialect: Dialect) {
        self.transform
            .dress(response.headers_mut(), scheme, dialect);
    }

    /// Says on an answer, refusals included, which origins may read it. Not on a preflight's, which has its own words.
    pub fn dress(&self, origin: Option<&HeaderValue>, response: &mut Response) {
        if let Some(cors) = &self.cors {
            cors.dress(origin, response.headers_mut());
        }
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

impl Answer {
    /// The answer, once more.
    #[must_use]
    pub fn respond(&self) -> Response {
        let mut response = Response::new(Body::full(self.body.clone()));
        *response.status_mut() = self.status;
        response.headers_mut().clone_from(&self.headers);
        response
    }

    pub(super) fn redirect(to: HeaderValue, status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::from_iter([(LOCATION, to)]),
            body: Bytes::new(),
        }
    }

    pub(super) fn key_set(body: Bytes) -> Self {
        let fields = [
            (CONTENT_TYPE, "application/jwk-set+json"),
            // Upstreams learn a new key soon; one that is unknown to them makes them ask earlier.
            (CACHE_CONTROL, "public, max-age=300"),
        ];
        let fields = fields.map(|(name, value)| (name, HeaderValue::from_static(value)));
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter(fields),
            body,
        }
    }

    pub(super) fn text(status: StatusCode, content_type: HeaderValue, body: String) -> Self {
        Self {
            status,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, content_type)]),
            body: Bytes::from(body),
        }
    }
}

pub(super) fn moved_to(location: HeaderValue, status: StatusCode) -> Response {
    Answer::redirect(location, status).respond()
}

/// How long a slow body is tolerated before its average rate counts.
const BODY_GRACE: Duration = Duration::from_secs(10);
