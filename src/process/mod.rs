//! One running gateway: threads, sockets, reload, stop.
//!
//! `worker` builds the runtimes, `background` keeps live state current, `reload` swaps snapshots, `admin` answers
//! operators, `control` is the thread that ties them together. Nothing here sees a request of a client.

mod admin;
mod background;
mod bind;
mod control;
pub mod health;
mod memory;
mod open_files;
mod reload;
mod worker;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::config::load::{self, Loaded};
use crate::config::{Config, ConfigError};
use crate::exchange::Desk;
use crate::pipeline::Shared;
use crate::server::{Drain, Listener};
use crate::snapshot::Snapshot;
use crate::telemetry::{AccessLog, Decisions, Metrics};
use crate::types::body::Gauge;
use crate::types::clock;

pub use admin::ask;
pub use bind::Bound;
pub use reload::Reloaded;

/// Where the configuration comes from, at start and at every reload.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A text that can be replaced while the gateway runs, and the name to show in errors.
    Text(Arc<Text>),
}

/// A configuration that is not in a file.
#[derive(Debug)]
pub struct Text {
    name: String,
    text: ArcSwap<String>,
}

impl Text {
    /// A text, and the name under which errors speak of it.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            text: ArcSwap::from_pointee(text.into()),
        })
    }

    /// Replaces the text; the next reload reads it.
    pub fn replace(&self, text: impl Into<String>) {
        self.text.store(Arc::new(text.into()));
    }
}

impl Source {
    fn load(&self) -> Result<Loaded, Vec<ConfigError>> {
        match self {
            Self::File(path) => load::from_file(path),
            Self::Text(text) => load::from_str(&text.name, &text.text.load()),
        }
    }
}

/// Why a gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is wrong; every mistake is listed.
    Config(Vec<ConfigError>),
    /// A socket could not be bound.
    Bind(SocketAddr, io::Error),
    /// A thread, a runtime or the log could not be made.
    Resource(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(errors) => {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Resource(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A gateway that serves. Dropping it leaves it serving; [`Running::stop`] ends it.
#[derive(Debug)]
pub struct Running {
    /// The sockets, by listener.
    pub bound: Vec<Bound>,
    /// The admin listener.
    pub admin: SocketAddr,
    commands: mpsc::Sender<Command>,
    control: JoinHandle<()>,
}

/// What the control thread can be asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Reload(oneshot::Sender<Result<Reloaded, Vec<ConfigError>>>),
    Stop,
}

/// Everything that the threads of one gateway share.
#[derive(Debug)]
struct House {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
    source: Source,
    /// By position in the snapshot; they count their connections over all workers.
    listeners: Vec<Arc<Listener>>,
    last_reload: Mutex<Option<reload::LastReload>>,
}

/// Starts a gateway: compiles, binds, spawns, and returns once every socket accepts.
///
/// # Errors
/// See [`StartError`]; nothing keeps running then.
pub fn start(source: Source) -> Result<Running, StartError> {
    let metrics = Metrics::new();
    let loaded = source.load().map_err(StartError::Config)?;
    let config = Arc::new(loaded.config);
    let snapshot = Snapshot::compile(&config, None, &metrics)
        .map_err(|errors| StartError::Config(loaded.sources.locate(errors)))?;
    let workers = worker_count(&config);
    let admin = bind::admin(config.admin.bind)?;
    let sockets = bind::listeners(&config, workers)?;
    let (access_log, access_log_guard) =
        AccessLog::start(&config.log).map_err(StartError::Resource)?;
    let vigils = Arc::clone(snapshot.authorities.vigils());
    let house = Arc::new(House {
        shared: Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(snapshot),
            desk: Arc::new(Desk {
                metrics: Arc::clone(&metrics),
                access_log: access_log.clone(),
                decisions: Arc::new(Decisions::default()),
                vigils,
                pools: Default::default(), // each worker has its own
            }),
            in_flight: Arc::new(Gauge::default()),
            tunnels: Arc::new(Gauge::default()),
            drain: Drain::new(),
            short_of_memory: AtomicBool::new(false),
        }),
        metrics,
        access_log,
        source,
        listeners: listeners(&config),
        last_reload: Mutex::new(None),
    });
    house.shared.snapshot.load().save_keys();
    house.metrics.config_in_force(1, clock::wall());
    let bound = sockets.bound();
    let admin_address = admin.local_addr().map_err(StartError::Resource)?;
    let threads = worker::spawn_all(&house, sockets).map_err(StartError::Resource)?;
    let (commands, inbox) = mpsc::channel(16);
    let control = control::spawn(control::Parts {
        house,
        admin,
        threads,
        inbox,
        commands: commands.clone(),
        access_log_guard,
    })
    .map_err(StartError::Resource)?;
    Ok(Running {
        bound,
        admin: admin_address,
        commands,
        control,
    })
}

impl Running {
    /// Reads the configuration again: all or nothing.
    ///
    /// # Errors
    /// Every mistake of the new configuration; the old one stays in force.
    pub fn reload(&self) -> Result<Reloaded, Vec<ConfigError>> {
        let (answer, verdict) = oneshot::channel();
        let asked = self.commands.blocking_send(Command::Reload(answer));
        asked
            .ok()
            .and_then(|()| verdict.blocking_recv().ok())
            .unwrap_or_else(|| Err(Vec::new()))
    }

    /// Starts the stop: readiness fails, connections are told, what is in flight is finished up to the limit.
    pub fn stop(&self) {
        // A full or closed inbox means that a stop is on its way already.
        let _ = self.commands.try_send(Command::Stop);
    }

    /// Waits until everything has ended.
    pub fn join(self) {
        // A panic of the control thread has been reported by the panic hook; there is nothing left to wait for.
        let _ = self.control.join();
    }
}

/// A runtime for a command that needs one; workers have their own.
///
/// # Errors
/// When the system has no more threads or descriptors.
pub fn command_runtime() -> io::Result<tokio::runtime::Runtime> {
    worker::runtime("command")
}

fn listeners(config: &Config) -> Vec<Arc<Listener>> {
    let most = open_files::most_connections(config);
    let names = config.listen.keys().enumerate();
    names
        .map(|(position, name)| Listener::new(position, name.as_str(), most))
        .collect()
}

fn worker_count(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    config.workers.map_or_else(cores, usize::from)
}
