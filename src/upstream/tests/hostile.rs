//! Endpoints that do not speak HTTP as they should.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::support::{cluster, eventually, exchange, get, origin, read, read_head, says, send};
use crate::authz::permit::for_tests;
use crate::types::Reason;
use crate::upstream::{Fault, Forward, Pools};

#[tokio::test]
async fn malformed_answers_are_502_and_their_connections_are_not_used_again() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        "hello\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 99 Odd\r\ncontent-length: 0\r\n\r\n",
    ] {
        let origin = says(answer).await;
        let cluster = cluster(&[origin.url("http")], "");
        let pools = Pools::new();
        for turn in 1..=3 {
            let refusal = send(&pools, &cluster, get()).await.unwrap_err();
            assert_eq!(refusal.reason(), Reason::UpstreamMalformed, "{answer}");
            assert_eq!(origin.connections(), turn, "{answer}");
        }
        assert_eq!((pools.connections(), cluster.in_flight()), (0, 0));
        assert_eq!(cluster.failures(Fault::Malformed), 3);
    }
}

#[tokio::test]
async fn a_head_of_a_mebibyte_is_502() {
    for line in [
        "x-filler: 0123456789012345678901234567890123456789\r\n",
        "x",
    ] {
        let origin = origin(move |mut stream, _| async move {
            read_head(&mut stream).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\n{}",
                line.repeat(1024 * 1024 / line.len())
            );
            let _ = stream.write_all(head.as_bytes()).await;
        })
        .await;
        let cluster = cluster(&[origin.url("http")], "");
        let refusal = send(&Pools::new(), &cluster, get()).await.unwrap_err();
        assert_eq!(refusal.reason(), Reason::UpstreamMalformed);
    }
}

#[tokio::test]
async fn a_head_of_more_than_32_kib_is_502_in_both_protocols() {
    let filler = "x".repeat(33 * 1024);
    let value = filler.clone();
    let h1 = origin(move |mut stream, _| {
        let answer = format!("HTTP/1.1 200 OK\r\nx: {value}\r\ncontent-length: 0\r\n\r\n");
        async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let h2 = origin(move |stream, _| {
        let value = filler.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let answer = http::Response::builder().header("x", &value);
                let _ = respond.send_response(answer.body(()).unwrap(), true);
            }
        }
    })
    .await;
    for url in [h1.url("http"), h2.url("h2c")] {
        let cluster = cluster(&[url], "");
        let refusal = send(&Pools::new(), &cluster, get()).await.unwrap_err();
        assert_eq!(
            refusal.reason(),
            Reason::UpstreamMalformed,
            "{}",
            refusal.detail()
        );
    }
}

#[tokio::test]
async fn a_bad_chunk_ends_the_body_with_an_error_and_the_connection() {
    for chunk in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX",
        "0x5\r\nhello\r\n0\r\n\r\n",
    ] {
        let origin = origin(move |mut stream, _| async move {
            read_head(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(chunk.as_bytes()).await;
            while read_head(&mut stream).await.is_some() {}
        })
        .await;
        let cluster = cluster(&[origin.url("http")], "");
        let pools = Pools::new();
        match send(&pools, &cluster, get()).await {
            Ok((response, _)) => assert!(read(response.into_body()).await.is_err(), "{chunk}"),
            Err(refusal) => assert_eq!(refusal.reason(), Reason::UpstreamMalformed),
        }
        assert_eq!((pools.connections(), cluster.in_flight()), (0, 0));
    }
}

#[tokio::test]
async fn more_bytes_than_the_stated_length_never_reach_the_client() {
    let origin = says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhello").await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    let (_, text, _) = exchange(&pools, &cluster, get()).await.unwrap();
    assert_eq!((text.as_str(), pools.connections()), ("he", 0));
}

#[tokio::test]
async fn an_http_1_0_answer_leaves_as_ours() {
    let origin = origin(|mut stream, _| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.0 200 Fine By Me\r\n\r\nhello";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let cluster = cluster(&[origin.url("http")], "");
    let (response, _) = send(&Pools::new(), &cluster, get()).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_11);
    assert!(response.extensions().is_empty());
    assert_eq!(read(response.into_body()).await.unwrap().0, "hello");
}

#[tokio::test]
async fn endless_interim_answers_are_given_up_at_the_deadline() {
    let origin = origin(|mut stream, _| async move {
        read_head(&mut stream).await;
        let hint = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n".repeat(100);
        while stream.write_all(&hint).await.is_ok() {}
    })
    .await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    let options = Forward {
        timeout: Duration::from_millis(200),
        fate: None,
    };
    let refusal = pools
        .forward(for_tests(), &cluster, &mut get(), &options)
        .await
        .unwrap_err();
    assert_eq!(refusal.why.reason(), Reason::UpstreamTimeout);
    assert_eq!(pools.connections(), 0);
    eventually("what was given up has ended", || cluster.in_flight() == 0).await;
}

#[tokio::test]
async fn trailers_of_a_mebibyte_end_the_body_with_an_error() {
    let origin = origin(|mut stream, _| async move {
        read_head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ";
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&vec![b'x'; 1 << 20]).await;
    })
    .await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    match send(&pools, &cluster, get()).await {
        Ok((response, _)) => assert!(read(response.into_body()).await.is_err()),
        Err(refusal) => assert_eq!(refusal.reason(), Reason::UpstreamMalformed),
    }
    assert_eq!((pools.connections(), cluster.in_flight()), (0, 0));
}

#[tokio::test]
async fn what_follows_an_answer_without_a_body_is_nobodys_answer() {
    for answer in [
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 6\r\n\r\npoison",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    ] {
        let origin = says(answer).await;
        let cluster = cluster(&[origin.url("http")], "");
        let pools = Pools::new();
        for _ in 0..5 {
            match exchange(&pools, &cluster, get()).await {
                Ok((_, text, _)) => assert_eq!(text, "", "{answer}"),
                Err(refusal) => assert_eq!(refusal.reason().status(), 502, "{answer}"),
            }
        }
    }
}
