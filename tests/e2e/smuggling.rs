//! Framing (behaviour 2.2): whatever bytes a client sends, a strict origin sees whole, unambiguous requests, as many as
//! were answered, and nothing of a body as a request.

use crate::support::client::{Told, Via, get, post};
use crate::support::gateway::{Gateway, conf};
use crate::support::origin::{self, Reply};
use crate::support::raw::{self, Recorder, statuses};

/// What only ever stands in a body; a request of that path was smuggled.
const MARKER: &str = "/smuggled";

struct House {
    recorder: Recorder,
    gateway: Gateway,
}

async fn house() -> House {
    let recorder = raw::recorder().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_at("api", "http", recorder.address, "")
        .run()
        .await;
    House { recorder, gateway }
}

/// How a row may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    /// 400 (or 501, 505) and close; the origin has seen nothing.
    Refused,
    /// Passed on in order.
    Passed,
}

impl House {
    /// Sends, reads to the end, and holds all five points of the invariant against what came of it.
    async fn check(&self, bytes: &[u8], row: Row) {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let before = self.recorder.saw().len();
        let mut dialogue = raw::open(self.gateway.at("plain")).await;
        dialogue.send(bytes).await;
        // 5. after any refusal the connection ends; the others ask for it. This waits for it.
        let heard = dialogue.until_closed().await;
        let statuses = statuses(&heard);
        let heard = String::from_utf8_lossy(&heard).into_owned();

        let seen = self.recorder.saw().split_off(before);
        let passed = statuses
            .iter()
            .filter(|status| (200..300).contains(*status))
            .count();
        assert_eq!(
            seen.len(),
            passed,
            "1: requests = 2xx\n{shown}\n{heard}\n{seen:?}"
        );
        assert!(
            self.recorder.faults().is_empty(),
            "2, 3: {:?}\n{shown}",
            self.recorder.faults()
        );
        for request in &seen {
            let head = request.head_text();
            let line = head.lines().next().unwrap_or_default();
            assert!(!line.contains(MARKER), "4: {line}\n{shown}");
        }
        let refused = statuses
            .iter()
            .any(|status| [400, 501, 505, 431].contains(status));
        match row {
            // Bytes that are no HTTP at all may also just be hung up on.
            Row::Refused => assert!(
                passed == 0 && (refused || !heard.starts_with("HTTP/")),
                "{shown}\n{heard}"
            ),
            Row::Passed => assert!(passed >= 1 && !refused, "{shown}\n{heard}"),
        }
        // 5. the next honest request is answered as if nothing had been.
        let probe = self.gateway.ask(get("/probe")).await;
        assert_eq!(
            (probe.status.as_u16(), probe.text().as_str()),
            (200, "ok"),
            "{shown}"
        );
        assert!(
            self.recorder
                .saw()
                .last()
                .unwrap()
                .head_text()
                .starts_with("GET /probe HTTP/1.1\r\n")
        );
    }
}

fn post_with(fields: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nhost: test.example\r\n{fields}\r\n{body}").into_bytes()
}

fn smuggled() -> String {
    format!("GET {MARKER} HTTP/1.1\r\nhost: test.example\r\n\r\n")
}

#[tokio::test]
async fn ambiguous_lengths_are_refused() {
    let house = house().await;
    let inner = smuggled();
    for fields in [
        "content-length: +5\r\n",
        "content-length: 0x5\r\n",
        "content-length: -1\r\n",
        "content-length: 5 5\r\n",
        "content-length: 5, 6\r\n",
        "content-length: \r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 99999999999999999999999\r\n",
        "content-length: 5\r\ncontent-length: 0\r\n",
    ] {
        house
            .check(&post_with(fields, &format!("hello{inner}")), Row::Refused)
            .await;
    }
    // hyper would collapse these to one.
    for fields in [
        "content-length: 5\r\ncontent-length: 5\r\n",
        "content-length: 5, 5\r\n",
    ] {
        house.check(&post_with(fields, "hello"), Row::Refused).await;
    }
}

#[tokio::test]
async fn ambiguous_codings_are_refused() {
    let house = house().await;
    let body = format!("5\r\nhello\r\n0\r\n\r\n{}", smuggled());
    for coding in [
        ",chunked",
        "chunked,",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, chunked",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        "identity",
        "gzip",
        "chun\u{e4}ked",
        "chunked\u{b}",
    ] {
        house
            .check(
                &post_with(&format!("transfer-encoding: {coding}\r\n"), &body),
                Row::Refused,
            )
            .await;
    }
    for fields in [
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding : chunked\r\n",
        " transfer-encoding: chunked\r\n",
        "x: y\r\n transfer-encoding: chunked\r\n",
    ] {
        house.check(&post_with(fields, &body), Row::Refused).await;
    }
    let old = format!(
        "POST / HTTP/1.0\r\nhost: test.example\r\ntransfer-encoding: chunked\r\n\r\n{body}"
    );
    house.check(old.as_bytes(), Row::Refused).await;
}

#[tokio::test]
async fn a_length_beside_a_coding_is_never_forwarded() {
    let house = house().await;
    let inner = smuggled();
    for (fields, body) in [
        (
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            format!("0\r\n\r\n{inner}"),
        ),
        (
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            format!("0\r\n\r\n{inner}"),
        ),
        (
            "content-length: 300\r\ntransfer-encoding: chunked\r\n",
            format!("5\r\nhello\r\n0\r\n\r\n{inner}"),
        ),
        (
            "content-length: 0\r\ntransfer-encoding: Chunked\r\n",
            format!("5\r\nhello\r\n0\r\n\r\n{inner}"),
        ),
    ] {
        house.check(&post_with(fields, &body), Row::Refused).await;
    }
}

#[tokio::test]
async fn bad_chunks_never_end_a_request_in_order() {
    let house = house().await;
    let inner = smuggled();
    for body in [
        "zz\r\nhello\r\n0\r\n\r\n".to_owned(),
        "0_2e\r\nhello\r\n0\r\n\r\n".to_owned(),
        " 5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "-5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "0x5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "5\r\nhelloXX0\r\n\r\n".to_owned(),
        "5\r\nhello\n0\r\n\r\n".to_owned(),
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n".to_owned(),
        format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(17 * 1024)),
        format!("5\r\nhello\r\n\r\n{inner}"),
    ] {
        // The head is on its way to the origin when the body turns bad: it must not arrive whole.
        let before = house.recorder.saw().len();
        let mut dialogue = raw::open(house.gateway.at("plain")).await;
        dialogue
            .send(post_with("transfer-encoding: chunked\r\n", &body))
            .await;
        let heard = dialogue.until_closed().await;
        let told = statuses(&heard);
        assert_eq!(told, [400], "{body:.60}");
        for request in house.recorder.saw().split_off(before) {
            assert!(!request.head_text().contains(MARKER), "{body:.60}");
        }
        let probe = house.gateway.ask(get("/probe")).await;
        assert_eq!(probe.text(), "ok", "{body:.60}");
    }
}

/// A chunk that is announced and never sent holds the request no longer than a slow body does.
#[tokio::test]
async fn a_boundless_chunk_stalls_and_is_408() {
    let recorder = raw::recorder().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_at("api", "http", recorder.address, "")
        .listen("body_timeout = \"300ms\"")
        .run()
        .await;
    let mut dialogue = raw::open(gateway.at("plain")).await;
    let body = format!("ffffffffffffffff\r\nhello\r\n0\r\n\r\n{}", smuggled());
    dialogue
        .send(post_with("transfer-encoding: chunked\r\n", &body))
        .await;
    assert_eq!(statuses(&dialogue.until_closed().await), [408]);
    let seen = recorder.saw();
    assert!(
        seen.iter()
            .all(|request| !request.head_text().contains(MARKER))
    );
}

#[tokio::test]
async fn extensions_and_trailers_of_chunks_stay_behind() {
    let house = house().await;
    let body =
        format!("5;a=\"b\"\r\nhello\r\n0;c\r\nx-trailer: {MARKER}\r\ncontent-length: 3\r\n\r\n");
    house
        .check(
            &post_with("connection: close\r\ntransfer-encoding: chunked\r\n", &body),
            Row::Passed,
        )
        .await;
    let seen = house.recorder.saw();
    let request = &seen[0];
    assert_eq!(request.body, b"hello");
    assert!(!request.head_text().contains(MARKER));
}

#[tokio::test]
async fn malformed_heads_are_refused() {
    let house = house().await;
    let inner = smuggled();
    for head in [
        "GET / HTTP/1.1\r\nhost: test.example\r\nx: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\nx: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\nx : a\r\n\r\n",
        "GET / HTTP/1.1\r\n host: test.example\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\nx: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\n: empty\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\nno colon\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET / HTTP/1.1 \r\nhost: test.example\r\n\r\n",
        "GET /\tHTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GE\0T / HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET / HTTP/1.2\r\nhost: test.example\r\n\r\n",
        "GET / HTTP/3.0\r\nhost: test.example\r\n\r\n",
        "GET / HTTP/11\r\nhost: test.example\r\n\r\n",
        "GET / http/1.1\r\nhost: test.example\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        house
            .check(format!("{head}{inner}").as_bytes(), Row::Refused)
            .await;
    }
    // hyper would take these line ends.
    for head in [
        "GET / HTTP/1.1\nhost: test.example\nconnection: close\n\n",
        "GET / HTTP/1.1\r\nhost: test.example\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\nconnection: close\r\nx: y\n\r\n",
    ] {
        house.check(head.as_bytes(), Row::Refused).await;
    }
}

#[tokio::test]
async fn honest_pipelining_works() {
    let house = house().await;
    let one = "GET /a HTTP/1.1\r\nhost: test.example\r\n\r\n";
    let two = "POST /b HTTP/1.1\r\nhost: test.example\r\ncontent-length: 5\r\n\r\nhello";
    let last = "GET /c HTTP/1.1\r\nhost: test.example\r\nconnection: close\r\n\r\n";
    house
        .check(format!("{one}{two}{last}").as_bytes(), Row::Passed)
        .await;
    let lines: Vec<_> = house
        .recorder
        .saw()
        .iter()
        .map(|seen| seen.head_text().lines().next().unwrap().to_owned())
        .collect();
    assert_eq!(
        lines,
        [
            "GET /a HTTP/1.1",
            "POST /b HTTP/1.1",
            "GET /c HTTP/1.1",
            "GET /probe HTTP/1.1"
        ]
    );
    assert_eq!(house.recorder.saw()[1].body, b"hello");
}

#[tokio::test]
async fn bodies_of_get_and_head_are_framed_or_refused() {
    let house = house().await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        for (field, body) in [
            ("content-length: 5", "hello"),
            ("transfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        ] {
            let request = format!(
                "{method} /m HTTP/1.1\r\nhost: test.example\r\nconnection: close\r\n{field}\r\n\r\n{body}"
            );
            let before = house.recorder.saw().len();
            let mut dialogue = raw::open(house.gateway.at("plain")).await;
            dialogue.send(request).await;
            let heard = dialogue.until_closed().await;
            let heard = String::from_utf8_lossy(&heard).into_owned();
            let seen = house.recorder.saw().split_off(before);
            assert!(
                house.recorder.faults().is_empty(),
                "{:?}",
                house.recorder.faults()
            );
            if heard.starts_with("HTTP/1.1 200") {
                assert_eq!(
                    (seen.len(), seen[0].body.as_slice()),
                    (1, &b"hello"[..]),
                    "{method} {field}"
                );
            } else {
                assert!(
                    heard.starts_with("HTTP/1.1 400") && seen.is_empty(),
                    "{method} {field} {heard}"
                );
            }
        }
    }
    assert_eq!(house.gateway.ask(get("/probe")).await.text(), "ok");
}

/// 0.CL: an origin that answers before it has read the body must not be given another request on that connection.
#[tokio::test]
async fn an_early_answer_never_leaves_a_half_read_connection_behind() {
    let origin = origin::http()
        .early("/early", Reply::text("no"))
        .run()
        .await;
    let gateway = crate::support::gateway::open_to(&origin).run().await;
    let body = format!("{}{}", "x".repeat(500_000), smuggled());
    for _ in 0..5 {
        let mut client = gateway.connect(Via::H1).await;
        // The origin hangs up on the rest of the body, which may cost the answer, too.
        if let Ok(answer) = client.try_send(post("/early", body.clone())).await {
            assert!(answer.text() == "no" || answer.code() == "upstream_reset");
        }
        assert_eq!(gateway.ask(get("/next")).await.text(), "hello");
    }
    let targets: Vec<_> = origin
        .saw()
        .iter()
        .map(|seen| seen.target.clone())
        .collect();
    assert!(
        targets
            .iter()
            .all(|target| target == "/early" || target == "/next"),
        "{targets:?}"
    );
    gateway.settled().await;
}

/// R9: what a hostile origin says never becomes an answer of somebody else.
#[tokio::test]
async fn hostile_answers_are_502_or_cut_and_never_reused() {
    for (answer, closes) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            false,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", false),
        ("HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nx : b\r\n\r\n", false),
        ("hello, this is HTTP/0.9", true),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
            false,
        ),
        ("", true),
        ("HTTP/1.1 999999 OK\r\n\r\n", false),
    ] {
        let address = raw::hostile(answer, closes).await;
        let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\ntimeout = \"2s\"")
            .upstream_at("api", "http", address, "")
            .run()
            .await;
        let told = gateway.ask(post("/", "x")).await;
        assert_eq!(told.status, 502, "{answer:?}: {}", told.text());
        assert!(
            ["upstream_malformed", "upstream_reset"].contains(&told.code().as_str()),
            "{answer:?}: {}",
            told.code()
        );
        gateway.settled().await;
    }
    // Bytes after the answer are nobody's answer.
    let stuffed = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    let address = raw::hostile(stuffed, false).await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_at("api", "http", address, "")
        .run()
        .await;
    for _ in 0..10 {
        let told = gateway.ask(get("/")).await;
        assert!(told.text() == "ok" || told.status == 502, "{}", told.text());
    }
    // A body cut short is never a clean short body.
    for cut in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let address = raw::hostile(cut, true).await;
        let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
            .upstream_at("api", "http", address, "")
            .run()
            .await;
        for via in Via::ALL {
            let told = gateway.connect(via).await.try_send(get("/")).await;
            assert!(told.is_err(), "{via:?} {cut:?}: {told:?}");
        }
        gateway.settled().await;
    }
}

#[tokio::test]
async fn what_the_parser_lets_through_is_refused_by_name() {
    let house = house().await;
    for (fields, status, code) in [
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            400,
            "bad_framing",
        ),
        ("transfer-encoding: ,chunked\r\n", 400, "bad_framing"),
        (
            "transfer-encoding: gzip, chunked\r\n",
            501,
            "unsupported_transfer_coding",
        ),
    ] {
        let mut dialogue = raw::open(house.gateway.at("plain")).await;
        dialogue.send(post_with(fields, "0\r\n\r\n")).await;
        let heard = dialogue.until_closed().await;
        assert_eq!(statuses(&heard), [status], "{fields}");
        let heard = String::from_utf8_lossy(&heard).into_owned();
        assert!(heard.contains(&format!("\"code\":\"{code}\"")), "{heard}");
        assert!(
            heard.to_lowercase().contains("connection: close"),
            "{heard}"
        );
    }
    assert!(house.recorder.saw().is_empty());
}
