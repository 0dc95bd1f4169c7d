//! The test's own upstream. It records every request and answers what it was told to.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::body::{self, FrameSender, Payload};
use super::{eventually, pki};

/// What the origin speaks, and therefore how the gateway must speak to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http,
    Https,
    H2c,
    H2,
}

impl Speaks {
    pub fn is_h2(self) -> bool {
        matches!(self, Self::H2c | Self::H2)
    }

    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::H2)
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::H2 => "h2",
        }
    }
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub version: Version,
    pub method: String,
    /// Path and query.
    pub target: String,
    /// What the request says whom it is for: `:authority`, or else Host.
    pub authority: String,
    /// In order, duplicates included.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub trailers: HeaderMap,
    /// Whether the body ended as it should.
    pub whole: bool,
    /// Which of the origin's connections it came on.
    pub connection: usize,
}

impl Seen {
    /// The one value of a field; empty without. Two are a failure.
    pub fn header(&self, name: &str) -> &str {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} came {} times: {all:?}", all.len());
        all.first().copied().unwrap_or_default()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Holds answers back until the test lets them go.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

pub fn gate() -> Gate {
    Gate(Arc::new(Semaphore::new(0)))
}

impl Gate {
    /// Lets everything through, now and later.
    pub fn open(&self) {
        self.0.add_permits(1_000_000);
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        self.pass().await;
    }

    async fn pass(&self) {
        self.0.acquire().await.expect("never closed").forget();
    }
}

/// What the origin answers.
#[derive(Clone, Debug)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    what: What,
    trailers: Option<HeaderMap>,
    gate: Option<Gate>,
}

#[derive(Clone, Debug)]
enum What {
    Empty,
    Full(Bytes),
    /// First frames at once; then, when the gate opens, the others.
    Chunks(Vec<Bytes>, Option<(Gate, Vec<Bytes>)>),
    /// One chunk, then the stream breaks.
    Broken(Bytes),
    /// The request's frames, while they arrive.
    Echo,
    /// The same piece for as long as anybody takes it, and how many bytes were taken.
    Endless(Bytes, Arc<AtomicUsize>),
    Never,
}

impl Reply {
    fn new(status: u16, what: What) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            what,
            trailers: None,
            gate: None,
        }
    }

    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::new(200, What::Full(text.into()))
    }

    pub fn json(value: &serde_json::Value) -> Self {
        Self::text(value.to_string()).header("content-type", "application/json")
    }

    pub fn empty(status: u16) -> Self {
        Self::new(status, What::Empty)
    }

    pub fn status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).unwrap();
        self
    }

    pub fn chunks(chunks: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let chunks = chunks.into_iter().map(Into::into).collect();
        Self::new(200, What::Chunks(chunks, None))
    }

    /// The first chunk at once, the second when the gate opens.
    pub fn two_halves(first: &'static str, gate: &Gate, second: &'static str) -> Self {
        let later = (gate.clone(), vec![Bytes::from(second)]);
        Self::new(200, What::Chunks(vec![first.into()], Some(later)))
    }

    pub fn broken(first: &'static str) -> Self {
        Self::new(200, What::Broken(first.into()))
    }

    pub fn echo() -> Self {
        Self::new(200, What::Echo)
    }

    /// The same piece again and again, for as long as somebody takes it.
    pub fn endless(piece: impl Into<Bytes>) -> Self {
        Self::endless_counted(piece, &Arc::default())
    }

    /// The same, and counts the bytes that were taken.
    pub fn endless_counted(piece: impl Into<Bytes>, taken: &Arc<AtomicUsize>) -> Self {
        Self::new(200, What::Endless(piece.into(), Arc::clone(taken)))
    }

    /// Accepts the request and never answers.
    pub fn never() -> Self {
        Self::new(200, What::Never)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers
            .append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        let trailers = self.trailers.get_or_insert_default();
        trailers.append(name, HeaderValue::from_static(value));
        self
    }

    /// Answers when the gate opens.
    pub fn behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

type Handler = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// An origin in the making.
pub struct Builder {
    speaks: Speaks,
    paths: HashMap<String, Handler>,
    early: HashMap<String, Reply>,
    otherwise: Handler,
}

pub fn http() -> Builder {
    speaking(Speaks::Http)
}

pub fn h2c() -> Builder {
    speaking(Speaks::H2c)
}

pub fn speaking(speaks: Speaks) -> Builder {
    Builder {
        speaks,
        paths: HashMap::new(),
        early: HashMap::new(),
        otherwise: Arc::new(|_| Reply::text("hello")),
    }
}

impl Builder {
    /// What is answered wherever no path is named.
    pub fn answer(self, text: &'static str) -> Self {
        self.reply(Reply::text(text))
    }

    pub fn reply(self, reply: Reply) -> Self {
        self.otherwise(move |_| reply.clone())
    }

    pub fn otherwise(mut self, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        self.otherwise = Arc::new(handler);
        self
    }

    pub fn on(
        mut self,
        path: &str,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.paths.insert(path.to_owned(), Arc::new(handler));
        self
    }

    pub fn path(self, path: &str, reply: Reply) -> Self {
        self.on(path, move |_| reply.clone())
    }

    /// Answers without waiting for the body; [`Reply::echo`] streams it back.
    pub fn early(mut self, path: &str, reply: Reply) -> Self {
        self.early.insert(path.to_owned(), reply);
        self
    }

    pub async fn run(self) -> Origin {
        self.run_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// The same on an address that is known already, to come back after a stop.
    pub async fn run_at(self, address: SocketAddr) -> Origin {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let speaks = self.speaks;
        let (running, stopped) = watch::channel(());
        let site = Arc::new(Site {
            paths: self.paths,
            early: self.early,
            otherwise: self.otherwise,
            seen: Mutex::default(),
            arrived: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        tokio::spawn(accept(listener, speaks, Arc::clone(&site), stopped));
        Origin {
            address,
            speaks,
            site,
            running,
        }
    }
}

/// A running origin; it ends when it is dropped.
pub struct Origin {
    pub address: SocketAddr,
    pub speaks: Speaks,
    site: Arc<Site>,
    running: watch::Sender<()>,
}

struct Site {
    paths: HashMap<String, Handler>,
    early: HashMap<String, Reply>,
    otherwise: Handler,
    seen: Mutex<Vec<Seen>>,
    arrived: AtomicUsize,
    connections: AtomicUsize,
}

impl Origin {
    /// As `endpoints` names it.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.speaks.scheme(), self.address)
    }

    /// Every request whose body has ended, in the order in which they ended.
    pub fn saw(&self) -> Vec<Seen> {
        self.site.seen.lock().clone()
    }

    /// The one request that came.
    pub fn only(&self) -> Seen {
        let mut seen = self.saw();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen.remove(0)
    }

    /// The request that ended last.
    pub fn last(&self) -> Seen {
        self.saw().pop().expect("a request")
    }

    /// Not even the head of a request.
    pub fn saw_nothing(&self) -> bool {
        self.heads() == 0
    }

    /// Requests whose heads have arrived.
    pub fn heads(&self) -> usize {
        self.site.arrived.load(Ordering::SeqCst)
    }

    /// Connections that were accepted.
    pub fn connections(&self) -> usize {
        self.site.connections.load(Ordering::SeqCst)
    }

    /// Waits until the heads of so many requests have arrived.
    pub async fn reached(&self, heads: usize) {
        eventually(&format!("{heads} requests at the origin"), async || {
            self.heads() >= heads
        })
        .await;
    }

    pub fn forget(&self) {
        self.site.seen.lock().clear();
        self.site.arrived.store(0, Ordering::SeqCst);
    }

    /// Ends every connection and frees the port.
    pub async fn stop(self) -> SocketAddr {
        let Self {
            address, running, ..
        } = self;
        // Senders know when every receiver is gone: the accept loop and all connections.
        running.send_replace(());
        running.closed().await;
        address
    }
}

async fn accept(
    listener: TcpListener,
    speaks: Speaks,
    site: Arc<Site>,
    mut stopped: watch::Receiver<()>,
) {
    let tls = speaks.is_tls().then(|| {
        let alpn = if speaks.is_h2() { "h2" } else { "http/1.1" };
        TlsAcceptor::from(pki::SHARED.server("leaf", &[alpn]))
    });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let (stream, _) = accepted.unwrap();
        let number = site.connections.fetch_add(1, Ordering::SeqCst);
        let (site, tls, mut stopped) = (Arc::clone(&site), tls.clone(), stopped.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = serve(stream, tls, speaks, site, number) => {}
                _ = stopped.changed() => {}
            }
        });
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    speaks: Speaks,
    site: Arc<Site>,
    number: usize,
) {
    stream.set_nodelay(true).unwrap();
    match tls {
        None => talk(stream, speaks, site, number).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                talk(stream, speaks, site, number).await;
            }
        }
    }
}

async fn talk<S>(stream: S, speaks: Speaks, site: Arc<Site>, number: usize)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { site.respond(request, number).await }
    });
    let io = TokioIo::new(stream);
    // How a connection ends is the gateway's affair; what arrived is recorded.
    if speaks.is_h2() {
        let _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ = http1::Builder::new().serve_connection(io, service).await;
    }
}

impl Site {
    async fn respond(
        &self,
        request: Request<Incoming>,
        connection: usize,
    ) -> Result<Response<Payload>, String> {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let (parts, body) = request.into_parts();
        let mut seen = Seen::head(&parts, connection);
        if let Some(early) = self.early.get(parts.uri.path()) {
            self.seen.lock().push(seen);
            return Ok(early.clone().response(Some(body)));
        }
        match body.collect().await {
            Ok(collected) => {
                seen.trailers = collected.trailers().cloned().unwrap_or_default();
                seen.body = collected.to_bytes();
            }
            Err(_) => seen.whole = false,
        }
        self.seen.lock().push(seen.clone());
        let handler = self.paths.get(parts.uri.path()).unwrap_or(&self.otherwise);
        let reply = handler(&seen);
        if let Some(gate) = &reply.gate {
            gate.pass().await;
        }
        if matches!(reply.what, What::Never) {
            std::future::pending::<Infallible>().await;
        }
        Ok(reply.response(None))
    }
}

impl Seen {
    fn head(parts: &http::request::Parts, connection: usize) -> Self {
        let target = parts.uri.path_and_query();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers: Vec<(String, String)> = parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect();
        let host = headers.iter().find(|(name, _)| name == "host");
        Self {
            version: parts.version,
            method: parts.method.to_string(),
            target: target.map(ToString::to_string).unwrap_or_default(),
            authority: parts.uri.authority().map_or_else(
                || host.map(|(_, value)| value.clone()).unwrap_or_default(),
                ToString::to_string,
            ),
            headers,
            body: Bytes::new(),
            trailers: HeaderMap::new(),
            whole: true,
            connection,
        }
    }
}

impl Reply {
    fn response(self, incoming: Option<Incoming>) -> Response<Payload> {
        let body = match (self.what, incoming) {
            (What::Echo, Some(incoming)) => incoming.map_err(|error| error.to_string()).boxed(),
            (What::Endless(piece, taken), _) => body::endless(piece, taken),
            (What::Full(bytes), _) if self.trailers.is_none() => body::full(bytes),
            (What::Full(bytes), _) => body::chunks([bytes], self.trailers),
            (What::Chunks(first, later), _) => streamed(first, later, self.trailers),
            (What::Broken(first), _) => {
                let (sender, body) = body::channel();
                sender.chunk(first);
                sender.break_off();
                body
            }
            (What::Empty, _) if self.trailers.is_some() => body::chunks([], self.trailers),
            _ => body::empty(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

fn streamed(
    first: Vec<Bytes>,
    later: Option<(Gate, Vec<Bytes>)>,
    trailers: Option<HeaderMap>,
) -> Payload {
    let Some((gate, rest)) = later else {
        return body::chunks(first, trailers);
    };
    let (sender, body) = body::channel();
    for chunk in first {
        sender.chunk(chunk);
    }
    tokio::spawn(finish(sender, gate, rest, trailers));
    body
}

async fn finish(sender: FrameSender, gate: Gate, rest: Vec<Bytes>, trailers: Option<HeaderMap>) {
    tokio::select! {
        () = gate.pass() => {}
        () = sender.abandoned() => return,
    }
    for chunk in rest {
        sender.chunk(chunk);
    }
    if let Some(trailers) = trailers {
        sender.trailers(trailers);
    }
}

/// A frame of a body, for tests that read answers piece by piece.
pub fn data(frame: Frame<Bytes>) -> Bytes {
    frame.into_data().unwrap_or_default()
}
