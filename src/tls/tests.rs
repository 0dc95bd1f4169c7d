use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use tempfile::TempDir;

use super::load::{Loaded, Pair, load, pairs};
use super::{Store, Termination, dev};
use crate::config::{self, KeyPath, Problems};
use crate::types::clock;

fn pair_in(dir: &Path, name: &str, names: &[&str]) -> Pair {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let pair = Pair {
        chain: dir.join(format!("{name}.crt")),
        key: dir.join(format!("{name}.key")),
    };
    fs::write(&pair.chain, certificate.pem()).unwrap();
    fs::write(&pair.key, key.serialize_pem()).unwrap();
    pair
}

fn loaded(dir: &Path, name: &str, names: &[&str]) -> Loaded {
    load(&pair_in(dir, name, names), &aws_lc_rs::default_provider()).unwrap()
}

fn tls(certificates: Vec<config::Certificate>) -> config::Tls {
    config::Tls {
        certificates,
        min_version: config::TlsVersion::default(),
    }
}

fn folder(dir: &TempDir) -> config::Tls {
    tls(vec![config::Certificate::Folder(dir.path().to_path_buf())])
}

fn compile(tls: &config::Tls) -> Result<Termination, String> {
    let mut problems = Problems::default();
    let made = Termination::compile(tls, &KeyPath::root().key("tls"), None, &mut problems);
    made.ok_or_else(|| {
        let errors = problems.into_errors();
        assert!(!errors.is_empty(), "refused without a reason");
        errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    })
}

#[test]
fn the_exact_name_wins_over_the_wildcard_and_the_first_certificate_serves_the_rest() {
    let dir = TempDir::new().unwrap();
    let all = [
        loaded(dir.path(), "first", &["first.test"]),
        loaded(dir.path(), "wild", &["*.Example.test"]),
        loaded(dir.path(), "exact", &["a.example.test"]),
    ];
    let store = Store::new(&all);
    let check = |name: Option<&str>, expected: usize| {
        let chosen = store
            .choose(name, &[SignatureScheme::ECDSA_NISTP256_SHA256])
            .unwrap();
        assert_eq!(chosen.cert, all[expected].key.cert, "{name:?}");
    };
    check(Some("a.example.test"), 2);
    check(Some("A.EXAMPLE.test"), 2);
    check(Some("b.example.test"), 1);
    check(Some("b.c.example.test"), 0);
    check(Some("example.test"), 0);
    check(Some("unknown.test"), 0);
    check(None, 0);
}

#[test]
fn a_client_gets_a_key_that_it_can_verify() {
    let dir = TempDir::new().unwrap();
    let ecdsa = loaded(dir.path(), "ecdsa", &["a.test"]);
    let rsa = {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
        let key = key.unwrap();
        let params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let pair = Pair {
            chain: dir.path().join("rsa.crt"),
            key: dir.path().join("rsa.key"),
        };
        fs::write(&pair.chain, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        load(&pair, &aws_lc_rs::default_provider()).unwrap()
    };
    let (ecdsa_chain, rsa_chain) = (ecdsa.key.cert.clone(), rsa.key.cert.clone());
    let store = Store::new(&[rsa, ecdsa]);
    let (old, new) = (
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::ECDSA_NISTP256_SHA256,
    );
    for name in [Some("a.test"), Some("other.test"), None] {
        let chain = |schemes: &[_]| store.choose(name, schemes).unwrap().cert.clone();
        assert_eq!(chain(&[old, new]), ecdsa_chain, "ECDSA is preferred");
        assert_eq!(chain(&[old]), rsa_chain);
    }
}

#[test]
fn a_folder_is_searched_one_level_deep() {
    let dir = TempDir::new().unwrap();
    let path = dir.path();
    pair_in(path, "b", &["b.test"]);
    pair_in(path, "a", &["a.test"]);
    fs::copy(path.join("a.crt"), path.join("a.pem")).unwrap();
    fs::write(path.join("lonely.pem"), "no key beside it").unwrap();
    fs::write(path.join("README"), "not a certificate").unwrap();
    for hidden_or_not in ["..data", "c.test", "c.test/deeper"] {
        let sub = path.join(hidden_or_not);
        fs::create_dir(&sub).unwrap();
        let pair = pair_in(&sub, "x", &["c.test"]);
        fs::rename(pair.chain, sub.join("fullchain.pem")).unwrap();
        fs::rename(pair.key, sub.join("privkey.pem")).unwrap();
    }
    let found = pairs(&config::Certificate::Folder(path.to_path_buf())).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|pair| pair.chain.strip_prefix(path).unwrap().to_str().unwrap())
        .collect();
    assert_eq!(found, ["a.crt", "b.crt", "c.test/fullchain.pem"]);
}

#[test]
fn what_cannot_be_served_is_refused_with_the_reason() {
    let dir = TempDir::new().unwrap();
    let one = pair_in(dir.path(), "one", &["one.test"]);
    let two = pair_in(dir.path(), "two", &["two.test"]);
    let pair = |chain: &Path, key: &Path| {
        tls(vec![config::Certificate::Pair(config::KeyPair {
            chain: chain.to_path_buf(),
            key: key.to_path_buf(),
        })])
    };
    let check = |tls: config::Tls, part: &str| {
        let why = compile(&tls).unwrap_err();
        assert!(why.contains(part), "{why}");
    };
    check(tls(vec![]), "tls.certificates: at least one");
    check(pair(&one.chain, &two.key), "is not that of the certificate");
    check(pair(&one.key, &one.key), "cannot read certificates");
    check(pair(&one.chain, &one.chain), "cannot read a private key");
    check(pair(&dir.path().join("gone"), &one.key), "certificates[0]");
    let empty = TempDir::new().unwrap();
    check(folder(&empty), "holds no pair");
}

#[test]
fn every_bad_pair_is_reported_at_once() {
    let dir = TempDir::new().unwrap();
    for name in ["a", "b"] {
        fs::write(dir.path().join(format!("{name}.crt")), "rubbish").unwrap();
        fs::write(dir.path().join(format!("{name}.key")), "rubbish").unwrap();
    }
    assert_eq!(compile(&folder(&dir)).unwrap_err().lines().count(), 2);
}

#[test]
fn an_expired_certificate_is_served_with_a_warning() {
    let dir = TempDir::new().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["old.test".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2020, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    fs::write(dir.path().join("old.crt"), certificate.pem()).unwrap();
    fs::write(dir.path().join("old.key"), key.serialize_pem()).unwrap();
    let made = compile(&folder(&dir)).unwrap();
    assert!(
        made.warnings()
            .iter()
            .any(|warning| warning.contains("`old.test` has expired"))
    );
    assert_eq!(made.not_after()[0].unix_seconds, 1_577_836_800);
}

#[test]
fn a_key_that_everybody_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().unwrap();
    let pair = pair_in(dir.path(), "a", &["a.test"]);
    let set = |mode| fs::set_permissions(&pair.key, fs::Permissions::from_mode(mode)).unwrap();
    set(0o644);
    assert_eq!(compile(&folder(&dir)).unwrap().warnings().len(), 1);
    set(0o640);
    assert!(compile(&folder(&dir)).unwrap().warnings().is_empty());
}

/// A whole handshake in memory, tickets included.
fn shake_hands(
    client: &Arc<rustls::ClientConfig>,
    server: &Termination,
) -> Result<(rustls::HandshakeKind, Option<Vec<u8>>), rustls::Error> {
    let name = rustls_pki_types::ServerName::try_from("a.test").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = rustls::ServerConnection::new(Arc::clone(server.config())).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    let protocol = server.alpn_protocol().map(<[u8]>::to_vec);
    Ok((server.handshake_kind().unwrap(), protocol))
}

fn client(
    dir: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&str],
) -> Arc<rustls::ClientConfig> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap())
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

#[test]
fn a_client_that_comes_back_after_a_reload_resumes() {
    use rustls::HandshakeKind::{Full, FullWithHelloRetryRequest, Resumed};
    let dir = TempDir::new().unwrap();
    dev::ensure(dir.path(), &["a.test"]).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let before = compile(&folder(&dir)).unwrap();
        let client = client(dir.path(), &[version], &["h2"]);
        let (kind, protocol) = shake_hands(&client, &before).unwrap();
        assert!(matches!(kind, Full | FullWithHelloRetryRequest));
        assert_eq!(protocol.as_deref(), Some(&b"h2"[..]));

        let mut problems = Problems::default();
        let path = KeyPath::root();
        let after = Termination::compile(&folder(&dir), &path, Some(&before), &mut problems);
        let (kind, _) = shake_hands(&client, &after.unwrap()).unwrap();
        assert_eq!(kind, Resumed, "{version:?}");
    }
}

#[test]
fn an_old_version_or_an_unknown_protocol_is_refused() {
    let dir = TempDir::new().unwrap();
    dev::ensure(dir.path(), &["a.test"]).unwrap();
    let mut tls = folder(&dir);
    tls.min_version = config::TlsVersion::V13;
    let newer = compile(&tls).unwrap();
    let old = client(dir.path(), &[&rustls::version::TLS12], &[]);
    assert!(shake_hands(&old, &newer).is_err());
    let strange = client(dir.path(), &[&rustls::version::TLS13], &["h3"]);
    assert!(shake_hands(&strange, &newer).is_err());
    let silent = client(dir.path(), &[&rustls::version::TLS13], &[]);
    assert_eq!(shake_hands(&silent, &newer).unwrap().1, None);
}

#[test]
fn the_suites_are_the_three_of_each_version() {
    let suites = aws_lc_rs::default_provider().cipher_suites;
    let newer = suites.iter().filter(|suite| suite.tls13().is_some());
    assert_eq!((suites.len(), newer.count()), (9, 3));
}

#[test]
fn development_certificates_are_kept_until_they_are_of_no_use() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("certs/dev");
    let files = dev::ensure(&dir, dev::LOCAL_NAMES).unwrap();
    let first = fs::read(&files.chain).unwrap();
    dev::ensure(&dir, dev::LOCAL_NAMES).unwrap();
    assert_eq!(fs::read(&files.chain).unwrap(), first);
    let mode = fs::metadata(&files.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    dev::ensure(&dir, &["localhost", "demo.localhost"]).unwrap();
    assert_ne!(fs::read(&files.chain).unwrap(), first);

    fs::write(&files.key, "rubbish").unwrap();
    dev::ensure(&dir, dev::LOCAL_NAMES).unwrap();
    let made = compile(&tls(vec![config::Certificate::Folder(dir)])).unwrap();
    assert_eq!(made.warnings(), &[] as &[String]);
    let left = made.not_after()[0].unix_seconds - clock::unix_seconds(clock::wall());
    assert!((29 * 86_400..=30 * 86_400).contains(&left), "{left}");
}
