//! The gRPC side: `demo.v1.Greeter` and `grpc.health.v1.Health`, over HTTP/2 only, as Go backends do it.
//!
//! ```proto
//! service Greeter {
//!   rpc SayHello(HelloRequest) returns (HelloReply);
//!   rpc Countdown(CountdownRequest) returns (stream CountdownReply);
//! }
//! ```

use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, Request, Version};
use hyper::body::Incoming;
use tokio::time::Interval;
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Code, Response, Status};
use tonic_prost::ProstCodec;

use super::answer::{self, Answer};
use crate::process::health;

pub use crate::process::health::{
    CHECK as HEALTH_CHECK, HealthReply, HealthRequest, SERVING, WATCH as HEALTH_WATCH,
};

/// Whom to greet. An empty name is an invalid argument.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HelloRequest {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// The greeting.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HelloReply {
    /// `Hello, NAME!`
    #[prost(string, tag = "1")]
    pub message: String,
    /// The `x-auth-user` that arrived; empty without.
    #[prost(string, tag = "2")]
    pub user: String,
}

/// Where to count down from.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CountdownRequest {
    /// The first number; at most 10,000.
    #[prost(uint32, tag = "1")]
    pub from: u32,
    /// Pause between two numbers, in milliseconds; at most 10,000.
    #[prost(uint32, tag = "2")]
    pub pause_ms: u32,
    /// The number in whose place the stream ends with ABORTED; 0 for none.
    #[prost(uint32, tag = "3")]
    pub abort_at: u32,
}

/// One number on the way to zero.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CountdownReply {
    /// What is left.
    #[prost(uint32, tag = "1")]
    pub left: u32,
}

/// Path of the unary greeting.
pub const SAY_HELLO: &str = "/demo.v1.Greeter/SayHello";

/// Path of the counting stream.
pub const COUNTDOWN: &str = "/demo.v1.Greeter/Countdown";

/// Whether the request claims to be native gRPC.
pub(super) fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    content_type
        .is_some_and(|value| value == "application/grpc" || value == "application/grpc+proto")
}

/// gRPC that came over HTTP/1.1 finds the REST gateway, which knows nothing of it: the sign of a wrong hop in between.
pub(super) async fn respond(request: Request<Incoming>) -> Answer {
    if request.version() != Version::HTTP_2 || request.method() != Method::POST {
        return answer::not_found();
    }
    match request.uri().path() {
        SAY_HELLO => {
            Grpc::new(ProstCodec::default())
                .unary(SayHello, request)
                .await
        }
        COUNTDOWN => {
            Grpc::new(ProstCodec::default())
                .server_streaming(Countdown, request)
                .await
        }
        HEALTH_CHECK | HEALTH_WATCH => {
            // It is well, and never has anything to add.
            let answer = health::respond(request, is_served, || health::Health::Serving).await;
            answer.map(tonic::body::Body::new)
        }
        path => Status::unimplemented(format!("unknown method {path}")).into_http(),
    }
}

struct SayHello;

impl UnaryService<HelloRequest> for SayHello {
    type Response = HelloReply;
    type Future = Ready<Result<Response<HelloReply>, Status>>;

    fn call(&mut self, request: tonic::Request<HelloRequest>) -> Self::Future {
        let metadata = echoed(request.metadata());
        let user = request
            .metadata()
            .get("x-auth-user")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let name = request.into_inner().name;
        if name.is_empty() {
            return ready(Err(Status::with_metadata(
                Code::InvalidArgument,
                "name is empty",
                metadata,
            )));
        }
        let mut response = Response::new(HelloReply {
            message: format!("Hello, {name}!"),
            user,
        });
        *response.metadata_mut() = metadata;
        ready(Ok(response))
    }
}

struct Countdown;

impl ServerStreamingService<CountdownRequest> for Countdown {
    type Response = CountdownReply;
    type ResponseStream = Falling;
    type Future = Ready<Result<Response<Falling>, Status>>;

    fn call(&mut self, request: tonic::Request<CountdownRequest>) -> Self::Future {
        let metadata = echoed(request.metadata());
        let asked = request.into_inner();
        if asked.from > MAX_COUNT {
            return ready(Err(Status::invalid_argument("from is too large")));
        }
        // An interval of nothing is a panic.
        let pause = asked.pause_ms.clamp(1, MAX_PAUSE_MS);
        let mut response = Response::new(Falling {
            left: Some(asked.from),
            abort_at: asked.abort_at,
            tick: tokio::time::interval(Duration::from_millis(pause.into())),
        });
        *response.metadata_mut() = metadata;
        ready(Ok(response))
    }
}

/// Numbers that fall to zero, one at a tick.
struct Falling {
    left: Option<u32>,
    abort_at: u32,
    tick: Interval,
}

impl Stream for Falling {
    type Item = Result<CountdownReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(left) = self.left else {
            return Poll::Ready(None);
        };
        std::task::ready!(self.tick.poll_tick(cx));
        if left == self.abort_at && left != 0 {
            self.left = None;
            return Poll::Ready(Some(Err(Status::aborted(format!("aborted at {left}")))));
        }
        self.left = left.checked_sub(1);
        Poll::Ready(Some(Ok(CountdownReply { left })))
    }
}

fn is_served(service: &str) -> bool {
    matches!(service, "" | "demo.v1.Greeter" | "grpc.health.v1.Health")
}

/// The metadata that begins with `x-echo`, `-bin` included, goes back as it came.
fn echoed(metadata: &MetadataMap) -> MetadataMap {
    let mut echoed = MetadataMap::new();
    for entry in metadata.iter() {
        match entry {
            KeyAndValueRef::Ascii(key, value) if key.as_str().starts_with("x-echo") => {
                echoed.append(key, value.clone());
            }
            KeyAndValueRef::Binary(key, value) if key.as_str().starts_with("x-echo") => {
                echoed.append_bin(key, value.clone());
            }
            _ => {}
        }
    }
    echoed
}

const MAX_COUNT: u32 = 10_000;
const MAX_PAUSE_MS: u32 = 10_000;
