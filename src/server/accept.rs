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
use super::drain::{Drain, Stage};
use super::{Event, Handler, Listener};
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
    let accepting = accept_all(&listener, &socket, &handler, &drain);
    let _: Option<()> = ear.until(Stage::Draining, accepting).await;
}

async fn accept_all<H: Handler>(
    listener: &Arc<Listener>,
    socket: &TcpListener,
    handler: &Arc<H>,
    drain: &Drain,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        wait_for_room(listener, handler).await;
        match poll_fn(|cx| socket.poll_accept(cx)).await {
            Ok((stream, peer)) => {
                pause = FIRST_PAUSE;
                admit(listener, handler, drain, stream, canonical(peer)).await;
            }
            Err(error) if is_the_clients_fault(&error) => {}
            Err(error) => {
                handler.note(listener.id, Event::AcceptFailed);
                tracing::warn!(listener = %listener.name, %error, "cannot accept; pausing");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// At the cap new connections stay in the kernel's queue. The cap is read again now and then: a reload may raise it.
async fn wait_for_room<H: Handler>(listener: &Listener, handler: &Arc<H>) {
    loop {
        let max = handler.limits(listener.id).max_connections;
        let room = listener.caps.room(max);
        if timeout(Duration::from_secs(1), room).await.is_ok() {
            return;
        }
    }
}

async fn admit<H: Handler>(
    listener: &Arc<Listener>,
    handler: &Arc<H>,
    drain: &Drain,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let Some((seat, limits)) = seat(listener, handler, peer).await else {
        handler.note(listener.id, Event::PerIpCap);
        return;
    };
    handler.note(listener.id, Event::Accepted);
    // A socket that cannot be set up is dead already; the first read tells.
    let _ = stream.set_nodelay(true);
    let arrival = Arrival {
        handler: Arc::clone(handler),
        listener: Arc::clone(listener),
        limits,
        stream,
        peer,
        counted: (seat, drain.enter()),
        drain: drain.clone(),
    };
    let mut ear = drain.ear();
    drop(task::spawn("connection", async move {
        let _: Option<()> = ear.until(Stage::Aborting, serve(arrival)).await;
    }));
}

/// A place for the connection; `None` if its address holds too many. Another worker may have taken the last place since
/// this one looked, so that up to one connection per worker waits here.
async fn seat<H: Handler>(
    listener: &Arc<Listener>,
    handler: &Arc<H>,
    peer: SocketAddr,
) -> Option<(Seat, Arc<ListenerLimits>)> {
    let counted = (!handler.trusts(listener.id, peer.ip())).then_some(peer.ip());
    loop {
        let limits = handler.limits(listener.id);
        let (max, max_per_ip) = (limits.max_connections, limits.max_connections_per_ip);
        match listener.caps.enter(counted, max, max_per_ip) {
            Ok(seat) => return Some((seat, limits)),
            Err(Full::PerIp) => return None,
            Err(Full::Total) => wait_for_room(listener, handler).await,
        }
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
