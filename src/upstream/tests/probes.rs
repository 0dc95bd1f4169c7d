//! Requests of our own: fetches, health checks, TLS.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Uri};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::support::{Origin, cluster, eventually, exchange, get, origin, read_head, says, send};
use crate::types::{Reason, clock, task};
use crate::upstream::{FetchErrorKind, FetchUrl, Pools, fetch_url};

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

fn fetch_of(url: &str) -> FetchUrl {
    FetchUrl {
        url: url.parse().unwrap(),
        connect: None,
        ca: None,
        headers: HeaderMap::new(),
        timeout: Duration::from_secs(20),
        max_body: 1024,
    }
}

fn probe() -> http::Request<Bytes> {
    let mut request = http::Request::new(Bytes::new());
    *request.uri_mut() = Uri::from_static("/session");
    request
}

#[tokio::test]
async fn a_fetch_through_the_pools_uses_connections_again() {
    let origin = says(HELLO).await;
    let cluster = cluster(&[origin.url("http")], "");
    let pools = Pools::new();
    for _ in 0..3 {
        let answer = pools
            .fetch(&cluster, probe(), Duration::from_secs(20), 1024)
            .await
            .unwrap();
        assert_eq!(answer.body(), "hello");
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn an_answer_larger_than_asked_for_is_refused_stated_or_not() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhello\r\n",
    ] {
        let origin = says(answer).await;
        let cluster = cluster(&[origin.url("http")], "");
        let fetched = Pools::new()
            .fetch(&cluster, probe(), Duration::from_secs(20), 8)
            .await;
        assert_eq!(fetched.unwrap_err().kind, FetchErrorKind::TooLarge);
        let fetched = fetch_url(&FetchUrl {
            max_body: 8,
            ..fetch_of(&origin.url("http"))
        })
        .await;
        assert_eq!(fetched.unwrap_err().kind, FetchErrorKind::TooLarge);
        eventually("what was given up has ended", || cluster.in_flight() == 0).await;
    }
}

#[tokio::test]
async fn a_body_that_drips_is_bounded_by_the_timeout_as_a_whole() {
    let origin = says("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe").await;
    let cluster = cluster(&[origin.url("http")], "");
    let timeout = Duration::from_millis(50);
    let fetched = Pools::new().fetch(&cluster, probe(), timeout, 1024).await;
    assert_eq!(fetched.unwrap_err().kind, FetchErrorKind::Timeout);
    eventually("what was given up has ended", || cluster.in_flight() == 0).await;
    let fetched = fetch_url(&FetchUrl {
        timeout,
        ..fetch_of(&origin.url("http"))
    })
    .await;
    assert_eq!(fetched.unwrap_err().kind, FetchErrorKind::Timeout);
}

#[tokio::test]
async fn a_url_is_fetched_elsewhere_with_its_own_host() {
    let origin = origin(|mut stream, _| async move {
        let head = read_head(&mut stream).await.unwrap();
        let fine = head.starts_with("GET /jwks?x HTTP/1.1\r\n")
            && head.contains("host: auth.example.com\r\n");
        let status = if fine { "200 OK" } else { "400 Bad" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let fetch = FetchUrl {
        connect: Some(origin.url("http").parse().unwrap()),
        ..fetch_of("https://auth.example.com/jwks?x")
    };
    assert_eq!(fetch_url(&fetch).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let origin = says(
        "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let answer = fetch_url(&fetch_of(&origin.url("http"))).await.unwrap();
    assert_eq!(answer.status(), 302);
}

#[tokio::test]
async fn urls_that_cannot_be_fetched_say_why() {
    for url in ["ftp://x/", "http://u:p@127.0.0.1:1/", "/path"] {
        let failed = fetch_url(&fetch_of(url)).await.unwrap_err();
        assert_eq!(failed.kind, FetchErrorKind::Malformed, "{url}");
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);
    let failed = fetch_url(&fetch_of(&format!("http://{dead}/"))).await;
    assert_eq!(failed.unwrap_err().kind, FetchErrorKind::Connect);
}

/// A TLS origin for `localhost` that agrees to `alpn`, and the bundle that trusts it.
async fn tls_origin(alpn: &'static [u8]) -> (Origin, tempfile::NamedTempFile) {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut bundle = tempfile::NamedTempFile::new().unwrap();
    bundle.write_all(signed.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let origin = origin(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut tls) = acceptor.accept(stream).await else {
                return;
            };
            if alpn == b"h2" {
                let mut connection = h2::server::handshake(tls).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(request.uri().scheme_str(), Some("https"));
                    let answer = http::Response::new(());
                    respond.send_response(answer, true).unwrap();
                }
            } else {
                let mut head = [0; 1024];
                while tls.read(&mut head).await.is_ok_and(|read| read > 0) {
                    tls.write_all(HELLO.as_bytes()).await.unwrap();
                }
            }
        }
    })
    .await;
    (origin, bundle)
}

#[tokio::test]
async fn tls_endpoints_are_verified_and_speak_what_was_agreed() {
    for (scheme, alpn) in [("https", &b"http/1.1"[..]), ("h2", b"h2")] {
        let (origin, bundle) = tls_origin(alpn).await;
        let url = format!("{scheme}://localhost:{}", origin.address.port());
        let trusting = format!("tls = {{ ca = {:?} }}", bundle.path());
        let cluster = cluster(&[url], &trusting);
        let pools = Pools::new();
        for turn in 0..3 {
            let (status, _, facts) = exchange(&pools, &cluster, get()).await.unwrap();
            assert_eq!((status, facts.reused), (200, turn > 0), "{scheme}");
        }
    }
}

#[tokio::test]
async fn the_configured_name_is_verified_instead_of_the_address() {
    let (origin, bundle) = tls_origin(b"h2").await;
    let pools = Pools::new();
    for (name, reason) in [
        ("localhost", None),
        ("other", Some(Reason::UpstreamUnreachable)),
    ] {
        let tls = format!(
            "tls = {{ ca = {:?}, server_name = {name:?} }}",
            bundle.path()
        );
        let cluster = cluster(&[origin.url("h2")], &tls);
        let refused = send(&pools, &cluster, get()).await.err();
        assert_eq!(refused.map(|refusal| refusal.reason()), reason, "{name}");
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (origin, _) = tls_origin(b"http/1.1").await;
    let (_, foreign) = tls_origin(b"http/1.1").await;
    let url = format!("https://localhost:{}", origin.address.port());
    let cluster = cluster(
        std::slice::from_ref(&url),
        &format!("tls = {{ ca = {:?} }}", foreign.path()),
    );
    let refusal = send(&Pools::new(), &cluster, get()).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::UpstreamUnreachable);
    assert!(refusal.detail().contains("TLS"), "{}", refusal.detail());
    let fetched = fetch_url(&FetchUrl {
        ca: Some(foreign.path().to_owned()),
        ..fetch_of(&url)
    })
    .await;
    assert_eq!(fetched.unwrap_err().kind, FetchErrorKind::Connect);
}

#[tokio::test]
async fn a_peer_that_does_not_agree_to_h2_is_unreachable() {
    let (origin, bundle) = tls_origin(b"http/1.1").await;
    let url = format!("h2://localhost:{}", origin.address.port());
    let cluster = cluster(&[url], &format!("tls = {{ ca = {:?} }}", bundle.path()));
    let refusal = send(&Pools::new(), &cluster, get()).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::UpstreamUnreachable);
}

#[tokio::test]
async fn an_https_url_is_fetched_with_its_own_bundle() {
    let (origin, bundle) = tls_origin(b"http/1.1").await;
    let fetch = FetchUrl {
        ca: Some(bundle.path().to_owned()),
        ..fetch_of(&format!("https://localhost:{}/", origin.address.port()))
    };
    assert_eq!(fetch_url(&fetch).await.unwrap().body(), "hello");
}

#[tokio::test]
async fn health_checks_take_an_endpoint_out_and_bring_it_back() {
    let well = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&well);
    let origin = origin(move |mut stream, _| {
        let state = Arc::clone(&state);
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let checked = head.starts_with("GET /ready ");
                let status = if checked && !state.load(Ordering::SeqCst) {
                    "503 Unwell"
                } else {
                    "200 OK"
                };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let health = "health = { path = \"/ready\", interval = \"10ms\", timeout = \"5s\" }";
    let cluster = cluster(&[origin.url("http")], health);
    let pools = Pools::new();
    assert!(!cluster.is_ready(clock::now()));
    let upkeep = task::spawn("upkeep", Arc::clone(&cluster).keep_current());
    let endpoint = &cluster.endpoints()[0];
    eventually("unhealthy", || !endpoint.is_healthy(clock::now())).await;
    let refusal = send(&pools, &cluster, get()).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::NoEndpoint);
    well.store(true, Ordering::SeqCst);
    eventually("ready", || cluster.is_ready(clock::now())).await;
    assert!(send(&pools, &cluster, get()).await.is_ok());
    upkeep.abort();
    eventually("no more checks", || Arc::strong_count(endpoint) == 1).await;
}

#[tokio::test]
async fn names_are_resolved_by_the_upkeep() {
    let origin = says(HELLO).await;
    let url = format!("http://localhost:{}", origin.address.port());
    let cluster = cluster(&[url], "");
    assert!(!cluster.is_ready(clock::now()));
    let upkeep = task::spawn("upkeep", Arc::clone(&cluster).keep_current());
    eventually("ready", || cluster.is_ready(clock::now())).await;
    upkeep.abort();
}
