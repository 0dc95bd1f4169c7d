//! Compression: what is compressed, how it reads back, and what is left alone.

use std::io::Read;

use crate::matrix;
use crate::support::client::{Answer, Call, Via, call, get, post};
use crate::support::gateway::{Builder, conf};
use crate::support::origin::{self, Origin, Reply, data, gate};
use crate::support::soon;

fn page() -> String {
    "<p>the same again and again</p>\n".repeat(200)
}

fn html() -> Reply {
    Reply::text(page())
        .header("content-type", "text/html; charset=utf-8")
        .header("etag", "\"v1\"")
}

fn compressing(origin: &Origin) -> Builder {
    conf(
        r#"
        [[route]]
        path = "/*"
        auth = "none"
        upstream = "api"
        compress = ["text/*"]
        [[route]]
        path = "/private/*"
        auth = "none"
        upstream = "api"
        compress = ["text/*"]
        compress_private = true
        [[route]]
        path = "/off"
        auth = "none"
        upstream = "api"
    "#,
    )
    .upstream("api", origin)
}

fn accepting(path: &str, codings: &str) -> Call {
    get(path).header("accept-encoding", codings)
}

fn read(answer: &Answer) -> String {
    let (mut text, body) = (String::new(), &answer.body[..]);
    let read = match answer.header("content-encoding") {
        "zstd" => zstd::stream::read::Decoder::new(body)
            .unwrap()
            .read_to_string(&mut text),
        "br" => brotli::Decompressor::new(body, 4096).read_to_string(&mut text),
        "gzip" => flate2::read::GzDecoder::new(body).read_to_string(&mut text),
        other => panic!("{other:?}"),
    };
    read.unwrap();
    text
}

matrix! {
    async fn answers_read_back_in_every_coding(via, speaks) {
        let origin = origin::speaking(speaks).reply(html()).run().await;
        let gateway = compressing(&origin).run().await;
        let mut client = gateway.connect(via).await;
        for (codings, coding) in [("gzip, deflate, br, zstd", "zstd"), ("br, gzip", "br"), ("gzip", "gzip")] {
            let answer = client.send(accepting("/page", codings)).await;
            assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, coding));
            assert_eq!(read(&answer), page());
            assert!(answer.body.len() < 500, "{}", answer.body.len());
            assert_eq!((answer.header("etag"), answer.header("vary")), ("W/\"v1\"", "Accept-Encoding"));
        }
        // Who asks for nothing gets the bytes, and a cache is told that others may not.
        let answer = client.send(get("/page")).await;
        assert_eq!((answer.text(), answer.header("etag"), answer.header("vary")), (page(), "\"v1\"", "Accept-Encoding"));
        assert!(!answer.headers.contains_key("content-encoding"));
    }
}

#[tokio::test]
async fn what_is_for_one_caller_is_left_alone() {
    let origin = origin::http()
        .reply(html())
        .path("/sets", html().header("set-cookie", "a=1"))
        .path("/own", html().header("cache-control", "private"))
        .path("/private/sets", html().header("set-cookie", "a=1"))
        .run()
        .await;
    let gateway = compressing(&origin).run().await;
    let all = "gzip, br, zstd";
    for call in [
        accepting("/page", all).header("cookie", "sid=1"),
        accepting("/page", all).bearer("x"),
        accepting("/sets", all),
        accepting("/own", all),
        accepting("/off", all),
    ] {
        let answer = gateway.send(Via::TlsH2, call).await;
        assert_eq!(answer.header("content-encoding"), "");
        assert_eq!(answer.text(), page());
    }
    let opted_in = accepting("/private/sets", all).header("cookie", "sid=1");
    let answer = gateway.send(Via::TlsH2, opted_in).await;
    assert_eq!(answer.header("content-encoding"), "zstd");
    assert_eq!(read(&answer), page());
}

#[tokio::test]
async fn what_is_no_plain_whole_answer_is_left_alone() {
    let origin = origin::http()
        .reply(html())
        .path(
            "/small",
            Reply::text("x").header("content-type", "text/plain"),
        )
        .path("/encoded", html().header("content-encoding", "br"))
        .path("/kept", html().header("cache-control", "no-transform"))
        .path(
            "/picture",
            html().header("content-type", "image/png").status(404),
        )
        .path("/lost", html().status(404))
        .run()
        .await;
    let gateway = compressing(&origin).run().await;
    for path in ["/small", "/encoded", "/kept", "/picture", "/lost"] {
        let answer = gateway.ask(accepting(path, "gzip")).await;
        let encoded = if path == "/encoded" { "br" } else { "" };
        assert_eq!(answer.header("content-encoding"), encoded, "{path}");
    }
    let head = call("HEAD", "/page").header("accept-encoding", "gzip");
    let head = gateway.ask(head).await;
    assert_eq!(head.header("content-encoding"), "");
    assert_eq!(head.header("content-length"), page().len().to_string());
    let ranged = accepting("/page", "gzip").header("range", "bytes=0-3");
    assert_eq!(gateway.ask(ranged).await.header("content-encoding"), "");
    let rpc = post("/s.S/M", "x").header("content-type", "application/grpc");
    let rpc = rpc.header("accept-encoding", "gzip");
    assert_eq!(gateway.ask(rpc).await.header("content-encoding"), "");
}

/// An event that waited for the next one would be late by as much.
#[tokio::test]
async fn events_leave_as_they_come() {
    let gate = gate();
    let reply = Reply::two_halves("data: one\n\n", &gate, "data: two\n\n")
        .header("content-type", "text/event-stream");
    let origin = origin::http().reply(reply).run().await;
    let gateway = compressing(&origin).run().await;
    let mut client = gateway.connect(Via::H2c).await;
    let mut response = client.start(accepting("/events", "gzip")).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let mut whole = Vec::new();
    let mut text = String::new();
    while text.is_empty() {
        let frame = http_body_util::BodyExt::frame(response.body_mut());
        whole.extend(data(soon("an event", frame).await.unwrap().unwrap()));
        // Cut off as it is, the decoder gives what it has, and then an error.
        let mut decoder = flate2::read::GzDecoder::new(&whole[..]);
        let mut byte = [0];
        while decoder.read(&mut byte).is_ok_and(|read| read == 1) {
            text.push(char::from(byte[0]));
        }
    }
    assert_eq!(text, "data: one\n\n");
    gate.open();
}

#[test]
fn what_makes_no_sense_is_found_at_load() {
    for (kind, why) in [
        ("text", "no media type"),
        ("application/grpc", "compressed one by one"),
        ("image/*", "compressed already"),
    ] {
        let conf = conf(&format!(
            "[[route]]\nauth = \"none\"\nrespond = {{ status = 200 }}\ncompress = [\"{kind}\"]"
        ));
        let told = conf.try_run().unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
    }
}
