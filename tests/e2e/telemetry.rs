//! What operators see: metrics, reasons, the access log, and no secrets in any of it.

use crate::matrix;
use crate::support::client::{Via, connect, get, post};
use crate::support::gateway::{conf, open_to};
use crate::support::origin::{self, Reply};
use crate::support::{binary, issuer, json_lines, raw};

/// The families that dashboards and alerts name.
const FAMILIES: &[&str] = &[
    "vestibule_requests_total",
    "vestibule_request_duration_seconds",
    "vestibule_requests_in_flight",
    "vestibule_rejections_total",
    "vestibule_auth_decisions_total",
    "vestibule_limit_decisions_total",
    "vestibule_limit_keys",
    "vestibule_jwks_age_seconds",
    "vestibule_jwks_fetches_total",
    "vestibule_jwks_keys",
    "vestibule_upstream_requests_total",
    "vestibule_upstream_in_flight",
    "vestibule_upstream_connects_total",
    "vestibule_upstream_first_byte_seconds",
    "vestibule_upstream_healthy",
    "vestibule_tls_certificate_not_after_seconds",
    "vestibule_config_generation",
    "vestibule_config_last_reload_success",
    "vestibule_config_reloads_total",
    "vestibule_connections_open",
    "vestibule_connections_total",
    "vestibule_panics_total",
    "vestibule_build_info",
];

#[tokio::test]
async fn every_family_has_type_help_and_a_value() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = conf(
        r#"
        [[route]]
        name = "all"
        auth = { any = ["main"] }
        limits = ["wide"]
        upstream = "api"
        [limit.wide]
        rate = "1000/s"
    "#,
    )
    .issuer(&issuer)
    .upstream("api", &origin)
    .run()
    .await;
    gateway.ready().await;
    assert_eq!(
        gateway
            .ask(get("/").bearer(&issuer.token().sign()))
            .await
            .status,
        200
    );
    assert_eq!(gateway.ask(get("/")).await.status, 401);
    gateway.reload(&conf("nonsense")).await;
    let page = gateway.admin(get("/metrics")).await;
    assert!(
        page.header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let page = page.text();
    for family in FAMILIES {
        assert!(
            page.contains(&format!("# TYPE {family} ")),
            "{family} has no type\n{page}"
        );
        assert!(
            page.contains(&format!("# HELP {family} ")),
            "{family} has no help"
        );
    }
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        assert!(
            line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(),
            "{line}"
        );
    }
}

matrix! {
    async fn every_answer_is_counted_once(via, speaks) {
        let origin = origin::speaking(speaks).path("/broken", Reply::empty(500)).run().await;
        let gateway = conf(r#"
            [[route]]
            name = "all"
            auth = "none"
            upstream = "api"
            [[route]]
            name = "closed"
            path = "/closed"
            auth = "deny"
        "#)
        .upstream("api", &origin)
        .run()
        .await;
        let mut client = gateway.connect(via).await;
        for target in ["/", "/", "/broken", "/closed"] {
            client.send(get(target)).await;
        }
        client.send(post("/", "x")).await;
        let total = "vestibule_requests_total";
        let listener = if via.is_tls() { "secure" } else { "plain" };
        for (labels, value) in [
            ([("route", "all"), ("method", "GET"), ("status", "200")], 2.0),
            ([("route", "all"), ("method", "GET"), ("status", "500")], 1.0),
            ([("route", "all"), ("method", "POST"), ("status", "200")], 1.0),
            ([("route", "closed"), ("method", "GET"), ("status", "404")], 1.0),
        ] {
            gateway.counted(total, &labels, value).await;
        }
        gateway.counted(total, &[("listener", listener)], 5.0).await;
        gateway.counted("vestibule_rejections_total", &[("route", "closed"), ("reason", "route_closed")], 1.0).await;
        gateway.counted("vestibule_rejections_total", &[], 1.0).await;
        gateway.counted("vestibule_request_duration_seconds_count", &[("route", "all")], 4.0).await;
        gateway.counted("vestibule_upstream_requests_total", &[("upstream", "api")], 4.0).await;
    }
}

/// Labels are bounded: what clients make up becomes no series.
#[tokio::test]
async fn clients_cannot_make_series() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    let series = async || gateway.admin(get("/metrics")).await.text().lines().count();
    gateway
        .ask(crate::support::client::call("BREW", "/0"))
        .await;
    gateway.ask(get("/0").host("0.example")).await;
    gateway.counted("vestibule_requests_total", &[], 2.0).await;
    let before = series().await;
    for n in 0..20 {
        gateway
            .ask(crate::support::client::call(&format!("BREW{n}"), "/"))
            .await;
        gateway
            .ask(get(&format!("/{n}")).host(&format!("{n}.example")))
            .await;
    }
    gateway.counted("vestibule_requests_total", &[], 42.0).await;
    assert_eq!(series().await, before);
}

#[tokio::test]
async fn the_access_log_is_a_json_line_a_request_without_secrets() {
    let issuer = issuer::run().await;
    let origin = origin::h2c().run().await;
    let conf = conf(
        r#"
        [log]
        access = "stdout"
        [[route]]
        name = "api"
        path = "/api/*"
        auth = { any = ["main"] }
        upstream = "api"
        [[route]]
        name = "gone"
        path = "/gone"
        auth = "none"
        upstream = "gone"
        [session.browser]
        cookie = "at"
        probe = { upstream = "api", path = "/session" }
    "#,
    )
    .issuer(&issuer)
    .upstream("api", &origin)
    .upstream_at("gone", "http", raw::nowhere().await, "");
    let mut process = binary::run(&conf).await;
    let mut admin = connect(process.admin(), Via::H1).await;
    crate::support::eventually("ready", async || {
        admin.send(get("/readyz")).await.status == 200
    })
    .await;

    let token = issuer.token().sign();
    let mut client = connect(process.at("secure"), Via::TlsH2).await;
    let answer = client
        .send(
            get("/api/x?secret=hunter2")
                .bearer(&token)
                .header("cookie", "at=hunter3")
                .header("user-agent", "te\"st\t\u{e4}"),
        )
        .await;
    let answer_2 = client
        .send(get("/api/x?access_token=hunter4").bearer("hunter5"))
        .await;
    let answer_3 = client.send(get("/gone")).await;
    let answer_4 = client.send(get("/nowhere")).await;
    drop(client);
    process.signal("-TERM");
    let (code, text) = process.ended().await;
    assert_eq!(code, Some(0));
    for secret in ["hunter", token.as_str(), token.rsplit('.').next().unwrap()] {
        assert!(!text.contains(secret), "{secret} in {text}");
        let events = format!("{:?}", process.events());
        assert!(!events.contains(secret), "{secret} in {events}");
    }
    let lines = json_lines(&text);
    assert_eq!(lines.len(), 4, "{text}");
    let by_id = |answer: &crate::support::client::Answer| {
        let id = answer.header("x-request-id");
        lines
            .iter()
            .find(|line| line["request_id"] == id)
            .unwrap_or_else(|| panic!("{id} in {text}"))
            .clone()
    };
    assert_eq!(answer.status, 200);
    let line = by_id(&answer);
    for (key, value) in [
        ("listener", "secure"),
        ("client", "127.0.0.1"),
        ("method", "GET"),
        ("host", "test.example"),
        ("path", "/api/x"),
        ("route", "api"),
        ("user", "alice"),
        ("auth_source", "main"),
        ("upstream", "api"),
        ("outcome", "complete"),
        ("dialect", "http"),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    assert_eq!(
        (
            line["status"].as_u64(),
            line["attempts"].as_u64(),
            line["bytes_out"].as_u64()
        ),
        (Some(200), Some(1), Some(5))
    );
    assert_eq!(
        (line["tls"].as_bool(), line["query"].as_bool()),
        (Some(true), Some(true))
    );
    assert!(
        line["duration_us"].as_u64().is_some()
            && line["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
    );
    let line = by_id(&answer_2);
    assert_eq!(
        (&line["reason"], &line["status"]),
        (&"credential_malformed".into(), &401.into())
    );
    let line = by_id(&answer_3);
    assert_eq!(line["reason"], "upstream_unreachable");
    assert!(
        line["endpoint"]
            .as_str()
            .is_some_and(|one| one.starts_with("http://127.0.0.1:"))
    );
    assert!(
        line["attempts"]
            .as_u64()
            .is_some_and(|attempts| attempts > 0)
    );
    assert_eq!(by_id(&answer_4)["reason"], "no_route");
}

#[tokio::test]
async fn connections_count_while_they_are_open() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    for via in Via::ALL {
        let listener = if via.is_tls() { "secure" } else { "plain" };
        let protocol = if via.is_h2() { "h2" } else { "h1" };
        let labels = [("listener", listener), ("protocol", protocol)];
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = gateway.connect(via).await;
            assert_eq!(client.send(get("/")).await.status, 200);
            clients.push(client);
        }
        gateway
            .counted("vestibule_connections_open", &labels, 2.0)
            .await;
        for client in clients {
            client.hang_up();
        }
        gateway
            .counted("vestibule_connections_open", &labels, 0.0)
            .await;
        gateway
            .counted("vestibule_connections_total", &labels, 2.0)
            .await;
    }
}

/// R16, the part that needs no full disk: nobody reads the log, and requests go on.
#[tokio::test]
async fn a_log_that_nobody_reads_blocks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    // Both ends are open, so that opening does not wait; nothing is ever read.
    let _held = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let origin = origin::h2c().run().await;
    let gateway = conf(&format!(
        "[log]\naccess = {{ file = {path:?} }}\n[[route]]\nauth = \"none\"\nupstream = \"api\""
    ))
    .upstream("api", &origin)
    .run()
    .await;
    let client = gateway.connect(Via::H2c).await;
    let workers: Vec<_> = (0..20)
        .map(|_| {
            let mut client = client.another();
            tokio::spawn(async move {
                for _ in 0..100 {
                    assert_eq!(client.send(get("/")).await.status, 200);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(origin.heads(), 2_000);
}
