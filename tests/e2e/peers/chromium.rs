//! Chromium: a page of one origin that calls an API of another through the gateway, over TLS, under the rules of a real
//! browser: credentials, preflights, gRPC-Web by its official client, server-sent events; and a page that no list knows.

use std::process::Stdio;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use x509_parser::prelude::FromDer;

use super::program::installed;
use super::{greeter, greeter_conf, token};
use crate::support::gateway;
use crate::support::origin::{self, Origin, Reply};
use crate::support::pki;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_calls_through_the_gateway_and_one_that_is_not_listed_does_not() {
    let backend = greeter().await;
    let pages = pages().await;
    let rest = rest().await;
    let greeting = greeter_conf(&backend, &format!("h2c://{}", backend.address), "translate");
    let cors = "cors = { origins = [\"https://app.test.example\"], credentials = true";
    let conf = greeting.replace(
        "upstream = \"greeter\"",
        &format!("upstream = \"greeter\"\n{cors} }}"),
    );
    let gateway = gateway::conf(&conf)
        .and(&format!(
            r#"
            [[route]]
            name     = "pages"
            host     = "*.test.example"
            auth     = "none"
            upstream = "pages"
            [[route]]
            name     = "rest"
            host     = "test.example"
            path     = "/api/*"
            auth     = "none"
            upstream = "rest"
            {cors}, expose = ["x-request-id"] }}
            "#
        ))
        .upstream("pages", &pages)
        .upstream("rest", &rest)
        .run()
        .await;
    let url = format!("https://app.test.example/page?token={}", token(&backend));
    let folder = tempfile::tempdir().unwrap();
    let browser = open(&url, gateway.at("secure").port(), folder.path());
    let told = report(&pages).await;
    drop(browser);

    assert_eq!(told["login"], json!({ "name": "page" }));
    let data = json!({ "json": { "cookie": "session=abc" }, "status": 200, "exposed": true, "hidden": null });
    assert_eq!(told["data"], data, "{told}");
    assert_eq!(told["without"], json!({ "cookie": "" }));
    for format in ["binary", "text"] {
        assert_eq!(told[format!("{format} unary")], "Hello, page!", "{told}");
        assert_eq!(
            told[format!("{format} stream")],
            json!([3, 2, 1, 0]),
            "{told}"
        );
        assert_eq!(told[format!("{format} refusal")], "status 16", "{told}");
    }
    assert_eq!(told["events"], json!(["one", "two", "three"]), "{told}");
    let evil = json!({ "preflighted": "TypeError", "read": "TypeError", "origin": "https://evil.test.example" });
    assert_eq!(told["evil"], evil, "{told}");

    // What came of it where it counts.
    let seen = rest.saw();
    assert!(
        seen.iter().all(|seen| seen.method != "OPTIONS"),
        "preflights are ours"
    );
    assert!(
        seen.iter().all(|seen| seen.target != "/api/evil"),
        "it was asked for, and refused"
    );
    let posted = seen.iter().find(|seen| seen.method == "POST").unwrap();
    assert_eq!(posted.header("origin"), "https://app.test.example");
    assert_eq!(posted.header("cookie"), "session=abc");
    assert_eq!(posted.text(), r#"{"from":"page"}"#);
    let told = |name: &str| seen.iter().filter(|seen| seen.target == name).count();
    assert_eq!((told("/api/login"), told("/api/events")), (1, 1));
    gateway.settled().await;
}

/// What the page and its neighbour are made of.
async fn pages() -> Origin {
    let module = std::fs::read(installed("node/node_modules/grpc-web/index.esm.js")).unwrap();
    let html = |text: &'static str| Reply::text(text).header("content-type", "text/html");
    let script = |text: Vec<u8>| Reply::text(text).header("content-type", "text/javascript");
    origin::http()
        .on("/page", move |_| {
            html(include_str!("../../peers/browser/page.html"))
        })
        .on("/evil", move |_| {
            html(include_str!("../../peers/browser/evil.html"))
        })
        .path(
            "/page.js",
            script(include_bytes!("../../peers/browser/page.js").to_vec()),
        )
        .path("/grpc-web.js", script(module))
        .run()
        .await
}

async fn rest() -> Origin {
    let login = Reply::json(&json!({ "name": "page" })).header(
        "set-cookie",
        "session=abc; Path=/; Secure; HttpOnly; SameSite=Strict",
    );
    let events = Reply::chunks(["data: one\n\n", "data: two\n\nda", "ta: three\n\n"])
        .header("content-type", "text/event-stream");
    origin::http()
        .path("/api/login", login)
        .path("/api/events", events)
        .on("/api/data", |seen| {
            let cookie = seen.header("cookie");
            Reply::json(&json!({ "cookie": cookie })).header("x-secret", "for servers")
        })
        .run()
        .await
}

/// Every name of the tests leads to `port`; the key of the leaf is believed, and nothing else that nobody has signed.
fn open(url: &str, port: u16, folder: &std::path::Path) -> Child {
    let leaf = CertificateDer::from_pem_file(pki::SHARED.folder().join("leaf.crt")).unwrap();
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&leaf).unwrap();
    let key = STANDARD.encode(digest::digest(&digest::SHA256, leaf.public_key().raw));
    let mut command = Command::new("chromium");
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .args(["--disable-sync", "--disable-extensions", "--metrics-recording-only"])
        .arg(format!("--user-data-dir={}", folder.display()))
        .arg(format!("--host-resolver-rules=MAP *.test.example 127.0.0.1:{port}, MAP test.example 127.0.0.1:{port}, MAP * ~NOTFOUND"))
        .arg(format!("--ignore-certificate-errors-spki-list={key}"))
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
        .spawn()
        .expect("tests/peers/install brings chromium")
}

/// What the page says in the end.
async fn report(pages: &Origin) -> Value {
    let told = async {
        loop {
            let seen = pages.saw();
            if let Some(report) = seen.iter().find(|seen| seen.target == "/report") {
                return serde_json::from_slice(&report.body).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await;
    told.unwrap_or_else(|_| panic!("the page says nothing; it asked for {:?}", pages.saw()))
}

/// A browser takes its time to start.
const PATIENCE: Duration = Duration::from_secs(60);
