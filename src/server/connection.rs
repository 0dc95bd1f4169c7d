//! One connection, from its first byte to its last: TLS, the protocol, hyper, and the end.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Request;
use http::header::UPGRADE;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::activity::{Activity, Switch};
use super::caps::Seat;
use super::exchange::Isolated;
use super::frames::Frames;
use super::h1::{Gate, HeadBounds, STAND_IN_METHOD};
use super::io::{Reader, Socket, Transport};
use super::pace::Pace;
use super::sniff::{Prefix, sniff};
use super::streams::Streams;
use super::watch::{Verdict, Watch};
use super::{Drain, Event, Handler, Listener};
use crate::snapshot::ListenerLimits;
use crate::types::drain::Guest;
use crate::types::outbox::Outbox;
use crate::types::{ConnFacts, Protocol, Scheme, address_text, clock};

/// A connection that was just accepted.
pub(super) struct Arrival<H> {
    pub(super) handler: Arc<H>,
    pub(super) listener: Arc<Listener>,
    pub(super) limits: Arc<ListenerLimits>,
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) counted: (Seat, Guest),
    pub(super) drain: Drain,
    pub(super) pace: Arc<Pace>,
}

/// Serves the connection until it ends.
pub(super) async fn serve<H: Handler>(arrival: Arrival<H>) {
    match arrival.handler.tls(arrival.listener.id) {
        Some(config) => serve_tls(arrival, config).await,
        None => serve_cleartext(arrival).await,
    }
}

async fn serve_tls<H: Handler>(arrival: Arrival<H>, config: Arc<rustls::ServerConfig>) {
    let (handler, listener) = (&arrival.handler, arrival.listener.id);
    let facts = Facts::of(&arrival);
    let accept = TlsAcceptor::from(config).accept_with(arrival.stream, |session| {
        session.set_buffer_limit(Some(TLS_BUFFER));
    });
    // One deadline over the whole handshake, however the ClientHello is cut.
    let handshake = arrival.pace.keep(accept);
    let stream = match timeout(arrival.limits.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return handler.note(listener, Event::HandshakeFailed),
        Err(_) => return handler.note(listener, Event::HandshakeTimeout),
    };
    let (_, session) = stream.get_ref();
    let protocol = match session.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        Some(_) => Protocol::Http1,
        None => arrival.limits.only.unwrap_or(Protocol::Http1),
    };
    let server_name = session.server_name().map(canonical_name);
    let conn = facts.settle(Scheme::Https, protocol, server_name);
    let served = Served {
        handler: arrival.handler,
        limits: arrival.limits,
        drain: arrival.drain,
        conn,
        started: clock::now(),
    };
    served.run(stream, Prefix::default(), arrival.counted).await;
}

async fn serve_cleartext<H: Handler>(mut arrival: Arrival<H>) {
    let started = clock::now();
    let facts = Facts::of(&arrival);
    let sniffed = timeout(arrival.limits.head_timeout, sniff(&mut arrival.stream)).await;
    let (protocol, prefix) = match sniffed {
        Ok(Ok((Protocol::Http1, _))) if arrival.limits.only == Some(Protocol::Http2) => {
            turn_away(&mut arrival.stream).await;
            return arrival.handler.note(arrival.listener.id, Event::BadHead);
        }
        // What it sent is no request of HTTP/1, and is refused as that.
        Ok(Ok((sniffed, prefix))) => (arrival.limits.only.unwrap_or(sniffed), prefix),
        Ok(Err(_)) => return,
        Err(_) => {
            return arrival
                .handler
                .note(arrival.listener.id, Event::HeadTimeout);
        }
    };
    let conn = facts.settle(Scheme::Http, protocol, None);
    let served = Served {
        handler: arrival.handler,
        limits: arrival.limits,
        drain: arrival.drain,
        conn,
        started,
    };
    served.run(arrival.stream, prefix, arrival.counted).await;
}

/// Tells whoever does not begin with the preface of HTTP/2 that nothing else is spoken here, and takes in what is on its
/// way: a socket that is closed over unread bytes is reset, and the client may lose what it was told.
async fn turn_away(stream: &mut TcpStream) {
    let goodbye = async {
        stream.write_all(GOAWAY).await?;
        stream.shutdown().await?;
        let mut heard = [0; 1024];
        for _ in 0..MOST_HEARD {
            if stream.read(&mut heard).await? == 0 {
                break;
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // It is gone either way.
    let _ = timeout(GOODBYE, goodbye).await;
}

/// What is known of a connection before its protocol is.
struct Facts {
    listener: Arc<Listener>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Facts {
    fn of<H>(arrival: &Arrival<H>) -> Self {
        // The address we were reached at is gone only if the connection is.
        let local = arrival.stream.local_addr().unwrap_or(arrival.peer);
        Self {
            listener: Arc::clone(&arrival.listener),
            peer: arrival.peer,
            local: canonical(local),
        }
    }

    fn settle(
        self,
        scheme: Scheme,
        protocol: Protocol,
        server_name: Option<Arc<str>>,
    ) -> Arc<ConnFacts> {
        Arc::new(ConnFacts {
            listener: self.listener.id,
            listener_name: Arc::clone(&self.listener.name),
            peer: self.peer,
            peer_text: address_text(self.peer.ip()),
            local: self.local,
            scheme,
            protocol,
            server_name,
            client_cert: None,
        })
    }
}

/// Folds an IPv4 address that arrives on a dual-stack socket.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn canonical_name(name: &str) -> Arc<str> {
    Arc::from(name.trim_end_matches('.').to_ascii_lowercase())
}

/// A connection whose protocol is settled for good.
struct Served<H> {
    handler: Arc<H>,
    limits: Arc<ListenerLimits>,
    drain: Drain,
    conn: Arc<ConnFacts>,
    started: Instant,
}

impl<H: Handler> Served<H> {
    async fn run<S>(self, stream: S, prefix: Prefix, counted: (Seat, Guest))
    where
        S: Socket + 'static,
    {
        let activity = Activity::new(self.started, self.limits.max_requests_per_connection);
        let protocol = self.conn.protocol;
        let reader = self.reader(&activity);
        let (seat, guest) = counted;
        let presence = self.handler.present(self.conn.listener, protocol);
        let counted = (seat, guest, presence);
        let patience = self.limits.write_timeout;
        let transport = Transport::new(
            stream,
            prefix,
            Arc::clone(&activity),
            reader,
            patience,
            counted,
        );
        let service = {
            let (handler, conn) = (Arc::clone(&self.handler), Arc::clone(&self.conn));
            let activity = Arc::clone(&activity);
            service_fn(move |request: Request<Incoming>| {
                let open = activity.open();
                let (handler, conn) = (Arc::clone(&handler), Arc::clone(&conn));
                if let Some(why) = activity.refusal()
                    && request.method().as_str() == STAND_IN_METHOD
                {
                    return Isolated::refused(why, open, handler, conn);
                }
                let switching =
                    activity.switch() == Switch::Asked && request.headers().contains_key(UPGRADE);
                let handling = Arc::clone(&handler).handle(Arc::clone(&conn), request);
                Isolated::new(handling, switching, open, handler, conn)
            })
        };
        let end = match protocol {
            Protocol::Http1 => {
                let io = TokioIo::new(transport);
                let served = http1_builder(&self.limits).serve_connection(io, service);
                let served = Box::pin(served.with_upgrades());
                self.drive(served, &activity, |_| Poll::Ready(Ok(()))).await
            }
            Protocol::Http2 => {
                let streams = Streams {
                    handler: Arc::clone(&self.handler),
                    listener: self.conn.listener,
                    activity: Arc::clone(&activity),
                    patience: self.limits.write_timeout,
                };
                let outbox = Outbox::new(transport);
                let io = TokioIo::new(outbox.clone());
                let served = http2_builder(&self.limits, streams).serve_connection(io, service);
                let drain = |cx: &mut Context<'_>| outbox.poll_drain(cx);
                self.drive(Box::pin(served), &activity, drain).await
            }
        };
        if let Some(event) = end {
            self.handler.note(self.conn.listener, event);
        }
    }

    fn reader(&self, activity: &Arc<Activity>) -> Reader {
        let activity = Arc::clone(activity);
        match self.conn.protocol {
            Protocol::Http1 => {
                let bounds = HeadBounds {
                    max_head: self.limits.max_head,
                    max_fields: self.limits.max_fields,
                    max_target: self.limits.max_target,
                };
                Reader::Gate(Box::new(Gate::new(activity, bounds)))
            }
            Protocol::Http2 => Reader::Frames(Box::new(Frames::new(activity, &self.limits))),
        }
    }

    /// Polls hyper and the deadlines in turn; says what ended the connection, if it was not the client. `drain` sends what
    /// hyper left to be sent.
    async fn drive<C: Graceful>(
        &self,
        mut connection: Pin<Box<C>>,
        activity: &Arc<Activity>,
        drain: impl Fn(&mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Option<Event> {
        let mut watch = Watch::new(
            Arc::clone(activity),
            Arc::clone(&self.limits),
            self.conn.protocol,
        );
        let mut timer = pin!(tokio::time::sleep_until(self.started.into()));
        poll_fn(|cx| {
            activity.begin_round();
            loop {
                if let Poll::Ready(end) = connection.as_mut().poll(cx) {
                    return Poll::Ready(why_ended(&end, &watch, activity));
                }
                if let Poll::Ready(Err(_)) = drain(cx) {
                    let flooded = activity.flooded().then_some(Event::Flooded);
                    return Poll::Ready(flooded.or_else(|| watch.ending())); // the client is gone
                }
                match watch.poll(cx, self.drain.stage(), timer.as_mut()) {
                    Poll::Ready(Verdict::Drop(event)) => return Poll::Ready(Some(event)),
                    Poll::Ready(Verdict::Finish) => connection.as_mut().finish(),
                    Poll::Ready(Verdict::Refuse) => {}
                    Poll::Ready(Verdict::Wait(_)) | Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

fn why_ended(end: &hyper::Result<()>, watch: &Watch, activity: &Activity) -> Option<Event> {
    if activity.flooded() {
        return Some(Event::Flooded);
    }
    match end {
        Err(error) if error.is_parse() => Some(Event::BadHead),
        _ => watch
            .ending()
            .or_else(|| activity.refusal().map(|_| Event::BadHead)),
    }
}

/// A connection of hyper that can be told to end after what is in flight.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn finish(self: Pin<&mut Self>);
}

impl<I, S, B> Graceful for http1::UpgradeableConnection<I, S>
where
    Self: Future<Output = hyper::Result<()>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, B, E> Graceful for http2::Connection<I, S, E>
where
    Self: Future<Output = hyper::Result<()>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// hyper's own head deadline also runs while a connection is idle, so it stays off: `watch` tells the two apart.
fn http1_builder(limits: &ListenerLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(
            limits
                .max_head
                .saturating_add(limits.max_target)
                .saturating_add(HEAD_SLACK),
        );
    // Any other number costs an allocation a request; fewer fields are counted after parsing.
    if limits.max_fields > HYPER_FIELDS {
        builder.max_headers(limits.max_fields);
    }
    builder
}

fn http2_builder<H>(limits: &ListenerLimits, streams: Streams<H>) -> http2::Builder<Streams<H>> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(1 << 20)
        .max_send_buf_size(64 << 10)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(100)
        .adaptive_window(false)
        .keep_alive_interval(None);
    if limits.websockets {
        builder.enable_connect_protocol();
    }
    builder
}

/// Empty SETTINGS, as a server begins, and GOAWAY: no stream was served, PROTOCOL_ERROR.
const GOAWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";
/// How long a client that is turned away may take to notice, and how many pieces it may still send.
const GOODBYE: Duration = Duration::from_secs(1);
const MOST_HEARD: usize = 16;

/// What hyper may read beyond the largest head and target, so that it is the gate which says that a head is too large.
/// hyper's least buffer is 8 KiB.
const HEAD_SLACK: usize = 8 << 10;
/// The number of fields that hyper parses without an allocation, and its default.
const HYPER_FIELDS: usize = 100;
/// Two records of ciphertext; a slow reader pins no more.
const TLS_BUFFER: usize = 32 << 10;
