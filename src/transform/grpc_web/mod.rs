//! gRPC-Web towards the client, gRPC towards the upstream, for routes that say `grpc_web = "translate"`.
//!
//! Nothing is buffered: frames pass as they come, and what is kept between two pieces is a handful of bytes. The frames
//! are checked on their way, in both directions, so that neither side can slip the other a trailers frame.
//!
//! Not here: refusals (rendered in the caller's dialect elsewhere) and the CORS headers that let scripts read a status.

mod frames;
mod request;
mod response;
mod text;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE,
    TRAILER,
};
use http::{Method, StatusCode};

use self::request::RequestFilter;
use self::response::{ResponseFilter, take_verdict};
use crate::types::body::{Filter, Piece};
use crate::types::{BodyError, Dialect, Reason, Rejection, Request, Response};

pub use frames::Frames;
pub use text::Decoder;

const GRPC: &str = "application/grpc";
const WEB: &str = "application/grpc-web";
const WEB_TEXT: &str = "application/grpc-web-text";

const X_GRPC_WEB: HeaderName = HeaderName::from_static("x-grpc-web");

/// Whether `dialect` is one that can be translated.
#[must_use]
pub fn speaks(dialect: Dialect) -> bool {
    family(dialect).is_some()
}

/// Makes a gRPC-Web request a gRPC request; one of another dialect passes as it is.
///
/// # Errors
/// `MethodRefused` for another method than POST, `BadGrpcWeb` when the body is encoded beyond what the dialect knows.
pub fn request(request: Request, dialect: Dialect) -> Result<Request, Rejection> {
    let Some(family) = family(dialect) else {
        return Ok(request);
    };
    if request.method() != Method::POST {
        let detail = "gRPC-Web calls are POST requests";
        return Err(Rejection::because(Reason::MethodRefused, detail));
    }
    let (mut parts, body) = request.into_parts();
    rewrite_request_head(&mut parts.headers, family)?;
    let body = body.filtered(Box::new(RequestFilter::new(is_text(dialect))));
    Ok(Request::from_parts(parts, body))
}

/// The dialect in which a client wants its answer: that of its request, unless it sent binary frames and accepts text
/// only. To be asked before [`request()`].
#[must_use]
pub fn answers_in(headers: &HeaderMap, dialect: Dialect) -> Dialect {
    let wants_text = || {
        headers.get_all(ACCEPT).iter().any(|value| {
            let start = value.as_bytes().get(..WEB_TEXT.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(WEB_TEXT.as_bytes()))
        })
    };
    if dialect == Dialect::GrpcWeb && wants_text() {
        Dialect::GrpcWebText
    } else {
        dialect
    }
}

/// Makes a gRPC response one of `dialect`. Whatever is no gRPC response (another status, another type) passes as it is.
#[must_use]
pub fn response(response: Response, dialect: Dialect) -> Response {
    let Some(family) = family(dialect) else {
        return response;
    };
    let headers = response.headers();
    if response.status() != StatusCode::OK || Dialect::of(headers) != Dialect::Grpc {
        return response;
    }
    let Some(content_type) = with_suffix_of(headers, GRPC, family) else {
        return response;
    };
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(CONTENT_TYPE, content_type);
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(TRAILER);
    let verdict = take_verdict(&mut parts.headers);
    let filter = ResponseFilter::new(is_text(dialect), verdict);
    Response::from_parts(parts, body.filtered(Box::new(filter)))
}

/// What the upstream receives for a request body that arrives in these pieces: the whole translation without a
/// connection, for fuzzing and for tools.
///
/// # Errors
/// [`BodyError::Malformed`] when the body is not what the dialect promises.
pub fn decode<'a>(
    dialect: Dialect,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, BodyError> {
    let mut filter = RequestFilter::new(is_text(dialect));
    let mut frames = VecDeque::new();
    for piece in pieces {
        filter.push(Piece::Data(Bytes::copy_from_slice(piece)), &mut frames)?;
    }
    filter.push(Piece::End, &mut frames)?;
    let data = frames.iter().filter_map(|frame| frame.data_ref());
    Ok(data.flatten().copied().collect())
}

/// The media type of a dialect that is translated.
fn family(dialect: Dialect) -> Option<&'static str> {
    match dialect {
        Dialect::GrpcWeb => Some(WEB),
        Dialect::GrpcWebText => Some(WEB_TEXT),
        Dialect::Http
        | Dialect::Grpc
        | Dialect::Connect
        | Dialect::ConnectStream
        | Dialect::ConnectStreamJson => None,
    }
}

fn is_text(dialect: Dialect) -> bool {
    dialect == Dialect::GrpcWebText
}

fn rewrite_request_head(headers: &mut HeaderMap, family: &str) -> Result<(), Rejection> {
    let is_encoded = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if is_encoded {
        let detail = "a gRPC-Web body has no content-encoding; messages are compressed one by one";
        return Err(Rejection::because(Reason::BadGrpcWeb, detail));
    }
    let content_type = with_suffix_of(headers, family, GRPC).ok_or_else(|| {
        Rejection::because(
            Reason::BadGrpcWeb,
            "the content type has a malformed suffix",
        )
    })?;
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.remove(X_GRPC_WEB);
    headers.remove(CONTENT_LENGTH);
    headers.remove(CONTENT_ENCODING);
    Ok(())
}

/// `application/grpc-web+proto; charset=x` of the family `application/grpc-web` is `application/grpc+proto`. Parameters
/// go: gRPC servers compare the whole text.
fn with_suffix_of(headers: &HeaderMap, from: &str, to: &'static str) -> Option<HeaderValue> {
    let sent = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = sent.split(';').next()?.trim_end();
    let (family, suffix) = essence.split_at_checked(from.len())?;
    if !family.eq_ignore_ascii_case(from) {
        return None;
    }
    if suffix.is_empty() {
        return Some(HeaderValue::from_static(to));
    }
    let is_word = suffix.strip_prefix('+').is_some_and(|word| {
        let mut bytes = word.bytes();
        !word.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    });
    is_word.then(|| HeaderValue::try_from([to, suffix].concat()).ok())?
}
