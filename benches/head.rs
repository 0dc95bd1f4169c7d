//! What the scan ahead of hyper's parser costs, in memory: a usual head must stay below 300 ns.
//!
//! `cargo bench --bench head`, on a quiet machine.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a bench that cannot run must say so; its groups are made by a macro"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vestibule::server::h1::{Chunks, HeadBounds, HeadScan};

const BOUNDS: HeadBounds = HeadBounds {
    max_head: 32 << 10,
    max_fields: 100,
    max_target: 8 << 10,
};

/// What a load tool and a command line send.
const SHORT: &str = "GET /v1/users/42 HTTP/1.1\r\nHost: auth.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";

/// A service that calls an API with a token.
fn service() -> String {
    let token = format!(
        "eyJhbGciOiJFUzI1NiJ9.{}.{}",
        "c".repeat(400),
        "s".repeat(86)
    );
    format!(
        "POST /v2/sessions HTTP/1.1\r\nHost: auth.example.com\r\nUser-Agent: okhttp/4.12.0\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: 117\r\nAccept-Encoding: gzip\r\nConnection: Keep-Alive\r\n\r\n"
    )
}

/// A page in a browser, with its cookies.
fn browser() -> String {
    let cookies = format!("__Host-session={}; theme=dark; lang=en", "s".repeat(300));
    format!(
        "GET /ui/console/assets/i18n/en.json?v=3.4.2 HTTP/1.1\r\nHost: auth.example.com\r\nConnection: keep-alive\r\nsec-ch-ua: \"Chromium\";v=\"131\", \"Not_A Brand\";v=\"24\"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\r\nAccept: application/json, text/plain, */*\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nReferer: https://auth.example.com/ui/console/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\nCookie: {cookies}\r\n\r\n"
    )
}

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head_scan");
    for (name, head) in [
        ("short", SHORT.to_owned()),
        ("service", service()),
        ("browser", browser()),
    ] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut scan = HeadScan::default();
                scan.read(black_box(head.as_bytes()), &BOUNDS)
                    .unwrap()
                    .unwrap()
            });
        });
    }
    group.finish();
}

fn bodies(criterion: &mut Criterion) {
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(16 << 10));
    let body = chunk.repeat(4) + "0\r\n\r\n";
    let mut group = criterion.benchmark_group("chunks");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("64_kib", |bencher| {
        bencher.iter(|| {
            Chunks::default()
                .follow(black_box(body.as_bytes()))
                .unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, heads, bodies);
criterion_main!(benches);
