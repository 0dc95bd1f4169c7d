//! The bounds of a listener's connections, ready to use.

use std::time::Duration;

use crate::config::{self, HttpVersion};
use crate::types::Protocol;

/// Deadlines and caps of one listener; read once per accepted connection. The default lets nothing through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerLimits {
    /// The one protocol that is spoken; `None`: both.
    pub only: Option<Protocol>,
    /// Longest TLS handshake.
    pub handshake_timeout: Duration,
    /// Longest wait for a complete request head, the h2 preface included.
    pub head_timeout: Duration,
    /// Longest time without an exchange.
    pub idle_timeout: Duration,
    /// Longest time that a client may refuse to take bytes.
    pub write_timeout: Duration,
    /// Most connections at once.
    pub max_connections: u32,
    /// Most connections at once of one address.
    pub max_connections_per_ip: u32,
    /// Most requests on one connection.
    pub max_requests_per_connection: u32,
    /// Longest life of a connection.
    pub max_connection_age: Duration,
    /// Largest request head.
    pub max_head: usize,
    /// Most header fields.
    pub max_fields: usize,
    /// Longest request target.
    pub max_target: usize,
    /// Most concurrent streams of an h2 connection.
    pub max_streams: u32,
    /// Most PINGs and SETTINGS of a client in [`ListenerLimits::FLOOD_WINDOW`] beyond those that answer our own data.
    pub max_control_frames: u32,
    /// Most streams that a client may reset in [`ListenerLimits::FLOOD_WINDOW`]; a quarter of that for young ones.
    pub max_resets: u32,
    /// Whether a route of the listener takes WebSockets, so that HTTP/2 clients are told of extended CONNECT (RFC 8441).
    pub websockets: bool,
}

impl ListenerLimits {
    /// The time over which floods are counted.
    pub const FLOOD_WINDOW: Duration = Duration::from_secs(10);

    /// What the file says.
    #[must_use]
    pub fn compile(listen: &config::Listen, websockets: bool) -> Self {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            only: only(&listen.protocols),
            handshake_timeout: listen.handshake_timeout.0,
            head_timeout: listen.head_timeout.0,
            idle_timeout: listen.idle_timeout.0,
            write_timeout: listen.write_timeout.0,
            max_connections: listen.max_connections,
            max_connections_per_ip: listen.max_connections_per_ip,
            max_requests_per_connection: listen.max_requests_per_connection,
            max_connection_age: listen.max_connection_age.0,
            max_head: size(listen.max_head.0),
            max_fields: size(u64::from(listen.max_fields)),
            max_target: size(listen.max_target.0),
            max_streams: listen.max_streams,
            max_control_frames: listen.max_control_frames,
            max_resets: listen.max_resets,
            websockets,
        }
    }
}

fn only(protocols: &[HttpVersion]) -> Option<Protocol> {
    let speaks = |version| protocols.contains(&version);
    match (speaks(HttpVersion::H1), speaks(HttpVersion::H2)) {
        (true, false) => Some(Protocol::Http1),
        (false, true) => Some(Protocol::Http2),
        _ => None,
    }
}
