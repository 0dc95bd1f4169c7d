//! Which route a request finds: host, path, method, headers, gRPC service; and what finds none.

use crate::support::client::{Call, Told, Via, call, get, post, refused};
use crate::support::gateway::{Gateway, conf};
use crate::support::origin;

/// Every route answers with its own name.
async fn house() -> Gateway {
    let route = |name: &str, matcher: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\nauth = \"none\"\nrespond = {{ status = 200, body = \"{name}\" }}\n{matcher}\n"
        )
    };
    let routes = [
        route("exact", "host = \"a.test.example\"\npath = \"/v1/login\""),
        route(
            "login",
            "host = \"a.test.example\"\npath = \"/v1/login\"\nmethods = [\"POST\"]",
        ),
        route("prefix", "host = \"a.test.example\"\npath = \"/v1/*\""),
        route(
            "longer",
            "host = \"a.test.example\"\npath = \"/v1/users/*\"",
        ),
        route(
            "regex",
            "host = \"a.test.example\"\npath = \"~ ^/v1/users/[0-9]+$\"",
        ),
        route(
            "beta",
            "host = \"a.test.example\"\npath = \"/v1/*\"\nmatch_headers = { x-beta = \"1\" }",
        ),
        route("any-host", "path = \"/open/*\""),
        route("wild", "host = \"*.test.example\"\npath = \"/w/*\""),
        route(
            "service",
            "host = \"a.test.example\"\ngrpc = \"pkg.Service\"",
        ),
        route(
            "method",
            "host = \"a.test.example\"\ngrpc = \"pkg.Service/Call\"",
        ),
        route(
            "secure",
            "host = \"a.test.example\"\npath = \"/tls-only\"\nlisten = [\"secure\"]",
        ),
        route(
            "posts",
            "host = \"a.test.example\"\npath = \"/only-post\"\nmethods = [\"POST\"]",
        ),
    ];
    conf(&routes.concat()).run().await
}

async fn check(gateway: &Gateway, call: Call, expected: &str) {
    let text = format!("{call:?}");
    let answer = gateway.ask(call).await;
    assert_eq!(answer.text(), expected, "{text}");
}

#[tokio::test]
async fn the_most_specific_route_wins() {
    let gateway = house().await;
    let on = |call: Call| call.host("a.test.example");
    check(&gateway, on(get("/v1/login")), "exact").await;
    check(&gateway, on(post("/v1/login", "")), "login").await;
    check(&gateway, on(get("/v1/logins")), "prefix").await;
    check(&gateway, on(get("/v1")), "prefix").await;
    check(&gateway, on(get("/v1/users/x")), "longer").await;
    check(&gateway, on(get("/v1/other").header("x-beta", "1")), "beta").await;
    check(
        &gateway,
        on(get("/v1/other").header("x-beta", "2")),
        "prefix",
    )
    .await;
    check(&gateway, on(get("/open/x")), "any-host").await;
    check(&gateway, get("/open/x").host("elsewhere"), "any-host").await;
    check(&gateway, get("/w/x").host("b.test.example"), "wild").await;
    check(&gateway, on(post("/pkg.Service/Other", "")), "service").await;
    check(&gateway, on(post("/pkg.Service/Call", "")), "method").await;
}

#[tokio::test]
async fn what_matches_nothing_is_404() {
    let gateway = house().await;
    for call in [
        get("/v2").host("a.test.example"),
        get("/v1x").host("a.test.example"),
        get("/v1/login").host("b.test.example"),
        get("/w/x").host("a.b.test.example"),
        get("/w/x").host("test.example"),
        get("/tls-only").host("a.test.example"),
        post("/pkg.Services/Call", "").host("a.test.example"),
    ] {
        let text = format!("{call:?}");
        assert_eq!(
            gateway.ask(call).await.verdict(),
            refused(404, "no_route"),
            "{text}"
        );
    }
    let mut secure =
        crate::support::client::connect_as(gateway.at("secure"), Via::TlsH2, "a.test.example")
            .await;
    assert_eq!(
        secure
            .send(get("/tls-only").host("a.test.example"))
            .await
            .text(),
        "secure"
    );
}

#[tokio::test]
async fn a_wrong_method_is_405() {
    let gateway = house().await;
    let answer = gateway.ask(get("/only-post").host("a.test.example")).await;
    assert_eq!(answer.verdict(), refused(405, "method_refused"));
    let answer = gateway
        .ask(call("DELETE", "/only-post").host("a.test.example"))
        .await;
    assert_eq!(answer.verdict(), refused(405, "method_refused"));
}

#[tokio::test]
async fn every_caller_is_refused_in_its_own_dialect() {
    let gateway = house().await;
    let ask =
        |content_type: &'static str| post("/none.S/M", "").header("content-type", content_type);
    let via = Via::H2c;

    let answer = gateway.send(via, ask("application/grpc")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("grpc-status")),
        (200, "12")
    );
    assert!(
        answer.header("grpc-message").contains("no_route"),
        "{:?}",
        answer.headers
    );
    assert_eq!(answer.header("content-type"), "application/grpc");

    let answer = gateway.send(via, ask("application/grpc-web+proto")).await;
    assert_eq!((answer.status.as_u16(), answer.body[0]), (200, 0x80));
    assert!(
        answer.text().contains("grpc-status: 12\r\n"),
        "{}",
        answer.text()
    );

    let answer = gateway.send(via, ask("application/grpc-web-text")).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("content-type")
            .starts_with("application/grpc-web-text")
    );
    assert!(answer.body.iter().all(u8::is_ascii_graphic));

    let answer = gateway
        .send(
            via,
            ask("application/json").header("connect-protocol-version", "1"),
        )
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (501, "unimplemented")
    );

    let answer = gateway.send(via, ask("application/connect+proto")).await;
    assert_eq!((answer.status.as_u16(), answer.body[0]), (200, 0x02));

    let answer = gateway.send(via, ask("application/json")).await;
    assert_eq!(answer.verdict(), refused(404, "no_route"));
}

#[tokio::test]
async fn a_closed_route_is_closed_to_every_method_and_dialect() {
    let origin = origin::h2c().run().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\n[[route]]\npath = \"/internal/*\"\nauth = \"deny\"")
        .upstream("api", &origin)
        .run()
        .await;
    for method in ["GET", "POST", "DELETE", "HEAD", "OPTIONS"] {
        assert_eq!(
            gateway.ask(call(method, "/internal/x")).await.status,
            404,
            "{method}"
        );
    }
    let answer = gateway
        .send(
            Via::H2c,
            post("/internal/x", "").header("content-type", "application/grpc"),
        )
        .await;
    assert!(answer.header("grpc-message").contains("route_closed"));
    assert!(origin.saw_nothing());
}
