//! Endpoints made of a few lines, clients made of fewer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::authz::permit::for_tests;
use crate::config::{KeyPath, Problems};
use crate::types::{Body, BodyError, Rejection, Request, Response, clock, task};
use crate::upstream::{Cluster, Facts, Forward, Pools};

/// Where an origin listens, and how many connections it took.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Origin {
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }
}

/// An origin that plays `script` on each connection; the script learns the connection's number, from 0.
pub(super) async fn origin<F, R>(script: F) -> Origin
where
    F: Fn(TcpStream, usize) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin {
        address: listener.local_addr().unwrap(),
        connections: Arc::default(),
    };
    let connections = Arc::clone(&origin.connections);
    drop(task::spawn("origin", async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let number = connections.fetch_add(1, Ordering::SeqCst);
            drop(task::spawn("origin connection", script(stream, number)));
        }
    }));
    origin
}

/// An origin that answers each request head with the same bytes. Request bodies are not looked at.
pub(super) async fn says(answer: &'static str) -> Origin {
    origin(move |mut stream, _| async move {
        while read_head(&mut stream).await.is_some() {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await
}

/// An origin that speaks HTTP/2 and answers with `answer`.
pub(super) async fn h2_origin<F, R>(max_streams: u32, answer: F) -> Origin
where
    F: Fn(http::Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = http::Response<Scripted>> + Send + 'static,
{
    origin(move |stream, _| {
        let answer = answer.clone();
        async move {
            let service = service_fn(move |request| {
                let answering = answer(request);
                async move { Ok::<_, Infallible>(answering.await) }
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(max_streams)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
}

/// Reads up to the empty line; `None` at the end of the connection.
pub(super) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// A body of prepared frames; then it ends, or waits for ever.
#[derive(Default)]
pub(super) struct Scripted {
    frames: VecDeque<Frame<Bytes>>,
    endless: bool,
}

impl Scripted {
    pub(super) fn data(mut self, bytes: &'static str) -> Self {
        self.frames.push_back(Frame::data(Bytes::from(bytes)));
        self
    }

    pub(super) fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        let mut trailers = HeaderMap::new();
        trailers.insert(name, HeaderValue::from_static(value));
        self.frames.push_back(Frame::trailers(trailers));
        self
    }

    pub(super) fn endless(mut self) -> Self {
        self.endless = true;
        self
    }
}

impl http_body::Body for Scripted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if self.endless => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

/// A body as it comes from a client over HTTP/2.
pub(super) async fn from_client(body: Scripted) -> Body {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (sender, mut receiver) = mpsc::unbounded_channel();
    drop(task::spawn("client's server side", async move {
        let service = service_fn(move |request: http::Request<Incoming>| {
            sender.send(request.into_body()).unwrap();
            std::future::pending::<Result<http::Response<Scripted>, Infallible>>()
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(far), service)
            .await;
    }));
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near))
            .await
            .unwrap();
    drop(task::spawn("client", connection));
    drop(task::spawn("client request", async move {
        let request = http::Request::post("http://client/").body(body).unwrap();
        let _ = client.send_request(request).await;
    }));
    Body::incoming(receiver.recv().await.unwrap())
}

/// Compiles `[upstream.api]` with these endpoints and further lines.
pub(super) fn cluster(endpoints: &[String], more: &str) -> Arc<Cluster> {
    try_cluster(endpoints, more, None).unwrap()
}

pub(super) fn try_cluster(
    endpoints: &[String],
    more: &str,
    previous: Option<&Arc<Cluster>>,
) -> Result<Arc<Cluster>, Vec<String>> {
    let text = format!("endpoints = {endpoints:?}\n{more}");
    let upstream = toml::from_str(&text).unwrap();
    let mut problems = Problems::default();
    let path = KeyPath::root().key("upstream").key("api");
    let compiled = Cluster::compile("api", &upstream, &path, previous, &mut problems);
    let errors = problems.into_errors();
    match compiled {
        Some(cluster) if errors.is_empty() => Ok(cluster),
        _ => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

pub(super) fn request(method: Method, body: Body) -> Request {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_static("/path?query");
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("public.example"));
    request
}

pub(super) fn get() -> Request {
    request(Method::GET, Body::empty())
}

pub(super) fn post(body: &'static str) -> Request {
    request(Method::POST, Body::full(body))
}

pub(super) fn patiently() -> Forward {
    Forward {
        timeout: Duration::from_secs(20),
        fate: None,
    }
}

pub(super) async fn send(
    pools: &Pools,
    cluster: &Arc<Cluster>,
    request: Request,
) -> Result<(Response, Facts), Rejection> {
    forward(pools, cluster, request, &patiently()).await
}

pub(super) async fn forward(
    pools: &Pools,
    cluster: &Arc<Cluster>,
    mut request: Request,
    options: &Forward,
) -> Result<(Response, Facts), Rejection> {
    pools
        .forward(for_tests(), cluster, &mut request, options)
        .await
        .map_err(|failed| failed.why)
}

/// Sends, and reads the answer to its end.
pub(super) async fn exchange(
    pools: &Pools,
    cluster: &Arc<Cluster>,
    request: Request,
) -> Result<(u16, String, Facts), Rejection> {
    let (response, facts) = send(pools, cluster, request).await?;
    let status = response.status().as_u16();
    let (text, _) = read(response.into_body()).await.unwrap();
    Ok((status, text, facts))
}

/// Data and trailers.
pub(super) async fn read(mut body: Body) -> Result<(String, Option<HeaderMap>), BodyError> {
    let mut text = String::new();
    let mut trailers = None;
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((text, trailers))
}

/// Waits until `fact` holds; the tasks of the test's runtime go on meanwhile.
pub(super) async fn eventually(what: &str, fact: impl Fn() -> bool) {
    let start = clock::now();
    while !fact() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
