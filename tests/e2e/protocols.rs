//! Which versions of HTTP a listener speaks.

use rustls::DEFAULT_VERSIONS;

use crate::support::client::{Via, get, tls};
use crate::support::gateway::{Gateway, conf};
use crate::support::{pki, raw, soon};

async fn speaking(protocols: &str) -> Gateway {
    conf("[[route]]\nauth = \"none\"\nrespond = { status = 200, body = \"hello\" }")
        .listen(&format!("protocols = [{protocols}]"))
        .run()
        .await
}

async fn negotiated(gateway: &Gateway, alpn: &[&str]) -> std::io::Result<Option<Vec<u8>>> {
    let client = pki::SHARED.client(alpn, DEFAULT_VERSIONS);
    let stream = tls(gateway.at("secure"), client, pki::HOST).await?;
    Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

#[tokio::test]
async fn a_port_for_h2_alone_answers_nothing_else() {
    let gateway = speaking("\"h2\"").await;
    for via in [Via::H2c, Via::TlsH2] {
        assert_eq!(gateway.send(via, get("/")).await.text(), "hello");
    }
    let mut h1 = raw::open(gateway.at("plain")).await;
    h1.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    let answer = soon("the end", h1.until_closed()).await;
    // SETTINGS, and GOAWAY with PROTOCOL_ERROR.
    let goaway = raw::frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(answer, [raw::frame(4, 0, 0, &[]), goaway].concat());
    let offered = negotiated(&gateway, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(offered.unwrap(), b"h2");
    assert!(negotiated(&gateway, &["http/1.1"]).await.is_err());
}

#[tokio::test]
async fn a_port_for_h1_alone_answers_nothing_else() {
    let gateway = speaking("\"h1\"").await;
    for via in [Via::H1, Via::TlsH1] {
        assert_eq!(gateway.send(via, get("/")).await.text(), "hello");
    }
    let mut h2 = raw::open(gateway.at("plain")).await;
    h2.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let answer = soon("the end", h2.until_closed()).await;
    let refused = raw::statuses(&answer);
    assert!(refused.iter().all(|status| *status >= 400), "{answer:?}");
    let offered = negotiated(&gateway, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(offered.unwrap(), b"http/1.1");
    assert!(negotiated(&gateway, &["h2"]).await.is_err());
}

#[test]
fn a_listener_that_speaks_nothing_is_refused() {
    let conf = conf("[[route]]\nauth = \"none\"\nrespond = { status = 200 }");
    let why = conf.listen("protocols = []").try_run().unwrap_err();
    assert!(why.to_string().contains("speaks `h1`, `h2`, or both"));
}
