//! The bytes of a switched protocol, both ways, until one side ends it or must.
//!
//! A tunnel that is idle holds no buffer: bytes are read onto the stack and written on; what the other side does not take
//! at once is held, and nothing more is read until that is gone. One timer, moved lazily, holds both deadlines: too long
//! without a byte in either direction, and too long without the other side taking one.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::frames::{Frames, close_frame};
use super::{Asked, Switched};
use crate::types::clock;

/// Two connections that have agreed to speak another protocol with each other.
#[derive(Debug)]
pub struct Tunnel {
    pub(super) asked: Asked,
    pub(super) switched: Switched,
    /// Whether what the endpoint sends are frames of a WebSocket.
    pub(super) is_websocket: bool,
    pub(super) idle: Duration,
}

/// Where bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the upstream.
    In,
    /// From the upstream to the client.
    Out,
}

/// Why a tunnel must end, and what the client of a WebSocket is told.
#[derive(Clone, Copy, Debug)]
pub struct Leave {
    /// What it is called.
    pub why: Ended,
    /// The close code.
    pub code: u16,
    /// The reason beside it.
    pub reason: &'static str,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// The client ended it.
    ClientClosed,
    /// The endpoint ended it.
    UpstreamClosed,
    /// No byte for too long.
    Idle,
    /// One side took no bytes for too long.
    Stalled,
    /// The caller's credential has expired.
    Expired,
    /// The caller's credential was revoked.
    Revoked,
    /// The gateway stops.
    Drained,
    /// A connection broke.
    Broken,
}

impl Ended {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ClientClosed,
        Self::UpstreamClosed,
        Self::Idle,
        Self::Stalled,
        Self::Expired,
        Self::Revoked,
        Self::Drained,
        Self::Broken,
    ];

    /// The word in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::UpstreamClosed => "upstream_closed",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Drained => "drained",
            Self::Broken => "broken",
        }
    }
}

impl Tunnel {
    /// Passes bytes on until it ends. `stall` bounds the wait for a side to take bytes; `passed` is told of all that were
    /// read; `leave` is ready when the tunnel must end.
    pub async fn run(
        self,
        stall: Duration,
        passed: impl Fn(Direction, usize) + Send + Sync,
        mut leave: impl FnMut(&mut Context<'_>) -> Poll<Leave> + Send,
    ) -> Ended {
        // The client has switched once it was sent the answer, which it may refuse to take.
        let (client, upstream) = (self.asked.client, self.switched.upstream);
        let both = async { tokio::try_join!(client, upstream) };
        let Ok(Ok((client, upstream))) = tokio::time::timeout(stall, both).await else {
            return Ended::Broken;
        };
        let now = clock::now();
        let mut passage = Passage {
            client: TokioIo::new(client),
            upstream: TokioIo::new(upstream),
            inward: Pump::default(),
            outward: Pump::default(),
            frames: self.is_websocket.then(Frames::default),
            idle: self.idle,
            stall,
            last: now,
            first_end: None,
        };
        let mut timer = Box::pin(tokio::time::sleep_until((now + self.idle).into()));
        let ended =
            std::future::poll_fn(|cx| passage.poll(cx, timer.as_mut(), &passed, &mut leave));
        let leave = match ended.await {
            Err(leave) => leave,
            Ok(ended) => return ended,
        };
        // A side that takes nothing takes no farewell either.
        if leave.why != Ended::Stalled && passage.frames.is_some() {
            let farewell = passage.take_leave(leave, &passed);
            let _ = tokio::time::timeout(FAREWELL, farewell).await;
        }
        leave.why
    }
}

/// A tunnel under way.
struct Passage {
    client: TokioIo<Upgraded>,
    upstream: TokioIo<Upgraded>,
    inward: Pump,
    outward: Pump,
    /// Where the frames to the client are, in a WebSocket.
    frames: Option<Frames>,
    idle: Duration,
    stall: Duration,
    /// When the last byte moved.
    last: Instant,
    first_end: Option<Ended>,
}

impl Passage {
    /// Ready with how it ended, or with what the client must be told first.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        passed: &impl Fn(Direction, usize),
        leave: &mut impl FnMut(&mut Context<'_>) -> Poll<Leave>,
    ) -> Poll<Result<Ended, Leave>> {
        if let Poll::Ready(leave) = leave(cx) {
            return Poll::Ready(Err(leave));
        }
        if self.poll_both(cx, passed).unwrap_or(true) {
            return Poll::Ready(Ok(self.first_end.unwrap_or(Ended::Broken)));
        }
        loop {
            let due = self.due();
            if due < timer.deadline().into_std() || timer.is_elapsed() {
                timer.as_mut().reset(due.into());
            }
            ready!(timer.as_mut().poll(cx));
            if let Some(leave) = self.overdue(clock::now()) {
                return Poll::Ready(Err(leave));
            }
        }
    }

    /// Whether both directions have ended. An error ends both at once.
    fn poll_both(
        &mut self,
        cx: &mut Context<'_>,
        passed: &impl Fn(Direction, usize),
    ) -> io::Result<bool> {
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        let inward = self.inward.poll(cx, client, upstream, |bytes| {
            passed(Direction::In, bytes.len());
        });
        let frames = &mut self.frames;
        let outward = self.outward.poll(cx, upstream, client, |bytes| {
            passed(Direction::Out, bytes.len());
            if let Some(frames) = frames {
                frames.follow(bytes);
            }
        });
        if self.inward.read_ended {
            self.first_end.get_or_insert(Ended::ClientClosed);
        }
        if self.outward.read_ended {
            self.first_end.get_or_insert(Ended::UpstreamClosed);
        }
        if inward? | outward? {
            self.last = clock::now();
        }
        Ok(self.inward.is_done && self.outward.is_done)
    }

    /// When the next deadline is.
    fn due(&self) -> Instant {
        let stalled = [&self.inward, &self.outward]
            .into_iter()
            .filter_map(|pump| pump.blocked_since)
            .map(|since| since + self.stall);
        stalled.fold(self.quiet_until(), Instant::min)
    }

    /// Once one side has ended the other one is not waited for as long as before.
    fn quiet_until(&self) -> Instant {
        self.last
            + match self.first_end {
                None => self.idle,
                Some(_) => self.idle.min(self.stall),
            }
    }

    fn overdue(&self, now: Instant) -> Option<Leave> {
        if now < self.due() {
            return None;
        }
        let is_idle = now >= self.quiet_until();
        let why = if is_idle { Ended::Idle } else { Ended::Stalled };
        Some(Leave {
            why: self.first_end.unwrap_or(why),
            code: GOING_AWAY,
            reason: "idle",
        })
    }

    /// Ends a WebSocket as it should end: at the end of a frame, with a close frame, and with a moment for the client to
    /// take it. What the client still sends is not passed on.
    async fn take_leave(&mut self, leave: Leave, passed: &impl Fn(Direction, usize)) -> Option<()> {
        self.finish_frame(passed).await.ok()?;
        let frames = self.frames.as_ref()?;
        if !frames.at_boundary() {
            return None;
        }
        if !frames.closed() {
            self.outward
                .held
                .extend(close_frame(leave.code, leave.reason));
        }
        let client = &mut self.client;
        let outward = &mut self.outward;
        std::future::poll_fn(|cx| outward.poll_held(cx, client))
            .await
            .ok()?;
        std::future::poll_fn(|cx| Pin::new(&mut *client).poll_flush(cx))
            .await
            .ok()?;
        std::future::poll_fn(|cx| Pin::new(&mut *client).poll_shutdown(cx))
            .await
            .ok()?;
        std::future::poll_fn(|cx| poll_ignored(cx, client)).await;
        Some(())
    }

    /// Passes on what is left of the frame under way.
    async fn finish_frame(&mut self, passed: &impl Fn(Direction, usize)) -> io::Result<()> {
        let Self {
            client,
            upstream,
            outward,
            frames: Some(frames),
            ..
        } = self
        else {
            return Ok(());
        };
        std::future::poll_fn(|cx| {
            loop {
                ready!(outward.poll_held(cx, client))?;
                if frames.at_boundary() || outward.read_ended {
                    return Poll::Ready(Ok(()));
                }
                let mut scratch = [MaybeUninit::uninit(); SCRATCH];
                let mut scratch = ReadBuf::uninit(&mut scratch);
                ready!(Pin::new(&mut *upstream).poll_read(cx, &mut scratch))?;
                let bytes = scratch.filled();
                let whole = frames.step(bytes);
                passed(Direction::Out, whole);
                outward.read_ended = bytes.is_empty();
                outward
                    .held
                    .extend_from_slice(bytes.get(..whole).unwrap_or_default());
            }
        })
        .await
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Pump {
    /// What was read and could not be written yet.
    held: Vec<u8>,
    given: usize,
    read_ended: bool,
    /// Whether the end was passed on, too.
    is_done: bool,
    unflushed: bool,
    /// Since when the other side takes nothing.
    blocked_since: Option<Instant>,
    is_blocked: bool,
}

impl Pump {
    /// Moves what can be moved; whether any byte was. `saw` is told of what was read.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TokioIo<Upgraded>,
        to: &mut TokioIo<Upgraded>,
        mut saw: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        let mut moved = false;
        self.is_blocked = false;
        while !self.is_done {
            let before = self.given;
            let waiting = self.held.len() - self.given;
            let polled = self.poll_held(cx, to);
            moved |= self.given != before || waiting > 0 && self.held.is_empty();
            if polled?.is_pending() {
                self.is_blocked = true;
                break;
            }
            if self.read_ended {
                // Whatever comes of it: what is shut already is shut.
                let shut = Pin::new(&mut *to).poll_shutdown(cx);
                self.is_blocked = shut.is_pending();
                self.is_done = shut.is_ready();
                break;
            }
            let mut scratch = [MaybeUninit::uninit(); SCRATCH];
            let mut scratch = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut *from).poll_read(cx, &mut scratch) {
                Poll::Ready(Err(error)) => {
                    self.read_ended = true;
                    return Err(error);
                }
                Poll::Pending => {
                    if self.unflushed {
                        let flushed = Pin::new(&mut *to).poll_flush(cx)?;
                        self.is_blocked = flushed.is_pending();
                        self.unflushed = self.is_blocked;
                    }
                    break;
                }
                Poll::Ready(Ok(())) => {
                    let bytes = scratch.filled();
                    self.read_ended = bytes.is_empty();
                    moved = true;
                    saw(bytes);
                    self.pass(cx, to, bytes)?;
                }
            }
        }
        if !self.is_blocked {
            self.blocked_since = None;
        } else if moved || self.blocked_since.is_none() {
            self.blocked_since = Some(clock::now());
        }
        Ok(moved)
    }

    /// Writes what the other side takes; holds the rest.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut TokioIo<Upgraded>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => {
                    self.unflushed = true;
                    rest = rest.get(count..).unwrap_or_default();
                }
                Poll::Pending => {
                    self.held.extend_from_slice(rest);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Writes what is held.
    fn poll_held(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut TokioIo<Upgraded>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.held.get(self.given..)
            && !rest.is_empty()
        {
            match ready!(Pin::new(&mut *to).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.given += count,
            }
            self.unflushed = true;
        }
        // Nothing is kept for the next time: most of the time nothing is held.
        self.held = Vec::new();
        self.given = 0;
        Poll::Ready(Ok(()))
    }
}

/// Reads what nobody wants any more, up to the end.
fn poll_ignored(cx: &mut Context<'_>, from: &mut TokioIo<Upgraded>) -> Poll<()> {
    loop {
        let mut scratch = [MaybeUninit::uninit(); SCRATCH];
        let mut scratch = ReadBuf::uninit(&mut scratch);
        match ready!(Pin::new(&mut *from).poll_read(cx, &mut scratch)) {
            Ok(()) if !scratch.filled().is_empty() => {}
            _ => return Poll::Ready(()),
        }
    }
}

/// Bytes read at once.
const SCRATCH: usize = 16 << 10;
/// How long the last frame, the close frame and the client's answer to it may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// The close code of who goes away (RFC 6455 section 7.4.1).
pub const GOING_AWAY: u16 = 1001;
