//! sslscan: the posture of the TLS listener as a stranger sees it.

use std::time::Duration;

use tokio::process::Command;

use super::entrance::Entrance;
use super::program::run;
use super::{greeter, greeter_conf};

#[tokio::test]
async fn only_sound_versions_and_suites_are_offered() {
    let backend = greeter().await;
    let upstream = format!("h2c://{}", backend.address);
    let entrance = Entrance::open(&greeter_conf(&backend, &upstream, "pass")).await;
    let mut command = Command::new("sslscan");
    command
        .args(["--no-colour", "--sni-name=localhost"])
        .arg(entrance.tls.to_string());
    let ended = run(command, Duration::from_secs(60)).await;
    let report = ended.text();
    let has = |part: &str| report.lines().any(|line| line.trim() == part);
    for line in [
        "SSLv2     disabled",
        "SSLv3     disabled",
        "TLSv1.0   disabled",
        "TLSv1.1   disabled",
        "TLSv1.2   enabled",
        "TLSv1.3   enabled",
        "Session renegotiation not supported",
    ] {
        assert!(has(line), "{line} is not in\n{report}");
    }
    let suites: Vec<&str> = report
        .lines()
        .filter(|line| line.starts_with("Preferred ") || line.starts_with("Accepted "))
        .collect();
    let of = |version: &str| {
        suites
            .iter()
            .filter(|suite| suite.contains(version))
            .count()
    };
    // The certificate is ECDSA: three suites of each version.
    assert_eq!((of("TLSv1.2"), of("TLSv1.3")), (3, 3), "{report}");
    assert_eq!(suites.len(), 6, "{report}");
    assert!(
        !report.contains("vulnerable to heartbleed")
            || report.contains("not vulnerable to heartbleed"),
        "{report}"
    );
}
