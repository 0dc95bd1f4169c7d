//! ONE REQUEST, TOP TO BOTTOM. Every stage is one call and one `?`; the order is fixed by security, so it is written
//! once, here. `handle` is infallible: it renders what `run` refuses, in the caller's dialect.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, EXPECT, HeaderValue};
use http::{HeaderMap, Method};

use crate::authn::{Ending, Logout};
use crate::authz::{self, Permit};
use crate::cors;
use crate::exchange::{Desk, Exchange, Ledger, RequestIds};
use crate::limit::{Charges, PeekPlan, Peeked};
use crate::route::Head;
use crate::snapshot::{Action, Listener, Policy, Sight, Snapshot};
use crate::store::Line;
use crate::transform::{self, deadline, grpc_web};
use crate::types::body::{Gauge, Peek};
use crate::types::drain::{Drain, Stage};
use crate::types::expiry;
use crate::types::rejection::Hold;
use crate::types::{
    Body, BodyError, ConnFacts, Dialect, Principal, Protocol, Reason, Rejection, Request, Response,
    Scheme, clock,
};
use crate::upstream::{self, Admitted, Asked, Cluster, Pools, Upgrades};

/// What a worker serves with: the snapshot in force and its own upstream connections.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    /// A copy of the shared one: workers would quarrel over its count.
    desk: Arc<Desk>,
    pools: Pools,
    /// To the store that replicas share, where there is one.
    line: Option<Arc<Line>>,
    ids: RequestIds,
}

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The snapshot in force; swapped whole by a reload.
    pub snapshot: ArcSwap<Snapshot>,
    /// Where exchanges report to.
    pub desk: Arc<Desk>,
    /// Exchanges in flight in the process.
    pub in_flight: Arc<Gauge>,
    /// Tunnels in the process.
    pub tunnels: Arc<Gauge>,
    /// The stop of the process.
    pub drain: Drain,
    /// Whether the process is above its memory ceiling.
    pub short_of_memory: AtomicBool,
}

impl Gateway {
    /// The gateway of one worker.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        let store = shared.snapshot.load().store.clone();
        let pools = Pools::new();
        Self {
            desk: Arc::new(Desk {
                pools: pools.clone(),
                ..Desk::clone(&shared.desk)
            }),
            line: store.map(|store| Line::new(&store)),
            shared,
            pools,
            ids: RequestIds::of_worker(),
        }
    }

    /// The snapshot in force. An exchange asks once and keeps what it got.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// The worker's connection to the store; to be kept connected on the worker itself.
    #[must_use]
    pub fn line(&self) -> Option<&Arc<Line>> {
        self.line.as_ref()
    }

    /// What all workers share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// Answers one request. The exchange rides on the answer's body and closes at its last byte.
///
/// The future is moved about while it is young (into a task, for each stream of HTTP/2), so that its size is time: the
/// request lies in it once, and the stages borrow it.
pub fn handle(
    gateway: Arc<Gateway>,
    conn: Arc<ConnFacts>,
    request: http::Request<hyper::body::Incoming>,
) -> impl Future<Output = http::Response<Ledger>> + Send {
    let mut request = request.map(Body::incoming);
    async move {
        let snapshot = gateway.snapshot();
        let mut exchange = Box::new(Exchange::open(
            &gateway.desk,
            conn,
            &snapshot,
            gateway.ids.next(),
            &request,
        ));
        let brief = !request.body().is_empty() && is_brief(request.headers());
        let deadline = deadline_of(&exchange, request.headers());
        let ends = deadline.as_ref().copied().unwrap_or_default();
        let mut answer = {
            let running = run(&gateway, &snapshot, &mut exchange, &mut request, deadline);
            // The caller chose the time, so no endpoint is blamed for being too slow for it.
            expiry::within(ends, pin!(running))
                .await
                .unwrap_or_else(|| Err(Rejection::new(Reason::DeadlineExceeded)))
        };
        if brief || (!request.body().is_empty() && request.body().has_arrived()) {
            exchange.discard(std::mem::take(request.body_mut())).await;
        }
        if let Err(why) = &mut answer
            && let Some(hold) = why.take_hold()
        {
            drop(request);
            let held = hold_back(&gateway, &mut exchange, hold, ends);
            why.later(Box::pin(held).await);
        }
        let mut response = answer.unwrap_or_else(|why| exchange.refuse(why));
        exchange.dress(&mut response);
        exchange.attach(&gateway.shared.drain, response)
    }
}

/// Waits while a refusal is held back, and says how long that was. The exchange keeps nothing meanwhile that others could
/// want; a stop is not held up, and no caller is made to wait beyond its own deadline.
async fn hold_back(
    gateway: &Gateway,
    exchange: &mut Exchange,
    hold: Hold,
    ends: Option<Instant>,
) -> Duration {
    exchange.step_aside();
    let since = clock::now();
    if !gateway.shared.short_of_memory.load(Ordering::Relaxed) {
        let mut ear = gateway.shared.drain.ear();
        let held = ear.until(Stage::Draining, tokio::time::sleep(hold.time));
        expiry::within(ends, pin!(held)).await;
    }
    clock::now().saturating_duration_since(since)
}

/// The answer to a head that was refused before it became a request. It is counted and logged as any other.
pub(crate) fn refuse(
    gateway: &Gateway,
    conn: &Arc<ConnFacts>,
    why: Rejection,
) -> http::Response<Ledger> {
    let snapshot = gateway.snapshot();
    let mut request = Request::new(Body::empty());
    // What the client sent in its place is in doubt, and the log must not hold it.
    *request.method_mut() = Method::from_bytes(b"-").unwrap_or_default();
    let mut exchange = Box::new(Exchange::open(
        &gateway.shared.desk,
        Arc::clone(conn),
        &snapshot,
        gateway.ids.next(),
        &request,
    ));
    let mut response = exchange.refuse(why);
    exchange.dress(&mut response);
    exchange.attach(&gateway.shared.drain, response)
}

/// The answer to a request whose handling panicked. Its ledger is gone with it.
pub(crate) fn panicked(conn: &ConnFacts) -> http::Response<Ledger> {
    tracing::error!(listener = %conn.listener_name, "a request ended in a panic");
    Rejection::new(Reason::Internal)
        .render(Dialect::Http, "-")
        .map(Ledger::closed)
}

/// The stages, in order.
async fn run(
    gateway: &Gateway,
    snapshot: &Snapshot,
    exchange: &mut Exchange,
    request: &mut Request,
    deadline: Result<Option<Instant>, Rejection>,
) -> Result<Response, Rejection> {
    admit(gateway, snapshot, exchange)?;
    snapshot.identity.strip(request.headers_mut()); // before anyone could believe them
    let listener = snapshot.listener(exchange.conn().listener)?;
    let asked = Asked::take(request)?; // for another protocol; from here on it looks like any request
    let head = Head::of(request, exchange.conn(), &listener.caps)?; // what is matched is what is forwarded
    exchange.head(&head);
    let client = listener.trust.find(exchange.conn(), request.headers())?;
    exchange.client(&client);
    if let Some(redirect) = listener.redirect(&head) {
        return Ok(redirect);
    }
    if let Some(line) = &gateway.line {
        exchange.charges().share(line);
    }
    let seen = Sight {
        client: &client,
        head: &head,
    };
    check_listener(listener, seen, request, exchange.charges()).await?; // scans that match no route are bounded too
    transform::strip_hop_by_hop(request.headers_mut(), exchange.dialect());

    let (position, headers) = (exchange.conn().listener, request.headers());
    let policy = snapshot.policy_for(position, &head, request.method(), headers)?;
    exchange.route(policy);
    if policy.may_switch(asked.as_ref()) {
        exchange.close_after(); // whatever comes of it, it is the last request in HTTP
    }
    policy.check_head(&head)?;
    policy.check_announced_body(request.headers())?;
    let deadline = deadline?;
    let mut peeked = Peeked::default();
    let (inputs, charges) = (seen.keys(request, &peeked), exchange.charges());
    policy.check_early_limits(listener, inputs, charges).await?;
    if let Some(plan) = &policy.peek {
        peeked = Box::pin(peek(plan, &head, request)).await; // what it read passes on untouched
        let (inputs, charges) = (seen.keys(request, &peeked), exchange.charges());
        policy.check_body_limits(listener, inputs, charges).await?;
    }
    if let Some(answer) = preflight(policy, request)? {
        exchange.preflight();
        return Ok(answer); // a preflight carries no credentials
    }
    let since = exchange.ended_credentials();
    let principal = identify(gateway, policy, exchange, request).await?;
    exchange.principal(policy, &principal, request.headers(), since);
    let (method, headers) = (request.method(), request.headers());
    policy.check_csrf(&principal, &client, &head, method, headers)?;
    let (inputs, charges) = (seen.keys(request, &peeked), exchange.charges());
    let checked = policy.check_late_limits(listener, inputs, &principal, charges);
    checked.await?;
    let act = authz::Asked {
        client: client.ip,
        method: request.method(),
        host: head.host(),
        path: head.path(),
        client_cert: exchange.conn().client_cert.as_deref(),
        headers: request.headers(),
    };
    let permit = policy.authz.decide(&principal, &act)?;
    let admitted = Upgrades::admit(policy.upgrades.as_ref(), asked, request)?;

    let cluster = match &policy.action {
        Action::Forward(cluster) => cluster,
        Action::Answer(answer) => return Ok(answer.respond()),
        Action::Logout(logout) => {
            let fate = request.body_mut().guard(policy.bounds(listener));
            exchange.request_body(fate.as_ref());
            return Box::pin(take_logout(snapshot, logout, std::mem::take(request))).await;
        }
    };
    let ending = watch(policy, request, &principal).await; // a logout: what the caller shows now
    let head = rewrite(snapshot, exchange, policy, head, request)?;
    let fate = request.body_mut().guard(policy.bounds(listener));
    exchange.request_body(fate.as_ref());
    policy.transform.request(
        request,
        &transform::Facts {
            conn: exchange.conn(),
            principal: &principal,
            client: &client,
            head: &head,
            request_id: exchange.id(),
            dialect: exchange.dialect(),
            time_left: time_left(deadline)?,
            wall: clock::wall,
        },
    )?;
    let wish = policy.transform.wish(request, exchange.dialect());
    let answer_in = grpc_web::answers_in(request.headers(), exchange.dialect());
    policy.transform.request_body(request, exchange.dialect())?;

    if let Some(at) = deadline {
        let body = request.body_mut();
        body.expire(at, Reason::DeadlineExceeded, None);
    }

    if let Some(length) = policy.holds(request, exchange.dialect()) {
        exchange.reads(request.body_mut());
        let taking = pin!(Box::pin(take_in(request, length)));
        exchange.while_credential_lasts(taking).await??;
    }

    exchange.charges().sent();
    let options = upstream::Forward {
        timeout: policy.timeout,
        fate,
    };
    if let Some(admitted) = admitted {
        let stall = listener.conn.write_timeout;
        let switch = Switch {
            gateway,
            cluster,
            policy,
            most: snapshot.max_tunnels,
            admitted,
            options,
            scheme: client.scheme,
            stall,
        };
        return Box::pin(switch.run(exchange, permit, request)).await;
    }
    let forwarding = pin!(gateway.pools.forward(permit, cluster, request, &options));
    let forwarded = exchange.while_credential_lasts(forwarding).await?; // an upload ends with it
    let (mut response, facts) = forwarded.map_err(|failed| exchange.failed(failed))?;
    exchange.forwarded(facts);
    if let Some(ending) = ending {
        settle(snapshot, &ending, &response).await; // before the answer leaves
    }
    policy
        .transform
        .response(response.headers_mut(), client.scheme);
    let mut response = policy.transform.response_body(response, answer_in);
    policy.transform.compress(&mut response, wish);
    set_end(exchange, &mut response, deadline, answer_in);
    Ok(response)
}

/// What ends an answer that lasts: the caller's credential, the caller's deadline. Either says why, in `dialect`.
fn set_end(
    exchange: &mut Exchange,
    response: &mut Response,
    deadline: Option<Instant>,
    dialect: Dialect,
) {
    let has_trailers = exchange.conn().protocol == Protocol::Http2;
    let words = |exchange: &Exchange, response: &Response| {
        deadline::last_words(response, dialect, has_trailers, exchange.id())
    };
    if exchange.is_bound() {
        let words = words(exchange, response);
        exchange.last_words(words);
    }
    if let Some(at) = deadline {
        let words = words(exchange, response);
        let body = response.body_mut();
        body.expire(at, Reason::DeadlineExceeded, words);
    }
}

/// When the time is over that the caller gives the call. One that lies beyond all clocks is none.
fn deadline_of(exchange: &Exchange, headers: &HeaderMap) -> Result<Option<Instant>, Rejection> {
    let asked = deadline::asked(headers, exchange.dialect())?;
    Ok(asked.and_then(|timeout| exchange.started().checked_add(timeout)))
}

/// What the upstream is told of it. Nothing is sent whose time is over.
fn time_left(deadline: Option<Instant>) -> Result<Option<Duration>, Rejection> {
    let left = deadline.map(|at| at.saturating_duration_since(clock::now()));
    match left {
        Some(Duration::ZERO) => Err(Rejection::new(Reason::DeadlineExceeded)),
        left => Ok(left),
    }
}

/// Counts the exchange as in flight, unless too many are, or they hold too much memory. Where memory is short and nobody
/// holds it, refusing would not free any: one at a time passes, so that the gateway cannot shut itself up for good.
fn admit(gateway: &Gateway, snapshot: &Snapshot, exchange: &mut Exchange) -> Result<(), Rejection> {
    let shared = &gateway.shared;
    let (most, why) = if shared.short_of_memory.load(Ordering::Relaxed) {
        (1, "above max_memory")
    } else {
        (
            snapshot.max_in_flight,
            "max_in_flight requests are under way",
        )
    };
    let permit = shared.in_flight.enter(most).ok_or_else(|| {
        Rejection::because(Reason::Overloaded, why).retry_after(std::time::Duration::from_secs(1))
    })?;
    exchange.count(permit);
    Ok(())
}

async fn check_listener(
    listener: &Listener,
    seen: Sight<'_>,
    request: &Request,
    charges: &mut Charges,
) -> Result<(), Rejection> {
    if listener.limits.is_empty() {
        return Ok(());
    }
    let nothing = Peeked::default();
    let inputs = seen.keys(request, &nothing);
    listener.limits.check(&inputs, charges).await
}

/// Reads what the limits want to know of the body, without taking it away.
async fn peek(plan: &PeekPlan, head: &Head, request: &mut Request) -> Peeked {
    if request.body().is_empty() {
        return Peeked::default();
    }
    if let Some(foreseen) = plan.foresee(request.headers()) {
        return foreseen;
    }
    match request.body_mut().peek(plan.most(), plan.patience()).await {
        Peek::Whole(body) => plan.read(request.headers(), head.query(), &body),
        Peek::TooLarge => Peeked::unreadable("a body larger than `peek`"),
        Peek::Late => Peeked::unreadable("a body later than `peek_timeout`"),
        Peek::Broken => Peeked::unreadable("a body that broke off"),
    }
}

fn preflight(policy: &Policy, request: &Request) -> Result<Option<Response>, Rejection> {
    match &policy.cors {
        Some(cors) if cors::preflight_method(request.method(), request.headers()).is_some() => {
            cors.preflight(request.headers()).map(Some)
        }
        _ => Ok(None),
    }
}

async fn identify(
    gateway: &Gateway,
    policy: &Policy,
    exchange: &Exchange,
    request: &Request,
) -> Result<Principal, Rejection> {
    if !policy.authn.wants_credential() {
        return Ok(Principal::anonymous());
    }
    let identified = policy
        .authn
        .identify(&gateway.pools, request.headers(), clock::wall())
        .await;
    policy.count_decision(exchange.id(), identified.as_ref());
    identified
}

/// What a good answer will end, where the route is one that ends credentials.
async fn watch(policy: &Policy, request: &Request, principal: &Principal) -> Option<Ending> {
    let revokes = policy.revokes.as_ref()?;
    let found = revokes.watch(request.headers(), principal, clock::wall());
    Some(Box::pin(found).await)
}

async fn settle(snapshot: &Snapshot, ending: &Ending, response: &Response) {
    let (authorities, wall) = (&snapshot.authorities, clock::wall());
    let settled = ending.settle(authorities, response.status(), response.headers(), wall);
    Box::pin(settled).await;
}

/// A request for another protocol that may be asked for.
struct Switch<'a> {
    gateway: &'a Gateway,
    cluster: &'a Arc<Cluster>,
    policy: &'a Policy,
    most: u32,
    admitted: Admitted,
    options: upstream::Forward,
    /// That of the client.
    scheme: Scheme,
    stall: std::time::Duration,
}

impl Switch<'_> {
    /// The last stages, for such a request.
    async fn run(
        self,
        exchange: &mut Exchange,
        permit: Permit,
        request: &mut Request,
    ) -> Result<Response, Rejection> {
        let tunnels = &self.gateway.shared.tunnels;
        let counted = tunnels.enter(self.most).ok_or_else(|| {
            let why = "max_tunnels are open";
            Rejection::because(Reason::Overloaded, why)
                .retry_after(std::time::Duration::from_secs(1))
        })?;
        let (pools, cluster) = (&self.gateway.pools, self.cluster);
        let asked = pools.switch(permit, cluster, request, &self.options, self.admitted);
        let (mut response, facts, tunnel) =
            asked.await.map_err(|failed| exchange.failed(failed))?;
        exchange.forwarded(facts);
        let headers = response.headers_mut();
        self.policy.transform.response(headers, self.scheme);
        if let Some(tunnel) = tunnel {
            tunnel.agree(&mut response);
            exchange.switched(tunnel, counted, self.stall);
        }
        Ok(response)
    }
}

/// Takes an issuer's logout token, and ends what it names before saying so.
async fn take_logout(
    snapshot: &Snapshot,
    logout: &Logout,
    request: Request,
) -> Result<Response, Rejection> {
    let (head, body) = request.into_parts();
    let body = body.whole(logout.most_body()).await;
    let body = body.map_err(|error| broken_off(&error))?;
    let wall = clock::wall();
    let ended = logout.receive(&head.method, &head.headers, &body, wall);
    for revocation in ended.await? {
        snapshot.authorities.revoke(&revocation, wall).await;
    }
    let mut response = Response::new(Body::empty());
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    Ok(response)
}

/// Takes the body in, so that it can be sent more than once.
async fn take_in(request: &mut Request, length: usize) -> Result<(), Rejection> {
    let body = std::mem::take(request.body_mut()).whole(length).await;
    *request.body_mut() = Body::full(body.map_err(|error| broken_off(&error))?);
    Ok(())
}

fn broken_off(error: &BodyError) -> Rejection {
    Rejection::new(match error {
        BodyError::TooLarge => Reason::BodyTooLarge,
        BodyError::Stalled => Reason::BodyStalled,
        BodyError::Malformed(_) | BodyError::Connection(_) => Reason::BadBody,
        BodyError::Expired(_) => Reason::DeadlineExceeded,
    })
}

/// The head that goes upstream. What a rewrite leads to is held against the closed routes once more.
fn rewrite(
    snapshot: &Snapshot,
    exchange: &Exchange,
    policy: &Policy,
    head: Head,
    request: &Request,
) -> Result<Head, Rejection> {
    let Some(rewritten) = policy.transform.rewrite(&head)? else {
        return Ok(head);
    };
    let leads_to = snapshot.routes.find(
        exchange.conn().listener,
        &rewritten,
        request.method(),
        request.headers(),
    );
    match leads_to {
        Ok(other) if other.is_closed() => Err(Rejection::because(
            Reason::RouteClosed,
            "a rewrite led to a closed route",
        )),
        _ => Ok(rewritten),
    }
}

/// Whether the body is announced as so small that it is on its way together with the head. One that waits for a 100 is
/// not: reading it would ask for it.
fn is_brief(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH);
    let length: Option<u64> = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_some_and(|length| length <= BRIEF) && !headers.contains_key(EXPECT)
}

/// A body of this size fits into the first window of an HTTP/2 stream.
const BRIEF: u64 = 64 * 1024;
