//! The connections of one worker, by endpoint.
//!
//! HTTP/1.1 connections lie on a stack: the one used last is taken first, so that the others grow idle and close.
//! HTTP/2 connections are shared; another one is opened when those at hand are nearly full. What is lent travels with
//! the response body as its [`Lease`] and comes back when that has ended. The boxes are used again, so that a request
//! allocates none.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use parking_lot::Mutex;

use super::connect::{ConnectError, Opened, Purpose};
use super::endpoint::Endpoint;
use crate::types::body::Lease;
use crate::types::{Body, clock, task};

/// Most idle HTTP/1.1 connections kept for one endpoint.
const MAX_IDLE: usize = 256;
/// Most HTTP/2 connections to one endpoint.
const MAX_SHARED: usize = 8;
/// Of the streams that a peer allows, the part that is used before another connection is opened.
const NEARLY_FULL_PERCENT: usize = 80;
/// Streams to put on one connection at most, whatever the peer allows.
const MAX_STREAMS: usize = 1_000;
/// Between sweeps of idle connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The connections of one worker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pools(Arc<ByEndpoint>);

#[derive(Default)]
struct ByEndpoint {
    pools: Mutex<HashMap<u64, Arc<Pool>, RandomState>>,
    swept: AtomicBool,
}

/// The connections to one endpoint.
pub(super) struct Pool {
    endpoint: Weak<Endpoint>,
    idle_timeout: Duration,
    #[allow(clippy::vec_box, reason = "the box is what travels with the body")]
    idle: Mutex<Vec<Box<Exclusive>>>,
    shared: Mutex<Vec<Arc<Shared>>>,
    /// Held while an HTTP/2 connection is being opened, so that a burst opens one and not a hundred.
    opening: tokio::sync::Mutex<()>,
    /// Rises when opening failed, so that those who waited for it do not all try again.
    failures: AtomicU64,
}

/// An HTTP/1.1 connection: one request at a time.
pub(super) struct Exclusive {
    sender: http1::SendRequest<Body>,
    /// While it is lent.
    home: Option<Arc<Pool>>,
    place: Place,
    idle_since: Instant,
}

/// An HTTP/2 connection.
pub(super) struct Shared {
    sender: http2::SendRequest<Body>,
    streams: AtomicU32,
    max_streams: Arc<AtomicUsize>,
    retired: AtomicBool,
    place: Mutex<Place>,
    lent_at: Mutex<Instant>,
    /// Spare boxes, as many as there were streams at once.
    #[allow(clippy::vec_box, reason = "the box is what travels with the body")]
    slips: Mutex<Vec<Box<Slip>>>,
}

/// A stream of a [`Shared`] connection that is lent.
pub(super) struct Slip(Option<Arc<Shared>>);

/// Where a connection leads, and when that was last compared with where the endpoint is.
#[derive(Clone, Copy)]
struct Place {
    peer: SocketAddr,
    generation: u64,
}

/// An answer, or the request if not a byte of it was written.
pub(super) type Sent = Result<Response<Incoming>, TrySendError<Request<Body>>>;

/// A connection on loan.
pub(super) enum Loan {
    Exclusive(Box<Exclusive>),
    Shared(Box<Slip>, Arc<Shared>),
}

/// A loan and how it came about.
pub(super) struct Checkout {
    pub(super) loan: Loan,
    /// How long it took to open the connection; `None` for one that was there.
    pub(super) connect: Option<Duration>,
}

/// How to get a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Any that works.
    Any,
    /// One that nobody closed as idle: a new one, where connections are not shared.
    New,
    /// A new one that may switch to another protocol, and never comes back.
    ToSwitch,
}

impl Pools {
    /// No connections yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Connections at hand: idle HTTP/1.1 ones, and HTTP/2 ones.
    #[must_use]
    pub fn connections(&self) -> usize {
        let pools = self.0.pools.lock();
        pools
            .values()
            .map(|pool| pool.idle.lock().len() + pool.shared.lock().len())
            .sum()
    }

    pub(super) fn of(&self, endpoint: &Arc<Endpoint>) -> Arc<Pool> {
        let mut pools = self.0.pools.lock();
        if let Some(pool) = pools.get(&endpoint.id()) {
            return Arc::clone(pool);
        }
        let pool = Arc::new(Pool::new(endpoint));
        pools.insert(endpoint.id(), Arc::clone(&pool));
        drop(pools);
        self.keep_swept();
        pool
    }

    /// Starts the sweeper with the first pool; it ends with the last clone of `self`.
    fn keep_swept(&self) {
        if self.0.swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let pools = Arc::downgrade(&self.0);
        drop(task::spawn("sweep idle upstream connections", async move {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                let Some(pools) = pools.upgrade() else { return };
                pools.sweep(clock::now());
            }
        }));
    }
}

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pools")
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

impl ByEndpoint {
    fn sweep(&self, now: Instant) {
        self.pools.lock().retain(|_, pool| {
            pool.sweep(now);
            // An endpoint that a reload took away takes its connections along; lent ones close when they return.
            pool.endpoint.strong_count() > 0
        });
    }
}

impl Pool {
    fn new(endpoint: &Arc<Endpoint>) -> Self {
        Self {
            endpoint: Arc::downgrade(endpoint),
            idle_timeout: endpoint.settings().idle_timeout,
            idle: Mutex::default(),
            shared: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            failures: AtomicU64::new(0),
        }
    }

    /// Lends a connection to `endpoint`, opening one if there is none.
    pub(super) async fn checkout(
        self: Arc<Self>,
        endpoint: &Endpoint,
        want: Want,
        now: Instant,
    ) -> Result<Checkout, ConnectError> {
        if endpoint.target().address.scheme.is_h2() {
            if want == Want::ToSwitch {
                return Err(ConnectError::new("HTTP/2 does not switch protocols"));
            }
            return match self.at_hand(endpoint, now) {
                AtHand::Room(loan) => Ok(Checkout::reused(loan)),
                at_hand => Box::pin(self.share(endpoint, at_hand)).await,
            };
        }
        if want == Want::Any
            && let Some(connection) = self.take_idle(endpoint, now)
        {
            return Ok(Checkout::reused(Loan::Exclusive(
                self.lend_exclusive(connection),
            )));
        }
        Box::pin(self.open_exclusive(endpoint, want)).await
    }

    fn lend_exclusive(self: Arc<Self>, mut connection: Box<Exclusive>) -> Box<Exclusive> {
        connection.home = Some(self);
        connection
    }

    fn take_idle(&self, endpoint: &Endpoint, now: Instant) -> Option<Box<Exclusive>> {
        let mut idle = self.idle.lock();
        while let Some(mut connection) = idle.pop() {
            if connection.is_fit(endpoint, now, self.idle_timeout) {
                return Some(connection);
            }
        }
        None
    }

    fn put(&self, connection: Box<Exclusive>) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }

    async fn open_exclusive(
        self: Arc<Self>,
        endpoint: &Endpoint,
        want: Want,
    ) -> Result<Checkout, ConnectError> {
        let before = clock::now();
        let generation = endpoint.generation();
        let (purpose, home) = match want {
            Want::Any | Want::New => (Purpose::Requests, Some(self)),
            Want::ToSwitch => (Purpose::Upgrade, None),
        };
        let (opened, peer) = endpoint.open(purpose).await?;
        let Opened::H1(sender) = opened else {
            return Err(ConnectError::new("HTTP/2 where HTTP/1.1 was meant"));
        };
        let now = clock::now();
        let connection = Box::new(Exclusive {
            sender,
            home,
            place: Place { peer, generation },
            idle_since: now,
        });
        Ok(Checkout {
            loan: Loan::Exclusive(connection),
            connect: Some(now - before),
        })
    }

    /// The least busy HTTP/2 connection, and whether it has room.
    fn at_hand(&self, endpoint: &Endpoint, now: Instant) -> AtHand {
        let mut shared = self.shared.lock();
        shared.retain(|connection| connection.is_fit(endpoint));
        let least = shared
            .iter()
            .min_by_key(|connection| connection.streams.load(Ordering::Relaxed));
        match least {
            None => AtHand::Nothing,
            Some(connection) if connection.has_room() || shared.len() >= MAX_SHARED => {
                AtHand::Room(Shared::lend(connection, now))
            }
            Some(connection) => AtHand::Full(Shared::lend(connection, now)),
        }
    }

    /// Opens another HTTP/2 connection, or waits for whoever is doing that.
    async fn share(&self, endpoint: &Endpoint, at_hand: AtHand) -> Result<Checkout, ConnectError> {
        if let AtHand::Full(loan) = at_hand {
            let Ok(_opening) = self.opening.try_lock() else {
                return Ok(Checkout::reused(loan));
            };
            return match self.open_shared(endpoint).await {
                Ok(checkout) => Ok(checkout),
                Err(_) => Ok(Checkout::reused(loan)),
            };
        }
        let failures = self.failures.load(Ordering::Relaxed);
        let _opening = self.opening.lock().await;
        if let AtHand::Room(loan) | AtHand::Full(loan) = self.at_hand(endpoint, clock::now()) {
            return Ok(Checkout::reused(loan));
        }
        if failures != self.failures.load(Ordering::Relaxed) {
            return Err(ConnectError::new("no connection; another try just failed"));
        }
        let opened = self.open_shared(endpoint).await;
        if opened.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        opened
    }

    async fn open_shared(&self, endpoint: &Endpoint) -> Result<Checkout, ConnectError> {
        let before = clock::now();
        let generation = endpoint.generation();
        let (opened, peer) = endpoint.open(Purpose::Requests).await?;
        let Opened::H2 {
            sender,
            max_streams,
        } = opened
        else {
            return Err(ConnectError::new("HTTP/1.1 where HTTP/2 was meant"));
        };
        let now = clock::now();
        let connection = Arc::new(Shared {
            sender,
            streams: AtomicU32::new(0),
            max_streams,
            retired: AtomicBool::new(false),
            place: Mutex::new(Place { peer, generation }),
            lent_at: Mutex::new(now),
            slips: Mutex::default(),
        });
        let loan = Shared::lend(&connection, now);
        self.shared.lock().push(connection);
        Ok(Checkout {
            loan,
            connect: Some(now - before),
        })
    }

    fn sweep(&self, now: Instant) {
        let endpoint = self.endpoint.upgrade();
        let Some(endpoint) = endpoint.as_deref() else {
            return;
        };
        self.idle
            .lock()
            .retain_mut(|connection| connection.is_fit(endpoint, now, self.idle_timeout));
        self.shared.lock().retain(|connection| {
            let unused = connection.streams.load(Ordering::Relaxed) == 0
                && now.saturating_duration_since(*connection.lent_at.lock()) >= self.idle_timeout;
            connection.is_fit(endpoint) && !unused
        });
    }
}

enum AtHand {
    Nothing,
    Room(Loan),
    Full(Loan),
}

impl Place {
    /// Whether the endpoint is still there; cheap as long as its addresses do not change.
    fn holds(&mut self, endpoint: &Endpoint) -> bool {
        let generation = endpoint.generation();
        if self.generation == generation {
            return true;
        }
        self.generation = generation;
        endpoint.lives_at(self.peer)
    }
}

impl Exclusive {
    fn is_fit(&mut self, endpoint: &Endpoint, now: Instant, idle_timeout: Duration) -> bool {
        self.sender.is_ready()
            && now.saturating_duration_since(self.idle_since) < idle_timeout
            && self.place.holds(endpoint)
    }
}

impl Exclusive {
    /// Sends `request`. It comes back if not a byte of it was written.
    pub(super) fn send(&mut self, request: Request<Body>) -> impl Future<Output = Sent> + use<> {
        self.sender.try_send_request(request)
    }
}

impl Lease for Exclusive {
    fn finish(mut self: Box<Self>, clean: bool) {
        // Not ready: the request is still being written, or surplus bytes came, or the peer is about to close.
        if clean
            && self.sender.is_ready()
            && let Some(home) = self.home.take()
        {
            self.idle_since = clock::now();
            home.put(self);
        }
    }
}

impl Shared {
    fn is_fit(&self, endpoint: &Endpoint) -> bool {
        !self.retired.load(Ordering::Relaxed)
            && !self.sender.is_closed()
            && self.place.lock().holds(endpoint)
    }

    /// Sends `request`. It comes back if not a byte of it was written.
    pub(super) fn send(&self, request: Request<Body>) -> impl Future<Output = Sent> + use<> {
        self.sender.clone().try_send_request(request)
    }

    fn has_room(&self) -> bool {
        let allowed = self.max_streams.load(Ordering::Relaxed).min(MAX_STREAMS);
        let streams = self.streams.load(Ordering::Relaxed) as usize;
        streams < (allowed * NEARLY_FULL_PERCENT / 100).max(1)
    }

    fn lend(self: &Arc<Self>, now: Instant) -> Loan {
        self.streams.fetch_add(1, Ordering::Relaxed);
        *self.lent_at.lock() = now;
        let spare = self.slips.lock().pop();
        let mut slip = spare.unwrap_or_else(|| Box::new(Slip(None)));
        slip.0 = Some(Arc::clone(self));
        Loan::Shared(slip, Arc::clone(self))
    }

    /// Keeps it from being lent again; what is under way goes on.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }
}

impl Lease for Slip {
    fn finish(mut self: Box<Self>, _clean: bool) {
        if let Some(connection) = self.0.take() {
            connection.streams.fetch_sub(1, Ordering::Relaxed);
            if !connection.retired.load(Ordering::Relaxed) {
                connection.slips.lock().push(self);
            }
        }
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Checkout {
    fn reused(loan: Loan) -> Self {
        Self {
            loan,
            connect: None,
        }
    }
}

impl Loan {
    /// The shared connection behind the loan.
    pub(super) fn shared(&self) -> Option<&Arc<Shared>> {
        match self {
            Self::Exclusive(_) => None,
            Self::Shared(_, connection) => Some(connection),
        }
    }

    pub(super) fn into_lease(self) -> Box<dyn Lease> {
        match self {
            Self::Exclusive(connection) => connection,
            Self::Shared(slip, _) => slip,
        }
    }
}
