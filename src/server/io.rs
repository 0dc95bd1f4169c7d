//! The socket as hyper sees it: notes who waits for whom, and closes so that the last answer arrives.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::activity::Activity;
use super::caps::Seat;
use super::drain::Guest;
use super::frames::{Frames, goaway};
use super::sniff::Prefix;

/// A stream under watch. It holds what counts the connection, because it outlives the connection's task: an upgrade
/// carries it away.
pub(super) struct Transport<S> {
    stream: S,
    prefix: Prefix,
    activity: Arc<Activity>,
    frames: Option<Box<Frames>>,
    farewell: Option<Box<Farewell>>,
    read_ended: bool,
    _seat: Seat,
    _guest: Guest,
}

/// The state of an end that is under way.
#[derive(Default)]
struct Farewell {
    goaway_sent: usize,
    shut: bool,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> Transport<S> {
    /// `frames` is given for h2 alone.
    pub(super) fn new(
        stream: S,
        prefix: Prefix,
        activity: Arc<Activity>,
        frames: Option<Box<Frames>>,
        (seat, guest): (Seat, Guest),
    ) -> Self {
        Self {
            stream,
            prefix,
            activity,
            frames,
            farewell: None,
            read_ended: false,
            _seat: seat,
            _guest: guest,
        }
    }

    fn note_read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.read_ended = true;
        } else if let Some(frames) = &mut self.frames {
            frames.pass(bytes);
        } else if self.activity.open_now() == 0 {
            self.activity.set_head(true);
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

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    /// Tells a flooding client why it is cut off. h2 flushes only between two whole frames, so this is the place.
    fn poll_cut_off(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let last_stream = self
            .frames
            .as_ref()
            .map_or(0, |frames| frames.last_stream());
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
            let mut scratch = [MaybeUninit::uninit(); 4096];
            let mut scratch = ReadBuf::uninit(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch)) {
                Ok(()) if !scratch.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if me.activity.flooded() {
            // Nothing more is taken in; the flush that follows every round of reading says goodbye.
            return Poll::Pending;
        }
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if me.prefix.is_empty() {
            ready!(Pin::new(&mut me.stream).poll_read(cx, buf))?;
        } else {
            me.prefix.take(buf);
        }
        me.note_read(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
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

/// How long a client has to notice that we have closed.
const LINGER: Duration = Duration::from_secs(1);
