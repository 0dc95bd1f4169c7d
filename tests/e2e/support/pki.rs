//! An authority, and certificates that it signed, in a folder that goes away with the process's temporary files.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;

/// The host that tests ask for unless they say otherwise.
pub const HOST: &str = "test.example";

/// One authority with one leaf for [`HOST`], its subdomains and loopback; shared by all tests.
pub static SHARED: LazyLock<Pki> = LazyLock::new(|| {
    let pki = Pki::new();
    pki.leaf(
        "leaf",
        &[HOST, "*.test.example", "localhost", "127.0.0.1", "::1"],
    );
    pki
});

pub struct Pki {
    folder: TempDir,
    authority: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Pki {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "the tests' own authority");
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            root: certificate.der().clone(),
            authority: Issuer::new(params, key),
            folder,
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new file that only we may read.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let path = self.folder().join(format!("{name}-{number}"));
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    /// The authority, PEM.
    pub fn ca(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    /// Writes `NAME.crt` and `NAME.key` into the folder.
    pub fn leaf(&self, name: &str, names: &[&str]) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let leaf = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.folder().join(format!("{name}.crt")), leaf.pem()).unwrap();
        std::fs::write(
            self.folder().join(format!("{name}.key")),
            key.serialize_pem(),
        )
        .unwrap();
    }

    /// TOML for `certificates = [...]`.
    pub fn pair(&self, name: &str) -> String {
        let folder = self.folder().display();
        format!(r#"{{ chain = "{folder}/{name}.crt", key = "{folder}/{name}.key" }}"#)
    }

    /// A client that trusts this authority alone.
    pub fn client(
        &self,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A server with the leaf `name`.
    pub fn server(&self, name: &str, alpn: &[&str]) -> Arc<ServerConfig> {
        let file = |end: &str| self.folder().join(format!("{name}.{end}"));
        let chain = CertificateDer::pem_file_iter(file("crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}
