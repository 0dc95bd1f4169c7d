use std::net::IpAddr;

use http::HeaderMap;

use super::{Seen, Spread, WAYS, find};
use crate::client_ip::ClientIp;
use crate::config::LimitKeys;
use crate::limit::key::{Addresses, Key, KeyPlan, KeySecret, Networks};
use crate::limit::{KeyInputs, Peeked};

const MINUTE: u64 = 60_000_000_000;

fn by_ip(most: u32) -> Spread {
    let of: LimitKeys = "ip".parse().unwrap();
    let addresses = Addresses::new(32, 64, Networks::default());
    Spread::new(
        KeyPlan::new(&of.0, addresses, KeySecret::draw()),
        most,
        10 * MINUTE,
        false,
    )
}

/// Notes the `n`th address under `key`.
fn note(spread: &Spread, key: u128, n: u32, now: u64) -> Result<(), u64> {
    let ip = ClientIp::new(IpAddr::V4((0x0a00_0000 + n).into()));
    let (headers, nothing) = (HeaderMap::new(), Peeked::default());
    let inputs = KeyInputs::of(ip, &headers, &nothing);
    let found = spread.wait(Key::from_bits(key), &inputs, now);
    let noted = spread.note(Key::from_bits(key), &inputs, now);
    assert_eq!(
        found,
        noted.as_ref().err().copied().unwrap_or(0),
        "what is foreseen is what happens"
    );
    noted.map(|named| assert!(named.is_none()))
}

#[test]
fn as_many_as_may_pass_and_one_more_does_not() {
    let spread = by_ip(20);
    for n in 0..20 {
        assert_eq!(note(&spread, 1, n, 0), Ok(()));
    }
    assert!(note(&spread, 1, 20, 0).is_err());
    assert_eq!(note(&spread, 2, 20, 0), Ok(()), "another key");
    assert_eq!(spread.seen().over, 1);
}

#[test]
fn whoever_was_seen_before_passes_while_others_are_refused() {
    let spread = by_ip(20);
    for n in 0..1_000 {
        let _ = note(&spread, 1, n, 0);
    }
    for n in 0..1_000 {
        assert_eq!(note(&spread, 1, n, MINUTE).is_ok(), n < 20, "{n}");
    }
}

#[test]
fn the_same_value_never_adds_up() {
    let spread = by_ip(2);
    for time in 0..1_000 {
        assert_eq!(note(&spread, 1, 7, time * MINUTE), Ok(()));
    }
    assert_eq!(spread.seen(), Seen::default());
}

#[test]
fn whoever_waits_as_told_has_room() {
    for start in [0, MINUTE, 4 * MINUTE, 1_234_567_890_123] {
        let spread = by_ip(5);
        for n in 0..5 {
            note(&spread, 1, n, start + u64::from(n) * MINUTE).unwrap();
        }
        let now = start + 6 * MINUTE;
        let wait = note(&spread, 1, 99, now).unwrap_err();
        assert!(note(&spread, 1, 99, now + wait - 1).is_err(), "not before");
        assert_eq!(note(&spread, 1, 99, now + wait), Ok(()), "but then");
    }
}

#[test]
fn no_window_of_the_length_written_sees_more_than_may() {
    let spread = by_ip(5);
    let mut passed = Vec::new();
    for n in 0..600 {
        let now = u64::from(n) * MINUTE / 10;
        if note(&spread, 1, n, now).is_ok() {
            passed.push(now);
        }
    }
    assert!(passed.len() > 10, "the window slides");
    for (position, since) in passed.iter().enumerate() {
        let within = passed[position..]
            .iter()
            .filter(|at| **at - since < 10 * MINUTE);
        assert!(within.count() <= 5, "since {since}");
    }
}

#[test]
fn large_numbers_are_estimated() {
    let spread = by_ip(1_000);
    let passed = (0..5_000)
        .filter(|n| note(&spread, 1, *n, 0).is_ok())
        .count();
    assert!((750..=1_300).contains(&passed), "{passed}");
    let wait = note(&spread, 1, 9_999, 0).unwrap_err();
    assert_eq!(note(&spread, 1, 9_999, wait), Ok(()));
}

#[test]
fn a_sweep_tells_the_highest_and_forgets_what_is_over() {
    let spread = by_ip(20);
    for n in 0..7 {
        note(&spread, 1, n, 0).unwrap();
    }
    note(&spread, 2, 1, 0).unwrap();
    spread.sweep(MINUTE);
    assert_eq!(spread.seen().highest, 7);
    spread.sweep(16 * MINUTE);
    assert_eq!(spread.seen().highest, 0);
    assert!(spread.sets.iter().all(|set| set.lock().is_empty()));
}

#[test]
fn a_full_set_makes_room_by_whoever_has_seen_least() {
    let mut set = Vec::new();
    for key in 0..WAYS as u128 {
        let sketch = find(&mut set, Key::from_bits(key), 0).unwrap();
        for hash in 0..=u32::from(key != 3) {
            sketch.note(hash, 20);
        }
    }
    find(&mut set, Key::from_bits(99), 0).unwrap();
    assert_eq!(set.len(), WAYS);
    let kept = |key| set.iter().any(|sketch| sketch.key == Key::from_bits(key));
    assert!(kept(99) && !kept(3) && kept(0) && kept(7));
}

#[test]
fn a_flood_of_keys_stays_within_its_bound() {
    let spread = by_ip(20);
    for n in 0..20 {
        note(&spread, u128::MAX, n, 0).unwrap();
    }
    for key in 0..200_000 {
        let _ = note(&spread, key, 1, 0);
    }
    let kept: usize = spread.sets.iter().map(|set| set.lock().len()).sum();
    assert!(kept <= 65_536, "{kept}");
    assert!(
        note(&spread, u128::MAX, 99, 0).is_err(),
        "an offender is not pushed out"
    );
}
