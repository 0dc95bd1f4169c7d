//! Bounds on time and size: slow clients, silent clients, slow backends, absent backends, large bodies.

use std::time::Instant;

use bytes::Bytes;

use crate::matrix;
use crate::support::client::{Told, Via, get, post, refused};
use crate::support::gateway::{conf, open_to};
use crate::support::origin::{self, Reply, gate};
use crate::support::{body, eventually, raw, soon, streams};

matrix! {
    async fn a_backend_that_never_answers_is_504(via, speaks) {
        let origin = origin::speaking(speaks).reply(Reply::never()).run().await;
        let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\ntimeout = \"300ms\"")
            .upstream("api", &origin)
            .run()
            .await;
        let started = Instant::now();
        let answer = gateway.send(via, get("/")).await;
        assert_eq!(answer.verdict(), refused(504, "upstream_timeout"));
        assert!(started.elapsed().as_millis() >= 300);
        assert_eq!(origin.heads(), 1, "a timeout is not tried again");
        gateway.settled().await;
    }
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_502() {
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_at("api", "http", raw::nowhere().await, "")
        .run()
        .await;
    for via in Via::ALL {
        let answer = gateway.send(via, get("/")).await;
        assert_eq!(answer.status.as_u16() / 100, 5);
        assert!(
            ["upstream_unreachable", "no_endpoint"].contains(&answer.code().as_str()),
            "{}",
            answer.text()
        );
    }
    assert_eq!(gateway.ask(post("/", "x")).await.status.as_u16() / 100, 5);
}

#[tokio::test]
async fn the_first_failure_is_unreachable() {
    for scheme in ["http", "h2c"] {
        let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
            .upstream_at("api", scheme, raw::nowhere().await, "")
            .run()
            .await;
        assert_eq!(
            gateway.ask(get("/")).await.verdict(),
            refused(502, "upstream_unreachable")
        );
    }
}

#[tokio::test]
async fn a_backend_whose_name_is_another_is_unreachable() {
    let origin = origin::speaking(origin::Speaks::H2).run().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_with("api", &origin, "")
        .run()
        .await;
    assert_eq!(gateway.ask(get("/")).await.status, 200);
    let ca = crate::support::pki::SHARED.ca();
    let gateway = conf(&format!(
        "[[route]]\nauth = \"none\"\nupstream = \"api\"\n[upstream.api]\nendpoints = [\"{}\"]\ntls = {{ ca = {ca:?}, server_name = \"other.example\" }}",
        origin.endpoint()
    ))
    .run()
    .await;
    assert_eq!(
        gateway.ask(get("/")).await.verdict(),
        refused(502, "upstream_unreachable")
    );
    assert_eq!(origin.heads(), 1);
}

#[tokio::test]
async fn a_backend_that_hangs_up_is_reset() {
    let address = raw::hostile("", true).await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_at("api", "http", address, "")
        .run()
        .await;
    assert_eq!(
        gateway.ask(post("/", "x")).await.verdict(),
        refused(502, "upstream_reset")
    );
}

#[tokio::test]
async fn a_full_backend_is_503() {
    let gate = gate();
    let origin = origin::http()
        .reply(Reply::text("late").behind(&gate))
        .run()
        .await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_with("api", &origin, "max_requests = 1")
        .run()
        .await;
    let address = gateway.at("plain");
    let held = tokio::spawn(async move {
        crate::support::client::connect(address, Via::H1)
            .await
            .send(get("/"))
            .await
    });
    origin.reached(1).await;
    assert_eq!(
        gateway.ask(get("/")).await.verdict(),
        refused(503, "upstream_overloaded")
    );
    gate.open();
    assert_eq!(held.await.unwrap().text(), "late");
    assert_eq!(gateway.ask(get("/")).await.status, 200);
}

/// Rapid resets, as a backend sees them: it learns late that nobody waits for its work, so what was given up holds its place
/// for a while, and asking and leaving in turns gets no more done at once than asking does.
#[tokio::test]
async fn work_that_was_given_up_counts_until_it_has_ended() {
    const MOST: usize = 5;
    let mut origin = streams::by_hand().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_at("api", "h2c", origin.address, "max_requests = 5")
        .run()
        .await;
    let client = gateway.connect(Via::H2c).await;
    let started = Instant::now();
    let (mut at_work, mut refusals) = (Vec::new(), 0);
    for _ in 0..50 {
        let mut other = client.another();
        let mut asked = tokio::spawn(async move { other.start(get("/")).await });
        tokio::select! {
            // The backend does not look whether anybody has left.
            stream = origin.next() => at_work.push(stream),
            answer = &mut asked => {
                assert_eq!(answer.unwrap().unwrap().status(), 503);
                refusals += 1;
            }
        }
        asked.abort();
    }
    let turns = 1 + started.elapsed().as_millis() as usize / 500;
    let begun = at_work.len();
    assert!(
        begun <= MOST * turns && refusals > 0,
        "{begun} of {MOST} in {turns} turns"
    );
    // They have heard of it by now, and others are served.
    for mut stream in at_work {
        assert_eq!(stream.reset().await, h2::Reason::CANCEL);
    }
    gateway.settled().await;
    let mut other = client.another();
    let asked = tokio::spawn(async move { other.start(get("/")).await });
    let _answer = origin.next().await.answer();
    assert_eq!(
        soon("an answer", asked).await.unwrap().unwrap().status(),
        200
    );
}

/// R8, the short form: a backend that is known to be down is not asked by every request.
#[tokio::test]
async fn a_backend_that_failed_its_checks_is_503_until_it_is_back() {
    let origin = origin::http().run().await;
    let conf = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_with("api", &origin, "health = { path = \"/ready\", interval = \"50ms\", timeout = \"500ms\", unhealthy_after = 1 }");
    let gateway = conf.run().await;
    eventually("it is healthy", async || {
        gateway.ask(get("/")).await.status == 200
    })
    .await;
    let address = origin.stop().await;
    eventually("it is known to be down", async || {
        gateway.ask(get("/")).await.verdict() == refused(503, "no_endpoint")
    })
    .await;
    assert!(
        gateway
            .metric("vestibule_upstream_healthy", &[("upstream", "api")])
            .await
            .abs()
            < 0.1
    );
    let origin = origin::http().run_at(address).await;
    eventually("it is back", async || {
        gateway.ask(get("/")).await.status == 200
    })
    .await;
    assert!(origin.saw().iter().any(|seen| seen.target == "/ready"));
}

/// R7, the short form: a connection that the backend closed while it was idle costs no request, and no POST comes twice.
#[tokio::test]
async fn idle_connections_that_the_backend_closed_cost_nothing() {
    let mut origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    let mut posts = 0;
    for n in 0..5 {
        assert_eq!(gateway.ask(get("/")).await.status, 200, "round {n}");
        let address = origin.stop().await;
        origin = origin::http().run_at(address).await;
        let answer = gateway.ask(post("/", "once")).await;
        posts += usize::from(answer.status == 200);
        assert_eq!(answer.status, 200, "round {n}: {}", answer.text());
        let saw = origin.saw();
        assert_eq!(saw.iter().filter(|seen| seen.method == "POST").count(), 1);
    }
    assert_eq!(posts, 5);
}

#[tokio::test]
async fn a_response_that_stalls_is_cut() {
    let gate = gate();
    let origin = origin::http()
        .reply(Reply::two_halves("one", &gate, "two"))
        .run()
        .await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_with("api", &origin, "body_timeout = \"300ms\"")
        .run()
        .await;
    for via in Via::ALL {
        let answer = gateway.connect(via).await.try_send(get("/")).await;
        assert!(answer.is_err(), "{via:?}: {answer:?}");
    }
    gateway.settled().await;
}

matrix! {
    async fn a_body_beyond_the_cap_is_413(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\nmax_body = \"1KiB\"")
            .upstream("api", &origin)
            .run()
            .await;
        assert_eq!(gateway.send(via, post("/", vec![b'x'; 1024])).await.status, 200);
        // Announced: the origin is not bothered at all.
        let answer = gateway.send(via, post("/", vec![b'x'; 1025])).await;
        assert_eq!(answer.verdict(), refused(413, "body_too_large"));
        assert_eq!(origin.heads(), 1);
        // Streamed: the origin never sees it whole.
        let chunks: Vec<_> = (0..20).map(|_| Bytes::from(vec![b'x'; 100])).collect();
        let answer = gateway.send(via, post("/", "").body(body::chunks(chunks, None))).await;
        assert_eq!(answer.verdict(), refused(413, "body_too_large"));
        assert!(origin.saw().iter().skip(1).all(|seen| !seen.whole));
        gateway.settled().await;
    }
}

matrix! {
    async fn a_body_that_stalls_is_408(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = open_to(&origin).listen("body_timeout = \"300ms\"").run().await;
        let (sender, payload) = body::channel();
        sender.chunk("one");
        let answer = gateway.send(via, post("/", "").body(payload)).await;
        assert_eq!(answer.verdict(), refused(408, "body_stalled"));
        drop(sender);
        assert!(origin.saw().iter().all(|seen| !seen.whole));
        gateway.settled().await;
    }
}

#[tokio::test]
async fn a_body_that_drips_is_408() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin)
        .listen("body_timeout = \"400ms\"")
        .run()
        .await;
    let mut dialogue = raw::open(gateway.at("plain")).await;
    dialogue
        .send("POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 5\r\n\r\nh")
        .await;
    let answer = dialogue.until_closed().await;
    assert_eq!(raw::statuses(&answer), [408]);
}

#[tokio::test]
async fn a_client_that_ends_its_body_early_is_not_passed_on_as_whole() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    let mut dialogue = raw::open(gateway.at("plain")).await;
    dialogue
        .send("POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 50\r\n\r\nhello")
        .await;
    origin.reached(1).await;
    dialogue.finish().await;
    dialogue.until_closed().await;
    gateway.settled().await;
    eventually("the origin gave it up", async || !origin.saw().is_empty()).await;
    assert!(!origin.only().whole);
}

/// Behaviour 0.1: deadlines that the libraries do not have.
#[tokio::test]
async fn every_kind_of_silence_ends() {
    let origin = origin::http().run().await;
    let keys = "handshake_timeout = \"300ms\"\nhead_timeout = \"300ms\"\nidle_timeout = \"300ms\"";
    let gateway = open_to(&origin).listen(keys).run().await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for (listener, bytes) in [
        ("plain", &b""[..]),
        ("secure", b""),
        ("secure", hello),
        ("plain", b"GET / HT"),
        ("plain", b"GET / HTTP/1.1\r\nhost: test.example\r\n"),
        ("plain", b"PRI * HTTP/2.0\r\n"),
        ("plain", preface),
        ("plain", b"GET / HTTP/1.1\r\nhost: test.example\r\n\r\n"),
    ] {
        let mut dialogue = raw::open(gateway.at(listener)).await;
        dialogue.send(bytes).await;
        dialogue.until_closed().await;
    }
    // After the handshake, too.
    for alpn in ["h2", "http/1.1"] {
        raw::open_tls(gateway.at("secure"), &[alpn])
            .await
            .until_closed()
            .await;
    }
    // An h2 connection that only PINGs is idle.
    let mut dialogue = raw::open(gateway.at("plain")).await;
    dialogue.send(preface).await;
    let pings = async {
        loop {
            dialogue.send(b"\0\0\x08\x06\0\0\0\0\0pingpong").await;
            if dialogue.ended().await {
                return;
            }
        }
    };
    soon("the pinger is hung up on", pings).await;
    gateway
        .counted("vestibule_connections_open", &[], 0.0)
        .await;
}

#[tokio::test]
async fn connections_of_one_address_are_capped() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin)
        .listen("max_connections_per_ip = 2")
        .run()
        .await;
    let mut first = gateway.connect(Via::H1).await;
    let mut second = gateway.connect(Via::H1).await;
    assert_eq!(first.send(get("/")).await.status, 200);
    assert_eq!(second.send(get("/")).await.status, 200);
    let mut third = raw::open(gateway.at("plain")).await;
    third
        .send("GET / HTTP/1.1\r\nhost: test.example\r\n\r\n")
        .await;
    assert!(third.until_closed().await.is_empty());
    first.hang_up();
    eventually("a seat is free", async || {
        let mut client = gateway.connect(Via::H1).await;
        client.try_send(get("/")).await.is_ok()
    })
    .await;
    assert!(
        gateway
            .metric("vestibule_connections_refused_total", &[])
            .await
            >= 1.0
    );
}

#[tokio::test]
async fn a_connection_ends_after_its_requests() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin)
        .listen("max_requests_per_connection = 3")
        .run()
        .await;
    for via in Via::ALL {
        let mut client = gateway.connect(via).await;
        for _ in 0..3 {
            assert_eq!(client.send(get("/")).await.status, 200);
        }
        client.closed().await;
    }
    assert_eq!(origin.heads(), 12);
}
