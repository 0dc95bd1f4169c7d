//! TLS: certificates by name, ALPN, versions, and hosts that differ from the name.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustls::version::{TLS12, TLS13};
use x509_parser::prelude::FromDer;

use crate::support::client::{Told, Via, connect_as, get, refused, tls};
use crate::support::gateway::{Gateway, conf};
use crate::support::pki::Pki;
use crate::support::{pki, raw};

async fn house(pki: &Pki, keys: &str) -> Gateway {
    pki.leaf("first", &["first.example"]);
    pki.leaf("second", &["second.example", "*.second.example"]);
    let certificates = [pki.pair("first"), pki.pair("second")].join(", ");
    conf(&format!(
        r#"
        [[route]]
        auth = "none"
        respond = {{ status = 200, body = "hello" }}
        [listen.secure]
        bind = "127.0.0.1:0"
        tls = {{ certificates = [{certificates}]{keys} }}
    "#
    ))
    .run()
    .await
}

/// The common name of the certificate that is shown for `name`.
async fn shown(gateway: &Gateway, pki: &Pki, name: &str) -> String {
    let client = pki.client(&["h2"], rustls::DEFAULT_VERSIONS);
    let stream = tls(gateway.at("secure"), client, name).await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&chain[0]).unwrap();
    leaf.subject()
        .iter_common_name()
        .next()
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name() {
    let pki = Pki::new();
    let gateway = house(&pki, "").await;
    for (name, leaf) in [
        ("first.example", "first"),
        ("second.example", "second"),
        ("SECOND.example", "second"),
        ("a.second.example", "second"),
    ] {
        assert_eq!(shown(&gateway, &pki, name).await, leaf, "{name}");
    }
    // A name that nobody has gets the first one, which its client then refuses.
    let client = pki.client(&["h2"], rustls::DEFAULT_VERSIONS);
    assert!(
        tls(gateway.at("secure"), client, "third.example")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn alpn_and_versions_are_agreed() {
    let pki = Pki::new();
    let gateway = house(&pki, "").await;
    for version in [&TLS12, &TLS13] {
        for (offered, chosen) in [
            (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
            (&["http/1.1", "h2"], Some(b"h2")),
            (&["http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let stream = tls(
                gateway.at("secure"),
                pki.client(offered, &[version]),
                "first.example",
            )
            .await
            .unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen, "{offered:?}");
        }
        // A client that speaks neither is told so.
        let refused = tls(
            gateway.at("secure"),
            pki.client(&["spdy/3"], &[version]),
            "first.example",
        )
        .await;
        assert!(refused.is_err());
    }
}

#[tokio::test]
async fn the_least_version_can_be_raised() {
    let pki = Pki::new();
    let gateway = house(&pki, ", min_version = \"1.3\"").await;
    assert!(
        tls(
            gateway.at("secure"),
            pki.client(&[], &[&TLS12]),
            "first.example"
        )
        .await
        .is_err()
    );
    assert!(
        tls(
            gateway.at("secure"),
            pki.client(&[], &[&TLS13]),
            "first.example"
        )
        .await
        .is_ok()
    );
}

/// A ClientHello of TLS 1.1, byte by byte: no library offers it any more.
#[tokio::test(flavor = "multi_thread")]
async fn tls_1_1_is_refused() {
    let pki = Pki::new();
    let gateway = house(&pki, "").await;
    let mut hello = vec![0x03, 0x02];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend([0, 4, 0xc0, 0x13, 0x00, 0x2f, 1, 0]);
    let mut record = vec![0x16, 0x03, 0x01, 0, u8::try_from(hello.len() + 4).unwrap()];
    record.extend([1, 0, 0, u8::try_from(hello.len()).unwrap()]);
    record.extend(&hello);
    let mut stream = TcpStream::connect(gateway.at("secure")).unwrap();
    stream
        .set_read_timeout(Some(crate::support::patience()))
        .unwrap();
    stream.write_all(&record).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    // A fatal alert: protocol_version, or handshake_failure, for a hello of that age has nothing else to agree on.
    assert_eq!((answer[0], answer[5]), (0x15, 2), "{answer:?}");
    assert!([40, 70].contains(&answer[6]), "{answer:?}");
    gateway
        .counted("vestibule_tls_handshake_failures_total", &[], 1.0)
        .await;
}

#[tokio::test]
async fn a_host_that_is_not_the_name_is_421() {
    let pki_name = pki::HOST;
    let gateway = conf("[[route]]\nauth = \"none\"\nrespond = { status = 200, body = \"hello\" }")
        .run()
        .await;
    for via in [Via::TlsH1, Via::TlsH2] {
        let mut client = connect_as(gateway.at("secure"), via, pki_name).await;
        let answer = client.send(get("/").host("a.test.example")).await;
        assert_eq!(answer.verdict(), refused(421, "misdirected"), "{via:?}");
        let mut client = connect_as(gateway.at("secure"), via, pki_name).await;
        for host in [
            "test.example",
            "TEST.example",
            "test.example.",
            "test.example:8443",
        ] {
            assert_eq!(
                client.send(get("/").host(host)).await.status,
                200,
                "{via:?} {host}"
            );
        }
    }
}

#[tokio::test]
async fn cleartext_on_a_tls_port_is_hung_up_on() {
    let gateway = conf("[[route]]\nauth = \"none\"\nrespond = { status = 200 }")
        .run()
        .await;
    let mut dialogue = raw::open(gateway.at("secure")).await;
    dialogue
        .send("GET / HTTP/1.1\r\nhost: test.example\r\n\r\n")
        .await;
    let heard = dialogue.until_closed().await;
    assert!(!heard.starts_with(b"HTTP/1.1 200"), "{heard:?}");
}

/// R20, the short form: a renewed pair is used for the next handshake; a bad one refuses the reload.
#[tokio::test]
async fn certificates_are_renewed_by_a_reload() {
    let pki = Pki::new();
    pki.leaf("site", &["first.example"]);
    let site = |pki: &Pki| {
        conf(&format!(
            "[[route]]\nauth = \"none\"\nrespond = {{ status = 200 }}\n[listen.secure]\nbind = \"127.0.0.1:0\"\ntls = {{ certificates = [{}] }}",
            pki.pair("site")
        ))
    };
    let gateway = site(&pki).run().await;
    let serial = async || {
        let client = pki.client(&[], rustls::DEFAULT_VERSIONS);
        let stream = tls(gateway.at("secure"), client, "first.example")
            .await
            .unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let old = serial().await;
    pki.leaf("site", &["first.example"]);
    assert_eq!(gateway.reload(&site(&pki)).await.status, 200);
    let new = serial().await;
    assert!(old != new);
    std::fs::write(pki.folder().join("site.key"), "no key").unwrap();
    assert_eq!(gateway.reload(&site(&pki)).await.status, 422);
    assert!(serial().await == new);
    assert!(
        gateway
            .metric("vestibule_tls_certificate_not_after_seconds", &[])
            .await
            > 0.0
    );
}
