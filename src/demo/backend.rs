//! The demo backend's socket and its paths.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

use super::account::Accounts;
use super::answer::{self, Answer};
use super::keys::{KeyError, Keyring, Previous, Signing, Token};
use super::{echo, grpc, identsphere, oidc};
use crate::types::{clock, task};

/// Where the demo backend listens and whom it claims to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Loopback; port 0 for any free one.
    pub bind: SocketAddr,
    /// The public origin, which is the gateway's. `None`: the backend's own address.
    pub issuer: Option<String>,
    /// The audience of its access tokens.
    pub audience: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            issuer: None,
            audience: "demo".to_owned(),
        }
    }
}

/// A running demo backend. Dropped or stopped, it ends with all its connections.
#[derive(Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    site: Arc<Site>,
    running: watch::Sender<()>,
    accepting: JoinHandle<()>,
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) keys: Keyring,
    pub(super) accounts: Accounts,
    issuer: String,
    audience: String,
    requests: AtomicU64,
}

/// Starts the backend on the runtime of the caller.
///
/// # Errors
/// When the address cannot be bound or keys cannot be made.
pub async fn start(settings: Settings) -> io::Result<Backend> {
    let listener = TcpListener::bind(settings.bind).await?;
    let address = listener.local_addr()?;
    let site = Arc::new(Site {
        keys: Keyring::generate().map_err(io::Error::other)?,
        accounts: Accounts::seeded(),
        issuer: settings
            .issuer
            .unwrap_or_else(|| format!("http://{address}")),
        audience: settings.audience,
        requests: AtomicU64::new(0),
    });
    let (running, stopped) = watch::channel(());
    let accepting = task::spawn("demo backend", accept(listener, Arc::clone(&site), stopped));
    Ok(Backend {
        address,
        site,
        running,
        accepting,
    })
}

impl Backend {
    /// The `iss` of its access tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.site.issuer()
    }

    /// Requests that have arrived so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.site.requests.load(Ordering::Relaxed)
    }

    /// New keys sign from now on.
    ///
    /// # Errors
    /// When keys cannot be made.
    pub fn rotate_keys(&self, previous: Previous) -> Result<(), KeyError> {
        self.site.keys.rotate(previous)
    }

    /// An access token in the making, as the token endpoint would issue it for the scopes `read write`.
    #[must_use]
    pub fn token(&self, signing: Signing) -> Token<'_> {
        let claims = oidc::claims(&self.site, "read write", clock::wall());
        Token::new(&self.site.keys, signing, claims)
    }

    /// Ends every connection and frees the port.
    pub async fn stop(self) {
        drop(self.running);
        // A listener that panicked is closed as well.
        let _ = self.accepting.await;
    }
}

impl Site {
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) fn audience(&self) -> &str {
        &self.audience
    }
}

async fn accept(listener: TcpListener, site: Arc<Site>, mut stopped: watch::Receiver<()>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = serve(stream, Arc::clone(&site), stopped.clone(), permit);
                task::spawn("demo connection", connection);
            }
            // Out of descriptors, most likely: others will end soon.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(
    stream: TcpStream,
    site: Arc<Site>,
    mut stopped: watch::Receiver<()>,
    _permit: OwnedSemaphorePermit,
) {
    // Small frames leave at once, or they wait for the peer's acknowledgement; without it the backend is only slower.
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_headers(MAX_FIELDS)
        .http2()
        .timer(TokioTimer::new());
    let service = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(respond(&site, request).await) }
    });
    tokio::select! {
        // How a connection ends is the client's affair.
        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
        _ = stopped.changed() => {}
    }
}

async fn respond(site: &Site, request: Request<Incoming>) -> Answer {
    site.requests.fetch_add(1, Ordering::Relaxed);
    if grpc::is_grpc(&request) {
        return grpc::respond(request).await;
    }
    if request.method() != Method::HEAD {
        return route(site, request).await;
    }
    without_body(route(site, request).await)
}

async fn route(site: &Site, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let method = match parts.method.as_str() {
        "HEAD" => "GET",
        method => method,
    };
    match (method, parts.uri.path()) {
        ("GET", "/health") => echo::health(),
        ("GET", "/.well-known/openid-configuration") => oidc::discovery(site),
        ("GET", "/oauth/keys") => oidc::keys(site),
        ("GET", "/.well-known/jwks.json") => oidc::keys(site),
        ("POST", "/oauth/token") => match answer::read(body).await {
            Ok(body) => oidc::token(site, &parts.headers, &body),
            Err(refusal) => refusal,
        },
        ("POST", identsphere::AVATAR) => identsphere::avatar(site, &parts.headers, body).await,
        (_, path) if path.starts_with(identsphere::PREFIX) => match answer::read(body).await {
            Ok(body) => identsphere::respond(site, method, &parts, &body),
            Err(refusal) => refusal,
        },
        ("GET", "/api/whoami") => echo::whoami(&parts),
        ("GET", "/slow") => echo::slow(parts.uri.query()).await,
        ("GET", "/stream") => echo::stream(parts.uri.query()),
        ("GET", path) if path.starts_with("/bytes/") => echo::bytes(path),
        (_, path) if path == "/hello" || path.starts_with("/echo/") => {
            echo::echo(&parts, body).await
        }
        _ => answer::not_found(),
    }
}

/// The same head, with the length that the body would have had.
fn without_body(answer: Answer) -> Answer {
    let (mut parts, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Answer::from_parts(parts, tonic::body::Body::empty())
}

/// Most connections at once.
const MAX_CONNECTIONS: usize = 1_024;

/// Most header fields of a request; more than the gateway lets through by default.
const MAX_FIELDS: usize = 200;

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
