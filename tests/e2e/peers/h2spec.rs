//! h2spec, the strict set of 147 cases, over TLS and over cleartext.

use std::time::Duration;

use tokio::process::Command;

use super::entrance::Entrance;
use super::greeter;
use super::program::{installed, keep_result, run};

/// All of h2spec's cases with `--strict`.
const CASES: u32 = 147;

/// The one case that a port which is shared with HTTP/1.1 cannot pass: it answers an invalid preface in HTTP/1.1.
const SHARED: u32 = 146;

#[tokio::test]
async fn conforms_over_tls() {
    conforms("tls", "", CASES, &["-t", "-k"]).await;
}

#[tokio::test]
async fn conforms_over_h2c() {
    conforms("h2c", "", SHARED, &[]).await;
}

#[tokio::test]
async fn conforms_over_h2c_with_prior_knowledge_alone() {
    conforms("h2c-only", "protocols = [\"h2\"]", CASES, &[]).await;
}

async fn conforms(name: &str, listen: &str, bar: u32, arguments: &[&str]) {
    let backend = greeter().await;
    // h2spec asks for `/` and wants a body back, whether it sent one or not.
    let conf = format!(
        r#"
        [upstream.play]
        endpoints = ["h2c://{}"]

        [[route]]
        path     = "/"
        auth     = "none"
        rewrite  = {{ from = "^/$", to = "/hello" }}
        upstream = "play"
        "#,
        backend.address
    );
    let entrance = Entrance::open_with(&conf, listen).await;
    let door = if arguments.contains(&"-t") {
        entrance.tls
    } else {
        entrance.plain
    };
    let mut command = Command::new(installed("bin/h2spec"));
    command
        .args(["-h", &door.ip().to_string(), "-p", &door.port().to_string()])
        .args(["-S", "-o", "2"])
        .args(arguments);
    let ended = run(command, Duration::from_secs(90)).await;
    let report = ended.text();
    let line = report.lines().rfind(|line| line.contains(" tests, "));
    let line = line.unwrap_or_else(|| panic!("no result: {report}{}", ended.stderr));
    keep_result(
        &format!("h2spec-{name}"),
        &format!("h2spec strict over {name}: {line}"),
    );
    let (total, passed) = (count(line, "tests"), count(line, "passed"));
    assert_eq!(total, CASES, "{line}");
    assert!(
        passed >= bar,
        "{passed} of {total} passed, {bar} is the bar\n{}",
        failures(&report)
    );
}

/// The number before `word` in `147 tests, 146 passed, 0 skipped, 1 failed`.
fn count(line: &str, word: &str) -> u32 {
    let part = line.split(", ").find(|part| part.trim().ends_with(word));
    let number = part.and_then(|part| part.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn failures(report: &str) -> &str {
    report
        .find("Failures:")
        .and_then(|at| report.get(at..))
        .unwrap_or(report)
}

#[test]
fn numbers_are_read_from_the_result_line() {
    let line = "147 tests, 146 passed, 0 skipped, 1 failed";
    assert_eq!((count(line, "tests"), count(line, "passed")), (147, 146));
    assert_eq!(count("", "passed"), 0);
}
