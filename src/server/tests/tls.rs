//! The handshake: certificates, names, protocols, deadlines.

use super::*;

pub(super) struct Pki {
    _dir: TempDir,
    pub(super) termination: Termination,
    pub(super) roots: Arc<rustls::RootCertStore>,
}

/// A folder for each set of names; the first one is the default.
pub(super) fn pki(certificates: &[&[&str]]) -> Pki {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let dir = TempDir::new().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let mut folders = Vec::new();
    for (position, names) in certificates.iter().enumerate() {
        let folder = dir.path().join(position.to_string());
        let made = dev::ensure(&folder, names).unwrap();
        roots
            .add(CertificateDer::from_pem_file(made.ca).unwrap())
            .unwrap();
        folders.push(config::Certificate::Folder(folder));
    }
    let tls = config::Tls {
        certificates: folders,
        min_version: config::TlsVersion::default(),
    };
    let mut problems = Problems::default();
    let termination = Termination::compile(&tls, &KeyPath::root(), None, &mut problems);
    Pki {
        _dir: dir,
        termination: termination.unwrap(),
        roots: Arc::new(roots),
    }
}

type TlsClient = tokio_rustls::client::TlsStream<TcpStream>;

pub(super) async fn handshake(
    stream: TcpStream,
    roots: &Arc<rustls::RootCertStore>,
    name: &str,
    alpn: &[&str],
) -> std::io::Result<TlsClient> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    timeout(PATIENCE, connector.connect(name, stream))
        .await
        .expect("the handshake does not end")
}

#[tokio::test]
async fn half_a_client_hello_is_closed_at_the_handshake_deadline() {
    for hello in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let limits = ListenerLimits {
            handshake_timeout: SHORT,
            ..limits()
        };
        let pki = pki(&[&["a.test"]]);
        let running = run_with(limits, Some(pki.termination), false);
        let mut stream = running.connect().await;
        send(&mut stream, hello).await;
        read_all(&mut stream).await;
        running.saw(Event::HandshakeTimeout).await;
    }
}

#[tokio::test]
async fn after_the_handshake_the_head_deadline_runs() {
    for alpn in ["h2", "http/1.1"] {
        let pki = pki(&[&["a.test"]]);
        let limits = ListenerLimits {
            head_timeout: SHORT,
            ..limits()
        };
        let running = run_with(limits, Some(pki.termination), false);
        let stream = running.connect().await;
        let mut stream = handshake(stream, &pki.roots, "a.test", &[alpn])
            .await
            .unwrap();
        read_all(&mut stream).await;
        running.saw(Event::HeadTimeout).await;
    }
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate_and_is_told_to_the_handler() {
    let pki = pki(&[&["first.test"], &["*.wild.test"], &["a.wild.test"]]);
    let running = run_with(limits(), Some(pki.termination), false);
    for name in ["first.test", "b.wild.test", "A.wild.test"] {
        let stream = running.connect().await;
        // The client refuses a certificate that does not bear the name.
        let mut stream = handshake(stream, &pki.roots, name, &["http/1.1"])
            .await
            .unwrap();
        let seen = get(&mut stream, "/facts").await;
        let expected = format!("https h1 {}", name.to_ascii_lowercase());
        assert!(seen.ends_with(&expected), "{seen}");
    }
    let stream = running.connect().await;
    let unknown = handshake(stream, &pki.roots, "other.test", &[]).await;
    let why = unknown.unwrap_err().to_string();
    assert!(why.contains("first.test"), "not the default: {why}");
    running.saw(Event::HandshakeFailed).await;
}

#[tokio::test]
async fn a_client_hello_cut_into_single_bytes_gets_the_certificate_of_its_name() {
    let pki = pki(&[&["first.test"], &["second.test"]]);
    let running = run_with(limits(), Some(pki.termination), false);
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let wire = running.connect().await;
    wire.set_nodelay(true).unwrap();
    let (mut wire_reader, mut wire_writer) = wire.into_split();
    drop(task::spawn("cut", async move {
        let (mut far_reader, mut far_writer) = tokio::io::split(&mut far);
        let back = tokio::io::copy(&mut wire_reader, &mut far_writer);
        let cut = async {
            while let Ok(byte) = far_reader.read_u8().await {
                if wire_writer.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::join!(back, cut);
    }));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(pki.roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("second.test").unwrap();
    let connected = timeout(PATIENCE, connector.connect(name, near)).await;
    let mut stream = connected.unwrap().unwrap();
    assert!(
        get(&mut stream, "/facts")
            .await
            .ends_with("https h1 second.test")
    );
}

#[tokio::test]
async fn alpn_pins_the_protocol_for_good() {
    let pki = pki(&[&["a.test"]]);
    let running = run_with(limits(), Some(pki.termination), false);
    for alpn in [&["http/1.1"][..], &[]] {
        let stream = running.connect().await;
        let mut stream = handshake(stream, &pki.roots, "a.test", alpn).await.unwrap();
        send(&mut stream, PREFACE).await;
        let seen = read_all(&mut stream).await;
        assert!(seen.starts_with(b"HTTP/1.1 505"), "h2 without ALPN");
    }
    let stream = running.connect().await;
    let mut stream = handshake(stream, &pki.roots, "a.test", &["h2"])
        .await
        .unwrap();
    send(&mut stream, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let seen = read_all(&mut stream).await;
    assert!(!seen.starts_with(b"HTTP/1"), "h1 in spite of ALPN");
}
