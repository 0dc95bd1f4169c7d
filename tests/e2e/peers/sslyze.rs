//! sslyze: the TLS listener held against Mozilla's recommendation, and against the known attacks.

use std::time::Duration;

use tokio::process::Command;
use vestibule::tls::dev;

use super::program::{installed, run};
use crate::support::gateway;

#[tokio::test]
async fn the_listener_follows_mozillas_intermediate_recommendation() {
    let folder = tempfile::tempdir().unwrap();
    dev::ensure(folder.path(), &["localhost"]).unwrap();
    let gateway = gateway::conf(&format!(
        r#"
        [[route]]
        auth    = "none"
        respond = {{ status = 200, body = "hello" }}
        [listen.secure]
        bind = "127.0.0.1:0"
        tls  = {{ certificates = ["{}"] }}
        "#,
        folder.path().display()
    ))
    .run()
    .await;
    let mut command = Command::new(installed("sslyze/bin/python"));
    command
        .args(["-m", "sslyze", "--mozilla_config=intermediate"])
        .arg(format!("localhost:{}", gateway.at("secure").port()));
    let report = run(command, Duration::from_secs(60)).await.text();
    // What it has to say of the certificate, which nobody in its store has signed, is all that it may complain of.
    let (scan, verdict) = report.split_once("COMPLIANCE AGAINST").expect("a verdict");
    let complaints: Vec<&str> = verdict
        .lines()
        .filter_map(|line| line.trim().strip_prefix("* "))
        .filter(|line| !line.starts_with("certificate_path_validation:"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:?}\n{report}");
    assert!(verdict.contains("localhost"), "{report}");
    for line in [
        "OK - Compression disabled",
        "OK - Not vulnerable to OpenSSL CCS injection",
        "OK - Not vulnerable to Heartbleed",
        "OK - Not vulnerable, RSA cipher suites not supported",
        "Client Renegotiation DoS Attack:   OK - Not vulnerable",
        "Secure Renegotiation:              OK - Supported",
    ] {
        assert!(scan.contains(line), "{line} is not in\n{report}");
    }
    assert!(!scan.contains("VULNERABLE -"), "{report}");
    let suites = scan
        .lines()
        .filter(|line| line.trim_start().starts_with("TLS_") && line.contains(" bits)"));
    assert_eq!(suites.count(), 6, "{report}");
}
