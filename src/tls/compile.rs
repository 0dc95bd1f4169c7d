//! `[listen.NAME.tls]` made ready to use.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::version::{TLS12, TLS13};

use super::expiry::NotAfter;
use super::load::{Loaded, load, pairs};
use super::store::Store;
use crate::config;
use crate::config::{HttpVersion, KeyPath, Problems, TlsVersion};
use crate::types::clock;

/// How one listener terminates TLS.
#[derive(Debug)]
pub struct Termination {
    config: Arc<ServerConfig>,
    ticketer: Arc<dyn ProducesTickets>,
    not_after: Vec<NotAfter>,
    warnings: Vec<String>,
}

impl Termination {
    /// Reads every certificate; what is wrong with them goes to `problems`. `previous` is what the same listener had
    /// before: clients that come back with its tickets need no full handshake.
    #[must_use]
    pub fn compile(
        tls: &config::Tls,
        path: &KeyPath,
        previous: Option<&Self>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let provider = Arc::new(provider());
        let loaded = load_all(tls, &path.key("certificates"), &provider, problems)?;
        let ticketer = match previous {
            Some(previous) => Arc::clone(&previous.ticketer),
            None => aws_lc_rs::Ticketer::new()
                .map_err(|error| problems.push(path, format!("no ticket keys: {error}")))
                .ok()?,
        };
        let store = Arc::new(Store::new(&loaded));
        let config = server_config(tls.min_version, provider, store, &ticketer)
            .map_err(|error| problems.push(path, format!("no TLS: {error}")))
            .ok()?;
        let now = clock::wall();
        let expiry = loaded.iter().filter_map(|one| one.not_after.warning(now));
        let others = loaded.iter().flat_map(|one| one.warnings.iter().cloned());
        Some(Self {
            config: Arc::new(config),
            ticketer,
            warnings: others.chain(expiry).collect(),
            not_after: loaded.into_iter().map(|one| one.not_after).collect(),
        })
    }

    /// Offers these versions of HTTP alone, the preferred one first. A client that knows none of them is refused.
    #[must_use]
    pub fn offering(mut self, protocols: &[HttpVersion]) -> Self {
        let mut config = ServerConfig::clone(&self.config);
        let names = [(HttpVersion::H2, "h2"), (HttpVersion::H1, "http/1.1")];
        config.alpn_protocols = names
            .iter()
            .filter(|(version, _)| protocols.contains(version))
            .map(|(_, name)| name.as_bytes().to_vec())
            .collect();
        self.config = Arc::new(config);
        self
    }

    /// What new connections are served with.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The end of every certificate, in the order of the file.
    #[must_use]
    pub fn not_after(&self) -> &[NotAfter] {
        &self.not_after
    }

    /// What is worth telling the operator and does not keep the gateway from serving.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn load_all(
    tls: &config::Tls,
    path: &KeyPath,
    provider: &CryptoProvider,
    problems: &mut Problems,
) -> Option<Vec<Loaded>> {
    if tls.certificates.is_empty() {
        problems.push(path, "at least one certificate is needed");
        return None;
    }
    let mut loaded = Vec::new();
    let mut whole = true;
    for (position, source) in tls.certificates.iter().enumerate() {
        let path = path.index(position);
        let results = match pairs(source) {
            Ok(pairs) => pairs.iter().map(|pair| load(pair, provider)).collect(),
            Err(why) => vec![Err(why)],
        };
        for result in results {
            match result {
                Ok(one) => loaded.push(one),
                Err(why) => {
                    problems.push(&path, why);
                    whole = false;
                }
            }
        }
    }
    whole.then_some(loaded)
}

/// The provider is named, never looked up: no other crate's features can change it. Its own defaults are the three AEAD
/// suites of TLS 1.3 and the same three with ECDHE for either key type in TLS 1.2.
fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

fn server_config(
    oldest: TlsVersion,
    provider: Arc<CryptoProvider>,
    store: Arc<Store>,
    ticketer: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[_] = match oldest {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets alone: the session cache would be one lock for all workers.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::clone(ticketer);
    config.send_tls13_tickets = 1;
    // A request in early data can be replayed by whoever recorded it.
    config.max_early_data_size = 0;
    Ok(config)
}
