//! HTTP/2 abuse (behaviour.md 2.3) against the real binary, ten connections at once: its memory stays where it was, the
//! backend has no more work than honest clients make, and a witness on another connection sees nothing of it. What each
//! flood is answered with is tested where it is answered, in `server`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::support::binary::{self, Process};
use crate::support::client::{self, Via, get};
use crate::support::gateway::conf;
use crate::support::origin::{self, Gate, Origin, gate};
use crate::support::raw::{self, frame, h2_block, headers};
use crate::support::{eventually, soon};

const CONNECTIONS: usize = 10;
/// RSS that all probes together may add.
const ROOM: u64 = 20 << 20;
/// What of it may be left when the attackers have gone, and from when on.
const LEFT: u64 = 5 << 20;
const FALLS_WITHIN: Duration = Duration::from_secs(30);

const CONTINUATION: u8 = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_HEADERS: u8 = 4;

struct House {
    origin: Origin,
    process: Process,
    before: u64,
}

/// With short deadlines, warmed up: what everybody costs who comes is not held against an attacker.
async fn house() -> House {
    let origin = origin::h2c().run().await;
    // As many as ten attackers can have under way, and more: the cap of the upstream is not what is tested.
    let conf = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_with("api", &origin, "max_requests = 5000")
        .listen("write_timeout = \"1s\"\nhead_timeout = \"1s\"\nidle_timeout = \"4s\"");
    let process = binary::run(&conf).await;
    for _ in 0..3 {
        let mut streams = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let plain = process.at("plain");
            streams
                .spawn(async move { client::connect(plain, Via::H2c).await.send(get("/")).await });
        }
        while let Some(answer) = streams.join_next().await {
            assert_eq!(answer.unwrap().status, 200);
        }
    }
    let before = process.memory();
    origin.forget();
    House {
        origin,
        process,
        before,
    }
}

#[allow(
    clippy::print_stdout,
    reason = "the figures are what a reader of a long run is after"
)]
impl House {
    /// Ten attackers send `wire(0)`, `wire(1)`, ... until they are cut off, then wait to be. Those who read take all
    /// that comes.
    async fn bears(&self, what: &str, reads: bool, rounds: u32, wire: fn(u32) -> Vec<u8>) {
        let begun = self.process.memory();
        let over = Arc::new(AtomicBool::new(false));
        let witness = tokio::spawn(witness(self.process.at("plain"), Arc::clone(&over)));
        let (control, stalled) = (self.control().await, self.stalled().await);
        let flooded = self.ended("flooded").await;
        let (mut attackers, seen_through) = (JoinSet::new(), gate());
        for _ in 0..CONNECTIONS {
            let h2 = raw::h2(self.process.at("plain")).await;
            let seen_through = (!reads).then(|| seen_through.clone());
            attackers.spawn(attack(h2, seen_through, rounds, wire));
        }
        let mut most = 0;
        soon(what, async {
            while !attackers.is_empty() {
                let _ =
                    tokio::time::timeout(Duration::from_millis(20), attackers.join_next()).await;
                most = most.max(self.grown());
                if !reads
                    && (self.stalled().await > stalled
                        || self.ended("flooded").await - flooded > CONNECTIONS as f64 - 0.5)
                {
                    seen_through.open();
                }
            }
        })
        .await;
        over.store(true, Ordering::Relaxed);
        let (asked, slowest) = p99(witness.await.unwrap());
        let bound = bearable(control);
        let figures = format!(
            "{what}: +{} KiB, {asked} answers to the witness, p99 {slowest:?} of {bound:?}; {control:?} in peace",
            most >> 10
        );
        println!("{figures}");
        assert!(most <= ROOM, "{figures}");
        assert!(slowest < bound, "{figures}");
        eventually(&format!("{what}: nothing is left behind"), async || {
            let open = self
                .process
                .metric("vestibule_requests_in_flight", &[])
                .await;
            open < 0.5
        })
        .await;
        // Life goes on meanwhile: an allocator tidies up when it is asked for something.
        let mut client = client::connect(self.process.at("plain"), Via::H2c).await;
        let since = Instant::now();
        while self.process.memory() > begun + LEFT {
            let left = self.process.memory().saturating_sub(begun) >> 10;
            assert!(
                since.elapsed() < FALLS_WITHIN,
                "{figures}; then +{left} KiB"
            );
            assert_eq!(client.send(get("/")).await.status, 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the witness waits for an answer when nobody attacks: the median of fifty.
    async fn control(&self) -> Duration {
        let mut client = client::connect(self.process.at("plain"), Via::H2c).await;
        let mut waits = Vec::new();
        for _ in 0..50 {
            let since = Instant::now();
            assert_eq!(client.send(get("/")).await.status, 200);
            waits.push(since.elapsed());
        }
        waits.sort();
        waits[25]
    }

    /// Streams and connections that were ended because their client took nothing.
    async fn stalled(&self) -> f64 {
        self.ended("stream_stalled").await + self.ended("write_stalled").await
    }

    async fn ended(&self, reason: &str) -> f64 {
        let name = "vestibule_connections_refused_total";
        self.process.metric(name, &[("reason", reason)]).await
    }

    fn grown(&self) -> u64 {
        self.process.memory().saturating_sub(self.before)
    }
}

/// The quarter of a second that nobody waits longer for under attack. A debug build on a busy machine is slower with
/// everything, the attacked and the attacker: by as much as it is slower with the same request in peace, for which a release
/// build needs `RELEASED`.
fn bearable(control: Duration) -> Duration {
    const BOUND: Duration = Duration::from_millis(250);
    const RELEASED: Duration = Duration::from_micros(100);
    if !cfg!(debug_assertions) {
        return BOUND;
    }
    BOUND.mul_f64(control.div_duration_f64(RELEASED).max(1.0))
}

/// Sends all rounds and then takes all that comes; or, until `seen_through`, nothing.
async fn attack(h2: raw::H2, seen_through: Option<Gate>, rounds: u32, wire: fn(u32) -> Vec<u8>) {
    let reads = seen_through.is_none();
    let (mut reader, mut writer) = h2.into_split();
    let write = async move {
        for round in 0..rounds {
            if writer.write_all(&wire(round)).await.is_err() {
                return;
            }
        }
        let Some(seen_through) = seen_through else {
            let _ = writer.shutdown().await;
            return;
        };
        // Whatever is stalled has met its deadline, or nothing is, because all were cut off for their flood, which they
        // have not noticed if it was all written by then. Now come more PINGs than anybody bears.
        seen_through.opened().await;
        let ping = frame(PING, 0, 0, b"anyone??");
        while writer.write_all(&ping).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let read = async move {
        let mut sink = vec![0; 16 << 10];
        while reads && matches!(reader.read(&mut sink).await, Ok(1..)) {}
        reader
    };
    let _ = tokio::join!(write, read);
}

/// How many answers there were, and the wait that one in a hundred exceeds.
fn p99(mut waits: Vec<Duration>) -> (usize, Duration) {
    waits.sort();
    (waits.len(), waits[waits.len() * 99 / 100])
}

/// About fifty requests a second on one connection; how long each answer took.
async fn witness(plain: std::net::SocketAddr, over: Arc<AtomicBool>) -> Vec<Duration> {
    let mut client = client::connect(plain, Via::H2c).await;
    let mut waits = Vec::new();
    while !over.load(Ordering::Relaxed) || waits.len() < 20 {
        let since = Instant::now();
        let answer = soon("the witness", client.send(get("/"))).await;
        assert_eq!((answer.status.as_u16(), &*answer.text()), (200, "hello"));
        waits.push(since.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    waits
}

fn ask(stream: u32) -> Vec<u8> {
    let block = h2_block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "test.example"),
        (":path", "/attack"),
    ]);
    headers(stream, &block)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])
}

/// SETTINGS that leave no stream a window.
fn shut() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])
}

/// A block that puts `entry` into the dynamic table, and means it as often as there are bytes behind it.
fn bomb(stream: u32, entry: &[u8], times: usize) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84, 0x01, 1, b'a'];
    block.extend(entry);
    block.extend(std::iter::repeat_n(0x80 | 62, times));
    headers(stream, &block)
}

#[tokio::test]
async fn floods_of_frames_are_borne() {
    let house = house().await;
    house
        .bears("rapid reset", true, 20_000, |round| {
            [ask(2 * round + 1), reset(2 * round + 1)].concat()
        })
        .await;
    let begun = house
        .origin
        .saw()
        .iter()
        .filter(|seen| seen.target == "/attack")
        .count();
    assert!(begun <= 100 * CONNECTIONS, "{begun} requests upstream");
    house
        .bears("CONTINUATION", true, 20_000, |round| match round {
            0 => frame(HEADERS, 1, 1, &[0x82]),
            _ => frame(CONTINUATION, 0, 1, &[]),
        })
        .await;
    let ping = |_| frame(PING, 0, 0, b"anyone??");
    house.bears("PING, read", true, 50_000, ping).await;
    house.bears("PING, not read", false, 50_000, ping).await;
    let settings = |_| frame(SETTINGS, 0, 0, &[]);
    house.bears("SETTINGS, read", true, 50_000, settings).await;
    house
        .bears("SETTINGS, not read", false, 50_000, settings)
        .await;
    house
        .bears("empty DATA", true, 50_000, |round| match round {
            0 => {
                let mut post = ask(1);
                post[4] = END_HEADERS;
                post
            }
            _ => frame(DATA, 0, 1, &[]),
        })
        .await;
    house
        .bears("resets that we make", true, 5_000, |round| {
            let stream = 2 * round + 1;
            [
                ask(stream),
                frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]),
            ]
            .concat()
        })
        .await;
    house
        .bears("PRIORITY", true, 50_000, |round| {
            frame(2, 0, 2 * round + 1, &[0, 0, 0, 0, 7])
        })
        .await;
}

#[tokio::test]
async fn header_bombs_and_shut_windows_are_borne() {
    let house = house().await;
    house
        .bears("cookie bomb", true, 50, |round| match round {
            0 => shut(),
            _ => {
                let mut entry = vec![0x40, 6];
                entry.extend(b"cookie");
                entry.extend([127, 0xa1, 0x1e]);
                entry.extend([b'c'; 4_000]);
                bomb(2 * round + 1, &entry, 8_000)
            }
        })
        .await;
    house
        .bears("bomb of empty fields", true, 100, |round| match round {
            0 => shut(),
            _ => bomb(2 * round + 1, &[0x40, 1, b'a', 0], 3_000),
        })
        .await;
    house
        .bears("bombs within the size", false, 200, |round| match round {
            0 => shut(),
            _ => bomb(2 * round + 1, &[0x40, 1, b'a', 0], 450),
        })
        .await;
    house
        .bears("shut windows", false, 200, |round| match round {
            0 => shut(),
            _ => ask(2 * round + 1),
        })
        .await;
    let stalled = [("listener", "plain"), ("reason", "stream_stalled")];
    let name = "vestibule_connections_refused_total";
    assert!(house.process.metric(name, &stalled).await > 0.0);
}
