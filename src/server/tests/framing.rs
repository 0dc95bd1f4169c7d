//! HTTP/1 framing, strictly (behaviour.md 2.2): what is refused, in which words, and that nothing hidden in a refused
//! message is ever taken for a request.

use super::*;

const HOST: &str = "Host: a.test\r\n";

/// A request that must never be seen: it stands where only a body can be.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Sends `wire` on a connection of its own; all that was answered before the end.
async fn answers(running: &Running, wire: &[u8]) -> String {
    let (mut reader, mut writer) = running.connect().await.into_split();
    // The other side may close before it has taken everything.
    let (seen, _) = tokio::join!(read_all(&mut reader), async {
        let _ = writer.write_all(wire).await;
    });
    String::from_utf8_lossy(&seen).into_owned()
}

async fn refused(running: &Running, wire: &str, status: u16, code: &str) {
    let wire = format!("{wire}{SMUGGLED}");
    let seen = answers(running, wire.as_bytes()).await;
    let start = format!("HTTP/1.1 {status} ");
    assert!(seen.starts_with(&start), "{wire:?}: {seen}");
    assert!(seen.contains("connection: close\r\n"), "{wire:?}: {seen}");
    assert!(seen.contains("problem+json"), "{wire:?}: {seen}");
    let code = format!("\"code\":\"{code}\"");
    assert!(seen.contains(&code), "{wire:?}: {seen}");
    assert_eq!(seen.matches("HTTP/1.1 ").count(), 1, "{wire:?}: {seen}");
    assert_eq!(*running.handler.seen.lock(), [""; 0], "{wire:?}");
}

#[tokio::test]
async fn ambiguous_and_malformed_heads_are_refused_and_the_connection_ends() {
    let running = run(limits());
    for (line, fields, status, code) in [
        // framing
        (
            "POST / HTTP/1.1",
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            400,
            "bad_framing",
        ),
        (
            "POST / HTTP/1.1",
            "Content-Length: 4\r\nContent-Length: 4\r\n",
            400,
            "bad_framing",
        ),
        (
            "POST / HTTP/1.1",
            "Content-Length: 4\r\nContent-Length: 5\r\n",
            400,
            "bad_framing",
        ),
        (
            "POST / HTTP/1.1",
            "Content-Length: 4, 4\r\n",
            400,
            "bad_framing",
        ),
        (
            "POST / HTTP/1.1",
            "Content-Length: +4\r\n",
            400,
            "bad_framing",
        ),
        (
            "POST / HTTP/1.1",
            "Content-Length: 0x4\r\n",
            400,
            "bad_framing",
        ),
        ("POST / HTTP/1.1", "Content-Length:\r\n", 400, "bad_framing"),
        (
            "POST / HTTP/1.1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            400,
            "bad_framing",
        ),
        (
            "POST / HTTP/1.1",
            "Transfer-Encoding: ,chunked\r\n",
            400,
            "bad_framing",
        ),
        (
            "POST / HTTP/1.1",
            "Transfer-Encoding: chunked, identity\r\n",
            400,
            "bad_framing",
        ),
        (
            "POST / HTTP/1.1",
            "Transfer-Encoding: identity\r\n",
            501,
            "unsupported_transfer_coding",
        ),
        (
            "POST / HTTP/1.1",
            "Transfer-Encoding: gzip, chunked\r\n",
            501,
            "unsupported_transfer_coding",
        ),
        (
            "POST / HTTP/1.0",
            "Transfer-Encoding: chunked\r\n",
            400,
            "bad_framing",
        ),
        // lines
        ("POST / HTTP/1.1", "X: a\nY: b\r\n", 400, "bad_framing"),
        ("POST / HTTP/1.1", "X: a\rY: b\r\n", 400, "bad_field"),
        ("POST / HTTP/1.1", "X: a\r\n b\r\n", 400, "bad_framing"),
        ("POST / HTTP/1.1", " X: a\r\n", 400, "bad_framing"),
        ("POST / HTTP/1.1", "X : a\r\n", 400, "bad_field"),
        ("POST / HTTP/1.1", "X: a\0\r\n", 400, "bad_field"),
        (
            "POST / HTTP/1.1",
            "Content-Length : 4\r\n",
            400,
            "bad_field",
        ),
        (
            "POST / HTTP/1.1",
            "\u{b}Content-Length: 4\r\n",
            400,
            "bad_field",
        ),
        (" POST / HTTP/1.1", "", 400, "bad_framing"),
        // hosts
        ("POST / HTTP/1.1", "Host: a.test\r\n", 400, "bad_host"),
        ("POST http://u@a.test/ HTTP/1.1", "", 400, "bad_host"),
        // targets and methods
        ("POST ! HTTP/1.1", "", 400, "bad_target"),
        ("POST * HTTP/1.1", "", 400, "bad_target"),
        ("POST /a#b HTTP/1.1", "", 400, "bad_target"),
        ("POST /a\\b HTTP/1.1", "", 400, "bad_target"),
        ("POST /\u{e9} HTTP/1.1", "", 400, "bad_target"),
        ("POST /\u{1} HTTP/1.1", "", 400, "bad_target"),
        ("POST ftp://a.test/ HTTP/1.1", "", 400, "bad_target"),
        ("CONNECT a.test:80 HTTP/1.1", "", 405, "method_refused"),
        ("- / HTTP/1.1", "", 400, "bad_framing"),
        // versions
        ("GET /", "", 400, "bad_framing"),
        ("POST / HTTP/1.2", "", 505, "bad_version"),
        ("POST / HTTP/2.0", "", 505, "bad_version"),
        ("POST / HTTP/0.9", "", 505, "bad_version"),
    ] {
        let head = format!("{line}\r\n{HOST}{fields}\r\n");
        refused(&running, &head, status, code).await;
    }
    refused(&running, "GET / HTTP/1.1\r\n\r\n", 400, "bad_host").await;
    running.saw(Event::BadHead).await;
}

#[tokio::test]
async fn heads_beyond_their_bounds_are_refused_in_words() {
    let running = run(ListenerLimits {
        max_fields: 10,
        max_target: 100,
        ..limits()
    });
    let long = "x".repeat(101);
    let line = format!("GET /{long} HTTP/1.1\r\n{HOST}\r\n");
    refused(&running, &line, 414, "target_too_long").await;
    let fields = format!("GET / HTTP/1.1\r\n{HOST}{}\r\n", "X: y\r\n".repeat(10));
    refused(&running, &fields, 431, "too_many_fields").await;
}

#[tokio::test]
async fn a_refusal_stands_behind_the_answers_to_earlier_requests() {
    for cut in [1, 7, 1000] {
        let running = run(limits());
        let mut stream = running.connect().await;
        stream.set_nodelay(true).unwrap();
        let wire = format!(
            "GET / HTTP/1.1\r\n{HOST}\r\nPOST /body HTTP/1.1\r\n{HOST}Content-Length: 4\r\n\r\nGET GET / HTTP/1.1\r\n{HOST}Host: b\r\n\r\n{SMUGGLED}"
        );
        for piece in wire.as_bytes().chunks(cut) {
            // Once the refusal is out, nobody reads any more.
            let _ = stream.write_all(piece).await;
        }
        let seen = String::from_utf8(read_all(&mut stream).await).unwrap();
        let statuses: Vec<_> = seen
            .split("HTTP/1.1 ")
            .skip(1)
            .map(|rest| &rest[..3])
            .collect();
        assert_eq!(statuses, ["200", "200", "400"], "{seen}");
        assert_eq!(*running.handler.seen.lock(), ["GET /", "POST /body"]);
    }
}

#[tokio::test]
async fn a_pipelined_half_head_is_refused_when_its_time_is_up() {
    let running = run(ListenerLimits {
        head_timeout: SHORT,
        ..limits()
    });
    let mut stream = running.connect().await;
    let wire = format!("GET /gate HTTP/1.1\r\n{HOST}\r\nGET /late HTTP/1.1\r\n");
    send(&mut stream, wire.as_bytes()).await;
    happened(&running.handler.arrived, 1).await;
    // It is not owed as long as the first one has not been answered.
    tokio::time::sleep(SHORT * 2).await;
    running.handler.gate.notify_one();
    let first = answer(&mut stream).await;
    assert!(first.ends_with("late"), "{first}");
    let rest = String::from_utf8(read_all(&mut stream).await).unwrap();
    assert!(rest.starts_with("HTTP/1.1 408"), "{rest}");
    running.saw(Event::HeadTimeout).await;
    assert_eq!(*running.handler.seen.lock(), ["GET /gate"]);
}

#[tokio::test]
async fn a_broken_chunk_is_answered_and_the_connection_ends() {
    let extension = format!("4;{}\r\nabcd\r\n0\r\n\r\n", "x".repeat(17 << 10));
    for body in [
        "z\r\nabcd\r\n0\r\n\r\n",
        "0_2e\r\nabcd\r\n0\r\n\r\n",
        "0x4\r\nabcd\r\n0\r\n\r\n",
        " 4\r\nabcd\r\n0\r\n\r\n",
        "4 \r\nabcd\r\n0\r\n\r\n",
        "4\nabcd\r\n0\r\n\r\n",
        "4\r\nabcd\n0\r\n\r\n",
        "4\r\nabcdefgh\r\n0\r\n\r\n",
        "-4\r\nabcd\r\n0\r\n\r\n",
        "10000000000000000\r\nabcd\r\n0\r\n\r\n",
        "4\r\nabcd\r\n0\r\n X: y\r\n\r\n",
        "4\r\nabcd\r\n0\r\nX: y\n\r\n",
        &extension,
    ] {
        let running = run(limits());
        let wire = format!(
            "POST /body HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}"
        );
        let seen = answers(&running, wire.as_bytes()).await;
        assert!(seen.starts_with("HTTP/1.1 400"), "{body:?}: {seen}");
        assert!(seen.contains("connection: close"), "{body:?}: {seen}");
        assert!(seen.contains("bad_body"), "{body:?}: {seen}");
        assert_eq!(seen.matches("HTTP/1.1 ").count(), 1, "{body:?}: {seen}");
        assert_eq!(*running.handler.seen.lock(), ["POST /body"], "{body:?}");
    }
}

#[tokio::test]
async fn honest_bodies_arrive_whole_however_they_are_cut() {
    let running = run(limits());
    let wire = format!(
        "POST /body HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\nPOST /body HTTP/1.1\r\n{HOST}Content-Length: 6\r\n\r\nGET /x"
    );
    for cut in [1, 2, 3, 5, 9, 50, 1000] {
        let mut stream = running.connect().await;
        stream.set_nodelay(true).unwrap();
        for piece in wire.as_bytes().chunks(cut) {
            send(&mut stream, piece).await;
        }
        assert!(answer(&mut stream).await.ends_with("\r\n\r\nabcde"));
        assert!(answer(&mut stream).await.ends_with("\r\n\r\nGET /x"));
    }
}

#[tokio::test]
async fn a_head_larger_than_any_read_arrives_whole() {
    let running = run(limits());
    let mut stream = running.connect().await;
    let cookie = "c".repeat(30 << 10);
    let wire =
        format!("POST /body HTTP/1.1\r\n{HOST}Cookie: {cookie}\r\nContent-Length: 3\r\n\r\nabc");
    for _ in 0..2 {
        send(&mut stream, wire.as_bytes()).await;
        assert!(answer(&mut stream).await.ends_with("abc"));
    }
}

#[tokio::test]
async fn what_follows_a_declined_upgrade_is_not_taken_for_a_request() {
    let running = run(limits());
    let ask = format!("GET / HTTP/1.1\r\n{HOST}Connection: upgrade\r\nUpgrade: echo\r\n\r\n");
    // Without early bytes the connection goes on.
    let mut stream = running.connect().await;
    for _ in 0..2 {
        send(&mut stream, ask.as_bytes()).await;
        let seen = answer(&mut stream).await;
        assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
        assert!(!seen.contains("connection: close"), "{seen}");
    }
    assert!(get(&mut stream, "/").await.starts_with("HTTP/1.1 200"));

    running.handler.seen.lock().clear();
    let seen = answers(&running, format!("{ask}{SMUGGLED}").as_bytes()).await;
    assert!(seen.contains("connection: close"), "{seen}");
    assert_eq!(seen.matches("HTTP/1.1 200").count(), 1, "{seen}");
    assert_eq!(*running.handler.seen.lock(), ["GET /"]);
}

#[tokio::test]
async fn bytes_sent_before_the_switch_belong_to_the_new_protocol() {
    let running = run(limits());
    let mut stream = running.connect().await;
    let wire = format!(
        "GET /upgrade HTTP/1.1\r\n{HOST}Connection: upgrade\r\nUpgrade: echo\r\n\r\n{SMUGGLED}"
    );
    send(&mut stream, wire.as_bytes()).await;
    let seen = answer(&mut stream).await;
    assert!(seen.starts_with("HTTP/1.1 101"), "{seen}");
    let mut echo = vec![0; SMUGGLED.len()];
    let read = timeout(PATIENCE, stream.read_exact(&mut echo)).await;
    read.unwrap().unwrap();
    assert_eq!(echo, SMUGGLED.as_bytes());
    assert_eq!(*running.handler.seen.lock(), ["GET /upgrade"]);
}

/// The invariant of behaviour.md 2.2 for byte strings that nobody thought of: whole messages, mutilated at random.
#[tokio::test]
async fn for_any_bytes_each_request_is_answered_once_and_none_comes_out_of_a_body() {
    let parts = [
        "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "POST /body HTTP/1.1\r\nHost: a.test\r\nContent-Length: 60\r\n\r\n",
        "POST /body HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3c\r\n",
        "POST / HTTP/1.0\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        "\r\n",
        "\n",
        "X: y\r\n",
    ];
    let body = format!("{SMUGGLED:x<60}");
    let mut random = Random(0x5eed_1234_5678_9abc);
    for _ in 0..400 {
        let running = run(ListenerLimits {
            head_timeout: SHORT,
            idle_timeout: SHORT,
            ..limits()
        });
        let mut wire = Vec::new();
        for _ in 0..1 + random.below(4) {
            let part = parts[random.below(parts.len())];
            wire.extend(part.as_bytes());
            // Always a whole body behind a head that announces one: what is in it must stay in it.
            if part.contains("/body") {
                wire.extend(body.as_bytes());
                if part.contains("chunked") {
                    wire.extend(b"\r\n0\r\n\r\n");
                }
            }
        }
        let hidden = wire.windows(9).filter(|part| part == b"/smuggled").count();
        for _ in 0..random.below(3) {
            let at = random.below(wire.len());
            wire[at] = [b'\0', b'\r', b'\n', b' ', b':', b'1', b'z'][random.below(7)];
        }
        let shown = String::from_utf8_lossy(&wire).into_owned();
        let (mut reader, mut writer) = running.connect().await.into_split();
        let (seen, _) = tokio::join!(read_all(&mut reader), async {
            let _ = writer.write_all(&wire).await;
            let _ = writer.shutdown().await;
        });
        let seen = String::from_utf8_lossy(&seen).into_owned();
        let handled = running.handler.seen.lock().clone();
        let fine = seen.matches("HTTP/1.1 200").count() + seen.matches("HTTP/1.0 200").count();
        let failed = seen.matches("\"code\":\"bad_body\"").count();
        assert!(
            handled.len() == fine + failed || handled.len() == fine + failed + 1,
            "{shown:?}: {handled:?}, {seen}"
        );
        // A mutilated length can end a body early: then its bytes are a message, and everybody agrees on that.
        let smuggled = handled.iter().filter(|line| line.contains("/smuggled"));
        let smuggled = smuggled.count();
        assert!(hidden >= smuggled);
        if wire_is_untouched(&wire, hidden) {
            assert_eq!(smuggled, 0, "{shown:?}: {handled:?}");
        }
    }
}

/// Whether every body still has the length that its head says.
fn wire_is_untouched(wire: &[u8], bodies: usize) -> bool {
    let text = String::from_utf8_lossy(wire);
    let count = |what: &str| text.matches(what).count();
    count("Content-Length: 60\r\n\r\nGET /smuggled") + count("chunked\r\n\r\n3c\r\nGET /smuggled")
        == bodies
        && count("POST /body HTTP/1.1\r\nHost: a.test\r\n") == bodies
}

/// A generator that gives the same numbers every time (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).unwrap()).unwrap()
    }
}
