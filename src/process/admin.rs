//! The admin listener: `/metrics`, `/livez`, `/readyz`, `/status`, `/jwks.json`, `/decisions/ID`, `POST /reload`, and
//! `grpc.health.v1.Health` over HTTP/2. Loopback by default, exact paths, and
//! closed to browsers: a page of another origin must not be able to drive it.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Command, House, health};
use crate::server::Stage;
use crate::telemetry::Samples;
use crate::telemetry::metrics::{CONTENT_TYPE as CONTENT_TYPE_OF_METRICS, open};
use crate::types::{clock, task};

/// Operators and scrapers are few.
const MAX_CONNECTIONS: usize = 64;
/// Probes ask one thing at a time.
const MAX_STREAMS: u32 = 16;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection to the admin listener lives no longer than this; scrapers reconnect.
const MAX_AGE: Duration = Duration::from_secs(300);
/// What a command reads of an answer, and how long it waits.
const MAX_ANSWER: usize = 64 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Serves until the runtime ends. An accept error never ends it.
pub(super) async fn serve(
    house: Arc<House>,
    listener: TcpListener,
    commands: mpsc::Sender<Command>,
) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        tracing::error!("the admin listener cannot be served");
        return;
    };
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (house, commands) = (Arc::clone(&house), commands.clone());
        task::spawn("admin connection", async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (house, commands) = (Arc::clone(&house), commands.clone());
                async move { Ok::<_, Infallible>(answer(&house, &commands, request).await) }
            });
            let builder = builder();
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // Errors of an operator's connection are the operator's to see.
            let _ = tokio::time::timeout(MAX_AGE, connection).await;
            drop(permit);
        });
    }
}

/// HTTP/1.1, and HTTP/2 with prior knowledge for those who speak gRPC.
fn builder() -> auto::Builder<Spawner> {
    let mut builder = auto::Builder::new(Spawner);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(16 << 10);
    builder
}

/// Runs what hyper wants to run beside a connection.
#[derive(Clone, Copy, Debug)]
struct Spawner;

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        drop(task::spawn("admin stream", future));
    }
}

async fn answer(
    house: &Arc<House>,
    commands: &mpsc::Sender<Command>,
    request: Request<Incoming>,
) -> Answer {
    if comes_from_a_page(request.headers()) {
        return text(
            StatusCode::FORBIDDEN,
            "the admin listener does not answer web pages\n",
        );
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let headers = request.headers().clone();
    if let Some(answer) = health::answer(house, request).await {
        return answer;
    }
    match path.as_str() {
        "/reload" if method == Method::POST => reload(commands).await,
        "/reload" => not_allowed("POST"),
        path @ ("/metrics" | "/livez" | "/readyz" | "/status" | "/jwks.json") => {
            if method != Method::GET && method != Method::HEAD {
                return not_allowed("GET, HEAD");
            }
            match path {
                "/metrics" => metrics(house, &headers),
                "/livez" => text(StatusCode::OK, "alive\n"),
                "/readyz" => ready(house),
                "/jwks.json" => key_set(house),
                _ => status(house),
            }
        }
        path => match path.strip_prefix("/decisions/") {
            Some(id) if method == Method::GET => decision(house, id),
            Some(_) => not_allowed("GET"),
            None => text(
                StatusCode::NOT_FOUND,
                "/metrics /livez /readyz /status /jwks.json /decisions/ID, POST /reload\n",
            ),
        },
    }
}

/// Browsers mark what a page sends; no operator's tool does.
fn comes_from_a_page(headers: &HeaderMap) -> bool {
    let marked = |name: &str| headers.get(name).is_some_and(|site| site != "none");
    headers.contains_key(ORIGIN) || marked("sec-fetch-site")
}

async fn reload(commands: &mpsc::Sender<Command>) -> Answer {
    let (verdict, outcome) = oneshot::channel();
    if commands.send(Command::Reload(verdict)).await.is_err() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    match outcome.await {
        Ok(Ok(reloaded)) => json_answer(
            StatusCode::OK,
            &json!({ "generation": reloaded.generation }),
        ),
        Ok(Err(errors)) => {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            json_answer(
                StatusCode::UNPROCESSABLE_ENTITY,
                &json!({ "errors": errors }),
            )
        }
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

impl House {
    /// What keeps the gateway from serving, in words.
    pub(super) fn not_ready(&self) -> Vec<String> {
        if self.shared.drain.stage() > Stage::Serving {
            return vec!["draining".to_owned()];
        }
        self.shared.snapshot.load().not_ready()
    }
}

fn ready(house: &House) -> Answer {
    let missing = house.not_ready();
    if missing.is_empty() {
        text(StatusCode::OK, "ready\n")
    } else {
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("{}\n", missing.join("\n")),
        )
    }
}

fn metrics(house: &House, headers: &HeaderMap) -> Answer {
    let snapshot = house.shared.snapshot.load_full();
    let mut samples = snapshot.samples(clock::now());
    samples.in_flight = u64::from(house.shared.in_flight.count());
    samples.access_log_dropped = house.access_log.dropped();
    let (page, content_type) = if open::is_preferred(headers) {
        (house.metrics.render_open(&samples), open::CONTENT_TYPE)
    } else {
        (house.metrics.render(&samples), CONTENT_TYPE_OF_METRICS)
    };
    let mut response = text(StatusCode::OK, &page);
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    fields.insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn status(house: &House) -> Answer {
    let snapshot = house.shared.snapshot.load_full();
    let reload = *house.last_reload.lock();
    json_answer(
        StatusCode::OK,
        &json!({
            "version": env!("CARGO_PKG_VERSION"),
            "generation": snapshot.generation,
            "draining": (house.shared.drain.stage() > Stage::Serving),
            "not_ready": snapshot.not_ready(),
            "in_flight": house.shared.in_flight.count(),
            "last_reload": reload.map(|last| json!({ "ok": last.ok, "unix_seconds": last.unix_seconds })),
            "listeners": snapshot.listeners.iter().map(|listener| &*listener.name).collect::<Vec<_>>(),
            "upstreams": upstreams(&snapshot.samples(clock::now())),
            "issuers": snapshot.issuers(clock::now()),
            "store": snapshot.store_status(),
        }),
    )
}

/// The keys by which upstreams verify assertions.
fn key_set(house: &House) -> Answer {
    let Some(signer) = house.shared.snapshot.load().signer.clone() else {
        return text(StatusCode::NOT_FOUND, "no route has an assertion\n");
    };
    let mut response = Response::new(Full::new(signer.key_set()).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/jwk-set+json"),
    );
    response
}

fn decision(house: &House, id: &str) -> Answer {
    match house.shared.desk.decisions.find(id) {
        Some(decision) => json_answer(StatusCode::OK, &decision.to_json()),
        None => text(
            StatusCode::NOT_FOUND,
            "not among the last refusals of this process\n",
        ),
    }
}

/// Asks the admin listener of another process: one GET, for commands.
///
/// # Errors
/// What went wrong, in words.
pub async fn ask(admin: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), String> {
    let asked = async {
        let stream = tokio::net::TcpStream::connect(admin).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        task::spawn("admin question", connection);
        let request = Request::get(path)
            .header(HOST, admin.to_string())
            .body(Empty::<Bytes>::new())?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((head.status, body.to_bytes()))
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|why| why.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

fn upstreams(samples: &Samples) -> Value {
    let clusters = samples.upstreams.iter().map(|upstream| {
        let endpoints = upstream.endpoints.iter().map(|endpoint| {
            json!({
                "endpoint": &*endpoint.endpoint,
                "healthy": endpoint.healthy,
                "in_flight": endpoint.in_flight,
            })
        });
        (
            upstream.upstream.to_string(),
            endpoints.collect::<Vec<Value>>().into(),
        )
    });
    Value::Object(clusters.collect())
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn json_answer(status: StatusCode, body: &Value) -> Answer {
    let mut response = text(status, &format!("{body}\n"));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn text(status: StatusCode, body: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
