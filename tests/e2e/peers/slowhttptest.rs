//! slowhttptest: slow heads and slow bodies, a hundred at a time. Every one is closed by its deadline, and
//! somebody else is served all the while.

use std::time::Duration;

use tokio::process::Command;

use super::entrance::Entrance;
use super::greeter;
use super::program::run;

#[tokio::test]
async fn slow_heads_are_closed_and_others_are_served() {
    attack(&["-H", "-i", "1"], "/hello").await;
}

#[tokio::test]
async fn slow_bodies_are_closed_and_others_are_served() {
    attack(&["-B", "-i", "1", "-s", "8192"], "/hello").await;
}

async fn attack(arguments: &[&str], path: &str) {
    let backend = greeter().await;
    let conf = format!(
        r#"
        [upstream.play]
        endpoints = ["http://{}"]

        [[route]]
        auth     = "none"
        upstream = "play"
        "#,
        backend.address
    );
    let entrance = Entrance::open_with(&conf, DEADLINES).await;
    let url = format!("http://{}{path}", entrance.plain);
    let mut command = Command::new("slowhttptest");
    command
        .args(["-c", "100", "-r", "100", "-l", "12", "-p", "2", "-u", &url])
        .args(arguments);
    let ended = run(command, Duration::from_secs(60)).await;
    let report = plain(&ended.text());
    // The last line of the status: all connections are closed, none is left for the tool to close.
    assert!(report.contains("service available:   YES"), "{report}");
    assert!(!report.contains("service available:   NO"), "{report}");
    assert!(
        report.contains("Exit status: No open connections left"),
        "{report}"
    );
}

/// The text without the colours of a terminal.
fn plain(text: &str) -> String {
    let mut pieces = text.split('\u{1b}');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| {
        let end = piece.find(|letter: char| letter.is_ascii_alphabetic());
        text + end.and_then(|end| piece.get(end + 1..)).unwrap_or_default()
    })
}

/// Short enough for a test; what they bound is what is bounded in production.
const DEADLINES: &str = r#"
    head_timeout  = "2s"
    body_timeout  = "2s"
    write_timeout = "2s"
    idle_timeout  = "2s"
"#;
