//! The admin listener: probes, status, reload; exact paths, and closed to web pages.

use http_body_util::BodyExt;
use vestibule::demo::grpc::{HealthReply, HealthRequest};

use crate::support::client::{Call, Via, call, connect, get, post};
use crate::support::gateway::{Gateway, conf, open_to};
use crate::support::origin::{self, Reply, gate};
use crate::support::{body, eventually, issuer, soon};

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

#[tokio::test]
async fn grpc_probes_hear_what_readyz_says() {
    let issuer = issuer::run().await;
    issuer.fails(issuer::Fault::Down);
    let gateway = conf("[[route]]\nauth = { any = [\"main\"] }\nrespond = { status = 200 }")
        .issuer(&issuer)
        .run()
        .await;
    assert_eq!(checked(&gateway, "").await, (Some(0), Some(2)));
    // Who watches is told of every change, and at once of how it is.
    let mut client = connect(gateway.admin_address(), Via::H2c).await;
    let mut watched = client.start(health("Watch", "")).await.unwrap();
    assert_eq!(next(&mut watched).await, 2);
    issuer.fails(None);
    gateway.ready().await;
    assert_eq!(next(&mut watched).await, 1);
    assert_eq!(checked(&gateway, "").await, (Some(0), Some(1)));
    assert_eq!(
        checked(&gateway, "grpc.health.v1.Health").await,
        (Some(0), Some(1))
    );
    assert_eq!(checked(&gateway, "somebody.Else").await, (Some(5), None));
    let mut unknown = client
        .start(health("Watch", "somebody.Else"))
        .await
        .unwrap();
    assert_eq!(next(&mut unknown).await, 3);
}

#[tokio::test]
async fn nothing_else_of_grpc_is_served_to_operators() {
    let gateway = conf("[[route]]\nauth = \"none\"\nrespond = { status = 200 }")
        .run()
        .await;
    let mut client = connect(gateway.admin_address(), Via::H2c).await;
    for (call, status) in [
        (health("List", ""), "12"),
        (health("Check", "").body(body::full("\u{1}\0\0\0\0")), "12"),
        (health("Check", "").body(body::full("\0\0\0\0\u{9}")), "3"),
        (health("Check", "").body(body::full(vec![0; 8192])), "8"),
    ] {
        let answer = client.send(call).await;
        assert_eq!(answer.header("grpc-status"), status);
    }
    // A page of another origin hears nothing, and HTTP/1.1 has no gRPC.
    let page = health("Check", "").header("origin", "https://evil.example");
    assert_eq!(client.send(page).await.status, 403);
    assert_eq!(gateway.admin(health("Check", "")).await.status, 505);
    // What operators ask over HTTP/2, they are told.
    assert_eq!(client.send(get("/readyz")).await.text(), "ready\n");
}

fn health(method: &str, service: &str) -> Call {
    let question = HealthRequest {
        service: service.to_owned(),
    };
    let message = prost::Message::encode_to_vec(&question);
    let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
    frame.extend(message);
    post(&format!("/grpc.health.v1.Health/{method}"), frame)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

async fn checked(gateway: &Gateway, service: &str) -> (Option<u32>, Option<i32>) {
    let mut client = connect(gateway.admin_address(), Via::H2c).await;
    let answer = client.send(health("Check", service)).await;
    let status = answer.trailers.get("grpc-status");
    let status = status.or(answer.headers.get("grpc-status"));
    let status = status.and_then(|status| status.to_str().ok()?.parse().ok());
    (status, answer.body.get(5..).map(said))
}

fn said(message: &[u8]) -> i32 {
    let reply: HealthReply = prost::Message::decode(message).unwrap();
    reply.status
}

async fn next(watched: &mut http::Response<hyper::body::Incoming>) -> i32 {
    let frame = soon("a status", watched.body_mut().frame()).await;
    said(&frame.unwrap().unwrap().into_data().unwrap()[5..])
}
