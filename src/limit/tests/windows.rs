//! Several windows, several limits, costs: all or nothing.

use super::*;

fn rates(rates: &[(u32, Duration)]) -> config::Limit {
    let rates = rates.iter().map(|(count, per)| Rate {
        count: *count,
        per: *per,
    });
    config::Limit {
        rate: Some(OneOrMany(rates.collect())),
        ..written(1, MINUTE, None, &[LimitKey::Ip])
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn every_window_must_have_room() {
    let (limit, clock) = limit(&rates(&[(5, MINUTE), (8, HOUR)]));
    let client = from("192.0.2.1");
    let pass = || (0..20).filter(|_| client.passes(&limit)).count();
    assert_eq!(pass(), 5);
    clock.advance(MINUTE);
    assert_eq!(pass(), 3);
    clock.advance(MINUTE);
    let wait = client.wait(&limit).unwrap();
    assert!(wait > MINUTE, "{wait:?}");
    clock.advance(wait);
    assert!(client.passes(&limit));
}

#[test]
fn a_window_that_refuses_leaves_the_others_uncharged() {
    let (limit, clock) = limit(&rates(&[(1, Duration::from_secs(1)), (3, HOUR)]));
    let client = from("192.0.2.1");
    for _ in 0..3 {
        assert!(client.passes(&limit));
        for _ in 0..50 {
            assert!(!client.passes(&limit));
        }
        clock.advance(Duration::from_secs(1));
    }
    assert!(!client.passes(&limit));
}

#[test]
fn the_burst_is_that_of_the_first_window() {
    let (limit, _) = limit(&config::Limit {
        burst: Some(2),
        ..rates(&[(10, MINUTE), (20, HOUR)])
    });
    let client = from("192.0.2.1");
    assert_eq!((0..20).filter(|_| client.passes(&limit)).count(), 2);
}

#[test]
fn a_cost_is_paid_whole_or_not_at_all() {
    let (limit, clock) = limit(&written(10, MINUTE, None, &[LimitKey::Ip]));
    let client = from("192.0.2.1");
    let (dear, cheap) = (used(&limit, 4), used(&limit, 1));
    assert!(client.ask(&dear).is_ok() && client.ask(&dear).is_ok());
    let refused = client.ask(&dear).unwrap_err();
    assert_eq!(refused.wait(), Some(Duration::from_secs(12)));
    assert!(client.ask(&cheap).is_ok(), "two were left");
    clock.advance(Duration::from_secs(18));
    assert!(client.ask(&dear).is_ok());
}

#[test]
fn a_limit_that_refuses_leaves_those_before_it_uncharged() {
    let account = LimitKey::Header(HeaderName::from_static("x-account"));
    let (by_account, clock) = limit(&written(5, HOUR, None, &[account]));
    let mut problems = Problems::default();
    let path = KeyPath::root();
    let by_ip = written(1, MINUTE, None, &[LimitKey::Ip]);
    let by_ip = Limit::with_timer(
        "ip",
        &by_ip,
        addresses(&by_ip),
        &path,
        clock.clone(),
        None,
        &mut problems,
    );
    let limits = [by_account.clone(), Arc::new(by_ip.unwrap())].map(|limit| Use {
        limit,
        cost: std::num::NonZeroU32::MIN,
    });
    let limits = Limits::new(limits.into());
    let attacker = from("203.0.113.1").header("x-account", "ada");
    assert!(attacker.ask(&limits).is_ok());
    for _ in 0..100 {
        let refused = attacker.ask(&limits).unwrap_err();
        assert_eq!(refused.policy_name().map(|name| &**name), Some("ip"));
    }
    let ada = from("192.0.2.1").header("x-account", "ada");
    assert!(ada.ask(&limits).is_ok(), "the victim's budget is untouched");
    assert_eq!(by_account.tally().allowed, 2);
}

#[test]
fn a_limit_without_a_rate_does_not_keep_others_from_giving_back() {
    let account = LimitKey::Header(HeaderName::from_static("x-account"));
    let spread = config::Limit {
        rate: None,
        distinct: Some(config::Distinct {
            of: account.clone(),
            per: Span(MINUTE),
            above: 9,
        }),
        ..written(1, MINUTE, None, &[LimitKey::Ip])
    };
    let seats = config::Limit {
        rate: None,
        concurrency: Some(9),
        ..written(1, MINUTE, None, &[LimitKey::Ip])
    };
    for first in [spread, seats] {
        let (first, clock) = limit(&first);
        let (by_account, other) = limit(&written(2, MINUTE, None, std::slice::from_ref(&account)));
        let (by_address, another) = limit(&written(1, MINUTE, None, &[LimitKey::Ip]));
        for clock in [clock, other, another] {
            clock.advance(MINUTE * 60);
        }
        let limits = [&first, &by_account, &by_address].map(|limit| Use {
            limit: Arc::clone(limit),
            cost: std::num::NonZeroU32::MIN,
        });
        let limits = Limits::new(limits.into());
        let attacker = from("192.0.2.1").header("x-account", "ada");
        assert!(attacker.ask(&limits).is_ok());
        assert!((0..9).all(|_| attacker.ask(&limits).is_err()));
        let ada = from("192.0.2.2").header("x-account", "ada");
        assert!(
            ada.ask(&limits).is_ok(),
            "the attacker was refused for nothing of hers"
        );
    }
}

#[test]
fn a_stated_wait_is_that_of_the_slowest_limit() {
    let (quick, clock) = limit(&written(1, Duration::from_secs(1), None, &[LimitKey::Ip]));
    let mut problems = Problems::default();
    let slow = written(1, HOUR, None, &[LimitKey::Ip]);
    let slow = Limit::with_timer(
        "slow",
        &slow,
        addresses(&slow),
        &KeyPath::root(),
        clock,
        None,
        &mut problems,
    );
    let limits = [quick, Arc::new(slow.unwrap())].map(|limit| Use {
        limit,
        cost: std::num::NonZeroU32::MIN,
    });
    let limits = Limits::new(limits.into());
    let client = from("192.0.2.1");
    assert!(client.ask(&limits).is_ok());
    assert_eq!(client.ask(&limits).unwrap_err().wait(), Some(HOUR));
}

#[test]
fn observing_counts_and_refuses_nothing() {
    let (limit, _) = limit(&config::Limit {
        mode: config::LimitMode::Observe,
        ..written(2, MINUTE, None, &[LimitKey::Ip])
    });
    let client = from("192.0.2.1");
    let asked = || client.ask(&used(&limit, 1)).unwrap();
    let observed: Vec<_> = (0..5).map(|_| asked().observed().is_some()).collect();
    assert_eq!(observed, [false, false, true, true, true]);
    let tally = limit.tally();
    assert_eq!((tally.allowed, tally.refused), (2, 3));
}

#[test]
fn the_exempt_are_not_counted() {
    let (limit, _) = limit(&config::Limit {
        allow: config::Exempt {
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            principals: vec!["main/monitor".to_owned()],
        },
        ..written(1, MINUTE, None, &[LimitKey::Ip])
    });
    assert!(limit.needs_principal());
    let all = |client: &Visit| (0..10).filter(|_| client.passes(&limit)).count();
    assert_eq!(all(&from("10.1.2.3")), 10);
    assert_eq!(all(&from("::ffff:10.1.2.3")), 10);
    assert_eq!(all(&from("192.0.2.1").user("main", "monitor")), 10);
    assert_eq!(all(&from("192.0.2.2").user("other", "monitor")), 1);
    assert_eq!(all(&from("192.0.2.3")), 1);
    assert_eq!((limit.keys(), limit.tally().exempt), (2, 30));
}
