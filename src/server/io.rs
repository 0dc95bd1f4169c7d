//! The socket as hyper sees it: notes who waits for whom, and closes so that the last answer arrives.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::activity::Activity;
use super::caps::Seat;
use super::frames::{Frames, goaway};
use super::h1::{Gate, Given};
use super::sniff::Prefix;
use crate::types::drain::Guest;

/// A socket, whatever is spoken on it.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    /// The TCP connection below.
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A stream under watch. It holds what counts the connection, because it outlives the connection's task: an upgrade
/// carries it away.
pub(super) struct Transport<S: Socket, P> {
    stream: S,
    prefix: Prefix,
    activity: Arc<Activity>,
    reader: Reader,
    farewell: Option<Box<Farewell>>,
    read_ended: bool,
    /// How long a client may take nothing of what it is owed.
    patience: Duration,
    _seat: Seat,
    _guest: Guest,
    _presence: P,
}

/// Who reads along, by protocol.
pub(super) enum Reader {
    /// HTTP/1: decides what hyper may see.
    Gate(Box<Gate>),
    /// HTTP/2: counts what passes.
    Frames(Box<Frames>),
}

/// The state of an end that is under way.
#[derive(Default)]
struct Farewell {
    goaway_sent: usize,
    shut: bool,
    linger: Option<Pin<Box<Sleep>>>,
}

/// What the kernel has taken is still on its way, and lives on without us: megabytes for each client that reads a byte now
/// and then. Who took nothing for too long is reset, which frees them at once; everybody else has the same patience again.
impl<S: Socket, P> Drop for Transport<S, P> {
    fn drop(&mut self) {
        let tcp = self.stream.tcp();
        // A connection that is gone already has nothing to set.
        let _ = if self.activity.blocked() {
            tcp.set_zero_linger()
        } else {
            SockRef::from(tcp).set_tcp_user_timeout(Some(self.patience))
        };
    }
}

impl<S: Socket, P> Transport<S, P> {
    pub(super) fn new(
        stream: S,
        prefix: Prefix,
        activity: Arc<Activity>,
        reader: Reader,
        patience: Duration,
        (seat, guest, presence): (Seat, Guest, P),
    ) -> Self {
        Self {
            stream,
            prefix,
            activity,
            reader,
            farewell: None,
            read_ended: false,
            patience,
            _seat: seat,
            _guest: guest,
            _presence: presence,
        }
    }

    fn note_write(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(_)) => self.activity.wrote(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.activity.set_blocked(true),
        }
    }
}

impl<S: Socket, P> Transport<S, P> {
    /// Reads what the socket has, after what was read from it before.
    fn poll_wire(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        if self.prefix.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            self.prefix.take(buf);
        }
        let count = buf.filled().len() - before;
        self.read_ended |= count == 0;
        Poll::Ready(Ok(count))
    }

    /// HTTP/2: every byte passes, some requests at a time.
    fn poll_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.activity.flooded() {
            // Nothing more is taken in; the flush that follows every round of reading says goodbye.
            return Poll::Pending;
        }
        let Reader::Frames(frames) = &mut self.reader else {
            return Poll::Ready(Ok(()));
        };
        if frames.sated() {
            // To the end of the worker's queue, behind those who handle what has come.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if frames.give(buf) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(self.poll_wire(cx, buf))?;
        if let Reader::Frames(frames) = &mut self.reader {
            let passed = frames.inspect(buf.filled().get(before..).unwrap_or_default());
            buf.set_filled(before + passed);
        }
        Poll::Ready(Ok(()))
    }

    /// HTTP/1: what the gate lets through.
    fn poll_gate(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let Reader::Gate(gate) = &mut self.reader else {
                return Poll::Ready(Ok(()));
            };
            match gate.give(buf) {
                Given::Bytes => return Poll::Ready(Ok(())),
                Given::Error => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                // The answer under way wakes the task.
                Given::Later => return Poll::Pending,
                Given::Nothing => {}
            }
            let passed = if gate.holds() {
                ready!(self.poll_held(cx))?
            } else {
                ready!(self.poll_inspected(cx, buf))?
            };
            if passed > 0 || self.read_ended {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads into `buf`, and takes back what the gate holds.
    fn poll_inspected(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        ready!(self.poll_wire(cx, buf))?;
        let Reader::Gate(gate) = &mut self.reader else {
            return Poll::Ready(Ok(0));
        };
        let passed = gate.inspect(buf.filled().get(before..).unwrap_or_default());
        buf.set_filled(before + passed);
        Poll::Ready(Ok(passed))
    }

    /// Reads behind what the gate holds.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [MaybeUninit::uninit(); SCRATCH];
        let mut scratch = ReadBuf::uninit(&mut scratch);
        ready!(self.poll_wire(cx, &mut scratch))?;
        if let Reader::Gate(gate) = &mut self.reader {
            gate.take(scratch.filled());
        }
        Poll::Ready(Ok(0))
    }

    /// Tells a flooding client why it is cut off. h2 flushes only between two whole frames, so this is the place.
    fn poll_cut_off(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let last_stream = match &self.reader {
            Reader::Frames(frames) => frames.last_stream(),
            Reader::Gate(_) => 0,
        };
        let message = goaway(last_stream);
        let farewell = self.farewell.get_or_insert_default();
        while let Some(rest) = message.get(farewell.goaway_sent..)
            && !rest.is_empty()
        {
            let written = Pin::new(&mut self.stream).poll_write(cx, rest);
            self.activity.set_blocked(written.is_pending());
            match ready!(written)? {
                0 => break,
                count => farewell.goaway_sent += count,
            }
        }
        ready!(self.poll_end(cx))?;
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }

    /// Ends our side, then reads on for a moment. A socket that is closed with unread bytes in it resets the connection,
    /// and the reset may overtake the answer that said why (RFC 9112 section 9.6).
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let farewell = self.farewell.get_or_insert_default();
        if !farewell.shut {
            let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
            self.activity.set_blocked(shut.is_pending());
            ready!(shut)?;
            farewell.shut = true;
        }
        if self.read_ended {
            return Poll::Ready(Ok(()));
        }
        let linger = farewell
            .linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        loop {
            if linger.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut scratch = [MaybeUninit::uninit(); SCRATCH];
            let mut scratch = ReadBuf::uninit(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch)) {
                Ok(()) if !scratch.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: Socket, P: Unpin> AsyncRead for Transport<S, P> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match me.reader {
            Reader::Gate(_) => me.poll_gate(cx, buf),
            Reader::Frames(_) => me.poll_frames(cx, buf),
        }
    }
}

impl<S: Socket, P: Unpin> AsyncWrite for Transport<S, P> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let written = Pin::new(&mut me.stream).poll_write(cx, buf);
        me.note_write(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let written = Pin::new(&mut me.stream).poll_write_vectored(cx, bufs);
        me.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let flushed = Pin::new(&mut me.stream).poll_flush(cx);
        me.activity.set_blocked(flushed.is_pending());
        ready!(flushed)?;
        if me.activity.flooded() {
            return me.poll_cut_off(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_end(cx)
    }
}

/// Bytes read at once where they are not read for hyper.
const SCRATCH: usize = 4096;
/// How long a client has to notice that we have closed.
const LINGER: Duration = Duration::from_secs(1);
