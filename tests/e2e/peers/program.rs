//! Starts the programs of `tests/peers`, and reads what they say.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use vestibule::types::task;

use super::tap;

/// What a program that has ended left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A program that serves until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    facts: Value,
}

impl Server {
    /// Starts `program` and waits for its `ready {...}`.
    pub(crate) async fn start(program: Program, asked: &Value) -> Self {
        let mut child = program.command(asked).spawn().expect("the program starts");
        let complaints = Arc::new(Mutex::new(String::new()));
        let mut stderr = child.stderr.take().expect("it is a pipe");
        let sink = Arc::clone(&complaints);
        task::spawn("complaints", async move {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut piece).await {
                let mut sink = sink.lock();
                if sink.len() < MAX_COMPLAINTS {
                    sink.push_str(&String::from_utf8_lossy(&piece[..count]));
                }
            }
        });
        let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
        let line = timeout(PATIENCE, lines.next_line()).await;
        let Ok(Ok(Some(line))) = line else {
            panic!("{program:?} is not ready: {line:?}: {}", complaints.lock());
        };
        let facts = line.strip_prefix("ready ").expect("it says `ready`");
        let facts = serde_json::from_str(facts).expect("its facts are JSON");
        Self { child, facts }
    }

    pub(crate) fn port(&self) -> u16 {
        let port = self.facts["port"].as_u64().expect("it tells its port");
        port.try_into().expect("it is a port")
    }

    /// Ends it at once and waits until its port is free.
    pub(crate) async fn stop(mut self) {
        self.child.kill().await.expect("it was running");
    }
}

/// A peer that `tests/peers/install` brought, or that the system has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// `tests/peers/node/NAME.mjs`
    Node(&'static str),
    /// `tests/peers/python/NAME.py`
    Python(&'static str),
}

impl Program {
    /// Runs the cases of the program; each must pass.
    pub(crate) async fn passes(self, asked: &Value) {
        let ended = run(self.command(asked), PATIENCE).await;
        if let Err(complaints) = tap::judge(&ended.text()) {
            panic!("{self:?} with {asked}:\n{complaints}{}", ended.stderr);
        }
    }

    fn command(self, asked: &Value) -> Command {
        let mut command = match self {
            // Modules are looked for along the path of the link, which leads through the installed ones.
            Self::Node(name) => {
                let mut command = Command::new(installed("bin/node"));
                command
                    .args(["--preserve-symlinks", "--preserve-symlinks-main"])
                    .arg(installed(&format!("node/programs/{name}.mjs")));
                command
            }
            Self::Python(name) => {
                let mut command = Command::new(installed("python/bin/python"));
                command
                    .env("PYTHONDONTWRITEBYTECODE", "1")
                    .arg(checkout().join(format!("tests/peers/python/{name}.py")));
                command
            }
        };
        command.arg(asked.to_string());
        // The program ends when its input does, so that none is left behind by a test run that was killed.
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }
}

/// Runs a command to its end.
pub(crate) async fn run(mut command: Command, patience: Duration) -> Ended {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap_or_else(|error| {
        panic!("{command:?} does not start ({error}); tests/peers/install brings every peer")
    });
    // Held: a program that sees its input end would end as well.
    let stdin = child.stdin.take();
    let ended = timeout(patience, child.wait_with_output()).await;
    drop(stdin);
    let ended = ended.unwrap_or_else(|_| panic!("{command:?} did not end within {patience:?}"));
    let ended = ended.expect("its output can be read");
    Ended {
        code: ended.status.code(),
        stdout: ended.stdout,
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

/// What `tests/peers/install` left at `path`.
pub(crate) fn installed(path: &str) -> PathBuf {
    let path = checkout().join("target/peers").join(path);
    assert!(path.exists(), "a peer is missing: run tests/peers/install");
    path
}

/// Keeps a result for `tests/run` to print at its end.
pub(crate) fn keep_result(name: &str, line: &str) {
    let folder = checkout().join("target/peers/results");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    std::fs::write(folder.join(name), format!("{line}\n")).expect("the file can be written");
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// How long a program may take to start, or to run all its cases.
const PATIENCE: Duration = Duration::from_secs(60);

const MAX_COMPLAINTS: usize = 64 * 1024;
