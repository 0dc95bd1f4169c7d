//! oidc-provider (npm): a certified OpenID provider behind the gateway, and as the issuer of its tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use vestibule::demo::client::{Answer, Client, Target, connect};
use vestibule::types::{clock, task};

use super::entrance::{self, Entrance};
use super::greeter;
use super::program::{Program, Server};
use crate::support::pki;

const PROVIDER: Program = Program::Node("oidc_provider");
const ALGORITHMS: [&str; 3] = ["RS256", "ES256", "EdDSA"];

/// What a client may try in order to be taken for somebody else.
const FORGERIES: &[&[(&str, &str)]] = &[
    &[],
    &[("x-forwarded-host", "evil.example")],
    &[("x-forwarded-host", "evil.example, test.example")],
    &[
        ("x-forwarded-host", "test.example"),
        ("x-forwarded-host", "evil.example"),
    ],
    &[("x-forwarded-proto", "http")],
    &[("x-forwarded-proto", "gopher")],
    &[("x-forwarded-port", "666")],
    &[("forwarded", "for=1.2.3.4;host=evil.example;proto=http")],
    &[("x-real-ip", "6.6.6.6")],
    &[("x-forwarded-for", "6.6.6.6")],
    &[("x-original-host", "evil.example")],
    &[("x-host", "evil.example")],
    &[("x_forwarded_host", "evil.example")],
    &[
        ("x-forwarded-host", "evil.example:666"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-port", "666"),
        ("x-forwarded-server", "evil.example"),
        ("forwarded", "host=evil.example"),
        ("x-real-ip", "6.6.6.6"),
        ("connection", "x-forwarded-host, x-forwarded-proto"),
    ],
];

/// A provider that believes forwarding headers.
async fn credulous() -> Server {
    let issuer = format!("https://{}", entrance::HOST);
    Server::start(PROVIDER, &json!({ "proxy": true, "issuer": issuer })).await
}

fn public_conf(provider: &Server) -> String {
    format!(
        r#"
        [upstream.provider]
        endpoints = ["http://127.0.0.1:{}"]

        [[route]]
        path     = "/*"
        auth     = "none"
        upstream = "provider"
        "#,
        provider.port()
    )
}

/// So that the next test can fail.
#[tokio::test]
async fn without_the_gateway_a_forged_header_poisons_discovery() {
    let provider = credulous().await;
    let target = Target::http1(([127, 0, 0, 1], provider.port()).into());
    let forged = discovery(&target, "http", &[("x-forwarded-host", "evil.example")]).await;
    assert_eq!(forged["token_endpoint"], "http://evil.example/token");
    assert_eq!(forged["jwks_uri"], "http://evil.example/jwks");
    let forged = discovery(&target, "http", &[("x-forwarded-proto", "https")]).await;
    let endpoint = format!("https://{}/token", entrance::HOST);
    assert_eq!(forged["token_endpoint"], endpoint);
}

#[tokio::test]
async fn discovery_names_the_public_origin_alone_whatever_a_client_forges() {
    let provider = credulous().await;
    let entrance = Entrance::open(&public_conf(&provider)).await;
    for tls in [true, false] {
        for http2 in [true, false] {
            let scheme = if tls { "https" } else { "http" };
            let target = entrance.target(tls, http2);
            for forgery in FORGERIES {
                if http2 && forgery.iter().any(|(name, _)| *name == "connection") {
                    continue; // HTTP/2 has no such field
                }
                let document = discovery(&target, scheme, forgery).await;
                let origin = format!("{scheme}://{}/", entrance::HOST);
                let strangers = strangers(&document, &origin);
                assert_eq!(strangers, [""; 0], "tls {tls}, http2 {http2}, {forgery:?}");
            }
        }
    }
}

/// Every URL of the document that is not of `origin`; `issuer` is configured and was never in danger.
fn strangers(document: &Value, origin: &str) -> Vec<String> {
    let members = document.as_object().expect("discovery is an object");
    let urls = members.iter().filter(|(name, _)| *name != "issuer");
    let urls: Vec<&str> = urls.filter_map(|(_, value)| value.as_str()).collect();
    assert!(urls.len() >= 5, "endpoints are missing: {document}");
    assert!(!document.to_string().contains("evil"), "{document}");
    let urls = urls.into_iter().filter(|url| url.contains("://"));
    urls.filter(|url| !url.starts_with(origin))
        .map(str::to_owned)
        .collect()
}

async fn discovery(target: &Target, scheme: &str, forgery: &[(&'static str, &str)]) -> Value {
    let mut request = get(scheme, "/.well-known/openid-configuration");
    for (name, value) in forgery {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let answer = send(target, request).await;
    assert_eq!(answer.status, 200, "{forgery:?}: {}", answer.text());
    answer.json()
}

fn protected_conf(provider: u16, algorithms: &[&str], backend: &str) -> String {
    format!(
        r#"
        [upstream.provider]
        endpoints = ["http://127.0.0.1:{provider}"]

        [upstream.play]
        endpoints = ["http://{backend}"]

        [issuer.provider]
        url        = "http://127.0.0.1:{provider}"
        audiences  = ["peers"]
        algorithms = {algorithms:?}
        token_type = "at+jwt"
        refresh    = "1s"

        [[route]]
        path     = "/token"
        auth     = "none"
        upstream = "provider"

        [[route]]
        path     = "/api/*"
        auth     = {{ any = ["provider"], scopes = ["read"] }}
        upstream = "play"
        "#
    )
}

#[tokio::test]
async fn tokens_of_every_algorithm_pass_and_nothing_else_does() {
    let provider = Server::start(PROVIDER, &json!({})).await;
    let backend = greeter().await;
    let conf = protected_conf(provider.port(), &ALGORITHMS, &backend.address.to_string());
    let entrance = Entrance::open(&conf).await;
    for http2 in [true, false] {
        let target = entrance.target(true, http2);
        assert_eq!(ask(&target, "").await.status, 401);
        for algorithm in ALGORITHMS {
            // Asked for through the gateway as well.
            let token = grant(&target, "https", algorithm, "read").await;
            let answer = eventually(|| ask(&target, &token), |answer| answer.status == 200).await;
            assert_eq!(answer.at("/identity/x-auth-user"), "peer", "{algorithm}");

            let forged = format!("{}AAAAAA", &token[..token.len() - 6]);
            let answer = ask(&target, &forged).await;
            assert_eq!(answer.status, 401, "{algorithm}");
            assert!(answer.header("www-authenticate").contains("invalid_token"));
        }
        let narrow = grant(&target, "https", "ES256", "write").await;
        let answer = ask(&target, &narrow).await;
        assert_eq!(answer.status, 403);
        assert!(
            answer
                .header("www-authenticate")
                .contains("insufficient_scope")
        );
    }
}

#[tokio::test]
async fn algorithm_that_is_not_listed_is_refused() {
    let provider = Server::start(PROVIDER, &json!({})).await;
    let backend = greeter().await;
    let conf = protected_conf(provider.port(), &["ES256"], &backend.address.to_string());
    let entrance = Entrance::open(&conf).await;
    let target = entrance.target(true, true);
    let listed = grant(&target, "https", "ES256", "read").await;
    eventually(|| ask(&target, &listed), |answer| answer.status == 200).await;
    for algorithm in ["RS256", "EdDSA"] {
        let token = grant(&target, "https", algorithm, "read").await;
        assert_eq!(ask(&target, &token).await.status, 401, "{algorithm}");
    }
}

#[tokio::test]
async fn opaque_tokens_are_asked_about_until_they_are_revoked() {
    let provider = Server::start(PROVIDER, &json!({})).await;
    let port = provider.port();
    let backend = greeter().await;
    let secret = pki::SHARED.file("peer-secret", "peer-secret-worth-nothing");
    let introspection = format!(
        r#"
        [issuer.provider.introspection]
        url           = "http://127.0.0.1:{port}/token/introspection"
        client_id     = "peer"
        client_secret = {{ file = {secret:?} }}
        cache         = "200ms"
        "#
    );
    let conf = protected_conf(port, &ALGORITHMS, &backend.address.to_string());
    let entrance = Entrance::open(&format!("{conf}{introspection}")).await;
    let target = entrance.target(true, true);
    let direct = Target::http1(([127, 0, 0, 1], port).into());
    let asked = async |outcome: &str| {
        let labels = [("source", "provider"), ("outcome", outcome)];
        entrance
            .gateway
            .metric("vestibule_confirmations_total", &labels)
            .await
    };

    let token = grant(&target, "https", "opaque", "read").await;
    let other = grant(&target, "https", "opaque", "read").await;
    assert_eq!(token.matches('.').count(), 0, "no JWT: {token}");
    let answer = ask(&target, &token).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.at("/identity/x-auth-method"), "introspection");
    let narrow = grant(&target, "https", "opaque", "write").await;
    assert_eq!(ask(&target, &narrow).await.status, 403);
    let before = asked("confirmed").await;
    let jwt = grant(&target, "https", "ES256", "read").await;
    eventually(|| ask(&target, &jwt), |answer| answer.status == 200).await;
    assert!(
        (asked("confirmed").await - before).abs() < 0.5,
        "a JWT is for the keys"
    );
    assert_eq!(ask(&target, &format!("{token}x")).await.status, 401);

    let form = format!("token={token}&token_type_hint=access_token");
    let answer = send(&direct, post("http", "/token/revocation", form)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually(|| ask(&target, &token), |answer| answer.status == 401).await;
    assert_eq!(ask(&target, &other).await.status, 200);

    // Nobody knows what it stands for, so nobody is let in, and nobody is told that it is bad.
    provider.stop().await;
    let cannot = eventually(|| ask(&target, &other), |answer| answer.status != 200).await;
    assert_eq!(cannot.status, 503, "{}", cannot.text());
    assert_eq!(ask(&target, &jwt).await.status, 200);
}

#[tokio::test]
async fn outage_of_the_provider_is_no_mass_logout() {
    let provider = Server::start(PROVIDER, &json!({})).await;
    let backend = greeter().await;
    let conf = protected_conf(provider.port(), &ALGORITHMS, &backend.address.to_string());
    let entrance = Entrance::open(&conf).await;
    let target = entrance.target(true, true);
    let known = grant(&target, "https", "RS256", "read").await;
    let unseen = grant(&target, "https", "RS256", "read").await;
    let seen = eventually(|| ask(&target, &known), |answer| answer.status == 200);
    seen.await;

    provider.stop().await;
    // Several refreshes fail meanwhile.
    let failed = [("issuer", "provider"), ("result", "failed")];
    eventually(
        || {
            entrance
                .gateway
                .metric("vestibule_jwks_fetches_total", &failed)
        },
        |failures| *failures >= 2.0,
    )
    .await;
    assert_eq!(ask(&target, &known).await.status, 200);
    // The keys work on, not only verdicts that were kept.
    assert_eq!(ask(&target, &unseen).await.status, 200);
    assert_eq!(ask(&target, "").await.status, 401);
}

#[tokio::test]
async fn key_rotation_loses_no_valid_token_and_keeps_no_old_key() {
    let provider = Server::start(PROVIDER, &json!({})).await;
    let port = provider.port();
    let backend = greeter().await;
    let conf = protected_conf(port, &ALGORITHMS, &backend.address.to_string());
    let entrance = Entrance::open(&conf).await;
    let target = entrance.target(true, true);
    let old = grant(&target, "https", "ES256", "read").await;
    eventually(|| ask(&target, &old), |answer| answer.status == 200).await;

    // As long as the provider does not publish other keys, the old token is valid: also while it is down.
    let load = Load::start(&target, &old);
    load.has_sent(50).await;
    provider.stop().await;
    load.has_sent(50).await;
    assert_eq!(load.stop().await, 0, "failures of the old token");

    let _provider = Server::start(PROVIDER, &json!({ "port": port })).await;
    let new = grant(&target, "https", "ES256", "read").await;
    let began = clock::now();
    eventually(|| ask(&target, &new), |answer| answer.status == 200).await;
    assert!(began.elapsed() < REFRESHED, "the new key came late");
    let load = Load::start(&target, &new);
    eventually(|| ask(&target, &old), |answer| answer.status == 401).await;
    assert!(began.elapsed() < REFRESHED, "the old key stayed");
    // Once gone it stays away, and the new one stays.
    load.has_sent(100).await;
    assert_eq!(ask(&target, &old).await.status, 401);
    assert_eq!(load.stop().await, 0, "failures of the new token");
}

/// Requests with one token, one after the other, on one connection.
struct Load {
    sent: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
    sending: JoinHandle<u64>,
}

impl Load {
    fn start(target: &Target, token: &str) -> Self {
        let (sent, stopped) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let sending = task::spawn("load", {
            let (target, token) = (target.clone(), token.to_owned());
            let (sent, stopped) = (Arc::clone(&sent), Arc::clone(&stopped));
            async move {
                let mut client = connect(&target).await.unwrap();
                let mut failures = 0;
                while !stopped.load(Ordering::Relaxed) {
                    let answer = ask_on(&mut client, &token).await;
                    failures += u64::from(answer.status != 200);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                failures
            }
        });
        Self {
            sent,
            stopped,
            sending,
        }
    }

    /// Waits until that many more are answered.
    async fn has_sent(&self, more: u64) {
        let goal = self.sent.load(Ordering::Relaxed) + more;
        let sent = || async { self.sent.load(Ordering::Relaxed) };
        eventually(sent, |sent| *sent >= goal).await;
    }

    /// How many failed.
    async fn stop(self) -> u64 {
        self.stopped.store(true, Ordering::Relaxed);
        self.sending.await.unwrap()
    }
}

/// Asks until the answer is the wanted one.
async fn eventually<T: std::fmt::Debug, F: Future<Output = T>>(
    mut ask: impl FnMut() -> F,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let deadline = clock::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(clock::now() < deadline, "still {answer:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A token by the grant of client credentials.
async fn grant(target: &Target, scheme: &str, algorithm: &str, scope: &str) -> String {
    let form =
        format!("grant_type=client_credentials&resource=urn:peers:{algorithm}&scope={scope}");
    let answer = send(target, post(scheme, "/token", form)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.at("/access_token").as_str().unwrap().to_owned()
}

/// A form, from the provider's client.
fn post(scheme: &str, path: &str, form: String) -> Request<Full<Bytes>> {
    let mut request = get(scheme, path);
    *request.method_mut() = Method::POST;
    *request.body_mut() = Full::new(Bytes::from(form));
    let credentials = STANDARD.encode("peer:peer-secret-worth-nothing");
    for (name, value) in [
        (AUTHORIZATION, format!("Basic {credentials}")),
        (CONTENT_TYPE, "application/x-www-form-urlencoded".to_owned()),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

async fn ask(target: &Target, token: &str) -> Answer {
    ask_on(&mut connect(target).await.unwrap(), token).await
}

async fn ask_on(client: &mut Client, token: &str) -> Answer {
    let mut request = get("https", "/api/whoami");
    if !token.is_empty() {
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert(AUTHORIZATION, bearer);
    }
    client.send(request).await.unwrap()
}

async fn send(target: &Target, request: Request<Full<Bytes>>) -> Answer {
    let mut client = connect(target).await.unwrap();
    client.send(request).await.unwrap()
}

fn get(scheme: &str, path: &str) -> Request<Full<Bytes>> {
    let uri = format!("{scheme}://{}{path}", entrance::HOST);
    Request::get(uri).body(Full::default()).unwrap()
}

/// How long a wanted answer may take to come; slow machines need it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A refresh and what an unknown key may wait for, on a slow machine.
const REFRESHED: Duration = Duration::from_secs(8);
