//! The control thread: signals, reloads, background tasks, the admin listener, and the order of a stop.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::background::{self, Background};
use super::{Command, House, admin, memory, reload, worker};
use crate::pipeline::Shared;
use crate::store::Line;
use crate::telemetry::Guard;
use crate::types::{clock, task};

/// What the control thread takes over.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) house: Arc<House>,
    pub(super) admin: TcpListener,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) inbox: mpsc::Receiver<Command>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) access_log_guard: Guard,
}

pub(super) fn spawn(parts: Parts) -> io::Result<JoinHandle<()>> {
    let runtime = worker::runtime("control")?;
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            let Parts {
                house,
                admin,
                threads,
                inbox,
                commands,
                access_log_guard,
            } = parts;
            runtime.block_on(serve(&house, admin, inbox, commands));
            house.shared.drain.start();
            for thread in threads {
                // A worker that panicked was reported by the panic hook; the others are still waited for.
                let _ = thread.join();
            }
            drop(access_log_guard); // flushes
            tracing::info!("stopped");
        })
}

/// Serves the operators until a stop has been asked for and what was in flight has ended.
async fn serve(
    house: &Arc<House>,
    admin: TcpListener,
    mut inbox: mpsc::Receiver<Command>,
    commands: mpsc::Sender<Command>,
) {
    share(&house.shared);
    let mut background = Background::default();
    background.follow(&house.shared.snapshot.load_full());
    reload::warn_of_certificates(&house.shared.snapshot.load());
    task::spawn(
        "sweep limits",
        background::sweep_limits(Arc::clone(&house.shared)),
    );
    task::spawn("memory", memory::watch(Arc::clone(&house.shared)));
    task::spawn(
        "admin",
        admin::serve(Arc::clone(house), admin, commands.clone()),
    );
    task::spawn("signals", relay_signals(commands));
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Reload(answer) => {
                let outcome = reload::reload(house);
                if outcome.is_ok() {
                    background.follow(&house.shared.snapshot.load_full());
                }
                // Whoever asked may have gone; the outcome is in the log and the metrics.
                let _ = answer.send(outcome);
            }
            Command::Stop => break,
        }
    }
    drain(house).await;
}

/// Tells other replicas what has ended here, and ends here what they tell. The store stays the same until a restart.
fn share(shared: &Arc<Shared>) {
    let Some(store) = shared.snapshot.load().store.clone() else {
        return;
    };
    let line = Line::new(&store);
    task::spawn("store", Arc::clone(&line).keep());
    task::spawn("store messages", async move {
        line.store().bulletin().post(&line).await;
    });
    let (taker, mut taken) = mpsc::channel::<Vec<u8>>(64);
    let followed = Arc::clone(&store);
    task::spawn("store stream", async move {
        followed.bulletin().follow(&followed, taker).await;
    });
    let shared = Arc::clone(shared);
    task::spawn("revocations", async move {
        while let Some(message) = taken.recv().await {
            let snapshot = shared.snapshot.load_full();
            let told = snapshot.authorities.revoke_told(&message, clock::wall());
            if !told.await {
                store.bulletin().made_no_sense();
            }
        }
    });
}

/// Readiness fails from here on; connections are told to end; what is in flight is finished, up to the limit.
async fn drain(house: &House) {
    let limit = house.shared.snapshot.load().config.drain_timeout.0;
    house.shared.drain.start();
    tracing::info!(limit_seconds = limit.as_secs(), "draining");
    let cut = house.shared.drain.wait_idle(limit).await;
    if cut > 0 {
        tracing::warn!(
            connections = cut,
            "the drain limit is reached; what was still open is cut"
        );
    }
}

async fn relay_signals(commands: mpsc::Sender<Command>) {
    let (Ok(mut hangup), Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::hangup()),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("signals cannot be received; use the admin listener");
        return;
    };
    loop {
        let command = tokio::select! {
            _ = hangup.recv() => Command::Reload(tokio::sync::oneshot::channel().0),
            _ = terminate.recv() => Command::Stop,
            _ = interrupt.recv() => Command::Stop,
        };
        if commands.send(command).await.is_err() {
            return;
        }
    }
}
