//! Real stores: Debian's Redis, and Valkey, as one server, behind sentinels, as a cluster; and a wire to it that can be cut.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::task::JoinHandle;

use super::{eventually, pki};

/// A server that is killed when it is dropped.
pub struct Redis {
    child: Child,
    folder: TempDir,
    pub port: u16,
    arguments: Vec<String>,
    program: PathBuf,
}

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Redis,
    Valkey,
}

/// The secret that replicas share.
pub const SECRET: &str = "a secret that all replicas of the tests share";

/// A Redis that keeps nothing.
pub async fn run() -> Redis {
    Kind::Redis.run().await
}

/// With further arguments, such as `--maxmemory 1mb`.
pub async fn run_with(arguments: &[&str]) -> Redis {
    Kind::Redis.run_with(arguments).await
}

impl Kind {
    /// A server that keeps nothing.
    pub async fn run(self) -> Redis {
        self.run_with(&[]).await
    }

    /// With further arguments.
    pub async fn run_with(self, arguments: &[&str]) -> Redis {
        let redis = start(self, arguments, free_port());
        redis.serves().await;
        redis
    }

    fn program(self) -> PathBuf {
        match self {
            Self::Redis => "redis-server".into(),
            Self::Valkey => {
                Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/bin/valkey-server")
            }
        }
    }
}

/// Its clock is an hour ahead of ours. Redis allocates by a library that does not go with faked clocks, Valkey here does
/// not.
pub async fn run_ahead() -> Redis {
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    // By hand, because `faketime` stays between us and the server, and would be killed in its place.
    let asked = Command::new("faketime")
        .args(["-f", "+1h", "printenv", "LD_PRELOAD"])
        .output()
        .unwrap();
    let library = String::from_utf8(asked.stdout).unwrap();
    let mut arguments = vec![
        format!("LD_PRELOAD={}", library.trim()),
        "FAKETIME=+1h".to_owned(),
        Kind::Valkey.program().display().to_string(),
    ];
    arguments.extend(usual(&folder, port));
    let redis = spawn("env".into(), arguments, folder, port);
    redis.serves().await;
    redis
}

/// TLS alone, with the leaf of the shared authority.
pub async fn run_tls(arguments: &[&str]) -> Redis {
    let port = free_port();
    let folder = pki::SHARED.folder().display();
    let (chain, key) = (format!("{folder}/leaf.crt"), format!("{folder}/leaf.key"));
    let (ca, number) = (format!("{folder}/ca.pem"), port.to_string());
    let mut all = vec!["--tls-port", &number, "--tls-cert-file", &chain];
    all.extend(["--tls-key-file", &key, "--tls-ca-cert-file", &ca]);
    all.extend(["--tls-auth-clients", "no"]);
    all.extend(arguments);
    let redis = start(Kind::Redis, &all, port);
    eventually("the store serves TLS", async || {
        tokio::net::TcpStream::connect(redis.address())
            .await
            .is_ok()
    })
    .await;
    redis
}

/// Three masters that hold all slots between them.
pub async fn run_cluster(kind: Kind) -> Vec<Redis> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let enabled = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        nodes.push(kind.run_with(&enabled).await);
    }
    let addresses = nodes.iter().map(|node| node.address().to_string());
    let created = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(addresses)
        .args(["--cluster-replicas", "0", "--cluster-yes"])
        .output()
        .unwrap();
    assert!(created.status.success(), "{created:?}");
    eventually("every node knows the cluster", async || {
        nodes.iter().all(|node| {
            let info = node.ask(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
    })
    .await;
    nodes
}

/// A sentinel that watches `master` under the name `house`, and decides alone.
pub async fn run_sentinel(kind: Kind, master: &Redis) -> Redis {
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sentinel.conf");
    let mut text = std::fs::File::create(&file).unwrap();
    writeln!(text, "port {port}\nbind 127.0.0.1").unwrap();
    writeln!(text, "sentinel monitor house 127.0.0.1 {} 1", master.port).unwrap();
    writeln!(text, "sentinel down-after-milliseconds house 500").unwrap();
    writeln!(text, "sentinel failover-timeout house 3000").unwrap();
    drop(text);
    let file = file.to_str().unwrap().to_owned();
    let arguments = vec![file, "--sentinel".to_owned()];
    let sentinel = spawn(kind.program(), arguments, folder, port);
    sentinel.serves().await;
    sentinel
}

fn start(kind: Kind, arguments: &[&str], port: u16) -> Redis {
    let folder = tempfile::tempdir().unwrap();
    let tls = arguments.contains(&"--tls-port");
    let plain = if tls { 0 } else { port };
    let mut all = usual(&folder, plain);
    all.extend(arguments.iter().map(|&argument| argument.to_owned()));
    spawn(kind.program(), all, folder, port)
}

/// It keeps nothing.
fn usual(folder: &TempDir, port: u16) -> Vec<String> {
    let dir = folder.path().display();
    let mut usual: Vec<String> =
        format!("--port {port} --bind 127.0.0.1 --dir {dir} --appendonly no")
            .split(' ')
            .map(str::to_owned)
            .collect();
    usual.extend(["--save".to_owned(), String::new()]);
    usual
}

fn spawn(program: PathBuf, arguments: Vec<String>, folder: TempDir, port: u16) -> Redis {
    let child = launch(&program, &arguments);
    Redis {
        child,
        folder,
        port,
        arguments,
        program,
    }
}

fn launch(program: &Path, arguments: &[String]) -> Child {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|why| panic!("{program:?}: {why}; tests/peers/install brings it"))
}

/// Below the ports that the system gives away, and with room for the port of the cluster's bus, 10,000 above.
fn free_port() -> u16 {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock();
    loop {
        *next += 1;
        let spread = u16::try_from(std::process::id() % 400).unwrap() * 10;
        let port = 12_000 + (spread + *next * 7) % 9_000;
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// `[store]` of a replica.
    pub fn store(&self, keys: &str) -> String {
        store_at(&format!("\"redis://{}\"", self.address()), keys)
    }

    /// What the server answers to a command.
    pub fn ask(&self, command: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .args(command)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub async fn serves(&self) {
        eventually("the store serves", async || self.ask(&["PING"]) == "PONG").await;
    }

    /// `-STOP`, `-CONT`.
    pub fn signal(&self, signal: &str) {
        let killed = Command::new("sh")
            .args(["-c", &format!("kill {signal} {}", self.child.id())])
            .status();
        assert!(killed.unwrap().success());
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, empty, where it was.
    pub async fn restart(&mut self) {
        self.start_again(&[]);
        self.serves().await;
    }

    /// Starts it again where it was, with further arguments, and does not wait until it serves.
    pub fn start_again(&mut self, arguments: &[&str]) {
        let further = arguments.iter().map(|&argument| argument.to_owned());
        let all: Vec<String> = self.arguments.iter().cloned().chain(further).collect();
        self.child = launch(&self.program, &all);
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// `[store]` with the servers as TOML.
pub fn store_at(servers: &str, keys: &str) -> String {
    store_with(servers, SECRET, keys)
}

/// With another secret than the tests' replicas have.
pub fn store_with(servers: &str, secret: &str, keys: &str) -> String {
    let secret = secret_file(secret);
    format!(
        "[store]\nkind = \"redis\"\nservers = {servers}\nkey_secret = {{ file = {secret:?} }}\n{keys}\n"
    )
}

/// A file with a secret.
pub fn secret_file(secret: &str) -> PathBuf {
    pki::SHARED.file("store-secret", secret)
}

/// A wire to a server that can be cut and mended.
pub struct Wire {
    pub address: SocketAddr,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    is_cut: Arc<std::sync::atomic::AtomicBool>,
    delay: Arc<Mutex<Duration>>,
}

pub async fn wire(to: SocketAddr) -> Wire {
    slow_wire(to, Duration::ZERO).await
}

/// What goes over it takes so long.
pub async fn slow_wire(to: SocketAddr, delay: Duration) -> Wire {
    use std::sync::atomic::{AtomicBool, Ordering};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let threads = Arc::<Mutex<Vec<JoinHandle<()>>>>::default();
    let is_cut = Arc::new(AtomicBool::new(false));
    let delay = Arc::new(Mutex::new(delay));
    let (kept, cut, late) = (
        Arc::clone(&threads),
        Arc::clone(&is_cut),
        Arc::clone(&delay),
    );
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            if cut.load(Ordering::SeqCst) {
                continue;
            }
            let delay = Arc::clone(&late);
            kept.lock().push(tokio::spawn(async move {
                let Ok(mut far) = tokio::net::TcpStream::connect(to).await else {
                    return;
                };
                let ((near_in, mut near_out), (mut far_in, far_out)) = (near.split(), far.split());
                let back = async { drop(tokio::io::copy(&mut far_in, &mut near_out).await) };
                tokio::select! {
                    () = trickle(near_in, far_out, delay) => {}
                    () = back => {}
                }
            }));
        }
    });
    Wire {
        address,
        threads,
        is_cut,
        delay,
    }
}

/// Every piece is as late as the first, whatever else is on its way.
async fn trickle(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, delay: Arc<Mutex<Duration>>) {
    let (sender, mut pieces) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut piece = [0; 4_096];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            let due = Instant::now() + *delay.lock();
            if sender.send((due, piece[..count].to_vec())).is_err() {
                break;
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due.into()).await;
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(read, write);
}

impl Wire {
    /// Every connection breaks, and new ones are ended at once.
    pub fn cut(&self) {
        self.is_cut.store(true, std::sync::atomic::Ordering::SeqCst);
        for thread in self.threads.lock().drain(..) {
            thread.abort();
        }
    }

    /// From now on, what goes over it takes so long.
    pub fn delay(&self, delay: Duration) {
        *self.delay.lock() = delay;
    }

    pub fn mend(&self) {
        self.is_cut
            .store(false, std::sync::atomic::Ordering::SeqCst);
    }
}
