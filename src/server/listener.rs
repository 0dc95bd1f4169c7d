//! Sockets to accept from. Each worker has its own socket on the same port; the kernel spreads connections over them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::caps::Caps;

/// A listener, shared by all workers: its place in the snapshot and the count of its connections.
#[derive(Debug)]
pub struct Listener {
    /// Position in the snapshot.
    pub id: usize,
    /// Name in the configuration.
    pub name: Arc<str>,
    pub(super) caps: Arc<Caps>,
    /// Connections that all listeners together may hold.
    pub(super) most_in_process: usize,
}

impl Listener {
    /// A listener without connections. Beside its own cap it heeds how many the process may hold in all.
    #[must_use]
    pub fn new(id: usize, name: impl Into<Arc<str>>, most_in_process: usize) -> Arc<Self> {
        Arc::new(Self {
            id,
            name: name.into(),
            caps: Arc::default(),
            most_in_process,
        })
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.caps.total()
    }
}

/// Opens `count` sockets on `address`, one per worker. Port 0 is chosen by the kernel once, for all of them.
///
/// # Errors
/// The address is taken, not ours, or privileged.
pub fn open(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    probe(address)?;
    let first = bind(address)?;
    let address = SocketAddr::new(address.ip(), first.local_addr()?.port());
    let mut sockets = vec![first];
    while sockets.len() < count {
        sockets.push(bind(address)?);
    }
    Ok(sockets)
}

/// Fails if somebody listens on `address` already. `SO_REUSEPORT` alone would let two gateways share a port in silence.
///
/// # Errors
/// Those of `bind(2)` and `listen(2)`.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    listen(address, false).map(drop)
}

/// A non-blocking socket that shares `address` with the other workers; `[::]` serves IPv4 too.
///
/// # Errors
/// Those of `socket(2)`, `bind(2)` and `listen(2)`.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, true)
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let (socket, address) = stream_socket(address)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for the old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// On a host without IPv6 the dual-stack address means all of IPv4.
fn stream_socket(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = |address| {
        Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )
    };
    match socket(address) {
        Ok(made) => Ok((made, address)),
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            socket(address).map(|made| (made, address))
        }
        Err(error) => Err(error),
    }
}

const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn the_sockets_of_all_workers_share_one_port() {
        let sockets = open("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let ports: Vec<_> = sockets
            .iter()
            .map(|socket| socket.local_addr().unwrap().port())
            .collect();
        assert_eq!(ports.len(), 3);
        assert!(ports.iter().all(|port| *port == ports[0] && *port != 0));
    }

    #[test]
    fn a_port_that_another_gateway_serves_is_an_error() {
        let first = open("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let taken = open(first[0].local_addr().unwrap(), 2).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn the_unspecified_ipv6_address_serves_ipv4() {
        let sockets = open("[::]:0".parse().unwrap(), 1).unwrap();
        let port = sockets[0].local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
