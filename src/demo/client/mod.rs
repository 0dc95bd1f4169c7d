//! Small real clients: HTTP/1.1 and HTTP/2 over cleartext or TLS, and gRPC in its three spellings on top.
//!
//! For the tour of `vestibule demo` and for tests. One client is one connection; nothing is pooled or retried, so that
//! what is seen is what happened.

pub mod rpc;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::types::task;

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The socket to connect to, whatever the URLs say.
    pub address: SocketAddr,
    /// TLS; `None` for cleartext.
    pub tls: Option<ClientTls>,
    /// HTTP/2 (with prior knowledge in cleartext) or else HTTP/1.1.
    pub http2: bool,
}

/// How the server proves who it is.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// The certificates to trust, PEM; no others are.
    pub root_pem: String,
    /// The name to ask for and to verify.
    pub server_name: String,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    scheme: &'static str,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A response that has arrived whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// HTTP version of the connection.
    pub version: Version,
    /// Header fields.
    pub headers: HeaderMap,
    /// All of the body.
    pub body: Bytes,
    /// The trailer section; empty without.
    pub trailers: HeaderMap,
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum ClientError {
    /// TCP, TLS, or the certificate.
    Connect(io::Error),
    /// Another protocol than the asked one was negotiated.
    Alpn,
    /// The HTTP exchange broke off.
    Http(hyper::Error),
    /// The request cannot be sent like this.
    BadRequest(String),
    /// The body broke off, or is larger than a demo's answer can be.
    Body(String),
    /// The answer is not the gRPC that was promised.
    Rpc(String),
    /// Nothing came in time.
    Timeout,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Alpn => f.write_str("the server chose another protocol"),
            Self::Http(error) => write!(f, "no answer: {error}"),
            Self::BadRequest(why) => write!(f, "bad request: {why}"),
            Self::Body(why) => write!(f, "broken body: {why}"),
            Self::Rpc(why) => write!(f, "broken gRPC: {why}"),
            Self::Timeout => f.write_str("no answer in time"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<hyper::Error> for ClientError {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error)
    }
}

impl Target {
    /// Cleartext HTTP/1.1.
    #[must_use]
    pub fn http1(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            http2: false,
        }
    }

    /// Cleartext HTTP/2 with prior knowledge.
    #[must_use]
    pub fn h2c(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            http2: true,
        }
    }

    /// The same server over HTTP/2, or not.
    #[must_use]
    pub fn with_http2(mut self, http2: bool) -> Self {
        self.http2 = http2;
        self
    }
}

/// Opens a connection.
///
/// # Errors
/// When the server cannot be reached, cannot prove its name, or does not speak the asked protocol.
pub async fn connect(target: &Target) -> Result<Client, ClientError> {
    tokio::time::timeout(PATIENCE, connect_now(target))
        .await
        .unwrap_or(Err(ClientError::Timeout))
}

async fn connect_now(target: &Target) -> Result<Client, ClientError> {
    let stream = TcpStream::connect(target.address)
        .await
        .map_err(ClientError::Connect)?;
    stream.set_nodelay(true).map_err(ClientError::Connect)?;
    let (sender, scheme) = match &target.tls {
        None => (handshake(stream, target.http2).await?, "http"),
        Some(tls) => {
            let stream = secure(stream, tls, target.http2).await?;
            (handshake(stream, target.http2).await?, "https")
        }
    };
    Ok(Client { sender, scheme })
}

async fn secure(
    stream: TcpStream,
    tls: &ClientTls,
    http2: bool,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ClientError> {
    let (config, name) = tls_config(tls, http2).map_err(ClientError::Connect)?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(ClientError::Connect)?;
    let chosen = stream.get_ref().1.alpn_protocol();
    if http2 == (chosen == Some(b"h2")) {
        Ok(stream)
    } else {
        Err(ClientError::Alpn)
    }
}

fn tls_config(tls: &ClientTls, http2: bool) -> io::Result<(ClientConfig, ServerName<'static>)> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(tls.root_pem.as_bytes()) {
        roots
            .add(certificate.map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from(tls.server_name.clone()).map_err(io::Error::other)?;
    Ok((config, name))
}

async fn handshake<S>(stream: S, http2: bool) -> Result<Sender, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    if http2 {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(io)
            .await?;
        task::spawn("demo client", connection);
        Ok(Sender::Http2(sender))
    } else {
        let (sender, connection) = http1::handshake(io).await?;
        task::spawn("demo client", connection);
        Ok(Sender::Http1(sender))
    }
}

impl Client {
    /// Whether the connection speaks HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Sends `request`, whose URI is absolute, and takes in the whole answer.
    ///
    /// # Errors
    /// When the exchange breaks off or takes too long.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let answer = async {
            let response = self.start(request).await?;
            collected(response).await
        };
        tokio::time::timeout(PATIENCE, answer)
            .await
            .unwrap_or(Err(ClientError::Timeout))
    }

    /// Sends `request` and returns as soon as the head of the answer is there.
    ///
    /// # Errors
    /// When the exchange breaks off.
    pub async fn start(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                to_origin_form(&mut request)?;
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                set_scheme(&mut request, self.scheme)?;
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        Ok(response)
    }
}

/// HTTP/1.1 names the host in a field and only the path in its target.
fn to_origin_form(request: &mut Request<Full<Bytes>>) -> Result<(), ClientError> {
    *request.version_mut() = Version::HTTP_11;
    let Some(authority) = request.uri().authority().cloned() else {
        return Ok(());
    };
    if !request.headers().contains_key(HOST) {
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|error| ClientError::BadRequest(error.to_string()))?;
        request.headers_mut().insert(HOST, host);
    }
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let uri: Uri = path
        .parse()
        .map_err(|error: http::uri::InvalidUri| ClientError::BadRequest(error.to_string()))?;
    *request.uri_mut() = uri;
    Ok(())
}

fn set_scheme(request: &mut Request<Full<Bytes>>, scheme: &'static str) -> Result<(), ClientError> {
    *request.version_mut() = Version::HTTP_2;
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(
        scheme
            .parse()
            .map_err(|error: http::uri::InvalidUri| ClientError::BadRequest(error.to_string()))?,
    );
    *request.uri_mut() =
        Uri::from_parts(parts).map_err(|error| ClientError::BadRequest(error.to_string()))?;
    Ok(())
}

async fn collected(response: Response<Incoming>) -> Result<Answer, ClientError> {
    let (parts, body) = response.into_parts();
    let collected = Limited::new(body, MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| ClientError::Body(error.to_string()))?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Ok(Answer {
        status: parts.status,
        version: parts.version,
        headers: parts.headers,
        body: collected.to_bytes(),
        trailers,
    })
}

impl Answer {
    /// The first value of a header field; empty without.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as text, with replacement characters where it is none.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `Null` where it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What the JSON body has at `pointer` (RFC 6901); `Null` where there is nothing.
    #[must_use]
    pub fn at(&self, pointer: &str) -> serde_json::Value {
        self.json().pointer(pointer).cloned().unwrap_or_default()
    }

    /// The value of a cookie that the answer sets.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.headers
            .get_all(http::header::SET_COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .filter_map(|value| value.split(';').next()?.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The largest body that is taken in.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
