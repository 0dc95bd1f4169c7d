//! One request's way to an endpoint and back: choice, connection, deadline, further tries, the answer.

use std::borrow::Cow;
use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use hyper::body::Incoming;

use super::balance::Visited;
use super::cluster::{Cluster, Fault, NoChoice};
use super::endpoint::Endpoint;
use super::message;
use super::outlier::Misconduct;
use super::patience;
use super::pool::{Checkout, Loan, Pools, Shared, Want};
use super::retry::{self, Lost, Tries};
use super::upgrade::{Admitted, Switched, Tunnel};
use crate::authz::Permit;
use crate::types::body::{Failure, Fate, InFlight};
use crate::types::{Body, BodyError, Reason, Rejection, Request, Response, clock};

/// How long a client may be told to wait when no endpoint is up: they are tried every second.
const COME_BACK: Duration = Duration::from_secs(1);

/// What a route asks of a forward.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Longest wait for the head of the answer. While the request body makes progress, or the client is the one who
    /// delays it, the wait starts anew.
    pub timeout: Duration,
    /// How the request body fares, if it is guarded.
    pub fate: Option<Arc<Fate>>,
}

/// How a forward went.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The endpoint that answered, as written in the configuration.
    pub endpoint: Arc<str>,
    /// How many times the request was sent, or was to be sent.
    pub attempts: u32,
    /// Whether the connection had served before.
    pub reused: bool,
    /// How long opening the connection took, if one was opened.
    pub connect: Option<Duration>,
    /// From the call to the head of the answer.
    pub first_byte: Duration,
}

/// A forward that failed: why, and what was tried.
#[derive(Debug)]
pub struct Failed {
    /// The refusal.
    pub why: Rejection,
    /// The endpoint that was tried last, as written in the configuration.
    pub endpoint: Option<Arc<str>>,
    /// How many times the request was sent, or was to be sent.
    pub attempts: u32,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The cluster is to blame.
    Upstream(Fault, Cow<'static, str>),
    /// The request body is.
    Body(Failure),
    /// We are.
    Unfit(&'static str),
}

impl Pools {
    /// Sends `request` to an endpoint of `cluster` and returns the head of the answer; its body follows as it comes. An
    /// empty request is left behind.
    ///
    /// Dropping the future, or later the body, gives the request up: its connection is not used again (HTTP/1.1), or
    /// its stream is reset (HTTP/2).
    ///
    /// # Errors
    /// A rejection that blames the upstream, or the client where the request body failed.
    pub async fn forward(
        &self,
        _permit: Permit,
        cluster: &Arc<Cluster>,
        request: &mut Request,
        options: &Forward,
    ) -> Result<(Response, Facts), Failed> {
        let mut journey = Journey::new(self, cluster, options.fate.as_deref());
        let answer = journey.finish(request, options.timeout).await;
        answer.map_err(|why| journey.failed(why))
    }

    /// The same for a request for another protocol: the head of the answer, and the tunnel if both sides agreed to one.
    ///
    /// # Errors
    /// As [`Pools::forward`].
    pub async fn switch(
        &self,
        _permit: Permit,
        cluster: &Arc<Cluster>,
        request: &mut Request,
        options: &Forward,
        admitted: Admitted,
    ) -> Result<(Response, Facts, Option<Tunnel>), Failed> {
        let mut journey = Journey::new(self, cluster, None);
        journey.admitted = Some(&admitted);
        let answer = journey.finish(request, options.timeout).await;
        let (response, facts) = answer.map_err(|why| journey.failed(why))?;
        let Some(switched) = journey.switched.take() else {
            let declined = admitted.decline(response.status());
            return match declined {
                Ok(()) => Ok((response, facts, None)),
                Err(why) => Err(Failed {
                    why,
                    endpoint: Some(facts.endpoint),
                    attempts: facts.attempts,
                }),
            };
        };
        Ok((response, facts, Some(admitted.tunnel(switched))))
    }

    /// [`Pools::forward`] without the proof, for requests of our own.
    pub(super) async fn exchange(
        &self,
        cluster: &Arc<Cluster>,
        request: &mut Request,
        timeout: Duration,
        fate: Option<&Fate>,
    ) -> Result<(Response, Facts), NoAnswer> {
        Journey::new(self, cluster, fate)
            .finish(request, timeout)
            .await
    }
}

/// One request under way.
struct Journey<'a> {
    pools: &'a Pools,
    cluster: &'a Arc<Cluster>,
    fate: Option<&'a Fate>,
    started: Instant,
    now: Instant,
    tries: Tries,
    visited: Visited,
    attempts: u32,
    /// Whom to blame if time runs out, and for what.
    at: Option<(&'a Arc<Endpoint>, Misconduct)>,
    /// The endpoint that was chosen last.
    last: Option<&'a Arc<Endpoint>>,
    over: Option<Arc<Shared>>,
    /// What the client asks to switch to.
    admitted: Option<&'a Admitted>,
    switched: Option<Switched>,
}

/// What is needed to send a request again.
struct Copy {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Copy {
    /// The only copy of headers that is made, and only where it can be of use.
    fn of(request: &Request, tries: &Tries) -> Option<Self> {
        // One that may not be carried out twice can still be refused unread, if its route took it in to be ready for that.
        let is_empty = request.body().is_empty();
        let useful = tries.wanted() && (!is_empty || retry::is_idempotent(request.method()));
        let body = request.body().held().filter(|_| useful)?;
        Some(Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            body,
        })
    }

    fn request(&self) -> Request {
        let mut request = Request::new(Body::full(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

impl<'a> Journey<'a> {
    fn new(pools: &'a Pools, cluster: &'a Arc<Cluster>, fate: Option<&'a Fate>) -> Self {
        let now = clock::now();
        Self {
            pools,
            cluster,
            fate,
            started: now,
            now,
            tries: Tries::new(cluster.retry_limit()),
            visited: Visited::default(),
            attempts: 0,
            at: None,
            last: None,
            over: None,
            admitted: None,
            switched: None,
        }
    }

    /// The answer, in time.
    async fn finish(
        &mut self,
        request: &mut Request,
        timeout: Duration,
    ) -> Result<(Response, Facts), NoAnswer> {
        self.cluster.count_request();
        let (started, fate) = (self.now, self.fate);
        let arrived = {
            let way = pin!(self.travel(request));
            patience::within(started, timeout, fate, way).await
        };
        let answer = match arrived {
            Some(answer) => answer,
            None => Err(self.out_of_time(timeout)),
        };
        if let Err(NoAnswer::Upstream(fault, _)) = &answer {
            self.cluster.count_failure(*fault);
        }
        answer
    }

    async fn travel(&mut self, request: &mut Request) -> Result<(Response, Facts), NoAnswer> {
        let copy = Copy::of(request, &self.tries);
        let host = self.host_of(request);
        let method = request.method().clone();
        let mut want = self.wants(Want::Any);
        loop {
            let (endpoint, permit) = self.choose()?;
            let pool = self.pools.of(endpoint);
            let checkout = match pool.checkout(endpoint, want, self.now).await {
                Ok(checkout) => checkout,
                Err(why) => {
                    endpoint.failed(Misconduct::Unreachable, clock::now());
                    if self.again(Lost::NotConnected) {
                        continue;
                    }
                    let detail = why.into_detail();
                    return Err(NoAnswer::Upstream(Fault::Unreachable, detail));
                }
            };
            let Checkout { mut loan, connect } = checkout;
            self.at = Some((endpoint, Misconduct::Silent));
            self.over = loan.shared().cloned();
            let scheme = endpoint.target().address.scheme;
            let host = host.as_ref().unwrap_or(endpoint.host());
            message::prepare(request, scheme, host).map_err(NoAnswer::Unfit)?;
            if let Some(admitted) = self.admitted {
                admitted.ask(request.headers_mut());
            }
            endpoint.count_request();
            let work = Work(Some(permit)); // from here on the endpoint may be at it
            let leaving = std::mem::take(request);
            let sent = match &mut loan {
                Loan::Exclusive(connection) => connection.send(leaving).await,
                Loan::Shared(_, connection) => connection.send(leaving).await,
            };
            let permit = work.ended();
            let mut error = match sent {
                Ok(response) => {
                    let trip = Trip {
                        endpoint,
                        loan,
                        permit,
                        connect,
                    };
                    return self.arrive(response, trip, &method);
                }
                Err(error) => error,
            };
            let unsent = error.take_message();
            let loss = self.diagnose(&error.into_error(), unsent.is_some(), connect.is_none());
            loss.blame(endpoint, &loan);
            drop(loan);
            let again = |copy: &Copy| {
                let unread = loss.how == Some(Lost::Refused);
                (unread || retry::is_idempotent(&method)).then(|| copy.request())
            };
            let whole = unsent.or_else(|| copy.as_ref().and_then(again));
            match (loss.how, whole) {
                (Some(how), Some(whole)) if self.again(how) => {
                    *request = whole;
                    want = self.wants(Want::New);
                }
                _ => return Err(loss.why),
            }
        }
    }

    fn wants(&self, usually: Want) -> Want {
        match self.admitted {
            None => usually,
            Some(_) => Want::ToSwitch,
        }
    }

    /// The Host to send; `None` leaves the endpoint's own.
    fn host_of(&self, request: &Request) -> Option<HeaderValue> {
        let host = self.cluster.host().or(request.headers().get(HOST));
        host.cloned()
    }

    fn choose(&mut self) -> Result<(&'a Arc<Endpoint>, InFlight), NoAnswer> {
        self.attempts += 1;
        if self.attempts > 1 {
            self.now = clock::now();
        }
        let cluster = self.cluster;
        match cluster.choose(&mut self.visited, self.now) {
            Ok((endpoint, permit)) => {
                self.at = Some((endpoint, Misconduct::Unreachable));
                self.last = Some(endpoint);
                Ok((endpoint, permit))
            }
            Err(NoChoice::AllOut) => Err(NoAnswer::Upstream(
                Fault::NoEndpoint,
                Cow::Borrowed("every endpoint is unhealthy or put aside"),
            )),
            Err(NoChoice::AllFull) => Err(NoAnswer::Upstream(
                Fault::Overloaded,
                Cow::Borrowed("max_requests are in flight"),
            )),
        }
    }

    fn again(&mut self, lost: Lost) -> bool {
        self.at = None;
        self.over = None;
        let again = self.tries.again(lost, self.cluster.budget());
        if again {
            self.cluster.count_retry();
        }
        again
    }

    fn diagnose(&self, error: &hyper::Error, unsent: bool, reused: bool) -> Loss {
        let of_body = self.fate.and_then(Fate::failure).or(body_failure(error));
        if let Some(failure) = of_body {
            return Loss::for_good(NoAnswer::Body(failure));
        }
        let detail = Cow::Owned(describe(error));
        let h2 = source::<h2::Error>(error);
        if error.is_parse() || h2.is_some_and(h2::Error::is_library) {
            return Loss::for_good(NoAnswer::Upstream(Fault::Malformed, detail));
        }
        let why = NoAnswer::Upstream(Fault::Reset, detail);
        let how = match h2.filter(|error| error.is_reset()).map(h2::Error::reason) {
            Some(Some(h2::Reason::REFUSED_STREAM)) => Lost::Refused,
            Some(_) => return Loss::for_good(why),
            // A new connection that dies at once is the endpoint's doing, written to or not.
            None if unsent && reused => Lost::Unsent,
            None if reused => Lost::OnUsedConnection,
            None => Lost::OnNewConnection,
        };
        let how = Some(how);
        Loss { how, why }
    }

    fn arrive(
        &mut self,
        mut response: http::Response<Incoming>,
        trip: Trip<'_>,
        asked: &Method,
    ) -> Result<(Response, Facts), NoAnswer> {
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let judged = match self.admitted.filter(|_| switches) {
            None => message::judge(&mut response, asked),
            Some(admitted) => admitted.judge(&response),
        };
        // The connection of a malformed answer goes with the loan.
        judged.map_err(|why| NoAnswer::Upstream(Fault::Malformed, Cow::Borrowed(why)))?;
        trip.endpoint.answered();
        let facts = Facts {
            endpoint: Arc::clone(trip.endpoint.label()),
            attempts: self.attempts,
            reused: trip.connect.is_none(),
            connect: trip.connect,
            first_byte: clock::now().saturating_duration_since(self.started),
        };
        if switches {
            self.switched = Some(Switched {
                upstream: hyper::upgrade::on(&mut response),
                _permit: trip.permit,
            });
            let (mut head, _) = response.into_parts();
            head.extensions.clear();
            return Ok((Response::from_parts(head, Body::empty()), facts));
        }
        let (head, incoming) = response.into_parts();
        let body = Body::incoming(incoming)
            .patient(self.cluster.body_timeout())
            .leased(trip.loan.into_lease())
            .counted(trip.permit);
        Ok((Response::from_parts(head, body), facts))
    }

    /// What is to be told of a journey that came to nothing.
    fn failed(&self, why: NoAnswer) -> Failed {
        Failed {
            why: why.into_rejection(),
            endpoint: self.last.map(|endpoint| Arc::clone(endpoint.label())),
            attempts: self.attempts,
        }
    }

    fn out_of_time(&self, timeout: Duration) -> NoAnswer {
        if let Some(failure) = self.fate.and_then(Fate::failure) {
            return NoAnswer::Body(failure);
        }
        let mut detail = format!("no answer within {timeout:?}");
        if let Some((endpoint, misconduct)) = self.at {
            detail = format!("{}: {detail}", endpoint.label());
            endpoint.failed(misconduct, clock::now());
        }
        if let Some(connection) = &self.over {
            // It may lead nowhere any more; whoever comes next gets a new one.
            connection.retire();
        }
        NoAnswer::Upstream(Fault::Timeout, detail.into())
    }
}

/// A request that an endpoint is at. Dropped before its end, it is given up.
struct Work(Option<InFlight>);

impl Work {
    fn ended(mut self) -> Option<InFlight> {
        self.0.take()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.give_up();
        }
    }
}

/// What a request that was answered has in its hands.
struct Trip<'a> {
    endpoint: &'a Endpoint,
    loan: Loan,
    permit: Option<InFlight>,
    connect: Option<Duration>,
}

/// How a request was lost.
struct Loss {
    /// `None` if sending it again cannot help, or might do harm.
    how: Option<Lost>,
    why: NoAnswer,
}

impl Loss {
    fn for_good(why: NoAnswer) -> Self {
        Self { how: None, why }
    }

    /// An endpoint answers for its new connections. Those that it closes as idle are not held against it, nor is an
    /// answer that some request can make malformed.
    fn blame(&self, endpoint: &Endpoint, loan: &Loan) {
        if self.how == Some(Lost::OnNewConnection) {
            endpoint.failed(Misconduct::Silent, clock::now());
        }
        // A refused stream says nothing about its connection.
        if matches!(
            self.how,
            Some(Lost::Unsent | Lost::OnUsedConnection | Lost::OnNewConnection)
        ) && let Some(connection) = loan.shared()
        {
            connection.retire();
        }
    }
}

impl NoAnswer {
    fn into_rejection(self) -> Rejection {
        match self {
            Self::Upstream(fault, detail) => {
                let rejection = Rejection::because(reason(fault), detail);
                match fault {
                    Fault::NoEndpoint | Fault::Overloaded => rejection.retry_after(COME_BACK),
                    _ => rejection,
                }
            }
            Self::Body(Failure::TooLarge) => Rejection::new(Reason::BodyTooLarge),
            Self::Body(Failure::Stalled) => Rejection::new(Reason::BodyStalled),
            Self::Body(Failure::Malformed) => Rejection::new(Reason::BadBody),
            Self::Body(Failure::Expired) => Rejection::new(Reason::DeadlineExceeded),
            Self::Body(Failure::Connection) => {
                Rejection::because(Reason::BadBody, "the client ended the request body early")
            }
            Self::Unfit(why) => Rejection::because(Reason::Internal, why),
        }
    }
}

fn reason(fault: Fault) -> Reason {
    match fault {
        Fault::NoEndpoint => Reason::NoEndpoint,
        Fault::Overloaded => Reason::UpstreamOverloaded,
        Fault::Unreachable => Reason::UpstreamUnreachable,
        Fault::Reset => Reason::UpstreamReset,
        Fault::Malformed => Reason::UpstreamMalformed,
        Fault::Timeout => Reason::UpstreamTimeout,
    }
}

/// The failure of the request body that hyper reports as its own.
fn body_failure(error: &hyper::Error) -> Option<Failure> {
    source::<BodyError>(error).map(BodyError::failure)
}

fn source<E: std::error::Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

/// The error with what caused it; for the log.
pub(super) fn describe(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
