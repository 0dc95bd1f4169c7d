//! promtool: the metrics pass its lint, the alerts pass their unit tests.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::entrance::Entrance;
use super::program::run;
use super::{greeter, greeter_conf};
use crate::support::client::get;

#[tokio::test]
async fn the_metrics_pass_the_lint() {
    let backend = greeter().await;
    let upstream = format!("h2c://{}", backend.address);
    let entrance = Entrance::open(&greeter_conf(&backend, &upstream, "pass")).await;
    entrance.gateway.ask(get("/nowhere")).await;
    let metrics = entrance.gateway.admin(get("/metrics")).await.text();
    assert!(metrics.contains("vestibule_requests_total"), "{metrics}");

    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a peer is missing: promtool (run tests/peers/install)");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    stdin.write_all(metrics.as_bytes()).await.unwrap();
    drop(stdin);
    let ended = child.wait_with_output().await.unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    assert!(
        ended.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[tokio::test]
async fn the_alerts_fire_when_they_should_and_only_then() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/prometheus");
    let mut command = Command::new("promtool");
    command
        .args(["test", "rules", "alerts_test.yml"])
        .current_dir(folder);
    let ended = run(command, Duration::from_secs(60)).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.stderr);
}
