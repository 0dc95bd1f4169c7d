//! Messages from replica to replica: a stream of bounded length in the store, which one reads from where one stopped.
//!
//! One primitive does both, telling those who listen and those who were away: whoever was cut off, or has just started,
//! reads what it has missed. Every message is signed with the secret that replicas share; who can write to the store but
//! does not know it can end nobody's login. A message may arrive twice, so it must be safe to act on it twice.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use parking_lot::Mutex;
use redis::streams::StreamReadReply;
use redis::{Cmd, Value};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::connect::{ConnectError, Connection};
use super::line::Line;
use super::stats::{Operation, Outcome};
use super::{Failure, Store};

/// What this replica tells and what it has read.
pub struct Bulletin {
    key: String,
    secret: hmac::Key,
    /// Tells our own messages from those of others.
    sender: [u8; SENDER],
    outbox: mpsc::Sender<Vec<u8>>,
    waiting: Mutex<Option<mpsc::Receiver<Vec<u8>>>>,
    is_full: AtomicBool,
    /// Whether everything that stood there at the start has been read, or could not be.
    caught_up: AtomicBool,
    counts: Counts,
}

/// What came of messages.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    lost: AtomicU64,
    received: AtomicU64,
    bad: AtomicU64,
}

/// How many messages are kept for those who are away.
const KEPT: usize = 65_536;

/// How many of our own wait while the store cannot be used.
const MOST_WAITING: usize = 4_096;

/// Longest message.
const LONGEST: usize = 1_024;

/// How many are read at once.
const BATCH: usize = 512;

/// Longest wait of the store for a new message; then it is asked again.
const BLOCK: Duration = Duration::from_millis(500);

/// Longest wait for an answer beyond that. Nobody waits for it but us.
const PATIENCE: Duration = Duration::from_millis(500);

/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(200);

/// Refusals by the store after which a message is given up. One that cannot be reached is waited for.
const MOST_REFUSALS: u32 = 25;

/// How far back one reads after a failure: a master that takes over may lack what was read last.
const REWIND_MILLIS: u64 = 60_000;

const FIELD: &str = "m";
const VERSION: u8 = 1;
const SENDER: usize = 8;
const TAG: usize = 32;

impl Bulletin {
    pub(super) fn new(prefix: &str, secret: hmac::Key) -> Self {
        let (outbox, waiting) = mpsc::channel(MOST_WAITING);
        let mut sender = [0; SENDER];
        // Without randomness we would miss the messages of another one that had none; there is no such system.
        let _ = aws_lc_rs::rand::fill(&mut sender);
        Self {
            key: format!("{prefix}:revocations"),
            secret,
            sender,
            outbox,
            waiting: Mutex::new(Some(waiting)),
            is_full: AtomicBool::new(false),
            caught_up: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }

    /// Tells other replicas, as soon as the store can be used. Does not wait.
    pub fn publish(&self, message: &[u8]) {
        if message.len() <= LONGEST && self.outbox.try_send(self.seal(message)).is_ok() {
            self.is_full.store(false, Ordering::Relaxed);
            return;
        }
        self.lose("more messages than can be kept until the store can be used");
    }

    /// Sends what is published, for ever. The second call returns at once.
    pub async fn post(&self, line: &Line) {
        let Some(mut waiting) = self.waiting.lock().take() else {
            return;
        };
        while let Some(message) = waiting.recv().await {
            self.send(line, &message).await;
        }
    }

    async fn send(&self, line: &Line, message: &[u8]) {
        let mut command = redis::cmd("XADD");
        command.arg(&self.key).arg("MAXLEN").arg("~").arg(KEPT);
        command.arg("*").arg(FIELD).arg(message);
        let mut refusals = 0;
        loop {
            let key = self.key.as_bytes();
            match line.ask(Operation::Publish, key, &command, PATIENCE).await {
                Ok(_) => {
                    self.counts.sent.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(Failure::Error) => refusals += 1,
                // It may have been taken all the same; then it is told twice.
                Err(Failure::Open | Failure::Timeout | Failure::NoScript) => {}
            }
            if refusals >= MOST_REFUSALS {
                self.lose("the store refuses messages");
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// Hands on every message of others, those that were told before the start first; until nobody takes them.
    pub async fn follow(&self, store: &Store, taker: mpsc::Sender<Vec<u8>>) {
        let mut position = Position::default();
        while !taker.is_closed() {
            let Err(ConnectError(why)) = self.read_on(store, &mut position, &taker).await;
            self.caught_up.store(true, Ordering::Release);
            position.fails(&why);
            sleep(PAUSE).await;
        }
    }

    async fn read_on(
        &self,
        store: &Store,
        position: &mut Position,
        taker: &mpsc::Sender<Vec<u8>>,
    ) -> Result<std::convert::Infallible, ConnectError> {
        let connection = store.place.connect().await?;
        let mut block = None;
        loop {
            let entries = self.read(store, &connection, position, block).await?;
            position.works();
            let count = entries.len();
            for entry in entries {
                position.passed(entry.id);
                match entry.sealed.as_deref().and_then(|sealed| self.open(sealed)) {
                    Some(Opened::Other(message)) => {
                        self.counts.received.fetch_add(1, Ordering::Relaxed);
                        let handed = taker.send(message.to_vec()).await;
                        handed.map_err(|_| ConnectError("nobody takes it".to_owned()))?;
                    }
                    Some(Opened::Own) => {}
                    None => self.complain(),
                }
            }
            if count < BATCH {
                self.caught_up.store(true, Ordering::Release);
                block = Some(BLOCK);
            }
        }
    }

    async fn read(
        &self,
        store: &Store,
        connection: &Connection,
        position: &Position,
        block: Option<Duration>,
    ) -> Result<Vec<Entry>, ConnectError> {
        let command = self.question(position, block);
        let patience = block.unwrap_or_default() + PATIENCE;
        let asked = connection.ask(self.key.as_bytes(), &command);
        let (outcome, answer) = match timeout(patience, asked).await {
            Ok(Ok(answer)) => (Outcome::Ok, entries(answer)),
            Ok(Err(error)) => (Outcome::Error, Err(format!("the store answers: {error}"))),
            Err(_) => (
                Outcome::Timeout,
                Err("the store does not answer".to_owned()),
            ),
        };
        store.stats.count(Operation::Follow, outcome);
        answer.map_err(ConnectError)
    }

    fn question(&self, position: &Position, block: Option<Duration>) -> Cmd {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(BATCH);
        if let Some(block) = block {
            let millis = u64::try_from(block.as_millis()).unwrap_or(u64::MAX);
            command.arg("BLOCK").arg(millis);
        }
        command.arg("STREAMS").arg(&self.key).arg(&position.last);
        command
    }

    /// Version, sender, signature, message.
    fn seal(&self, message: &[u8]) -> Vec<u8> {
        let tag = self.sign(&self.sender, message);
        [&[VERSION][..], &self.sender, tag.as_ref(), message].concat()
    }

    fn sign(&self, sender: &[u8], message: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(&[VERSION]);
        context.update(sender);
        context.update(message);
        context.sign()
    }

    /// The message, if a replica has sealed it.
    fn open<'m>(&self, sealed: &'m [u8]) -> Option<Opened<'m>> {
        let (version, rest) = sealed.split_first()?;
        let (sender, rest) = rest.split_at_checked(SENDER)?;
        let (tag, message) = rest.split_at_checked(TAG)?;
        if *version != VERSION || message.len() > LONGEST {
            return None;
        }
        let signed = [&[VERSION][..], sender, message].concat();
        hmac::verify(&self.secret, &signed, tag).ok()?;
        Some(if sender == self.sender {
            Opened::Own
        } else {
            Opened::Other(message)
        })
    }

    /// Whether what stood there at the start has been read, or could not be.
    pub(super) fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    /// Messages, by what came of them.
    pub(super) fn messages(&self) -> Vec<(&'static str, u64)> {
        let Counts {
            sent,
            lost,
            received,
            bad,
        } = &self.counts;
        let all = [
            ("sent", sent),
            ("lost", lost),
            ("received", received),
            ("bad", bad),
        ];
        all.map(|(word, count)| (word, count.load(Ordering::Relaxed)))
            .into()
    }

    /// A message that nobody but us will know.
    fn lose(&self, why: &'static str) {
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
        if !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::error!(why, "other replicas will not learn of a logout");
        }
    }

    fn complain(&self) {
        if self.counts.bad.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                key = self.key,
                "a message in the store is not signed with `key_secret`; such are ignored and counted"
            );
        }
    }

    /// For the taker to say that a message made no sense.
    pub fn made_no_sense(&self) {
        self.complain();
    }
}

/// What stands in the stream; without a message, if somebody else wrote it.
struct Entry {
    id: String,
    sealed: Option<Vec<u8>>,
}

/// A message that a replica has sealed.
#[derive(Debug, PartialEq, Eq)]
enum Opened<'m> {
    Own,
    Other(&'m [u8]),
}

/// How far one has read.
#[derive(Debug)]
struct Position {
    last: String,
    /// Whether reading worked last; `None` before the first attempt.
    works: Option<bool>,
}

impl Default for Position {
    fn default() -> Self {
        Self {
            last: "0-0".to_owned(),
            works: None,
        }
    }
}

impl Position {
    fn passed(&mut self, id: String) {
        self.last = id;
    }

    fn works(&mut self) {
        if self.works.replace(true) != Some(true) {
            tracing::info!("what other replicas tell is read");
        }
    }

    fn fails(&mut self, why: &str) {
        if self.works.replace(false) != Some(false) {
            tracing::warn!(why, "what other replicas tell cannot be read now");
        }
        let millis = self.last.split('-').next();
        let millis: u64 = millis.and_then(|millis| millis.parse().ok()).unwrap_or(0);
        self.last = format!("{}-0", millis.saturating_sub(REWIND_MILLIS));
    }
}

/// The entries of an answer to XREAD, each with the value of our field.
fn entries(answer: Value) -> Result<Vec<Entry>, String> {
    let reply: Option<StreamReadReply> = redis::from_redis_value(answer)
        .map_err(|_| "the store's answer is no stream".to_owned())?;
    let streams = reply.into_iter().flat_map(|reply| reply.keys);
    let entries = streams.flat_map(|stream| stream.ids).map(|mut entry| {
        let sealed = match entry.map.remove(FIELD) {
            Some(Value::BulkString(sealed)) => Some(sealed),
            _ => None,
        };
        Entry {
            id: entry.id,
            sealed,
        }
    });
    Ok(entries.collect())
}

impl fmt::Debug for Bulletin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulletin")
            .field("key", &self.key)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulletin(secret: &[u8]) -> Bulletin {
        Bulletin::new("test", hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    #[test]
    fn a_replica_opens_what_another_has_sealed_and_knows_its_own() {
        let (one, other) = (bulletin(b"secret"), bulletin(b"secret"));
        let sealed = one.seal(b"message");
        assert_eq!(other.open(&sealed), Some(Opened::Other(b"message")));
        assert_eq!(one.open(&sealed), Some(Opened::Own));
    }

    #[test]
    fn nothing_else_is_a_message() {
        let one = bulletin(b"secret");
        let sealed = one.seal(b"message");
        for position in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[position] ^= 1;
            assert_eq!(one.open(&forged), None, "byte {position}");
            assert_eq!(one.open(&sealed[..position]), None, "cut at {position}");
        }
        assert_eq!(bulletin(b"another").open(&sealed), None);
        assert_eq!(one.open(&one.seal(&[0; LONGEST + 1])), None);
        assert_eq!(one.open(b""), None);
    }

    #[test]
    fn messages_beyond_the_bound_are_lost_and_counted() {
        let one = bulletin(b"secret");
        for _ in 0..=MOST_WAITING {
            one.publish(b"message");
        }
        one.publish(&[0; LONGEST + 1]);
        assert!(one.messages().contains(&("lost", 2)));
    }

    #[test]
    fn after_a_failure_one_reads_from_a_minute_before() {
        let mut position = Position::default();
        position.fails("");
        assert_eq!(position.last, "0-0");
        position.passed("1700000000000-7".to_owned());
        position.fails("");
        assert_eq!(position.last, "1699999940000-0");
    }
}
