//! The real binary, for what only a process has: exit codes, signals, standard output.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;

use super::client::{self, Via};
use super::eventually;
use super::gateway::{Builder, sum};

/// Runs a command of the binary to its end.
pub fn vestibule(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Writes `text` to a file and hands its path to `use_it`.
pub fn with_file<T>(text: &str, use_it: impl FnOnce(&str) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vestibule.toml");
    std::fs::write(&path, text).unwrap();
    use_it(path.to_str().unwrap())
}

/// `vestibule run` with a configuration; killed when it is dropped.
pub struct Process {
    child: Child,
    folder: TempDir,
    events: Arc<Mutex<Vec<Value>>>,
    stdout: Option<JoinHandle<String>>,
}

pub async fn run(conf: &Builder) -> Process {
    start(conf, command(&[])).await
}

/// Under limits of the shell, such as `ulimit -n 256`.
pub async fn run_under(limit: &str, conf: &Builder) -> Process {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{limit} && exec \"$0\" \"$@\"")])
        .arg(env!("CARGO_BIN_EXE_vestibule"))
        .stdin(Stdio::null());
    start(conf, shell).await
}

async fn start(conf: &Builder, mut command: Command) -> Process {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vestibule.toml");
    std::fs::write(&path, conf.text()).unwrap();
    let mut child = command
        .args(["run", "-c", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let events = Arc::<Mutex<Vec<Value>>>::default();
    let stderr = child.stderr.take().unwrap();
    let log = Arc::clone(&events);
    std::thread::spawn(move || read_events(stderr, &log));
    let mut stdout = child.stdout.take().unwrap();
    let stdout = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        text
    });
    let process = Process {
        child,
        folder,
        events,
        stdout: Some(stdout),
    };
    eventually("the process serves", async || {
        process.event("serving").is_some()
    })
    .await;
    process
}

fn read_events(stderr: ChildStderr, events: &Mutex<Vec<Value>>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(event) => events.lock().push(event),
            Err(_) => events.lock().push(Value::String(line)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    pub fn config(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the configuration file.
    pub fn rewrite(&self, conf: &Builder) {
        let path = self.folder.path().join("vestibule.toml");
        std::fs::write(path, conf.text()).unwrap();
    }

    /// The last event of the log with this message.
    pub fn event(&self, message: &str) -> Option<Value> {
        let events = self.events.lock();
        events
            .iter()
            .rev()
            .find(|event| event["message"] == message)
            .cloned()
    }

    pub fn events(&self) -> Vec<Value> {
        self.events.lock().clone()
    }

    pub fn at(&self, listener: &str) -> SocketAddr {
        let events = self.events.lock();
        let told = events
            .iter()
            .find(|event| event["message"] == "listening" && event["listener"] == listener);
        address(&told.expect("a listener")["address"])
    }

    pub fn admin(&self) -> SocketAddr {
        address(&self.event("serving").unwrap()["admin"])
    }

    /// Bytes in RAM, as the kernel counts them.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.unwrap().trim().trim_end_matches("kB").trim();
        kilobytes.parse::<u64>().unwrap() << 10
    }

    pub fn open_files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).unwrap().count()
    }

    /// The sum of all samples of `name` that bear `labels`.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let admin = client::connect(self.admin(), Via::H1).await;
        let page = { admin }.send(client::get("/metrics")).await.text();
        sum(&page, name, labels)
    }

    /// `-TERM`, `-HUP`.
    pub fn signal(&self, signal: &str) {
        // The shell's own, for not every machine has the program.
        let killed = Command::new("sh")
            .args(["-c", &format!("kill {signal} {}", self.child.id())])
            .status();
        assert!(killed.unwrap().success());
    }

    /// Waits for the end by itself; the exit code and all of standard output.
    pub async fn ended(&mut self) -> (Option<i32>, String) {
        let mut code = None;
        eventually("the process ends", async || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        })
        .await;
        let text = self.stdout.take().expect("ended once").join().unwrap();
        (code.and_then(|status| status.code()), text)
    }
}

fn address(value: &Value) -> SocketAddr {
    value.as_str().unwrap().parse().unwrap()
}
