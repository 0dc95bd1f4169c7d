//! Plain paths that tell what arrived, or that answer slowly, in pieces, or at length.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tokio::time::Interval;

use super::answer::{self, Answer};

pub(super) fn health() -> Answer {
    answer::json(StatusCode::OK, &json!({ "status": "pass" }))
}

/// Everything that the backend saw of a request.
pub(super) async fn echo(parts: &Parts, body: Incoming) -> Answer {
    let body = match digested(body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let seen = json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "authority": parts.uri.authority().map(http::uri::Authority::as_str),
        "protocol": protocol(parts.version),
        "headers": seen_headers(&parts.headers, |_| true),
        "body": body,
    });
    answer::json(StatusCode::OK, &seen)
}

/// Whom the gateway said the caller is, and where it said the request came from.
pub(super) fn whoami(parts: &Parts) -> Answer {
    let identity = seen_headers(&parts.headers, |name| name.starts_with("x-auth-"));
    let forwarding = seen_headers(&parts.headers, |name| {
        name == "forwarded" || name == "host" || name.starts_with("x-forwarded-")
    });
    answer::json(
        StatusCode::OK,
        &json!({
            "identity": identity,
            "authority": parts.uri.authority().map(http::uri::Authority::as_str),
            "forwarding": forwarding,
        }),
    )
}

/// `/slow?ms=250`
pub(super) async fn slow(query: Option<&str>) -> Answer {
    let wait = number(query, "ms").unwrap_or(1_000).min(MAX_WAIT_MS);
    tokio::time::sleep(Duration::from_millis(wait)).await;
    answer::json(StatusCode::OK, &json!({ "waited_ms": wait }))
}

/// `/stream?chunks=10&ms=100`: chunks that leave one by one, then a trailer that counts them.
pub(super) fn stream(query: Option<&str>) -> Answer {
    let count = number(query, "chunks").unwrap_or(10).min(MAX_CHUNKS);
    // An interval of nothing is a panic.
    let pause = number(query, "ms").unwrap_or(100).clamp(1, MAX_WAIT_MS);
    let chunks = Chunks {
        sent: 0,
        count,
        tick: tokio::time::interval(Duration::from_millis(pause)),
        ended: false,
    };
    let mut answer = answer::with_body(StatusCode::OK, "text/plain; charset=utf-8", chunks);
    answer
        .headers_mut()
        .insert(http::header::TRAILER, HeaderValue::from_static("x-chunks"));
    answer
}

/// `/bytes/1048576`
pub(super) fn bytes(path: &str) -> Answer {
    let length = path
        .strip_prefix("/bytes/")
        .and_then(|length| length.parse().ok())
        .filter(|length| *length <= MAX_BYTES);
    match length {
        Some(left) => answer::with_body(StatusCode::OK, "application/octet-stream", Zeros { left }),
        None => answer::not_found(),
    }
}

/// Size and digest of a body that is never held.
async fn digested(mut body: Incoming) -> Result<Value, Answer> {
    let mut digest = digest::Context::new(&digest::SHA256);
    let mut size: u64 = 0;
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(answer::json(
                StatusCode::BAD_REQUEST,
                &json!({ "code": 3, "message": "Request body broke off", "details": [] }),
            ));
        };
        match frame.into_data() {
            Ok(piece) => {
                size += piece.len() as u64;
                digest.update(&piece);
            }
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
        if size > MAX_BYTES {
            return Err(answer::json(
                StatusCode::PAYLOAD_TOO_LARGE,
                &json!({ "code": 8, "message": "Request body too large", "details": [] }),
            ));
        }
    }
    Ok(json!({
        "size": size,
        "sha256": hex(digest.finish().as_ref()),
        "trailers": seen_headers(&trailers, |_| true),
    }))
}

/// A name that came once has a string, a name that came several times an array: the two cannot be taken for each other.
fn seen_headers(headers: &HeaderMap, wanted: impl Fn(&str) -> bool) -> Value {
    let mut seen = Map::new();
    for name in headers.keys().filter(|name| wanted(name.as_str())) {
        let mut values: Vec<Value> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into())
            .collect();
        let value = match (values.pop(), values.is_empty()) {
            (Some(only), true) => only,
            (last, _) => values.into_iter().chain(last).collect(),
        };
        seen.insert(name.as_str().to_owned(), value);
    }
    Value::Object(seen)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "other",
    }
}

fn number(query: Option<&str>, name: &str) -> Option<u64> {
    query?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lines that leave one at a tick.
struct Chunks {
    sent: u64,
    count: u64,
    tick: Interval,
    ended: bool,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.sent == self.count {
            self.ended = true;
            let mut trailers = HeaderMap::new();
            trailers.insert("x-chunks", HeaderValue::from(self.count));
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        ready!(self.tick.poll_tick(cx));
        self.sent += 1;
        let line = format!("chunk {} of {}\n", self.sent, self.count);
        Poll::Ready(Some(Ok(Frame::data(line.into()))))
    }
}

/// A body of a known length.
struct Zeros {
    left: u64,
}

impl Body for Zeros {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = usize::try_from(self.left).map_or(PIECE.len(), |left| left.min(PIECE.len()));
        if piece == 0 {
            return Poll::Ready(None);
        }
        self.left -= piece as u64;
        let bytes = Bytes::from_static(&PIECE).slice(..piece);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

static PIECE: [u8; 16 * 1024] = [0; 16 * 1024];

/// Longest wait, in one answer or between two chunks.
const MAX_WAIT_MS: u64 = 10_000;

const MAX_CHUNKS: u64 = 10_000;

/// Longest body, sent or digested.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
