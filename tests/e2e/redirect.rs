//! Answers that the gateway gives itself: redirects and fixed responses.

use crate::support::client::{Via, call, get, post};
use crate::support::gateway::conf;

#[tokio::test]
async fn a_listener_can_send_everything_to_https() {
    let gateway = conf(
        r#"
        [[route]]
        auth = "none"
        respond = { status = 200, body = "never" }
        [listen.plain]
        bind = "127.0.0.1:0"
        redirect_https = true
    "#,
    )
    .run()
    .await;
    for via in [Via::H1, Via::H2c] {
        for (asked, host, location) in [
            ("/a?b=c", "test.example", "https://test.example/a?b=c"),
            ("/", "TEST.example:8080", "https://test.example/"),
            ("/a/../b", "test.example", "https://test.example/b"),
            (
                "//evil.example/x",
                "test.example",
                "https://test.example/evil.example/x",
            ),
        ] {
            let answer = gateway.send(via, get(asked).host(host)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("location")),
                (308, location),
                "{asked}"
            );
        }
        let answer = gateway.send(via, post("/form", "body")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location")),
            (308, "https://test.example/form")
        );
    }
}

#[tokio::test]
async fn routes_can_redirect_and_respond() {
    let gateway = conf(
        r#"
        [[route]]
        path = "/old"
        auth = "none"
        redirect = { to = "/new" }
        [[route]]
        path = "/moved"
        auth = "none"
        redirect = { to = "https://elsewhere.example/x", status = 301 }
        [[route]]
        path = "/robots.txt"
        auth = "none"
        respond = { status = 200, body = "User-agent: *\n" }
        [[route]]
        path = "/gone"
        auth = "none"
        respond = { status = 410, body = "{}", content_type = "application/json" }
    "#,
    )
    .run()
    .await;
    for via in Via::ALL {
        let mut client = gateway.connect(via).await;
        let answer = client.send(get("/old")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location")),
            (302, "/new")
        );
        let answer = client.send(get("/moved")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location")),
            (301, "https://elsewhere.example/x")
        );
        let answer = client.send(get("/robots.txt")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, "User-agent: *\n")
        );
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        let answer = client.send(get("/gone")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (410, "application/json")
        );
        let answer = client.send(call("HEAD", "/robots.txt")).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    }
    gateway.settled().await;
}

/// HTTP/2 has no rule of its own that keeps the body of an answer to HEAD back.
#[tokio::test]
async fn refusals_of_head_have_no_body() {
    let gateway = conf("[[route]]\nname = \"closed\"\npath = \"/closed\"\nauth = \"deny\"")
        .run()
        .await;
    for via in Via::ALL {
        let mut client = gateway.connect(via).await;
        for target in ["/closed", "/nowhere", "/closed"] {
            let answer = client.send(call("HEAD", target)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.body.len()),
                (404, 0),
                "{via:?}"
            );
            let length: usize = answer.header("content-length").parse().unwrap();
            assert!(length > 0);
        }
    }
}
