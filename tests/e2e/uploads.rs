//! Request bodies that last: they end with the credential that opened them, and with the patience of the listener,
//! whether the answer has begun or not.

use http_body_util::BodyExt;
use serde_json::json;

use crate::matrix;
use crate::support::body::{self, FrameSender};
use crate::support::client::{Call, Told, Via, call, collect, refused};
use crate::support::gateway::{Builder, conf, open_to};
use crate::support::issuer::{self, Issuer};
use crate::support::origin::{self, Origin, Reply, Speaks};
use crate::support::token::now;
use crate::support::{eventually, soon};

// === Bound to the credential ===

fn bound(issuer: &Issuer, origin: &Origin, keys: &str) -> Builder {
    conf(&format!(
        "[[route]]\nname = \"files\"\nauth = {{ any = [\"main\"] }}\nupstream = \"api\"\n{keys}"
    ))
    .issuer(issuer)
    .upstream("api", origin)
}

/// An upload that goes on until its sender is dropped, by a caller whose token is good for two seconds at most.
fn upload(issuer: &Issuer, media: &str) -> (FrameSender, Call) {
    let (sender, payload) = body::channel();
    sender.chunk("\0\0\0\0\x01a");
    let token = issuer.token().claim("exp", now() + 2).sign();
    let call = call("POST", "/s.S/M")
        .header("content-type", media)
        .bearer(&token);
    (sender, call.body(payload))
}

#[tokio::test]
async fn an_upload_ends_with_its_token() {
    let through = async |via| {
        tokio::join!(
            ends_with_its_token(via, Speaks::Http),
            ends_with_its_token(via, Speaks::H2c),
            ends_with_its_token(via, Speaks::H2),
        )
    };
    tokio::join!(
        through(Via::H1),
        through(Via::TlsH1),
        through(Via::TlsH2),
        through(Via::H2c),
    );
}

async fn ends_with_its_token(via: Via, speaks: Speaks) {
    let issuer = issuer::run().await;
    let origin = origin::speaking(speaks).run().await;
    let gateway = bound(&issuer, &origin, "").run().await;
    gateway.ready().await;
    let (sender, call) = upload(&issuer, "application/octet-stream");
    let answer = gateway.send(via, call).await;
    let expected = refused(401, "token_expired");
    assert_eq!(answer.verdict(), expected, "{via:?} to {speaks:?}");
    assert!(answer.header("www-authenticate").contains("invalid_token"));
    // The backend never has it whole.
    eventually("the backend is told", async || !origin.saw().is_empty()).await;
    assert!(!origin.only().whole, "{via:?} to {speaks:?}");
    gateway.settled().await;
    let labels = [("route", "files"), ("how", "expired")];
    let name = "vestibule_streams_lapsed_total";
    gateway.counted(name, &labels, 1.0).await;
    drop(sender);
}

#[tokio::test]
async fn every_dialect_is_told_that_its_upload_has_ended() {
    let issuer = issuer::run().await;
    let origin = origin::h2c().run().await;
    let gateway = bound(&issuer, &origin, "").run().await;
    gateway.ready().await;
    let told = async |via, media| {
        let (_sender, call) = upload(&issuer, media);
        gateway.send(via, call).await
    };
    let (grpc, web, connect) = tokio::join!(
        told(Via::H2c, "application/grpc"),
        told(Via::H1, "application/grpc-web"),
        told(Via::TlsH2, "application/connect+json"),
    );
    assert_eq!(grpc.header("grpc-status"), "16");
    assert!(grpc.header("grpc-message").contains("token_expired"));
    assert!(web.text().contains("grpc-status: 16"), "{}", web.text());
    assert!(
        connect.text().contains("\"unauthenticated\""),
        "{}",
        connect.text()
    );
    gateway.settled().await;
}

#[tokio::test]
async fn an_upload_that_is_taken_in_first_ends_with_its_token_as_well() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = bound(&issuer, &origin, "buffer = \"64KiB\"").run().await;
    gateway.ready().await;
    let (_sender, call) = upload(&issuer, "text/plain");
    let call = call.header("content-length", "1000");
    let answer = gateway.send(Via::H1, call).await;
    assert_eq!(answer.verdict(), refused(401, "token_expired"));
    assert!(origin.saw_nothing());
    gateway.settled().await;
}

/// What has arrived whole was judged when it came; a backend that takes its time costs nobody the answer.
#[tokio::test]
async fn an_upload_that_has_arrived_is_answered() {
    let issuer = issuer::run().await;
    let gate = origin::gate();
    let origin = origin::http()
        .reply(Reply::text("stored").behind(&gate))
        .run()
        .await;
    let gateway = bound(&issuer, &origin, "").run().await;
    gateway.ready().await;
    let (sender, call) = upload(&issuer, "text/plain");
    let mut client = gateway.connect(Via::H1).await;
    let asked = tokio::spawn(async move { client.send(call).await });
    origin.reached(1).await;
    // A stream of the same token says when it has ended.
    drop(sender);
    eventually("the backend has it whole", async || {
        !origin.saw().is_empty()
    })
    .await;
    assert!(origin.only().whole);
    let (other, call) = upload(&issuer, "text/plain");
    assert_eq!(gateway.send(Via::H2c, call).await.status, 401);
    drop(other);
    gate.open();
    let answer = soon("the answer", asked).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "stored")
    );
}

#[tokio::test]
async fn a_route_may_let_uploads_go_on() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let keys = "path = \"/free/*\"\nstream_auth = \"free\"\n[[route]]\nauth = { any = [\"main\"] }\nupstream = \"api\"";
    let gateway = bound(&issuer, &origin, keys).run().await;
    gateway.ready().await;
    let (sender, payload) = body::channel();
    sender.chunk("one");
    let token = issuer.token().claim("exp", now() + 2).sign();
    let free = call("POST", "/free/x").bearer(&token).body(payload);
    let mut client = gateway.connect(Via::H1).await;
    let asked = tokio::spawn(async move { client.send(free).await });
    origin.reached(1).await;
    // By then the same token has ended.
    let (_other, call) = upload(&issuer, "text/plain");
    assert_eq!(gateway.send(Via::H2c, call).await.status, 401);
    sender.chunk("two");
    drop(sender);
    assert_eq!(soon("the answer", asked).await.unwrap().status, 200);
    assert!(
        origin
            .saw()
            .iter()
            .any(|seen| seen.text() == "onetwo" && seen.whole)
    );
}

#[tokio::test]
async fn a_logout_ends_the_uploads_of_its_session() {
    let origin = origin::http()
        .path(
            "/session",
            Reply::json(&json!({ "user": { "user_id": "alice" } })),
        )
        .path("/logout", Reply::empty(204))
        .run()
        .await;
    let gateway = conf(
        r#"
        [[route]]
        name = "files"
        auth = { any = ["browser"] }
        csrf = "off"
        upstream = "api"
        [[route]]
        path = "/logout"
        auth = "none"
        csrf = "off"
        revokes = { any = ["browser"] }
        upstream = "api"
        [session.browser]
        cookie = "at"
        probe = { upstream = "api", path = "/session" }
        cache = "60s"
    "#,
    )
    .upstream("api", &origin)
    .run()
    .await;
    gateway.ready().await;
    let by = |session: &str, target: &str| {
        call("POST", target).header("cookie", &format!("at={session}"))
    };
    let start = async |session: &str| {
        let (sender, payload) = body::channel();
        sender.chunk("one");
        let call = by(session, "/files").body(payload);
        let mut client = gateway.connect(Via::H2c).await;
        (sender, tokio::spawn(async move { client.send(call).await }))
    };
    let (_one, ended) = start("alice-1").await;
    let (other, goes_on) = start("alice-2").await;
    origin.reached(4).await;
    assert_eq!(gateway.ask(by("alice-1", "/logout")).await.status, 204);
    let answer = soon("the end", ended).await.unwrap();
    assert_eq!(answer.verdict(), refused(401, "token_revoked"));
    drop(other);
    assert_eq!(soon("the answer", goes_on).await.unwrap().status, 200);
    let labels = [("route", "files"), ("how", "revoked")];
    gateway
        .counted("vestibule_streams_lapsed_total", &labels, 1.0)
        .await;
}

// === Bound to the patience of the listener, behind the answer's head as before it ===

matrix! {
    async fn an_upload_that_stalls_after_the_answer_began_is_cut_off(via, speaks) {
        let origin = origin::speaking(speaks).early("/echo", Reply::echo()).run().await;
        let gateway = open_to(&origin).listen("body_timeout = \"300ms\"").run().await;
        let (sender, payload) = body::channel();
        sender.chunk("one");
        let mut client = gateway.connect(via).await;
        let mut response = client.start(call("POST", "/echo").body(payload)).await.unwrap();
        let frame = soon("a frame", response.frame()).await.unwrap().unwrap();
        assert_eq!(origin::data(frame), "one");
        assert!(soon("the end", collect(response)).await.is_err());
        gateway.settled().await;
        drop((sender, client));
    }
}

matrix! {
    /// The answer is whole, and the rest of the request is what is waited for.
    async fn an_upload_that_stalls_after_the_answer_ended_is_given_up(via, speaks) {
        let origin = origin::speaking(speaks).early("/early", Reply::text("no")).run().await;
        let gateway = open_to(&origin).listen("body_timeout = \"300ms\"\nhead_timeout = \"300ms\"").run().await;
        let (sender, payload) = body::channel();
        sender.chunk("one");
        let mut client = gateway.connect(via).await;
        let response = client.start(call("POST", "/early").body(payload)).await.unwrap();
        assert_eq!(soon("the answer", collect(response)).await.unwrap().text(), "no");
        // Over HTTP/2 the stream is reset, over HTTP/1.1 the connection ends: nobody reads the body any more.
        soon("the upload is given up", sender.abandoned()).await;
        gateway.settled().await;
        drop(client);
    }
}
