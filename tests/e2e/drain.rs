//! The graceful stop, of the real binary: readiness fails, connections are told, what is in flight is finished.

use crate::support::binary;
use crate::support::client::{Via, collect, connect, get};
use crate::support::gateway::{Builder, conf};
use crate::support::origin::{self, Origin, Reply, gate};
use crate::support::{eventually, raw, soon};

fn with_limit(origin: &Origin, limit: &str) -> Builder {
    conf(&format!(
        "drain_timeout = \"{limit}\"\n[[route]]\nauth = \"none\"\nupstream = \"api\""
    ))
    .upstream("api", origin)
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_exits_0() {
    let gate = gate();
    let origin = origin::h2c()
        .path("/slow", Reply::two_halves("one", &gate, "two"))
        .run()
        .await;
    let mut process = binary::run(&with_limit(&origin, "30s")).await;
    let mut open = Vec::new();
    for via in Via::ALL {
        let address = process.at(if via.is_tls() { "secure" } else { "plain" });
        let mut client = connect(address, via).await;
        let response = client.start(get("/slow")).await.unwrap();
        open.push((via, client, response));
    }
    origin.reached(4).await;
    let mut idle = connect(process.at("plain"), Via::H1).await;
    assert_eq!(idle.send(get("/")).await.text(), "hello");

    process.signal("-TERM");
    // An idle connection is ended, nothing new is accepted, readiness fails while liveness holds.
    idle.closed().await;
    eventually("the port is closed", async || {
        tokio::net::TcpStream::connect(process.at("plain"))
            .await
            .is_err()
    })
    .await;
    let mut admin = connect(process.admin(), Via::H1).await;
    assert_eq!(admin.send(get("/readyz")).await.status, 503);
    assert_eq!(admin.send(get("/livez")).await.status, 200);

    gate.open();
    for (via, mut client, response) in open {
        let answer = soon("the rest", collect(response)).await;
        assert_eq!(answer.expect("whole").text(), "onetwo", "{via:?}");
        client.closed().await;
    }
    let (code, _) = process.ended().await;
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn http1_is_told_to_close() {
    let gate = gate();
    let origin = origin::http()
        .reply(Reply::text("late").behind(&gate))
        .run()
        .await;
    let mut process = binary::run(&with_limit(&origin, "30s")).await;
    let mut dialogue = raw::open(process.at("plain")).await;
    dialogue
        .send("GET / HTTP/1.1\r\nhost: test.example\r\n\r\n")
        .await;
    origin.reached(1).await;
    process.signal("-TERM");
    eventually("the drain has begun", async || {
        process.event("draining").is_some()
    })
    .await;
    gate.open();
    let answer = dialogue.until_closed().await;
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(
        answer.starts_with("http/1.1 200")
            && answer.contains("connection: close")
            && answer.ends_with("late"),
        "{answer}"
    );
    assert_eq!(process.ended().await.0, Some(0));
}

#[tokio::test]
async fn what_never_ends_is_cut_at_the_limit() {
    let gate = gate();
    let origin = origin::http()
        .reply(Reply::two_halves("one", &gate, "never"))
        .run()
        .await;
    let mut process = binary::run(&with_limit(&origin, "300ms")).await;
    let mut client = connect(process.at("secure"), Via::TlsH2).await;
    let response = client.start(get("/")).await.unwrap();
    process.signal("-TERM");
    assert!(soon("the cut", collect(response)).await.is_err());
    assert_eq!(process.ended().await.0, Some(0));
}

#[tokio::test]
async fn sighup_reads_the_file_again() {
    let origin = origin::http().run().await;
    let saying = |text: &str| {
        conf(&format!(
            "[[route]]\nauth = \"none\"\nrespond = {{ status = 200, body = \"{text}\" }}"
        ))
        .upstream("api", &origin)
    };
    let process = binary::run(&saying("one")).await;
    let ask = async || {
        connect(process.at("plain"), Via::H1)
            .await
            .send(get("/"))
            .await
            .text()
    };
    assert_eq!(ask().await, "one");
    process.rewrite(&saying("two"));
    process.signal("-HUP");
    eventually("the new file is in force", async || ask().await == "two").await;
    process.rewrite(&conf("nonsense"));
    process.signal("-HUP");
    let refusal = "reload refused; the old configuration stays in force";
    eventually("the bad file is refused", async || {
        process.event(refusal).is_some()
    })
    .await;
    assert_eq!(ask().await, "two");
}
