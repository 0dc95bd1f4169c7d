//! Request bodies: how they are framed, and what happens when they fail.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{
    Scripted, cluster, exchange, forward, from_client, get, h2_origin, origin, post, request,
};
use crate::types::body::Bounds;
use crate::types::{Body, Reason};
use crate::upstream::{Forward, Pools};

/// What an origin receives for `request` until it contains `until`.
async fn received(request: crate::types::Request, until: &'static str) -> String {
    let seen = Arc::new(Mutex::new(String::new()));
    let record = Arc::clone(&seen);
    let origin = origin(move |mut stream, _| {
        let record = Arc::clone(&record);
        async move {
            while !record.lock().contains(until) {
                let byte = stream.read_u8().await.unwrap();
                record.lock().push(char::from(byte));
            }
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            record.lock().push_str(std::str::from_utf8(&rest).unwrap());
        }
    })
    .await;
    let cluster = cluster(&[origin.url("http")], "");
    exchange(&Pools::new(), &cluster, request).await.unwrap();
    seen.lock().clone()
}

#[tokio::test]
async fn a_bodiless_get_has_no_framing() {
    let seen = received(get(), "\r\n\r\n").await;
    assert_eq!(
        seen,
        "GET /path?query HTTP/1.1\r\nhost: public.example\r\n\r\n"
    );
}

#[tokio::test]
async fn a_body_of_known_length_has_a_length() {
    let seen = received(post("hello"), "hello").await;
    assert!(seen.contains("content-length: 5\r\n"), "{seen}");
    assert!(!seen.contains("transfer-encoding"), "{seen}");
}

#[tokio::test]
async fn a_body_of_unknown_length_is_chunked_whatever_the_method() {
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let body = from_client(Scripted::default().data("hello")).await;
        let seen = received(request(method, body), "0\r\n\r\n").await;
        assert!(seen.contains("transfer-encoding: chunked\r\n"), "{seen}");
        assert!(!seen.contains("content-length"), "{seen}");
        assert!(seen.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{seen}");
    }
}

#[tokio::test]
async fn the_configured_host_is_sent_instead_of_the_public_one() {
    let origin = h2_origin(100, |request| async move {
        assert_eq!(request.uri().authority().unwrap(), "internal:8080");
        http::Response::new(Scripted::default())
    })
    .await;
    let cluster = cluster(&[origin.url("h2c")], "host = \"internal:8080\"");
    let (status, ..) = exchange(&Pools::new(), &cluster, get()).await.unwrap();
    assert_eq!(status, 200);
}

/// The reason for which a body of these frames is refused.
async fn refused(scheme: &str, frames: Scripted) -> Reason {
    let origin = match scheme {
        "http" => {
            origin(|mut stream, _| async move {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            })
            .await
        }
        _ => {
            h2_origin(100, |request| async move {
                let _ = super::support::read(Body::incoming(request.into_body())).await;
                std::future::pending().await
            })
            .await
        }
    };
    let cluster = cluster(&[origin.url(scheme)], "");
    let mut body = from_client(frames).await;
    let fate = body.guard(Bounds {
        max_bytes: 10,
        idle: Duration::from_millis(50),
        min_rate: 0,
        grace: Duration::ZERO,
    });
    let options = Forward {
        timeout: Duration::from_secs(20),
        fate,
    };
    let request = request(Method::POST, body);
    let refusal = forward(&Pools::new(), &cluster, request, &options)
        .await
        .unwrap_err();
    assert_eq!(cluster.in_flight(), 0);
    assert!(cluster.endpoints()[0].is_healthy(crate::types::clock::now()));
    refusal.reason()
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413() {
    for scheme in ["http", "h2c"] {
        let frames = Scripted::default().data("0123456789").data("x").endless();
        assert_eq!(refused(scheme, frames).await, Reason::BodyTooLarge);
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_408() {
    for scheme in ["http", "h2c"] {
        let frames = Scripted::default().data("half").endless();
        assert_eq!(refused(scheme, frames).await, Reason::BodyStalled);
    }
}
