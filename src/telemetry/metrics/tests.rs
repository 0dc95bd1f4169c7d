use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode};

use super::*;
use crate::types::{Protocol, Reason};

const QUICK: Duration = Duration::from_millis(3);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn name(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn id(digit: char) -> HeaderValue {
    HeaderValue::from_str(&digit.to_string().repeat(32)).unwrap()
}

/// Whether the text holds this very line.
fn has(text: &str, line: &str) -> bool {
    text.lines().any(|found| found == line)
}

fn samples() -> Samples {
    Samples {
        store: Some(StoreSample {
            up: false,
            lines: 3,
            open: 1,
            operations: vec![("decide", "ok", 7)],
            latency: vec![(0.001, 2), (0.01, 5), (f64::INFINITY, 7)],
            latency_sum: 1.5,
            messages: vec![("sent", 4)],
        }),
        upstreams: vec![UpstreamSample {
            upstream: name("api"),
            endpoints: vec![EndpointSample {
                endpoint: name("h2c://10.0.0.5:8080"),
                healthy: true,
                in_flight: 3,
                requests: vec![("answered", 40), ("timeout", 2)],
            }],
            connects: vec![("done", 4), ("failed", 1)],
            retries: 5,
        }],
        issuers: vec![
            IssuerSample {
                issuer: name("main"),
                keys: 2,
                age: Some(Duration::from_millis(1500)),
                fetches: vec![("done", 1)],
                vanished_key_tokens: 1,
                cached_tokens: 4,
                cache: vec![("hit", 12), ("miss", 3)],
                revocations: 2,
                revoked: 1,
            },
            IssuerSample {
                issuer: name("late"),
                keys: 0,
                age: None,
                fetches: vec![("failed", 7)],
                vanished_key_tokens: 0,
                cached_tokens: 0,
                cache: vec![("hit", 0), ("miss", 0)],
                revocations: 0,
                revoked: 0,
            },
        ],
        confirmations: vec![ConfirmationSample {
            source: name("browser"),
            kind: "probe",
            outcomes: vec![("confirmed", 3)],
        }],
        in_flight: 0,
        limits: vec![LimitSample {
            limit: name("login"),
            keys: 9,
            decisions: vec![("allowed", 100), ("refused", 11)],
            unreadable: 2,
            spread: 3,
            highest_spread: 4,
            failures: 8,
            bans: 2,
            evictions: vec![("clear", 1)],
            waiting: 0,
            held: 1,
            tarpit: vec![("held", 6), ("no_slot", 1)],
            alone: Some(5),
        }],
        certificates: vec![CertificateSample {
            listener: name("public"),
            name: name("auth.example.com"),
            not_after: at(1_800_000_000),
        }],
        access_log_dropped: 6,
    }
}

/// Metrics in which every family has a value, and the handles that keep it there.
fn full() -> (Arc<Metrics>, Vec<Arc<dyn std::any::Any>>) {
    let metrics = Metrics::new();
    let route = metrics.route("public", "login");
    route.observe(&Method::POST, StatusCode::OK, QUICK);
    route.reject(Reason::RateLimited, &id('b'), at(7));
    let auth = metrics.auth("main");
    auth.accepted();
    auth.refused(Reason::TokenExpired, &id('a'), at(7));
    let listener = metrics.listener("public");
    let open = Arc::new(listener.open(Protocol::Http2));
    listener.refused("too_many");
    listener.handshake_failed();
    let upstream = metrics.upstream("api");
    upstream.answered_after(QUICK);
    metrics.config_in_force(1, at(1_700_000_000));
    (metrics, vec![route, auth, listener, upstream, open])
}

mod text {
    use super::*;

    #[test]
    fn an_answer_is_counted_by_listener_route_method_and_status() {
        let metrics = Metrics::new();
        let route = metrics.route("public", "login");
        route.observe(&Method::POST, StatusCode::OK, QUICK);
        route.observe(&Method::POST, StatusCode::OK, QUICK);
        route.observe(&"PROPFIND".parse().unwrap(), StatusCode::IM_A_TEAPOT, QUICK);
        let text = metrics.render(&Samples::default());
        let counter = "vestibule_requests_total";
        let labels = r#"listener="public",route="login""#;
        for line in [
            format!(r#"{counter}{{{labels},method="POST",status="200"}} 2"#),
            format!(r#"{counter}{{{labels},method="OTHER",status="418"}} 1"#),
            format!("vestibule_request_duration_seconds_count{{{labels}}} 3"),
            format!(r#"vestibule_request_duration_seconds_bucket{{{labels},le="0.0025"}} 0"#),
            format!(r#"vestibule_request_duration_seconds_bucket{{{labels},le="0.005"}} 3"#),
            format!(r#"vestibule_request_duration_seconds_bucket{{{labels},le="30"}} 3"#),
        ] {
            assert!(has(&text, &line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_method_and_status_lands_in_its_own_cell() {
        let metrics = Metrics::new();
        let route = metrics.route("public", "x");
        let methods = [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
        ];
        for method in methods {
            for status in 100..600 {
                let method = method.parse().unwrap();
                route.observe(&method, StatusCode::from_u16(status).unwrap(), QUICK);
            }
        }
        let text = metrics.render(&Samples::default());
        let ones = text
            .lines()
            .filter(|line| line.starts_with("vestibule_requests_total{") && line.ends_with(" 1"));
        assert_eq!(ones.count(), methods.len() * 500);
    }

    #[test]
    fn every_reason_stands_there_before_its_first_refusal() {
        let text = Metrics::new().render(&Samples::default());
        for reason in Reason::ALL {
            let code = reason.code();
            let line = format!(r#"vestibule_rejections_total{{route="",reason="{code}"}} 0"#);
            assert!(has(&text, &line), "{line}");
        }
    }

    #[test]
    fn refusals_of_a_route_add_up_over_its_listeners() {
        let metrics = Metrics::new();
        let routes = ["a", "b"].map(|listener| metrics.route(listener, "login"));
        for route in &routes {
            route.reject(Reason::RateLimited, &id('b'), at(7));
        }
        let text = metrics.render(&Samples::default());
        let line = r#"vestibule_rejections_total{route="login",reason="rate_limited"} 2"#;
        assert!(has(&text, line), "{text}");
    }

    #[test]
    fn decisions_of_authentication_are_told_apart() {
        let (metrics, _handles) = full();
        let text = metrics.render(&Samples::default());
        let family = "vestibule_auth_decisions_total";
        for line in [
            format!(r#"{family}{{source="main",outcome="accepted"}} 1"#),
            format!(r#"{family}{{source="main",outcome="token_expired"}} 1"#),
        ] {
            assert!(has(&text, &line), "{line}");
        }
    }

    #[test]
    fn connections_are_counted_by_listener_and_protocol() {
        let (metrics, _handles) = full();
        drop(metrics.listener("public").open(Protocol::Http2));
        let text = metrics.render(&Samples::default());
        for line in [
            r#"vestibule_connections_open{listener="public",protocol="h2"} 1"#,
            r#"vestibule_connections_open{listener="public",protocol="h1"} 0"#,
            r#"vestibule_connections_total{listener="public",protocol="h2"} 2"#,
            r#"vestibule_connections_refused_total{listener="public",reason="too_many"} 1"#,
            r#"vestibule_tls_handshake_failures_total{listener="public"} 1"#,
        ] {
            assert!(has(&text, line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn samples_are_written_as_they_stand() {
        let text = Metrics::new().render(&samples());
        let endpoint = r#"upstream="api",endpoint="h2c://10.0.0.5:8080""#;
        for line in [
            format!(r#"vestibule_upstream_requests_total{{{endpoint},outcome="answered"}} 40"#),
            format!(r#"vestibule_upstream_requests_total{{{endpoint},outcome="timeout"}} 2"#),
            format!("vestibule_upstream_in_flight{{{endpoint}}} 3"),
            format!("vestibule_upstream_healthy{{{endpoint}}} 1"),
            r#"vestibule_upstream_connects_total{upstream="api",result="failed"} 1"#.to_owned(),
            r#"vestibule_upstream_retries_total{upstream="api"} 5"#.to_owned(),
            r#"vestibule_jwks_age_seconds{issuer="main"} 1.5"#.to_owned(),
            r#"vestibule_jwks_keys{issuer="late"} 0"#.to_owned(),
            r#"vestibule_jwks_fetches_total{issuer="late",result="failed"} 7"#.to_owned(),
            r#"vestibule_limit_decisions_total{limit="login",decision="allowed"} 100"#.to_owned(),
            r#"vestibule_limit_decisions_total{limit="login",decision="refused"} 11"#.to_owned(),
            r#"vestibule_limit_keys{limit="login"} 9"#.to_owned(),
            r#"vestibule_tls_certificate_not_after_seconds{listener="public",name="auth.example.com"} 1800000000"#.to_owned(),
            "vestibule_access_log_dropped_total 6".to_owned(),
            "vestibule_store_up 0".to_owned(),
            r#"vestibule_store_circuits{state="closed"} 2"#.to_owned(),
            r#"vestibule_store_circuits{state="open"} 1"#.to_owned(),
            r#"vestibule_store_operations_total{operation="decide",outcome="ok"} 7"#.to_owned(),
            r#"vestibule_store_latency_seconds_bucket{le="0.01"} 5"#.to_owned(),
            r#"vestibule_store_latency_seconds_bucket{le="+Inf"} 7"#.to_owned(),
            "vestibule_store_latency_seconds_count 7".to_owned(),
            "vestibule_store_latency_seconds_sum 1.5".to_owned(),
            r#"vestibule_store_messages_total{outcome="sent"} 4"#.to_owned(),
        ] {
            assert!(has(&text, &line), "{line} is not in\n{text}");
        }
        assert!(!text.contains(r#"vestibule_jwks_age_seconds{issuer="late"}"#));
    }

    #[test]
    fn loads_and_refusals_of_the_configuration_show() {
        let metrics = Metrics::new();
        metrics.config_in_force(1, at(100));
        let text = metrics.render(&Samples::default());
        assert!(has(
            &text,
            r#"vestibule_config_reloads_total{result="done"} 0"#
        ));
        assert!(has(&text, "vestibule_config_last_reload_success 1"));

        metrics.config_in_force(2, at(200));
        metrics.config_refused(at(300));
        let text = metrics.render(&Samples::default());
        for line in [
            r#"vestibule_config_reloads_total{result="done"} 1"#,
            r#"vestibule_config_reloads_total{result="refused"} 1"#,
            "vestibule_config_last_reload_success 0",
            "vestibule_config_last_reload_timestamp_seconds 300",
            "vestibule_config_generation 2",
        ] {
            assert!(has(&text, line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn requests_in_flight_and_panics_show() {
        let metrics = Metrics::new();
        metrics.panicked();
        let text = metrics.render(&Samples {
            in_flight: 1,
            ..Samples::default()
        });
        assert!(has(&text, "vestibule_requests_in_flight 1"));
        assert!(has(&text, "vestibule_panics_total 1"));
    }

    #[test]
    fn a_hostile_name_cannot_break_out_of_its_label() {
        let metrics = Metrics::new();
        let route = metrics.route("public", "a\"} 1\nforged 2\\");
        route.observe(&Method::GET, StatusCode::OK, QUICK);
        let text = metrics.render(&Samples::default());
        assert!(!text.lines().any(|line| line.starts_with("forged")));
        assert!(text.contains(r#"route="a\"} 1\nforged 2\\""#), "{text}");
    }
}

mod life {
    use super::*;

    #[test]
    fn a_handle_in_use_is_handed_out_again() {
        let metrics = Metrics::new();
        let before = metrics.route("public", "login");
        let after = metrics.route("public", "login");
        assert!(Arc::ptr_eq(&before, &after), "counts survive a reload");
        assert!(!Arc::ptr_eq(&before, &metrics.route("private", "login")));
    }

    #[test]
    fn what_nobody_holds_any_more_vanishes() {
        let metrics = Metrics::new();
        let route = metrics.route("public", "gone");
        route.observe(&Method::GET, StatusCode::OK, QUICK);
        assert!(metrics.render(&Samples::default()).contains("gone"));
        drop(route);
        assert!(!metrics.render(&Samples::default()).contains("gone"));
    }

    #[test]
    fn counts_from_many_threads_add_up() {
        let metrics = Metrics::new();
        let route = metrics.route("public", "x");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for status in [StatusCode::OK, StatusCode::IM_A_TEAPOT] {
                        (0..500).for_each(|_| route.observe(&Method::GET, status, QUICK));
                    }
                });
            }
        });
        let text = metrics.render(&Samples::default());
        for status in [200, 418] {
            let line = format!(
                r#"vestibule_requests_total{{listener="public",route="x",method="GET",status="{status}"}} 2000"#
            );
            assert!(has(&text, &line), "{text}");
        }
    }
}

/// What `promtool check metrics` asks for, as far as the names go.
mod lint {
    use super::*;

    const EXPECTED: &[&str] = &[
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
        "vestibule_access_log_dropped_total",
        "vestibule_auth_decisions_total",
        "vestibule_build_info",
        "vestibule_config_generation",
        "vestibule_config_last_reload_success",
        "vestibule_config_last_reload_timestamp_seconds",
        "vestibule_config_reloads_total",
        "vestibule_confirmations_total",
        "vestibule_connections_open",
        "vestibule_connections_refused_total",
        "vestibule_connections_total",
        "vestibule_jwks_age_seconds",
        "vestibule_jwks_fetches_total",
        "vestibule_jwks_keys",
        "vestibule_jwks_vanished_key_tokens_total",
        "vestibule_limit_bans_total",
        "vestibule_limit_decisions_total",
        "vestibule_limit_distinct_exceeded_total",
        "vestibule_limit_distinct_highest",
        "vestibule_limit_evictions_total",
        "vestibule_limit_failures_total",
        "vestibule_limit_keys",
        "vestibule_limit_store_down_decisions_total",
        "vestibule_limit_tarpit_held",
        "vestibule_limit_tarpit_total",
        "vestibule_limit_unreadable_decisions_total",
        "vestibule_limit_waiting",
        "vestibule_panics_total",
        "vestibule_rejections_total",
        "vestibule_request_duration_seconds",
        "vestibule_requests_in_flight",
        "vestibule_requests_total",
        "vestibule_revocations_remembered",
        "vestibule_revocations_total",
        "vestibule_store_circuits",
        "vestibule_store_latency_seconds",
        "vestibule_store_messages_total",
        "vestibule_store_operations_total",
        "vestibule_store_up",
        "vestibule_tls_certificate_not_after_seconds",
        "vestibule_tls_handshake_failures_total",
        "vestibule_token_cache_entries",
        "vestibule_token_cache_lookups_total",
        "vestibule_upstream_connects_total",
        "vestibule_upstream_first_byte_seconds",
        "vestibule_upstream_healthy",
        "vestibule_upstream_in_flight",
        "vestibule_upstream_requests_total",
        "vestibule_upstream_retries_total",
    ];

    #[test]
    fn the_families_are_these_once_each_and_in_order() {
        let (metrics, _handles) = full();
        let text = metrics.render(&samples());
        let found: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!(found, EXPECTED);
    }

    #[test]
    fn every_family_has_help_and_counters_alone_end_in_total() {
        let (metrics, _handles) = full();
        let text = metrics.render(&samples());
        let mut helped = BTreeSet::new();
        let mut kinds = BTreeMap::new();
        for line in text.lines() {
            if let Some((name, help)) = line
                .strip_prefix("# HELP ")
                .and_then(|line| line.split_once(' '))
            {
                assert!(help.ends_with('.'), "{line}");
                helped.insert(name);
            }
            if let Some((name, kind)) = line
                .strip_prefix("# TYPE ")
                .and_then(|line| line.split_once(' '))
            {
                kinds.insert(name, kind);
            }
        }
        for (name, kind) in kinds {
            assert!(helped.contains(name), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            for unit in [
                "_ms",
                "_us",
                "_milliseconds",
                "_kb",
                "_percent",
                "_count",
                "_sum",
            ] {
                assert!(!name.ends_with(unit), "{name}");
            }
        }
    }

    #[test]
    fn no_series_stands_twice() {
        let (metrics, _handles) = full();
        let text = metrics.render(&samples());
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, _) = line.rsplit_once(' ').unwrap();
            assert!(seen.insert(series), "{series}");
        }
    }
}

mod open_metrics {
    use super::*;

    /// Bounds of buckets are written as floats there, and the total of a counter is not part of its family's name.
    fn values_of(text: &str) -> BTreeSet<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.map(|line| line.split(" # ").next().unwrap_or_default());
        let lines = lines.filter(|line| !line.starts_with("process_"));
        lines
            .map(|line| line.replace(".0\"}", "\"}").replace(".0\",", "\","))
            .collect()
    }

    #[test]
    fn it_says_the_same_as_the_older_format() {
        let (metrics, _handles) = full();
        let (old, new) = (metrics.render(&samples()), metrics.render_open(&samples()));
        assert_eq!(values_of(&old), values_of(&new));
        assert!(new.ends_with("\n# EOF\n"));
        assert!(has(&new, "# TYPE vestibule_requests counter"), "{new}");
        assert!(has(&new, "# TYPE vestibule_requests_in_flight gauge"));
        assert!(!old.contains(" # ") && !old.contains("# EOF"));
    }

    #[test]
    fn the_last_refusal_stands_behind_its_count() {
        let metrics = Metrics::new();
        let routes = ["a", "b"].map(|listener| metrics.route(listener, "login"));
        routes[0].reject(Reason::RateLimited, &id('c'), at(9));
        routes[1].reject(Reason::RateLimited, &id('d'), at(8));
        routes[1].reject(Reason::NoRoute, &id('e'), at(10));
        let auth = metrics.auth("main");
        auth.refused(Reason::TokenExpired, &id('f'), at(11));
        let text = metrics.render_open(&Samples::default());
        let shown = |digit: char, at: u64| {
            let id = digit.to_string().repeat(32);
            format!(" # {{request_id=\"{id}\"}} 1 {at}.000")
        };
        let rejections = "vestibule_rejections_total";
        for line in [
            format!(
                r#"{rejections}{{route="login",reason="rate_limited"}} 2{}"#,
                shown('c', 9)
            ),
            format!(
                r#"{rejections}{{route="login",reason="no_route"}} 1{}"#,
                shown('e', 10)
            ),
            format!(r#"{rejections}{{route="",reason="forbidden"}} 0"#),
            format!(
                r#"vestibule_auth_decisions_total{{source="main",outcome="token_expired"}} 1{}"#,
                shown('f', 11)
            ),
        ] {
            assert!(has(&text, &line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_slow_answer_stands_behind_its_bucket() {
        let metrics = Metrics::new();
        let routes = ["a", "b"].map(|name| metrics.route("public", name));
        for (milliseconds, digit) in [(99, '1'), (250, '2'), (300, '3'), (60_000, '4')] {
            let took = Duration::from_millis(milliseconds);
            routes[1].observe(&Method::GET, StatusCode::OK, took);
            if RouteMetrics::is_slow(took) {
                routes[1].remember(took, &id(digit), at(5));
            }
        }
        let text = metrics.render_open(&Samples::default());
        let bucket = |bound: &str, count: u64, behind: Option<(char, &str)>| {
            let behind = behind.map_or(String::new(), |(digit, value)| {
                let id = digit.to_string().repeat(32);
                format!(" # {{request_id=\"{id}\"}} {value} 5.000")
            });
            let labels = format!(r#"listener="public",route="b",le="{bound}""#);
            let line =
                format!("vestibule_request_duration_seconds_bucket{{{labels}}} {count}{behind}");
            assert!(has(&text, &line), "{line} is not in\n{text}");
        };
        bucket("0.1", 1, None);
        bucket("0.25", 2, Some(('2', "0.25")));
        bucket("0.5", 3, Some(('3', "0.3")));
        bucket("30.0", 3, None);
        bucket("+Inf", 4, Some(('4', "60")));
    }
}
