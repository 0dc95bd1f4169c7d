//! `[issuer.NAME.introspection]` to [`Introspection`].

use std::time::Duration;

use http::Uri;
use http::header::HeaderValue;
use http::uri::PathAndQuery;

use super::client::{Client, Signer};
use super::{INACTIVE_FOR, Introspection};
use crate::authn::answers::Answers;
use crate::authn::cache::{Fingerprint, fingerprint};
use crate::authn::jwks::fetch::{is_https, is_loopback, is_plain_url, is_same_origin};
use crate::config::{
    self, ClientAuth, Endpoint, EndpointScheme, Introspected, KeyPath, Problems, Secret, SecretRef,
};
use crate::upstream::Cluster;
use crate::upstream::connect::public_scheme;

/// Longer, and a revocation would mean little.
const MOST_CACHE: Duration = Duration::from_secs(3_600);

impl Introspection {
    /// Compiles the endpoint of the issuer `name`. `path` is that of the issuer.
    pub(in crate::authn) fn compile(
        name: &str,
        issuer: &config::Issuer,
        path: &KeyPath,
        previous: Option<&Self>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let written = issuer.introspection.as_ref()?;
        let path = path.key("introspection");
        if written.cache.0 > MOST_CACHE {
            problems.push(
                &path.key("cache"),
                "longer than 1h: a revocation would not be seen",
            );
        }
        if written.timeout.0.is_zero() {
            problems.push(&path.key("timeout"), "must be more than nothing");
        }
        let client = client(written, &issuer.url, &path, problems);
        let url = url(written, issuer, &path.key("url"), problems);
        let ((client, secret), url) = (client?, url?);
        let previous = previous.map(|previous| &previous.cluster);
        let upstream = upstream(written, issuer, &url, &path, problems)?;
        let cluster = format!("issuer.{name}.introspection");
        Some(Self {
            cluster: Cluster::compile(&cluster, &upstream, &path, previous, problems)?,
            takes_all: written.tokens == Introspected::All,
            url: written.url.clone(),
            path: url
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
            host: HeaderValue::from_str(url.authority()?.as_str()).ok()?,
            scheme: public_scheme(&url).filter(|_| is_behind_connect(issuer, &url)),
            client,
            secret,
            timeout: written.timeout.0,
            cache: written.cache.0,
            answers: Answers::new(written.cache.0, INACTIVE_FOR),
        })
    }
}

/// https, or http where nothing leaves this machine or the operator named where to connect.
fn url(
    written: &config::Introspection,
    issuer: &config::Issuer,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Uri> {
    let url: Option<Uri> = written.url.parse().ok().filter(is_plain_url);
    let Some(url) = url else {
        problems.push(path, "is no http or https URL");
        return None;
    };
    if !is_https(&url) && !is_loopback(&url) && !is_behind_connect(issuer, &url) {
        problems.push(
            path,
            "is neither https nor on loopback: tokens and the client's secret would be sent in the clear",
        );
        return None;
    }
    Some(url)
}

/// Whether `connect` stands for the host of `url`: it is the issuer's own, or the issuer's name is no URL.
fn is_behind_connect(issuer: &config::Issuer, url: &Uri) -> bool {
    let own = issuer.url.parse::<Uri>().ok().filter(is_plain_url);
    issuer.connect.is_some() && own.is_none_or(|own| is_same_origin(&own, url))
}

fn upstream(
    written: &config::Introspection,
    issuer: &config::Issuer,
    url: &Uri,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<config::Upstream> {
    let endpoint = match issuer.connect.as_deref() {
        // A `connect` that is none is complained about where it stands.
        Some(connect) if is_behind_connect(issuer, url) => connect.parse().ok()?,
        _ => origin(url),
    };
    if endpoint.port == 0 {
        problems.push(&path.key("url"), "the port is no port");
        return None;
    }
    let mut upstream = config::Upstream::of(endpoint);
    upstream.max_requests = written.max_requests;
    upstream.tls.ca.clone_from(&issuer.ca);
    Some(upstream)
}

fn origin(url: &Uri) -> Endpoint {
    let (scheme, port) = if is_https(url) {
        (EndpointScheme::Https, 443)
    } else {
        (EndpointScheme::Http, 80)
    };
    let host = url.host().unwrap_or_default();
    Endpoint {
        scheme,
        host: host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase(),
        port: url.port_u16().unwrap_or(port),
    }
}

/// Exactly what the way of authentication needs, and nothing that another one would; and the hash of the secret.
fn client(
    written: &config::Introspection,
    issuer: &str,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<(Client, Fingerprint)> {
    let id = written.client_id.as_str();
    if id.is_empty() {
        problems.push(&path.key("client_id"), "must not be empty");
    }
    let by_key = written.auth == ClientAuth::PrivateKeyJwt;
    let useless = [
        ("client_secret", by_key && written.client_secret.is_some()),
        ("key", !by_key && written.key.is_some()),
        ("key_id", !by_key && written.key_id.is_some()),
        ("audience", !by_key && written.audience.is_some()),
    ];
    for (key, _) in useless.iter().filter(|(_, is_useless)| *is_useless) {
        problems.push(
            &path.key(*key),
            "has no effect with this `auth`: exactly one way is used",
        );
    }
    if by_key {
        let audience = written.audience.as_deref().unwrap_or(issuer);
        let path = path.key("key");
        let pem = secret(written.key.as_ref(), &path, "private_key_jwt", problems)?;
        return match Signer::new(&pem, written.key_id.as_deref(), audience) {
            Ok(signer) => Some((Client::with_key(id, signer), fingerprint(&[pem.expose()]))),
            Err(why) => {
                problems.push(&path, why);
                None
            }
        };
    }
    let (path, by) = (path.key("client_secret"), "basic and post");
    let secret = secret(written.client_secret.as_ref(), &path, by, problems)?;
    let client = match written.auth {
        ClientAuth::Post => Client::post(id, &secret),
        _ => Client::basic(id, &secret),
    };
    if client.is_none() {
        problems.push(&path, "the secret is no text");
    }
    client.map(|client| (client, fingerprint(&[secret.expose()])))
}

fn secret(
    written: Option<&SecretRef>,
    path: &KeyPath,
    needed_by: &str,
    problems: &mut Problems,
) -> Option<Secret> {
    let Some(written) = written else {
        problems.push(path, format!("is missing: `auth` {needed_by} needs it"));
        return None;
    };
    match written.read() {
        Ok(secret) => Some(secret),
        Err(why) => {
            problems.push(path, why.to_string());
            None
        }
    }
}
