//! The ledger of one request and its response. It opens before the first decision and closes at the last byte of the
//! answer, or when the client lets go; closing counts the metrics and writes the access log, once.
//!
//! `ledger` is the body that it rides on, `passage` the tunnel that it may become; `leash` ends either with the caller's
//! credential.

mod leash;
mod ledger;
mod passage;
mod request_id;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, ORIGIN, USER_AGENT,
};
use http::{Method, StatusCode};
use http_body::Body as _;

use crate::client_ip::Client;
use crate::limit::{self, Charges};
use crate::route::Head;
use crate::snapshot::{Policy, Snapshot, Vigils};
use crate::telemetry::metrics::RouteMetrics;
use crate::telemetry::{AccessLog, Decision, Decisions, Metrics, Outcome, Record};
use crate::transform::Closing;
use crate::types::body::{Body, Fate, InFlight};
use crate::types::drain::Drain;
use crate::types::expiry::LastWords;
use crate::types::{
    ConnFacts, Dialect, Envelope, Principal, Protocol, Reason, Rejection, Request, Response,
    Scheme, clock,
};
use crate::upstream::{self, Pools, Tunnel};
use leash::Leash;
use passage::Next;

pub use ledger::Ledger;
pub use request_id::RequestIds;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What gRPC clients make of an answer without a status.
const GRPC_UNKNOWN: u32 = 2;

/// What an exchange reports to when it closes.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub access_log: AccessLog,
    /// The last refusals.
    pub decisions: Arc<Decisions>,
    /// Who waits for credentials to end.
    pub vigils: Arc<Vigils>,
    /// The connections of the worker, for asking about credentials while streams last.
    pub pools: Pools,
}

/// One request on its way, with everything that its log line will say.
#[derive(Debug)]
pub struct Exchange {
    desk: Arc<Desk>,
    conn: Arc<ConnFacts>,
    id: HeaderValue,
    dialect: Dialect,
    errors: Envelope,
    method: Method,
    started: Instant,
    head: Option<Head>,
    client: Option<Client>,
    /// Kept apart from the head of the request, which moves on: what CORS and the log need of it.
    origin: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    metrics: Arc<RouteMetrics>,
    policy: Option<Arc<Policy>>,
    principal: Option<Principal>,
    /// Whether the request came with a body, read or not.
    has_body: bool,
    fate: Option<Arc<Fate>>,
    charges: Charges,
    /// Where a limit waits for a status that stands in the body of the answer.
    closing: Option<Box<Closing>>,
    refusal: Option<Rejection>,
    /// The answer to a preflight says all there is to say about origins.
    preflight: bool,
    forwarded: Option<upstream::Facts>,
    /// The endpoint and the tries of a forward that failed.
    failed: Option<(Option<Arc<str>>, u32)>,
    /// Whether an HTTP/1.1 connection ends with the answer, whatever else.
    closes: bool,
    /// What the exchange goes on as, once the client has the answer.
    tunnel: Option<Box<Next>>,
    /// What ends it with the caller's credential, where something does.
    leash: Option<Leash>,
    is_tunnel: bool,
    /// How it ended, where that is more than the end of an answer.
    ended: Option<&'static str>,
    /// Bytes from the client that are no request body.
    bytes_in: u64,
    status: StatusCode,
    grpc_status: Option<u32>,
    bytes_out: u64,
    /// Held for the whole exchange: counts it as in flight in the process.
    _in_flight: Option<InFlight>,
}

impl Exchange {
    /// Opens the ledger of `request`, which arrived on `conn` and is known as `id`.
    pub fn open(
        desk: &Arc<Desk>,
        conn: Arc<ConnFacts>,
        snapshot: &Snapshot,
        id: HeaderValue,
        request: &Request,
    ) -> Self {
        let headers = request.headers();
        Self {
            desk: Arc::clone(desk),
            id,
            dialect: dialect_of(request),
            errors: snapshot.errors(conn.listener),
            method: request.method().clone(),
            started: clock::now(),
            head: None,
            client: None,
            origin: headers.get(ORIGIN).cloned(),
            user_agent: if desk.access_log.is_on() {
                headers.get(USER_AGENT).cloned()
            } else {
                None
            },
            metrics: Arc::clone(snapshot.unrouted_metrics(conn.listener)),
            policy: None,
            principal: None,
            has_body: !request.body().is_empty(),
            fate: None,
            charges: Charges::default(),
            closing: None,
            refusal: None,
            preflight: false,
            forwarded: None,
            failed: None,
            closes: false,
            tunnel: None,
            leash: None,
            is_tunnel: false,
            ended: None,
            bytes_in: 0,
            status: StatusCode::OK,
            grpc_status: None,
            bytes_out: 0,
            _in_flight: None,
            conn,
        }
    }

    /// The id under which the client, the upstream and the log know this exchange.
    #[must_use]
    pub fn id(&self) -> &HeaderValue {
        &self.id
    }

    /// When the request had arrived.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The connection.
    #[must_use]
    pub fn conn(&self) -> &ConnFacts {
        &self.conn
    }

    /// How the client came, as far as is known: a trusted proxy may have ended its TLS.
    fn scheme(&self) -> Scheme {
        (self.client.as_ref()).map_or(self.conn.scheme, |client| client.scheme)
    }

    /// How the caller spells things.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What only the log asks for is not kept without one.
    fn is_logged(&self) -> bool {
        self.desk.access_log.is_on()
    }

    /// Notes that the exchange counts as in flight until it closes.
    pub fn count(&mut self, permit: InFlight) {
        self._in_flight = Some(permit);
    }

    /// Lets go of all that others may wait for, though the answer is not out yet.
    pub fn step_aside(&mut self) {
        self._in_flight = None;
        self.charges.release();
    }

    /// Notes the canonical head.
    pub fn head(&mut self, head: &Head) {
        self.head = self.is_logged().then(|| head.clone());
    }

    /// Notes who is held responsible.
    pub fn client(&mut self, client: &Client) {
        self.client = Some(*client);
    }

    /// Notes the route that matched; its labels count from here on.
    pub fn route(&mut self, policy: &Arc<Policy>) {
        if let Some(metrics) = policy.metrics(self.conn.listener) {
            self.metrics = Arc::clone(metrics);
        }
        self.errors = policy.errors.unwrap_or(self.errors);
        self.policy = Some(Arc::clone(policy));
    }

    /// How many credentials have ended so far; to be asked before one is judged, see [`Exchange::principal`].
    #[must_use]
    pub fn ended_credentials(&self) -> u64 {
        self.desk.vigils.told()
    }

    /// Notes who the caller is, by a credential in `headers` that was judged after `since` others had ended.
    pub fn principal(
        &mut self,
        policy: &Policy,
        principal: &Principal,
        headers: &HeaderMap,
        since: u64,
    ) {
        if policy.binds_streams && principal.facts.mark.is_some() {
            let keepsake = policy.authn.keepsake(principal, headers);
            self.leash = Some(Leash::new(since, keepsake));
        }
        if self.is_logged() || self.leash.is_some() {
            self.principal = Some(principal.clone());
        }
    }

    /// What the exchange owes to limits.
    pub fn charges(&mut self) -> &mut Charges {
        &mut self.charges
    }

    /// Notes where the progress of the request body can be read.
    pub fn request_body(&mut self, fate: Option<&Arc<Fate>>) {
        self.fate = fate.map(Arc::clone);
    }

    /// Notes what became of the request upstream.
    pub fn forwarded(&mut self, facts: upstream::Facts) {
        if let Some(metrics) = self
            .policy
            .as_ref()
            .and_then(|policy| policy.upstream_metrics())
        {
            metrics.answered_after(facts.first_byte);
        }
        self.forwarded = Some(facts);
    }

    /// Notes what was tried of a forward that failed.
    #[must_use]
    pub fn failed(&mut self, failed: upstream::Failed) -> Rejection {
        self.failed = Some((failed.endpoint, failed.attempts));
        failed.why
    }

    /// Notes that the protocol is switched once the answer is out. `stall` bounds the wait for a side to take bytes.
    pub fn switched(&mut self, tunnel: Tunnel, counted: InFlight, stall: Duration) {
        self.tunnel = Some(Box::new(Next {
            tunnel,
            stall,
            counted,
        }));
    }

    /// Notes that an HTTP/1.1 connection ends with this answer.
    pub fn close_after(&mut self) {
        self.closes = true;
    }

    /// Whether the answer ends with the caller's credential, if it lasts.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.leash.is_some()
    }

    /// Notes what the answer says if it is ended so.
    pub fn last_words(&mut self, words: Option<Box<dyn LastWords>>) {
        if let Some(leash) = &mut self.leash {
            leash.learn(words);
        }
    }

    /// Notes that the answer is that to a preflight.
    pub fn preflight(&mut self) {
        self.preflight = true;
    }

    /// Notes a refusal and spells it for the caller.
    pub fn refuse(&mut self, why: Rejection) -> Response {
        let id = self.id.to_str().unwrap_or_default();
        let mut response = why.render_in(self.errors, self.dialect, id);
        if self.conn.protocol == Protocol::Http1 && ends_connection(why.reason()) {
            announce_close(&mut response);
        }
        self.note_refusal(why);
        response
    }

    /// Notes that the answer, under way already, ends before its end.
    fn cut_off(&mut self, reason: Reason) {
        if reason != Reason::DeadlineExceeded {
            self.charges.release(); // what the backend would have said is not known
        }
        let detail = "the answer was under way";
        self.note_refusal(Rejection::because(reason, detail));
    }

    fn note_refusal(&mut self, why: Rejection) {
        self.grpc_status = self
            .dialect
            .is_grpc_family()
            .then(|| u32::from(why.reason().grpc_status()));
        if why.reason().is_by_limit() {
            self.charges.release(); // nothing was tried
        }
        if why.reason() == Reason::DeadlineExceeded {
            self.charges.abandon(); // the caller set it: as good as leaving
        }
        let wall = clock::wall();
        self.metrics.reject(why.reason(), &self.id, wall);
        self.desk.decisions.keep(Decision::of(
            self.id.clone(),
            wall,
            Arc::clone(&self.conn.listener_name),
            self.policy.as_ref().map(|policy| Arc::clone(&policy.name)),
            &why,
        ));
        self.refusal = Some(why);
    }

    /// Dresses every answer of the route, refusals included: header edits, CORS, the request id.
    pub fn dress(&self, response: &mut Response) {
        for budget in self.charges.told() {
            let headers = response.headers_mut();
            headers.append(RATELIMIT_POLICY, budget.policy.clone());
            if let Some(left) = budget.left() {
                headers.append(RATELIMIT, left);
            }
        }
        if let Some(policy) = &self.policy {
            policy.edit(response, self.scheme(), self.dialect);
            if !self.preflight {
                policy.dress(self.origin.as_ref(), response);
            }
        }
        response.headers_mut().insert(X_REQUEST_ID, self.id.clone());
        if self.ends_connection() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            announce_close(response);
        }
    }

    /// Reads what nobody wanted of a request body that is on its way, so that the answer does not have to break it off:
    /// an HTTP/1.1 connection stays fit for use, and HTTP/2 clients that take the reset of a half-sent stream for an
    /// error (curl before version 8) see the answer.
    pub async fn discard(&mut self, body: Body) {
        if self.has_body && self.fate.is_none() && body.discard(DISCARD_FOR).await {
            self.has_body = false;
        }
    }

    /// Whether the connection is closed after the answer, because bytes of this request may still come before the next
    /// one, or because it asked for another protocol. A client that is not told would lose its next request in it.
    fn ends_connection(&self) -> bool {
        let unread = self.has_body && !self.fate.as_ref().is_some_and(|fate| fate.ended());
        self.conn.protocol == Protocol::Http1 && (unread || self.closes)
    }

    /// Hands the ledger to whatever closes it: the body, or the tunnel that the exchange becomes, which ends with `drain`.
    #[must_use]
    pub fn attach(
        mut self: Box<Self>,
        drain: &Drain,
        response: Response,
    ) -> http::Response<Ledger> {
        if let Some(next) = self.tunnel.take() {
            self.status = response.status();
            if self.charges.are_open() {
                self.answered(response.headers(), true);
            }
            next.begin(self, drain);
            return response.map(Ledger::closed);
        }
        let mut response = if self.method == Method::HEAD {
            without_body(response)
        } else {
            response
        };
        self.status = response.status();
        if self.grpc_status.is_none() {
            self.grpc_status = grpc_status(response.headers());
        }
        if self.charges.are_open() {
            let is_over = response.body().is_end_stream();
            self.answered(response.headers(), is_over);
        }
        if let Some(leash) = &mut self.leash {
            leash.follow(self.started, &mut response);
        }
        response.map(|body| Ledger::new(body, self))
    }

    /// Tells the limits that wait for the outcome what the head of the answer says of it.
    fn answered(&mut self, headers: &HeaderMap, is_over: bool) {
        let spoken = Dialect::of(headers);
        let closing = Closing::of(spoken);
        let grpc = match self.grpc_status {
            Some(status) => limit::Grpc::Known(status),
            None if spoken != Dialect::Grpc && closing.is_none() => limit::Grpc::None,
            None if is_over => limit::Grpc::Known(GRPC_UNKNOWN),
            None => limit::Grpc::Awaited,
        };
        self.judged(headers, grpc);
        self.closing = closing.filter(|_| self.charges.are_open()).map(Box::new);
    }

    fn judged(&mut self, headers: &HeaderMap, grpc: limit::Grpc) {
        self.charges.answered(&limit::Answer {
            method: &self.method,
            status: self.status,
            headers,
            grpc,
        });
    }

    /// Tells the limits that waited for the trailers how it ended. An answer that broke off says nothing, but for one
    /// whose client left before anything was in it.
    fn ended(&mut self, outcome: Outcome) {
        let closed_with = self.closing.as_ref().and_then(|closing| closing.status());
        match self.grpc_status.or(closed_with) {
            Some(status) => self.judged(&HeaderMap::new(), limit::Grpc::Known(status)),
            None if outcome == Outcome::ClientGone && self.bytes_out == 0 => {}
            None => self.charges.release(),
        }
    }

    fn close(mut self, outcome: Outcome) {
        if self.charges.are_open() {
            self.ended(outcome);
        }
        let elapsed = clock::now().saturating_duration_since(self.started);
        // The request of a tunnel was answered when that began.
        if !self.is_tunnel {
            self.metrics.observe(&self.method, self.status, elapsed);
            if RouteMetrics::is_slow(elapsed) {
                self.metrics.remember(elapsed, &self.id, clock::wall());
            }
        }
        if self.is_logged() {
            self.desk.access_log.write(&self.record(outcome, elapsed));
        }
    }

    fn record(&self, outcome: Outcome, elapsed: Duration) -> Record<'_> {
        let head = self.head.as_ref();
        let refusal = self.refusal.as_ref();
        let principal = self
            .principal
            .as_ref()
            .filter(|principal| principal.is_authenticated());
        let (endpoint, attempts) = match (&self.forwarded, &self.failed) {
            (Some(facts), _) => (Some(&*facts.endpoint), facts.attempts),
            (None, Some((endpoint, attempts))) => (endpoint.as_deref(), *attempts),
            (None, None) => (None, 0),
        };
        Record {
            time: clock::wall(),
            request_id: self.id.to_str().unwrap_or_default(),
            listener: &self.conn.listener_name,
            client: self.client.as_ref().map(|client| client.ip.address()),
            peer: self.conn.peer,
            protocol: self.conn.protocol,
            tls: self.conn.scheme == Scheme::Https,
            method: &self.method,
            host: head.map(Head::host),
            path: head.map(Head::path),
            query: head.is_some_and(|head| head.query().is_some()),
            route: self.policy.as_ref().map(|policy| &*policy.name),
            dialect: self.dialect,
            status: Some(self.status),
            grpc_status: self.grpc_status,
            reason: refusal.map(Rejection::reason),
            detail: refusal.map_or("", Rejection::detail),
            policy: refusal.and_then(Rejection::policy_name).map(|name| &**name),
            limit: refusal
                .filter(|why| why.reason().is_by_limit())
                .and_then(Rejection::policy_name)
                .map(|name| &**name),
            limit_observed: self.charges.observed().map(|name| &**name),
            auth_method: principal.map(|principal| principal.method),
            auth_source: principal.map(|principal| &*principal.source),
            user: principal.map(|principal| principal.facts.user.as_str()),
            upstream: self
                .policy
                .as_ref()
                .and_then(|policy| policy.upstream_name()),
            endpoint,
            attempts,
            first_byte: self.forwarded.as_ref().map(|facts| facts.first_byte),
            bytes_in: self
                .fate
                .as_ref()
                .map_or(self.bytes_in, |fate| fate.bytes()),
            bytes_out: self.bytes_out,
            duration: elapsed,
            ended: self.ended,
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            outcome,
        }
    }
}

/// Refusals after which nothing more is read from an HTTP/1.1 connection: where the next request starts is in doubt,
/// or the client is still sending what we will not read.
/// How long a small body that was sent together with its head may be late.
const DISCARD_FOR: Duration = Duration::from_millis(100);

fn announce_close(response: &mut Response) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}

fn ends_connection(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BadFraming
            | Reason::UnsupportedCoding
            | Reason::BadHost
            | Reason::BadTarget
            | Reason::BadField
            | Reason::HeadTooLarge
            | Reason::TooManyFields
            | Reason::TargetTooLong
            | Reason::BodyTooLarge
            | Reason::BodyStalled
            | Reason::BadBody
            | Reason::BadExpectation
    )
}

/// An extended CONNECT is no call, whatever type it states, and a refusal with status 200 would switch protocols.
fn dialect_of(request: &Request) -> Dialect {
    if *request.method() == Method::CONNECT {
        Dialect::Http
    } else {
        Dialect::of_request(request)
    }
}

/// The same head with the length that the body would have had: over HTTP/2 nobody else holds a body back, and a client
/// that gets one in answer to HEAD ends the stream as broken.
fn without_body(mut response: Response) -> Response {
    let body = std::mem::take(response.body_mut());
    let headers = response.headers_mut();
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0)
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}
