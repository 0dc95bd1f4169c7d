//! Opens connections to the store's servers, and asks over them.
//!
//! A connection is never mended: whoever finds it broken drops it and opens another one, which looks for the master, or
//! reads the map of the cluster, anew.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, Value};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::cluster::{self, Nodes};
use crate::config::{StoreServer, Topology};
use crate::types::task;

/// Where the store is and how it is spoken to.
pub(super) struct Place {
    pub(super) topology: Topology,
    pub(super) servers: Box<[StoreServer]>,
    pub(super) master: String,
    pub(super) database: u32,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) server_name: Option<String>,
    pub(super) credentials: Credentials,
}

/// Who we are to the servers. They change with the files that hold them, at a reload.
pub(super) struct Credentials {
    pub(super) server: arc_swap::ArcSwap<Login>,
    pub(super) sentinel: arc_swap::ArcSwap<Login>,
}

/// A user and its password, as the handshake wants them.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<zeroize::Zeroizing<String>>,
}

/// An open connection: to one server, or to every node of a cluster.
pub(super) enum Connection {
    One(Node),
    Cluster(Nodes),
}

/// One server.
pub(super) struct Node {
    pub(super) server: MultiplexedConnection,
    /// Failures since its last answer.
    pub(super) failures: AtomicU32,
}

/// Why a store cannot be spoken to. Holds no secret: neither the client's errors nor ours repeat one.
#[derive(Debug)]
pub(super) struct ConnectError(pub(super) String);

/// Longest wait for one step of opening a connection.
const STEP: Duration = Duration::from_millis(500);

impl Connection {
    /// Asks whoever holds `key`. Without a deadline: that is the caller's.
    pub(super) async fn ask(&self, key: &[u8], command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::One(node) => question(node.server.clone(), command).await,
            Self::Cluster(nodes) => nodes.ask(key, command).await,
        }
    }
}

impl Connection {
    /// Keys to try the servers with, at least one for each.
    pub(super) fn probes(&self, prefix: &str) -> Vec<String> {
        match self {
            Self::One(_) => vec![format!("{prefix}:probe")],
            Self::Cluster(nodes) => nodes.probes(prefix),
        }
    }

    /// How often whoever holds `key` has failed since its last answer.
    pub(super) fn failures(&self, key: &[u8]) -> &AtomicU32 {
        match self {
            Self::One(node) => &node.failures,
            Self::Cluster(nodes) => nodes.failures(key),
        }
    }

    /// Whether another connection should be opened, although this one works.
    pub(super) fn is_stale(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Cluster(nodes) => nodes.is_stale(),
        }
    }
}

impl Node {
    pub(super) fn new(server: MultiplexedConnection) -> Self {
        Self {
            server,
            failures: AtomicU32::new(0),
        }
    }
}

impl Place {
    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<Connection, ConnectError> {
        match self.topology {
            Topology::Single => {
                let server = self.first(|server| self.open_server(server)).await?;
                Ok(Connection::One(Node::new(server)))
            }
            Topology::Sentinel => self.first(|sentinel| self.open_master(sentinel)).await,
            Topology::Cluster => self.first(|seed| self.open_cluster(seed)).await,
        }
    }

    /// The first of the servers with which `open` succeeds; why the last one failed where none does.
    async fn first<T, F>(&self, open: impl Fn(StoreServer) -> F) -> Result<T, ConnectError>
    where
        F: Future<Output = Result<T, ConnectError>>,
    {
        let mut last = ConnectError("no server is named".to_owned());
        for server in &self.servers {
            match open(server.clone()).await {
                Ok(opened) => return Ok(opened),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn open_master(&self, sentinel: StoreServer) -> Result<Connection, ConnectError> {
        let login = self.credentials.sentinel.load_full();
        let asked = self.open(&sentinel, &login, 0).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(&self.master);
        let answer = step(&sentinel, question(asked, &command)).await?;
        let address: Option<(String, u16)> = redis::from_redis_value(answer).ok();
        let (host, port) = address
            .ok_or_else(|| ConnectError(format!("{sentinel} knows no master `{}`", self.master)))?;
        let tls = sentinel.tls;
        let server = StoreServer { tls, host, port };
        let master = self.open_server(server.clone()).await?;
        // In a failover the sentinels may name the old master for a while, and it may be a replica already.
        let role = step(&server, question(master.clone(), &redis::cmd("ROLE"))).await?;
        match role {
            Value::Array(role) if role.first() == Some(&Value::BulkString(b"master".to_vec())) => {
                Ok(Connection::One(Node::new(master)))
            }
            _ => Err(ConnectError(format!("{server} is no master"))),
        }
    }

    async fn open_cluster(&self, seed: StoreServer) -> Result<Connection, ConnectError> {
        let asked = self.open_server(seed.clone()).await?;
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let slots = step(&seed, question(asked, &command)).await?;
        let map = cluster::Map::read(&slots, &seed)
            .ok_or_else(|| ConnectError(format!("{seed} has no complete map of the cluster")))?;
        let mut nodes = Vec::with_capacity(map.nodes.len());
        for node in &map.nodes {
            nodes.push(Node::new(self.open_server(node.clone()).await?));
        }
        Ok(Connection::Cluster(Nodes::new(map, nodes)))
    }

    async fn open_server(
        &self,
        server: StoreServer,
    ) -> Result<MultiplexedConnection, ConnectError> {
        let login = self.credentials.server.load_full();
        self.open(&server, &login, self.database).await
    }

    async fn open(
        &self,
        server: &StoreServer,
        login: &Login,
        database: u32,
    ) -> Result<MultiplexedConnection, ConnectError> {
        let address = (server.host.as_str(), server.port);
        let stream = step(server, connect(address)).await?;
        let Some(config) = self.tls.as_ref().filter(|_| server.tls) else {
            return handshake(server, login, database, stream).await;
        };
        let name = self.server_name.as_deref().unwrap_or(&server.host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| ConnectError(format!("`{name}` is no name of a certificate")))?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = step(server, connector.connect(name, stream)).await?;
        handshake(server, login, database, stream).await
    }
}

async fn connect(address: (&str, u16)) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host(address).await? {
        match TcpStream::connect::<SocketAddr>(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Logs in; the connection's driver runs as a task of the calling thread's runtime until the connection is dropped.
async fn handshake<S>(
    server: &StoreServer,
    login: &Login,
    database: u32,
    stream: S,
) -> Result<MultiplexedConnection, ConnectError>
where
    S: Unpin + AsyncRead + AsyncWrite + Send + 'static,
{
    let mut info = RedisConnectionInfo::default()
        .set_db(i64::from(database))
        .set_skip_set_lib_name();
    if let Some(user) = &login.user {
        info = info.set_username(user);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password.as_str());
    }
    // Whoever asks has a deadline of its own.
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE);
    let opened = MultiplexedConnection::new_with_config(&info, stream, config);
    let (connection, driver) = step(server, opened).await?;
    task::spawn("store connection", driver);
    Ok(connection)
}

/// Asks one server. What it answers as an error is one.
pub(super) async fn question(
    mut server: MultiplexedConnection,
    command: &Cmd,
) -> Result<Value, RedisError> {
    let answer = server.req_packed_command(command).await?;
    answer.extract_error()
}

/// Questions that may wait for the connection to take them.
const QUEUE: usize = 1_024;

async fn step<T, E: fmt::Display>(
    server: &StoreServer,
    what: impl Future<Output = Result<T, E>>,
) -> Result<T, ConnectError> {
    match timeout(STEP, what).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(ConnectError(format!("{server}: {error}"))),
        Err(_) => Err(ConnectError(format!("{server} does not answer"))),
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("topology", &self.topology)
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One(_) => "One",
            Self::Cluster(_) => "Cluster",
        })
    }
}
