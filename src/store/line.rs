//! One worker's connection to the store, and whether it can be relied on.
//!
//! A circuit: it is closed while there is a connection, and opens when that breaks, when the store says that it cannot
//! decide now, or when one of its servers fails to answer a few times in a row. While it is open nobody waits for the
//! store: whoever asks is told so at once, and a task of the worker opens connections until one proves itself. A quiet
//! store is tried twice a second, and at once when a question fails, so that few requests have to find out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{Cmd, RedisError, Value};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::connect::{ConnectError, Connection};
use super::stats::{Operation, Outcome};
use super::{Failure, Store};
use crate::types::clock;

/// One connection with its circuit.
pub struct Line {
    store: Arc<Store>,
    connection: ArcSwapOption<Connection>,
    /// There is something to look after before the next pause is over.
    woken: Notify,
}

/// Failures of one server in a row that open the circuit.
const FEW: u32 = 3;

/// How often a store is tried that is in use.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Pauses between attempts to connect: from the first to the last.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

impl Line {
    /// Not connected yet: [`Self::keep`] does that.
    #[must_use]
    pub fn new(store: &Arc<Store>) -> Arc<Self> {
        store.health.add_line();
        Arc::new(Self {
            store: Arc::clone(store),
            connection: ArcSwapOption::empty(),
            woken: Notify::new(),
        })
    }

    /// The store at its other end.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Keeps the line connected, for ever. To be run on the worker that asks over it.
    pub async fn keep(self: Arc<Self>) {
        loop {
            let connection = self.connect().await;
            self.connection.store(Some(connection));
            self.store.health.up();
            loop {
                tokio::select! {
                    () = self.woken.notified() => {}
                    () = sleep(TRY_EVERY) => {}
                }
                if self.connection.load().is_none() {
                    break;
                }
                self.try_it().await;
            }
        }
    }

    /// Asks whoever holds `key`, and waits for the answer no longer than `patience`.
    pub(super) async fn ask(
        &self,
        operation: Operation,
        key: &[u8],
        command: &Cmd,
        patience: Duration,
    ) -> Result<Value, Failure> {
        let stats = &self.store.stats;
        let Some(connection) = self.connection.load_full() else {
            stats.count(operation, Outcome::Open);
            return Err(Failure::Open);
        };
        let begun = clock::now();
        match timeout(patience, connection.ask(key, command)).await {
            Ok(Ok(answer)) => {
                connection.failures(key).store(0, Ordering::Relaxed);
                stats.count(operation, Outcome::Ok);
                stats.answered_after(begun.elapsed());
                Ok(answer)
            }
            // Not a fault of the store: the caller brings the script along next time.
            Ok(Err(error)) if is_missing_script(&error) => Err(Failure::NoScript),
            Ok(Err(error)) => {
                stats.count(operation, Outcome::Error);
                let is_final = is_final(&error);
                let is_about_streams = matches!(operation, Operation::Publish | Operation::Follow);
                if is_about_streams && !is_final {
                    // Such as a user who may not: that says nothing about limits.
                    return Err(Failure::Error);
                }
                self.failed(&connection, key, is_final, || {
                    format!("it answers: {error}")
                });
                Err(Failure::Error)
            }
            Err(_) => {
                stats.count(operation, Outcome::Timeout);
                self.failed(&connection, key, false, || {
                    "it does not answer in time".to_owned()
                });
                Err(Failure::Timeout)
            }
        }
    }

    /// One more failure. The circuit opens when they are too many, or `is_final`.
    fn failed(
        &self,
        connection: &Arc<Connection>,
        key: &[u8],
        is_final: bool,
        why: impl FnOnce() -> String,
    ) {
        let failures = connection.failures(key).fetch_add(1, Ordering::Relaxed) + 1;
        if failures < FEW && !is_final {
            self.woken.notify_one();
            return;
        }
        // Another request may have been first; a connection that was opened since is not to blame.
        let current = self.connection.load();
        if !current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, connection))
        {
            return;
        }
        let seen = self.connection.compare_and_swap(&current, None);
        if seen
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, connection))
        {
            self.store.health.down(why());
            self.woken.notify_one();
        }
    }

    /// Opens connections until one proves itself.
    async fn connect(&self) -> Arc<Connection> {
        let mut pause = PAUSE;
        loop {
            let attempt = async {
                let connection = self.store.place.connect().await?;
                self.prove(&connection).await?;
                Ok(connection)
            };
            match attempt.await {
                Ok(connection) => return Arc::new(connection),
                Err(ConnectError(why)) => self.store.health.still_down(why),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A store that is only read from would decide nothing: a key is written on every server.
    async fn prove(&self, connection: &Connection) -> Result<(), ConnectError> {
        for key in connection.probes(&self.store.prefix) {
            let command = probe(&key);
            let answer = timeout(self.store.timeout, connection.ask(key.as_bytes(), &command));
            let outcome = match answer.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err((Outcome::Error, words(&error))),
                Err(_) => Err((Outcome::Timeout, "it does not answer in time".to_owned())),
            };
            let counted = outcome
                .as_ref()
                .map_or_else(|(failed, _)| *failed, |()| Outcome::Ok);
            self.store.stats.count(Operation::Probe, counted);
            outcome.map_err(|(_, why)| ConnectError(why))?;
        }
        Ok(())
    }

    /// Tries the servers of a connection in use.
    async fn try_it(&self) {
        let Some(connection) = self.connection.load_full() else {
            return;
        };
        if connection.is_stale() {
            if let Ok(fresh) = self.store.place.connect().await {
                self.connection.store(Some(Arc::new(fresh)));
            }
            return;
        }
        for key in connection.probes(&self.store.prefix) {
            let command = probe(&key);
            let (key, patience) = (key.as_bytes(), self.store.timeout);
            // A failure has been counted, and may have opened the circuit.
            let _ = self.ask(Operation::Probe, key, &command, patience).await;
        }
    }
}

/// What decisions need: a script, the clock, a key that is written and goes by itself.
fn probe(key: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg("redis.call('SET', KEYS[1], 1, 'PX', 1000) return redis.call('TIME')");
    command.arg(1).arg(key);
    command
}

/// Whether the next question would fail as this one did: the connection is broken, or the server says that it cannot
/// decide for now. Elsewhere, or later, there may be one that can.
fn is_final(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_connection_dropped()
        || error.code().is_some_and(|code| UNFIT.contains(&code))
}

/// What a server answers to everything while it cannot decide: it loads its data, is or became a replica, lost its master
/// or a part of the cluster, has no memory left, is busy with somebody's script, or does not let us in any more.
const UNFIT: [&str; 8] = [
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "OOM",
    "BUSY",
    "NOAUTH",
    "MISCONF",
];

/// What it answers, in the server's own words, which its documentation explains.
fn words(error: &RedisError) -> String {
    match error.code() {
        Some(code) => format!("it answers {code} {}", error.detail().unwrap_or_default()),
        None => format!("it cannot be asked: {error}"),
    }
}

fn is_missing_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("closed", &self.connection.load().is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(line: &str) -> RedisError {
        let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        answer.unwrap().extract_error().unwrap_err()
    }

    #[test]
    fn what_a_server_says_to_everything_opens_the_circuit_at_once() {
        for line in [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "MASTERDOWN Link with MASTER is down",
            "CLUSTERDOWN Hash slot not served",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "BUSY Redis is busy running a script.",
            "NOAUTH Authentication required.",
            "MISCONF Redis is configured to save RDB snapshots",
        ] {
            assert!(is_final(&answered(line)), "{line}");
            assert_eq!(words(&answered(line)), format!("it answers {line}"));
        }
    }

    #[test]
    fn what_is_about_one_question_does_not() {
        for line in [
            "ERR unknown command",
            "NOSCRIPT No matching script.",
            "MOVED 3999 127.0.0.1:6381",
            "ASK 3999 127.0.0.1:6381",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "NOPERM this user has no permissions to run the 'xadd' command",
        ] {
            assert!(!is_final(&answered(line)), "{line}");
        }
    }
}
