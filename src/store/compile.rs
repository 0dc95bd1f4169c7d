//! `[store]` to [`Store`].

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::bulletin::Bulletin;
use super::connect::{Credentials, Login, Place};
use super::health::Health;
use super::stats::Stats;
use super::{Store, derive};
use crate::config::{self, KeyPath, Problems, SecretRef, StoreKind, Topology};
use crate::tls;

/// A secret of fewer bytes can be guessed by whoever reads the store.
const LEAST_SECRET: usize = 32;

impl Store {
    /// Compiles `[store]`; `None` where replicas share nothing, or for a mistake. The previous one is kept where it was
    /// written alike, and learns of passwords that have changed.
    pub fn compile(
        written: &config::Store,
        previous: Option<&Arc<Self>>,
        problems: &mut Problems,
    ) -> Option<Arc<Self>> {
        let path = KeyPath::root().key("store");
        if written.kind == StoreKind::Memory {
            demand_nothing_else(written, &path, problems);
            return None;
        }
        judge(written, &path, problems);
        let server = login(
            (written.user.as_ref(), "user"),
            (written.password.as_ref(), "password"),
            &path,
            problems,
        );
        let sentinel = login(
            (written.sentinel_user.as_ref(), "sentinel_user"),
            (written.sentinel_password.as_ref(), "sentinel_password"),
            &path,
            problems,
        );
        let secret = secret(written, &path, problems);
        let tls = client_tls(written, &path, problems);
        let (server, sentinel, secret, tls) = (server?, sentinel?, secret?, tls?);
        if let Some(same) = previous.filter(|previous| previous.written == *written) {
            let credentials = &same.place.credentials;
            credentials.server.store(Arc::new(server));
            credentials.sentinel.store(Arc::new(sentinel));
            return Some(Arc::clone(same));
        }
        Some(Arc::new(Self {
            written: written.clone(),
            place: Place {
                topology: written.topology,
                servers: written.servers.0.clone().into(),
                master: written.master.clone().unwrap_or_default(),
                database: written.database,
                tls,
                server_name: written.tls.server_name.clone(),
                credentials: Credentials {
                    server: ArcSwap::from_pointee(server),
                    sentinel: ArcSwap::from_pointee(sentinel),
                },
            },
            prefix: Arc::from(written.prefix.as_str()),
            timeout: written.timeout.0,
            bulletin: Bulletin::new(&written.prefix, derive(&secret, "bulletin")),
            secret,
            stats: Stats::default(),
            health: Health::default(),
        }))
    }
}

/// Servers without `kind = "redis"` would be forgotten silently.
fn demand_nothing_else(written: &config::Store, path: &KeyPath, problems: &mut Problems) {
    if !written.servers.0.is_empty() {
        problems.push_with_help(
            &path.key("servers"),
            "a store in memory has no servers",
            Some("write `kind = \"redis\"`".to_owned()),
        );
    }
}

fn judge(written: &config::Store, path: &KeyPath, problems: &mut Problems) {
    let servers = &written.servers.0;
    if servers.is_empty() {
        problems.push_with_help(
            &path.key("servers"),
            "a store needs a server",
            Some("write `servers = \"redis://127.0.0.1:6379\"`".to_owned()),
        );
    }
    if written.topology == Topology::Single && servers.len() > 1 {
        problems.push_with_help(
            &path.key("servers"),
            "with more than one server it must be known what they are to each other",
            Some("write `topology = \"sentinel\"` or `topology = \"cluster\"`".to_owned()),
        );
    }
    if (written.topology == Topology::Sentinel) != written.master.is_some() {
        problems.push(
            &path.key("master"),
            "sentinels, and only they, are asked for a master by its name",
        );
    }
    if written.topology != Topology::Sentinel
        && (written.sentinel_user.is_some() || written.sentinel_password.is_some())
    {
        problems.push(&path.key("sentinel_password"), "there are no sentinels");
    }
    if written.topology == Topology::Cluster && written.database != 0 {
        problems.push(&path.key("database"), "a cluster has only the database 0");
    }
    if servers
        .iter()
        .any(|server| server.tls != servers.iter().all(|server| server.tls))
    {
        problems.push(
            &path.key("servers"),
            "either all servers are spoken to over TLS, or none",
        );
    }
    judge_words(written, path, problems);
}

fn judge_words(written: &config::Store, path: &KeyPath, problems: &mut Problems) {
    let encrypted = written.servers.0.iter().any(|server| server.tls);
    if written.tls != config::UpstreamTls::default() && !encrypted {
        problems.push_with_help(
            &path.key("tls"),
            "no server is encrypted",
            Some("write rediss:// servers, or drop `tls`".to_owned()),
        );
    }
    if written.timeout.0.is_zero() {
        problems.push(&path.key("timeout"), "must be more than nothing");
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    let prefix = &written.prefix;
    if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(is_plain) {
        problems.push(
            &path.key("prefix"),
            "a prefix is 1 to 64 letters, digits and `-_.:/`",
        );
    }
}

fn login(
    (user, user_key): (Option<&String>, &str),
    (password, password_key): (Option<&SecretRef>, &str),
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Login> {
    let Some(password) = password else {
        if user.is_some() {
            problems.push(&path.key(user_key), format!("needs `{password_key}`"));
        }
        return Some(Login::default());
    };
    let path = path.key(password_key);
    let secret = match password.read() {
        Ok(secret) => secret,
        Err(error) => {
            problems.push(&path, error.to_string());
            return None;
        }
    };
    match std::str::from_utf8(secret.expose()) {
        Ok(password) => Some(Login {
            user: user.cloned(),
            password: Some(Zeroizing::new(password.to_owned())),
        }),
        Err(_) => {
            problems.push(&path, "the password is no text");
            None
        }
    }
}

fn secret(written: &config::Store, path: &KeyPath, problems: &mut Problems) -> Option<hmac::Key> {
    let path = path.key("key_secret");
    let Some(reference) = &written.key_secret else {
        problems.push_with_help(
            &path,
            "replicas need a secret of their own: what they hash and sign must not be guessed by whoever reads the store",
            Some("write `key_secret = { file = \"/run/secrets/store-key\" }`, the same on all replicas".to_owned()),
        );
        return None;
    };
    match reference.read() {
        Ok(secret) if secret.expose().len() >= LEAST_SECRET => {
            Some(hmac::Key::new(hmac::HMAC_SHA256, secret.expose()))
        }
        Ok(_) => {
            problems.push(&path, format!("needs at least {LEAST_SECRET} bytes"));
            None
        }
        Err(error) => {
            problems.push(&path, error.to_string());
            None
        }
    }
}

/// `Some(None)` where no server is spoken to over TLS.
fn client_tls(
    written: &config::Store,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Option<Arc<rustls::ClientConfig>>> {
    if !written.servers.0.iter().any(|server| server.tls) {
        return Some(None);
    }
    let path = path.key("tls");
    let ca = written.tls.ca.as_deref().map(std::fs::read).transpose();
    let ca = ca.map_err(|error| format!("the bundle cannot be read: {error}"));
    match ca.and_then(|ca| tls::client_config(ca.as_deref(), &[])) {
        Ok(config) => Some(Some(config)),
        Err(why) => {
            problems.push(&path.key("ca"), why);
            None
        }
    }
}
