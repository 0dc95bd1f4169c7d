//! Small requests of our own, answered whole: probes through the pools, and fetches over a connection of their own.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;

use super::cluster::{Cluster, Fault};
use super::connect::{Opened, Purpose, Target};
use super::forward::{self, NoAnswer};
use super::message;
use super::pool::Pools;
use super::tls::{self, Verify};
use crate::config::{Endpoint as Address, EndpointScheme};
use crate::types::body::BodyError;
use crate::types::{Body, clock};

/// What to fetch, and from where. Redirects are not followed: they are answers like any other.
#[derive(Clone, Debug)]
pub struct FetchUrl {
    /// `http` or `https`; its authority is sent as Host.
    pub url: Uri,
    /// Where to connect instead of the URL's authority; a certificate is then verified for this host.
    pub connect: Option<Address>,
    /// PEM bundle to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Sent along.
    pub headers: HeaderMap,
    /// Longest wait for the whole answer, the connection included.
    pub timeout: Duration,
    /// Most bytes of the answer's body.
    pub max_body: usize,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError {
    /// In which way.
    pub kind: FetchErrorKind,
    /// For the log.
    pub detail: Cow<'static, str>,
}

/// The ways in which a fetch can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FetchErrorKind {
    /// It took too long.
    Timeout,
    /// No connection, or it ended early.
    Connect,
    /// The answer's body is larger than asked for.
    TooLarge,
    /// The answer is not HTTP as it should be, or the request could not be made into one.
    Malformed,
    /// The endpoints have too many requests in flight.
    Overloaded,
}

impl FetchError {
    fn new(kind: FetchErrorKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for FetchError {}

impl Pools {
    /// Sends a small request of our own to `cluster` and reads the answer whole, all within `timeout`. Without a Host
    /// field the endpoint's own authority is sent.
    ///
    /// # Errors
    /// When there is no answer, or its body is larger than `cap`.
    pub async fn fetch(
        &self,
        cluster: &Arc<Cluster>,
        request: Request<Bytes>,
        timeout: Duration,
        cap: usize,
    ) -> Result<Response<Bytes>, FetchError> {
        let started = clock::now();
        let mut request = request.map(Body::full);
        let (response, _) = self.exchange(cluster, &mut request, timeout, None).await?;
        let left = timeout.saturating_sub(started.elapsed());
        bounded(left, read_whole(response, cap)).await
    }
}

/// Fetches a URL over a connection of its own.
///
/// # Errors
/// When the URL cannot be fetched, or its body is larger than asked for.
pub async fn fetch_url(fetch: &FetchUrl) -> Result<Response<Bytes>, FetchError> {
    let authority = fetch
        .url
        .authority()
        .ok_or_else(|| FetchError::new(FetchErrorKind::Malformed, "the URL has no host"))?;
    let target = target_of(fetch)?;
    let mut request = Request::new(Bytes::new());
    *request.headers_mut() = fetch.headers.clone();
    let host = HeaderValue::from_str(authority.as_str())
        .map_err(|_| FetchError::new(FetchErrorKind::Malformed, "the host is malformed"))?;
    request.headers_mut().insert(HOST, host);
    if fetch.connect.is_some() {
        request.headers_mut().extend(public_scheme(&fetch.url));
    }
    if let Some(path) = fetch.url.path_and_query() {
        *request.uri_mut() = Uri::from(path.clone());
    }
    once(&target, request, fetch.timeout, fetch.max_body).await
}

/// What tells a backend at an internal address under which scheme its public name is reached: some build their issuer's
/// URL from it, as they do from the Host.
#[must_use]
pub fn public_scheme(url: &Uri) -> Option<(HeaderName, HeaderValue)> {
    let scheme = match url.scheme_str()? {
        "https" => "https",
        "http" => "http",
        _ => return None,
    };
    Some((X_FORWARDED_PROTO, HeaderValue::from_static(scheme)))
}

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

fn target_of(fetch: &FetchUrl) -> Result<Target, FetchError> {
    let malformed = |why: String| FetchError::new(FetchErrorKind::Malformed, why);
    let address = match &fetch.connect {
        Some(address) => address.clone(),
        None => address_of(&fetch.url).map_err(malformed)?,
    };
    if !address.scheme.is_tls() {
        return Ok(Target {
            address,
            verify: None,
        });
    }
    let ca = match &fetch.ca {
        Some(file) => Some(std::fs::read(file).map_err(|error| {
            FetchError::new(
                FetchErrorKind::Connect,
                format!("{} cannot be read: {error}", file.display()),
            )
        })?),
        None => None,
    };
    let verify = Verify {
        config: tls::client_config(ca.as_deref(), address.scheme.is_h2()).map_err(malformed)?,
        name: tls::server_name(&address.host).map_err(malformed)?,
    };
    Ok(Target {
        address,
        verify: Some(verify),
    })
}

fn address_of(url: &Uri) -> Result<Address, String> {
    let (scheme, port) = match url.scheme_str() {
        Some("http") => (EndpointScheme::Http, 80),
        Some("https") => (EndpointScheme::Https, 443),
        _ => return Err("the URL is neither http nor https".to_owned()),
    };
    let host = url.host().unwrap_or_default();
    if url
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("the URL holds user information".to_owned());
    }
    Ok(Address {
        scheme,
        host: host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase(),
        port: url.port_u16().unwrap_or(port),
    })
}

/// One request over a connection of its own.
pub(super) async fn once(
    target: &Target,
    request: Request<Bytes>,
    timeout: Duration,
    cap: usize,
) -> Result<Response<Bytes>, FetchError> {
    let connect = |detail: Cow<'static, str>| FetchError::new(FetchErrorKind::Connect, detail);
    let asking = async {
        let addresses = target
            .resolve()
            .await
            .map_err(|error| connect(error.into_detail()))?;
        let (opened, _) = target
            .open(&addresses, 0, timeout, Purpose::Requests)
            .await
            .map_err(|error| connect(error.into_detail()))?;
        read_whole(ask(opened, target, request).await?, cap).await
    };
    bounded(timeout, Box::pin(asking)).await
}

async fn ask(
    opened: Opened,
    target: &Target,
    request: Request<Bytes>,
) -> Result<Response<Body>, FetchError> {
    let malformed = |why: &'static str| FetchError::new(FetchErrorKind::Malformed, why);
    let host = request.headers().get(HOST).cloned();
    let host = host.ok_or_else(|| malformed("the request has no host"))?;
    let mut request = request.map(Body::full);
    message::prepare(&mut request, target.address.scheme, &host).map_err(malformed)?;
    let method: Method = request.method().clone();
    let answer = match opened {
        Opened::H1(mut sender) => sender.send_request(request).await,
        Opened::H2 { mut sender, .. } => sender.send_request(request).await,
    };
    let mut answer = answer.map_err(|error| {
        let kind = if error.is_parse() {
            FetchErrorKind::Malformed
        } else {
            FetchErrorKind::Connect
        };
        FetchError::new(kind, forward::describe(&error))
    })?;
    message::judge(&mut answer, &method).map_err(malformed)?;
    Ok(answer.map(Body::incoming))
}

async fn bounded<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, FetchError>>,
) -> Result<T, FetchError> {
    match tokio::time::timeout(timeout, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(FetchError::new(
            FetchErrorKind::Timeout,
            "the answer did not come in time",
        )),
    }
}

async fn read_whole(response: Response<Body>, cap: usize) -> Result<Response<Bytes>, FetchError> {
    let too_large = || {
        FetchError::new(
            FetchErrorKind::TooLarge,
            format!("the answer is larger than {cap} bytes"),
        )
    };
    let (head, mut body) = response.into_parts();
    if body.size_hint().lower() > cap as u64 {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| {
            let kind = match error {
                BodyError::Stalled | BodyError::Expired(_) => FetchErrorKind::Timeout,
                BodyError::TooLarge => FetchErrorKind::TooLarge,
                BodyError::Malformed(_) => FetchErrorKind::Malformed,
                BodyError::Connection(_) => FetchErrorKind::Connect,
            };
            FetchError::new(kind, error.to_string())
        })?;
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        if whole.len() + bytes.len() > cap {
            return Err(too_large());
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(Response::from_parts(head, whole.freeze()))
}

impl From<NoAnswer> for FetchError {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Upstream(fault, detail) => {
                let kind = match fault {
                    Fault::NoEndpoint | Fault::Unreachable | Fault::Reset => {
                        FetchErrorKind::Connect
                    }
                    Fault::Overloaded => FetchErrorKind::Overloaded,
                    Fault::Malformed => FetchErrorKind::Malformed,
                    Fault::Timeout => FetchErrorKind::Timeout,
                };
                Self::new(kind, detail)
            }
            NoAnswer::Body(_) => Self::new(FetchErrorKind::Malformed, "the request body failed"),
            NoAnswer::Unfit(why) => Self::new(FetchErrorKind::Malformed, why),
        }
    }
}
