//! Whole connections over loopback: what a client that misbehaves sees, and when.

mod floods;
mod framing;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::*;
use crate::config::{self, KeyPath, Problems};
use crate::tls::{Termination, dev};
use crate::types::{Body, Dialect, Protocol, Reason, clock, task};

const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(3600);

/// Everything is patient; a test shortens what it is about.
pub(super) fn limits() -> ListenerLimits {
    ListenerLimits {
        only: None,
        handshake_timeout: LONG,
        head_timeout: LONG,
        idle_timeout: LONG,
        write_timeout: LONG,
        max_connections: 100,
        max_connections_per_ip: 100,
        max_requests_per_connection: 1_000,
        max_connection_age: LONG,
        max_head: 32 << 10,
        max_fields: 100,
        max_target: 8 << 10,
        max_streams: 100,
        max_control_frames: 100,
        max_resets: 200,
        websockets: false,
    }
}

/// Answers by path: `/` at once, `/gate` when the gate opens, `/body` once it has read one, `/bytes/N` with N bytes,
/// `/big` with more than any buffer holds, `/panic` never.
struct Echo {
    limits: Arc<ListenerLimits>,
    tls: Option<Termination>,
    trusted: bool,
    gate: Notify,
    arrived: Semaphore,
    /// Method and path of each request.
    seen: Mutex<Vec<String>>,
    dropped: Semaphore,
    events: Mutex<HashMap<Event, u32>>,
    changed: Notify,
}

impl Handler for Echo {
    type Body = Body;
    type Presence = ();

    fn present(&self, _: usize, _: Protocol) {}

    async fn handle(
        self: Arc<Self>,
        conn: Arc<ConnFacts>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        self.arrived.add_permits(1);
        let line = format!("{} {}", request.method(), request.uri().path());
        self.seen.lock().push(line);
        let body = match request.uri().path() {
            "/gate" => {
                let _dropped = Dropped(Arc::clone(&self));
                self.gate.notified().await;
                Body::full("late")
            }
            "/big" => Body::full(Bytes::from(vec![b'x'; 64 << 20])),
            "/body" => match request.into_body().collect().await {
                Ok(body) => Body::full(body.to_bytes()),
                Err(_) => return Rejection::new(Reason::BadBody).render(Dialect::Http, "test"),
            },
            "/panic" => panic!("on purpose"),
            "/upgrade" => return upgrade(request),
            "/facts" => Body::full(format!(
                "{} {} {}",
                conn.scheme.as_str(),
                conn.protocol.as_str(),
                conn.server_name.as_deref().unwrap_or("-")
            )),
            path => match path.strip_prefix("/bytes/") {
                Some(count) => Body::full(vec![b'x'; count.parse().unwrap()]),
                None => Body::full("hello"),
            },
        };
        Response::new(body)
    }

    fn refuse(&self, _: &Arc<ConnFacts>, why: Rejection) -> Response<Body> {
        why.render(Dialect::Http, "test")
    }

    fn panicked(&self, _: &ConnFacts) -> Response<Body> {
        let mut response = Response::new(Body::full("sorry"));
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    }

    fn limits(&self, _: usize) -> Arc<ListenerLimits> {
        Arc::clone(&self.limits)
    }

    fn tls(&self, _: usize) -> Option<Arc<rustls::ServerConfig>> {
        self.tls.as_ref().map(|tls| Arc::clone(tls.config()))
    }

    fn trusts(&self, _: usize, _: IpAddr) -> bool {
        self.trusted
    }

    fn note(&self, _: usize, event: Event) {
        *self.events.lock().entry(event).or_default() += 1;
        self.changed.notify_waiters();
    }
}

/// Switches protocols, and sends back what comes then.
fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    drop(task::spawn("tunnel", async move {
        let tunnel = hyper_util::rt::TokioIo::new(upgraded.await.unwrap());
        let (mut reader, mut writer) = tokio::io::split(tunnel);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    }));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = http::HeaderValue::from_static("upgrade");
    response
        .headers_mut()
        .insert(http::header::CONNECTION, upgrade);
    let protocol = http::HeaderValue::from_static("echo");
    response
        .headers_mut()
        .insert(http::header::UPGRADE, protocol);
    response
}

/// Tells when it is dropped.
struct Dropped(Arc<Echo>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.dropped.add_permits(1);
    }
}

struct Running {
    address: SocketAddr,
    handler: Arc<Echo>,
    listener: Arc<Listener>,
    drain: Drain,
}

fn run(limits: ListenerLimits) -> Running {
    run_with(limits, None, false)
}

fn run_with(limits: ListenerLimits, tls: Option<Termination>, trusted: bool) -> Running {
    run_among(limits, tls, trusted, usize::MAX)
}

fn run_among(
    limits: ListenerLimits,
    tls: Option<Termination>,
    trusted: bool,
    most_in_process: usize,
) -> Running {
    let handler = Arc::new(Echo {
        limits: Arc::new(limits),
        tls,
        trusted,
        gate: Notify::new(),
        arrived: Semaphore::new(0),
        seen: Mutex::default(),
        dropped: Semaphore::new(0),
        events: Mutex::default(),
        changed: Notify::new(),
    });
    let socket = open("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let socket = tokio::net::TcpListener::from_std(socket).unwrap();
    let listener = Listener::new(0, "test", most_in_process);
    let drain = Drain::new();
    drop(task::spawn(
        "accept",
        accept(
            Arc::clone(&listener),
            socket,
            Arc::clone(&handler),
            drain.clone(),
        ),
    ));
    Running {
        address,
        handler,
        listener,
        drain,
    }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Waits until `event` was noted.
    async fn saw(&self, event: Event) {
        let seen = async {
            loop {
                let changed = self.handler.changed.notified();
                if self.handler.events.lock().contains_key(&event) {
                    return;
                }
                changed.await;
            }
        };
        let seen = timeout(PATIENCE, seen).await;
        assert!(seen.is_ok(), "{event:?} not in {:?}", self.handler.events);
    }
}

/// Waits for the next `count` of what is counted there.
async fn happened(what: &Semaphore, count: u32) {
    let permits = timeout(PATIENCE, what.acquire_many(count)).await;
    permits.expect("it did not happen").unwrap().forget();
}

/// Reads until the other side has closed, whichever way.
async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut seen = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut seen)).await;
    let _reset_or_end = read.expect("the connection is still open");
    seen
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// Reads one HTTP/1 answer with a body whose length is told.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut seen = Vec::new();
    let read = async {
        loop {
            seen.push(stream.read_u8().await.expect("the connection was closed"));
            let text = String::from_utf8_lossy(&seen);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() == length {
                return text.into_owned();
            }
        }
    };
    timeout(PATIENCE, read).await.expect("no answer")
}

async fn get(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    send(stream, request.as_bytes()).await;
    answer(stream).await
}

// === h2, by hand ===

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const PRIORITY: u8 = 2;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// GET of `path`, in static and literal fields without indexing.
fn request(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x01, 6];
    block.extend(b"a.test");
    block.extend([0x04, u8::try_from(path.len()).unwrap()]);
    block.extend(path.as_bytes());
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

async fn h2(running: &Running) -> TcpStream {
    let mut stream = running.connect().await;
    send(
        &mut stream,
        &[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat(),
    )
    .await;
    stream
}

#[derive(Debug)]
struct Seen {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

async fn next(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let read = async {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await.ok()?;
        let len = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        stream.read_exact(&mut payload).await.ok()?;
        Some(Seen {
            kind: header[3],
            flags: header[4],
            stream: u32::from_be_bytes([header[5], header[6], header[7], header[8]]),
            payload,
        })
    };
    timeout(PATIENCE, read)
        .await
        .expect("the connection is still open, and silent")
}

/// The next frame of this kind.
async fn until(stream: &mut (impl AsyncRead + Unpin), kind: u8) -> Seen {
    loop {
        let seen = next(stream).await.expect("the connection was closed");
        if seen.kind == kind {
            return seen;
        }
    }
}

async fn h2_exchange(stream: &mut TcpStream, id: u32, path: &str) -> Vec<u8> {
    send(stream, &request(id, path)).await;
    body(stream).await
}

/// The rest of the body of the one stream that is open.
async fn body(stream: &mut TcpStream) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let data = until(stream, DATA).await;
        body.extend(data.payload);
        if data.flags & END_STREAM != 0 {
            return body;
        }
    }
}

/// The error code of the last GOAWAY before the end.
async fn farewell(stream: &mut (impl AsyncRead + Unpin)) -> Option<u8> {
    let mut code = None;
    while let Some(seen) = next(stream).await {
        if seen.kind == GOAWAY {
            code = Some(seen.payload[7]);
        }
    }
    code
}

// === TLS ===

struct Pki {
    _dir: TempDir,
    termination: Termination,
    roots: Arc<rustls::RootCertStore>,
}

/// A folder for each set of names; the first one is the default.
fn pki(certificates: &[&[&str]]) -> Pki {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let dir = TempDir::new().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let mut folders = Vec::new();
    for (position, names) in certificates.iter().enumerate() {
        let folder = dir.path().join(position.to_string());
        let made = dev::ensure(&folder, names).unwrap();
        roots
            .add(CertificateDer::from_pem_file(made.ca).unwrap())
            .unwrap();
        folders.push(config::Certificate::Folder(folder));
    }
    let tls = config::Tls {
        certificates: folders,
        min_version: config::TlsVersion::default(),
    };
    let mut problems = Problems::default();
    let termination = Termination::compile(&tls, &KeyPath::root(), None, &mut problems);
    Pki {
        _dir: dir,
        termination: termination.unwrap(),
        roots: Arc::new(roots),
    }
}

type TlsClient = tokio_rustls::client::TlsStream<TcpStream>;

async fn handshake(
    stream: TcpStream,
    roots: &Arc<rustls::RootCertStore>,
    name: &str,
    alpn: &[&str],
) -> std::io::Result<TlsClient> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    timeout(PATIENCE, connector.connect(name, stream))
        .await
        .expect("the handshake does not end")
}

// === deadlines: HTTP/1 and the preface ===

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let running = run(ListenerLimits {
        head_timeout: SHORT,
        ..limits()
    });
    let mut stream = running.connect().await;
    assert_eq!(read_all(&mut stream).await, b"");
    running.saw(Event::HeadTimeout).await;
}

#[tokio::test]
async fn half_a_preface_is_closed_at_the_head_deadline() {
    for cut in [3, 15, 16, 23] {
        let running = run(ListenerLimits {
            head_timeout: SHORT,
            ..limits()
        });
        let mut stream = running.connect().await;
        send(&mut stream, &PREFACE[..cut]).await;
        read_all(&mut stream).await;
        running.saw(Event::HeadTimeout).await;
    }
}

#[tokio::test]
async fn a_head_dripped_byte_by_byte_is_closed_on_the_first_request_and_on_the_second() {
    for requests_before in [0, 1] {
        let running = run(ListenerLimits {
            head_timeout: SHORT,
            ..limits()
        });
        let mut stream = running.connect().await;
        for _ in 0..requests_before {
            get(&mut stream, "/").await;
        }
        let (mut reader, mut writer) = stream.into_split();
        let drip = async {
            let head = b"GET / HTTP/1.1\r\nHost: a.test\r\nX: ".iter();
            for byte in head.chain(std::iter::repeat(&b'x')) {
                if writer.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(SHORT / 20).await;
            }
        };
        let (seen, ()) = tokio::join!(read_all(&mut reader), drip);
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.starts_with("HTTP/1.1 408"), "{seen}");
        assert!(seen.contains("connection: close"), "{seen}");
        assert!(seen.contains(r#""code":"head_timeout""#), "{seen}");
        running.saw(Event::HeadTimeout).await;
    }
}

#[tokio::test]
async fn an_idle_connection_outlives_the_head_deadline_and_not_the_idle_one() {
    let running = run(ListenerLimits {
        head_timeout: SHORT,
        idle_timeout: SHORT * 3,
        ..limits()
    });
    let mut stream = running.connect().await;
    get(&mut stream, "/").await;
    let since = clock::now();
    assert_eq!(read_all(&mut stream).await, b"");
    let lived = clock::now() - since;
    assert!(lived >= SHORT * 3 - Duration::from_millis(20), "{lived:?}");
    running.saw(Event::IdleTimeout).await;
}

#[tokio::test]
async fn a_slow_handler_is_not_an_idle_connection() {
    let running = run(ListenerLimits {
        head_timeout: SHORT / 4,
        idle_timeout: SHORT / 4,
        ..limits()
    });
    let mut stream = running.connect().await;
    let open = async {
        happened(&running.handler.arrived, 1).await;
        tokio::time::sleep(SHORT).await;
        running.handler.gate.notify_one();
    };
    let (seen, ()) = tokio::join!(get(&mut stream, "/gate"), open);
    assert!(seen.ends_with("late"), "{seen}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let running = run(ListenerLimits {
            write_timeout: SHORT,
            ..limits()
        });
        let mut stream = match protocol {
            Protocol::Http1 => {
                let mut stream = running.connect().await;
                send(&mut stream, b"GET /big HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
                stream
            }
            Protocol::Http2 => {
                let mut stream = running.connect().await;
                // Windows as wide as they go, so that only the socket stands in the way.
                let wide = [0, 4, 0x7f, 0xff, 0xff, 0xff];
                let more = frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes());
                let settings = frame(SETTINGS, 0, 0, &wide);
                let wire = [PREFACE, &settings, &more, &request(1, "/big")].concat();
                send(&mut stream, &wire).await;
                stream
            }
        };
        running.saw(Event::WriteStalled).await;
        // Nor does the kernel go on for us with the megabytes that it took.
        assert!(is_reset(&mut stream).await);
    }
}

/// An answer that the kernel took whole: nothing is blocked, and the connection ends for being idle.
#[tokio::test]
async fn what_the_kernel_took_is_not_kept_for_a_client_that_takes_nothing() {
    let running = run(ListenerLimits {
        write_timeout: SHORT,
        idle_timeout: SHORT,
        ..limits()
    });
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = socket.connect(running.address).await.unwrap();
    let wire = b"GET /bytes/500000 HTTP/1.1\r\nHost: a.test\r\n\r\n";
    send(&mut stream, wire).await;
    running.saw(Event::IdleTimeout).await;
    // Given up without a word: only who asks for the rest is told.
    let ends = (running.address.port(), stream.local_addr().unwrap().port());
    let given_up = async {
        while kernel_knows(ends) {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    let given_up = timeout(PATIENCE, given_up).await;
    assert!(given_up.is_ok(), "it is still owed");
    assert!(is_reset(&mut stream).await);
}

/// Whether there is an IPv4 connection between these ports, seen from the first.
fn kernel_knows((ours, theirs): (u16, u16)) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (ours, theirs) = (format!(":{ours:04X}"), format!(":{theirs:04X}"));
    table.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let mut ends_with = |port: &str| columns.next().is_some_and(|end| end.ends_with(port));
        ends_with(&ours) && ends_with(&theirs)
    })
}

/// Whether the rest of what is read ends in a reset.
async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut sink = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut sink)).await;
    let end = read.expect("the connection is still open");
    end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431_and_the_answer_arrives() {
    let running = run(limits());
    let mut stream = running.connect().await;
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n",
        "x".repeat(200 << 10)
    );
    let (mut reader, mut writer) = stream.split();
    let (seen, _) = tokio::join!(read_all(&mut reader), writer.write_all(head.as_bytes()));
    assert!(seen.starts_with(b"HTTP/1.1 431"), "{seen:?}");
    running.saw(Event::BadHead).await;
}

// === deadlines: HTTP/2 ===

#[tokio::test]
async fn an_h2_client_is_told_what_it_may() {
    let running = run(limits());
    let mut stream = h2(&running).await;
    let settings = until(&mut stream, SETTINGS).await;
    let told: HashMap<u16, u32> = settings
        .payload
        .chunks(6)
        .map(|pair| {
            let id = u16::from_be_bytes([pair[0], pair[1]]);
            (id, u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
        })
        .collect();
    let of = |id| told.get(&id).copied();
    assert_eq!(of(3), Some(100), "streams");
    assert_eq!(of(4).unwrap_or(65_535), 64 << 10, "window of a stream");
    assert_eq!(of(6), Some(32 << 10), "header list");
    // Beyond the 65,535 bytes that every connection begins with.
    let window = until(&mut stream, WINDOW_UPDATE).await;
    assert_eq!(window.stream, 0);
    let more = u32::from_be_bytes(window.payload[..].try_into().unwrap());
    assert_eq!(more + 65_535, 1 << 20, "window of the connection");
}

#[tokio::test]
async fn an_idle_h2_connection_is_ended_although_pings_arrive() {
    let running = run(ListenerLimits {
        idle_timeout: SHORT,
        max_control_frames: 1_000_000,
        ..limits()
    });
    let mut stream = h2(&running).await;
    assert_eq!(h2_exchange(&mut stream, 1, "/").await, b"hello");
    let (mut reader, mut writer) = stream.into_split();
    let ping = async {
        let ping = frame(PING, 0, 0, b"anyone??");
        while writer.write_all(&ping).await.is_ok() {
            tokio::time::sleep(SHORT / 20).await;
        }
    };
    let (seen, ()) = tokio::join!(read_all(&mut reader), ping);
    let goaway = frame(GOAWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert!(
        seen.windows(goaway.len()).any(|part| part == goaway),
        "no GOAWAY"
    );
    running.saw(Event::IdleTimeout).await;
}

#[tokio::test]
async fn an_h2_connection_without_a_request_is_closed() {
    let running = run(ListenerLimits {
        head_timeout: SHORT,
        ..limits()
    });
    let mut stream = h2(&running).await;
    farewell(&mut stream).await;
    running.saw(Event::HeadTimeout).await;
}

#[tokio::test]
async fn an_unfinished_header_block_is_closed_although_another_stream_is_open() {
    let running = run(ListenerLimits {
        head_timeout: SHORT,
        ..limits()
    });
    let mut stream = h2(&running).await;
    send(&mut stream, &request(1, "/gate")).await;
    happened(&running.handler.arrived, 1).await;
    let mut unfinished = request(3, "/");
    unfinished[4] = END_STREAM;
    send(&mut stream, &unfinished).await;
    farewell(&mut stream).await;
    running.saw(Event::HeadTimeout).await;
}

#[tokio::test]
async fn a_bad_preface_after_its_first_line_is_answered_in_h2() {
    let running = run(limits());
    let mut stream = running.connect().await;
    send(&mut stream, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nXXXXXXXXX").await;
    let seen = read_all(&mut stream).await;
    assert!(!seen.starts_with(b"HTTP/1"), "{seen:?}");
}

// === TLS ===

#[tokio::test]
async fn half_a_client_hello_is_closed_at_the_handshake_deadline() {
    for hello in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let limits = ListenerLimits {
            handshake_timeout: SHORT,
            ..limits()
        };
        let pki = pki(&[&["a.test"]]);
        let running = run_with(limits, Some(pki.termination), false);
        let mut stream = running.connect().await;
        send(&mut stream, hello).await;
        read_all(&mut stream).await;
        running.saw(Event::HandshakeTimeout).await;
    }
}

#[tokio::test]
async fn after_the_handshake_the_head_deadline_runs() {
    for alpn in ["h2", "http/1.1"] {
        let pki = pki(&[&["a.test"]]);
        let limits = ListenerLimits {
            head_timeout: SHORT,
            ..limits()
        };
        let running = run_with(limits, Some(pki.termination), false);
        let stream = running.connect().await;
        let mut stream = handshake(stream, &pki.roots, "a.test", &[alpn])
            .await
            .unwrap();
        read_all(&mut stream).await;
        running.saw(Event::HeadTimeout).await;
    }
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate_and_is_told_to_the_handler() {
    let pki = pki(&[&["first.test"], &["*.wild.test"], &["a.wild.test"]]);
    let running = run_with(limits(), Some(pki.termination), false);
    for name in ["first.test", "b.wild.test", "A.wild.test"] {
        let stream = running.connect().await;
        // The client refuses a certificate that does not bear the name.
        let mut stream = handshake(stream, &pki.roots, name, &["http/1.1"])
            .await
            .unwrap();
        let seen = get(&mut stream, "/facts").await;
        let expected = format!("https h1 {}", name.to_ascii_lowercase());
        assert!(seen.ends_with(&expected), "{seen}");
    }
    let stream = running.connect().await;
    let unknown = handshake(stream, &pki.roots, "other.test", &[]).await;
    let why = unknown.unwrap_err().to_string();
    assert!(why.contains("first.test"), "not the default: {why}");
    running.saw(Event::HandshakeFailed).await;
}

#[tokio::test]
async fn a_client_hello_cut_into_single_bytes_gets_the_certificate_of_its_name() {
    let pki = pki(&[&["first.test"], &["second.test"]]);
    let running = run_with(limits(), Some(pki.termination), false);
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let wire = running.connect().await;
    wire.set_nodelay(true).unwrap();
    let (mut wire_reader, mut wire_writer) = wire.into_split();
    drop(task::spawn("cut", async move {
        let (mut far_reader, mut far_writer) = tokio::io::split(&mut far);
        let back = tokio::io::copy(&mut wire_reader, &mut far_writer);
        let cut = async {
            while let Ok(byte) = far_reader.read_u8().await {
                if wire_writer.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::join!(back, cut);
    }));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(pki.roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("second.test").unwrap();
    let connected = timeout(PATIENCE, connector.connect(name, near)).await;
    let mut stream = connected.unwrap().unwrap();
    assert!(
        get(&mut stream, "/facts")
            .await
            .ends_with("https h1 second.test")
    );
}

#[tokio::test]
async fn alpn_pins_the_protocol_for_good() {
    let pki = pki(&[&["a.test"]]);
    let running = run_with(limits(), Some(pki.termination), false);
    for alpn in [&["http/1.1"][..], &[]] {
        let stream = running.connect().await;
        let mut stream = handshake(stream, &pki.roots, "a.test", alpn).await.unwrap();
        send(&mut stream, PREFACE).await;
        let seen = read_all(&mut stream).await;
        assert!(seen.starts_with(b"HTTP/1.1 505"), "h2 without ALPN");
    }
    let stream = running.connect().await;
    let mut stream = handshake(stream, &pki.roots, "a.test", &["h2"])
        .await
        .unwrap();
    send(&mut stream, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let seen = read_all(&mut stream).await;
    assert!(!seen.starts_with(b"HTTP/1"), "h1 in spite of ALPN");
}

// === caps ===

#[tokio::test]
async fn an_address_at_its_cap_is_closed_at_once_and_a_trusted_proxy_is_not_counted() {
    let one = ListenerLimits {
        max_connections_per_ip: 1,
        ..limits()
    };
    let running = run(one.clone());
    let mut first = running.connect().await;
    get(&mut first, "/").await;
    let mut second = running.connect().await;
    assert_eq!(read_all(&mut second).await, b"");
    running.saw(Event::PerIpCap).await;
    assert!(get(&mut first, "/").await.starts_with("HTTP/1.1 200"));

    let running = run_with(one, None, true);
    let mut streams = [running.connect().await, running.connect().await];
    for stream in &mut streams {
        get(stream, "/").await;
    }
    assert_eq!(running.listener.connections(), 2);
}

#[tokio::test]
async fn at_the_cap_a_connection_waits_until_another_ends() {
    let running = run(ListenerLimits {
        max_connections: 1,
        ..limits()
    });
    let mut first = running.connect().await;
    get(&mut first, "/").await;
    let mut second = running.connect().await;
    // Another round trip gives the accept loop every chance to take the second one.
    get(&mut first, "/").await;
    assert_eq!(
        running.handler.events.lock().get(&Event::Accepted),
        Some(&1)
    );
    drop(first);
    let seen = get(&mut second, "/").await;
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
}

#[tokio::test]
async fn the_last_descriptors_are_left_to_those_who_are_here() {
    let running = run_among(limits(), None, false, 1);
    let mut first = running.connect().await;
    get(&mut first, "/").await;
    let mut second = running.connect().await;
    running.saw(Event::NoDescriptors).await;
    assert!(get(&mut first, "/").await.starts_with("HTTP/1.1 200"));
    drop(first);
    assert!(get(&mut second, "/").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_last_request_of_a_connection_says_so() {
    let running = run(ListenerLimits {
        max_requests_per_connection: 2,
        ..limits()
    });
    let mut stream = running.connect().await;
    let first = get(&mut stream, "/").await;
    assert!(!first.contains("connection: close"), "{first}");
    let second = get(&mut stream, "/").await;
    assert!(second.contains("connection: close"), "{second}");
    assert_eq!(read_all(&mut stream).await, b"");

    let mut stream = h2(&running).await;
    h2_exchange(&mut stream, 1, "/").await;
    send(&mut stream, &request(3, "/")).await;
    until(&mut stream, GOAWAY).await;
    assert_eq!(until(&mut stream, DATA).await.payload, b"hello");
}

#[tokio::test]
async fn an_old_connection_is_ended_after_what_it_has_in_flight() {
    let running = run(ListenerLimits {
        max_connection_age: SHORT,
        ..limits()
    });
    let mut stream = h2(&running).await;
    send(&mut stream, &request(1, "/gate")).await;
    until(&mut stream, GOAWAY).await;
    running.handler.gate.notify_one();
    assert_eq!(until(&mut stream, DATA).await.payload, b"late");
}

// === panics ===

#[tokio::test]
async fn a_panic_ends_one_request_and_not_its_connection() {
    let running = run(limits());
    let mut stream = running.connect().await;
    assert!(get(&mut stream, "/panic").await.starts_with("HTTP/1.1 500"));
    assert!(get(&mut stream, "/").await.starts_with("HTTP/1.1 200"));

    let mut stream = h2(&running).await;
    assert_eq!(h2_exchange(&mut stream, 1, "/panic").await, b"sorry");
    assert_eq!(h2_exchange(&mut stream, 3, "/").await, b"hello");
    assert_eq!(
        running.handler.events.lock().get(&Event::Panicked),
        Some(&2)
    );
}

// === the client leaves, or stays for something else ===

#[tokio::test]
async fn a_client_that_leaves_takes_its_requests_with_it() {
    let running = run(limits());
    let mut one = running.connect().await;
    send(&mut one, b"GET /gate HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let mut two = h2(&running).await;
    send(&mut two, &request(1, "/gate")).await;
    let mut three = h2(&running).await;
    let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    send(&mut three, &request(1, "/gate")).await;
    happened(&running.handler.arrived, 3).await;
    drop((one, two));
    send(&mut three, &reset).await;
    happened(&running.handler.dropped, 3).await;
    drop(three);
    assert_eq!(running.drain.wait_idle(PATIENCE).await, 0);
}

#[tokio::test]
async fn an_upgraded_connection_is_still_counted_and_has_no_deadline_of_ours() {
    let running = run(ListenerLimits {
        idle_timeout: SHORT / 4,
        head_timeout: SHORT / 4,
        ..limits()
    });
    let mut stream = running.connect().await;
    let ask =
        b"GET /upgrade HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    send(&mut stream, ask).await;
    let seen = answer(&mut stream).await;
    assert!(seen.starts_with("HTTP/1.1 101"), "{seen}");
    tokio::time::sleep(SHORT).await;
    send(&mut stream, b"still here").await;
    let mut echo = [0; 10];
    let read = timeout(PATIENCE, stream.read_exact(&mut echo)).await;
    read.unwrap().unwrap();
    assert_eq!((&echo, running.listener.connections()), (b"still here", 1));
    drop(stream);
    assert_eq!(running.drain.wait_idle(PATIENCE).await, 0);
    assert_eq!(running.listener.connections(), 0);
}

// === drain ===

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_announces_the_end() {
    let running = run(limits());
    let mut stream = running.connect().await;
    let mut other = h2(&running).await;
    let mut idle = running.connect().await;
    get(&mut idle, "/").await;
    send(&mut stream, b"GET /gate HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    send(&mut other, &request(1, "/gate")).await;
    happened(&running.handler.arrived, 3).await;
    running.drain.start();
    assert_eq!(read_all(&mut idle).await, b"");
    drop(idle);
    until(&mut other, GOAWAY).await;
    let ping = until(&mut other, PING).await;
    send(&mut other, &frame(PING, ACK, 0, &ping.payload)).await;
    running.handler.gate.notify_waiters();
    assert_eq!(until(&mut other, DATA).await.payload, b"late");
    let seen = answer(&mut stream).await;
    assert!(
        seen.contains("connection: close") && seen.ends_with("late"),
        "{seen}"
    );
    drop((stream, other));
    assert_eq!(running.drain.wait_idle(PATIENCE).await, 0);
    assert_eq!(running.listener.connections(), 0);
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn what_outlives_the_drain_is_cut_off() {
    let running = run(limits());
    let mut stream = running.connect().await;
    send(&mut stream, b"GET /gate HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    happened(&running.handler.arrived, 1).await;
    let mut silent = running.connect().await;
    running.drain.start();
    assert!(running.drain.wait_idle(SHORT).await >= 1);
    assert_eq!(read_all(&mut stream).await, b"");
    read_all(&mut silent).await;
}
