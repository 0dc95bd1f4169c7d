//! How long a caller is willing to wait: `grpc-timeout`, `connect-timeout-ms`. It bounds the whole call, the upstream is
//! told what is left of it, and its end is told in the caller's dialect, before the head of an answer and after it.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::matrix;
use crate::support::client::{Answer, Call, Told, Via, collect, post};
use crate::support::gateway::{Gateway, conf, open_to};
use crate::support::origin::{self, Origin, Reply, gate};
use crate::support::{body, soon, streams};

const FRAME: &[u8] = b"\0\0\0\0\x02hi";

fn grpc(timeout: &str) -> Call {
    post("/s.S/M", FRAME)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
}

fn spoken(content_type: &str, timeout: &str) -> Call {
    let field = if content_type.contains("connect") {
        "connect-timeout-ms"
    } else {
        "grpc-timeout"
    };
    let message = if content_type.contains("text") {
        STANDARD.encode(FRAME).into()
    } else {
        Bytes::from_static(FRAME)
    };
    let call = post("/s.S/M", message).header("content-type", content_type);
    call.header(field, timeout)
}

/// Nanoseconds of what the origin was told.
fn told(origin: &Origin) -> u128 {
    let seen = origin.last();
    let text = seen.header("grpc-timeout");
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u128 = number.parse().unwrap();
    number
        * match unit {
            "n" => 1,
            "u" => 1_000,
            "m" => 1_000_000,
            "S" => 1_000_000_000,
            other => panic!("{other}"),
        }
}

#[tokio::test]
async fn the_upstream_is_told_what_is_left() {
    let reply = Reply::empty(200)
        .header("content-type", "application/grpc")
        .header("grpc-status", "0");
    let origin = origin::h2c().reply(reply).run().await;
    let gateway = open_to(&origin).run().await;
    for (asked, most) in [
        ("20S", 20_000_000_000),
        ("90m", 90_000_000),
        ("1H", 3_600_000_000_000),
        ("7000000u", 7_000_000_000),
    ] {
        let answer = gateway.send(Via::H2c, grpc(asked)).await;
        assert_eq!(answer.header("grpc-status"), "0", "{asked}");
        let left = told(&origin);
        assert!(0 < left && left < most, "{asked}: {left}");
        assert!(most - left < 60_000_000_000, "{asked}: {left}");
    }
    // What no clock can tell is as good as none.
    gateway.send(Via::H2c, grpc("99999999H")).await;
    let connect = post("/s.S/M", "{}").header("content-type", "application/json");
    let connect = connect
        .header("connect-protocol-version", "1")
        .header("connect-timeout-ms", "5000");
    gateway.ask(connect).await;
    let seen = origin.last();
    let left: u64 = seen.header("connect-timeout-ms").parse().unwrap();
    assert!((1..5000).contains(&left), "{left}");
    // Nobody's dialect: passed on as it came.
    gateway
        .ask(post("/rest", "x").header("grpc-timeout", "soon"))
        .await;
    assert_eq!(origin.last().header("grpc-timeout"), "soon");
}

#[tokio::test]
async fn a_malformed_timeout_is_refused_and_not_guessed_at() {
    let origin = origin::h2c().run().await;
    let gateway = open_to(&origin).run().await;
    for timeout in ["123456789n", "1", "S", "-1S", "1.5S", "1s"] {
        let answer = gateway.send(Via::H2c, grpc(timeout)).await;
        assert_eq!(answer.header("grpc-status"), "3", "{timeout}");
        assert!(answer.header("grpc-message").contains("bad_timeout"));
    }
    let twice = grpc("1S").header("grpc-timeout", "2S");
    let answer = gateway.send(Via::H2c, twice).await;
    assert_eq!(answer.header("grpc-status"), "3");
    let connect = spoken("application/json", "1S")
        .header("connect-protocol-version", "1")
        .header("connect-timeout-ms", "soon");
    let answer = gateway.ask(connect).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (400, "invalid_argument")
    );
    assert!(origin.saw_nothing());
    let counted = [("reason", "bad_timeout")];
    gateway
        .counted("vestibule_rejections_total", &counted, 8.0)
        .await;
}

matrix! {
    /// Nothing has come when the time is over: the call is refused, and given up at the backend.
    async fn a_silent_backend_is_given_up(via, speaks) {
        let origin = origin::speaking(speaks).reply(Reply::never()).run().await;
        let gateway = open_to(&origin).run().await;
        let before = Instant::now();
        let answer = gateway.send(via, grpc("150m")).await;
        let took = before.elapsed();
        assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, "4"));
        assert!(answer.header("grpc-message").contains("deadline_exceeded"));
        assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(5), "{took:?}");
        assert_eq!(origin.heads(), 1);
        gateway.settled().await;
    }
}

#[tokio::test]
async fn a_time_that_is_over_already_reaches_nobody() {
    let origin = origin::h2c().run().await;
    let gateway = open_to(&origin).run().await;
    for timeout in ["0S", "1n"] {
        let answer = gateway.send(Via::H2c, grpc(timeout)).await;
        assert_eq!(answer.header("grpc-status"), "4", "{timeout}");
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn every_dialect_is_told_before_the_head() {
    let origin = origin::h2c().reply(Reply::never()).run().await;
    let gateway = open_to(&origin).run().await;
    let web = gateway
        .ask(spoken("application/grpc-web+proto", "100m"))
        .await;
    assert!(web.text().contains("grpc-status: 4\r\n"), "{}", web.text());
    let text = gateway
        .ask(spoken("application/grpc-web-text", "100m"))
        .await;
    let decoded = STANDARD.decode(&text.body).unwrap();
    assert_eq!(decoded[0], 0x80);
    let unary = spoken("application/json", "x")
        .header("connect-protocol-version", "1")
        .header("connect-timeout-ms", "100");
    let unary = gateway.ask(unary).await;
    assert_eq!(
        (unary.status.as_u16(), unary.code().as_str()),
        (504, "deadline_exceeded")
    );
    let stream = gateway.ask(spoken("application/connect+json", "100")).await;
    assert_eq!((stream.status.as_u16(), stream.body[0]), (200, 2));
    assert!(stream.text().contains("deadline_exceeded"));
    let counted = [("reason", "deadline_exceeded")];
    gateway
        .counted("vestibule_rejections_total", &counted, 4.0)
        .await;
}

/// The shorter of the two counts, and the route's is that of its backend.
#[tokio::test]
async fn the_timeout_of_the_route_goes_on_counting() {
    let origin = origin::h2c().reply(Reply::never()).run().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\ntimeout = \"100ms\"")
        .upstream("api", &origin)
        .run()
        .await;
    let answer = gateway.send(Via::H2c, grpc("20S")).await;
    assert_eq!(answer.header("grpc-status"), "4");
    assert!(answer.header("grpc-message").contains("upstream_timeout"));
}

/// A stream that is under way when the time is over: its first bytes have come, and nothing follows.
#[derive(Clone, Copy, Debug)]
struct Cut {
    via: Via,
    translated: bool,
    asks: &'static str,
    answers: &'static str,
    first: &'static str,
}

impl Cut {
    fn passed_on(via: Via, kind: &'static str, first: &'static str) -> Self {
        Self {
            via,
            translated: false,
            asks: kind,
            answers: kind,
            first,
        }
    }

    fn translated(via: Via, asks: &'static str) -> Self {
        Self {
            via,
            translated: true,
            asks,
            answers: "application/grpc",
            first: HI,
        }
    }

    async fn run(self) -> Result<Answer, String> {
        let reply = Reply::two_halves(self.first, &gate(), "never");
        let reply = reply.header("content-type", self.answers);
        let origin = origin::h2c().reply(reply).run().await;
        let translate = if self.translated { "translate" } else { "pass" };
        let route =
            format!("[[route]]\nauth = \"none\"\nupstream = \"api\"\ngrpc_web = \"{translate}\"");
        let gateway = conf(&route).upstream("api", &origin).run().await;
        let mut client = gateway.connect(self.via).await;
        let in_ms = self.asks.contains("connect");
        let timeout = if in_ms { "1500" } else { "1500m" };
        let response = client.start(spoken(self.asks, timeout)).await.unwrap();
        let ended = soon("the end", collect(response)).await;
        let counted = [("reason", "deadline_exceeded")];
        gateway
            .counted("vestibule_rejections_total", &counted, 1.0)
            .await;
        gateway.settled().await;
        ended
    }
}

/// All at once: each of them waits for its time.
async fn cut_off(cuts: impl IntoIterator<Item = Cut>) -> Vec<(Cut, Result<Answer, String>)> {
    let together = async {
        let running = cuts
            .into_iter()
            .map(|cut| (cut, tokio::task::spawn_local(cut.run())));
        let mut ended = Vec::new();
        for (cut, running) in running.collect::<Vec<_>>() {
            ended.push((cut, running.await.unwrap()));
        }
        ended
    };
    tokio::task::LocalSet::new().run_until(together).await
}

const HI: &str = "\0\0\0\0\u{2}hi";

#[tokio::test]
async fn a_stream_under_way_ends_with_the_status_in_its_trailers() {
    // In the middle of a message as well: trailers cannot be taken for its bytes.
    let firsts = [HI, "\0\0\0\0\u{9}hi"];
    let cuts = firsts.into_iter().flat_map(|first| {
        [Via::H2c, Via::TlsH2].map(|via| Cut::passed_on(via, "application/grpc", first))
    });
    for (cut, answer) in cut_off(cuts).await {
        let answer = answer.unwrap();
        assert_eq!(answer.trailers["grpc-status"], "4", "{cut:?}");
        let message = answer.trailers["grpc-message"].to_str().unwrap();
        assert!(message.contains("deadline_exceeded"), "{message}");
        assert_eq!(answer.text(), cut.first);
    }
}

#[tokio::test]
async fn translated_streams_end_with_a_trailers_frame() {
    let cuts = Via::ALL.map(|via| Cut::translated(via, "application/grpc-web+proto"));
    for (cut, answer) in cut_off(cuts).await {
        let answer = answer.unwrap();
        assert_eq!(
            (&answer.body[..7], answer.body[7]),
            (FRAME, 0x80),
            "{cut:?}"
        );
        assert!(answer.text().contains("grpc-status: 4\r\n"));
    }
    let cuts = Via::ALL.map(|via| Cut::translated(via, "application/grpc-web-text"));
    for (cut, answer) in cut_off(cuts).await {
        let answer = answer.unwrap();
        let (message, trailers) = answer.body.split_at(12);
        assert_eq!(STANDARD.decode(message).unwrap(), FRAME, "{cut:?}");
        assert_eq!(STANDARD.decode(trailers).unwrap()[0], 0x80);
    }
}

#[tokio::test]
async fn streams_that_are_passed_on_end_in_their_own_words() {
    let kinds = [
        ("application/grpc-web+proto", 0x80, "grpc-status: 4\r\n"),
        ("application/connect+json", 2, "\"deadline_exceeded\""),
        ("application/connect+proto", 2, "\"deadline_exceeded\""),
    ];
    for (kind, flag, word) in kinds {
        let cuts = Via::ALL.map(|via| Cut::passed_on(via, kind, HI));
        for (cut, answer) in cut_off(cuts).await {
            let answer = answer.unwrap();
            assert_eq!(
                (&answer.body[..7], answer.body[7]),
                (FRAME, flag),
                "{cut:?}"
            );
            assert!(answer.text().contains(word), "{cut:?}: {}", answer.text());
        }
    }
}

/// Words in the middle of a message would be taken for its bytes. It breaks off, so that nobody takes it for whole.
#[tokio::test]
async fn what_cannot_be_ended_in_words_breaks_off() {
    let kinds = [
        ("application/grpc-web+proto", "\0\0\0\0\u{9}hi"),
        ("application/grpc-web-text", "AAA"),
        ("application/connect+json", "\0\0"),
    ];
    let cuts = kinds
        .into_iter()
        .flat_map(|(kind, first)| Via::ALL.map(|via| Cut::passed_on(via, kind, first)));
    for (cut, broken) in cut_off(cuts).await {
        assert!(broken.is_err(), "{cut:?}: {broken:?}");
    }
}

/// The call is over for the backend at the same time: its stream is reset, although the client is still sending.
#[tokio::test]
async fn the_backends_stream_is_reset_with_cancel() {
    let mut origin = streams::by_hand().await;
    let gateway = in_front_of(origin.address).await;
    let mut client = gateway.connect(Via::H2c).await;
    let (sender, payload) = body::channel();
    let call = post("/s.S/Chat", "")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "1S")
        .body(payload);
    let asked = tokio::spawn(async move { client.start(call).await });
    let mut stream = origin.next().await;
    let mut answer = stream.answer();
    let response = asked.await.unwrap().unwrap();
    sender.chunk(Bytes::from_static(FRAME));
    let answered = soon("the end", collect(response)).await.unwrap();
    assert_eq!(answered.trailers["grpc-status"], "4");
    assert_eq!(streams::reset(&mut answer).await, h2::Reason::CANCEL);
    gateway.settled().await;
}

/// Before the head as well.
#[tokio::test]
async fn a_stream_without_an_answer_is_reset_with_cancel() {
    let mut origin = streams::by_hand().await;
    let gateway = in_front_of(origin.address).await;
    let (sender, still_sending) = body::channel();
    for payload in [body::full(FRAME), still_sending] {
        let call = grpc("1S").body(payload);
        let asked = async {
            let answer = gateway.send(Via::H2c, call).await;
            assert_eq!(answer.header("grpc-status"), "4");
        };
        let reset = async {
            let mut stream = origin.next().await;
            assert_eq!(stream.reset().await, h2::Reason::CANCEL);
        };
        tokio::join!(asked, reset);
    }
    drop(sender);
}

async fn in_front_of(address: std::net::SocketAddr) -> Gateway {
    let conf = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"");
    conf.upstream_at("api", "h2c", address, "").run().await
}

/// A stream that never waits would never look at an alarm.
#[tokio::test]
async fn a_busy_stream_ends_too() {
    let reply = Reply::endless(FRAME.repeat(2000)).header("content-type", "application/grpc");
    let origin = origin::h2c().reply(reply).run().await;
    let gateway = open_to(&origin).run().await;
    let answer = gateway.send(Via::H2c, grpc("1500m")).await;
    assert_eq!(answer.trailers["grpc-status"], "4");
    gateway.settled().await;
}
