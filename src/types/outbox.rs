//! What an HTTP/2 connection wants to send, collected until its round is over.
//!
//! h2 hands every DATA frame of some size to the socket by itself and flushes behind it: a system call, and over TLS a
//! record, for each answer, however many are ready at once. The task that drives the connection knows better when to
//! send: when everything that was ready has had its turn. So h2 writes into an [`Outbox`] and flushes nothing, and whoever
//! polled the connection empties the box afterwards, within the same poll. Nothing waits for a timer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket for hyper and for whoever drives hyper: the one fills the box, the other empties it. Both are the same task,
/// so that nobody waits for the lock.
#[derive(Debug)]
pub struct Outbox<S>(Arc<Mutex<Round<S>>>);

impl<S> Clone for Outbox<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> Outbox<S> {
    /// An empty one, before `socket`.
    pub fn new(socket: S) -> Self {
        Self(Arc::new(Mutex::new(Round {
            socket,
            held: Held::default(),
            unflushed: false,
            touched: false,
            failed: None,
        })))
    }

    /// Ends the round: sends what it left, and flushes the socket if anybody asked for that.
    ///
    /// # Errors
    /// Those of the socket. Whoever reads or writes next hears of them too.
    pub fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_drain(cx)
    }

    /// The same for one of several tasks of which one drives the connection: whoever did not use the socket must not
    /// wait for it in the other's place.
    pub fn end_poll(&self, cx: &mut Context<'_>) {
        let mut round = self.0.lock();
        if std::mem::take(&mut round.touched)
            && let Poll::Ready(Err(_)) = round.poll_drain(cx)
        {
            cx.waker().wake_by_ref(); // to be told
        }
    }
}

#[derive(Debug)]
struct Round<S> {
    socket: S,
    held: Held,
    /// Whether somebody asked for a flush, or the socket was given something.
    unflushed: bool,
    /// Whether the socket was used since the last end of a poll.
    touched: bool,
    failed: Option<io::ErrorKind>,
}

impl<S: AsyncWrite + Unpin> Round<S> {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.touch()?;
        self.unflushed = true;
        if let Some(taken) = self.held.take(bufs) {
            return Poll::Ready(Ok(taken));
        }
        loop {
            let held = self.held.rest().len();
            let written = ready!(self.held.poll_pass(&mut self.socket, cx, bufs))?;
            self.held.gone(written.min(held));
            if written == 0 || written > held {
                return Poll::Ready(Ok(written.saturating_sub(held)));
            }
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let drained = ready!(self.poll_send(cx));
        self.failed = drained.as_ref().err().map(io::Error::kind);
        Poll::Ready(drained)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.rest().is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, self.held.rest()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.gone(written);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn touch(&mut self) -> io::Result<()> {
        self.touched = true;
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Outbox<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut round = self.0.lock();
        round.touch()?;
        Pin::new(&mut round.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outbox<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Later: whoever drives the connection ends the round.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut round = self.0.lock();
        round.unflushed = true;
        Poll::Ready(round.touch())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut round = self.0.lock();
        round.touch()?;
        ready!(round.poll_drain(cx))?;
        Pin::new(&mut round.socket).poll_shutdown(cx)
    }
}

/// Bytes on their way to a socket. Takes no memory while there are none.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    /// How many of them the socket has taken.
    sent: usize,
}

impl Held {
    /// Copies `bufs`, unless they are too many.
    fn take(&mut self, bufs: &[IoSlice<'_>]) -> Option<usize> {
        let offered = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if self.bytes.len() + offered > ROOM {
            return None;
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(ROOM);
        }
        for buf in bufs {
            self.bytes.extend_from_slice(buf);
        }
        Some(offered)
    }

    /// Passes `bufs` on behind what is held.
    fn poll_pass<S: AsyncWrite + Unpin>(
        &self,
        socket: &mut S,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = Pin::new(socket);
        if self.rest().is_empty() {
            return socket.poll_write_vectored(cx, bufs);
        }
        let mut all = [IoSlice::new(&[]); PIECES];
        let pieces = std::iter::once(self.rest()).chain(bufs.iter().map(|buf| &**buf));
        let mut count = 0;
        for (slot, piece) in all.iter_mut().zip(pieces) {
            *slot = IoSlice::new(piece);
            count += 1;
        }
        socket.poll_write_vectored(cx, all.get(..count).unwrap_or_default())
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    fn gone(&mut self, count: usize) {
        self.sent += count;
        if self.rest().is_empty() {
            *self = Self::default();
        }
    }
}

/// What is copied at most: a record of TLS, a frame of the default size.
const ROOM: usize = 16 << 10;
/// Pieces that are passed on at once. h2 offers a head, what it has encoded and a chunk or two.
const PIECES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// Takes so much at each write, and then nothing more.
    struct Narrow {
        takes: Vec<usize>,
        taken: Vec<u8>,
        writes: usize,
        flushes: usize,
    }

    impl Narrow {
        fn new(takes: &[usize]) -> Self {
            Self {
                takes: takes.iter().rev().copied().collect(),
                taken: Vec::new(),
                writes: 0,
                flushes: 0,
            }
        }
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let me = self.get_mut();
            let Some(takes) = me.takes.pop() else {
                return Poll::Pending;
            };
            me.writes += 1;
            let count = takes.min(buf.len());
            me.taken.extend_from_slice(&buf[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.to_vec()).collect();
            self.poll_write(cx, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.get_mut().flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(outbox: &mut Outbox<Narrow>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut cx = Context::from_waker(Waker::noop());
        let (one, other) = bytes.split_at(bytes.len() / 3);
        Pin::new(outbox).poll_write_vectored(&mut cx, &[IoSlice::new(one), IoSlice::new(other)])
    }

    fn flush(outbox: &mut Outbox<Narrow>) -> Poll<io::Result<()>> {
        Pin::new(outbox).poll_flush(&mut Context::from_waker(Waker::noop()))
    }

    fn drain(outbox: &Outbox<Narrow>) -> Poll<io::Result<()>> {
        outbox.poll_drain(&mut Context::from_waker(Waker::noop()))
    }

    fn counts(outbox: &Outbox<Narrow>) -> (usize, usize) {
        let round = outbox.0.lock();
        (round.socket.writes, round.socket.flushes)
    }

    #[test]
    fn what_is_small_goes_out_together_and_is_flushed_once() {
        let mut outbox = Outbox::new(Narrow::new(&[usize::MAX; 8]));
        for piece in ["one ", "two ", "three"] {
            let taken = write(&mut outbox, piece.as_bytes());
            assert!(matches!(taken, Poll::Ready(Ok(count)) if count == piece.len()));
            assert!(flush(&mut outbox).is_ready());
        }
        assert_eq!(counts(&outbox), (0, 0));
        assert!(drain(&outbox).is_ready());
        assert!(drain(&outbox).is_ready());
        assert_eq!(counts(&outbox), (1, 1));
        let round = outbox.0.lock();
        assert_eq!(round.socket.taken, b"one two three");
        assert_eq!(
            round.held.bytes.capacity(),
            0,
            "an idle connection holds nothing"
        );
    }

    #[test]
    fn what_is_large_is_not_copied_and_keeps_its_place() {
        let mut outbox = Outbox::new(Narrow::new(&[usize::MAX; 8]));
        let large = vec![7; ROOM + 1];
        assert!(write(&mut outbox, b"head").is_ready());
        let taken = write(&mut outbox, &large);
        assert!(matches!(taken, Poll::Ready(Ok(count)) if count == large.len()));
        assert_eq!(counts(&outbox), (1, 0));
        assert!(drain(&outbox).is_ready());
        assert_eq!(counts(&outbox), (1, 1));
        assert_eq!(
            outbox.0.lock().socket.taken,
            [b"head".as_slice(), &large].concat()
        );
    }

    #[test]
    fn a_full_box_before_a_socket_that_takes_nothing_takes_nothing_more() {
        let mut outbox = Outbox::new(Narrow::new(&[]));
        assert!(write(&mut outbox, &vec![1; ROOM]).is_ready());
        assert!(write(&mut outbox, b"more").is_pending());
        assert!(drain(&outbox).is_pending());
        assert_eq!(outbox.0.lock().held.bytes.len(), ROOM);
    }

    #[test]
    fn a_socket_that_ends_is_an_error_to_whoever_drains_reads_or_writes() {
        let mut outbox = Outbox::new(Narrow::new(&[0]));
        assert!(write(&mut outbox, b"lost").is_ready());
        let failed = |outcome: io::Result<()>| outcome.unwrap_err().kind();
        let Poll::Ready(drained) = drain(&outbox) else {
            panic!("it waits");
        };
        assert_eq!(failed(drained), io::ErrorKind::WriteZero);
        let Poll::Ready(written) = write(&mut outbox, b"more") else {
            panic!("it waits");
        };
        assert_eq!(failed(written.map(|_| ())), io::ErrorKind::WriteZero);
    }

    #[test]
    fn a_task_that_did_not_use_the_socket_does_not_drain_it() {
        let mut outbox = Outbox::new(Narrow::new(&[usize::MAX]));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(write(&mut outbox, b"mine").is_ready());
        outbox.0.lock().touched = false;
        outbox.end_poll(&mut cx);
        assert_eq!(counts(&outbox), (0, 0));
        assert!(flush(&mut outbox).is_ready());
        outbox.end_poll(&mut cx);
        assert_eq!(counts(&outbox), (1, 1));
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_doubled_or_moved_however_the_socket_cuts(
            pieces in proptest::collection::vec(0..ROOM * 2, 1..12),
            takes in proptest::collection::vec(1..ROOM * 3, 1..40),
        ) {
            let mut outbox = Outbox::new(Narrow::new(&takes));
            let mut given = Vec::new();
            for (number, len) in pieces.into_iter().enumerate() {
                let piece: Vec<u8> = (0..251).cycle().skip(number).take(len).collect();
                let mut rest = piece.as_slice();
                while !rest.is_empty() {
                    let Poll::Ready(taken) = write(&mut outbox, rest) else {
                        outbox.0.lock().socket.takes.push(ROOM);
                        continue;
                    };
                    let taken = taken.unwrap();
                    given.extend_from_slice(&rest[..taken]);
                    rest = &rest[taken..];
                }
            }
            while drain(&outbox).is_pending() {
                outbox.0.lock().socket.takes.push(ROOM);
            }
            proptest::prop_assert!(outbox.0.lock().socket.taken == given);
        }
    }
}
