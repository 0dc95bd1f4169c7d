//! slowhttptest: slow heads, slow bodies, slow readers and overlapping ranges, hundreds at a time. Every one is closed
//! by its deadline, and somebody else is served all the while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::process::Command;

use super::entrance::Entrance;
use super::program::run;
use crate::support::client::{self, Via, get};
use crate::support::origin::{self, Reply};
use crate::support::soon;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_are_closed_and_others_are_served() {
    let report = attack(&["-H", "-i", "1"], "/hello", 2).await;
    assert!(report.contains(ALL_CLOSED), "{report}");
}

/// Some bytes a second keep a body from being idle; they are fewer than the least that is taken after ten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_are_closed_and_others_are_served() {
    let report = attack(&["-B", "-i", "1", "-s", "8192"], "/hello", 10).await;
    assert!(report.contains(ALL_CLOSED), "{report}");
}

/// A window of bytes, and an answer that no buffer of the kernel holds. The tool goes on with what it was sent before,
/// and sees the end of it in an hour: what is judged is the gateway's side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_are_closed_and_others_are_served() {
    let reading = [
        "-X", "-c", "200", "-w", "8", "-y", "16", "-n", "1", "-z", "1", "-l", "14",
    ];
    // Two seconds, once the kernel has taken all that it takes, for which a busy machine needs some.
    attack(&reading, "/large", 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_many_ranges_are_closed_and_others_are_served() {
    let report = attack(&["-R", "-a", "5", "-b", "1000"], "/hello", 2).await;
    assert!(report.contains(ALL_CLOSED), "{report}");
}

/// The last line of the status: none is left for the tool to close.
const ALL_CLOSED: &str = "Exit status: No open connections left";

/// Every attacker must be gone at `deadline` and two seconds; what the tool says in the end.
async fn attack(arguments: &[&str], path: &str, deadline: u64) -> String {
    let origin = origin::http()
        .path("/large", Reply::text(vec![b'x'; 32 << 20]))
        .run()
        .await;
    let conf = format!(
        r#"
        [upstream.play]
        endpoints    = ["{}"]
        max_requests = 1000

        [[route]]
        auth     = "none"
        upstream = "play"
        "#,
        origin.endpoint()
    );
    let entrance = Entrance::open_with(&conf, DEADLINES).await;
    let url = format!("http://{}{path}", entrance.plain);
    let mut command = Command::new("slowhttptest");
    command
        .args(["-c", "500", "-r", "500", "-l", "20", "-p", "5", "-u", &url])
        .args(arguments);
    let over = Arc::new(AtomicBool::new(false));
    let witness = tokio::spawn(witness(entrance.plain, Arc::clone(&over)));
    let mut tool = std::pin::pin!(run(command, Duration::from_secs(60)));
    let since = Instant::now();
    let (mut most, mut complete, mut last) = (0, Duration::ZERO, Duration::ZERO);
    let ended = loop {
        match tokio::time::timeout(Duration::from_millis(50), &mut tool).await {
            Ok(ended) => break ended,
            Err(_) => {
                let count = connections(entrance.plain.port());
                if count > most {
                    (most, complete) = (count, since.elapsed());
                }
                // The witness, and what the tool asks with whether anybody is served.
                if count > 3 {
                    last = since.elapsed();
                }
            }
        }
    };
    over.store(true, Ordering::Relaxed);
    let (asked, slowest) = witness.await.unwrap();
    let report = plain(&ended.text());
    assert!(report.contains("service available:   YES"), "{report}");
    assert!(!report.contains("service available:   NO"), "{report}");
    let took = last.saturating_sub(complete);
    let bound = Duration::from_secs(deadline + 2);
    assert!(took < bound, "the last one was open for {took:?}\n{report}");
    assert!(
        asked > 20 && slowest < Duration::from_secs(5),
        "{asked}, {slowest:?}"
    );
    entrance.gateway.settled().await;
    report
}

/// Connections of this port as the kernel has them, those that we have closed and it has not included.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = format!(":{port:04X}");
    let open = |line: &&str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns[1].ends_with(&ours) && !["06", "0A"].contains(&columns[3])
    };
    table.lines().skip(1).filter(open).count()
}

/// How often it was answered, and the longest wait.
async fn witness(plain: std::net::SocketAddr, over: Arc<AtomicBool>) -> (u32, Duration) {
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let since = Instant::now();
        let mut client = client::connect(plain, Via::H1).await;
        let answer = soon("the witness", client.send(get("/hello"))).await;
        assert_eq!(answer.text(), "hello");
        slowest = slowest.max(since.elapsed());
        asked += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (asked, slowest)
}

/// The text without the colours of a terminal.
fn plain(text: &str) -> String {
    let mut pieces = text.split('\u{1b}');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| {
        let end = piece.find(|letter: char| letter.is_ascii_alphabetic());
        text + end.and_then(|end| piece.get(end + 1..)).unwrap_or_default()
    })
}

/// Short enough for a test; what they bound is what is bounded in production.
const DEADLINES: &str = r#"
    head_timeout  = "2s"
    body_timeout  = "2s"
    write_timeout = "2s"
    idle_timeout  = "2s"
"#;
