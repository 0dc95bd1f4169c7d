//! Answers of the demo backend, and the one way in which it reads a request body.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

/// The body type of gRPC answers serves for all of them.
pub(super) type Answer = Response<tonic::body::Body>;

/// Most bytes of a request body that are kept in memory.
const MAX_BODY: usize = 64 * 1024;

pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    with_body(status, "application/json", Full::from(value.to_string()))
}

pub(super) fn with_body<B>(status: StatusCode, content_type: &'static str, body: B) -> Answer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut answer = Response::new(tonic::body::Body::new(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// What ZITADEL's REST gateway says of a path that it does not know, and also of gRPC that came over HTTP/1.1.
pub(super) fn not_found() -> Answer {
    json(
        StatusCode::NOT_FOUND,
        &json!({ "code": 5, "message": "Not Found", "details": [] }),
    )
}

pub(super) fn failed(why: &dyn std::fmt::Display) -> Answer {
    tracing::warn!(%why, "demo backend");
    json(
        StatusCode::INTERNAL_SERVER_ERROR,
        &json!({ "code": 13, "message": "Internal", "details": [] }),
    )
}

/// Adds a header to an answer.
pub(super) trait With {
    fn with(self, name: HeaderName, value: &'static str) -> Self;
    fn cached(self) -> Self;
    fn not_stored(self) -> Self;
}

impl With for Answer {
    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers_mut()
            .insert(name, HeaderValue::from_static(value));
        self
    }

    fn cached(self) -> Self {
        self.with(CACHE_CONTROL, "public, max-age=300")
    }

    fn not_stored(self) -> Self {
        self.with(CACHE_CONTROL, "no-store")
    }
}

/// The whole request body, or the answer that refuses it.
pub(super) async fn read(body: Incoming) -> Result<Bytes, Answer> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(json(
            StatusCode::PAYLOAD_TOO_LARGE,
            &json!({ "code": 8, "message": "Request body too large", "details": [] }),
        )),
        Err(_) => Err(json(
            StatusCode::BAD_REQUEST,
            &json!({ "code": 3, "message": "Request body broke off", "details": [] }),
        )),
    }
}
