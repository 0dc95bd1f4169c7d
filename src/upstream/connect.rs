//! Opens connections: TCP, TLS, and the HTTP handshake. Who may open how many is `pool`'s concern.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::Verify;
use crate::config::Endpoint as Address;
use crate::types::outbox::Outbox;
use crate::types::{Body, task};

pub use super::fetch::{FetchError, FetchErrorKind, FetchUrl, fetch_url, public_scheme};

/// Largest response head, in both protocols.
const MAX_HEAD: usize = 32 * 1024;
/// Read and write buffer of an HTTP/1.1 connection; a head that does not fit is refused even while it is incomplete.
const H1_BUFFER: usize = 64 * 1024;
/// What one response may have on the way before we take it.
const H2_STREAM_WINDOW: u32 = 512 * 1024;
/// What all responses of a connection may have on the way. h2 derives its tolerance for small frames from it.
const H2_CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// What one request body may have queued.
const H2_SEND_BUFFER: usize = 256 * 1024;
/// After this long without traffic the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Whom to connect to, and how.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) verify: Option<Verify>,
}

/// What a connection is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Requests.
    Requests,
    /// A request for another protocol. Only such a connection can switch: elsewhere a 101 is an error.
    Upgrade,
}

/// A connection that is ready for requests; its driver runs as a task of its own.
pub(super) enum Opened {
    H1(http1::SendRequest<Body>),
    H2 {
        sender: http2::SendRequest<Body>,
        /// What the peer allows at once; the driver keeps it current.
        max_streams: Arc<AtomicUsize>,
    },
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(super) struct ConnectError(Cow<'static, str>);

impl ConnectError {
    pub(super) fn new(detail: impl Into<Cow<'static, str>>) -> Self {
        Self(detail.into())
    }

    pub(super) fn into_detail(self) -> Cow<'static, str> {
        self.0
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Target {
    /// Connects to one of `addresses`, the one at `turn` first, all within `patience`.
    pub(super) async fn open(
        &self,
        addresses: &[SocketAddr],
        turn: usize,
        patience: Duration,
        purpose: Purpose,
    ) -> Result<(Opened, SocketAddr), ConnectError> {
        let opening = async {
            let (tcp, peer) = self.dial(addresses, turn, patience).await?;
            Ok((self.shake_hands(tcp, purpose).await?, peer))
        };
        match tokio::time::timeout(patience, opening).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::new(format!(
                "{}: no connection within {patience:?}",
                self.address
            ))),
        }
    }

    /// Looks the name up; an address literal needs no look-up.
    pub(super) async fn resolve(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let host = self.address.host.as_str();
        let found = tokio::net::lookup_host((host, self.address.port))
            .await
            .map_err(|error| ConnectError::new(format!("{host} cannot be resolved: {error}")))?;
        let mut found: Vec<SocketAddr> = found.collect();
        found.sort_unstable();
        found.dedup();
        if found.is_empty() {
            return Err(ConnectError::new(format!("{host} has no address")));
        }
        Ok(found)
    }

    /// One address after the other; none may use up the time of those that follow.
    async fn dial(
        &self,
        addresses: &[SocketAddr],
        turn: usize,
        patience: Duration,
    ) -> Result<(TcpStream, SocketAddr), ConnectError> {
        let count = addresses.len();
        let mut last = None;
        for step in 0..count {
            let Some(&peer) = addresses.get(turn.wrapping_add(step) % count) else {
                continue;
            };
            let share = patience / u32::try_from(count - step).unwrap_or(u32::MAX);
            match tokio::time::timeout(share, TcpStream::connect(peer)).await {
                Ok(Ok(tcp)) => {
                    tune(&tcp);
                    return Ok((tcp, peer));
                }
                Ok(Err(error)) => last = Some(format!("{peer}: {error}")),
                Err(_) => last = Some(format!("{peer}: no answer within {share:?}")),
            }
        }
        Err(match last {
            Some(detail) => ConnectError::new(detail),
            None => ConnectError::new("no address"),
        })
    }

    async fn shake_hands(&self, tcp: TcpStream, purpose: Purpose) -> Result<Opened, ConnectError> {
        let h2 = self.address.scheme.is_h2();
        match (&self.verify, h2) {
            (None, false) => open_h1(tcp, purpose).await,
            (None, true) => open_h2(tcp).await,
            (Some(verify), _) => {
                let tls = self.secure(verify, tcp).await?;
                let agreed = tls.get_ref().1.alpn_protocol();
                match (h2, agreed) {
                    (true, Some(b"h2")) => open_h2(tls).await,
                    (true, _) => Err(ConnectError::new(format!(
                        "{}: the peer does not agree to HTTP/2 (ALPN)",
                        self.address
                    ))),
                    (false, _) => open_h1(tls, purpose).await,
                }
            }
        }
    }

    async fn secure(
        &self,
        verify: &Verify,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        TlsConnector::from(Arc::clone(&verify.config))
            .connect(verify.name.clone(), tcp)
            .await
            .map_err(|error| ConnectError::new(format!("{}: TLS: {error}", self.address)))
    }
}

/// Failing to tune a socket is no reason not to use it.
fn tune(tcp: &TcpStream) {
    let _ = tcp.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    let _ = socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive);
}

async fn open_h1<T>(io: T, purpose: Purpose) -> Result<Opened, ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(H1_BUFFER)
        .max_header_size(MAX_HEAD)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| ConnectError::new(format!("HTTP/1.1 handshake: {error}")))?;
    // Whoever waits for an answer learns of an error; the driver has nobody to tell.
    drop(match purpose {
        Purpose::Requests => task::spawn("upstream h1 connection", async move {
            let _ = connection.await;
        }),
        Purpose::Upgrade => task::spawn("upstream connection to switch", async move {
            let _ = connection.with_upgrades().await;
        }),
    });
    Ok(Opened::H1(sender))
}

async fn open_h2<T>(io: T) -> Result<Opened, ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let outbox = Outbox::new(io);
    let (sender, mut connection) = http2::Builder::new(Spawner(outbox.clone()))
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buf_size(H2_SEND_BUFFER)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(outbox))
        .await
        .map_err(|error| ConnectError::new(format!("HTTP/2 handshake: {error}")))?;
    let max_streams = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
    let known = Arc::clone(&max_streams);
    drop(task::spawn(
        "upstream h2 connection",
        std::future::poll_fn(move |cx| {
            let driven = Pin::new(&mut connection).poll(cx);
            if driven.is_pending() {
                known.store(connection.current_max_send_streams(), Ordering::Relaxed);
            }
            driven.map(|_| ())
        }),
    ));
    Ok(Opened::H2 {
        sender,
        max_streams,
    })
}

/// Runs what hyper wants to run beside an HTTP/2 connection; one of these drives it, and sends what its round left.
#[derive(Debug)]
struct Spawner<T>(Outbox<T>);

impl<T> Clone for Spawner<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T, F> hyper::rt::Executor<F> for Spawner<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let driven = Driven {
            future,
            outbox: self.0.clone(),
        };
        drop(task::spawn("upstream h2 stream", driven));
    }
}

pin_project_lite::pin_project! {
    struct Driven<F, T> {
        #[pin]
        future: F,
        outbox: Outbox<T>,
    }
}

impl<F, T> Future for Driven<F, T>
where
    F: Future<Output = ()>,
    T: AsyncRead + AsyncWrite + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = self.project();
        let polled = me.future.poll(cx);
        me.outbox.end_poll(cx);
        polled
    }
}
