//! `Config` made ready to run: names resolved, matchers built, keys loaded. Immutable, and swapped whole by a reload.
//!
//! Live state (clusters with their health, limits with their buckets, issuers with their keys) is carried over from the
//! previous snapshot by name where its configuration is unchanged.

mod compile;
mod counted;
mod explain;
mod limits;
mod listener;
mod policy;
mod sample;
mod status;
mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::authn::Authorities;
use crate::config::Config;
use crate::cors;
use crate::limit::Limit;
use crate::route::{Head, Table};
use crate::store::Store;
use crate::telemetry::metrics::RouteMetrics;
use crate::tls;
use crate::transform::{IdentityNames, Signer};
use crate::types::{Envelope, Reason, Rejection};
use crate::upstream::Cluster;

pub use crate::authn::{Keepsake, Lapse, Vigil, Vigils};
pub use crate::telemetry::metrics::OpenConnection;
pub use counted::Sight;
pub use explain::{Step, Verdict};
pub use limits::ListenerLimits;
pub use listener::Listener;
pub use policy::{Action, Answer, Policy};
pub use walk::Walk;

/// Everything that a request is judged by.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts reloads; 1 for the first snapshot of a process.
    pub generation: u64,
    /// What it was compiled from.
    pub config: Arc<Config>,
    /// Listeners, sorted by name; `ConnFacts::listener` is the position.
    pub listeners: Box<[Listener]>,
    /// Routes.
    pub routes: Table<Arc<Policy>>,
    /// Header names that only we may write.
    pub identity: IdentityNames,
    /// Upstreams by name.
    pub clusters: BTreeMap<String, Arc<Cluster>>,
    /// Issuers and sessions by name.
    pub authorities: Authorities,
    /// Limits by name.
    pub limits: BTreeMap<String, Arc<Limit>>,
    /// What replicas share, where there are several.
    pub store: Option<Arc<Store>>,
    /// Who signs assertions, where a route needs one.
    pub signer: Option<Arc<Signer>>,
    /// Most exchanges in flight in the process.
    pub max_in_flight: u32,
    /// Most tunnels in the process.
    pub max_tunnels: u32,
    unrouted: Arc<RouteMetrics>,
}

impl Snapshot {
    /// The listener at `position`.
    ///
    /// # Errors
    /// `Internal` for a position that does not exist; listeners are fixed at start, so that would be a defect.
    pub fn listener(&self, position: usize) -> Result<&Listener, Rejection> {
        self.listeners
            .get(position)
            .ok_or_else(|| Rejection::because(Reason::Internal, "unknown listener"))
    }

    /// The policy of the route that such a request matches. A preflight is matched by the method that it announces, so
    /// that the route it asks about answers it; where that route leaves CORS to the backend, OPTIONS is matched as it came.
    ///
    /// # Errors
    /// `NoRoute`, `MethodRefused`.
    pub fn policy_for(
        &self,
        listener: usize,
        head: &Head,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<&Arc<Policy>, Rejection> {
        let find = |method: &Method| self.routes.find(listener, head, method, headers);
        let announced = cors::preflight_method(method, headers);
        announced
            .and_then(|method| find(&method).ok())
            .filter(|policy| policy.cors.is_some())
            .map_or_else(|| find(method), Ok)
    }

    /// The metrics of requests that match no route of the listener at `position`.
    #[must_use]
    pub fn unrouted_metrics(&self, position: usize) -> &Arc<RouteMetrics> {
        self.listeners
            .get(position)
            .map_or(&self.unrouted, |listener| &listener.unrouted)
    }

    /// What refusals of the listener at `position` look like where no route says otherwise.
    #[must_use]
    pub fn errors(&self, position: usize) -> Envelope {
        self.listeners
            .get(position)
            .map_or(Envelope::default(), |listener| listener.errors)
    }

    /// Writes down keys that were made for this snapshot. To be called once it is in force.
    pub fn save_keys(&self) {
        if let Some(Err(error)) = self.signer.as_ref().map(|signer| signer.save()) {
            tracing::warn!(%error, "the assertion key cannot be kept; a restart makes another one");
        }
    }

    /// How the listener `name` terminates TLS.
    fn tls_of(&self, name: &str) -> Option<&tls::Termination> {
        let listener = self
            .listeners
            .iter()
            .find(|listener| &*listener.name == name)?;
        listener.tls.as_ref()
    }

    /// What is worth telling about the certificates: (listener, warning).
    pub fn certificate_warnings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.listeners.iter().flat_map(|listener| {
            let warnings = listener.tls.iter().flat_map(|tls| tls.warnings());
            warnings.map(|warning| (&*listener.name, warning.as_str()))
        })
    }

    /// What is not ready to serve yet, in words for the readiness probe. Empty: all is.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let issuers = self.authorities.issuers.values();
        let issuers = issuers
            .filter(|issuer| !issuer.is_ready())
            .map(|issuer| format!("issuer {} has no keys yet", issuer.name()));
        let store = self.store.as_ref().and_then(|store| store.not_ready());
        issuers.chain(store).collect()
    }
}
