//! Which connections are used again, and which must not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use tokio::io::AsyncWriteExt;

use super::support::{
    Scripted, cluster, eventually, exchange, from_client, get, h2_origin, origin, post, read,
    read_head, request, says, send,
};
use crate::types::{Body, Reason};
use crate::upstream::Pools;

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_connection_is_used_again() {
    let origin = says(HELLO).await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    for turn in 0..5 {
        let (status, text, facts) = exchange(&pools, &cluster, get()).await.unwrap();
        assert_eq!((status, text.as_str()), (200, "hello"));
        assert_eq!(facts.reused, turn > 0);
        assert_eq!(facts.connect.is_some(), turn == 0);
        assert_eq!(facts.attempts, 1);
        assert_eq!(&*facts.endpoint, origin.url("http"));
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(cluster.requests().count(), 5);
    assert_eq!(cluster.endpoints()[0].connects().count(), 1);
    assert_eq!(cluster.in_flight(), 0);
}

#[tokio::test]
async fn a_chunked_answer_gives_its_connection_back() {
    let origin =
        says("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    for _ in 0..3 {
        let (_, text, _) = exchange(&pools, &cluster, get()).await.unwrap();
        assert_eq!(text, "hello");
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn answers_without_body_give_their_connection_back_at_once() {
    for (method, answer) in [
        (
            Method::HEAD,
            "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n",
        ),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            Method::GET,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5000\r\n\r\n",
        ),
        (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let origin = says(answer).await;
        let cluster = cluster(&[origin.url("http")], "");
        let pools = Pools::new();
        let (first, _) = send(&pools, &cluster, request(method.clone(), Body::empty()))
            .await
            .unwrap();
        assert!(first.body().is_empty());
        assert_eq!(pools.connections(), 1, "{answer}");
        let second = send(&pools, &cluster, request(method, Body::empty())).await;
        assert!(second.unwrap().1.reused);
        drop(first);
        assert_eq!(origin.connections(), 1);
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let origin = says(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    )
    .await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    for _ in 0..2 {
        let (status, text, _) = exchange(&pools, &cluster, get()).await.unwrap();
        assert_eq!((status, text.as_str()), (200, "hello"));
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn surplus_bytes_after_an_answer_end_the_connection() {
    let origin = says(
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    )
    .await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    for turn in 1..=5 {
        let (_, text, facts) = exchange(&pools, &cluster, get()).await.unwrap();
        assert_eq!(text, "hello");
        assert!(!facts.reused);
        assert_eq!(origin.connections(), turn);
    }
}

#[tokio::test]
async fn a_body_that_was_not_read_to_its_end_ends_the_connection() {
    let origin = says("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello").await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    let (response, _) = send(&pools, &cluster, get()).await.unwrap();
    assert_eq!(cluster.in_flight(), 1);
    drop(response);
    assert_eq!(pools.connections(), 0);
    eventually("what was given up has ended", || cluster.in_flight() == 0).await;
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_body_ends_the_connection() {
    let origin = says(HELLO).await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    let body = from_client(Scripted::default().data("half").endless()).await;
    let (status, text, _) = exchange(&pools, &cluster, request(Method::POST, body))
        .await
        .unwrap();
    assert_eq!((status, text.as_str()), (200, "hello"));
    assert_eq!(pools.connections(), 0);
}

#[tokio::test]
async fn a_connection_that_the_endpoint_closed_is_not_used_again() {
    let origin = origin(|mut stream, _| async move {
        read_head(&mut stream).await;
        stream.write_all(HELLO.as_bytes()).await.unwrap();
    })
    .await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    for turn in 1..=2 {
        let (status, ..) = exchange(&pools, &cluster, post("once")).await.unwrap();
        assert_eq!(status, 200);
        assert_eq!(origin.connections(), turn);
        eventually("noticed", || pools.connections() == 0).await;
    }
}

#[tokio::test]
async fn connection_close_is_obeyed() {
    let origin =
        says("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello").await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    exchange(&pools, &cluster, get()).await.unwrap();
    assert_eq!(pools.connections(), 0);
}

#[tokio::test]
async fn idle_connections_are_swept() {
    let origin = says(HELLO).await;
    let cluster = cluster(&[origin.url("http")], "idle_timeout = \"10ms\"");
    let pools = Pools::new();
    exchange(&pools, &cluster, get()).await.unwrap();
    assert_eq!(pools.connections(), 1);
    eventually("swept", || pools.connections() == 0).await;
}

#[tokio::test]
async fn the_connections_of_an_endpoint_that_is_gone_are_closed() {
    let origin = says(HELLO).await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    exchange(&pools, &cluster, get()).await.unwrap();
    drop(cluster);
    eventually("closed", || pools.connections() == 0).await;
}

#[tokio::test]
async fn connections_to_an_address_that_the_name_left_are_not_used_again() {
    let origin = says(HELLO).await;
    let url = format!("http://localhost:{}", origin.address.port());
    let cluster = cluster(&[url], "");
    let endpoint = &cluster.endpoints()[0];
    assert!(!endpoint.is_resolved());
    endpoint.learn_addresses(vec![origin.address]);
    let pools = Pools::new();
    exchange(&pools, &cluster, get()).await.unwrap();
    let elsewhere = says(HELLO).await;
    endpoint.learn_addresses(vec![elsewhere.address]);
    exchange(&pools, &cluster, get()).await.unwrap();
    assert_eq!(elsewhere.connections(), 1);
    endpoint.learn_addresses(Vec::new());
    exchange(&pools, &cluster, get()).await.unwrap();
    assert_eq!((origin.connections(), elsewhere.connections()), (1, 1));
}

#[tokio::test]
async fn requests_share_an_h2_connection() {
    let origin = h2_origin(100, |request| async move {
        assert_eq!(request.uri(), "http://public.example/path?query");
        assert!(!request.headers().contains_key("host"));
        http::Response::new(Scripted::default().data("hello"))
    })
    .await;
    let cluster = cluster(&[origin.url("h2c")], "");
    let pools = Pools::new();
    let answers = (0..20).map(|_| {
        let (pools, cluster) = (pools.clone(), Arc::clone(&cluster));
        crate::types::task::spawn("client", async move {
            exchange(&pools, &cluster, get()).await.unwrap().1
        })
    });
    let answers: Vec<_> = answers.collect();
    for answer in answers {
        assert_eq!(answer.await.unwrap(), "hello");
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(cluster.in_flight(), 0);
}

#[tokio::test]
async fn another_h2_connection_is_opened_when_the_first_is_nearly_full() {
    let origin = h2_origin(5, |_| async {
        http::Response::new(Scripted::default().data("hello").endless())
    })
    .await;
    let cluster = cluster(&[origin.url("h2c")], "");
    let pools = Pools::new();
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(send(&pools, &cluster, get()).await.unwrap());
    }
    assert_eq!(origin.connections(), 2);
    drop(open);
    let (response, facts) = send(&pools, &cluster, get()).await.unwrap();
    assert!(facts.reused);
    drop(response);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_burst_opens_one_h2_connection_and_its_failure_is_shared() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);
    let cluster = cluster(&[format!("h2c://{dead}")], "retries = 0");
    let pools = Pools::new();
    let tries: Vec<_> = (0..10)
        .map(|_| {
            let (pools, cluster) = (pools.clone(), Arc::clone(&cluster));
            crate::types::task::spawn("client", async move {
                send(&pools, &cluster, get()).await.unwrap_err().reason()
            })
        })
        .collect();
    for answer in tries {
        let reason = answer.await.unwrap();
        assert!(matches!(
            reason,
            Reason::UpstreamUnreachable | Reason::NoEndpoint
        ));
    }
    assert_eq!(cluster.endpoints()[0].connect_failures().count(), 1);
}

#[tokio::test]
async fn a_goaway_moves_requests_to_a_new_connection() {
    let origin = origin(|stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        if let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond
                .send_response(http::Response::new(()), false)
                .unwrap();
            body.send_data(bytes::Bytes::from_static(b"hello"), true)
                .unwrap();
        }
        connection.graceful_shutdown();
        while connection.accept().await.is_some() {}
    })
    .await;
    let cluster = cluster(&[origin.url("h2c")], "");
    let pools = Pools::new();
    for _ in 0..4 {
        let (_, text, _) = exchange(&pools, &cluster, get()).await.unwrap();
        assert_eq!(text, "hello");
    }
    assert!(origin.connections() >= 2);
}

#[tokio::test]
async fn a_refused_stream_is_sent_again() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refusals);
    let origin = origin(move |stream, _| {
        let count = Arc::clone(&count);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                if count.fetch_add(1, Ordering::SeqCst) == 0 {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                } else {
                    respond
                        .send_response(http::Response::new(()), true)
                        .unwrap();
                }
            }
        }
    })
    .await;
    let cluster = cluster(&[origin.url("h2c")], "");
    let pools = Pools::new();
    let (response, facts) = send(&pools, &cluster, get()).await.unwrap();
    assert_eq!((response.status().as_u16(), facts.attempts), (200, 2));
    assert_eq!(refusals.load(Ordering::SeqCst), 2);
    assert_eq!(cluster.retries().count(), 1);
}

#[tokio::test]
async fn a_dropped_body_of_a_shared_connection_leaves_the_connection_alone() {
    let origin = h2_origin(100, |_| async {
        http::Response::new(Scripted::default().data("hello").endless())
    })
    .await;
    let cluster = cluster(&[origin.url("h2c")], "");
    let pools = Pools::new();
    for _ in 0..5 {
        let (response, _) = send(&pools, &cluster, get()).await.unwrap();
        drop(response);
    }
    assert_eq!((origin.connections(), pools.connections()), (1, 1));
    eventually("what was given up has ended", || cluster.in_flight() == 0).await;
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    let origin = h2_origin(100, |request| async move {
        let (text, trailers) = read(Body::incoming(request.into_body())).await.unwrap();
        assert_eq!(text, "ping");
        assert_eq!(trailers.unwrap()["x-sum"], "1");
        http::Response::new(Scripted::default().data("pong").trailer("grpc-status", "0"))
    })
    .await;
    let cluster = cluster(&[origin.url("h2c")], "");
    let pools = Pools::new();
    let body = from_client(Scripted::default().data("ping").trailer("x-sum", "1")).await;
    let (response, _) = send(&pools, &cluster, request(Method::POST, body))
        .await
        .unwrap();
    let (text, trailers) = read(response.into_body()).await.unwrap();
    assert_eq!(text, "pong");
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
}
