//! What nobody honest sends, in heads and frames: over HTTP/1.1 beside the table of `smuggling`, over HTTP/2 in frames made
//! by hand, and from hostile backends that speak HTTP/2. A strict recording origin is the judge.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::client::{Told, Via, get, post};
use crate::support::gateway::{Gateway, conf};
use crate::support::raw::{self, Recorder, frame, h2_block, statuses};

/// What only ever stands where no request may begin.
const MARKER: &str = "/smuggled";

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;

struct House {
    recorder: Recorder,
    gateway: Gateway,
}

async fn house() -> House {
    let recorder = raw::recorder().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\nmax_body = \"1MiB\"")
        .upstream_at("api", "http", recorder.address, "")
        .run()
        .await;
    House { recorder, gateway }
}

impl House {
    fn lines(&self) -> Vec<String> {
        let line = |seen: &raw::Bytes| seen.head_text().lines().next().unwrap().to_owned();
        self.recorder.saw().iter().map(line).collect()
    }

    /// Whatever came of it: nothing ambiguous has arrived, and the next request is answered as if nothing had been.
    async fn is_sound(&self, what: &str) {
        assert_eq!(self.recorder.faults(), Vec::<String>::new(), "{what}");
        for line in self.lines() {
            assert!(!line.contains(MARKER), "{what}: {line}");
        }
        let probe = self.gateway.ask(get("/probe")).await;
        assert_eq!(
            (probe.status.as_u16(), &*probe.text()),
            (200, "ok"),
            "{what}"
        );
    }
}

fn smuggled() -> String {
    format!("GET {MARKER} HTTP/1.1\r\nhost: test.example\r\n\r\n")
}

// === HTTP/1.1 ===

#[tokio::test]
async fn heads_that_two_readers_could_read_in_two_ways_are_refused() {
    let house = house().await;
    let many_lines = "\r\n".repeat(100);
    for head in [
        "GET / HTTP/1.1\r\nhost: test.example\r\nx\0y: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\nx\ty: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\nx\u{e9}: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\n(x): a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\nx\t: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\nx: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\nx: \u{7f}\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\ntransfer-encoding\0: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 5\0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\ncontent-length: \u{ff15}\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 18446744073709551616\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 5\r\ncontent-length:\r\n\r\n",
        "GET / HTTP/1.1\r\nhost:\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example, other.example\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example other.example\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: user@test.example\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example/x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example:80:80\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example:+80\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test.example:99999\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: [::1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: [::1]x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test%2eexample\r\n\r\n",
        "GET http://user:pw@test.example/ HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET http://other.example/ HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET http://test.example/ HTTP/1.1\r\nhost: other.example\r\n\r\n",
        "GET http:///a HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET http:/a HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET http://test.example\\@other.example/ HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET ftp://test.example/ HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET test.example:80 HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET a/b HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET ?a HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET * HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET /a\u{b}b HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET /a HTTP/1.1 HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: test.example\r\n\r\n",
        "GET / HTTP/1.1\0\r\nhost: test.example\r\n\r\n",
        "GET / HTTP/1.\u{661}\r\nhost: test.example\r\n\r\n",
        "\u{feff}GET / HTTP/1.1\r\nhost: test.example\r\n\r\n",
        &format!("{many_lines}GET / HTTP/1.1\r\nhost: test.example\r\n\r\n"),
    ] {
        let mut dialogue = raw::open(house.gateway.at("plain")).await;
        let heard = dialogue
            .send(format!("{head}{}", smuggled()))
            .await
            .until_closed()
            .await;
        let told = statuses(&heard);
        let heard = String::from_utf8_lossy(&heard).into_owned();
        assert!(
            matches!(told[..], [400 | 405 | 414 | 501 | 505]),
            "{head:?}: {heard}"
        );
        assert!(heard.contains("connection: close"), "{head:?}: {heard}");
    }
    house.is_sound("odd heads").await;
    assert_eq!(house.lines(), ["GET /probe HTTP/1.1"]);
}

/// `Connection` may name what it likes: framing and host are what they are, and identity is what we say.
#[tokio::test]
async fn no_field_can_be_named_away_to_change_the_framing() {
    let house = house().await;
    for named in [
        "content-length",
        "transfer-encoding",
        "host",
        "close, content-length, host",
    ] {
        for (framing, body) in [
            ("content-length: 5", "hello"),
            ("transfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        ] {
            let mut dialogue = raw::open(house.gateway.at("plain")).await;
            let head = format!(
                "POST /named HTTP/1.1\r\nhost: test.example\r\nconnection: {named}\r\n{framing}\r\n\r\n{body}"
            );
            let last = "GET /last HTTP/1.1\r\nhost: test.example\r\nconnection: close\r\n\r\n";
            let heard = dialogue
                .send(format!("{head}{last}"))
                .await
                .until_closed()
                .await;
            assert!(
                statuses(&heard).iter().all(|status| *status == 200),
                "{named}"
            );
            house.is_sound(named).await;
        }
    }
    for seen in house.recorder.saw() {
        let head = seen.head_text();
        assert_eq!(seen.fields("host"), ["test.example"], "{head}");
        assert!(!head.starts_with("POST") || seen.body == b"hello", "{head}");
    }
}

#[tokio::test]
async fn a_length_beyond_what_the_route_takes_is_413_and_beyond_all_bodies_400() {
    let house = house().await;
    for (length, status) in [
        ("18446744073709551615", 400),
        ("18446744073709551614", 400),
        ("9223372036854775808", 400),
        ("9223372036854775807", 413),
        ("1048577", 413),
    ] {
        let mut dialogue = raw::open(house.gateway.at("plain")).await;
        let head =
            format!("POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: {length}\r\n\r\n");
        let heard = dialogue
            .send(format!("{head}{}", smuggled()))
            .await
            .until_closed()
            .await;
        assert_eq!(statuses(&heard), [status], "{length}");
    }
    house.is_sound("lengths").await;
    assert_eq!(house.lines(), ["GET /probe HTTP/1.1"]);
}

#[tokio::test]
async fn what_follows_a_request_that_closes_is_not_read() {
    let house = house().await;
    let last = "GET /last HTTP/1.1\r\nhost: test.example\r\nconnection: close\r\n\r\n";
    let mut dialogue = raw::open(house.gateway.at("plain")).await;
    let heard = dialogue
        .send(format!("{last}{}", smuggled()))
        .await
        .until_closed()
        .await;
    assert_eq!(statuses(&heard), [200]);
    house.is_sound("a close").await;
    let old = "GET /old HTTP/1.0\r\nhost: test.example\r\n\r\n";
    let mut dialogue = raw::open(house.gateway.at("plain")).await;
    let heard = dialogue
        .send(format!("{old}{}", smuggled()))
        .await
        .until_closed()
        .await;
    assert_eq!(statuses(&heard), [200]);
    house.is_sound("HTTP/1.0").await;
}

/// CONNECT in plain, over both protocols: it is no method that anybody forwards, and what follows it goes nowhere.
#[tokio::test]
async fn connect_is_405_and_reaches_nobody() {
    let house = house().await;
    for target in [
        "test.example:443",
        "127.0.0.1:80",
        "/",
        "http://test.example/",
        "*",
    ] {
        let mut dialogue = raw::open(house.gateway.at("plain")).await;
        let head = format!("CONNECT {target} HTTP/1.1\r\nhost: test.example:443\r\n\r\n");
        let heard = dialogue
            .send(format!("{head}{}", smuggled()))
            .await
            .until_closed()
            .await;
        assert_eq!(statuses(&heard), [405], "{target}");
    }
    for fields in [
        &[(":method", "CONNECT"), (":authority", "test.example:443")][..],
        // With what a tunnel has none of.
        &[
            (":method", "CONNECT"),
            (":scheme", "http"),
            (":authority", "test.example"),
            (":path", "/"),
        ],
        &[(":method", "CONNECT"), (":authority", "")],
        // What an extended CONNECT needs, where no route takes WebSockets.
        &[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "test.example"),
            (":path", "/"),
        ],
    ] {
        let mut h2 = raw::h2(house.gateway.at("plain")).await;
        h2.send(frame(HEADERS, END_HEADERS, 1, &h2_block(fields)))
            .await;
        h2.send(frame(DATA, 0, 1, smuggled().as_bytes())).await;
        let status = h2.status(1).await;
        assert!(
            status.is_none() || status.as_deref() == Some("405"),
            "{fields:?}: {status:?}"
        );
    }
    // Well-formed, it has an answer.
    let mut h2 = raw::h2(house.gateway.at("plain")).await;
    let block = h2_block(&[(":method", "CONNECT"), (":authority", "test.example:443")]);
    h2.send(frame(HEADERS, END_HEADERS, 1, &block)).await;
    assert_eq!(h2.status(1).await.as_deref(), Some("405"));
    house.is_sound("CONNECT").await;
    assert_eq!(house.lines(), ["GET /probe HTTP/1.1"]);
}

// === HTTP/2 ===

const USUAL: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "test.example"),
    (":path", "/usual"),
];

fn with(fields: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    USUAL.iter().chain(fields).copied().collect()
}

fn instead(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    let replace = |(known, usual)| {
        if known == name {
            (known, value)
        } else {
            (known, usual)
        }
    };
    USUAL.into_iter().map(replace).collect()
}

#[tokio::test]
async fn malformed_header_blocks_reach_nobody() {
    let house = house().await;
    let without = |name| {
        USUAL
            .into_iter()
            .filter(|(known, _)| *known != name)
            .collect()
    };
    let mut blocks: Vec<Vec<_>> = vec![
        without(":method"),
        without(":scheme"),
        without(":authority"),
        without(":path"),
        with(&[(":method", "GET")]),
        with(&[(":path", "/other")]),
        with(&[(":authority", "other.example")]),
        with(&[(":scheme", "https")]),
        with(&[(":status", "200")]),
        with(&[(":protocol", "websocket")]),
        with(&[(":unknown", "x")]),
        with(&[(":", "x")]),
        with(&[("", "x")]),
        with(&[("X-Upper", "x")]),
        with(&[("x y", "x")]),
        with(&[("x:y", "x")]),
        with(&[("x\r\nhost", "other.example")]),
        with(&[("x", "a\r\nhost: other.example")]),
        with(&[("x", "a\nb")]),
        with(&[("x", "a\rb")]),
        with(&[("x", "a\0b")]),
        with(&[("x", "a\u{7f}b")]),
        with(&[("x", "y"), (":path", "/after")]),
        with(&[("connection", "close")]),
        with(&[("keep-alive", "timeout=5")]),
        with(&[("proxy-connection", "keep-alive")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "h2c")]),
        with(&[("te", "chunked")]),
        with(&[("host", "other.example")]),
        with(&[("host", "test.example"), ("host", "test.example")]),
        with(&[("content-length", "5"), ("content-length", "6")]),
        with(&[("content-length", "-5")]),
        with(&[("content-length", "+5")]),
        with(&[("content-length", "")]),
        with(&[("expect", "a-miracle")]),
    ];
    for (name, value) in [
        (":path", ""),
        (":path", "usual"),
        (":path", "*"),
        (":path", "http://test.example/usual"),
        (":path", "/usual HTTP/1.1\r\nhost: other.example\r\n\r\n"),
        (":path", "/us ual"),
        (":path", "/us\u{e9}"),
        (":path", "/us\0ual"),
        (":path", "?x"),
        (":method", ""),
        (":method", "post"),
        (":method", "GET / HTTP/1.1\r\n"),
        (":method", "G T"),
        (":scheme", ""),
        (":scheme", "ftp"),
        (":scheme", "http://test.example/smuggled?"),
        (":authority", ""),
        (":authority", "user:pw@test.example"),
        (":authority", "test.example:99999"),
        (":authority", "test.example\r\nx: y"),
        (":authority", "test.example other.example"),
    ] {
        blocks.push(instead(name, value));
    }
    for fields in blocks {
        let mut h2 = raw::h2(house.gateway.at("plain")).await;
        h2.send(frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &h2_block(&fields),
        ))
        .await;
        let status = h2.status(1).await;
        let refused = ["400", "405", "413", "417"];
        let is_refused = status
            .as_deref()
            .is_none_or(|status| refused.contains(&status));
        assert!(is_refused, "{fields:?}: {status:?}");
        assert!(house.recorder.saw().is_empty(), "{fields:?}");
    }
    house.is_sound("blocks").await;
}

/// H2.CL, and its kin: what an HTTP/1.1 backend reads is framed by what came, never by what was said.
#[tokio::test]
async fn a_length_that_lies_never_frames_what_leaves() {
    let house = house().await;
    let inner = smuggled();
    for (length, data) in [
        (Some("0"), &*inner),
        (Some("5"), &*format!("hello{inner}")),
        (Some("500"), "hello"),
        (Some("1"), ""),
        (None, &*format!("0\r\n\r\n{inner}")),
    ] {
        for trailers in [false, true] {
            let length = length.map(|length| ("content-length", length));
            let fields: Vec<_> = USUAL.into_iter().chain(length).collect();
            let mut h2 = raw::h2(house.gateway.at("plain")).await;
            let end = if trailers { 0 } else { END_STREAM };
            // Together: an answer to a head that says 0 may be quicker than the proof that it lied.
            let head = frame(HEADERS, END_HEADERS, 1, &h2_block(&fields));
            h2.send([head, frame(DATA, end, 1, data.as_bytes())].concat())
                .await;
            if trailers {
                let lies = [
                    ("content-length", "3"),
                    ("transfer-encoding", "chunked"),
                    ("x-auth-user", "root"),
                ];
                h2.send(frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    &h2_block(&lies),
                ))
                .await;
            }
            let status = h2.status(1).await;
            let is_honest = length.is_none();
            assert!(
                !is_honest || trailers || status.as_deref() == Some("200"),
                "{status:?}"
            );
            assert!(
                is_honest || status.as_deref() != Some("200"),
                "{length:?} {data:?}"
            );
            house.is_sound(&format!("{length:?}")).await;
        }
    }
    for seen in house.recorder.saw() {
        let head = seen.head_text();
        assert!(!head.contains("x-auth-user"), "{head}");
        let honest = format!("0\r\n\r\n{inner}");
        assert!(
            !seen.whole || head.starts_with("GET /probe") || seen.body == honest.as_bytes(),
            "{head}"
        );
    }
}

/// Frames in states that have no room for them, and flow control that cannot be: each ends its stream or its connection,
/// and nothing of it is a request.
#[tokio::test]
async fn frames_out_of_place_end_the_stream_or_the_connection() {
    let house = house().await;
    let open = frame(HEADERS, END_HEADERS, 1, &h2_block(&USUAL));
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, &h2_block(&USUAL));
    let max = [0x7f, 0xff, 0xff, 0xff];
    for (what, wire) in [
        (
            "DATA on an idle stream",
            frame(DATA, END_STREAM, 1, b"hello"),
        ),
        (
            "DATA on the connection",
            frame(DATA, END_STREAM, 0, b"hello"),
        ),
        (
            "HEADERS on the connection",
            frame(HEADERS, 5, 0, &h2_block(&USUAL)),
        ),
        (
            "HEADERS on an even stream",
            frame(HEADERS, 5, 2, &h2_block(&USUAL)),
        ),
        (
            "padding longer than the frame",
            [&open[..], &frame(DATA, 8, 1, &[200, 1])].concat(),
        ),
        (
            "RST_STREAM on an idle stream",
            frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        ),
        (
            "PUSH_PROMISE by a client",
            [&open[..], &frame(5, 4, 1, &[0, 0, 0, 2, 0x82])].concat(),
        ),
        ("a CONTINUATION of nothing", frame(9, 4, 1, &[0x82])),
        (
            "a frame within a block",
            [
                &frame(HEADERS, 0, 1, &[0x82])[..],
                &frame(6, 0, 0, b"anyone??"),
            ]
            .concat(),
        ),
        ("a PING of seven bytes", frame(6, 0, 0, b"anyone?")),
        ("SETTINGS of five bytes", frame(4, 0, 0, &[0, 4, 0, 0, 0])),
        (
            "SETTINGS with an odd window",
            frame(4, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "SETTINGS with an odd frame size",
            frame(4, 0, 0, &[0, 5, 0, 0, 0, 1]),
        ),
        ("a window of nothing more", frame(8, 0, 0, &[0, 0, 0, 0])),
        (
            "a connection window beyond its bound",
            [frame(8, 0, 0, &max), frame(8, 0, 0, &max)].concat(),
        ),
        (
            "a frame larger than agreed",
            frame(DATA, 0, 1, &vec![0; (16 << 10) + 1]),
        ),
        (
            "a priority of itself",
            [
                &frame(2, 0, 1, &[0, 0, 0, 1, 7])[..],
                &frame(DATA, 1, 1, b"x"),
            ]
            .concat(),
        ),
        (
            "a reference that the table has not",
            frame(HEADERS, 5, 1, &[0x82, 0xff, 0xff, 0x03]),
        ),
        (
            "a table larger than agreed",
            frame(HEADERS, 5, 1, &[0x3f, 0xe1, 0xff, 0x03, 0x82]),
        ),
        (
            "an integer without an end",
            frame(HEADERS, 5, 1, &[0xff; 64]),
        ),
    ] {
        let mut h2 = raw::h2(house.gateway.at("plain")).await;
        h2.send(wire).await;
        // Whoever is not thrown out by then asks for it.
        h2.send(frame(DATA, END_STREAM, 3, b"out of place")).await;
        let (code, _) = h2.until_closed().await;
        assert!(code.is_some_and(|code| code != 0), "{what}: {code:?}");
        let whole = house
            .recorder
            .saw()
            .iter()
            .filter(|seen| seen.whole)
            .count();
        assert_eq!(whole, 0, "{what}");
    }
    // A stream that has ended takes nothing more, and the connection may live on.
    for (what, extra) in [
        ("DATA", frame(DATA, END_STREAM, 1, smuggled().as_bytes())),
        (
            "HEADERS",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &h2_block(&instead(":path", MARKER)),
            ),
        ),
    ] {
        let mut h2 = raw::h2(house.gateway.at("plain")).await;
        h2.send([whole.clone(), extra].concat()).await;
        let _ = h2.status(1).await;
        drop(h2);
        house.is_sound(what).await;
    }
}

// === hostile backends ===

/// A backend that speaks HTTP/2 and answers each request with these frames, whatever was asked.
async fn hostile_h2(answer: fn(u32) -> Vec<u8>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut preface = [0; 24];
                let _ = stream.read_exact(&mut preface).await;
                let settings = [frame(4, 0, 0, &[]), frame(4, 1, 0, &[])].concat();
                let _ = stream.write_all(&settings).await;
                let mut header = [0; 9];
                while stream.read_exact(&mut header).await.is_ok() {
                    let [a, b, c, kind, _, id @ ..] = header;
                    let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                    let mut payload = vec![0; len];
                    if stream.read_exact(&mut payload).await.is_err() {
                        return;
                    }
                    if kind == HEADERS {
                        let id = u32::from_be_bytes(id);
                        let _ = stream.write_all(&answer(id)).await;
                    }
                }
            });
        }
    });
    address
}

fn head(id: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, id, &h2_block(fields))
}

fn last(id: u32, data: &[u8]) -> Vec<u8> {
    frame(DATA, END_STREAM, id, data)
}

type Answer = (&'static str, fn(u32) -> Vec<u8>);

/// R9 over HTTP/2: 502, or truncated and told so; never a clean answer that the backend did not give.
#[tokio::test]
async fn hostile_answers_over_http_2_are_502_or_cut() {
    let answers: [Answer; 16] = [
        ("no status", |id| {
            [head(id, &[("x", "y")]), last(id, b"x")].concat()
        }),
        ("two statuses", |id| {
            [
                head(id, &[(":status", "200"), (":status", "204")]),
                last(id, b"x"),
            ]
            .concat()
        }),
        ("a status that is none", |id| {
            [head(id, &[(":status", "abc")]), last(id, b"x")].concat()
        }),
        ("a request", |id| {
            [
                head(id, &[(":method", "GET"), (":path", "/")]),
                last(id, b"x"),
            ]
            .concat()
        }),
        ("a switch", |id| {
            [head(id, &[(":status", "101")]), last(id, b"x")].concat()
        }),
        ("an interim answer at the end", |id| {
            frame(HEADERS, 5, id, &h2_block(&[(":status", "103")]))
        }),
        ("an upper-case name", |id| {
            [
                head(id, &[(":status", "200"), ("X-Y", "z")]),
                last(id, b"x"),
            ]
            .concat()
        }),
        ("a connection field", |id| {
            [
                head(id, &[(":status", "200"), ("connection", "close")]),
                last(id, b"x"),
            ]
            .concat()
        }),
        ("a transfer coding", |id| {
            [
                head(id, &[(":status", "200"), ("transfer-encoding", "chunked")]),
                last(id, b"x"),
            ]
            .concat()
        }),
        ("a split value", |id| {
            [
                head(id, &[(":status", "200"), ("x", "a\r\nset-cookie: evil=1")]),
                last(id, b"x"),
            ]
            .concat()
        }),
        ("a split name", |id| {
            [
                head(id, &[(":status", "200"), ("x\r\nset-cookie", "evil=1")]),
                last(id, b"x"),
            ]
            .concat()
        }),
        ("two lengths", |id| {
            [
                head(
                    id,
                    &[
                        (":status", "200"),
                        ("content-length", "1"),
                        ("content-length", "2"),
                    ],
                ),
                last(id, b"x"),
            ]
            .concat()
        }),
        ("less than its length", |id| {
            [
                head(id, &[(":status", "200"), ("content-length", "10")]),
                last(id, b"x"),
            ]
            .concat()
        }),
        ("more than its length", |id| {
            [
                head(id, &[(":status", "200"), ("content-length", "1")]),
                last(id, b"xyz"),
            ]
            .concat()
        }),
        ("a body before its head", |id| last(id, b"x")),
        ("a promise", |id| {
            [
                frame(5, 4, id, &[0, 0, 0, 2, 0x82]),
                head(id, &[(":status", "200")]),
                last(id, b"x"),
            ]
            .concat()
        }),
    ];
    for (what, answer) in answers {
        let address = hostile_h2(answer).await;
        let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\ntimeout = \"2s\"")
            .upstream_at("api", "h2c", address, "")
            .run()
            .await;
        for via in Via::ALL {
            match gateway.connect(via).await.try_send(post("/", "x")).await {
                Err(_) => {}
                Ok(told) => {
                    assert!(!told.headers.contains_key("set-cookie"), "{what}");
                    assert_eq!(told.status, 502, "{what} {via:?}: {told:?}");
                    assert!(
                        told.code().starts_with("upstream_"),
                        "{what}: {}",
                        told.code()
                    );
                }
            }
        }
        gateway.settled().await;
    }
}

/// Frames without end in place of an answer, or within one: over by the deadline of the route, and nobody else's affair.
#[tokio::test]
async fn floods_of_a_backend_end_with_its_request() {
    const MANY: usize = 20_000;
    let floods: [Answer; 6] = [
        ("interim answers", |id| {
            head(id, &[(":status", "103")]).repeat(MANY)
        }),
        ("PINGs", |_| frame(6, 0, 0, b"anyone??").repeat(MANY)),
        ("SETTINGS", |_| frame(4, 0, 0, &[]).repeat(MANY)),
        ("empty DATA", |id| {
            [
                head(id, &[(":status", "200")]),
                frame(DATA, 0, id, b"").repeat(MANY),
            ]
            .concat()
        }),
        ("a block without an end", |id| {
            let rest = frame(9, 0, id, &[]).repeat(MANY);
            [frame(HEADERS, 0, id, &[0x88]), rest].concat()
        }),
        ("trailers without an end", |id| {
            let rest = frame(9, 0, id, &[0; 1000]).repeat(1000);
            [
                head(id, &[(":status", "200")]),
                frame(HEADERS, 1, id, &[]),
                rest,
            ]
            .concat()
        }),
    ];
    let neighbour = raw::recorder().await;
    for (what, flood) in floods {
        let address = hostile_h2(flood).await;
        let route = "timeout = \"500ms\"\n[[route]]\npath = \"/next\"\nauth = \"none\"\nupstream = \"next\"";
        let gateway = conf(&format!(
            "[[route]]\nauth = \"none\"\nupstream = \"api\"\n{route}"
        ))
        .upstream_at("api", "h2c", address, "body_timeout = \"500ms\"")
        .upstream_at("next", "http", neighbour.address, "")
        .run()
        .await;
        for via in [Via::H1, Via::H2c] {
            let mut client = gateway.connect(via).await;
            let asked = client.try_send(post("/", "x"));
            let (told, next) = tokio::join!(asked, gateway.ask(get("/next")));
            assert_eq!(next.text(), "ok", "{what}");
            if let Ok(told) = told {
                assert!(
                    matches!(told.status.as_u16(), 502 | 504),
                    "{what}: {told:?}"
                );
            }
        }
        gateway.settled().await;
    }
}

/// Response splitting over HTTP/1.1: what would be a second field, or a second answer, for somebody behind us.
#[tokio::test]
async fn answers_cannot_be_split() {
    for head in [
        "HTTP/1.1 200 OK\r\nx: a\rset-cookie: evil=1\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: a\r\n set-cookie: evil=1\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx\r: a\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nset-cookie : evil=1\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: a\0\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok",
        "HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 -200 OK\r\ncontent-length: 2\r\n\r\nok",
        "ICY 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let gateway = behind(head).await;
        for via in [Via::H1, Via::H2c] {
            let told = gateway.connect(via).await.send(post("/", "x")).await;
            assert_eq!(
                (told.status.as_u16(), told.code()),
                (502, "upstream_malformed".to_owned()),
                "{head:?}"
            );
        }
        gateway.settled().await;
    }
    // The reason phrase is not passed on, whatever is in it.
    let gateway = behind("HTTP/1.1 200 OK <script>\u{e9}\r\ncontent-length: 2\r\n\r\nok").await;
    let mut dialogue = raw::open(gateway.at("plain")).await;
    let answer = dialogue
        .send("GET / HTTP/1.1\r\nhost: test.example\r\n\r\n")
        .await
        .answer()
        .await;
    assert!(!answer.contains("script"), "{answer}");
}

async fn behind(answer: &str) -> Gateway {
    let address = raw::hostile(answer, false).await;
    conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\ntimeout = \"2s\"")
        .upstream_at("api", "http", address, "")
        .run()
        .await
}
