//! gRPC calls as they look on the wire: framed by hand, so that trailers and frames are seen and not interpreted away.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use prost::Message;

use super::{Answer, Client, ClientError};

/// How a call is spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Native gRPC: needs HTTP/2; the verdict is in the trailers.
    Grpc,
    /// gRPC-Web in binary: the verdict is the last frame of the body.
    Web,
    /// gRPC-Web in base64, for clients that cannot read bytes while they arrive.
    WebText,
}

/// What came back from a call, unary or server-streaming.
#[derive(Clone, Debug)]
pub struct Call<M> {
    /// HTTP status.
    pub http: StatusCode,
    /// `grpc-status`, from wherever this spelling has it; `None` if it is nowhere.
    pub status: Option<u32>,
    /// `grpc-message`, as sent.
    pub message: String,
    /// Header fields.
    pub headers: HeaderMap,
    /// The trailer section; for gRPC-Web what the trailer frame says.
    pub trailers: HeaderMap,
    /// The messages.
    pub messages: Vec<M>,
}

impl Wire {
    /// The content type of requests, and of answers in the same spelling.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Grpc => "application/grpc",
            Self::Web => "application/grpc-web+proto",
            Self::WebText => "application/grpc-web-text+proto",
        }
    }
}

/// Sends one message and takes in all that come back. `metadata` rides along as header fields.
///
/// # Errors
/// When there is no answer, or one whose frames are broken.
pub async fn call<M: Message + Default>(
    client: &mut Client,
    wire: Wire,
    uri: &Uri,
    metadata: &HeaderMap,
    message: &impl Message,
) -> Result<Call<M>, ClientError> {
    let answer = client.send(request(wire, uri, metadata, message)).await?;
    understand(wire, answer)
}

/// The request that [`call`] sends.
#[must_use]
pub fn request(
    wire: Wire,
    uri: &Uri,
    metadata: &HeaderMap,
    message: &impl Message,
) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body(wire, message)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.extend(metadata.clone());
    let content_type = HeaderValue::from_static(wire.content_type());
    headers.insert(CONTENT_TYPE, content_type.clone());
    if wire == Wire::Grpc {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    } else {
        headers.insert(ACCEPT, content_type);
        headers.insert("x-grpc-web", HeaderValue::from_static("1"));
    }
    request
}

/// The body of a call with one message.
#[must_use]
pub fn body(wire: Wire, message: &impl Message) -> Bytes {
    let frame = framed(message);
    match wire {
        Wire::WebText => Bytes::from(STANDARD.encode(&frame)),
        Wire::Grpc | Wire::Web => frame,
    }
}

/// The five bytes of a gRPC frame, then the message.
#[must_use]
pub fn framed(message: &impl Message) -> Bytes {
    let payload = message.encode_to_vec();
    let mut frame = BytesMut::with_capacity(HEAD + payload.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    frame.put_slice(&payload);
    frame.freeze()
}

/// Reads an answer to [`request`] as the call that it is.
///
/// # Errors
/// When the frames are broken.
pub fn understand<M: Message + Default>(
    wire: Wire,
    answer: Answer,
) -> Result<Call<M>, ClientError> {
    let mut call = Call {
        http: answer.status,
        status: None,
        message: String::new(),
        trailers: answer.trailers,
        headers: answer.headers,
        messages: Vec::new(),
    };
    if answer.status == StatusCode::OK {
        let body = match wire {
            Wire::WebText => decoded(&answer.body)?,
            Wire::Grpc | Wire::Web => answer.body,
        };
        unframe(body, &mut call)?;
    }
    // A refusal without messages has its verdict in the head.
    let verdict = [&call.trailers, &call.headers]
        .into_iter()
        .find(|fields| fields.contains_key("grpc-status"));
    if let Some(fields) = verdict {
        call.status = text(fields, "grpc-status").parse().ok();
        call.message = text(fields, "grpc-message").to_owned();
    }
    Ok(call)
}

fn unframe<M: Message + Default>(mut body: Bytes, call: &mut Call<M>) -> Result<(), ClientError> {
    while !body.is_empty() {
        if body.len() < HEAD {
            return Err(ClientError::Rpc("the last frame has no head".to_owned()));
        }
        let flags = body.get_u8();
        let length = usize::try_from(body.get_u32()).unwrap_or(usize::MAX);
        if body.len() < length {
            return Err(ClientError::Rpc("the last frame is cut off".to_owned()));
        }
        let payload = body.split_to(length);
        match flags {
            0 => {
                let message = M::decode(payload);
                let message = message.map_err(|error| ClientError::Rpc(error.to_string()))?;
                call.messages.push(message);
            }
            TRAILER_FRAME => {
                call.trailers = trailers(&payload)?;
                if !body.is_empty() {
                    return Err(ClientError::Rpc("bytes follow the trailers".to_owned()));
                }
            }
            other => return Err(ClientError::Rpc(format!("frame with flags {other:#04x}"))),
        }
    }
    Ok(())
}

/// A server may pad wherever it flushes, so every four characters are taken by themselves.
fn decoded(text: &Bytes) -> Result<Bytes, ClientError> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for quantum in text.chunks(4) {
        STANDARD
            .decode_vec(quantum, &mut bytes)
            .map_err(|error| ClientError::Rpc(error.to_string()))?;
    }
    Ok(bytes.into())
}

/// The payload of a gRPC-Web trailer frame: field lines as in HTTP/1.1.
fn trailers(payload: &[u8]) -> Result<HeaderMap, ClientError> {
    let broken = || ClientError::Rpc("the trailer frame is no list of fields".to_owned());
    let text = std::str::from_utf8(payload).map_err(|_| broken())?;
    let mut trailers = HeaderMap::new();
    for line in text.split("\r\n").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(broken)?;
        let name: HeaderName = name.parse().map_err(|_| broken())?;
        let value: HeaderValue = value.trim().parse().map_err(|_| broken())?;
        trailers.append(name, value);
    }
    Ok(trailers)
}

fn text<'a>(fields: &'a HeaderMap, name: &str) -> &'a str {
    fields
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Bytes before the message of a frame.
const HEAD: usize = 5;

const TRAILER_FRAME: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::grpc::HelloReply;

    fn web(wire: Wire, body: impl Into<Bytes>) -> Result<Call<HelloReply>, ClientError> {
        understand(
            wire,
            Answer {
                status: StatusCode::OK,
                version: http::Version::HTTP_11,
                headers: HeaderMap::new(),
                body: body.into(),
                trailers: HeaderMap::new(),
            },
        )
    }

    const TRAILERS: &[u8] = b"\x80\0\0\0\x10grpc-status: 0\r\n";

    #[test]
    fn a_web_answer_is_messages_and_a_trailer_frame() {
        let reply = HelloReply {
            message: "Hello!".to_owned(),
            user: String::new(),
        };
        let body = [framed(&reply).as_ref(), TRAILERS].concat();
        let call = web(Wire::Web, body).unwrap();
        assert_eq!((call.status, call.messages), (Some(0), vec![reply]));
    }

    #[test]
    fn base64_may_be_padded_in_the_middle() {
        let reply = HelloReply::default();
        let text = STANDARD.encode(framed(&reply)) + &STANDARD.encode(TRAILERS);
        assert!(text.contains("=") && !text.ends_with("=="));
        let call = web(Wire::WebText, text).unwrap();
        assert_eq!((call.status, call.messages), (Some(0), vec![reply]));
    }

    #[test]
    fn broken_frames_are_errors() {
        for body in [
            &b"\0"[..],
            b"\0\0\0\0\x05ab",
            b"\x01\0\0\0\0",
            b"\x80\0\0\0\x01x",
        ] {
            assert!(web(Wire::Web, body).is_err(), "{body:?}");
        }
        let behind = [TRAILERS, b"\0\0\0\0\0"].concat();
        assert!(web(Wire::Web, behind).is_err());
    }
}
