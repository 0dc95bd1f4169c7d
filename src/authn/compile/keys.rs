//! Where the keys of an issuer come from: a secret, a file, or the network; exactly one of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use jsonwebtoken::DecodingKey;
use parking_lot::Mutex;

use super::issuer::{IssuerPlace, asks_about_all};
use crate::authn::cache::{Fingerprint, fingerprint};
use crate::authn::issuer::{Keys, Network, report_left_out};
use crate::authn::jwks::fetch::{Location, is_https, is_loopback, is_plain_url};
use crate::authn::jwks::store::Loaded;
use crate::authn::jwks::{KeySet, Remote, Shelf, Store};
use crate::authn::jwt::verify::least_secret;
use crate::config::{self, Algorithm, KeyPath, Problems, Secret, SecretRef};
use crate::types::clock;

/// Finds out where the keys come from; exactly one source.
pub(super) fn keys(
    config: &config::Issuer,
    place: &IssuerPlace<'_>,
    problems: &mut Problems,
) -> Option<Keys> {
    let path = place.path;
    let sources = [
        ("secret", config.secret.is_some()),
        ("jwks_file", config.jwks_file.is_some()),
        ("jwks_url", config.jwks_url.is_some()),
    ];
    let named: Vec<&str> = sources
        .iter()
        .filter(|one| one.1)
        .map(|one| one.0)
        .collect();
    if asks_about_all(config) {
        if let Some(first) = named.first() {
            let why = "has no effect: `introspection.tokens = \"all\"` asks about every token";
            problems.push(&path.key(*first), why);
            return None;
        }
        return Some(Keys::None);
    }
    if named.len() > 1 {
        problems.push(path, format!("{} exclude each other", named.join(" and ")));
        return None;
    }
    if config.previous_secret.is_some() && config.secret.is_none() {
        problems.push(&path.key("previous_secret"), "has no `secret` to precede");
    }
    let is_local = config.secret.is_some() || config.jwks_file.is_some();
    let fetches = !is_local || config.introspection.is_some();
    if !fetches && (config.connect.is_some() || config.ca.is_some()) {
        problems.push(
            path,
            "`connect` and `ca` have no effect: nothing is fetched",
        );
    }
    match (&config.secret, &config.jwks_file) {
        (Some(secret), _) => secrets(secret, config, path, problems),
        (None, Some(file)) => key_file(file, config, &path.key("jwks_file"), problems),
        (None, None) => remote(config, place, problems),
    }
}

fn secrets(
    secret: &SecretRef,
    config: &config::Issuer,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Keys> {
    let current = secret_bytes(secret, config, &path.key("secret"), problems);
    let previous = config
        .previous_secret
        .as_ref()
        .map(|previous| secret_bytes(previous, config, &path.key("previous_secret"), problems));
    let mut all = vec![current?];
    if let Some(previous) = previous {
        all.push(previous?);
    }
    let parts: Vec<&[u8]> = all.iter().map(|secret| secret.expose()).collect();
    Some(Keys::Secrets {
        secrets: parts
            .iter()
            .map(|part| DecodingKey::from_secret(part))
            .collect(),
        fingerprint: fingerprint(&parts),
    })
}

fn secret_bytes(
    secret: &SecretRef,
    config: &config::Issuer,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Secret> {
    let secret = match secret.read() {
        Ok(secret) => secret,
        Err(why) => {
            problems.push(path, why.to_string());
            return None;
        }
    };
    let hardest = config
        .algorithms
        .iter()
        .copied()
        .max_by_key(|one| least_secret(*one));
    let (algorithm, least) = hardest.map_or((Algorithm::HS256, 32), |one| (one, least_secret(one)));
    let length = secret.expose().len();
    if length < least {
        let message = format!("the secret has {length} bytes; {algorithm:?} needs {least}");
        let help = "openssl rand -base64 48".to_owned();
        problems.push_with_help(path, message, Some(help));
        return None;
    }
    Some(secret)
}

fn key_file(
    file: &std::path::Path,
    config: &config::Issuer,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Keys> {
    let read = std::fs::read(file)
        .map_err(|why| format!("cannot read `{}`: {why}", file.display()))
        .and_then(|bytes| {
            let set = KeySet::parse(&bytes, &config.algorithms).map_err(|why| why.to_string())?;
            report_left_out(&path.to_string(), set.left_out(), &[]);
            Ok((set, Bytes::from(bytes)))
        });
    match read {
        Ok((set, raw)) => Some(Keys::File {
            fingerprint: fingerprint(&[&raw]),
            loaded: Box::new(Loaded {
                set,
                raw,
                generation: 0,
                at: clock::now(),
                fresh_until: clock::now(),
            }),
        }),
        Err(why) => {
            problems.push(path, why);
            None
        }
    }
}

fn remote(
    config: &config::Issuer,
    place: &IssuerPlace<'_>,
    problems: &mut Problems,
) -> Option<Keys> {
    let connect = match config.connect.as_deref().map(str::parse).transpose() {
        Ok(connect) => connect,
        Err(why) => {
            let why: config::value::BadValue = why;
            problems.push(&place.path.key("connect"), why.to_string());
            return None;
        }
    };
    let location = match location(config) {
        Ok(location) => location,
        Err((key, why)) => {
            problems.push(&place.path.key(key), why);
            return None;
        }
    };
    let source = match &location {
        Location::Keys(url) => url.to_string(),
        Location::Discovery { document, .. } => document.to_string(),
    };
    let remote = Remote {
        issuer: config.url.clone(),
        location,
        connect,
        ca: config.ca.clone(),
        allowed: config.algorithms.clone().into(),
        longest: config.refresh_max.0,
        discovered: Mutex::default(),
        validator: Mutex::default(),
    };
    let shelf = place
        .state_dir
        .map(|folder| Shelf::new(folder, place.name, &config.url, &source));
    let network = Network {
        remote,
        store: Store::new(config.refresh.0, config.stale_max.0, clock::now()),
        radar: Arc::default(),
        shelf,
        shelved: Mutex::default(),
    };
    let earlier = place
        .previous
        .filter(|previous| previous.has_same_source(config));
    let earlier = earlier.and_then(|previous| previous.network());
    Some(Keys::Remote(Box::new(network.take_over(
        earlier,
        place.name,
        config.stale_max.0,
    ))))
}

impl Network {
    /// Takes over what is known already: from the issuer before a reload, or from the process before a restart.
    fn take_over(mut self, earlier: Option<&Self>, name: &str, stale_max: Duration) -> Self {
        if let Some(earlier) = earlier {
            self.radar = Arc::clone(&earlier.radar);
            if self.store.adopt(&earlier.store, &self.remote.allowed) {
                return self;
            }
        }
        let Some(shelf) = &self.shelf else {
            return self;
        };
        let file = shelf.file().display();
        match shelf.recall(&self.remote.allowed, stale_max, clock::wall()) {
            Ok(Some(mut kept)) => {
                tracing::info!(issuer = name, %file, age_seconds = kept.age.as_secs(), "keys of before the restart");
                self.radar.note(name, &mut kept.set, clock::wall());
                self.store.restore(kept, clock::now());
            }
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(issuer = name, %file, error = %why, "kept keys are not used");
            }
        }
        self
    }
}

/// https, or http where nothing leaves this machine or the operator named where to connect.
fn location(config: &config::Issuer) -> Result<Location, (&'static str, String)> {
    let (key, written) = match &config.jwks_url {
        Some(written) => ("jwks_url", written),
        None => ("url", &config.url),
    };
    let url: Option<Uri> = written.parse().ok().filter(is_plain_url);
    let Some(url) = url else {
        let why = match key {
            "url" => {
                "is no URL, so one of `jwks_url`, `jwks_file` and `secret` must tell where the keys are"
            }
            _ => "is no http or https URL",
        };
        return Err((key, why.to_owned()));
    };
    if !is_https(&url) && !is_loopback(&url) && config.connect.is_none() {
        let why = "is neither https nor on loopback: whoever is in between could exchange the keys";
        return Err((key, why.to_owned()));
    }
    if key == "jwks_url" {
        return Ok(Location::Keys(url));
    }
    let document = format!(
        "{}/.well-known/openid-configuration",
        written.trim_end_matches('/')
    );
    let document = document
        .parse()
        .map_err(|_| (key, "is no URL that a path can follow".to_owned()))?;
    Ok(Location::Discovery {
        issuer: url,
        document,
    })
}

impl Keys {
    pub(super) fn fingerprint(&self) -> Option<&Fingerprint> {
        match self {
            Self::Secrets { fingerprint, .. } | Self::File { fingerprint, .. } => Some(fingerprint),
            Self::Remote(_) | Self::None => None,
        }
    }

    pub(super) fn shelf(&self) -> Option<&Shelf> {
        match self {
            Self::Remote(network) => network.shelf.as_ref(),
            Self::Secrets { .. } | Self::File { .. } | Self::None => None,
        }
    }
}
