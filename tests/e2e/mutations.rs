//! The framing invariant of behaviour 2.2 for byte strings that nobody thought of: a corpus of good and bad messages,
//! mutilated at random, against a strict recording origin. What the origin may have seen is judged by a reader of our own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::client::{self, Via, get};
use crate::support::gateway::conf;
use crate::support::raw::{self, Recorder, find, statuses};

/// Clients beside each other, each with an origin of its own, so that it is known who asked for what.
const LANES: usize = 24;
const CASES: u32 = 4_000;
/// A slow machine tries fewer.
const ENOUGH: Duration = Duration::from_secs(20);

/// What only ever stands in a body.
const MARKER: &str = "/smuggled";

const PARTS: &[&str] = &[
    "GET /a HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "GET /b?c=d HTTP/1.1\r\nHost: test.example\r\nAccept: */*\r\nX-Long: 0123456789abcdef\r\n\r\n",
    "POST /c HTTP/1.0\r\nHost: test.example\r\nContent-Length: 5\r\n\r\nhello",
    "POST /d HTTP/1.1\r\nHost: test.example\r\nContent-Length: 48\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n..",
    "POST /e HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: test.example\r\n\r\n2e\r\nGET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n\r\n0\r\n\r\n",
    "POST /f HTTP/1.1\r\nHost: test.example\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n2e\r\nGET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n\r\n0\r\nX: y\r\n\r\n",
    "POST /g HTTP/1.1\r\nHost: test.example\r\nContent-Length: 48\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "POST /h HTTP/1.1\r\nHost: test.example\r\nContent-Length: 4\r\nContent-Length: 52\r\n\r\n....GET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n..",
    "POST /i HTTP/1.1\r\nHost: test.example\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    "GET /j HTTP/1.1\r\nHost: test.example\r\nConnection: upgrade, x-a\r\nUpgrade: websocket\r\nX-A: b\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "GET http://test.example/k HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: test.example\r\n\r\n",
];

const SHARDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "0",
    "+",
    "0x",
    "\u{b}",
    "\u{85}",
    "#",
    "\\",
    "%0d%0a",
    "\r\n ",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding:\u{b}chunked\r\n",
    "Connection: close\r\n",
    "Host: b\r\n",
    "X: y\r\n",
    "0\r\n\r\n",
    "\r\n\r\n",
    "chunked",
    "HTTP/1.0",
    "ffffffffffffffff\r\n",
];

/// A generator that gives the same numbers every time (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    fn of<'a>(&mut self, among: &[&'a str]) -> &'a [u8] {
        among[self.below(among.len())].as_bytes()
    }

    fn case(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        for _ in 0..1 + self.below(3) {
            wire.extend(self.of(PARTS));
        }
        for _ in 0..self.below(4) {
            self.mutilate(&mut wire);
        }
        if self.below(2) == 0 {
            wire.extend(b"GET /last HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n");
        }
        wire
    }

    fn mutilate(&mut self, wire: &mut Vec<u8>) {
        let at = self.below(wire.len());
        match self.below(6) {
            0 => {
                wire.splice(at..at, self.of(SHARDS).to_vec());
            }
            1 => {
                // Before a line, where the fields stand.
                let lines: Vec<usize> = (1..wire.len())
                    .filter(|&at| wire[at - 1] == b'\n')
                    .collect();
                if let Some(&line) = lines.get(self.below(lines.len())) {
                    wire.splice(line..line, self.of(SHARDS).to_vec());
                }
            }
            2 if wire.len() > 1 => {
                wire.remove(at);
            }
            3 => wire[at] = self.of(SHARDS)[0],
            4 => {
                let end = (at + 1 + self.below(30)).min(wire.len());
                let piece = wire[at..end].to_vec();
                wire.splice(at..at, piece);
            }
            _ if at > 0 => wire.truncate(at),
            _ => {}
        }
    }
}

/// The targets of the messages that these bytes begin with, as the RFC reads them; an end is put to it where it says no.
fn targets(mut wire: &[u8]) -> Vec<String> {
    let mut targets = Vec::new();
    loop {
        wire = wire.strip_prefix(b"\r\n").unwrap_or(wire);
        let Some(end) = find(wire, b"\r\n\r\n") else {
            return targets;
        };
        let head = String::from_utf8_lossy(&wire[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let line: Vec<&str> = lines.next().unwrap().split(' ').collect();
        let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
        let values = |name: &str| -> Vec<&str> {
            let named = |field: &&(&str, &str)| field.0.eq_ignore_ascii_case(name);
            fields
                .iter()
                .filter(named)
                .map(|field| field.1.trim_matches([' ', '\t']))
                .collect()
        };
        let body = &wire[end + 4..];
        let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
        let left = match (&lengths[..], &codings[..]) {
            ([], []) => Some(body),
            ([length], []) if length.bytes().all(|digit| digit.is_ascii_digit()) => length
                .parse()
                .ok()
                .and_then(|length: usize| body.get(length..)),
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => after_chunks(body),
            _ => None,
        };
        let ([_, target, _], Some(left)) = (&line[..], left) else {
            return targets;
        };
        targets.push((*target).to_owned());
        wire = left;
    }
}

fn after_chunks(mut body: &[u8]) -> Option<&[u8]> {
    loop {
        let line = &body[..find(body, b"\r\n")?];
        let size = line.split(|byte| b"; \t".contains(byte)).next()?;
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        body = &body[line.len() + 2..];
        if size == 0 {
            break;
        }
        body = body.get(size..)?.strip_prefix(b"\r\n")?;
    }
    while !body.starts_with(b"\r\n") {
        body = &body[find(body, b"\r\n")? + 2..];
    }
    body.get(2..)
}

#[test]
fn the_reader_that_judges_reads_the_corpus() {
    let read = |part: usize| targets(PARTS[part].as_bytes());
    assert_eq!(read(3), ["/d"]);
    assert_eq!(read(4), ["/e"]);
    assert_eq!(read(5), ["/f"]);
    assert_eq!(read(6), [""; 0]);
    assert_eq!(read(9), ["/j", "/smuggled"]);
}

struct Lane {
    plain: std::net::SocketAddr,
    recorder: Recorder,
    random: Random,
}

impl Lane {
    async fn case(&mut self) {
        let wire = self.random.case();
        let before = self.recorder.saw().len();
        let mut dialogue = raw::open(self.plain).await;
        let cut = self.random.below(wire.len());
        dialogue.send(&wire[..cut]).await.send(&wire[cut..]).await;
        // 5: after a refusal the connection ends; the others end by their deadline, or because they asked for it.
        let heard = dialogue.until_closed().await;
        let told = statuses(&heard);
        let shown = format!(
            "{:?}\n{}",
            String::from_utf8_lossy(&wire),
            String::from_utf8_lossy(&heard)
        );
        let refused = told
            .iter()
            .position(|status| [400, 408, 501, 505].contains(status));
        assert!(
            refused.is_none_or(|at| at + 1 == told.len()),
            "5: {told:?}\n{shown}"
        );

        let seen = self.recorder.saw().split_off(before);
        let whole: Vec<_> = seen.iter().filter(|request| request.whole).collect();
        let fine = told
            .iter()
            .filter(|status| (200..300).contains(*status))
            .count();
        assert_eq!(
            whole.len(),
            fine,
            "1: requests = 2xx: {told:?}\n{shown}\n{seen:?}"
        );
        let faults = self.recorder.faults();
        assert!(faults.is_empty(), "2, 3: {faults:?}\n{shown}");
        let marked = |lines: &[String]| lines.iter().filter(|line| line.contains(MARKER)).count();
        let arrived: Vec<String> = seen
            .iter()
            .map(|request| {
                request
                    .head_text()
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect();
        let honest = targets(&wire);
        assert!(
            marked(&arrived) <= marked(&honest),
            "4: {arrived:?}\n{shown}"
        );
        assert!(
            whole.len() <= honest.len(),
            "{arrived:?}, {honest:?}\n{shown}"
        );
        // 5: a connection that bore half a request bears no other.
        for (at, half) in seen
            .iter()
            .enumerate()
            .filter(|(_, request)| !request.whole)
        {
            let later = &seen[at + 1..];
            assert!(
                later
                    .iter()
                    .all(|request| request.connection != half.connection),
                "5: {shown}"
            );
        }
        if self.random.below(8) == 0 {
            // The deadlines are short, and so may be what a busy machine leaves of them.
            let mut heard = String::new();
            for _ in 0..20 {
                let mut client = client::connect(self.plain, Via::H1).await;
                let answer = client.try_send(get("/probe")).await;
                heard = answer.map_or_else(|why| why, |answer| answer.text());
                if heard == "ok" {
                    break;
                }
            }
            assert_eq!(heard, "ok", "an honest request after {shown}");
            let last = self.recorder.saw().pop().unwrap().head_text();
            assert!(
                last.starts_with("GET /probe HTTP/1.1\r\n"),
                "{last}\n{shown}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_any_bytes_the_origin_sees_what_was_answered_and_nothing_else() {
    let mut conf = conf("workers = 2\nmax_in_flight = 1000");
    let mut recorders = Vec::new();
    for lane in 0..LANES {
        let recorder = raw::recorder().await;
        conf = conf
            .and(&format!(
                "[listen.l{lane}]\nbind = \"127.0.0.1:0\"\nhead_timeout = \"100ms\"\nidle_timeout = \"100ms\"\nbody_timeout = \"100ms\""
            ))
            .and(&format!(
                "[[route]]\nname = \"r{lane}\"\nlisten = [\"l{lane}\"]\nauth = \"none\"\nupstream = \"u{lane}\""
            ))
            .upstream_at(&format!("u{lane}"), "http", recorder.address, "");
        recorders.push(recorder);
    }
    let gateway = conf.run().await;
    let tried = Arc::new(AtomicU32::new(0));
    let until = Instant::now() + ENOUGH;
    let mut lanes = JoinSet::new();
    for (number, recorder) in recorders.into_iter().enumerate() {
        let tried = Arc::clone(&tried);
        let mut lane = Lane {
            plain: gateway.at(&format!("l{number}")),
            recorder,
            random: Random(0x5eed_0000_0001 + u64::try_from(number).unwrap() * 0x9e37_79b9),
        };
        lanes.spawn(async move {
            while tried.fetch_add(1, Ordering::Relaxed) < CASES && Instant::now() < until {
                lane.case().await;
            }
        });
    }
    while let Some(ended) = lanes.join_next().await {
        ended.unwrap();
    }
    assert!(tried.load(Ordering::Relaxed) > 500, "too few: {tried:?}");
    gateway.settled().await;
}
