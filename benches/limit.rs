//! What one decision of a limit costs: by how many keys there are, how many threads ask at once, and what the limit has to
//! know. Through the same call as every request, the making of the key included.
//!
//! `cargo bench --bench limit`, on a quiet machine.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a bench that cannot run must say so; its groups are made by a macro"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use vestibule::client_ip::ClientIp;
use vestibule::config::{KeyPath, Problems};
use vestibule::limit::{Charges, Credentials, KeyInputs, Limit, Limits, Peeked, Shown, Use};

const KEYS: [u32; 3] = [10, 1_000, 1_000_000];
const THREADS: [usize; 4] = [1, 2, 4, 8];

/// Nobody is refused: that would be cheaper.
const ROOMY: &str = "rate = \"1000000/s\"";

fn keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit_keys");
    for keys in KEYS {
        let limits = limits(ROOMY, keys);
        group.bench_function(BenchmarkId::from_parameter(keys), |bencher| {
            let mut client = Client::new(1);
            bencher.iter(|| client.ask(&limits, keys));
        });
    }
}

/// Time a decision while so many threads ask: on fewer cores than threads they wait for each other.
fn threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit_threads");
    for keys in KEYS {
        let limits = limits(ROOMY, keys);
        for threads in THREADS {
            group.bench_function(BenchmarkId::new(keys.to_string(), threads), |bencher| {
                bencher.iter_custom(|count| together(&limits, keys, threads, count));
            });
        }
    }
}

fn features(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit_features");
    for (name, written) in [
        ("one_window", ROOMY),
        ("two_windows", "rate = [\"1000000/s\", \"60000000/m\"]"),
        ("ban", "rate = \"1000000/s\"\nban = \"15m\""),
        ("failures", "rate = \"1000000/s\"\ncount = \"failures\""),
        ("concurrency", "concurrency = 4"),
        ("refused", "rate = \"1/d\""),
    ] {
        let limits = limits(written, 1_000);
        group.bench_function(name, |bencher| {
            let mut client = Client::new(1);
            bencher.iter(|| client.ask(&limits, 1_000));
        });
    }
}

/// Every key is new, and each evicts another.
fn flood(criterion: &mut Criterion) {
    let limits = limits("rate = \"10/h\"", 0);
    let mut next = 0_u32;
    criterion.bench_function("limit_flood_beyond_max_keys", |bencher| {
        bencher.iter(|| {
            next = next.wrapping_add(1);
            pass(&limits, &HeaderMap::new(), next)
        });
    });
}

/// Limits whose `keys` are all known already.
fn limits(written: &str, keys: u32) -> Limits {
    let written = toml::from_str(written).unwrap();
    let mut problems = Problems::default();
    let networks = BTreeMap::new();
    let path = KeyPath::root();
    let limit = Limit::compile(
        "bench",
        &written,
        &networks,
        &path,
        None,
        None,
        &mut problems,
    );
    let Some(limit) = limit else {
        panic!("{:?}", problems.into_errors());
    };
    let cost = NonZeroU32::MIN;
    let limits = Limits::new(vec![Use { limit, cost }]);
    let headers = HeaderMap::new();
    for key in 0..keys {
        pass(&limits, &headers, key);
    }
    limits
}

/// Somebody who asks from a new address each time.
struct Client {
    headers: HeaderMap,
    dice: u32,
}

impl Client {
    fn new(seed: u32) -> Self {
        Self {
            headers: HeaderMap::new(),
            dice: seed.wrapping_mul(0x9e37_79b9) | 1,
        }
    }

    fn ask(&mut self, limits: &Limits, keys: u32) -> bool {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 17;
        self.dice ^= self.dice << 5;
        pass(limits, &self.headers, self.dice % keys)
    }
}

/// A client that shows no credential.
#[derive(Debug)]
struct Nothing;

impl Credentials for Nothing {
    fn cookie<'h>(&self, _: &'h HeaderMap, _: &str) -> Shown<'h> {
        Shown::Absent
    }

    fn basic_user<'h>(&self, _: &'h HeaderMap) -> Shown<'h> {
        Shown::Absent
    }
}

fn pass(limits: &Limits, headers: &HeaderMap, key: u32) -> bool {
    let inputs = KeyInputs {
        ip: ClientIp::new(IpAddr::V4(Ipv4Addr::from_bits(key))),
        route: "login",
        method: &Method::POST,
        path: "/login",
        headers,
        credentials: &Nothing,
        peeked: &Peeked::default(),
        principal: None,
    };
    let mut charges = Charges::default();
    let checked = pin!(limits.check(&inputs, &mut charges));
    match checked.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(decision) => black_box(decision).is_ok(),
        Poll::Pending => panic!("nobody is asked to wait here"),
    }
}

/// `count` decisions, shared out among threads that start together.
fn together(limits: &Limits, keys: u32, threads: usize, count: u64) -> Duration {
    let share = count.div_ceil(threads as u64);
    let start = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let workers: Vec<_> = (1..)
            .take(threads)
            .map(|seed| {
                let start = &start;
                scope.spawn(move || {
                    let mut client = Client::new(seed);
                    start.wait();
                    for _ in 0..share {
                        client.ask(limits, keys);
                    }
                })
            })
            .collect();
        start.wait();
        #[allow(clippy::disallowed_methods, reason = "this measures")]
        let began = Instant::now();
        for worker in workers {
            worker.join().unwrap();
        }
        began.elapsed()
    })
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = keys, threads, features, flood
}
criterion_main!(benches);
