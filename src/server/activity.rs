//! What a connection is doing, as told by those who see it: the socket's bytes, the exchanges.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::h1::Refusal;
use crate::types::clock;

/// The running notes of one connection. Written from its tasks, all on one thread; the atomics are for `Send` alone.
#[derive(Debug)]
pub(super) struct Activity {
    started: Instant,
    max_requests: u32,
    open: AtomicU32,
    served: AtomicU32,
    idle_since: AtomicU64,
    pieces: AtomicU64,
    head: AtomicBool,
    blocked: AtomicBool,
    writes: AtomicU64,
    closing: AtomicBool,
    flooded: AtomicBool,
    overdue: AtomicBool,
    refusal: OnceLock<Refusal>,
    switch: AtomicU8,
    early: AtomicBool,
    step: AtomicU8,
    heads: AtomicU32,
    windows: Windows,
}

/// What an h2 client lets us send, as far as its frames tell.
#[derive(Debug)]
struct Windows {
    /// The window that each stream begins with.
    stream: AtomicU32,
    /// What is left of the connection's. Below zero when streams were reset before they sent what they were given:
    /// nobody tells how much that was.
    connection: AtomicI64,
}

/// What an h2 stream did when it was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing that we see.
    None,
    /// It waits for the handler, or for the body of its answer.
    Waited,
    /// It was given a piece of its answer.
    Sent,
}

/// Where an HTTP/1 request for another protocol stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    /// Nobody asked.
    None,
    /// Asked, and not answered.
    Asked,
    /// The protocol is switched.
    Done,
    /// The connection goes on as it was.
    Declined,
}

impl Activity {
    pub(super) fn new(started: Instant, max_requests: u32) -> Arc<Self> {
        Arc::new(Self {
            started,
            max_requests,
            open: AtomicU32::new(0),
            served: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            pieces: AtomicU64::new(0),
            head: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            flooded: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
            refusal: OnceLock::new(),
            switch: AtomicU8::new(Switch::None as u8),
            early: AtomicBool::new(false),
            step: AtomicU8::new(Step::None as u8),
            heads: AtomicU32::new(0),
            windows: Windows {
                stream: AtomicU32::new(DEFAULT_WINDOW),
                connection: AtomicI64::new(i64::from(DEFAULT_WINDOW)),
            },
        })
    }

    /// When the wait for the first request began.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// An exchange begins; it ends when the returned value is dropped.
    pub(super) fn open(self: &Arc<Self>) -> OpenExchange {
        self.served.fetch_add(1, Ordering::Relaxed);
        if self.worn() {
            self.set_closing();
        }
        self.hold()
    }

    /// Something is under way that is no exchange of its own: the connection is not idle until the returned value is
    /// dropped.
    pub(super) fn hold(self: &Arc<Self>) -> OpenExchange {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenExchange(Arc::clone(self))
    }

    /// Exchanges under way.
    pub(super) fn open_now(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Exchanges ever begun.
    pub(super) fn served(&self) -> u32 {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether as many exchanges were begun as one connection may have.
    pub(super) fn worn(&self) -> bool {
        self.served() >= self.max_requests
    }

    /// When the last exchange ended; meaningful while none is under way.
    pub(super) fn idle_since(&self) -> Instant {
        self.started + Duration::from_millis(self.idle_since.load(Ordering::Relaxed))
    }

    /// Notes a piece of an answer, `len` bytes long, counted in h2 frames of the default size.
    pub(super) fn answered(&self, len: usize) {
        let frames = 1 + len as u64 / 16_384;
        self.pieces.fetch_add(frames, Ordering::Relaxed);
    }

    /// Heads and pieces of answers so far.
    pub(super) fn pieces(&self) -> u64 {
        self.pieces
            .load(Ordering::Relaxed)
            .wrapping_add(u64::from(self.served()))
    }

    /// Whether part of a request head has arrived, and not the whole.
    pub(super) fn set_head(&self, unfinished: bool) {
        self.head.store(unfinished, Ordering::Relaxed);
    }

    pub(super) fn head(&self) -> bool {
        self.head.load(Ordering::Relaxed)
    }

    /// The socket took bytes.
    pub(super) fn wrote(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.blocked.store(false, Ordering::Relaxed);
    }

    /// Whether bytes wait for the socket.
    pub(super) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    pub(super) fn blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// How often the socket took bytes.
    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// From now on answers announce the end of the connection.
    pub(super) fn set_closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(super) fn closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// The client sends more control frames than anybody honest does.
    pub(super) fn set_flooded(&self) {
        self.flooded.store(true, Ordering::Relaxed);
    }

    pub(super) fn flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// The client has had long enough for its head: it is to be refused.
    pub(super) fn set_overdue(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    pub(super) fn overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    /// A head was refused before hyper saw it. The first refusal is the last: nothing is read behind it.
    pub(super) fn refuse(&self, why: Refusal) {
        let _ = self.refusal.set(why);
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }

    /// Notes where the request for another protocol stands. One is under way at most: nothing is read behind it.
    pub(super) fn set_switch(&self, switch: Switch) {
        self.switch.store(switch as u8, Ordering::Relaxed);
    }

    pub(super) fn switch(&self) -> Switch {
        match self.switch.load(Ordering::Relaxed) {
            1 => Switch::Asked,
            2 => Switch::Done,
            3 => Switch::Declined,
            _ => Switch::None,
        }
    }

    /// Bytes came behind a request for another protocol, before it was answered.
    pub(super) fn set_early(&self) {
        self.early.store(true, Ordering::Relaxed);
    }

    pub(super) fn early(&self) -> bool {
        self.early.load(Ordering::Relaxed)
    }

    /// Notes what the stream that is being polled does. Streams are polled one after the other.
    pub(super) fn set_step(&self, step: Step) {
        self.step.store(step as u8, Ordering::Relaxed);
    }

    pub(super) fn step(&self) -> Step {
        match self.step.load(Ordering::Relaxed) {
            1 => Step::Waited,
            2 => Step::Sent,
            _ => Step::None,
        }
    }

    /// The connection is polled anew: all that was ready has had its turn since.
    pub(super) fn begin_round(&self) {
        self.heads.store(0, Ordering::Relaxed);
    }

    /// A whole header block was read, which weighs as much as `count` of the usual ones.
    pub(super) fn count_heads(&self, count: u32) {
        self.heads.fetch_add(count, Ordering::Relaxed);
    }

    /// Header blocks that were read in this round.
    pub(super) fn heads_of_round(&self) -> u32 {
        self.heads.load(Ordering::Relaxed)
    }

    /// The h2 client says how much each of its streams takes to begin with.
    pub(super) fn set_stream_window(&self, bytes: u32) {
        self.windows.stream.store(bytes, Ordering::Relaxed);
    }

    /// The h2 client takes more on the whole connection.
    pub(super) fn widen(&self, bytes: u32) {
        let connection = &self.windows.connection;
        connection.fetch_add(i64::from(bytes), Ordering::Relaxed);
    }

    /// Whether the client's windows let `bytes` more through, on a stream that has sent `before`.
    pub(super) fn covers(&self, before: u64, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let left = self.windows.connection.load(Ordering::Relaxed);
        let stream = self.windows.stream.load(Ordering::Relaxed);
        u64::try_from(left).is_ok_and(|left| bytes <= left)
            && before.saturating_add(bytes) <= u64::from(stream)
    }

    /// Bytes were given to h2 to send.
    pub(super) fn spend(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let connection = &self.windows.connection;
        connection.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// An exchange under way.
#[derive(Debug)]
pub(super) struct OpenExchange(Arc<Activity>);

impl OpenExchange {
    pub(super) fn activity(&self) -> &Activity {
        &self.0
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            let lived = clock::now().saturating_duration_since(self.0.started);
            let millis = u64::try_from(lived.as_millis()).unwrap_or(u64::MAX);
            self.0.idle_since.store(millis, Ordering::Relaxed);
        }
    }
}

/// The windows before anybody says otherwise (RFC 9113 section 6.9.2).
const DEFAULT_WINDOW: u32 = 65_535;
