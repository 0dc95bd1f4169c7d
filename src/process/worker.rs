//! Workers: a thread, a current-thread runtime, its own sockets, its own upstream connections. The only place that builds
//! runtimes, hence the only one that knows how many threads there are.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Runtime};

use super::House;
use super::bind::Sockets;
use crate::pipeline::Gateway;
use crate::server;
use crate::types::task;

/// A runtime that stays on the thread which blocks on it.
pub(super) fn runtime(name: &str) -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .thread_name(name)
        .build()
}

/// Spawns one worker for each set of sockets.
pub(super) fn spawn_all(house: &Arc<House>, sockets: Sockets) -> io::Result<Vec<JoinHandle<()>>> {
    let sets = sockets.by_worker().into_iter().enumerate();
    sets.map(|(index, sockets)| spawn(house, index, sockets))
        .collect()
}

fn spawn(
    house: &Arc<House>,
    index: usize,
    sockets: Vec<(usize, TcpListener)>,
) -> io::Result<JoinHandle<()>> {
    let name = format!("worker-{index}");
    let runtime = runtime(&name)?;
    let gateway = Arc::new(Gateway::new(Arc::clone(&house.shared)));
    let house = Arc::clone(house);
    std::thread::Builder::new()
        .name(name)
        .spawn(move || runtime.block_on(serve(&house, &gateway, sockets)))
}

/// Accepts until the drain begins, then stays for the connections that are still open.
async fn serve(house: &House, gateway: &Arc<Gateway>, sockets: Vec<(usize, TcpListener)>) {
    if let Some(line) = gateway.line() {
        task::spawn("store", Arc::clone(line).keep());
    }
    let mut loops = Vec::new();
    for (position, socket) in sockets {
        let (Some(listener), Ok(socket)) = (
            house.listeners.get(position),
            tokio::net::TcpListener::from_std(socket),
        ) else {
            tracing::error!(position, "a socket cannot be served");
            continue;
        };
        let accepting = server::accept(
            Arc::clone(listener),
            socket,
            Arc::clone(gateway),
            house.shared.drain.clone(),
        );
        loops.push(task::spawn("accept", accepting));
    }
    for accepting in loops {
        // A loop ends with the drain; a panic in one has been reported by the panic hook.
        let _ = accepting.await;
    }
    let patience = gateway.snapshot().config.drain_timeout.0;
    house.shared.drain.wait_idle(patience).await;
}
