//! `Expect` (RFC 9110 section 10.1.1): a 100 goes out when somebody here wants the body, and never with a refusal.

use crate::support::client::{Told, Via, call, get, post, refused};
use crate::support::gateway::{Gateway, conf, open_to};
use crate::support::issuer::{self, Issuer};
use crate::support::origin::{self, Origin, Reply};
use crate::support::raw::{self, Dialogue, statuses};
use crate::support::{body, eventually};

/// What only ever stands in a body.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: test.example\r\n\r\n";

fn expecting(target: &str, fields: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nhost: test.example\r\nexpect: 100-continue\r\n{fields}\r\n")
}

async fn says(gateway: &Gateway, head: &str) -> Dialogue {
    let mut dialogue = raw::open(gateway.at("plain")).await;
    dialogue.send(head).await;
    dialogue
}

/// Routes that refuse before anybody reads a body, each in its own way.
async fn strict(issuer: &Issuer, origin: &Origin) -> Gateway {
    let gateway = conf(
        r#"
        [[route]]
        path = "/private"
        auth = { any = ["main"] }
        upstream = "api"
        [[route]]
        path = "/limited"
        auth = "none"
        limits = ["one"]
        upstream = "api"
        [[route]]
        path = "/closed"
        auth = "deny"
        [[route]]
        path = "/small"
        auth = "none"
        max_body = "10B"
        upstream = "api"
        [[route]]
        path = "/absent"
        auth = "none"
        upstream = "absent"
        [limit.one]
        rate = "1/h"
        key = ["ip"]
    "#,
    )
    .issuer(issuer)
    .upstream("api", origin)
    .upstream_at("absent", "http", raw::nowhere().await, "")
    .run()
    .await;
    gateway.ready().await;
    assert_eq!(gateway.ask(get("/limited")).await.status, 200);
    origin.forget();
    gateway
}

#[tokio::test]
async fn a_refusal_comes_straight_and_the_body_is_not_read() {
    let origin = origin::http().run().await;
    let issuer = issuer::run().await;
    let gateway = strict(&issuer, &origin).await;
    for (target, status, code) in [
        ("/private", 401, "credential_missing"),
        ("/limited", 429, "rate_limited"),
        ("/closed", 404, "route_closed"),
        ("/small", 413, "body_too_large"),
        ("/elsewhere", 404, "no_route"),
        ("/absent", 502, "upstream_unreachable"),
    ] {
        let length = format!("content-length: {}\r\n", SMUGGLED.len());
        let mut dialogue = says(&gateway, &expecting(target, &length)).await;
        let heard = String::from_utf8(dialogue.until("\r\n\r\n").await).unwrap();
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{heard}");
        // Where the body would begin is a guess from here on.
        assert!(heard.contains("connection: close\r\n"), "{target}: {heard}");
        let rest = dialogue.send(SMUGGLED).await.until_closed().await;
        let rest = String::from_utf8(rest).unwrap();
        assert!(rest.contains(code) && !rest.contains("HTTP/1.1"), "{rest}");
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_client_that_does_not_wait_is_not_told_to_go_on() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    let head = expecting("/", "content-length: 5\r\nconnection: close\r\n");
    let heard = says(&gateway, &format!("{head}hello"))
        .await
        .until_closed()
        .await;
    assert_eq!(statuses(&heard), [200]);
    assert_eq!(origin.only().text(), "hello");
}

#[tokio::test]
async fn nobody_is_told_to_go_on_in_http_1_0_or_without_a_body() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    let mut old = says(
        &gateway,
        "POST / HTTP/1.0\r\nhost: test.example\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
    )
    .await;
    origin.reached(1).await;
    let heard = old.send("hello").await.until_closed().await;
    assert!(heard.starts_with(b"HTTP/1."), "{heard:?}");
    assert_eq!(statuses(&heard), [200]);
    assert!(raw::find(&heard, b" 100 ").is_none());
    for fields in ["content-length: 0\r\n", ""] {
        let head = expecting("/", &format!("{fields}connection: close\r\n"));
        let heard = says(&gateway, &head).await.until_closed().await;
        assert!(heard.starts_with(b"HTTP/1.1 200"), "{heard:?}");
    }
    assert_eq!(origin.saw()[0].text(), "hello");
    assert!(origin.saw().iter().all(|seen| !seen.has("expect")));
}

#[tokio::test]
async fn an_expectation_that_nobody_knows_is_417() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    for expect in ["a-miracle", "100-continue, a-miracle", "200-ok", "", "100"] {
        for via in Via::ALL {
            let call = post("/", "hello").header("expect", expect);
            let answer = gateway.send(via, call).await;
            assert_eq!(
                answer.verdict(),
                refused(417, "bad_expectation"),
                "{via:?} {expect:?}"
            );
        }
    }
    assert!(origin.saw_nothing());
    let call = post("/", "hello").header("expect", "100-Continue");
    assert_eq!(gateway.ask(call).await.status, 200);
}

/// Over HTTP/2 there is no 100 to wait for: windows say what may be sent. The expectation ends here all the same.
#[tokio::test]
async fn over_http_2_a_body_passes_and_a_refusal_comes_straight() {
    let origin = origin::http().run().await;
    let issuer = issuer::run().await;
    let gateway = strict(&issuer, &origin).await;
    for via in [Via::H2c, Via::TlsH2] {
        for (target, status) in [("/private", 401), ("/limited", 429), ("/closed", 404)] {
            let (_sender, waiting) = body::channel();
            let call = call("POST", target).header("expect", "100-continue");
            let answer = gateway.send(via, call.body(waiting)).await;
            assert_eq!(answer.status.as_u16(), status, "{via:?} {target}");
        }
        let call = post("/small", "hello").header("expect", "100-continue");
        assert_eq!(gateway.send(via, call).await.status, 200);
        assert!(!origin.last().has("expect"));
    }
}

/// The body is for the endpoint: as long as none takes the request, nobody is asked to send it.
#[tokio::test]
async fn the_body_is_asked_for_once_an_endpoint_takes_the_request() {
    let gate = origin::gate();
    let origin = origin::http()
        .path("/held", Reply::text("held").behind(&gate))
        .run()
        .await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_with("api", &origin, "max_requests = 1")
        .run()
        .await;
    let mut client = gateway.connect(Via::H1).await;
    let held = tokio::spawn(async move { client.send(get("/held")).await });
    origin.reached(1).await;
    let head = expecting("/", "content-length: 5\r\n");
    let heard = says(&gateway, &head).await.until_closed().await;
    assert!(heard.starts_with(b"HTTP/1.1 503"), "{heard:?}");
    gate.open();
    assert_eq!(held.await.unwrap().text(), "held");
    gateway.settled().await;
    let mut dialogue = says(&gateway, &head).await;
    let interim = dialogue.until("\r\n\r\n").await;
    assert_eq!(interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(
        dialogue
            .send("hello")
            .await
            .answer()
            .await
            .starts_with("HTTP/1.1 200")
    );
    eventually("it arrives", async || origin.last().text() == "hello").await;
}
