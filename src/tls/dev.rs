//! Certificates for the developer's own machine: an authority whose key is thrown away at once, and one leaf.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;

use super::load::{Loaded, Pair, load};
use crate::types::clock;

/// The names and addresses of the own machine.
pub const LOCAL_NAMES: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// The files that [`ensure`] leaves.
#[derive(Clone, Debug)]
pub struct DevCertificates {
    /// The authority that a client must trust.
    pub ca: PathBuf,
    /// The leaf.
    pub chain: PathBuf,
    /// The key of the leaf, readable by the owner alone.
    pub key: PathBuf,
}

/// Makes certificates for `names` in `dir`, unless those that are there hold for another week.
///
/// # Errors
/// The folder cannot be made or written, or a name is neither a DNS name nor an address.
pub fn ensure(dir: &Path, names: &[&str]) -> io::Result<DevCertificates> {
    let files = DevCertificates {
        ca: dir.join("ca.pem"),
        chain: dir.join("dev.crt"),
        key: dir.join("dev.key"),
    };
    if still_good(&files, names) {
        return Ok(files);
    }
    fs::create_dir_all(dir)?;
    let made = make(names, clock::wall()).map_err(io::Error::other)?;
    write(&files.ca, &made.ca.pem(), 0o644)?;
    write(&files.key, &made.key.serialize_pem(), 0o600)?;
    write(&files.chain, &made.leaf.pem(), 0o644)?;
    Ok(files)
}

fn still_good(files: &DevCertificates, names: &[&str]) -> bool {
    let pair = Pair {
        chain: files.chain.clone(),
        key: files.key.clone(),
    };
    let Ok(Loaded {
        names: found,
        not_after,
        ..
    }) = load(&pair, &aws_lc_rs::default_provider())
    else {
        return false;
    };
    // Addresses are not compared: they come and go with the names.
    let covers = names
        .iter()
        .filter(|name| name.parse::<std::net::IpAddr>().is_err())
        .all(|name| found.iter().any(|known| known == name));
    covers && files.ca.is_file() && not_after.warning(clock::wall()).is_none()
}

struct Made {
    ca: Certificate,
    leaf: Certificate,
    key: KeyPair,
}

fn make(names: &[&str], now: SystemTime) -> Result<Made, rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let mut ca = params(&[], "Vestibule development authority", now)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_certificate = ca.self_signed(&ca_key)?;

    let key = KeyPair::generate()?;
    let mut leaf = params(names, "Vestibule development", now)?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?;
    Ok(Made {
        ca: ca_certificate,
        leaf,
        key,
    })
}

fn params(
    names: &[&str],
    common_name: &str,
    now: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(clock::unix_seconds(now));
    // A day back, for clients whose clock is behind.
    params.not_before = now - DAY;
    params.not_after = now + 30 * DAY;
    Ok(params)
}

/// Replaces the file, so that the mode holds for one that was there before, too.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())
}

const DAY: Duration = Duration::from_secs(86_400);
