//! tonic as client and as server of grpc.testing.TestService.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{self, Stream, StreamExt};
use tonic::codegen::{BoxStream, Service};
use tonic::metadata::MetadataValue;
use tonic::server::{
    ClientStreamingService, ServerStreamingService, StreamingService, UnaryService,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::interop::Way;
use crate::support::{client, pki, soon};

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "vec", tag = "2")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EchoStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SimpleRequest {
    #[prost(int32, tag = "2")]
    response_size: i32,
    #[prost(message, tag = "3")]
    payload: Option<Payload>,
    #[prost(message, tag = "7")]
    response_status: Option<EchoStatus>,
}

/// Also `StreamingInputCallRequest` and `StreamingOutputCallResponse`, which look the same.
#[derive(Clone, PartialEq, prost::Message)]
struct OnePayload {
    #[prost(message, tag = "1")]
    payload: Option<Payload>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct InputSum {
    #[prost(int32, tag = "1")]
    aggregated_payload_size: i32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Parameters {
    #[prost(int32, tag = "1")]
    size: i32,
    #[prost(int32, tag = "2")]
    interval_us: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OutputRequest {
    #[prost(message, repeated, tag = "2")]
    response_parameters: Vec<Parameters>,
    #[prost(message, tag = "3")]
    payload: Option<Payload>,
    #[prost(message, tag = "7")]
    response_status: Option<EchoStatus>,
}

const INITIAL: &str = "x-grpc-test-echo-initial";
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";
const REQUESTS: [i32; 4] = [27182, 8, 1828, 45904];
const RESPONSES: [i32; 4] = [31415, 9, 2653, 58979];
const SPECIAL: &str =
    "\t\ntest with whitespace\r\nand Unicode BMP \u{263a} and non-BMP \u{1f608}\t\n";

fn payload(size: i32) -> Option<Payload> {
    let body = vec![0; usize::try_from(size).unwrap()];
    Some(Payload { body })
}

fn length(payload: Option<&Payload>) -> i32 {
    i32::try_from(payload.map_or(0, |payload| payload.body.len())).unwrap()
}

// === the server ===

pub(super) struct Server {
    pub(super) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub(super) async fn serve() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let answer = service_fn(|request| async { Ok::<_, Status>(respond(request).await) });
            let serving = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), answer);
            // How a connection ends is its client's affair.
            tokio::spawn(async move { drop(serving.await) });
        }
    });
    Server { address, accepting }
}

async fn respond(request: http::Request<Incoming>) -> http::Response<tonic::body::Body> {
    let asked = |name: &str| request.headers().get(name).cloned();
    let (initial, trailing) = (asked(INITIAL), asked(TRAILING));
    let mut response = route(request).await;
    if let Some(initial) = initial {
        response.headers_mut().insert(INITIAL, initial);
    }
    let Some(trailing) = trailing else {
        return response;
    };
    response.map(|body| tonic::body::Body::new(echoing(body, trailing)))
}

/// tonic's handlers cannot add trailers of their own to an answer that is fine.
fn echoing(
    body: tonic::body::Body,
    trailing: HeaderValue,
) -> impl http_body::Body<Data = bytes::Bytes, Error = Status> + Send {
    body.map_frame(move |frame| match frame.into_trailers() {
        Ok(mut trailers) => {
            trailers.insert(HeaderName::from_static(TRAILING), trailing.clone());
            http_body::Frame::trailers(trailers)
        }
        Err(frame) => frame,
    })
}

async fn route(request: http::Request<Incoming>) -> http::Response<tonic::body::Body> {
    let method = request
        .uri()
        .path()
        .strip_prefix("/grpc.testing.TestService/");
    match method.unwrap_or_default().to_owned().as_str() {
        "EmptyCall" => {
            let empty = |_: Request<Empty>| async { Ok(Response::new(Empty {})) };
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            grpc.unary(By(empty), request).await
        }
        "UnaryCall" => {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            grpc.unary(By(unary), request).await
        }
        "StreamingInputCall" => {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            grpc.client_streaming(By(input), request).await
        }
        "StreamingOutputCall" => {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            grpc.server_streaming(By(output), request).await
        }
        "FullDuplexCall" => {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            grpc.streaming(By(duplex), request).await
        }
        _ => Status::unimplemented("not here").into_http(),
    }
}

/// A handler that is a function.
struct By<F>(F);

type Answered<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

impl<Q, A, F, T> UnaryService<Q> for By<F>
where
    F: FnMut(Request<Q>) -> T,
    T: Future<Output = Result<Response<A>, Status>> + Send + 'static,
{
    type Response = A;
    type Future = Answered<A>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        Box::pin((self.0)(request))
    }
}

impl<Q, A, F, T> ClientStreamingService<Q> for By<F>
where
    F: FnMut(Request<Streaming<Q>>) -> T,
    T: Future<Output = Result<Response<A>, Status>> + Send + 'static,
{
    type Response = A;
    type Future = Answered<A>;

    fn call(&mut self, request: Request<Streaming<Q>>) -> Self::Future {
        Box::pin((self.0)(request))
    }
}

impl<Q, A, F, T> ServerStreamingService<Q> for By<F>
where
    F: FnMut(Request<Q>) -> T,
    T: Future<Output = Result<Response<BoxStream<A>>, Status>> + Send + 'static,
{
    type Response = A;
    type ResponseStream = BoxStream<A>;
    type Future = Answered<BoxStream<A>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        Box::pin((self.0)(request))
    }
}

impl<Q, A, F, T> StreamingService<Q> for By<F>
where
    F: FnMut(Request<Streaming<Q>>) -> T,
    T: Future<Output = Result<Response<BoxStream<A>>, Status>> + Send + 'static,
{
    type Response = A;
    type ResponseStream = BoxStream<A>;
    type Future = Answered<BoxStream<A>>;

    fn call(&mut self, request: Request<Streaming<Q>>) -> Self::Future {
        Box::pin((self.0)(request))
    }
}

fn refuse(status: Option<EchoStatus>) -> Result<(), Status> {
    match status {
        Some(status) if status.code != 0 => {
            Err(Status::new(Code::from(status.code), status.message))
        }
        _ => Ok(()),
    }
}

async fn unary(request: Request<SimpleRequest>) -> Result<Response<OnePayload>, Status> {
    let request = request.into_inner();
    refuse(request.response_status)?;
    let payload = payload(request.response_size);
    Ok(Response::new(OnePayload { payload }))
}

async fn input(request: Request<Streaming<OnePayload>>) -> Result<Response<InputSum>, Status> {
    let mut requests = request.into_inner();
    let mut sum = 0;
    while let Some(request) = requests.message().await? {
        sum += length(request.payload.as_ref());
    }
    Ok(Response::new(InputSum {
        aggregated_payload_size: sum,
    }))
}

async fn output(
    request: Request<OutputRequest>,
) -> Result<Response<BoxStream<OnePayload>>, Status> {
    let (sender, answers) = mpsc::channel(1);
    tokio::spawn(async move { answer(&sender, request.into_inner()).await });
    Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
}

async fn duplex(
    request: Request<Streaming<OutputRequest>>,
) -> Result<Response<BoxStream<OnePayload>>, Status> {
    let (sender, answers) = mpsc::channel(1);
    let mut requests = request.into_inner();
    tokio::spawn(async move {
        while let Ok(Some(request)) = requests.message().await {
            if !answer(&sender, request).await {
                return;
            }
        }
    });
    Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
}

/// Whether there is anybody who wants more.
async fn answer(sender: &mpsc::Sender<Result<OnePayload, Status>>, request: OutputRequest) -> bool {
    if let Err(status) = refuse(request.response_status) {
        let _ = sender.send(Err(status)).await;
        return false;
    }
    for asked in request.response_parameters {
        let pause = Duration::from_micros(u64::try_from(asked.interval_us).unwrap());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = sender.closed() => return false,
        }
        let payload = payload(asked.size);
        if sender.send(Ok(OnePayload { payload })).await.is_err() {
            return false;
        }
    }
    true
}

// === the client ===

/// Runs every case over one connection.
pub(super) async fn meet(way: &Way) {
    let peer = Peer {
        label: way.label.clone(),
        channel: connect(way).await,
    };
    soon(&peer.label, async {
        peer.unary_calls().await;
        peer.streams().await;
        peer.metadata().await;
        peer.refusals().await;
        peer.endings().await;
        peer.unary_calls().await;
    })
    .await;
}

async fn connect(way: &Way) -> Channel {
    if !way.tls {
        let endpoint = Endpoint::from_shared(format!("http://{}", way.address)).unwrap();
        return endpoint.connect().await.unwrap();
    }
    let public: Uri = format!("https://{}", pki::HOST).parse().unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", way.address)).unwrap();
    let connector = OverTls(way.address.parse().unwrap());
    let endpoint = endpoint.origin(public);
    endpoint.connect_with_connector(connector).await.unwrap()
}

/// tonic brings TLS along; the tests' own authority is ours to bring.
struct OverTls(SocketAddr);

impl Service<Uri> for OverTls {
    type Response = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.0;
        Box::pin(async move {
            let config = pki::SHARED.client(&["h2"], rustls::DEFAULT_VERSIONS);
            let stream = client::tls(address, config, pki::HOST).await?;
            Ok(TokioIo::new(stream))
        })
    }
}

struct Peer {
    label: String,
    channel: Channel,
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

const EMPTY: &str = "/grpc.testing.TestService/EmptyCall";
const UNARY: &str = "/grpc.testing.TestService/UnaryCall";
const INPUT: &str = "/grpc.testing.TestService/StreamingInputCall";
const OUTPUT: &str = "/grpc.testing.TestService/StreamingOutputCall";
const DUPLEX: &str = "/grpc.testing.TestService/FullDuplexCall";
const MISSING: &str = "/grpc.testing.TestService/UnimplementedCall";
const NOWHERE: &str = "/grpc.testing.UnimplementedService/UnimplementedCall";

fn ask(sizes: &[i32], body: i32, interval_us: i32) -> OutputRequest {
    let parameters = sizes.iter().map(|&size| Parameters { size, interval_us });
    OutputRequest {
        response_parameters: parameters.collect(),
        payload: payload(body),
        response_status: None,
    }
}

fn large() -> SimpleRequest {
    SimpleRequest {
        response_size: 314_159,
        payload: payload(271_828),
        response_status: None,
    }
}

impl Peer {
    async fn grpc(&self) -> Grpc<Channel> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        grpc
    }

    async fn unary<Q, A>(
        &self,
        method: &'static str,
        request: Request<Q>,
    ) -> Result<Response<A>, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let codec = ProstCodec::<Q, A>::default();
        self.grpc().await.unary(request, path(method), codec).await
    }

    async fn duplex(
        &self,
        requests: Request<impl Stream<Item = OutputRequest> + Send + 'static>,
    ) -> Result<Response<Streaming<OnePayload>>, Status> {
        let codec = ProstCodec::default();
        let mut grpc = self.grpc().await;
        grpc.streaming(requests, path(DUPLEX), codec).await
    }

    /// `empty_unary`, `large_unary`
    async fn unary_calls(&self) {
        self.unary::<Empty, Empty>(EMPTY, Request::new(Empty {}))
            .await
            .unwrap();
        let answer: OnePayload = self
            .unary(UNARY, Request::new(large()))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(length(answer.payload.as_ref()), 314_159, "{}", self.label);
    }

    /// `client_streaming`, `server_streaming`, `ping_pong`, `empty_stream`
    async fn streams(&self) {
        let requests = REQUESTS.map(|size| OnePayload {
            payload: payload(size),
        });
        let codec = ProstCodec::<OnePayload, InputSum>::default();
        let requests = Request::new(tokio_stream::iter(requests));
        let answer = self
            .grpc()
            .await
            .client_streaming(requests, path(INPUT), codec)
            .await;
        let sum = answer.unwrap().into_inner().aggregated_payload_size;
        assert_eq!(sum, 74_922, "{}", self.label);

        let codec = ProstCodec::<OutputRequest, OnePayload>::default();
        let request = Request::new(ask(&RESPONSES, 0, 0));
        let answers = self
            .grpc()
            .await
            .server_streaming(request, path(OUTPUT), codec)
            .await;
        let answers: Vec<_> = answers
            .unwrap()
            .into_inner()
            .map(Result::unwrap)
            .collect()
            .await;
        let sizes: Vec<i32> = answers
            .iter()
            .map(|answer| length(answer.payload.as_ref()))
            .collect();
        assert_eq!(sizes, RESPONSES, "{}", self.label);

        let (sender, requests) = mpsc::channel(1);
        sender
            .send(ask(&RESPONSES[..1], REQUESTS[0], 0))
            .await
            .unwrap();
        let answers = self
            .duplex(Request::new(ReceiverStream::new(requests)))
            .await;
        let mut answers = answers.unwrap().into_inner();
        for turn in 0..4 {
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!(
                length(answer.payload.as_ref()),
                RESPONSES[turn],
                "{}",
                self.label
            );
            if let Some(next) = REQUESTS.get(turn + 1) {
                sender
                    .send(ask(&RESPONSES[turn + 1..turn + 2], *next, 0))
                    .await
                    .unwrap();
            }
        }
        drop(sender);
        assert!(answers.message().await.unwrap().is_none(), "{}", self.label);

        let nothing = Request::new(tokio_stream::empty());
        let mut answers = self.duplex(nothing).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().is_none(), "{}", self.label);
    }

    /// `custom_metadata`
    async fn metadata(&self) {
        let raw = MetadataValue::from_bytes(b"\xab\xab\xab");
        let mut request = Request::new(large());
        request
            .metadata_mut()
            .insert(INITIAL, "test_initial_metadata_value".parse().unwrap());
        request.metadata_mut().insert_bin(TRAILING, raw.clone());
        let metadata = request.metadata().clone();
        let answer: Response<OnePayload> = self.unary(UNARY, request).await.unwrap();
        assert_eq!(
            answer.metadata().get(INITIAL).unwrap(),
            "test_initial_metadata_value"
        );
        assert_eq!(
            answer.metadata().get_bin(TRAILING),
            Some(&raw),
            "{}",
            self.label
        );

        let mut requests = Request::new(tokio_stream::iter([ask(&[31_415], 27_182, 0)]));
        *requests.metadata_mut() = metadata;
        let answers = self.duplex(requests).await.unwrap();
        assert_eq!(
            answers.metadata().get(INITIAL).unwrap(),
            "test_initial_metadata_value"
        );
        let mut answers = answers.into_inner();
        while answers.message().await.unwrap().is_some() {}
        let trailers = answers.trailers().await.unwrap().unwrap();
        assert_eq!(trailers.get_bin(TRAILING), Some(&raw), "{}", self.label);
    }

    /// `status_code_and_message`, `special_status_message`, `unimplemented_method`, `unimplemented_service`
    async fn refusals(&self) {
        for message in ["test status message", SPECIAL] {
            let response_status = Some(EchoStatus {
                code: 2,
                message: message.to_owned(),
            });
            let request = SimpleRequest {
                response_status: response_status.clone(),
                ..SimpleRequest::default()
            };
            let refused = self
                .unary::<_, OnePayload>(UNARY, Request::new(request))
                .await;
            let refused = refused.unwrap_err();
            assert_eq!(
                (refused.code(), refused.message()),
                (Code::Unknown, message),
                "{}",
                self.label
            );

            let request = OutputRequest {
                response_status,
                ..OutputRequest::default()
            };
            let requests = Request::new(tokio_stream::iter([request]));
            let refused = match self.duplex(requests).await {
                Ok(answers) => answers.into_inner().message().await.unwrap_err(),
                Err(refused) => refused,
            };
            assert_eq!(
                (refused.code(), refused.message()),
                (Code::Unknown, message),
                "{}",
                self.label
            );
        }
        for method in [MISSING, NOWHERE] {
            let refused = self
                .unary::<Empty, Empty>(method, Request::new(Empty {}))
                .await;
            assert_eq!(
                refused.unwrap_err().code(),
                Code::Unimplemented,
                "{} {method}",
                self.label
            );
        }
    }

    /// `cancel_after_begin`, `cancel_after_first_response`, `timeout_on_sleeping_server`
    async fn endings(&self) {
        let mut grpc = self.grpc().await;
        let codec = ProstCodec::<OnePayload, InputSum>::default();
        let requests = Request::new(tokio_stream::pending());
        let begun = grpc.client_streaming(requests, path(INPUT), codec);
        let begun = tokio::time::timeout(Duration::from_millis(50), begun).await;
        assert!(begun.is_err(), "{}: answered without a request", self.label);

        let (sender, requests) = mpsc::channel(1);
        sender.send(ask(&[31_415], 27_182, 0)).await.unwrap();
        let answers = self
            .duplex(Request::new(ReceiverStream::new(requests)))
            .await;
        let mut answers = answers.unwrap().into_inner();
        assert!(answers.message().await.unwrap().is_some());
        drop((answers, sender));

        let asked = tokio_stream::iter([ask(&[31_415], 27_182, 30_000_000)]);
        let mut requests = Request::new(asked.chain(tokio_stream::pending()));
        requests.set_timeout(Duration::from_millis(100));
        let late = match self.duplex(requests).await {
            Ok(answers) => {
                let mut answers = answers.into_inner();
                let late = tokio::time::timeout(Duration::from_secs(1), answers.message()).await;
                let Ok(late) = late else {
                    // tonic's client stops its clock at the first byte, and the server above has none.
                    assert_eq!(
                        self.label, "tonic, direct",
                        "the time of the call is not kept"
                    );
                    return;
                };
                late.unwrap_err()
            }
            Err(late) => late,
        };
        // Its own clock says the one, the gateway's the other.
        assert!(
            matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled),
            "{}: {late:?}",
            self.label
        );
    }
}
