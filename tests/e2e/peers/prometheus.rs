//! Prometheus: scrapes the gateway, and finds from a number the request that is behind it.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use vestibule::types::clock;

use super::entrance::Entrance;
use super::program::Program;
use super::{greeter, greeter_conf};
use crate::support::client::{self, Via, get};
use crate::support::eventually;
use crate::support::gateway::conf;
use crate::support::origin::{self, Gate, Reply, gate};

const OPEN: &str = "application/openmetrics-text;version=1.0.0";

struct Prometheus {
    address: SocketAddr,
    /// Held: it ends with them.
    _child: Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    async fn scraping(admin: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- job_name: edge\n  static_configs: [{{ targets: [\"{admin}\"] }}]\n"
        );
        std::fs::write(&conf, text).unwrap();
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", conf.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .arg("--enable-feature=exemplar-storage")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a peer is missing: prometheus (run tests/peers/install)");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap();
            let line = line.expect("it says where it listens before it ends");
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                break address.trim().parse().unwrap();
            }
        };
        // Read on, so that it never waits for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            address,
            _child: child,
            _folder: folder,
        }
    }

    /// Waits until `id` stands behind a number of `series`.
    async fn learns(&self, series: &str, id: &String) {
        let learnt = async {
            while !self.ids_behind(series).await.contains(id) {
                sleep(Duration::from_millis(100)).await;
            }
        };
        let learnt = timeout(PATIENCE, learnt).await;
        assert!(learnt.is_ok(), "{id} never stood behind {series}");
    }

    /// The ids of the requests behind the numbers of a series.
    async fn ids_behind(&self, series: &str) -> Vec<String> {
        let path = format!("/api/v1/query_exemplars?query={series}&start=0&end=9999999999");
        let mut client = client::connect(self.address, Via::H1).await;
        let answer = client.send(get(&path)).await;
        let data = answer.at("/data");
        let series = data.as_array().cloned().unwrap_or_default();
        let exemplars = series.iter().filter_map(|one| one["exemplars"].as_array());
        let ids = exemplars.flatten().map(|one| &one["labels"]["request_id"]);
        ids.filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

/// A start, a scrape and a query, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

fn slow(gate: &Gate) -> Reply {
    Reply::text("late").behind(gate)
}

#[tokio::test]
async fn a_decision_is_found_from_the_numbers() {
    let gate = gate();
    let origin = origin::http().path("/slow", slow(&gate)).run().await;
    let gateway = conf(
        r#"
        [[route]]
        name = "closed"
        path = "/closed"
        auth = "deny"
        [[route]]
        name = "slow"
        path = "/slow"
        auth = "none"
        upstream = "api"
    "#,
    )
    .upstream("api", &origin)
    .run()
    .await;
    let refused = gateway.ask(get("/closed")).await;
    let id = refused.header("x-request-id").to_owned();
    let mut client = gateway.connect(Via::H1).await;
    let late = async {
        eventually("the request is under way", async || {
            !origin.saw().is_empty()
        })
        .await;
        let under_way = clock::now();
        eventually(
            "a tenth of a second has passed, and more is slow",
            async || under_way.elapsed() > Duration::from_millis(100),
        )
        .await;
        gate.open();
    };
    let (answer, ()) = tokio::join!(client.send(get("/slow")), late);
    let slow_id = answer.header("x-request-id").to_owned();

    let prometheus = Prometheus::scraping(gateway.admin_address()).await;
    for (series, id) in [
        ("vestibule_rejections_total", &id),
        ("vestibule_request_duration_seconds_bucket", &slow_id),
    ] {
        prometheus.learns(series, id).await;
    }
    let decision = gateway.admin(get(&format!("/decisions/{id}"))).await;
    assert_eq!(decision.at("/reason"), json!("route_closed"));
}

#[tokio::test]
async fn a_strict_reader_of_openmetrics_finds_nothing_wrong() {
    let backend = greeter().await;
    let upstream = format!("h2c://{}", backend.address);
    let entrance = Entrance::open(&greeter_conf(&backend, &upstream, "pass")).await;
    let refused = entrance.gateway.ask(get("/nowhere")).await;
    let page = entrance
        .gateway
        .admin(get("/metrics").header("accept", OPEN))
        .await;
    assert!(
        page.header("content-type")
            .starts_with("application/openmetrics-text")
    );
    let asked = json!({ "page": page.text(), "id": refused.header("x-request-id") });
    Program::Python("openmetrics").passes(&asked).await;
}
