//! What the limits keep is bounded in bytes, measured from outside: the resident set of this process, which does
//! nothing else. One test, so that none runs beside it.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;

use http::{HeaderMap, Method};
use vestibule::client_ip::ClientIp;
use vestibule::config::{KeyPath, Problems};
use vestibule::limit::{Charges, Credentials, KeyInputs, Limit, Limits, Peeked, Shown, Use};

const MEBIBYTE: usize = 1 << 20;

#[test]
fn a_million_keys_fit_in_150_mib_and_a_flood_of_ten_million_stays_within() {
    let before = resident();
    // The most words that a key can have: four windows, bans and failures.
    let wide = limit(
        "rate = [\"5/m\", \"20/h\", \"50/d\", \"99/d\"]\nban = \"15m\"\ncount = \"failures\"",
    );
    ask_from(&wide, 0..1_000_000);
    assert_eq!(wide.keys(), 1_000_000);
    let grown = resident().saturating_sub(before);
    assert!(grown <= 150 * MEBIBYTE, "{} MiB", grown / MEBIBYTE);
    // From here on each newcomer makes another's times go into the table of the evicted.
    ask_from(&wide, 1_000_000..1_500_000);
    assert_eq!(wide.keys(), 1_000_000);
    let grown = resident().saturating_sub(before);
    assert!(grown <= 150 * MEBIBYTE, "{} MiB", grown / MEBIBYTE);
    drop(wide);

    let before = resident();
    let narrow = limit("rate = \"10/h\"");
    thread::scope(|scope| {
        for half in [0..5_000_000, 5_000_000..10_000_000] {
            scope.spawn(|| ask_from(&narrow, half));
        }
    });
    assert_eq!(narrow.keys(), 1_000_000);
    let grown = resident().saturating_sub(before);
    assert!(grown <= 150 * MEBIBYTE, "{} MiB", grown / MEBIBYTE);
    let tally = narrow.tally();
    let decided = (tally.allowed, tally.refused, tally.evicted_owing);
    assert_eq!(
        decided,
        (10_000_000, 0, 9_000_000),
        "no newcomer is punished"
    );
}

fn limit(written: &str) -> Arc<Limit> {
    let mut problems = Problems::default();
    let written = toml::from_str(written).unwrap();
    let (networks, path) = (BTreeMap::new(), KeyPath::root());
    Limit::compile("x", &written, &networks, &path, None, None, &mut problems).unwrap()
}

/// A request from each of these networks.
fn ask_from(limit: &Arc<Limit>, networks: Range<u64>) {
    let limits = Limits::new(vec![Use {
        limit: Arc::clone(limit),
        cost: NonZeroU32::MIN,
    }]);
    let headers = HeaderMap::new();
    for network in networks {
        let address = Ipv6Addr::from_bits(u128::from(network) << 64);
        let peeked = Peeked::default();
        let inputs = KeyInputs {
            ip: ClientIp::new(IpAddr::V6(address)),
            route: "login",
            method: &Method::POST,
            path: "/login",
            headers: &headers,
            credentials: &Nothing,
            peeked: &peeked,
            principal: None,
        };
        let mut charges = Charges::default();
        {
            let checked = pin!(limits.check(&inputs, &mut charges));
            let decided = checked.poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(decided, Poll::Ready(Ok(()))));
        }
        charges.sent(); // and dropped without an answer: a failure, for those who count them
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kibibytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes * 1024
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
