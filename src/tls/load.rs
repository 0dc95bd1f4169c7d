//! Reads certificates and keys from files.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;

use super::expiry::NotAfter;
use crate::config;

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
}

/// A certificate with its key, ready to be shown to clients.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// DNS names of the leaf, lower case; a wildcard begins with `*.`.
    pub(super) names: Vec<String>,
    pub(super) not_after: NotAfter,
    pub(super) warnings: Vec<String>,
}

/// The pairs that `source` means, sorted by name if it is a folder.
pub(super) fn pairs(source: &config::Certificate) -> Result<Vec<Pair>, String> {
    match source {
        config::Certificate::Pair(pair) => Ok(vec![Pair {
            chain: pair.chain.clone(),
            key: pair.key.clone(),
        }]),
        config::Certificate::Folder(folder) => {
            let found = scan(folder)
                .map_err(|error| format!("cannot read folder {}: {error}", folder.display()))?;
            if found.is_empty() {
                return Err(format!(
                    "folder {} holds no pair of NAME.crt (or NAME.pem) and NAME.key, and no fullchain.pem with privkey.pem",
                    folder.display()
                ));
            }
            Ok(found)
        }
    }
}

/// The folder itself and each folder in it: certbot keeps one folder a name.
fn scan(folder: &Path) -> io::Result<Vec<Pair>> {
    let mut found = Vec::new();
    for entry in entries(folder)? {
        if entry.is_dir() {
            let inside = entries(&entry)?;
            found.extend(inside.iter().filter_map(|path| pair_of(path)));
        } else {
            found.extend(pair_of(&entry));
        }
    }
    // NAME.crt sorts before NAME.pem, and wins when both belong to one key.
    found.dedup_by(|later, earlier| later.key == earlier.key);
    Ok(found)
}

/// Sorted. Hidden entries are left out: Kubernetes keeps the versions of a mounted secret in them.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn pair_of(chain: &Path) -> Option<Pair> {
    let extension = chain.extension()?.to_str()?;
    let key = if chain.file_name()? == "fullchain.pem" {
        chain.with_file_name("privkey.pem")
    } else if matches!(extension, "crt" | "pem") {
        chain.with_extension("key")
    } else {
        return None;
    };
    key.is_file().then(|| Pair {
        chain: chain.to_path_buf(),
        key,
    })
}

/// Reads `pair`, and makes sure that both halves belong together.
pub(super) fn load(pair: &Pair, provider: &CryptoProvider) -> Result<Loaded, String> {
    let Pair { chain, key } = pair;
    let certificates = read_chain(chain)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("cannot read a private key from {}: {error}", key.display()))?;
    let private = provider
        .key_provider
        .load_private_key(private)
        .map_err(|error| format!("cannot use the private key in {}: {error}", key.display()))?;
    let certified = CertifiedKey::new(certificates, private);
    certified.keys_match().map_err(|_| {
        format!(
            "the private key in {} is not that of the certificate in {}",
            key.display(),
            chain.display()
        )
    })?;
    let (names, not_after) = read_leaf(&certified, chain)?;
    let mut warnings = Vec::new();
    if names.is_empty() {
        warnings.push(format!(
            "the certificate in {} names no DNS name; clients that ask for a name do not find it",
            chain.display()
        ));
    }
    warnings.extend(exposed(key));
    Ok(Loaded {
        key: Arc::new(certified),
        names,
        not_after,
        warnings,
    })
}

fn read_chain(chain: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bad = |error| format!("cannot read certificates from {}: {error}", chain.display());
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(bad)?;
    if certificates.is_empty() {
        return Err(bad(rustls_pki_types::pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

/// The names and the end of the leaf. The common name is no name: clients have not looked at it for years.
fn read_leaf(certified: &CertifiedKey, chain: &Path) -> Result<(Vec<String>, NotAfter), String> {
    let bad = |why: String| format!("the certificate in {} is malformed: {why}", chain.display());
    let der = certified
        .end_entity_cert()
        .map_err(|error| bad(error.to_string()))?;
    let (_, leaf) =
        x509_parser::parse_x509_certificate(der).map_err(|error| bad(error.to_string()))?;
    let alternatives = leaf
        .subject_alternative_name()
        .map_err(|error| bad(error.to_string()))?;
    let names: Vec<String> = alternatives
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default()
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    let label = names
        .first()
        .map_or_else(|| chain.to_string_lossy().into_owned(), Clone::clone);
    let seconds = leaf.validity().not_after.timestamp();
    let not_after = NotAfter {
        name: Arc::from(label),
        unix_seconds: u64::try_from(seconds).unwrap_or(0),
    };
    Ok((names, not_after))
}

fn exposed(key: &Path) -> Option<String> {
    let mode = fs::metadata(key).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| {
        format!(
            "the private key {} can be read by everybody on this host",
            key.display()
        )
    })
}
