//! An exchange whose protocol was switched: its ledger goes on as that of the tunnel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use super::Exchange;
use crate::snapshot::{Lapse, Vigil};
use crate::telemetry::Outcome;
use crate::telemetry::metrics::TunnelMetrics;
use crate::types::body::InFlight;
use crate::types::drain::{Drain, Ear, Stage};
use crate::types::{clock, task};
use crate::upstream::{self, Direction, Ended, Leave, Tunnel};

/// A tunnel that is about to begin.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) tunnel: Tunnel,
    pub(super) stall: Duration,
    pub(super) counted: InFlight,
}

impl Next {
    /// Begins once the answer is out.
    pub(super) fn begin(self, mut exchange: Box<Exchange>, drain: &Drain) {
        exchange.is_tunnel = true;
        exchange._in_flight = None; // it counts as a tunnel from now on
        let elapsed = clock::now().saturating_duration_since(exchange.started);
        exchange
            .metrics
            .observe(&exchange.method, exchange.status, elapsed);
        let Self {
            tunnel,
            stall,
            counted,
        } = self;
        let mut passage = Passage::open(exchange, counted);
        let mut ear = drain.ear();
        let mut vigil = passage.vigil();
        drop(task::spawn("tunnel", async move {
            let leave = |cx: &mut Context<'_>| poll_leave(cx, &mut ear, vigil.as_mut());
            let passed = |direction, bytes| passage.passed(direction, bytes);
            let ended = tunnel.run(stall, passed, leave).await;
            passage.ends(ended);
        }));
    }
}

/// The ledger of a tunnel; it closes when it is dropped.
#[derive(Debug)]
struct Passage {
    exchange: Option<Box<Exchange>>,
    metrics: Option<Arc<TunnelMetrics>>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    ended: Ended,
    _counted: InFlight,
}

impl Passage {
    fn open(exchange: Box<Exchange>, counted: InFlight) -> Self {
        let policy = exchange.policy.as_ref();
        let metrics = policy.and_then(|policy| policy.tunnel_metrics.clone());
        if let Some(metrics) = &metrics {
            metrics.opened();
        }
        Self {
            exchange: Some(exchange),
            metrics,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            // Unless it comes to another end, it ends with the worker.
            ended: Ended::Drained,
            _counted: counted,
        }
    }

    /// A tunnel lasts: it is watched over from its beginning.
    fn vigil(&mut self) -> Option<Vigil> {
        let exchange = self.exchange.as_mut()?;
        let vigil = exchange.vigil();
        exchange.leash = None;
        vigil
    }

    fn ends(&mut self, how: Ended) {
        self.ended = how;
    }

    fn passed(&self, direction: Direction, bytes: usize) {
        let bytes = bytes as u64;
        match direction {
            Direction::In => self.bytes_in.fetch_add(bytes, Ordering::Relaxed),
            Direction::Out => self.bytes_out.fetch_add(bytes, Ordering::Relaxed),
        };
        if let Some(metrics) = &self.metrics {
            match direction {
                Direction::In => metrics.passed_in(bytes),
                Direction::Out => metrics.passed_out(bytes),
            }
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let how = self.ended.as_str();
        if let Some(metrics) = &self.metrics {
            metrics.ended(how);
        }
        if let Some(mut exchange) = self.exchange.take() {
            exchange.ended = Some(how);
            exchange.bytes_in = self.bytes_in.load(Ordering::Relaxed);
            exchange.bytes_out = self.bytes_out.load(Ordering::Relaxed);
            exchange.close(match self.ended {
                Ended::ClientClosed | Ended::UpstreamClosed => Outcome::Complete,
                _ => Outcome::Aborted,
            });
        }
    }
}

/// Whether a tunnel must end, and why.
fn poll_leave(cx: &mut Context<'_>, ear: &mut Ear, vigil: Option<&mut Vigil>) -> Poll<Leave> {
    if let Some(Poll::Ready(lapse)) = vigil.map(|vigil| vigil.poll(cx)) {
        let (why, reason) = match lapse {
            Lapse::Expired => (Ended::Expired, "token_expired"),
            Lapse::Revoked => (Ended::Revoked, "token_revoked"),
        };
        return Poll::Ready(Leave {
            why,
            code: UNAUTHENTICATED,
            reason,
        });
    }
    if ear.stage(cx) < Stage::Parting {
        return Poll::Pending;
    }
    Poll::Ready(Leave {
        why: Ended::Drained,
        code: upstream::GOING_AWAY,
        reason: "the gateway stops",
    })
}

/// The close code for a credential that has ended: 4000 and up are for applications, and 401 is what HTTP would say.
const UNAUTHENTICATED: u16 = 4401;
