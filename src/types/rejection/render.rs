//! How a refusal is spelt: a JSON body for HTTP (RFC 9457, or what the route says), a trailers-only answer for gRPC, a trailers frame for
//! gRPC-Web, an error object for Connect. Bodies hold the code, the title and the decision id: no internals.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use http_body::Frame;

use super::{Envelope, Reason, Rejection};
use crate::types::{Body, Dialect};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Frame flag of gRPC-Web trailers.
const TRAILERS_FRAME: u8 = 0x80;
/// Envelope flag that ends a Connect stream.
const END_STREAM: u8 = 0x02;

impl Rejection {
    /// The answer that says so in `dialect`. `decision` is the id under which the log knows this refusal.
    #[must_use]
    pub fn render(&self, dialect: Dialect, decision: &str) -> Response<Body> {
        self.render_in(Envelope::Problem, dialect, decision)
    }

    /// The same, with the body that clients over plain HTTP expect here.
    #[must_use]
    pub fn render_in(
        &self,
        envelope: Envelope,
        dialect: Dialect,
        decision: &str,
    ) -> Response<Body> {
        let mut response = match dialect {
            Dialect::Http => answer(
                self.reason().status(),
                envelope.content_type(),
                envelope.body(self, decision).to_string(),
            ),
            Dialect::Grpc => self.trailers_only(decision),
            Dialect::GrpcWeb => {
                self.trailers_frame(decision, "application/grpc-web+proto", |frame| frame)
            }
            Dialect::GrpcWebText => {
                self.trailers_frame(decision, "application/grpc-web-text+proto", |frame| {
                    Bytes::from(STANDARD.encode(frame))
                })
            }
            Dialect::Connect => self.connect_error(decision),
            Dialect::ConnectStream => self.connect_end("application/connect+proto", decision),
            Dialect::ConnectStreamJson => self.connect_end("application/connect+json", decision),
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.wait() {
            headers.insert(RETRY_AFTER, whole_seconds(wait));
        }
        if let Some(budget) = self.told_budget() {
            headers.insert(RATELIMIT_POLICY, budget.policy.clone());
            if let Some(left) = budget.left() {
                headers.insert(RATELIMIT, left);
            }
        }
        if let Some(challenge) = self.challenge_value() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }

    /// What ends a stream of `dialect` that is under way, where the dialect has a way to say so.
    #[must_use]
    pub fn last_frame(&self, dialect: Dialect, decision: &str) -> Option<Frame<Bytes>> {
        match dialect {
            Dialect::Http | Dialect::Connect => None,
            Dialect::Grpc => {
                let mut trailers = HeaderMap::new();
                self.verdict(&mut trailers, decision);
                Some(Frame::trailers(trailers))
            }
            Dialect::GrpcWeb => Some(Frame::data(self.web_trailers(decision))),
            Dialect::GrpcWebText => {
                let text = STANDARD.encode(self.web_trailers(decision));
                Some(Frame::data(Bytes::from(text)))
            }
            Dialect::ConnectStream | Dialect::ConnectStreamJson => {
                Some(Frame::data(self.end_stream(decision)))
            }
        }
    }

    fn trailers_only(&self, decision: &str) -> Response<Body> {
        let mut response = answer(StatusCode::OK, "application/grpc", Bytes::new());
        self.verdict(response.headers_mut(), decision);
        response
    }

    fn verdict(&self, headers: &mut HeaderMap, decision: &str) {
        headers.insert(
            GRPC_STATUS,
            HeaderValue::from(u16::from(self.reason().grpc_status())),
        );
        if let Ok(message) = HeaderValue::from_str(&self.grpc_message(decision)) {
            headers.insert(GRPC_MESSAGE, message);
        }
    }

    fn trailers_frame(
        &self,
        decision: &str,
        content_type: &'static str,
        encode: impl FnOnce(Bytes) -> Bytes,
    ) -> Response<Body> {
        let frame = self.web_trailers(decision);
        answer(StatusCode::OK, content_type, encode(frame))
    }

    fn web_trailers(&self, decision: &str) -> Bytes {
        let trailers = format!(
            "grpc-status: {}\r\ngrpc-message: {}\r\n",
            self.reason().grpc_status(),
            self.grpc_message(decision)
        );
        envelope(TRAILERS_FRAME, trailers.as_bytes())
    }

    /// The unary error of the Connect protocol: its own status mapping, a JSON object.
    fn connect_error(&self, decision: &str) -> Response<Body> {
        let (code, status) = self.reason().connect();
        let body = serde_json::json!({ "code": code, "message": self.message(decision) });
        answer(status, "application/json", body.to_string())
    }

    /// The end of a Connect stream, which is JSON whatever its messages are. Clients believe no other content type than
    /// the one that they sent.
    fn connect_end(&self, content_type: &'static str, decision: &str) -> Response<Body> {
        answer(StatusCode::OK, content_type, self.end_stream(decision))
    }

    fn end_stream(&self, decision: &str) -> Bytes {
        let (code, _) = self.reason().connect();
        let body =
            serde_json::json!({ "error": { "code": code, "message": self.message(decision) } });
        envelope(END_STREAM, body.to_string().as_bytes())
    }

    pub(super) fn message(&self, decision: &str) -> String {
        let reason = self.reason();
        format!(
            "{} ({}, decision {decision})",
            reason.title(),
            reason.code()
        )
    }

    /// Percent-encoded as the gRPC specification asks; titles and codes are printable ASCII, so only `%` could matter.
    fn grpc_message(&self, decision: &str) -> String {
        self.message(decision).replace('%', "%25")
    }

    /// RFC 6750 section 3: no error code when no credential was shown.
    fn challenge_value(&self) -> Option<HeaderValue> {
        let reason = self.reason();
        let text = match (reason, reason.status()) {
            (Reason::CredentialMissing, _) => "Bearer realm=\"vestibule\"".to_owned(),
            (Reason::InsufficientScope, _) => {
                let scope = self
                    .www_authenticate()
                    .and_then(|challenge| challenge.scope.as_deref());
                let scope = scope
                    .map(|scope| format!(", scope=\"{scope}\""))
                    .unwrap_or_default();
                format!("Bearer realm=\"vestibule\", error=\"insufficient_scope\"{scope}")
            }
            (_, StatusCode::UNAUTHORIZED) => format!(
                "Bearer realm=\"vestibule\", error=\"invalid_token\", error_description=\"{}\"",
                reason.title()
            ),
            _ => return None,
        };
        HeaderValue::from_str(&text).ok()
    }
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// One length-prefixed frame: flags, four bytes of length, payload.
fn envelope(flags: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + payload.len());
    frame.put_u8(flags);
    frame.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    frame.put_slice(payload);
    frame.freeze()
}

/// Rounded up, so that a client that waits that long is let in; at least 1.
fn whole_seconds(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::types::rejection::Challenge;

    fn body(response: Response<Body>) -> Vec<u8> {
        use http_body_util::BodyExt as _;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .to_vec()
        })
    }

    #[test]
    fn http_gets_a_problem_document_without_internals() {
        let why = Rejection::because(Reason::TokenSignature, "kid 7 of issuer main");
        let response = why.render(Dialect::Http, "d1");
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            response.headers()[WWW_AUTHENTICATE],
            r#"Bearer realm="vestibule", error="invalid_token", error_description="The token signature is wrong.""#
        );
        let text = String::from_utf8(body(response)).unwrap();
        assert!(
            text.contains(r#""code":"token_signature""#) && text.contains(r#""decision":"d1""#),
            "{text}"
        );
        assert!(!text.contains("kid 7"), "{text}");
    }

    #[test]
    fn a_missing_credential_is_challenged_without_an_error_code() {
        let response = Rejection::new(Reason::CredentialMissing).render(Dialect::Http, "d");
        assert_eq!(
            response.headers()[WWW_AUTHENTICATE],
            r#"Bearer realm="vestibule""#
        );
    }

    #[test]
    fn a_missing_scope_is_named() {
        let scope = Some(Arc::from("write"));
        let why = Rejection::new(Reason::InsufficientScope).challenge(Challenge { scope });
        let response = why.render(Dialect::Http, "d");
        assert_eq!(
            response.headers()[WWW_AUTHENTICATE],
            r#"Bearer realm="vestibule", error="insufficient_scope", scope="write""#
        );
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let why = Rejection::new(Reason::RateLimited).retry_after(Duration::from_millis(1001));
        assert_eq!(why.render(Dialect::Http, "d").headers()[RETRY_AFTER], "2");
    }

    #[test]
    fn grpc_gets_its_status_in_the_headers_and_no_body() {
        let response = Rejection::new(Reason::RateLimited).render(Dialect::Grpc, "d");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[GRPC_STATUS], "8");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        assert!(body(response).is_empty());
    }

    #[test]
    fn grpc_web_gets_a_trailers_frame_in_its_own_coding() {
        let binary = body(Rejection::new(Reason::Forbidden).render(Dialect::GrpcWeb, "d"));
        assert_eq!(binary.first(), Some(&0x80));
        assert!(binary[5..].starts_with(b"grpc-status: 7\r\n"));
        let text = body(Rejection::new(Reason::Forbidden).render(Dialect::GrpcWebText, "d"));
        assert_eq!(STANDARD.decode(text).unwrap(), binary);
    }

    #[test]
    fn connect_gets_its_error_object() {
        let response = Rejection::new(Reason::RateLimited).render(Dialect::Connect, "d");
        assert_eq!(response.status(), 429);
        assert!(body(response).starts_with(br#"{"code":"resource_exhausted""#));
        for (dialect, content_type) in [
            (Dialect::ConnectStream, "application/connect+proto"),
            (Dialect::ConnectStreamJson, "application/connect+json"),
        ] {
            let stream = Rejection::new(Reason::RateLimited).render(dialect, "d");
            assert_eq!(stream.headers()[CONTENT_TYPE], content_type);
            assert_eq!(body(stream).first(), Some(&END_STREAM));
        }
    }

    #[test]
    fn every_reason_renders_in_every_dialect() {
        let dialects = [
            Dialect::Http,
            Dialect::Grpc,
            Dialect::GrpcWeb,
            Dialect::GrpcWebText,
            Dialect::Connect,
            Dialect::ConnectStream,
            Dialect::ConnectStreamJson,
        ];
        for reason in Reason::ALL {
            for dialect in dialects {
                let response = Rejection::new(*reason).render(dialect, "d");
                assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
                let unauthorized = reason.status() == StatusCode::UNAUTHORIZED;
                assert!(
                    !unauthorized || response.headers().contains_key(WWW_AUTHENTICATE),
                    "{reason:?}"
                );
            }
        }
    }
}
