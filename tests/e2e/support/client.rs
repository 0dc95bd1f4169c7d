//! Clients: one connection each, nothing pooled, nothing retried.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST as HOST_FIELD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
pub use vestibule::demo::client::Answer;

use super::body::{self, Payload};
use super::{pki, soon};

/// How the client speaks to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    H1,
    TlsH1,
    TlsH2,
    H2c,
}

impl Via {
    pub const ALL: [Self; 4] = [Self::H1, Self::TlsH1, Self::TlsH2, Self::H2c];

    pub fn is_tls(self) -> bool {
        matches!(self, Self::TlsH1 | Self::TlsH2)
    }

    pub fn is_h2(self) -> bool {
        matches!(self, Self::TlsH2 | Self::H2c)
    }

    pub fn scheme(self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }
}

/// A request in the making.
#[derive(Debug)]
pub struct Call {
    method: Method,
    host: String,
    target: String,
    headers: HeaderMap,
    body: Payload,
}

pub fn get(target: &str) -> Call {
    call("GET", target)
}

pub fn post(target: &str, payload: impl Into<Bytes>) -> Call {
    call("POST", target).body(body::full(payload))
}

pub fn call(method: &str, target: &str) -> Call {
    Call {
        method: method.parse().unwrap(),
        host: pki::HOST.to_owned(),
        target: target.to_owned(),
        headers: HeaderMap::new(),
        body: body::empty(),
    }
}

impl Call {
    /// Adds a field; a second one of the same name stays beside the first.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        self.headers.append(name, value);
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header(AUTHORIZATION.as_str(), &format!("Bearer {token}"))
    }

    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    pub fn body(mut self, body: Payload) -> Self {
        self.body = body;
        self
    }
}

/// One connection. Clones share an HTTP/2 connection; HTTP/1.1 cannot be shared.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    scheme: &'static str,
    driver: JoinHandle<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Payload>),
    Http2(http2::SendRequest<Payload>),
}

/// Connects to a gateway's listener, over TLS by the name [`pki::HOST`].
pub async fn connect(address: SocketAddr, via: Via) -> Client {
    connect_as(address, via, pki::HOST).await
}

/// The same, asking for another server name.
pub async fn connect_as(address: SocketAddr, via: Via, server_name: &str) -> Client {
    let stream = soon("connect", TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    if !via.is_tls() {
        return handshake(stream, via).await;
    }
    let alpn = if via.is_h2() { "h2" } else { "http/1.1" };
    let config = pki::SHARED.client(&[alpn], rustls::DEFAULT_VERSIONS);
    let name = ServerName::try_from(server_name.to_owned()).unwrap();
    let stream = soon(
        "handshake",
        TlsConnector::from(config).connect(name, stream),
    )
    .await
    .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
    handshake(stream, via).await
}

async fn handshake<S>(stream: S, via: Via) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let (sender, driver) = if via.is_h2() {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let driver = tokio::spawn(async move { drop(connection.await) });
        (Sender::Http2(sender), driver)
    } else {
        let (sender, connection) = http1::handshake(io).await.unwrap();
        let driver = tokio::spawn(async move { drop(connection.await) });
        (Sender::Http1(sender), driver)
    };
    Client {
        sender,
        scheme: via.scheme(),
        driver,
    }
}

impl Client {
    /// Sends and takes in the whole answer.
    pub async fn send(&mut self, call: Call) -> Answer {
        self.try_send(call).await.expect("an answer")
    }

    /// The same, for exchanges that may break off.
    pub async fn try_send(&mut self, call: Call) -> Result<Answer, String> {
        soon("an answer", async {
            collect(self.start(call).await?).await
        })
        .await
    }

    /// Sends and returns with the head of the answer.
    pub async fn start(&mut self, call: Call) -> Result<Response<Incoming>, String> {
        let request = call.request(self.scheme, matches!(self.sender, Sender::Http2(_)));
        let sent = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(|error| error.to_string())?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(|error| error.to_string())?;
                sender.send_request(request).await
            }
        };
        sent.map_err(|error| format!("{error:?}"))
    }

    /// Another handle on the same HTTP/2 connection.
    pub fn another(&self) -> Self {
        let Sender::Http2(sender) = &self.sender else {
            panic!("HTTP/1.1 has one request at a time");
        };
        Self {
            sender: Sender::Http2(sender.clone()),
            scheme: self.scheme,
            driver: tokio::spawn(async {}),
        }
    }

    /// Cuts the connection off, whatever is under way.
    pub fn hang_up(self) {
        self.driver.abort();
    }

    /// Waits for the other side to end the connection.
    pub async fn closed(&mut self) {
        soon("the connection ends", &mut self.driver).await.unwrap();
    }
}

impl Call {
    fn request(self, scheme: &str, h2: bool) -> Request<Payload> {
        let uri: Uri = if h2 {
            format!("{scheme}://{}{}", self.host, self.target)
                .parse()
                .unwrap()
        } else {
            self.target.parse().unwrap()
        };
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = uri;
        *request.version_mut() = if h2 {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        if !h2 {
            let host = HeaderValue::from_str(&self.host).unwrap();
            request.headers_mut().insert(HOST_FIELD, host);
        }
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        request
    }
}

/// Takes in the whole of an answer.
pub async fn collect(response: Response<Incoming>) -> Result<Answer, String> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.map_err(|error| format!("{error:?}"))?;
    Ok(Answer {
        status: parts.status,
        version: parts.version,
        headers: parts.headers,
        trailers: collected.trailers().cloned().unwrap_or_default(),
        body: collected.to_bytes(),
    })
}

/// What tests ask of an answer beyond its fields.
pub trait Told {
    /// The stable code of a refusal, from whatever body or field the dialect has it in; empty without.
    fn code(&self) -> String;
    /// Status and code at once.
    fn verdict(&self) -> (u16, String);
}

impl Told for Answer {
    fn code(&self) -> String {
        self.at("/code").as_str().unwrap_or_default().to_owned()
    }

    fn verdict(&self) -> (u16, String) {
        (self.status.as_u16(), self.code())
    }
}

/// `(401, "token_expired")` in the shape of [`Told::verdict`].
pub fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// A map of header fields from pairs.
pub fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|&(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

/// A TLS stream that speaks for itself, for raw dialogues.
pub async fn tls(
    address: SocketAddr,
    config: Arc<rustls::ClientConfig>,
    server_name: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(server_name.to_owned()).unwrap();
    TlsConnector::from(config).connect(name, stream).await
}
