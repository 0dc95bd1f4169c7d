//! A listener as the pipeline and the server see it.

use std::sync::Arc;

use std::time::Duration;

use http::StatusCode;
use http::header::HeaderValue;

use super::ListenerLimits;
use super::policy::moved_to;
use crate::client_ip::Trust;
use crate::limit::Limits;
use crate::route::{Head, HeadCaps};
use crate::telemetry::metrics::{ListenerMetrics, RouteMetrics};
use crate::tls;
use crate::types::{Envelope, Response};

/// A listener, compiled.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// Whose forwarding headers are believed.
    pub trust: Trust,
    /// Bounds of a request head.
    pub caps: HeadCaps,
    /// Deadlines and caps of its connections.
    pub conn: Arc<ListenerLimits>,
    /// Certificates, if it speaks TLS.
    pub tls: Option<tls::Termination>,
    /// Limits on every request, before routing.
    pub limits: Limits,
    /// What refusals look like where no route says otherwise.
    pub errors: Envelope,
    /// Whether everything is sent to https.
    pub redirect_https: bool,
    /// Longest wait for the next piece of a request body, and the least rate of its bytes a second.
    pub body_patience: (Duration, u64),
    /// Metrics of its connections.
    pub metrics: Arc<ListenerMetrics>,
    /// Metrics of requests that match no route.
    pub unrouted: Arc<RouteMetrics>,
}

impl Listener {
    /// The answer of a listener that sends everything to https.
    #[must_use]
    pub fn redirect(&self, head: &Head) -> Option<Response> {
        if !self.redirect_https {
            return None;
        }
        let location = format!("https://{}{}", head.host(), head.path_and_query());
        let location = HeaderValue::try_from(location).ok()?;
        Some(moved_to(location, StatusCode::PERMANENT_REDIRECT))
    }
}
