//! From a socket to requests: binds, accepts, shakes hands, chooses the protocol, and ends whatever takes too long.
//!
//! hyper speaks HTTP; everything that bounds a connection in time and number is ours and stands here: `caps`
//! count connections, `watch` holds the deadlines of one connection, `io` sees its bytes, `h1` refuses what hyper's
//! parser would overlook in HTTP/1, `frames` counts h2 frames. What a request means is left to the [`Handler`]; how long
//! its body may take is left to `types::body`.

mod accept;
mod activity;
mod caps;
mod connection;
mod exchange;
mod frames;
mod gateway;
pub mod h1;
mod io;
mod listener;
mod pace;
mod sniff;
mod streams;
mod watch;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;

use crate::snapshot::ListenerLimits;
use crate::types::{BodyError, ConnFacts, Protocol, Rejection};

pub use crate::types::drain::{Drain, Stage};
pub use accept::accept;
pub use listener::{Listener, bind, open, probe};

/// What a connection is served with; one per worker.
pub trait Handler: Send + Sync + 'static {
    /// The body of an answer.
    type Body: http_body::Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static;

    /// Counts a connection while it is held.
    type Presence: Send + Unpin + 'static;

    /// A connection of `listener` speaks `protocol` from now on, until what is returned is dropped.
    fn present(&self, listener: usize, protocol: Protocol) -> Self::Presence;

    /// Answers one request. A panic in here ends this request alone, see [`Handler::panicked`].
    fn handle(
        self: Arc<Self>,
        conn: Arc<ConnFacts>,
        request: http::Request<Incoming>,
    ) -> impl Future<Output = http::Response<Self::Body>> + Send;

    /// The answer to a request that must not be handled: its head was refused, and `why` is all that is known of it.
    fn refuse(&self, conn: &Arc<ConnFacts>, why: Rejection) -> http::Response<Self::Body>;

    /// The answer to a request whose handling panicked.
    fn panicked(&self, conn: &ConnFacts) -> http::Response<Self::Body>;

    /// The limits in force for new connections of `listener`.
    fn limits(&self, listener: usize) -> Arc<ListenerLimits>;

    /// The TLS configuration for new connections of `listener`; `None` only if the listener is meant to be cleartext.
    fn tls(&self, listener: usize) -> Option<Arc<rustls::ServerConfig>>;

    /// Whether `peer` is a trusted proxy of `listener`; its connections do not count against the cap per address.
    fn trusts(&self, listener: usize, peer: IpAddr) -> bool;

    /// Called for everything that should be counted and that no request tells of.
    fn note(&self, listener: usize, event: Event);
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A connection was accepted.
    Accepted,
    /// `accept` failed for want of file descriptors or memory; the listener pauses.
    AcceptFailed,
    /// As many connections are open as the limit of file descriptors allows; the listeners pause.
    NoDescriptors,
    /// A connection was closed at once: its address holds as many as it may.
    PerIpCap,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// A request head took too long, or never came.
    HeadTimeout,
    /// A request head was malformed or too large, and was refused before any handler saw it.
    BadHead,
    /// The connection was idle for too long.
    IdleTimeout,
    /// The client did not take the bytes of a response.
    WriteStalled,
    /// The client did not take the bytes of one HTTP/2 stream, which was reset.
    StreamStalled,
    /// The client sent too many control frames or resets.
    Flooded,
    /// The connection had served long enough, or often enough.
    Retired,
    /// The connection was ended because the gateway stops.
    Drained,
    /// The handling of a request panicked.
    Panicked,
}

impl Event {
    /// All events.
    pub const ALL: &'static [Self] = &[
        Self::Accepted,
        Self::AcceptFailed,
        Self::NoDescriptors,
        Self::PerIpCap,
        Self::HandshakeFailed,
        Self::HandshakeTimeout,
        Self::HeadTimeout,
        Self::BadHead,
        Self::IdleTimeout,
        Self::WriteStalled,
        Self::StreamStalled,
        Self::Flooded,
        Self::Retired,
        Self::Drained,
        Self::Panicked,
    ];

    /// The label of the metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::AcceptFailed => "accept_failed",
            Self::NoDescriptors => "no_descriptors",
            Self::PerIpCap => "per_ip_cap",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HeadTimeout => "head_timeout",
            Self::BadHead => "bad_head",
            Self::IdleTimeout => "idle_timeout",
            Self::WriteStalled => "write_stalled",
            Self::StreamStalled => "stream_stalled",
            Self::Flooded => "flooded",
            Self::Retired => "retired",
            Self::Drained => "drained",
            Self::Panicked => "panicked",
        }
    }
}
