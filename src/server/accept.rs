//! The accept loop of one socket. It ends with the drain and with nothing else.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::caps::{Full, Seat};
use super::connection::{Arrival, canonical, serve};
use super::pace::Pace;
use super::{Drain, Event, Handler, Listener, Stage};
use crate::snapshot::ListenerLimits;
use crate::types::task;

/// Accepts connections from `socket` until the drain begins, and serves each in a task of its own.
pub async fn accept<H: Handler>(
    listener: Arc<Listener>,
    socket: TcpListener,
    handler: Arc<H>,
    drain: Drain,
) {
    let mut ear = drain.ear();
    let door = Door {
        listener,
        handler,
        drain,
        pace: Arc::default(),
    };
    let _: Option<()> = ear.until(Stage::Draining, door.accept_all(&socket)).await;
}

/// One worker's side of a listener.
struct Door<H> {
    listener: Arc<Listener>,
    handler: Arc<H>,
    drain: Drain,
    pace: Arc<Pace>,
}

impl<H: Handler> Door<H> {
    async fn accept_all(&self, socket: &TcpListener) {
        let mut pause = FIRST_PAUSE;
        loop {
            self.wait_for_room().await;
            self.wait_for_descriptors().await;
            match poll_fn(|cx| socket.poll_accept(cx)).await {
                Ok((stream, peer)) => {
                    pause = FIRST_PAUSE;
                    self.admit(stream, canonical(peer)).await;
                }
                Err(error) if is_the_clients_fault(&error) => {}
                Err(error) => {
                    self.note(Event::AcceptFailed);
                    tracing::warn!(listener = %self.listener.name, %error, "cannot accept; pausing");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// At the cap new connections stay in the kernel's queue. The cap is read again now and then: a reload may raise it.
    async fn wait_for_room(&self) {
        loop {
            let max = self.handler.limits(self.listener.id).max_connections;
            let room = self.listener.caps.room(max);
            if timeout(Duration::from_secs(1), room).await.is_ok() {
                return;
            }
        }
    }

    /// The last file descriptors are for the upstream connections of those who are here already.
    async fn wait_for_descriptors(&self) {
        let most = self.listener.most_in_process;
        if self.drain.live() < most {
            return;
        }
        self.note(Event::NoDescriptors);
        tracing::warn!(
            listener = %self.listener.name,
            connections = most,
            "the limit of file descriptors allows no more connections; pausing"
        );
        while self.drain.live() >= most {
            sleep(FIRST_PAUSE).await;
        }
    }

    async fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let Some((seat, limits)) = self.seat(peer).await else {
            return self.note(Event::PerIpCap);
        };
        self.note(Event::Accepted);
        // A socket that cannot be set up is dead already; the first read tells.
        let _ = stream.set_nodelay(true);
        let arrival = Arrival {
            handler: Arc::clone(&self.handler),
            listener: Arc::clone(&self.listener),
            limits,
            stream,
            peer,
            counted: (seat, self.drain.enter()),
            drain: self.drain.clone(),
            pace: Arc::clone(&self.pace),
        };
        let mut ear = self.drain.ear();
        drop(task::spawn("connection", async move {
            let _: Option<()> = ear.until(Stage::Aborting, serve(arrival)).await;
        }));
    }

    /// A place for the connection; `None` if its address holds too many. Another worker may have taken the last place
    /// since this one looked, so that up to one connection per worker waits here.
    async fn seat(&self, peer: SocketAddr) -> Option<(Seat, Arc<ListenerLimits>)> {
        let listener = &self.listener;
        let trusted = self.handler.trusts(listener.id, peer.ip());
        let counted = (!trusted).then_some(peer.ip());
        loop {
            let limits = self.handler.limits(listener.id);
            let (max, max_per_ip) = (limits.max_connections, limits.max_connections_per_ip);
            match listener.caps.enter(counted, max, max_per_ip) {
                Ok(seat) => return Some((seat, limits)),
                Err(Full::PerIp) => return None,
                Err(Full::Total) => self.wait_for_room().await,
            }
        }
    }

    fn note(&self, event: Event) {
        self.handler.note(self.listener.id, event);
    }
}

/// Errors of the one connection that was about to be accepted (accept(2)); everything else is want of our own.
fn is_the_clients_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::TimedOut
    )
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
