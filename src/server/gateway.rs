//! What connections are served with: the pipeline, under the snapshot in force.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::Incoming;

use super::{Event, Handler};
use crate::exchange::Ledger;
use crate::pipeline::{self, Gateway};
use crate::snapshot::{Listener, ListenerLimits, OpenConnection};
use crate::types::{ConnFacts, Protocol, Rejection};

impl Handler for Gateway {
    type Body = Ledger;
    type Presence = Option<OpenConnection>;

    fn present(&self, listener: usize, protocol: Protocol) -> Self::Presence {
        self.of_listener(listener, |listener| listener.metrics.open(protocol))
    }

    fn handle(
        self: Arc<Self>,
        conn: Arc<ConnFacts>,
        request: http::Request<Incoming>,
    ) -> impl Future<Output = http::Response<Ledger>> + Send {
        pipeline::handle(self, conn, request)
    }

    fn refuse(&self, conn: &Arc<ConnFacts>, why: Rejection) -> http::Response<Ledger> {
        pipeline::refuse(self, conn, why)
    }

    fn panicked(&self, conn: &ConnFacts) -> http::Response<Ledger> {
        self.shared().desk.metrics.panicked();
        pipeline::panicked(conn)
    }

    fn limits(&self, listener: usize) -> Arc<ListenerLimits> {
        // Listeners are fixed at start, so the position exists; nothing would pass if it did not.
        self.of_listener(listener, |listener| Arc::clone(&listener.conn))
            .unwrap_or_default()
    }

    fn tls(&self, listener: usize) -> Option<Arc<rustls::ServerConfig>> {
        self.of_listener(listener, |listener| {
            listener.tls.as_ref().map(|tls| Arc::clone(tls.config()))
        })
        .flatten()
    }

    fn trusts(&self, listener: usize, peer: IpAddr) -> bool {
        self.of_listener(listener, |listener| listener.trust.trusts(peer))
            .unwrap_or(false)
    }

    fn note(&self, listener: usize, event: Event) {
        let _ = self.of_listener(listener, |listener| match event {
            Event::Accepted | Event::Panicked => {}
            Event::HandshakeFailed | Event::HandshakeTimeout => listener.metrics.handshake_failed(),
            other => listener.metrics.refused(other.as_str()),
        });
    }
}

impl Gateway {
    fn of_listener<T>(&self, position: usize, read: impl FnOnce(&Listener) -> T) -> Option<T> {
        self.snapshot().listeners.get(position).map(read)
    }
}
