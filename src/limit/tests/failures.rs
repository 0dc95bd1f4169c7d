//! Limits that are charged with failures alone, and bans.

use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::*;
use crate::config::{Count, Failure};
use crate::limit::{Answer, Grpc};

/// Wrong passwords of a client, 5 a minute, by address unless said otherwise.
fn guesses(key: &[LimitKey]) -> config::Limit {
    config::Limit {
        count: Count::Failures,
        ..written(5, MINUTE, None, key)
    }
}

fn status(status: u16) -> Answer<'static> {
    static NONE: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
    Answer {
        method: &Method::POST,
        status: StatusCode::from_u16(status).unwrap(),
        headers: &NONE,
        grpc: Grpc::None,
    }
}

/// A whole exchange: whether it was let in, and if so, answered with `code`.
fn exchange<C: crate::limit::Timer>(client: &Visit, limit: &Arc<Limit<C>>, code: u16) -> bool {
    let asked = client.ask(&used(limit, 1));
    asked.is_ok_and(|mut charges| {
        charges.sent();
        charges.answered(&status(code));
        assert!(!charges.are_open());
        true
    })
}

#[test]
fn only_failures_use_the_budget_up() {
    let (limit, _) = limit(&guesses(&[LimitKey::Ip]));
    let client = from("192.0.2.1");
    for _ in 0..100 {
        assert!(exchange(&client, &limit, 200));
        assert!(exchange(&client, &limit, 500), "nor does a broken backend");
    }
    for _ in 0..5 {
        assert!(exchange(&client, &limit, 401));
    }
    assert!(!exchange(&client, &limit, 200));
    assert!(exchange(&from("192.0.2.2"), &limit, 200), "a bystander");
    assert_eq!(limit.tally().failed, 5);
}

#[test]
fn guesses_made_at_once_pass_no_more_often_than_one_by_one() {
    let (limit, clock) = limit(&guesses(&[LimitKey::Ip]));
    let client = from("192.0.2.1");
    let limits = used(&limit, 1);
    let mut under_way: Vec<_> = (0..100).filter_map(|_| client.ask(&limits).ok()).collect();
    assert_eq!(under_way.len(), 5);
    for charges in &mut under_way {
        charges.answered(&status(401));
    }
    assert_eq!(client.wait(&limit), Some(MINUTE / 5));
    clock.advance(MINUTE / 5);
    assert!(exchange(&client, &limit, 401));
    assert!(!exchange(&client, &limit, 401));
}

#[test]
fn places_held_by_successes_are_given_back_whole() {
    let (limit, clock) = limit(&guesses(&[LimitKey::Ip]));
    let client = from("192.0.2.1");
    let limits = used(&limit, 1);
    let mut under_way: Vec<_> = (0..5).map(|_| client.ask(&limits).unwrap()).collect();
    clock.advance(MINUTE / 2); // slow answers are no credit
    for charges in &mut under_way {
        charges.answered(&status(200));
    }
    let failed = (0..20).filter(|_| exchange(&client, &limit, 401)).count();
    assert_eq!(failed, 5);
}

#[test]
fn success_forgives_the_pair_and_never_the_address() {
    let account = LimitKey::Header(HeaderName::from_static("x-account"));
    let (pair, _) = limit(&guesses(&[LimitKey::Ip, account.clone()]));
    let (address, _) = limit(&guesses(&[LimitKey::Ip]));
    let (alone, _) = limit(&guesses(std::slice::from_ref(&account)));
    let ada = from("192.0.2.1").header("x-account", "ada");
    for limit in [&pair, &address, &alone] {
        for _ in 0..4 {
            exchange(&ada, limit, 401);
        }
        exchange(&ada, limit, 200);
    }
    let more = |limit| (0..20).filter(|_| exchange(&ada, limit, 401)).count();
    assert_eq!((more(&pair), more(&address), more(&alone)), (5, 1, 1));
}

#[test]
fn what_proves_nothing_forgives_nothing() {
    let account = LimitKey::Header(HeaderName::from_static("x-account"));
    let (pair, _) = limit(&guesses(&[LimitKey::Ip, account]));
    let ada = from("192.0.2.1").header("x-account", "ada");
    let good = |method: &Method, is_sent: bool| {
        let mut charges = ada.ask(&used(&pair, 1)).unwrap();
        if is_sent {
            charges.sent();
        }
        charges.answered(&Answer {
            method,
            ..status(200)
        });
    };
    for _ in 0..4 {
        exchange(&ada, &pair, 401);
    }
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        good(&method, true); // the page of the form
    }
    good(&Method::POST, false); // an answer of the gateway itself
    assert!(exchange(&ada, &pair, 401) && !exchange(&ada, &pair, 401));
}

/// Three accounts of an address may fail in ten minutes.
fn sprayed(limit: config::Limit) -> config::Limit {
    config::Limit {
        rate: None,
        distinct: Some(config::Distinct {
            of: LimitKey::Header(HeaderName::from_static("x-account")),
            per: Span(MINUTE * 10),
            above: 3,
        }),
        ..limit
    }
}

fn account(name: &'static str) -> Visit {
    from("192.0.2.1").header("x-account", name)
}

#[test]
fn only_accounts_that_fail_count_as_sprayed() {
    let (limit, clock) = limit(&sprayed(guesses(&[LimitKey::Ip])));
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        assert!(exchange(&account(name), &limit, 200), "an office signs in");
    }
    for name in ["a", "b", "c", "a", "c"] {
        assert!(exchange(&account(name), &limit, 401));
    }
    assert_eq!(limit.tally().failed, 5);
    assert!(exchange(&account("b"), &limit, 200), "who was there before");
    let wait = account("d").wait(&limit).unwrap();
    clock.advance(wait - Duration::from_nanos(1));
    assert!(!exchange(&account("d"), &limit, 401), "not before");
    clock.advance(Duration::from_nanos(1));
    assert!(exchange(&account("d"), &limit, 401), "but then");
}

#[test]
fn accounts_tried_at_once_are_no_more_than_those_tried_one_by_one() {
    let (limit, clock) = limit(&sprayed(guesses(&[LimitKey::Ip])));
    let ask = |name| account(name).ask(&used(&limit, 1));
    let mut under_way: Vec<_> = ["a", "b", "c"].map(|name| ask(name).unwrap()).into();
    let wait = account("d").wait(&limit).unwrap();
    for charges in &mut under_way {
        charges.sent();
        charges.answered(&status(401));
    }
    clock.advance(wait);
    assert!(exchange(&account("d"), &limit, 200), "all of them failed");
    let mut under_way: Vec<_> = ["a", "b", "c"].map(|name| ask(name).unwrap()).into();
    assert!(ask("d").is_err());
    under_way
        .drain(..)
        .for_each(|mut charges| charges.release());
    assert!(
        ["x", "y", "z"]
            .into_iter()
            .all(|name| exchange(&account(name), &limit, 401))
    );
    assert!(ask("d").is_err());
}

#[test]
fn what_a_rate_refuses_holds_no_place_among_the_accounts() {
    let (limit, clock) = limit(&config::Limit {
        rate: guesses(&[]).rate,
        burst: Some(1),
        ..sprayed(guesses(&[LimitKey::Ip]))
    });
    assert!(exchange(&account("a"), &limit, 401));
    for name in ["b", "c", "d", "e"] {
        assert!(!exchange(&account(name), &limit, 401));
    }
    clock.advance(MINUTE);
    assert!(exchange(&account("f"), &limit, 401));
}

#[test]
fn a_request_that_was_sent_and_has_no_outcome_is_a_failure() {
    let (limit, _) = limit(&guesses(&[LimitKey::Ip]));
    let client = from("192.0.2.1");
    for _ in 0..50 {
        let charges = client.ask(&used(&limit, 1)).unwrap();
        drop(charges); // nothing reached the backend
    }
    let left = (0..50).filter(|_| {
        let asked = client.ask(&used(&limit, 1));
        asked.is_ok_and(|mut charges| {
            charges.sent();
            true
        })
    });
    assert_eq!(left.count(), 5);
}

#[test]
fn a_failure_is_what_the_rule_says() {
    let rule = Failure {
        status: vec![400],
        grpc_status: vec![16],
        headers: [
            ("location".to_owned(), "~ [?&]error=".to_owned()),
            ("x-login".to_owned(), "failed".to_owned()),
            ("x-any".to_owned(), "*".to_owned()),
        ]
        .into(),
    };
    let failures = |answer: &Answer<'_>| {
        let (limit, _) = limit(&config::Limit {
            failure: rule.clone(),
            ..guesses(&[LimitKey::Ip])
        });
        let mut charges = from("192.0.2.1").ask(&used(&limit, 1)).unwrap();
        charges.answered(answer);
        (limit.tally().failed, charges.are_open())
    };
    let (yes, no, later) = ((1, false), (0, false), (0, true));
    assert_eq!(failures(&status(400)), yes);
    assert_eq!(failures(&status(401)), no, "a list replaces the default");
    for (name, value, expected) in [
        ("location", "/login?error=1", yes),
        ("location", "/home", no),
        ("x-login", "failed", yes),
        ("x-login", "fine", no),
        ("x-any", "", yes),
    ] {
        let name = HeaderName::from_static(name);
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        let headers = &headers;
        let answer = Answer {
            method: &Method::POST,
            headers,
            ..status(302)
        };
        assert_eq!(failures(&answer), expected, "{value}");
    }
    for (grpc, expected) in [
        (Grpc::Known(16), yes),
        (Grpc::Known(0), no),
        (Grpc::Known(7), no),
        (Grpc::Awaited, later),
    ] {
        let answer = Answer {
            method: &Method::POST,
            grpc,
            ..status(200)
        };
        assert_eq!(failures(&answer), expected, "{grpc:?}");
    }
}

#[test]
fn a_ban_begins_with_the_request_that_finds_nothing_left() {
    let (limit, clock) = limit(&config::Limit {
        ban: Some(Span(MINUTE * 15)),
        ..written(2, MINUTE, None, &[LimitKey::Ip])
    });
    let client = from("192.0.2.1");
    assert!(client.passes(&limit) && client.passes(&limit));
    clock.advance(MINUTE / 2);
    assert!(client.passes(&limit), "pacing is no offence");
    assert_eq!(client.wait(&limit), Some(MINUTE * 15));
    clock.advance(MINUTE * 10);
    assert_eq!(client.wait(&limit), Some(MINUTE * 5), "not prolonged");
    clock.advance(MINUTE * 5);
    assert!(client.passes(&limit));
    assert_eq!(limit.tally().bans, 1);
}

#[test]
fn requests_under_way_begin_no_ban() {
    let (limit, _) = limit(&config::Limit {
        ban: Some(Span(MINUTE * 15)),
        ..guesses(&[LimitKey::Ip])
    });
    let client = from("192.0.2.1");
    let mut under_way: Vec<_> = (0..5)
        .map(|_| client.ask(&used(&limit, 1)).unwrap())
        .collect();
    assert_eq!(client.wait(&limit), Some(MINUTE / 5));
    for charges in &mut under_way {
        charges.answered(&status(200));
    }
    assert!(client.passes(&limit), "five people of one address sign in");
    for _ in 0..5 {
        exchange(&client, &limit, 401);
    }
    assert_eq!(client.wait(&limit), Some(MINUTE * 15));
}

#[test]
fn a_ban_survives_eviction() {
    let (limit, clock) = limit(&config::Limit {
        ban: Some(Span(MINUTE * 15)),
        max_keys: 16,
        ..written(1, MINUTE, None, &[LimitKey::Ip])
    });
    let client = from("192.0.2.1");
    assert!(client.passes(&limit) && !client.passes(&limit));
    for n in 0..10_000 {
        let other = from(&std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string());
        other.passes(&limit);
        if n % 16 == 0 {
            clock.advance(Duration::from_millis(500));
        }
    }
    assert!(limit.tally().evicted_owing > 9_000);
    let wait = client.wait(&limit).unwrap();
    assert!(wait > MINUTE * 9 && wait < MINUTE * 11, "{wait:?}");
}
