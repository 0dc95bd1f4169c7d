//! h2load: a short load over each protocol; not one request may be lost.

use std::time::Duration;

use tokio::process::Command;

use super::entrance::Entrance;
use super::greeter;
use super::program::run;

#[tokio::test]
async fn no_request_is_lost() {
    let backend = greeter().await;
    let conf = format!(
        r#"
        [upstream.h1]
        endpoints = ["http://{backend}"]

        [upstream.h2c]
        endpoints = ["h2c://{backend}"]

        [[route]]
        path     = "/hello"
        auth     = "none"
        upstream = "h1"

        [[route]]
        path     = "/bytes/*"
        auth     = "none"
        upstream = "h2c"
        "#,
        backend = backend.address
    );
    let entrance = Entrance::open(&conf).await;
    let plain = format!("http://{}", entrance.plain);
    let tls = format!("https://{}", entrance.tls);
    for (arguments, url) in [
        (&["-m", "10"][..], format!("{tls}/hello")),
        (&["-m", "10"], format!("{plain}/bytes/20000")),
        (&["--h1"], format!("{plain}/hello")),
        // Pipelined: ten requests on the way in each connection.
        (&["--h1", "-m", "10"], format!("{tls}/bytes/2000")),
    ] {
        loses_nothing(arguments, &url).await;
    }
}

async fn loses_nothing(arguments: &[&str], url: &str) {
    let mut command = Command::new("h2load");
    command
        .args(["-n", "2000", "-c", "10"])
        .args(arguments)
        .arg(url);
    let ended = run(command, Duration::from_secs(60)).await;
    let report = ended.text();
    for line in [
        "requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout",
        "status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx",
    ] {
        assert!(
            report.contains(line),
            "{arguments:?} {url}:\n{report}{}",
            ended.stderr
        );
    }
}
