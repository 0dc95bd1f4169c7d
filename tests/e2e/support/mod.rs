//! Builders: a test reads config, origin, gateway, client, what the client saw, what the origin saw.
//!
//! Everything listens on port 0 and certificates, keys and tokens are made here; nothing waits for a fixed time.

pub mod binary;
pub mod body;
pub mod client;
pub mod gateway;
pub mod issuer;
pub mod matrix;
pub mod origin;
pub mod pki;
pub mod raw;
pub mod redis;
pub mod streams;
pub mod token;
pub mod websocket;

use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Slow machines raise it: `VESTIBULE_PATIENCE`, in seconds.
pub fn patience() -> Duration {
    let seconds = std::env::var("VESTIBULE_PATIENCE")
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// Waits until `check` says yes. Fails the test when patience runs out.
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !check().await {
        assert!(Instant::now() < deadline, "this never came about: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What `future` comes to, within patience.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let waited = tokio::time::timeout(patience(), future).await;
    waited.unwrap_or_else(|_| panic!("this took too long: {what}"))
}

/// Lines of JSON, each parsed; what is no JSON fails the test.
pub fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect()
}
