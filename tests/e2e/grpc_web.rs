//! gRPC-Web: translated where a route says so, in binary and in base64, and passed on where it does not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use vestibule::demo::client::rpc::Wire;

use crate::grpc::{client, count_down, demo, in_front_of, say_hello};
use crate::matrix;
use crate::support::body;
use crate::support::client::{Told, Via, call, post, refused};
use crate::support::gateway::{conf, open_to};
use crate::support::origin::{self, Reply};

const TRANSLATE: &str = "grpc_web = \"translate\"\ncors = { origins = [\"https://app.example\"] }";
const FRAME: &[u8] = b"\0\0\0\0\x04ping";

#[tokio::test]
async fn every_call_answers_as_native_grpc_does() {
    let backend = demo().await;
    let gateway = in_front_of(&backend, TRANSLATE).run().await;
    for via in Via::ALL {
        for wire in [Wire::Web, Wire::WebText] {
            let mut client = client(&gateway, via).await;
            let call = say_hello(&mut client, via, wire, "World").await;
            assert_eq!(
                (call.http.as_u16(), call.status),
                (200, Some(0)),
                "{via:?} {wire:?}"
            );
            assert_eq!(
                (
                    call.messages[0].message.as_str(),
                    call.messages[0].user.as_str()
                ),
                ("Hello, World!", "")
            );
            // The suffix is the backend's: `+proto` may be left out.
            let told = call.headers["content-type"].to_str().unwrap();
            let (family, _) = wire.content_type().split_once('+').unwrap();
            assert_eq!(told.split('+').next(), Some(family), "{wire:?}");
            assert_eq!(call.headers["x-echo-a"], "1");

            // A long message crosses every frame and base64 boundary.
            let long = "x".repeat(100_001);
            let call = say_hello(&mut client, via, wire, &long).await;
            assert_eq!(call.messages[0].message.len(), 100_001 + 8);

            let call = say_hello(&mut client, via, wire, "").await;
            assert_eq!(
                (call.http.as_u16(), call.status, call.messages.len()),
                (200, Some(3), 0)
            );

            let call = count_down(&mut client, via, wire, 20, 0).await;
            assert_eq!((call.status, call.messages.len()), (Some(0), 21));

            let call = count_down(&mut client, via, wire, 5, 2).await;
            assert_eq!((call.status, call.messages.len()), (Some(10), 3));
        }
    }
    gateway.settled().await;
}

#[tokio::test]
async fn the_backend_sees_native_grpc() {
    for speaks in [origin::Speaks::H2c, origin::Speaks::H2] {
        let reply = Reply::chunks([FRAME])
            .header("content-type", "application/grpc")
            .trailer("grpc-status", "0")
            .trailer("x-sum", "7");
        let origin = origin::speaking(speaks).reply(reply).run().await;
        let gateway =
            conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\ngrpc_web = \"translate\"")
                .upstream("api", &origin)
                .run()
                .await;
        for via in Via::ALL {
            let ask = post("/s.S/M", FRAME)
                .header("content-type", "application/grpc-web+proto")
                .header("x-grpc-web", "1")
                .header("x-user-agent", "grpc-web-javascript/0.1");
            let answer = gateway.send(via, ask).await;
            assert_eq!(answer.header("content-type"), "application/grpc-web");
            assert_eq!(&answer.body[..FRAME.len()], FRAME);
            let trailers = &answer.body[FRAME.len()..];
            assert_eq!(trailers[0], 0x80);
            let block = String::from_utf8_lossy(&trailers[5..]);
            assert!(
                block.contains("grpc-status: 0\r\n") && block.contains("x-sum: 7\r\n"),
                "{block}"
            );
            assert!(answer.trailers.is_empty());
            let seen = origin.last();
            assert_eq!(
                (seen.header("content-type"), seen.header("te")),
                ("application/grpc+proto", "trailers")
            );
            assert_eq!(seen.body, FRAME);
            assert!(!seen.has("x-grpc-web") && !seen.has("content-length"));
        }
    }
}

#[tokio::test]
async fn text_may_be_cut_anywhere_and_padded_in_the_middle() {
    let origin = origin::h2c()
        .reply(
            Reply::empty(200)
                .header("content-type", "application/grpc")
                .header("grpc-status", "0"),
        )
        .run()
        .await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\ngrpc_web = \"translate\"")
        .upstream("api", &origin)
        .run()
        .await;
    let padded = STANDARD.encode(&FRAME[..4]) + &STANDARD.encode(&FRAME[4..]);
    for size in [1, 2, 3, 5, 64] {
        let pieces: Vec<_> = padded
            .as_bytes()
            .chunks(size)
            .map(bytes::Bytes::copy_from_slice)
            .collect();
        let ask = post("/s.S/M", "")
            .header("content-type", "application/grpc-web-text")
            .body(body::chunks(pieces, None));
        let answer = gateway.ask(ask).await;
        assert_eq!(origin.last().body, FRAME, "{size}");
        let decoded = STANDARD.decode(&answer.body).unwrap();
        assert_eq!(
            (decoded[0], &decoded[5..]),
            (0x80, &b"grpc-status: 0\r\n"[..])
        );
    }
}

matrix! {
    async fn without_translation_every_byte_passes(via, speaks) {
        let answer_bytes: &[u8] = b"\0\0\0\0\x01a\x80\0\0\0\x10grpc-status: 0\r\n";
        let reply = Reply::text(answer_bytes).header("content-type", "application/grpc-web+proto");
        let origin = origin::speaking(speaks).reply(reply).run().await;
        let gateway = open_to(&origin).run().await;
        let ask = post("/s.S/M", FRAME).header("content-type", "application/grpc-web+proto").header("x-grpc-web", "1");
        let answer = gateway.send(via, ask).await;
        assert_eq!(&answer.body[..], answer_bytes);
        assert_eq!((origin.only().body.as_ref(), origin.only().header("x-grpc-web")), (FRAME, "1"));
    }
}

#[tokio::test]
async fn refusals_travel_in_the_trailers_frame() {
    let origin = origin::h2c().run().await;
    let gateway = conf(
        r#"
        [[route]]
        path = "/s.Limited/M"
        auth = "none"
        limits = ["slow"]
        upstream = "api"
        grpc_web = "translate"
        cors = { origins = ["https://app.example"] }
        [limit.slow]
        rate = "1/h"
        burst = 1
        [[route]]
        path = "/s.Closed/M"
        auth = "deny"
        [[route]]
        path = "/s.Gone/M"
        auth = "none"
        upstream = "gone"
        grpc_web = "translate"
    "#,
    )
    .upstream("api", &origin)
    .upstream_at("gone", "h2c", crate::support::raw::nowhere().await, "")
    .run()
    .await;
    let web = |path: &str| {
        post(path, FRAME)
            .header("content-type", "application/grpc-web+proto")
            .header("origin", "https://app.example")
    };
    gateway.ask(web("/s.Limited/M")).await;
    for (path, status, code) in [
        ("/s.Limited/M", 8, "rate_limited"),
        ("/s.Closed/M", 12, "route_closed"),
        ("/s.None/M", 12, "no_route"),
        ("/s.Gone/M", 14, "upstream_unreachable"),
    ] {
        for via in [Via::H1, Via::TlsH2] {
            let answer = gateway.send(via, web(path)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.body[0]),
                (200, 0x80),
                "{path}"
            );
            let block = answer.text();
            assert!(
                block.contains(&format!("grpc-status: {status}\r\n")) && block.contains(code),
                "{path}: {block}"
            );
        }
    }
    let answer = gateway.ask(web("/s.Limited/M")).await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://app.example"
    );
    assert!(
        answer
            .header("access-control-expose-headers")
            .contains("grpc-status")
    );
    let text = post("/s.Closed/M", "").header("content-type", "application/grpc-web-text");
    let answer = gateway.ask(text).await;
    assert_eq!(STANDARD.decode(&answer.body).unwrap()[0], 0x80);
}

#[tokio::test]
async fn what_cannot_be_translated_is_refused() {
    let origin = origin::h2c().run().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\ngrpc_web = \"translate\"")
        .upstream("api", &origin)
        .run()
        .await;
    let web =
        |body: &'static [u8]| post("/s.S/M", body).header("content-type", "application/grpc-web");
    let encoded = web(FRAME).header("content-encoding", "gzip");
    assert!(gateway.ask(encoded).await.text().contains("bad_grpc_web"));
    let get = call("GET", "/s.S/M").header("content-type", "application/grpc-web");
    assert!(gateway.ask(get).await.text().contains("method_refused"));
    assert!(origin.saw_nothing());
    // A client cannot slip in a trailers frame, half a frame, or what is no base64.
    for bad in [
        &b"\x80\0\0\0\x10grpc-status: 0\r\n"[..],
        b"\0\0\0\0\x09ping",
        b"\x02\0\0\0\0",
    ] {
        let answer = gateway.ask(web(bad)).await;
        assert!(
            answer.text().contains("bad_body"),
            "{bad:?}: {:?}",
            answer.text()
        );
    }
    let text = post("/s.S/M", "AAAA*AAA").header("content-type", "application/grpc-web-text");
    let answer = gateway.ask(text).await;
    let told = STANDARD.decode(&answer.body).unwrap();
    assert!(String::from_utf8_lossy(&told).contains("bad_body"));
    assert!(
        origin.saw().iter().all(|seen| !seen.whole),
        "{:?}",
        origin.saw()
    );
}

#[tokio::test]
async fn plain_requests_of_a_translating_route_pass_as_they_are() {
    let origin = origin::h2c().run().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\ngrpc_web = \"translate\"")
        .upstream("api", &origin)
        .run()
        .await;
    let answer = gateway
        .ask(post("/x", "{}").header("content-type", "application/json"))
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "hello")
    );
    assert_eq!(origin.last().header("content-type"), "application/json");
    let missing = gateway.ask(call("BREW", "/x")).await;
    assert_eq!(missing.verdict(), refused(405, "method_refused"));
}
