//! One line: what is known of a request when it has ended.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};

use crate::telemetry::stamp;
use crate::types::{AuthMethod, Dialect, Protocol, Reason};

/// What is logged of one request. Absent facts leave no key.
///
/// There is no field for a cookie, a credential, or the value of a query, so none can slip in.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When the request came in.
    pub time: SystemTime,
    /// Its id, as sent upstream and to the client.
    pub request_id: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// The client, once it was found.
    pub client: Option<IpAddr>,
    /// The socket's peer.
    pub peer: SocketAddr,
    /// HTTP/1 or HTTP/2.
    pub protocol: Protocol,
    /// Whether our own listener decrypted it.
    pub tls: bool,
    /// The method.
    pub method: &'a Method,
    /// The canonical host, once there was one.
    pub host: Option<&'a str>,
    /// The canonical path, once there was one; never the query.
    pub path: Option<&'a str>,
    /// Whether there was a query.
    pub query: bool,
    /// The route's name, once it was found.
    pub route: Option<&'a str>,
    /// How the caller spells requests.
    pub dialect: Dialect,
    /// The status answered; `None` when nothing was answered.
    pub status: Option<StatusCode>,
    /// The gRPC status answered.
    pub grpc_status: Option<u32>,
    /// Why it was refused.
    pub reason: Option<Reason>,
    /// What the log alone may know of the refusal.
    pub detail: &'a str,
    /// The policy that refused.
    pub policy: Option<&'a str>,
    /// The limit that refused.
    pub limit: Option<&'a str>,
    /// The limit that would have refused, were it not only observing.
    pub limit_observed: Option<&'a str>,
    /// The caller.
    pub user: Option<&'a str>,
    /// How the caller was recognised.
    pub auth_method: Option<AuthMethod>,
    /// By which issuer or session.
    pub auth_source: Option<&'a str>,
    /// The upstream asked.
    pub upstream: Option<&'a str>,
    /// Its endpoint that answered, or was tried last.
    pub endpoint: Option<&'a str>,
    /// How often the request was sent upstream.
    pub attempts: u32,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From the head of the request to the end.
    pub duration: Duration,
    /// From the head of the request to the head of the answer.
    pub first_byte: Option<Duration>,
    /// How it ended.
    pub outcome: Outcome,
    /// How a tunnel ended, in a word.
    pub ended: Option<&'a str>,
    /// The client's `User-Agent`, as sent.
    pub user_agent: Option<&'a [u8]>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The last byte of the answer was handed to the connection.
    Complete,
    /// The answer broke off on our side or the upstream's.
    Aborted,
    /// The client left first.
    ClientGone,
}

impl Outcome {
    /// The word in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Aborted => "aborted",
            Self::ClientGone => "client_gone",
        }
    }
}

/// Longest texts, in bytes: lines are bounded, whatever a client sends.
const LONG: usize = 1_024;
const SHORT: usize = 256;
const USER_AGENT: usize = 128;
const METHOD: usize = 32;

impl Record<'_> {
    /// Appends the record as a JSON object and a line feed.
    pub(super) fn write_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        stamp::write(out, self.time);
        out.push(b'"');
        let mut object = Object { out };
        self.write_request(&mut object);
        self.write_decisions(&mut object);
        self.write_answer(&mut object);
        out.extend_from_slice(b"}\n");
    }

    fn write_request(&self, object: &mut Object<'_>) {
        object.text("request_id", self.request_id, SHORT);
        object.text("listener", self.listener, SHORT);
        if let Some(client) = self.client {
            object.plain_text("client", client);
        }
        object.plain_text("peer", self.peer);
        object.plain_text("protocol", self.protocol.as_str());
        object.plain("tls", self.tls);
        object.text("method", self.method.as_str(), METHOD);
        object.text_if("host", self.host, SHORT);
        object.text_if("path", self.path, LONG);
        object.plain("query", self.query);
        object.text_if("route", self.route, SHORT);
        object.plain_text("dialect", self.dialect.as_str());
        if let Some(bytes) = self.user_agent {
            let shown = bytes.get(..USER_AGENT).unwrap_or(bytes);
            object.text("user_agent", &String::from_utf8_lossy(shown), LONG);
        }
    }

    fn write_decisions(&self, object: &mut Object<'_>) {
        if let Some(reason) = self.reason {
            object.plain_text("reason", reason.code());
        }
        if !self.detail.is_empty() {
            object.text("detail", self.detail, SHORT);
        }
        object.text_if("policy", self.policy, SHORT);
        object.text_if("limit", self.limit, SHORT);
        object.text_if("limit_observed", self.limit_observed, SHORT);
        object.text_if("user", self.user, SHORT);
        if let Some(method) = self.auth_method {
            object.plain_text("auth_method", method.as_str());
        }
        object.text_if("auth_source", self.auth_source, SHORT);
    }

    fn write_answer(&self, object: &mut Object<'_>) {
        if let Some(status) = self.status {
            object.plain("status", status.as_u16());
        }
        if let Some(status) = self.grpc_status {
            object.plain("grpc_status", status);
        }
        object.text_if("upstream", self.upstream, SHORT);
        object.text_if("endpoint", self.endpoint, SHORT);
        object.plain("attempts", self.attempts);
        object.plain("bytes_in", self.bytes_in);
        object.plain("bytes_out", self.bytes_out);
        object.plain("duration_us", self.duration.as_micros());
        if let Some(wait) = self.first_byte {
            object.plain("first_byte_us", wait.as_micros());
        }
        object.plain_text("outcome", self.outcome.as_str());
        object.text_if("ended", self.ended, SHORT);
    }
}

/// The members of an object after its first. Writing into a `Vec` cannot fail.
struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl Object<'_> {
    /// Text from anywhere: cut to `most` bytes and escaped.
    fn text(&mut self, key: &str, text: &str, most: usize) {
        self.key(key);
        let _ = serde_json::to_writer(&mut *self.out, cut(text, most));
    }

    fn text_if(&mut self, key: &str, text: Option<&str>, most: usize) {
        if let Some(text) = text {
            self.text(key, text, most);
        }
    }

    /// A number or a truth.
    fn plain(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        let _ = write!(self.out, "{value}");
    }

    /// Text of our own that holds nothing to escape.
    fn plain_text(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        let _ = write!(self.out, "\"{value}\"");
    }

    fn key(&mut self, key: &str) {
        let _ = write!(self.out, ",\"{key}\":");
    }
}

/// At most `most` bytes, and whole characters.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or("")
}
