//! Builders among themselves, without a gateway: what they record and say can be relied upon.

use crate::support::client::{Via, connect, fields, get, post};
use crate::support::origin::{self, Reply, Speaks};
use crate::support::{body, issuer, raw};

#[tokio::test]
async fn an_origin_records_what_a_client_sends() {
    for (via, speaks) in [
        (Via::H1, Speaks::Http),
        (Via::TlsH1, Speaks::Https),
        (Via::H2c, Speaks::H2c),
        (Via::TlsH2, Speaks::H2),
    ] {
        let reply = Reply::text("pong").header("x-a", "b").trailer("x-sum", "7");
        let origin = origin::speaking(speaks).reply(reply).run().await;
        let mut client = connect(origin.address, via).await;

        let sent = body::chunks(["pi".into(), "ng".into()], Some(fields(&[("x-t", "u")])));
        let call = post("/p?q=1", "")
            .body(sent)
            .header("x-two", "1")
            .header("x-two", "2");
        let call = if via.is_h2() {
            call
        } else {
            call.header("trailer", "x-t")
        };
        let answer = client.send(call).await;

        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, "pong")
        );
        assert_eq!(answer.header("x-a"), "b");
        let seen = origin.only();
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            ("POST", "/p?q=1")
        );
        assert_eq!(seen.all("x-two"), ["1", "2"]);
        assert_eq!((seen.text().as_str(), seen.whole), ("ping", true));
        assert_eq!(seen.trailers["x-t"], "u");
    }
}

#[tokio::test]
async fn a_recorder_keeps_bytes_and_names_faults() {
    let recorder = raw::recorder().await;
    let mut dialogue = raw::open(recorder.address).await;
    dialogue
        .send(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        )
        .await;
    assert!(dialogue.answer().await.ends_with("ok"));
    assert_eq!(recorder.saw()[0].body, b"hi");
    assert!(recorder.faults().is_empty());

    dialogue
        .send("GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n")
        .await;
    assert!(dialogue.answer().await.ends_with("ok"));
    assert_eq!(recorder.faults()[0], "a bare CR or LF");
}

#[tokio::test]
async fn an_issuer_publishes_counts_and_fails() {
    let issuer = issuer::run().await;
    let answer = connect(issuer.address(), Via::H1)
        .await
        .send(get("/keys"))
        .await;
    assert_eq!(answer.at("/keys").as_array().unwrap().len(), 3);
    issuer.fails(issuer::Fault::Down);
    let mut client = connect(issuer.address(), Via::H1).await;
    assert!(client.try_send(get("/keys")).await.is_err());
    assert_eq!((issuer.fetches(), issuer.discoveries()), (2, 0));
}

#[test]
fn statuses_are_read_out_of_bytes() {
    let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 400 Bad\r\n\r\n";
    assert_eq!(raw::statuses(bytes), [200, 400]);
}
