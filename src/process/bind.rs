//! Sockets, bound once at start: one per worker and address, so that the kernel spreads connections.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use super::StartError;
use crate::config::Config;
use crate::server;

/// Where a listener can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The listener's name.
    pub listener: String,
    /// Its position in the snapshot.
    pub position: usize,
    /// The address, with the port that was really taken.
    pub address: SocketAddr,
}

/// The sockets of all workers.
#[derive(Debug)]
pub(super) struct Sockets {
    groups: Vec<(Bound, Vec<TcpListener>)>,
}

impl Sockets {
    pub(super) fn bound(&self) -> Vec<Bound> {
        self.groups.iter().map(|(bound, _)| bound.clone()).collect()
    }

    /// One socket of every address for each worker.
    pub(super) fn by_worker(self) -> Vec<Vec<(usize, TcpListener)>> {
        let mut workers: Vec<Vec<(usize, TcpListener)>> = Vec::new();
        for (bound, sockets) in self.groups {
            for (worker, socket) in sockets.into_iter().enumerate() {
                if workers.len() <= worker {
                    workers.push(Vec::new());
                }
                if let Some(own) = workers.get_mut(worker) {
                    own.push((bound.position, socket));
                }
            }
        }
        workers
    }
}

pub(super) fn admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    server::open(address, 1)
        .and_then(|sockets| {
            sockets
                .into_iter()
                .next()
                .ok_or_else(|| ErrorKind::Other.into())
        })
        .map_err(|error| StartError::Bind(address, error))
}

pub(super) fn listeners(config: &Config, workers: usize) -> Result<Sockets, StartError> {
    let mut groups = Vec::new();
    for (position, (name, listen)) in config.listen.iter().enumerate() {
        for address in &listen.bind.0 {
            let sockets = server::open(*address, workers)
                .map_err(|error| StartError::Bind(*address, error))?;
            let taken = sockets.first().and_then(|socket| socket.local_addr().ok());
            let address = taken.unwrap_or(*address);
            groups.push((
                Bound {
                    listener: name.clone(),
                    position,
                    address,
                },
                sockets,
            ));
        }
    }
    Ok(Sockets { groups })
}
