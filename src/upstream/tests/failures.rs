//! What happens when an endpoint fails, and what must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{
    Scripted, cluster, eventually, exchange, forward, from_client, get, origin, patiently, post,
    read, read_head, request, says, send,
};
use crate::authz::permit::for_tests;
use crate::types::{Body, BodyError, Reason, clock, task};
use crate::upstream::{Fault, Forward, Pools};

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// A URL at which nobody listens.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Answers the first request of each connection, and closes on the second without an answer. Counts requests.
async fn closes_on_reuse() -> (super::support::Origin, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let origin = origin(move |mut stream, _| {
        let count = Arc::clone(&count);
        async move {
            read_head(&mut stream).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let mut body = [0; 4];
            let _ = tokio::time::timeout(Duration::from_millis(5), stream.read(&mut body)).await;
            stream.write_all(HELLO.as_bytes()).await.unwrap();
            if read_head(&mut stream).await.is_some() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    (origin, requests)
}

#[tokio::test]
async fn a_get_lost_on_a_used_connection_is_sent_again() {
    let (origin, requests) = closes_on_reuse().await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    for _ in 0..4 {
        let (status, ..) = exchange(&pools, &cluster, get()).await.unwrap();
        assert_eq!(status, 200);
    }
    assert_eq!(requests.load(Ordering::SeqCst), 7);
    assert_eq!(cluster.retries().count(), 3);
    assert_eq!(cluster.endpoints()[0].ejections().count(), 0);
}

#[tokio::test]
async fn a_post_is_never_sent_twice() {
    let (origin, requests) = closes_on_reuse().await;
    let cluster = cluster(&[origin.url("http")], "retries = 5");
    let pools = Pools::new();
    exchange(&pools, &cluster, get()).await.unwrap();
    let refusal = exchange(&pools, &cluster, post("pay")).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::UpstreamReset);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    assert_eq!(cluster.failures(Fault::Reset), 1);
    assert_eq!(cluster.in_flight(), 0);
}

#[tokio::test]
async fn whatever_could_not_be_sent_goes_to_another_endpoint() {
    let origin = says(HELLO).await;
    for _ in 0..4 {
        let cluster = cluster(&[nobody().await, origin.url("http")], "");
        let pools = Pools::new();
        for request in [get(), post(""), get(), get()] {
            let (status, ..) = exchange(&pools, &cluster, request).await.unwrap();
            assert_eq!(status, 200);
        }
    }
}

#[tokio::test]
async fn a_new_connection_that_dies_sends_a_get_elsewhere() {
    let origin = says(HELLO).await;
    let dying = super::support::origin(|mut stream, _| async move {
        read_head(&mut stream).await;
    })
    .await;
    let cluster = cluster(
        &[dying.url("http"), origin.url("http")],
        "balance = \"round_robin\"",
    );
    let pools = Pools::new();
    for _ in 0..20 {
        let (status, ..) = exchange(&pools, &cluster, get()).await.unwrap();
        assert_eq!(status, 200);
    }
    assert_eq!(cluster.endpoints()[0].ejections().count(), 1);
    assert!(!cluster.endpoints()[0].is_healthy(clock::now()));
    assert_eq!(dying.connections(), 5);
}

#[tokio::test]
async fn an_endpoint_that_hangs_up_at_once_does_not_multiply_requests() {
    let hangs_up = origin(|stream, _| async move { drop(stream) }).await;
    let cluster = cluster(&[hangs_up.url("http")], "retries = 1");
    let pools = Pools::new();
    for _ in 0..300 {
        let refusal = send(&pools, &cluster, post("pay")).await.unwrap_err();
        assert_eq!(refusal.reason(), Reason::UpstreamReset);
    }
    // A fifth of the requests, and what the budget starts with.
    let attempts = cluster.endpoints()[0].requests().count();
    assert!(attempts <= 300 + 60 + 20, "{attempts}");
    assert!(cluster.endpoints()[0].ejections().count() >= 1);
}

#[tokio::test]
async fn a_refusal_says_502_until_the_endpoint_is_put_aside_and_503_from_then_on() {
    let cluster = cluster(&[nobody().await], "retries = 0");
    let pools = Pools::new();
    for _ in 0..5 {
        let refusal = send(&pools, &cluster, get()).await.unwrap_err();
        assert_eq!(refusal.reason(), Reason::UpstreamUnreachable);
    }
    for _ in 0..100 {
        let refusal = send(&pools, &cluster, get()).await.unwrap_err();
        assert_eq!(refusal.reason(), Reason::NoEndpoint);
        assert_eq!(refusal.wait(), Some(Duration::from_secs(1)));
    }
    assert_eq!(cluster.endpoints()[0].connect_failures().count(), 5);
    assert_eq!(cluster.failures(Fault::NoEndpoint), 100);
    assert!(!cluster.is_ready(clock::now()));
    assert!(cluster.is_ready(clock::now() + Duration::from_secs(1)));
}

#[tokio::test]
async fn an_endpoint_that_never_answers_costs_a_timeout_and_its_connection() {
    let silent = origin(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let cluster = cluster(&[silent.url("http")], "");
    let pools = Pools::new();
    let options = Forward {
        timeout: Duration::from_millis(50),
        fate: None,
    };
    let started = clock::now();
    let refusal = forward(&pools, &cluster, get(), &options)
        .await
        .unwrap_err();
    assert_eq!(refusal.reason(), Reason::UpstreamTimeout);
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!(pools.connections(), 0);
    assert_eq!(cluster.failures(Fault::Timeout), 1);
    eventually("what was given up has ended", || cluster.in_flight() == 0).await;
}

#[tokio::test]
async fn a_shared_connection_that_timed_out_is_not_lent_again() {
    let silent = origin(|stream, number| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut held = Vec::new();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            if number > 0 {
                respond
                    .send_response(http::Response::new(()), true)
                    .unwrap();
            }
            held.push(respond);
        }
    })
    .await;
    let cluster = cluster(&[silent.url("h2c")], "");
    let pools = Pools::new();
    let options = Forward {
        timeout: Duration::from_millis(50),
        fate: None,
    };
    let first = forward(&pools, &cluster, get(), &options);
    assert_eq!(first.await.unwrap_err().reason(), Reason::UpstreamTimeout);
    let (_, facts) = send(&pools, &cluster, get()).await.unwrap();
    assert!(!facts.reused);
}

#[tokio::test]
async fn when_all_are_silent_the_least_bad_still_gets_requests() {
    let silent = origin(|mut stream, number| async move {
        if number < 5 {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        } else if read_head(&mut stream).await.is_some() {
            stream.write_all(HELLO.as_bytes()).await.unwrap();
        }
    })
    .await;
    let cluster = cluster(&[silent.url("http")], "");
    let pools = Pools::new();
    let options = Forward {
        timeout: Duration::from_millis(20),
        fate: None,
    };
    for _ in 0..5 {
        let refusal = forward(&pools, &cluster, get(), &options);
        assert_eq!(refusal.await.unwrap_err().reason(), Reason::UpstreamTimeout);
    }
    assert!(!cluster.endpoints()[0].is_healthy(clock::now()));
    let (status, ..) = exchange(&pools, &cluster, get()).await.unwrap();
    assert_eq!(status, 200);
    assert!(cluster.endpoints()[0].is_healthy(clock::now()));
}

#[tokio::test]
async fn more_requests_than_allowed_are_refused_and_the_count_goes_back_to_nothing() {
    let gone = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&gone);
    let silent = origin(move |mut stream, _| {
        let count = Arc::clone(&count);
        async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let cluster = cluster(&[silent.url("http")], "max_requests = 2");
    let pools = Pools::new();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let (pools, cluster) = (pools.clone(), Arc::clone(&cluster));
            task::spawn("client", async move { send(&pools, &cluster, get()).await })
        })
        .collect();
    eventually("two in flight", || silent.connections() == 2).await;
    let refusal = send(&pools, &cluster, get()).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::UpstreamOverloaded);
    assert_eq!(cluster.in_flight(), 2);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    eventually("none in flight", || cluster.in_flight() == 0).await;
    eventually("connections closed", || gone.load(Ordering::SeqCst) == 2).await;
    assert_eq!(pools.connections(), 0);
}

#[tokio::test]
async fn an_endpoint_that_is_full_leaves_requests_to_the_other() {
    let silent = origin(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let origin = says(HELLO).await;
    let cluster = cluster(
        &[silent.url("http"), origin.url("http")],
        "max_requests = 1\nbalance = \"round_robin\"",
    );
    let pools = Pools::new();
    let (held_pools, held_cluster) = (pools.clone(), Arc::clone(&cluster));
    let held = task::spawn("client", async move {
        send(&held_pools, &held_cluster, get()).await.map(drop)
    });
    eventually("one in flight", || silent.connections() == 1).await;
    for _ in 0..6 {
        let (status, ..) = exchange(&pools, &cluster, get()).await.unwrap();
        assert_eq!(status, 200);
    }
    held.abort();
}

#[tokio::test]
async fn a_truncated_answer_is_an_error_and_never_a_clean_end() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n50\r\nhello",
    ] {
        let cut = origin(move |mut stream, _| async move {
            read_head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let cluster = cluster(&[cut.url("http")], "");
        let pools = Pools::new();
        let (response, _) = send(&pools, &cluster, get()).await.unwrap();
        let end = read(response.into_body()).await;
        assert!(matches!(end, Err(BodyError::Connection(_))), "{answer}");
        assert_eq!((cluster.in_flight(), pools.connections()), (0, 0));
    }
}

#[tokio::test]
async fn an_answer_that_stops_in_its_middle_is_ended_by_the_deadline() {
    for scheme in ["http", "h2c"] {
        let origin = if scheme == "http" {
            says("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello").await
        } else {
            super::support::h2_origin(100, |_| async {
                http::Response::new(Scripted::default().data("hello").endless())
            })
            .await
        };
        let cluster = cluster(&[origin.url(scheme)], "body_timeout = \"50ms\"");
        let pools = Pools::new();
        let (response, _) = send(&pools, &cluster, get()).await.unwrap();
        let end = read(response.into_body()).await;
        assert!(matches!(end, Err(BodyError::Stalled)), "{scheme}");
        assert_eq!(cluster.in_flight(), 0);
    }
}

#[tokio::test]
async fn a_name_is_resolved_at_the_first_request_if_nobody_did_before() {
    let origin = says(HELLO).await;
    let url = format!("http://localhost:{}", origin.address.port());
    let cluster = cluster(&[url], "");
    let pools = Pools::new();
    let (status, ..) = exchange(&pools, &cluster, get()).await.unwrap();
    assert_eq!(status, 200);
    assert!(cluster.endpoints()[0].is_resolved());
}

#[tokio::test]
async fn a_client_that_delays_its_body_does_not_cost_the_endpoint_its_name() {
    let silent = origin(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let cluster = cluster(&[silent.url("http")], "");
    let pools = Pools::new();
    for _ in 0..6 {
        let mut body = from_client(Scripted::default().data("half").endless()).await;
        let fate = body.guard(crate::types::body::Bounds {
            max_bytes: 1_000,
            idle: Duration::from_millis(100),
            min_rate: 0,
            grace: Duration::ZERO,
        });
        let options = Forward {
            timeout: Duration::from_millis(50),
            fate,
        };
        let request = request(Method::POST, body);
        let refusal = forward(&pools, &cluster, request, &options);
        assert_eq!(refusal.await.unwrap_err().reason(), Reason::BodyStalled);
    }
    assert_eq!(cluster.endpoints()[0].ejections().count(), 0);
    assert_eq!(cluster.failures(Fault::Timeout), 0);
}

#[tokio::test]
async fn the_future_of_a_request_stays_below_one_and_a_half_kibibytes() {
    let cluster = cluster(&["http://127.0.0.1:1".to_owned()], "");
    let (pools, options) = (Pools::new(), patiently());
    let mut request = get();
    let way = pools.forward(for_tests(), &cluster, &mut request, &options);
    let size = std::mem::size_of_val(&way);
    assert!(size <= 1536, "{size}");
}

#[tokio::test]
async fn without_guard_a_request_goes_as_well() {
    let origin = says(HELLO).await;
    let cluster = cluster(&[origin.url("http")], "");
    let request = request(Method::DELETE, Body::empty());
    let answer = forward(&Pools::new(), &cluster, request, &patiently()).await;
    assert_eq!(answer.unwrap().0.status(), 200);
}
