//! The canonical head: what is matched is what is forwarded (behaviour 2.5), and what has no canonical form is refused.

use crate::support::client::{Told, Via, call, get, refused};
use crate::support::gateway::{Gateway, conf, open_to};
use crate::support::origin::{self, Origin};
use crate::support::raw;

async fn house() -> (Origin, Gateway) {
    let origin = origin::h2c().run().await;
    let gateway = conf(
        r#"
        [[route]]
        name = "rest"
        auth = "none"
        upstream = "api"
        [[route]]
        name = "admin"
        path = "/admin/*"
        auth = "deny"
        [[route]]
        name = "keep"
        path = "/keep/*"
        auth = "none"
        upstream = "api"
        encoded_slash = "keep"
    "#,
    )
    .upstream("api", &origin)
    .run()
    .await;
    (origin, gateway)
}

#[tokio::test]
async fn paths_arrive_canonical() {
    let (origin, gateway) = house().await;
    for via in Via::ALL {
        for (sent, arrives) in [
            ("/", "/"),
            ("/a/./b/../c", "/a/c"),
            ("//api///v1/", "/api/v1/"),
            ("/%61%62%2Dc%7E", "/ab-c~"),
            ("/a%c3%a4", "/a%C3%A4"),
            ("/administrator", "/administrator"),
            ("/x?a=/../b&c=%2f", "/x?a=/../b&c=%2f"),
            ("/a/..?q", "/?q"),
            ("/keep/x%2fy", "/keep/x%2Fy"),
            ("/../../a", "/a"),
        ] {
            let answer = gateway.send(via, get(sent)).await;
            assert_eq!(answer.status, 200, "{via:?} {sent} {}", answer.text());
            assert_eq!(origin.last().target, arrives, "{via:?} {sent}");
        }
    }
}

#[tokio::test]
async fn no_spelling_gets_around_a_closed_path() {
    let (origin, gateway) = house().await;
    for via in Via::ALL {
        for sent in [
            "/admin",
            "/admin/",
            "/admin/users",
            "//admin/users",
            "/./admin",
            "/x/../admin/users",
            "/%61dmin",
            "/docs/%2E%2e/admin",
            "/keep/../admin/users",
            "/admin//users",
            "/%2e/admin",
            "/admin?x",
        ] {
            let answer = gateway.send(via, get(sent)).await;
            assert_eq!(
                answer.verdict(),
                refused(404, "route_closed"),
                "{via:?} {sent}"
            );
        }
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn what_has_no_canonical_form_is_refused() {
    let (origin, gateway) = house().await;
    for via in Via::ALL {
        for sent in [
            "/files/x%2fy",
            "/files/x%5cy",
            "/x%00",
            "/x%252fy",
            "/%zz",
            "/%4",
            "/app/..;v=1/admin",
            "/app/.;a/b",
            "/%c0%ae%c0%ae/admin",
            "/x%0d%0a",
            "/x%7f",
            "/%ff",
            "/keep/x%5cy",
        ] {
            let answer = gateway.send(via, get(sent)).await;
            assert_eq!(
                answer.verdict(),
                refused(400, "bad_target"),
                "{via:?} {sent}"
            );
        }
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn raw_targets_that_no_client_builds_are_refused() {
    let (origin, gateway) = house().await;
    for (line, status) in [
        ("GET /a\\b HTTP/1.1", "400"),
        ("GET \\admin HTTP/1.1", "400"),
        ("GET admin HTTP/1.1", "400"),
        ("GET ! HTTP/1.1", "400"),
        ("GET * HTTP/1.1", "400"),
        ("OPTIONS * HTTP/1.1", "400"),
        ("GET /a\u{e4} HTTP/1.1", "400"),
        ("GET /a\u{1} HTTP/1.1", "400"),
        ("GET ftp://test.example/ HTTP/1.1", "400"),
        ("CONNECT test.example:443 HTTP/1.1", "40"),
        ("TRACE / HTTP/1.1", "405"),
    ] {
        let mut dialogue = raw::open(gateway.at("plain")).await;
        dialogue
            .send(format!(
                "{line}\r\nhost: test.example\r\nconnection: close\r\n\r\n"
            ))
            .await;
        let answer = String::from_utf8_lossy(&dialogue.until_closed().await).into_owned();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{line}: {answer}"
        );
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn absolute_form_is_read_like_origin_form() {
    let (origin, gateway) = house().await;
    let mut dialogue = raw::open(gateway.at("plain")).await;
    dialogue
        .send("GET http://test.example/a/../b?q HTTP/1.1\r\nhost: test.example\r\nconnection: close\r\n\r\n")
        .await;
    let answer = dialogue.until_closed().await;
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(origin.only().target, "/b?q");
}

#[tokio::test]
async fn hosts_are_canonical_and_one() {
    let origin = origin::http().run().await;
    let gateway = conf("[[route]]\nhost = \"test.example\"\nauth = \"none\"\nupstream = \"api\"")
        .upstream("api", &origin)
        .run()
        .await;
    for (host, arrives) in [
        ("test.example", "test.example"),
        ("TEST.Example", "test.example"),
        ("test.example.", "test.example"),
        ("test.example:8443", "test.example:8443"),
    ] {
        let answer = gateway.ask(get("/").host(host)).await;
        assert_eq!(answer.status, 200, "{host}");
        let seen = origin.last();
        assert_eq!(
            (seen.authority.as_str(), seen.header("x-forwarded-host")),
            (arrives, arrives)
        );
    }
    let before = origin.heads();
    for host in [
        "a b",
        "test.example:",
        "test.example:x",
        "test.example:0",
        "user@test.example",
        "test..example",
        "[::1",
        "",
    ] {
        let mut dialogue = raw::open(gateway.at("plain")).await;
        dialogue
            .send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        let answer = String::from_utf8_lossy(&dialogue.until_closed().await).into_owned();
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("bad_host"),
            "{host:?}: {answer}"
        );
    }
    for fields in [
        "",
        "host: test.example\r\nhost: test.example\r\n",
        "host: test.example\r\nhost: other.example\r\n",
    ] {
        let mut dialogue = raw::open(gateway.at("plain")).await;
        dialogue
            .send(format!("GET / HTTP/1.1\r\n{fields}\r\n"))
            .await;
        let answer = String::from_utf8_lossy(&dialogue.until_closed().await).into_owned();
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("bad_host"),
            "{fields:?}: {answer}"
        );
    }
    let mut dialogue = raw::open(gateway.at("plain")).await;
    dialogue
        .send("GET http://other.example/ HTTP/1.1\r\nhost: test.example\r\n\r\n")
        .await;
    let answer = String::from_utf8_lossy(&dialogue.until_closed().await).into_owned();
    assert!(answer.contains("bad_host"), "{answer}");
    assert_eq!(origin.heads(), before);
}

/// Behaviour 0.3: h2 hands all of these on.
#[tokio::test]
async fn oddities_of_http2_are_refused_before_routing() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    let connection = tokio::net::TcpStream::connect(gateway.at("plain"))
        .await
        .unwrap();
    let (mut sender, driver) = h2::client::handshake(connection).await.unwrap();
    tokio::spawn(driver);
    for (method, uri, host, code) in [
        (
            "GET",
            "http://test.example/",
            Some("other.example"),
            "bad_host",
        ),
        ("GET", "http://user:pw@test.example/", None, "bad_host"),
        ("GET", "ftp://test.example/", None, "bad_target"),
        ("get", "http://test.example/", None, "bad_method"),
        ("GET", "http://test.example/x%5cy", None, "bad_target"),
    ] {
        let request = http::Request::builder().method(method).uri(uri);
        let request = match host {
            Some(host) => request.header("host", host),
            None => request,
        };
        let (response, _) = sender
            .send_request(request.body(()).unwrap(), true)
            .unwrap();
        let (parts, mut body) = response.await.unwrap().into_parts();
        let text = body.data().await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(
            text.contains(code),
            "{method} {uri}: {} {text}",
            parts.status
        );
    }
    let two = http::Request::builder()
        .uri("http://test.example/")
        .header("host", "test.example")
        .header("host", "test.example");
    let (response, _) = sender.send_request(two.body(()).unwrap(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 400);
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn heads_beyond_the_caps_are_refused() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    for via in Via::ALL {
        let long = format!("/{}", "a".repeat(8 * 1024));
        let answer = gateway.send(via, get(&long)).await;
        assert_eq!(answer.verdict(), refused(414, "target_too_long"), "{via:?}");

        // The parser refuses some of these before a request exists; a status is what it owes.
        let many = (0..110).fold(get("/"), |call, n| call.header(&format!("x-{n}"), "1"));
        assert_eq!(gateway.send(via, many).await.status, 431, "{via:?}");
        let large = (0..5).fold(get("/"), |call, n| {
            call.header(&format!("x-{n}"), &"v".repeat(7 * 1024))
        });
        assert_eq!(gateway.send(via, large).await.status, 431, "{via:?}");
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn too_many_fields_have_a_code_of_their_own() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).listen("max_fields = 20").run().await;
    for via in Via::ALL {
        let many = |count| (0..count).fold(get("/"), |call, n| call.header(&format!("x-{n}"), "1"));
        let answer = gateway.send(via, many(21)).await;
        assert_eq!(answer.status, 431, "{via:?}");
        if via.is_h2() {
            assert_eq!(answer.code(), "too_many_fields");
        }
        assert_eq!(gateway.send(via, many(15)).await.status, 200, "{via:?}");
    }
    assert_eq!(origin.heads(), 4);
}

#[tokio::test]
async fn a_head_just_too_large_has_its_own_code() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).listen("max_head = \"2KiB\"").run().await;
    let answer = gateway
        .ask(get("/").header("x-large", &"v".repeat(2_000)))
        .await;
    assert_eq!(answer.verdict(), refused(431, "head_too_large"));
    assert_eq!(
        gateway
            .ask(get("/").header("x-large", &"v".repeat(1_500)))
            .await
            .status,
        200
    );
    assert_eq!(origin.heads(), 1);
}

#[tokio::test]
async fn methods_are_case_sensitive_and_listed() {
    let origin = origin::http().run().await;
    let gateway = conf(
        r#"
        [[route]]
        auth = "none"
        upstream = "api"
        [[route]]
        path = "/dav"
        methods = ["PROPFIND"]
        auth = "none"
        upstream = "api"
    "#,
    )
    .upstream("api", &origin)
    .run()
    .await;
    assert_eq!(gateway.ask(call("PROPFIND", "/dav")).await.status, 200);
    let misspelt = gateway.ask(call("get", "/")).await;
    assert_eq!(misspelt.verdict(), refused(400, "bad_method"));
    for method in ["PROPFIND", "BREW", "TRACE"] {
        let answer = gateway.ask(call(method, "/")).await;
        assert_eq!(answer.verdict(), refused(405, "method_refused"), "{method}");
    }
    assert_eq!(origin.heads(), 1);
}
