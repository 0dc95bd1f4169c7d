use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::authn::Issuer;
use crate::authn::tests::support::{NOW, at, authorities, file, judged};
use crate::types::{Reason, task};

/// Gives the same answer to every question, and counts them.
async fn endpoint(answer: serde_json::Value) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&asked);
    let text = answer.to_string();
    let length = text.len();
    let text = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{text}"
    );
    drop(task::spawn("endpoint", async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 4_096];
            let read = stream.read(&mut question).await.unwrap();
            assert!(read > 0);
            counter.fetch_add(1, Ordering::SeqCst);
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    }));
    (address, asked)
}

fn asking(address: SocketAddr) -> Arc<Issuer> {
    let secret = file("a secret of the gateway");
    let toml = format!(
        "[issuer.main]\nurl = \"https://auth.example.com\"\naudiences = [\"billing\"]\n[issuer.main.introspection]\n\
         tokens = \"all\"\ncache = \"10m\"\nurl = \"http://{address}/introspect\"\nclient_id = \"edge\"\n\
         client_secret = {{ file = \"{secret}\" }}\n"
    );
    Arc::clone(&authorities(&toml).issuers["main"])
}

/// The clock that tells the time may be set; what is kept by another one must not outlive it.
#[tokio::test]
async fn a_kept_answer_ends_with_its_token_however_the_clock_is_set() {
    let (address, asked) = endpoint(json!({ "active": true, "sub": "u1", "exp": NOW + 600 })).await;
    let issuer = asking(address);
    for (second, expected, questions) in [
        (NOW, Ok(()), 1),
        (NOW + 629, Ok(()), 1),
        (NOW + 630, Err(Reason::TokenExpired), 1),
        (NOW, Ok(()), 2),
        (NOW - 7_200, Ok(()), 2),
        (NOW + 7_200, Err(Reason::TokenExpired), 2),
        (NOW + 7_200, Err(Reason::TokenExpired), 3),
    ] {
        let verdict = judged(&issuer, "opaque", at(second)).await;
        let verdict = verdict.map(drop).map_err(|why| why.reason());
        assert_eq!(verdict, expected, "at {second}");
        assert_eq!(asked.load(Ordering::SeqCst), questions, "at {second}");
    }
}
