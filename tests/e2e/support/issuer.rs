//! An issuer in this process: discovery, a key set that can fail in many ways, counters, keys, tokens.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::body::{self, Payload};
use super::token::{Key, Token};

/// How the issuer fails, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Accepts and closes.
    Down,
    Status500,
    Html,
    EmptySet,
    /// A key set of ten mebibytes.
    Huge,
    /// Accepts and says nothing.
    Hangs,
    /// Says what it should, a byte a second.
    Drips,
}

pub struct Issuer {
    address: SocketAddr,
    site: Arc<Site>,
    accepting: JoinHandle<()>,
}

struct Site {
    url: String,
    fault: Mutex<Option<Fault>>,
    published: Mutex<Vec<Value>>,
    /// RS256, ES256, EdDSA.
    signing: Mutex<[Key; 3]>,
    key_set_fetches: AtomicUsize,
    unchanged: AtomicUsize,
    marks: AtomicBool,
    cache_control: Mutex<Option<&'static str>>,
    discoveries: AtomicUsize,
    generation: AtomicUsize,
}

/// A running issuer with one key for each of RS256, ES256 and EdDSA.
pub async fn run() -> Issuer {
    let keys = keys(0);
    let published = keys.iter().map(Key::jwk).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let site = Arc::new(Site {
        url: format!("http://{address}"),
        fault: Mutex::new(None),
        published: Mutex::new(published),
        signing: Mutex::new(keys),
        key_set_fetches: AtomicUsize::new(0),
        unchanged: AtomicUsize::new(0),
        marks: AtomicBool::new(false),
        cache_control: Mutex::new(None),
        discoveries: AtomicUsize::new(0),
        generation: AtomicUsize::new(0),
    });
    let served = Arc::clone(&site);
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let site = Arc::clone(&served);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let site = Arc::clone(&site);
                    async move { site.respond(&request).await }
                });
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Issuer {
        address,
        site,
        accepting,
    }
}

fn keys(generation: usize) -> [Key; 3] {
    let key = |algorithm| Key::generate(algorithm, &format!("{algorithm:?}-{generation}"));
    [
        key(Algorithm::RS256),
        key(Algorithm::ES256),
        key(Algorithm::EdDSA),
    ]
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Issuer {
    pub fn url(&self) -> &str {
        &self.site.url
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Fails so, or not at all.
    pub fn fails(&self, fault: impl Into<Option<Fault>>) {
        *self.site.fault.lock() = fault.into();
    }

    pub fn key(&self, algorithm: Algorithm) -> Key {
        let keys = self.site.signing.lock();
        let found = keys.iter().find(|key| key.algorithm == algorithm);
        found.expect("one of three").clone()
    }

    /// A good token, signed with ES256.
    pub fn token(&self) -> Token {
        self.token_by(Algorithm::ES256)
    }

    pub fn token_by(&self, algorithm: Algorithm) -> Token {
        Token::new(&self.key(algorithm), self.url())
    }

    /// New elliptic keys sign from now on; the old ones stay published where `keep` says so.
    pub fn rotate(&self, keep: bool) {
        let generation = self.site.generation.fetch_add(1, Ordering::SeqCst) + 1;
        let keys = keys(generation);
        let mut published = self.site.published.lock();
        if !keep {
            published.clear();
        }
        published.extend(keys.iter().map(Key::jwk));
        *self.site.signing.lock() = keys;
    }

    /// Publishes exactly this.
    pub fn publish(&self, keys: Vec<Value>) {
        *self.site.published.lock() = keys;
    }

    /// How often the key set was asked for, answered or not.
    pub fn fetches(&self) -> usize {
        self.site.key_set_fetches.load(Ordering::SeqCst)
    }

    /// Of those, how many were answered with 304.
    pub fn unchanged(&self) -> usize {
        self.site.unchanged.load(Ordering::SeqCst)
    }

    /// Marks key sets with an ETag from now on.
    pub fn marks(&self) {
        self.site.marks.store(true, Ordering::SeqCst);
    }

    /// Says so of key sets from now on.
    pub fn caches(&self, cache_control: &'static str) {
        *self.site.cache_control.lock() = Some(cache_control);
    }

    pub fn discoveries(&self) -> usize {
        self.site.discoveries.load(Ordering::SeqCst)
    }
}

impl Site {
    async fn respond(
        &self,
        request: &Request<Incoming>,
    ) -> Result<Response<Payload>, &'static str> {
        let path = request.uri().path().to_owned();
        let counter = match path.as_str() {
            "/keys" => &self.key_set_fetches,
            _ => &self.discoveries,
        };
        counter.fetch_add(1, Ordering::SeqCst);
        let fault = *self.fault.lock();
        match (fault, path.as_str()) {
            (Some(Fault::Down), _) => return Err("down"),
            (Some(Fault::Hangs), _) => {
                std::future::pending::<Infallible>().await;
            }
            _ => {}
        }
        let answer = match (fault, path.as_str()) {
            (Some(Fault::Status500), _) => answer(500, "text/plain", "oops"),
            (Some(Fault::Html), _) => answer(200, "text/html", "<html>maintenance</html>"),
            (Some(Fault::EmptySet), "/keys") => answer(200, "application/json", r#"{"keys":[]}"#),
            (Some(Fault::Huge), "/keys") => {
                let padding = " ".repeat(10 * 1024 * 1024);
                let text = format!("{padding}{}", self.key_set());
                answer(200, "application/json", text)
            }
            _ => self.answer(&path, request),
        };
        Ok(if fault == Some(Fault::Drips) {
            answer.map(dripped)
        } else {
            answer.map(body::full)
        })
    }

    fn answer(&self, path: &str, request: &Request<Incoming>) -> Response<Bytes> {
        match path {
            "/.well-known/openid-configuration" => {
                let document =
                    json!({ "issuer": self.url, "jwks_uri": format!("{}/keys", self.url) });
                answer(200, "application/json", document.to_string())
            }
            "/keys" => self.keys(request),
            _ => answer(404, "text/plain", "not found"),
        }
    }

    fn keys(&self, request: &Request<Incoming>) -> Response<Bytes> {
        let text = self.key_set().to_string();
        let tag = format!(
            "\"{:x}\"",
            text.len() * 31 + self.generation.load(Ordering::SeqCst)
        );
        let is_known = request
            .headers()
            .get("if-none-match")
            .is_some_and(|known| *known == *tag);
        let marks = self.marks.load(Ordering::SeqCst);
        let mut response = if marks && is_known {
            self.unchanged.fetch_add(1, Ordering::SeqCst);
            answer(304, "application/json", "")
        } else {
            answer(200, "application/json", text)
        };
        if marks {
            response.headers_mut().insert("etag", tag.parse().unwrap());
        }
        if let Some(said) = *self.cache_control.lock() {
            let said = HeaderValue::from_static(said);
            response.headers_mut().insert("cache-control", said);
        }
        response
    }

    fn key_set(&self) -> Value {
        json!({ "keys": *self.published.lock() })
    }
}

fn answer(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Bytes> {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(body.into())
        .unwrap()
}

/// The same bytes, one of them a second, until the client has had enough.
fn dripped(whole: Bytes) -> Payload {
    let (sender, payload) = body::channel();
    tokio::spawn(async move {
        for byte in whole {
            if !sender.chunk(vec![byte]) {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    payload
}
