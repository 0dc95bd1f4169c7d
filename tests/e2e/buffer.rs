//! Request bodies that are taken in before they are sent: what can then be tried again, and what never is.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::client::{Told, Via, call, post, refused};
use crate::support::gateway::{Gateway, conf};
use crate::support::{body, soon, streams};

const BODY: &str = "twelve bytes";

/// What an origin was sent: the bytes of each request, head and body.
type Requests = Arc<Mutex<Vec<String>>>;

/// Takes the first request of each of two connections. The first one ends without an answer.
async fn dies_once() -> (SocketAddr, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        for dies in [true, false] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            while !request.contains(BODY) {
                let mut piece = [0; 1024];
                let read = stream.read(&mut piece).await.unwrap();
                request.push_str(std::str::from_utf8(&piece[..read]).unwrap());
            }
            seen.lock().push(request);
            if !dies {
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _ = stream.read(&mut [0; 1]).await;
            }
        }
    });
    (address, requests)
}

async fn in_front_of(scheme: &str, address: SocketAddr, keys: &str) -> Gateway {
    conf(&format!(
        "[[route]]\nauth = \"none\"\nupstream = \"api\"\n{keys}"
    ))
    .upstream_at("api", scheme, address, "")
    .run()
    .await
}

#[tokio::test]
async fn a_put_is_sent_again_with_its_body() {
    for via in Via::ALL {
        let (address, requests) = dies_once().await;
        let gateway = in_front_of("http", address, "buffer = \"64KiB\"").await;
        let put = call("PUT", "/x").body(body::full(BODY));
        let answer = gateway.send(via, put).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, "ok")
        );
        let requests = requests.lock().clone();
        assert_eq!(requests.len(), 2, "{via:?}");
        for request in &requests {
            assert!(request.starts_with("PUT /x ") && request.ends_with(BODY));
            assert!(request.to_lowercase().contains("content-length: 12\r\n"));
        }
        gateway.settled().await;
    }
}

#[tokio::test]
async fn a_post_that_was_sent_is_not_sent_again() {
    let (address, requests) = dies_once().await;
    let gateway = in_front_of("http", address, "buffer = \"64KiB\"").await;
    let answer = gateway.ask(post("/pay", BODY)).await;
    assert_eq!(answer.verdict(), refused(502, "upstream_reset"));
    assert_eq!(requests.lock().len(), 1);
}

/// Without the key, or beyond its size, or of unknown length: it streams, once.
#[tokio::test]
async fn what_is_not_taken_in_streams_once() {
    for (keys, payload) in [
        ("", body::full(BODY)),
        ("buffer = \"11B\"", body::full(BODY)),
        ("buffer = \"64KiB\"", body::chunks([BODY.into()], None)),
    ] {
        let (address, requests) = dies_once().await;
        let gateway = in_front_of("http", address, keys).await;
        let answer = gateway.ask(call("PUT", "/x").body(payload)).await;
        assert_eq!(answer.verdict(), refused(502, "upstream_reset"), "{keys}");
        assert_eq!(requests.lock().len(), 1, "{keys}");
    }
}

/// A backend that refuses a stream has done nothing with it.
#[tokio::test]
async fn a_post_that_was_refused_unread_is_sent_again() {
    let mut origin = streams::by_hand().await;
    let gateway = in_front_of("h2c", origin.address, "buffer = \"64KiB\"").await;
    let asked = async {
        let answer = gateway.send(Via::H2c, post("/pay", BODY)).await;
        assert_eq!(answer.status, 200);
    };
    let served = async {
        let mut first = origin.next().await;
        first.respond.send_reset(h2::Reason::REFUSED_STREAM);
        let mut second = origin.next().await;
        let mut answer = second.answer();
        let data = soon("the body", second.request.body_mut().data()).await;
        assert_eq!(data.unwrap().unwrap(), BODY);
        answer.send_data("".into(), true).unwrap();
    };
    tokio::join!(asked, served);
    assert!(origin.is_quiet());
}

#[tokio::test]
async fn too_much_to_hold_is_found_at_load() {
    let conf = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\nbuffer = \"17MiB\"");
    let conf = conf.upstream_at("api", "http", "127.0.0.1:9".parse().unwrap(), "");
    let why = conf.try_run().unwrap_err().to_string();
    assert!(why.contains("at most 16MiB"), "{why}");
}
