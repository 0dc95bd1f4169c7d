mod failures;
mod model;
mod seats;
mod windows;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use governor::clock::FakeRelativeClock;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::key::{Addresses, Networks};
use super::{Charges, KeyInputs, Limit, Limits, Peeked, Use};
use crate::client_ip::ClientIp;
use crate::config::{self, ByteSize, KeyPath, LimitKey, OneOrMany, Problems, Rate, Span};
use crate::types::principal::PrincipalFacts;
use crate::types::{AuthMethod, Principal, Reason, Rejection};

const MINUTE: Duration = Duration::from_secs(60);

fn written(count: u32, per: Duration, burst: Option<u32>, key: &[LimitKey]) -> config::Limit {
    config::Limit {
        rate: Some(OneOrMany(vec![Rate { count, per }])),
        burst,
        key: key.to_vec(),
        count: config::Count::All,
        failure: config::Failure::default(),
        mode: config::LimitMode::Enforce,
        ban: None,
        concurrency: None,
        queue: None,
        queue_timeout: Span::seconds(1),
        tarpit: None,
        tarpit_slots: 64,
        distinct: None,
        allow: config::Exempt::default(),
        headers: false,
        ipv4_prefix: 32,
        ipv6_prefix: 64,
        networks: Vec::new(),
        peek: ByteSize::kib(16),
        peek_timeout: Span::seconds(5),
        shared: None,
        on_store_down: None,
        max_keys: 1_000,
    }
}

fn addresses(written: &config::Limit) -> Addresses {
    Addresses::new(
        written.ipv4_prefix,
        written.ipv6_prefix,
        Networks::default(),
    )
}

fn limit(written: &config::Limit) -> (Arc<Limit<FakeRelativeClock>>, FakeRelativeClock) {
    let clock = FakeRelativeClock::default();
    let mut problems = Problems::default();
    let limit = Limit::with_timer(
        "login",
        written,
        addresses(written),
        &KeyPath::root(),
        clock.clone(),
        None,
        &mut problems,
    );
    assert!(problems.is_empty(), "{problems:?}");
    (Arc::new(limit.unwrap()), clock)
}

/// The limit where one request costs `cost`.
fn used<C: super::Timer>(limit: &Arc<Limit<C>>, cost: u32) -> Limits<C> {
    Limits::new(vec![Use {
        limit: Arc::clone(limit),
        cost: cost.try_into().unwrap(),
    }])
}

/// A request under construction.
#[derive(Clone)]
struct Visit {
    ip: ClientIp,
    route: &'static str,
    headers: HeaderMap,
    principal: Option<Principal>,
}

fn from(ip: &str) -> Visit {
    Visit {
        ip: ClientIp::new(ip.parse::<IpAddr>().unwrap()),
        route: "login",
        headers: HeaderMap::new(),
        principal: None,
    }
}

impl Visit {
    fn route(mut self, route: &'static str) -> Self {
        self.route = route;
        self
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        self
    }

    fn user(mut self, source: &str, user: &str) -> Self {
        self.principal = Some(Principal {
            method: AuthMethod::Jwt,
            source: Arc::from(source),
            facts: Arc::new(PrincipalFacts {
                user: user.to_owned(),
                ..PrincipalFacts::default()
            }),
            beside: None,
        });
        self
    }

    fn anonymous(mut self) -> Self {
        self.principal = Some(Principal::anonymous());
        self
    }

    fn passes<C: super::Timer>(&self, limit: &Arc<Limit<C>>) -> bool {
        self.wait(limit).is_none()
    }

    /// The wait that a refusal states; `None` when let in.
    fn wait<C: super::Timer>(&self, limit: &Arc<Limit<C>>) -> Option<Duration> {
        let refused = self.ask(&used(limit, 1)).err();
        refused.map(|rejection| rejection.wait().unwrap())
    }

    /// What the exchange owes once it was let in.
    fn ask<C: super::Timer>(&self, limits: &Limits<C>) -> Result<Charges<C>, Rejection> {
        let mut charges = Charges::default();
        limits.charge(&self.inputs(), &mut charges)?;
        Ok(charges)
    }

    fn inputs(&self) -> KeyInputs<'_> {
        static NOTHING: LazyLock<Peeked> = LazyLock::new(Peeked::default);
        KeyInputs {
            route: self.route,
            principal: self.principal.as_ref(),
            ..KeyInputs::of(self.ip, &self.headers, &NOTHING)
        }
    }
}

/// Whether two requests share a bucket of a limit with this key.
fn share(key: &[LimitKey], one: &Visit, other: &Visit) -> bool {
    let (limit, _) = limit(&written(1, MINUTE, None, key));
    assert!(one.passes(&limit), "the first request passes");
    !other.passes(&limit)
}

mod rates {
    use super::*;

    #[test]
    fn a_full_bucket_lets_burst_through_then_rate() {
        let (limit, clock) = limit(&written(10, MINUTE, Some(3), &[LimitKey::Ip]));
        let client = from("192.0.2.1");
        for _ in 0..3 {
            assert!(client.passes(&limit));
        }
        assert!(!client.passes(&limit));
        for _ in 0..5 {
            clock.advance(Duration::from_secs(6));
            assert!(client.passes(&limit), "one in six seconds");
            assert!(!client.passes(&limit));
        }
    }

    #[test]
    fn burst_is_the_count_of_the_rate_unless_written() {
        let (limit, _) = limit(&written(5, MINUTE, None, &[LimitKey::Ip]));
        let client = from("192.0.2.1");
        assert_eq!((0..20).filter(|_| client.passes(&limit)).count(), 5);
    }

    #[test]
    fn a_refusal_names_reason_policy_and_wait() {
        let (limit, _) = limit(&written(1, MINUTE, None, &[LimitKey::Ip]));
        let (client, limits) = (from("192.0.2.1"), used(&limit, 1));
        client.ask(&limits).unwrap();
        let refusal = client.ask(&limits).unwrap_err();
        assert_eq!(refusal.reason(), Reason::RateLimited);
        assert_eq!(refusal.policy_name().map(|name| &**name), Some("login"));
        assert_eq!(refusal.wait(), Some(MINUTE));
    }

    #[test]
    fn every_decision_is_tallied() {
        let (limit, _) = limit(&written(2, MINUTE, None, &[LimitKey::Ip]));
        let client = from("192.0.2.1");
        for _ in 0..5 {
            client.passes(&limit);
        }
        let tally = limit.tally();
        assert_eq!((tally.allowed, tally.refused, tally.exempt), (2, 3, 0));
    }

    #[test]
    fn the_process_clock_starts_limits_too() {
        let mut problems = Problems::default();
        let written = written(1, MINUTE, None, &[LimitKey::Ip]);
        let limit = Limit::compile(
            "x",
            &written,
            &BTreeMap::new(),
            &KeyPath::root(),
            None,
            None,
            &mut problems,
        )
        .unwrap();
        let client = from("192.0.2.1");
        assert!(client.passes(&limit));
        let wait = client.wait(&limit).unwrap();
        assert!(wait <= MINUTE && wait > MINUTE / 2, "{wait:?}");
    }

    #[test]
    fn threads_together_get_one_budget() {
        let (limit, _) = limit(&written(100, MINUTE, None, &[LimitKey::Ip]));
        let client = from("192.0.2.1");
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..200).filter(|_| client.passes(&limit)).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(passed, 100);
        assert_eq!(limit.keys(), 1);
    }

    /// Credit in nanoseconds that trickles in and is capped: a bucket as one would draw it.
    struct Model {
        interval: u64,
        depth: u64,
        credit: HashMap<usize, (u64, u64)>,
    }

    impl Model {
        /// The wait until the next is let in; `None` when let in.
        fn take(&mut self, key: usize, now: u64) -> Option<u64> {
            let full = self.interval * self.depth;
            let (credit, since) = self.credit.entry(key).or_insert((full, now));
            *credit = (*credit + (now - *since)).min(full);
            *since = now;
            if *credit < self.interval {
                return Some(self.interval - *credit);
            }
            *credit -= self.interval;
            None
        }
    }

    proptest! {
        #[test]
        fn any_sequence_is_decided_as_the_model_does(
            count in 1..50u32,
            per in 1..100_000u64,
            burst in 1..20u32,
            steps in prop::collection::vec((0..40_000u64, 0..3usize, 0..10u8), 1..300),
        ) {
            let per = Duration::from_millis(per);
            let (limit, clock) = limit(&written(count, per, Some(burst), &[LimitKey::Ip]));
            let interval = u64::try_from(per.as_nanos()).unwrap().div_ceil(u64::from(count));
            let mut model = Model { interval, depth: u64::from(burst), credit: HashMap::new() };
            let clients = [from("192.0.2.1"), from("192.0.2.2"), from("2001:db8::1")];
            let mut now = 0;
            for (advance, client, sweep) in steps {
                clock.advance(Duration::from_micros(advance));
                now += advance * 1_000;
                if sweep == 0 {
                    limit.sweep();
                }
                let wait = model.take(client, now).map(Duration::from_nanos);
                prop_assert_eq!(clients[client].wait(&limit), wait);
            }
        }

        #[test]
        fn no_stretch_of_time_sees_more_than_the_budget(
            count in 1..30u32,
            burst in 1..10u32,
            gaps in prop::collection::vec(0..3_000u64, 1..200),
        ) {
            let (limit, clock) = limit(&written(count, MINUTE, Some(burst), &[LimitKey::Ip]));
            let client = from("192.0.2.1");
            let (mut now, mut passed) = (0u64, Vec::new());
            for gap in gaps {
                clock.advance(Duration::from_millis(gap));
                now += gap;
                if client.passes(&limit) {
                    passed.push(now);
                }
            }
            for (first, start) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let budget = u64::from(burst) + (end - start) * u64::from(count) / 60_000;
                    prop_assert!((last - first + 1) as u64 <= budget);
                }
            }
        }

        #[test]
        fn a_client_that_waits_as_told_is_let_in(
            count in 1..1_000u32,
            burst in 1..10u32,
            tries in 1..40usize,
            sweep: bool,
        ) {
            let (limit, clock) = limit(&written(count, MINUTE, Some(burst), &[LimitKey::Ip]));
            let client = from("192.0.2.1");
            for _ in 0..tries {
                if let Some(wait) = client.wait(&limit) {
                    clock.advance(wait);
                    if sweep {
                        limit.sweep();
                    }
                    prop_assert!(client.passes(&limit));
                }
            }
        }
    }
}

mod keys {
    use super::*;

    #[test]
    fn addresses_count_alone_and_an_ipv6_network_counts_once() {
        let key = [LimitKey::Ip];
        assert!(share(&key, &from("192.0.2.1"), &from("192.0.2.1")));
        assert!(!share(&key, &from("192.0.2.1"), &from("192.0.2.2")));
        assert!(share(&key, &from("192.0.2.1"), &from("::ffff:192.0.2.1")));
        assert!(share(&key, &from("2001:db8::1"), &from("2001:db8::ffff:1")));
        assert!(!share(&key, &from("2001:db8::1"), &from("2001:db8:0:1::1")));
    }

    #[test]
    fn an_ipv4_address_is_not_the_ipv6_network_of_the_same_bits() {
        assert!(!share(
            &[LimitKey::Ip],
            &from("192.0.2.1"),
            &from("::192.0.2.1")
        ));
    }

    #[test]
    fn parts_together_make_one_key() {
        let key = [LimitKey::Ip, LimitKey::Route];
        let client = from("192.0.2.1");
        assert!(share(&key, &client, &client.clone()));
        assert!(!share(&key, &client, &client.clone().route("token")));
        assert!(!share(&key, &client, &from("192.0.2.2")));
    }

    #[test]
    fn the_border_between_parts_is_part_of_the_key() {
        let key = [
            LimitKey::Header(HeaderName::from_static("x-a")),
            LimitKey::Header(HeaderName::from_static("x-b")),
        ];
        let one = from("192.0.2.1").header("x-a", "ab").header("x-b", "c");
        let other = from("192.0.2.1").header("x-a", "a").header("x-b", "bc");
        assert!(!share(&key, &one, &other));
        assert!(share(&key, &one, &one.clone()));
    }

    #[test]
    fn a_header_counts_by_value_whoever_sends_it() {
        let key = [LimitKey::Header(HeaderName::from_static("x-api-key"))];
        let one = from("192.0.2.1").header("x-api-key", "one");
        assert!(share(
            &key,
            &one,
            &from("192.0.2.9").header("x-api-key", "one")
        ));
        assert!(share(
            &key,
            &one,
            &from("192.0.2.9").header("x-api-key", " one ")
        ));
        assert!(!share(
            &key,
            &one,
            &from("192.0.2.1").header("x-api-key", "two")
        ));
    }

    #[test]
    fn absent_and_repeated_headers_count_as_one_value_each() {
        let key = [LimitKey::Header(HeaderName::from_static("x-api-key"))];
        let absent = from("192.0.2.1");
        let empty = from("192.0.2.1").header("x-api-key", "");
        let twice = from("192.0.2.1")
            .header("x-api-key", "one")
            .header("x-api-key", "two");
        let twice_else = from("192.0.2.1")
            .header("x-api-key", "one")
            .header("x-api-key", "three");
        assert!(share(&key, &absent, &from("192.0.2.2")));
        assert!(!share(&key, &absent, &empty));
        assert!(share(&key, &twice, &twice_else), "padding is no escape");
        assert!(!share(&key, &twice, &absent));
    }

    #[test]
    fn callers_count_by_issuer_and_user_wherever_they_are() {
        let key = [LimitKey::Principal];
        let ada = from("192.0.2.1").user("main", "ada");
        assert!(share(&key, &ada, &from("2001:db8::1").user("main", "ada")));
        assert!(!share(&key, &ada, &from("192.0.2.1").user("main", "bob")));
        assert!(!share(&key, &ada, &from("192.0.2.1").user("other", "ada")));
    }

    #[test]
    fn callers_without_a_name_count_by_address() {
        let key = [LimitKey::Principal];
        let nobody = from("192.0.2.1").anonymous();
        assert!(share(&key, &nobody, &from("192.0.2.1")));
        assert!(!share(&key, &nobody, &from("192.0.2.2").anonymous()));
        assert!(!share(&key, &nobody, &from("192.0.2.1").user("main", "")));
    }

    #[test]
    fn only_a_key_with_the_caller_waits_for_authentication() {
        let (by_ip, _) = limit(&written(1, MINUTE, None, &[LimitKey::Ip]));
        let (by_caller, _) = limit(&written(
            1,
            MINUTE,
            None,
            &[LimitKey::Ip, LimitKey::Principal],
        ));
        assert!(!by_ip.needs_principal());
        assert!(by_caller.needs_principal());
    }
}

mod bounds {
    use super::*;

    fn nth(n: u32) -> Visit {
        from(&std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string())
    }

    fn small() -> (Arc<Limit<FakeRelativeClock>>, FakeRelativeClock) {
        limit(&config::Limit {
            max_keys: 10,
            ..written(2, MINUTE, None, &[LimitKey::Ip])
        })
    }

    #[test]
    fn a_newcomer_beyond_the_cap_takes_the_place_of_one_that_owes_nothing() {
        let (limit, clock) = small();
        nth(0).passes(&limit);
        nth(0).passes(&limit);
        clock.advance(MINUTE / 2);
        for n in 1..10 {
            nth(n).passes(&limit);
            nth(n).passes(&limit);
        }
        clock.advance(MINUTE / 2);
        for n in 10..15 {
            assert!(nth(n).passes(&limit), "newcomers have buckets of their own");
        }
        let tally = limit.tally();
        assert_eq!((limit.keys(), tally.refused), (10, 0));
        assert!(tally.evicted_clear > 0, "{tally:?}");
    }

    #[test]
    fn whoever_made_room_comes_back_with_what_was_owed() {
        let (limit, clock) = small();
        for n in 0..1_000 {
            nth(n).passes(&limit);
            nth(n).passes(&limit);
        }
        assert_eq!(limit.keys(), 10);
        assert!(limit.tally().evicted_owing > 980);
        // The table for the evicted has as many places as there are keys; whoever still stands in it is refused.
        let forgiven = (0..1_000).filter(|n| nth(*n).passes(&limit)).count();
        assert!(forgiven < 1_000, "somebody is remembered");
        clock.advance(MINUTE);
        assert!((0..10).all(|n| nth(n).passes(&limit)), "the debts decay");
    }

    #[test]
    fn a_flood_of_keys_buys_an_offender_nothing() {
        let (limit, _) = limit(&config::Limit {
            max_keys: 2_000,
            ..written(5, MINUTE, None, &[LimitKey::Ip])
        });
        let offender = from("203.0.113.9");
        for _ in 0..5 {
            assert!(offender.passes(&limit));
        }
        for n in 0..20_000 {
            nth(n).passes(&limit);
            assert!(n % 100 != 0 || !offender.passes(&limit), "after {n}");
        }
        assert_eq!(limit.keys(), 2_000);
    }

    #[test]
    fn a_sweep_forgets_full_buckets_only() {
        let (limit, clock) = small();
        for n in 0..10 {
            nth(n).passes(&limit);
        }
        clock.advance(MINUTE);
        nth(3).passes(&limit);
        nth(3).passes(&limit);
        limit.sweep();
        assert_eq!(limit.keys(), 1);
        assert!(!nth(3).passes(&limit), "the offender's debt survives");
        assert!(nth(50).passes(&limit), "there is room again");
        assert_eq!(limit.tally().evicted_owing, 0);
    }

    #[test]
    fn the_count_of_keys_is_exact_across_threads_and_sweeps() {
        let (limit, clock) = limit(&written(1, MINUTE, None, &[LimitKey::Ip]));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|n| _ = nth(n).passes(&limit)));
            }
            scope.spawn(|| (0..20).for_each(|_| limit.sweep()));
        });
        assert_eq!(limit.keys(), 500);
        clock.advance(MINUTE * 3);
        limit.sweep();
        assert_eq!(limit.keys(), 0);
    }
}

mod compile {
    use super::*;

    fn check(written: &config::Limit, expected: &[&str]) {
        let mut problems = Problems::default();
        let path = KeyPath::root().key("limit").key("x");
        let compiled = Limit::compile(
            "x",
            written,
            &BTreeMap::new(),
            &path,
            None,
            None,
            &mut problems,
        );
        let found: Vec<_> = problems
            .into_errors()
            .iter()
            .map(|error| error.path.to_string())
            .collect();
        assert_eq!(found, expected);
        assert_eq!(compiled.is_none(), !expected.is_empty());
    }

    #[test]
    fn what_cannot_work_is_named() {
        let fine = written(10, MINUTE, None, &[LimitKey::Ip]);
        check(&fine, &[]);
        let depth_of_none = config::Limit {
            burst: Some(0),
            ..fine.clone()
        };
        check(&depth_of_none, &["limit.x.burst"]);
        let keyless = config::Limit {
            key: Vec::new(),
            max_keys: 0,
            ..fine
        };
        check(&keyless, &["limit.x.key", "limit.x.max_keys"]);
    }

    #[test]
    fn a_bucket_that_never_fills_is_refused() {
        let day = MINUTE * 60 * 24;
        check(&written(1, day, Some(366), &[LimitKey::Ip]), &[]);
        check(
            &written(1, day, Some(367), &[LimitKey::Ip]),
            &["limit.x.burst"],
        );
        check(
            &written(1, day, Some(u32::MAX), &[LimitKey::Ip]),
            &["limit.x.burst"],
        );
        check(
            &written(u32::MAX, Duration::from_secs(1), None, &[LimitKey::Ip]),
            &[],
        );
    }

    #[test]
    fn credentials_and_forwarding_headers_are_no_keys() {
        for name in [
            "authorization",
            "cookie",
            "x-forwarded-for",
            "forwarded",
            "x-real-ip",
        ] {
            let key = [
                LimitKey::Ip,
                LimitKey::Header(HeaderName::from_static(name)),
            ];
            check(&written(1, MINUTE, None, &key), &["limit.x.key[1]"]);
        }
    }

    #[test]
    fn a_limit_written_alike_keeps_its_buckets_over_a_reload() {
        let mut problems = Problems::default();
        let path = KeyPath::root();
        let written = written(1, MINUTE, None, &[LimitKey::Ip]);
        let before = Limit::compile(
            "x",
            &written,
            &BTreeMap::new(),
            &path,
            None,
            None,
            &mut problems,
        )
        .unwrap();
        let client = from("192.0.2.1");
        assert!(client.passes(&before));

        let after = Limit::compile(
            "x",
            &written,
            &BTreeMap::new(),
            &path,
            Some(&before),
            None,
            &mut problems,
        )
        .unwrap();
        assert!(!client.passes(&after), "mid-window, and still charged");

        let wider = config::Limit {
            burst: Some(5),
            ..written
        };
        let changed = Limit::compile(
            "x",
            &wider,
            &BTreeMap::new(),
            &path,
            Some(&before),
            None,
            &mut problems,
        )
        .unwrap();
        assert!(!Arc::ptr_eq(&before, &changed));
    }
}
