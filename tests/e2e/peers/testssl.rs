//! testssl.sh: versions, kinds of cipher suites, and the attacks that it tries with sockets of its own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::process::Command;

use super::program::run;
use crate::support::gateway;

#[tokio::test]
async fn no_old_version_no_weak_suite_no_known_attack() {
    let gateway = gateway::conf("[[route]]\nauth = \"none\"\nrespond = { status = 200 }")
        .run()
        .await;
    let mut report = report_on(gateway.at("secure")).await;
    if report.contains("Oops: TCP connect problem") {
        // It waits a second for a connection, which a busy machine may not give it; what it then says is no verdict.
        report = report_on(gateway.at("secure")).await;
    }
    let line = |name: &str| {
        let found = report.lines().find(|line| line.trim().starts_with(name));
        found.unwrap_or_else(|| panic!("{name} is not in\n{report}"))
    };
    for (name, verdict) in [
        ("SSLv2 ", "not offered (OK)"),
        ("SSLv3 ", "not offered (OK)"),
        ("TLS 1 ", "not offered"),
        ("TLS 1.1 ", "not offered"),
        ("TLS 1.2 ", "offered (OK)"),
        ("TLS 1.3 ", "offered (OK)"),
        ("NULL ciphers", "not offered (OK)"),
        ("Anonymous NULL", "not offered (OK)"),
        ("Export ciphers", "not offered (OK)"),
        ("LOW: 64 Bit", "not offered (OK)"),
        ("Triple DES", "not offered"),
        ("Heartbleed", "not vulnerable (OK)"),
        ("CCS", "not vulnerable (OK)"),
        ("Ticketbleed", "not vulnerable (OK)"),
        ("Secure Renegotiation", "OK"),
        ("Secure Client-Initiated", "not vulnerable (OK)"),
        ("CRIME", "not vulnerable (OK)"),
    ] {
        assert!(line(name).contains(verdict), "{}\n{report}", line(name));
    }
    assert!(!report.contains("VULNERABLE"), "{report}");
}

async fn report_on(address: SocketAddr) -> String {
    let mut command = Command::new("testssl");
    command
        .args(["--quiet", "--color", "0", "--warnings", "off"])
        .args(["-p", "-s", "-H", "-I", "-T", "-R", "-C", "-B"])
        .arg(address.to_string());
    run(command, Duration::from_secs(100)).await.text()
}
