//! Whole connections over loopback: what a client that misbehaves sees, and when.

mod caps;
mod deadlines;
mod echo;
mod floods;
mod framing;
mod life;
mod tls;
mod wire;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::*;
use crate::config::{self, KeyPath, Problems};
use crate::tls::{Termination, dev};
use crate::types::{Body, Dialect, Protocol, Reason, clock, task};
use echo::{Running, run, run_among, run_with};
use wire::*;

const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(3600);

/// Everything is patient; a test shortens what it is about.
pub(super) fn limits() -> ListenerLimits {
    ListenerLimits {
        only: None,
        handshake_timeout: LONG,
        head_timeout: LONG,
        idle_timeout: LONG,
        write_timeout: LONG,
        max_connections: 100,
        max_connections_per_ip: 100,
        max_requests_per_connection: 1_000,
        max_connection_age: LONG,
        max_head: 32 << 10,
        max_fields: 100,
        max_target: 8 << 10,
        max_streams: 100,
        max_control_frames: 100,
        max_resets: 200,
        websockets: false,
    }
}

/// Waits for the next `count` of what is counted there.
async fn happened(what: &Semaphore, count: u32) {
    let permits = timeout(PATIENCE, what.acquire_many(count)).await;
    permits.expect("it did not happen").unwrap().forget();
}

/// Reads until the other side has closed, whichever way.
async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut seen = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut seen)).await;
    let _reset_or_end = read.expect("the connection is still open");
    seen
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// Reads one HTTP/1 answer with a body whose length is told.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut seen = Vec::new();
    let read = async {
        loop {
            seen.push(stream.read_u8().await.expect("the connection was closed"));
            let text = String::from_utf8_lossy(&seen);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() == length {
                return text.into_owned();
            }
        }
    };
    timeout(PATIENCE, read).await.expect("no answer")
}

async fn get(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    send(stream, request.as_bytes()).await;
    answer(stream).await
}
