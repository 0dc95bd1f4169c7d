//! The admin listener: probes, status, reload; exact paths, and closed to web pages.

use crate::support::client::{call, get, post};
use crate::support::gateway::open_to;
use crate::support::origin::{self, Reply, gate};
use crate::support::{eventually, issuer};

#[tokio::test]
async fn probes_and_status_answer() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    assert_eq!(gateway.admin(get("/livez")).await.status, 200);
    let ready = gateway.admin(get("/readyz")).await;
    assert_eq!(
        (ready.status.as_u16(), ready.text().as_str()),
        (200, "ready\n")
    );
    let status = gateway.admin(get("/status")).await;
    assert_eq!(status.header("content-type"), "application/json");
    assert_eq!(
        (
            status.at("/generation"),
            status.at("/draining"),
            status.at("/in_flight")
        ),
        (1.into(), false.into(), 0.into())
    );
    assert_eq!(
        status.at("/listeners"),
        serde_json::json!(["plain", "secure"])
    );
    assert_eq!(status.at("/upstreams/api/0/healthy"), true);
    assert_eq!(status.header("cache-control"), "no-store");
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let issuer = issuer::run().await;
    issuer.fails(issuer::Fault::Down);
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).issuer(&issuer).run().await;
    let ready = gateway.admin(get("/readyz")).await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("main"), "{}", ready.text());
    assert_eq!(gateway.admin(get("/livez")).await.status, 200);
    issuer.fails(None);
    gateway.ready().await;
}

#[tokio::test]
async fn reload_is_a_post() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    let answer = gateway.admin(get("/reload")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow")),
        (405, "POST")
    );
    let answer = gateway.admin(post("/reload", "")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.at("/generation")),
        (200, 2.into())
    );
    assert_eq!(gateway.admin(call("DELETE", "/metrics")).await.status, 405);
    for path in [
        "/",
        "/reload/",
        "/metrics/x",
        "/readyz/..",
        "/debug",
        "/Status",
    ] {
        assert_eq!(gateway.admin(get(path)).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn web_pages_cannot_drive_it() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for call in [post("/reload", ""), get("/metrics"), get("/status")] {
            assert_eq!(
                gateway.admin(call.header(name, value)).await.status,
                403,
                "{name}: {value}"
            );
        }
    }
    assert_eq!(gateway.admin(get("/status")).await.at("/generation"), 1);
    // Typed into the address bar.
    assert_eq!(
        gateway
            .admin(get("/metrics").header("sec-fetch-site", "none"))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn it_is_not_on_the_public_listeners() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    for path in ["/metrics", "/status", "/livez", "/readyz"] {
        assert_eq!(
            gateway.ask(get(path)).await.text(),
            "hello",
            "{path} is the backend's"
        );
    }
}

#[tokio::test]
async fn it_answers_while_the_workers_are_busy_and_while_draining() {
    let gate = gate();
    let origin = origin::http()
        .reply(Reply::two_halves("one", &gate, "two"))
        .run()
        .await;
    let gateway = open_to(&origin).run().await;
    let mut client = gateway.connect(crate::support::client::Via::H2c).await;
    let response = client.start(get("/")).await.unwrap();
    assert_eq!(gateway.admin(get("/status")).await.at("/in_flight"), 1);
    gateway.stop();
    eventually("readiness fails", async || !gateway.is_ready().await).await;
    assert_eq!(gateway.admin(get("/status")).await.at("/draining"), true);
    gate.open();
    assert_eq!(
        crate::support::client::collect(response)
            .await
            .unwrap()
            .text(),
        "onetwo"
    );
}
