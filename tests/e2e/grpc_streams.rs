//! gRPC, byte for byte: metadata, large messages, flow control from end to end, cancellation in both directions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::BodyExt;

use crate::matrix;
use crate::support::client::{Call, Via, collect, fields, post};
use crate::support::gateway::{Gateway, conf, open_to};
use crate::support::origin::{self, Reply};
use crate::support::{body, eventually, raw, soon, streams};

const GRPC: &str = "application/grpc+proto";

fn rpc(payload: impl Into<Bytes>) -> Call {
    post("/s.S/M", payload)
        .header("content-type", GRPC)
        .header("te", "trailers")
}

/// A message of gRPC with so many bytes, none like its neighbours.
fn message(size: usize) -> Bytes {
    let mut frame = vec![0];
    frame.extend(u32::try_from(size).unwrap().to_be_bytes());
    frame.extend((0..size).map(|at| (at * 31 + at / 251).to_le_bytes()[0]));
    frame.into()
}

/// Metadata of several values stays as many, what is joined stays joined; binary is base64 that nobody touches, padded
/// or not. The same in heads and trailers.
#[tokio::test]
async fn metadata_passes_as_it_came() {
    for speaks in [origin::Speaks::H2c, origin::Speaks::H2] {
        let reply = Reply::chunks([message(3)])
            .header("content-type", GRPC)
            .header("x-head-bin", "AAEC,AwQF")
            .header("x-head-bin", "/+8=")
            .header("x-plain", "a, b")
            .trailer("grpc-status", "0")
            .trailer("grpc-message", "%E2%82%AC")
            .trailer("grpc-status-details-bin", "CAASAA")
            .trailer("x-tail-bin", "AAE,AgM=")
            .trailer("x-tail-bin", "");
        let origin = origin::speaking(speaks).reply(reply).run().await;
        let gateway = open_to(&origin).run().await;
        for via in [Via::H2c, Via::TlsH2] {
            let call = rpc(message(2))
                .header("x-one-bin", "AAEC,AwQF")
                .header("x-one-bin", "/+8=")
                .header("x-empty-bin", "")
                .header("x-plain", "a, b")
                .header("grpc-accept-encoding", "gzip,identity")
                .header("grpc-encoding", "identity");
            let answer = gateway.send(via, call).await;
            let seen = origin.last();
            assert_eq!(seen.all("x-one-bin"), ["AAEC,AwQF", "/+8="]);
            assert_eq!(
                (seen.all("x-empty-bin"), seen.header("x-plain")),
                (vec![""], "a, b")
            );
            assert_eq!(seen.header("grpc-accept-encoding"), "gzip,identity");
            assert_eq!(
                (seen.header("te"), seen.header("content-type")),
                ("trailers", GRPC)
            );
            assert_eq!(seen.body, message(2));
            let head: Vec<_> = answer.headers.get_all("x-head-bin").iter().collect();
            assert_eq!(head, ["AAEC,AwQF", "/+8="]);
            let tail: Vec<_> = answer.trailers.get_all("x-tail-bin").iter().collect();
            assert_eq!(tail, ["AAE,AgM=", ""]);
            let expected = fields(&[
                ("grpc-status", "0"),
                ("grpc-message", "%E2%82%AC"),
                ("grpc-status-details-bin", "CAASAA"),
            ]);
            for (name, value) in &expected {
                assert_eq!(&answer.trailers[name], value);
            }
            assert_eq!(answer.body, message(3));
        }
    }
}

matrix! {
    /// REST gateways answer `te: trailers` with trailers that hang clients; gRPC servers demand it.
    async fn te_is_for_grpc_alone(via, speaks) {
        let origin = origin::speaking(speaks).reply(Reply::empty(200)).run().await;
        let gateway = open_to(&origin).run().await;
        let mut client = gateway.connect(via).await;
        for kind in ["application/json", "application/grpc-web+proto", "application/connect+proto", "application/grpcx"] {
            client.send(post("/x", "").header("content-type", kind).header("te", "trailers")).await;
            assert!(!origin.last().has("te"), "{kind}");
        }
        client.send(post("/x", "").header("content-type", "application/grpc").header("te", "trailers")).await;
        let expected = if speaks.is_h2() { "trailers" } else { "" };
        assert_eq!(origin.last().header("te"), expected);
    }
}

/// A message that says it is compressed: how is the affair of both ends, and nobody's between.
fn compressed(text: &[u8]) -> Bytes {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, text).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut frame = vec![1];
    frame.extend(u32::try_from(gzip.len()).unwrap().to_be_bytes());
    frame.extend(gzip);
    frame.into()
}

/// Compressed and plain messages by turns, and a head that names the coding: byte for byte, as native gRPC and through the
/// translation of gRPC-Web in both codings, whatever the route compresses by itself.
#[tokio::test]
async fn compressed_messages_pass_as_they_came() {
    let text = b"the same again and again ".repeat(200);
    let asked = [compressed(&text), message(3), compressed(b"")].concat();
    let told = [message(5), compressed(&text), compressed(b"x")];
    let reply = Reply::chunks(told.clone())
        .header("content-type", GRPC)
        .header("grpc-encoding", "gzip")
        .header("grpc-accept-encoding", "gzip")
        .trailer("grpc-status", "0");
    let origin = origin::h2c().reply(reply).run().await;
    let route = "[[route]]\nauth = \"none\"\nupstream = \"api\"\ngrpc_web = \"translate\"\ncompress = [\"application/*\"]\ncompress_private = true";
    let gateway = conf(route).upstream("api", &origin).run().await;
    let told = told.concat();
    for (via, kind) in [
        (Via::H2c, GRPC),
        (Via::TlsH2, GRPC),
        (Via::H1, "application/grpc-web+proto"),
        (Via::TlsH2, "application/grpc-web+proto"),
        (Via::H1, "application/grpc-web-text"),
    ] {
        let is_text = kind.ends_with("text");
        let body = if is_text {
            BASE64.encode(&asked).into()
        } else {
            asked.clone()
        };
        let call = post("/s.S/M", body)
            .header("content-type", kind)
            .header("te", "trailers")
            .header("grpc-encoding", "gzip")
            .header("grpc-accept-encoding", "gzip, identity")
            .header("accept-encoding", "gzip");
        let answer = gateway.send(via, call).await;
        let seen = origin.last();
        assert_eq!(seen.body, asked, "{kind}");
        let coding =
            ["grpc-encoding", "grpc-accept-encoding"].map(|name| seen.header(name).to_owned());
        assert_eq!(coding, ["gzip", "gzip, identity"], "{kind}");
        assert_eq!(answer.header("grpc-encoding"), "gzip", "{kind}");
        assert_eq!(answer.header("content-encoding"), "", "{kind}");
        let heard = if is_text {
            decoded(&answer.body)
        } else {
            answer.body.to_vec()
        };
        assert_eq!(heard[..told.len()], told, "{kind}");
        let rest = String::from_utf8_lossy(&heard[told.len()..]).into_owned();
        assert_eq!(rest.is_empty(), kind == GRPC, "{kind}: {rest}");
        assert!(rest.is_empty() || rest.contains("grpc-status: 0"), "{rest}");
    }
}

/// Base64 in segments, each with padding of its own.
fn decoded(text: &[u8]) -> Vec<u8> {
    let quads = text.chunks(4).map(|quad| BASE64.decode(quad).unwrap());
    quads.flatten().collect()
}

async fn echoing() -> (origin::Origin, Gateway) {
    let echo = Reply::echo().header("content-type", GRPC);
    let origin = origin::h2c().early("/s.S/M", echo).run().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\nmax_body = \"65MiB\"")
        .upstream("api", &origin)
        .run()
        .await;
    (origin, gateway)
}

#[tokio::test]
async fn messages_of_4_and_of_64_mib_come_back_whole() {
    let (_origin, gateway) = echoing().await;
    for (via, size) in [
        (Via::TlsH2, 4 << 20),
        (Via::H2c, 4 << 20),
        (Via::H2c, 64 << 20),
    ] {
        let sent = message(size);
        let mut client = gateway.connect(via).await;
        let response = client.start(rpc(sent.clone())).await.unwrap();
        let echoed = tokio::time::timeout(Duration::from_secs(60), collect(response));
        let echoed = echoed.await.expect("a minute is enough").unwrap();
        assert!(echoed.body == sent, "{via:?} {size}");
    }
    gateway.settled().await;
}

/// Waits until `count` grows no more, and says where it stopped.
async fn settled_at(count: &AtomicUsize) -> usize {
    let (mut last, mut since) = (0, Instant::now());
    eventually("nothing more is taken", async || {
        let now = count.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        last > 0 && since.elapsed() > Duration::from_millis(300)
    })
    .await;
    last
}

/// Who reads nothing has taken from the backend what fits into the windows and buffers between, and not more.
#[tokio::test]
async fn a_slow_reader_holds_bounded_memory() {
    let taken = Arc::<AtomicUsize>::default();
    let piece = vec![b'x'; 16 << 10];
    let reply = Reply::endless_counted(piece, &taken).header("content-type", GRPC);
    let origin = origin::h2c().reply(reply).run().await;
    let gateway = open_to(&origin).run().await;
    let (mut reader, mut writer) = {
        // A window of 64 KiB for the stream, as RFC 9113 has it by default, and no update to it.
        let mut h2 = raw::h2(gateway.at("plain")).await;
        let block = raw::h2_block(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a.test"),
            (":path", "/s.S/M"),
            ("content-type", "application/grpc"),
        ]);
        h2.send(raw::headers(1, &block)).await;
        h2.into_split()
    };
    let took = settled_at(&taken).await;
    assert!(
        took <= 2 << 20,
        "{took} bytes were taken for a reader of 64 KiB"
    );
    // It is not stuck: what is read is made up for.
    let update = raw::frame(8, 0, 1, &(1_u32 << 20).to_be_bytes());
    let connection = raw::frame(8, 0, 0, &(1_u32 << 20).to_be_bytes());
    let updates = [update, connection].concat();
    tokio::io::AsyncWriteExt::write_all(&mut writer, &updates)
        .await
        .unwrap();
    let drain = tokio::spawn(async move {
        let mut piece = vec![0; 64 << 10];
        while tokio::io::AsyncReadExt::read(&mut reader, &mut piece)
            .await
            .is_ok_and(|read| read > 0)
        {}
    });
    eventually("more is taken", async || {
        taken.load(Ordering::SeqCst) >= took + (512 << 10)
    })
    .await;
    drop(writer);
    drain.abort();
}

/// The same in the other direction: a backend that reads nothing holds the client up, not the gateway's memory.
#[tokio::test]
async fn a_slow_backend_holds_bounded_memory() {
    let mut origin = streams::by_hand().await;
    let gateway = in_front_of(&origin).await;
    let taken = Arc::<AtomicUsize>::default();
    let piece = Bytes::from(vec![b'x'; 16 << 10]);
    let endless = body::endless(piece, Arc::clone(&taken));
    let mut client = gateway.connect(Via::H2c).await;
    let call = rpc("").body(endless);
    let asked = tokio::spawn(async move { client.start(call).await });
    let stream = origin.next().await;
    let took = settled_at(&taken).await;
    assert!(
        took <= 2 << 20,
        "{took} bytes were sent to a backend that reads none"
    );
    asked.abort();
    drop(stream);
}

/// By RFC 9113: 64 KiB a stream, raised to 1 MiB for the connection.
#[tokio::test]
async fn the_windows_are_those_of_the_book() {
    let (_origin, gateway) = echoing().await;
    let mut h2 = raw::h2(gateway.at("plain")).await;
    let (mut stream, mut connection) = (65_535, 65_535_u32);
    while let Some(frame) = h2.next().await {
        match (frame.kind, frame.flags, frame.stream) {
            (4, 0, 0) => {
                for setting in frame.payload.chunks(6) {
                    if setting[..2] == [0, 4] {
                        stream = u32::from_be_bytes(setting[2..].try_into().unwrap());
                    }
                }
            }
            (8, _, 0) => {
                connection += u32::from_be_bytes(frame.payload[..].try_into().unwrap());
            }
            _ => {}
        }
        if connection > 65_535 {
            break;
        }
    }
    assert_eq!((stream, connection), (64 << 10, 1 << 20));
}

async fn in_front_of(origin: &streams::ByHand) -> Gateway {
    let route = "[[route]]\nauth = \"none\"\nupstream = \"api\"\nmax_body = \"64MiB\"";
    let conf = conf(route);
    conf.upstream_at("api", "h2c", origin.address, "")
        .run()
        .await
}

/// Tries, of which the quickest counts: a busy machine delays some, a delay of our own delays all.
const TRIES: usize = 10;
const AT_ONCE: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_client_that_cancels_is_heard_by_the_backend_at_once() {
    let mut origin = streams::by_hand().await;
    let gateway = in_front_of(&origin).await;
    let client = gateway.connect(Via::TlsH2).await;
    let mut quickest = Duration::MAX;
    for is_streaming in [false, true].into_iter().cycle().take(TRIES) {
        let (sender, open) = body::channel();
        let call = rpc(message(1));
        let call = if is_streaming { call.body(open) } else { call };
        let mut other = client.another();
        let asked = tokio::spawn(async move { other.start(call).await });
        let mut stream = origin.next().await;
        let mut answer = stream.answer();
        let mut response = asked.await.unwrap().unwrap();
        answer.send_data(message(1), false).unwrap();
        soon("a message", response.body_mut().frame()).await;
        let before = Instant::now();
        drop(response);
        drop(sender);
        let reason = streams::reset(&mut answer).await;
        quickest = quickest.min(before.elapsed());
        assert_eq!(reason, h2::Reason::CANCEL);
    }
    assert!(quickest <= AT_ONCE, "{quickest:?}");
    gateway.settled().await;
}

#[tokio::test]
async fn a_backend_that_breaks_off_is_heard_by_the_client_at_once() {
    let mut origin = streams::by_hand().await;
    let gateway = in_front_of(&origin).await;
    let client = gateway.connect(Via::TlsH2).await;
    let mut quickest = Duration::MAX;
    for _ in 0..TRIES {
        let (_sender, open) = body::channel();
        let mut other = client.another();
        let asked = tokio::spawn(async move { other.start(rpc("").body(open)).await });
        let mut stream = origin.next().await;
        let mut answer = stream.answer();
        let mut response = asked.await.unwrap().unwrap();
        let before = Instant::now();
        answer.send_reset(h2::Reason::CANCEL);
        let end = soon("the end", response.body_mut().frame()).await;
        quickest = quickest.min(before.elapsed());
        let error = end.unwrap().unwrap_err();
        assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
    }
    assert!(quickest <= AT_ONCE, "{quickest:?}");
    gateway.settled().await;
}

/// The path is what routes: to the method of a service, to the service, to everything else.
#[tokio::test]
async fn calls_are_routed_by_service_and_method() {
    let reply = |name: &'static str| {
        Reply::empty(200)
            .header("content-type", GRPC)
            .header("grpc-status", "0")
            .header("x-from", name)
    };
    let methods = origin::h2c().reply(reply("method")).run().await;
    let services = origin::h2c().reply(reply("service")).run().await;
    let others = origin::h2c().reply(reply("other")).run().await;
    let gateway = conf(
        r#"
        [[route]]
        auth = "none"
        upstream = "others"
        [[route]]
        grpc = "bank.v1.Bank"
        auth = "none"
        upstream = "services"
        [[route]]
        grpc = ["bank.v1.Bank/Close", "bank.v1.Vault/Open"]
        auth = "none"
        upstream = "methods"
    "#,
    )
    .upstream("methods", &methods)
    .upstream("services", &services)
    .upstream("others", &others)
    .run()
    .await;
    for (path, from) in [
        ("/bank.v1.Bank/Close", "method"),
        ("/bank.v1.Vault/Open", "method"),
        ("/bank.v1.Bank/Open", "service"),
        ("/bank.v1.Bank/CloseAll", "service"),
        ("/bank.v1.Bankers/Close", "other"),
        ("/bank.v1.Vault/Close", "other"),
        ("/bank.v1.bank/Close", "other"),
    ] {
        for kind in [GRPC, "application/grpc-web+proto", "application/proto"] {
            let call = post(path, "").header("content-type", kind);
            let answer = gateway.send(Via::H2c, call).await;
            assert_eq!(answer.header("x-from"), from, "{path}");
        }
    }
}
