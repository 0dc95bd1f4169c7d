//! `grpc.health.v1.Health`: of the gateway itself, on the admin listener, it says what `/readyz` says, for probes that speak
//! gRPC (Kubernetes, load balancers). The backends' own services pass through routes like any other; that of the embedded
//! backend is this one too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use prost::Message as _;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::House;
use super::admin::{Answer, text};

/// Path of the question how it is.
pub const CHECK: &str = "/grpc.health.v1.Health/Check";
/// Path of the question how it is, and will be.
pub const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Names of services are short.
const MAX_QUESTION: usize = 4 * 1024;
/// How long a change may go untold to those who watch.
const LOOK: Duration = Duration::from_secs(1);

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HealthRequest {
    /// Full name of a service; empty for the server.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HealthReply {
    /// See [`Health`].
    #[prost(enumeration = "Health", tag = "1")]
    pub status: i32,
}

/// `grpc.health.v1.HealthCheckResponse.ServingStatus`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Health {
    /// It is not known.
    Unknown = 0,
    /// It is well.
    Serving = 1,
    /// It is not.
    NotServing = 2,
    /// There is no such service; said to those who watch.
    ServiceUnknown = 3,
}

/// [`Health::Serving`], as replies have it.
pub const SERVING: i32 = Health::Serving as i32;

/// What a call ends with, where it has no message.
#[derive(Clone, Copy)]
enum Status {
    InvalidArgument = 3,
    NotFound = 5,
    ResourceExhausted = 8,
    Unimplemented = 12,
}

/// The answer to a call of gRPC; `None` for a request that is none.
pub(super) async fn answer(house: &Arc<House>, request: Request<Incoming>) -> Option<Answer> {
    let is_grpc = request.headers().get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind == b"application/grpc" || kind.starts_with(b"application/grpc+")
    });
    if !is_grpc {
        return None;
    }
    if request.version() != Version::HTTP_2 || request.method() != Method::POST {
        let why = "gRPC is a POST over HTTP/2\n";
        return Some(text(StatusCode::HTTP_VERSION_NOT_SUPPORTED, why));
    }
    let house = Arc::clone(house);
    Some(respond(request, is_known, move || status(&house)).await)
}

/// The service: `health` tells how those are that are known.
pub(crate) async fn respond<H>(
    request: Request<Incoming>,
    is_known: impl Fn(&str) -> bool,
    health: H,
) -> Answer
where
    H: Fn() -> Health + Send + Unpin + 'static,
{
    let watches = match request.uri().path() {
        CHECK => false,
        WATCH => true,
        _ => return ended(Status::Unimplemented),
    };
    let asked = match question(request.into_body()).await {
        Ok(question) => question,
        Err(status) => return ended(status),
    };
    let is_known = is_known(&asked.service);
    if watches {
        streamed(Watch::new(is_known.then_some(health)))
    } else if is_known {
        streamed(Told::once(health()))
    } else {
        ended(Status::NotFound)
    }
}

/// The gateway as a whole, and this service.
fn is_known(service: &str) -> bool {
    matches!(service, "" | "grpc.health.v1.Health")
}

fn status(house: &House) -> Health {
    if house.not_ready().is_empty() {
        Health::Serving
    } else {
        Health::NotServing
    }
}

async fn question(body: Incoming) -> Result<HealthRequest, Status> {
    let body = Limited::new(body, MAX_QUESTION).collect().await;
    let bytes = body.map_err(|_| Status::ResourceExhausted)?.to_bytes();
    match bytes.split_first_chunk::<5>() {
        Some(([0, length @ ..], message))
            if u32::from_be_bytes(*length) as usize == message.len() =>
        {
            HealthRequest::decode(message).map_err(|_| Status::InvalidArgument)
        }
        // No compression was offered.
        Some(([1, ..], _)) => Err(Status::Unimplemented),
        _ => Err(Status::InvalidArgument),
    }
}

fn message(status: Health) -> Bytes {
    let reply = HealthReply {
        status: status.into(),
    };
    let length = reply.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or_default());
    bytes.extend_from_slice(&reply.encode_to_vec());
    bytes.freeze()
}

/// A verdict in the head, without a message.
fn ended(status: Status) -> Answer {
    let mut answer = streamed(Told::nothing());
    let status = HeaderValue::from(status as u16);
    answer.headers_mut().insert("grpc-status", status);
    answer
}

fn streamed<B>(body: B) -> Answer
where
    B: http_body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    let mut response = Response::new(body.boxed_unsync());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// One message and the status OK, or nothing at all.
struct Told {
    message: Option<Bytes>,
    has_trailers: bool,
}

impl Told {
    fn once(status: Health) -> Self {
        Self {
            message: Some(message(status)),
            has_trailers: true,
        }
    }

    fn nothing() -> Self {
        Self {
            message: None,
            has_trailers: false,
        }
    }
}

impl http_body::Body for Told {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if !std::mem::take(&mut self.has_trailers) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && !self.has_trailers
    }
}

/// The status now, and every change of it, for as long as the connection lives.
struct Watch<H> {
    /// `None` for a service that nobody knows.
    health: Option<H>,
    looks: Interval,
    told: Option<Health>,
}

impl<H> Watch<H> {
    fn new(health: Option<H>) -> Self {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            health,
            looks,
            told: None,
        }
    }
}

impl<H: Fn() -> Health + Unpin> http_body::Body for Watch<H> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            ready!(self.looks.poll_tick(cx));
            let now = self
                .health
                .as_ref()
                .map_or(Health::ServiceUnknown, |health| health());
            if self.told != Some(now) {
                self.told = Some(now);
                return Poll::Ready(Some(Ok(Frame::data(message(now)))));
            }
        }
    }
}
