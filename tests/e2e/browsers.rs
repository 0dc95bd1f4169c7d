//! What browsers heed: security headers where nobody has said them, and cookies no weaker than their connection.

use crate::matrix;
use crate::support::client::{Answer, Told, Via, get, post, refused};
use crate::support::gateway::conf;
use crate::support::origin::{self, Reply};

fn cookies(answer: &Answer) -> Vec<&str> {
    let set = answer.headers.get_all("set-cookie").iter();
    set.map(|value| value.to_str().unwrap()).collect()
}

fn setting() -> Reply {
    Reply::text("hello")
        .header("set-cookie", "at=1; Path=/v1; HttpOnly")
        .header("set-cookie", "csrf=2; Domain=a.test; SameSite=Strict")
        .header("set-cookie", "__Host-id=3; Path=/")
}

matrix! {
    /// By default, and over TLS alone: a browser would not take it over http.
    async fn cookies_get_secure_over_tls(via, speaks) {
        let origin = origin::speaking(speaks).reply(setting()).run().await;
        let gateway = crate::support::gateway::open_to(&origin).run().await;
        let answer = gateway.send(via, get("/")).await;
        let expected = if via.is_tls() {
            ["at=1; Path=/v1; HttpOnly; Secure", "csrf=2; Domain=a.test; SameSite=Strict; Secure", "__Host-id=3; Path=/"]
        } else {
            ["at=1; Path=/v1; HttpOnly", "csrf=2; Domain=a.test; SameSite=Strict", "__Host-id=3; Path=/"]
        };
        assert_eq!(cookies(&answer), expected);
    }
}

#[tokio::test]
async fn cookies_get_what_the_route_says() {
    let origin = origin::http().reply(setting()).run().await;
    let gateway = conf(
        r#"
        [[route]]
        path = "/off"
        auth = "none"
        upstream = "api"
        cookies = { secure = false }
        [[route]]
        path = "/on"
        auth = "none"
        upstream = "api"
        cookies = { http_only = ["csrf"], same_site = "lax" }
    "#,
    )
    .listen("trusted_proxies = [\"127.0.0.1/32\"]")
    .upstream("api", &origin)
    .run()
    .await;
    let answer = gateway.send(Via::TlsH2, get("/off")).await;
    assert_eq!(cookies(&answer)[0], "at=1; Path=/v1; HttpOnly");
    let strong = [
        "at=1; Path=/v1; HttpOnly; Secure; SameSite=Lax",
        "csrf=2; Domain=a.test; SameSite=Strict; Secure; HttpOnly",
        "__Host-id=3; Path=/",
    ];
    let answer = gateway.send(Via::TlsH1, get("/on")).await;
    assert_eq!(cookies(&answer), strong);
    // A proxy in front that is trusted has ended the TLS.
    let behind = get("/on").header("x-forwarded-for", "203.0.113.7");
    let behind = behind.header("x-forwarded-proto", "https");
    assert_eq!(cookies(&gateway.ask(behind).await), strong);
}

const SECURITY: [&str; 4] = [
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
];

fn said(answer: &Answer) -> [&str; 4] {
    SECURITY.map(|name| answer.header(name))
}

matrix! {
    async fn security_headers_are_one_switch(via, speaks) {
        let reply = Reply::text("hello").header("referrer-policy", "no-referrer");
        let origin = origin::speaking(speaks).reply(reply).run().await;
        let gateway = conf(r#"
            [[route]]
            path = "/on"
            auth = "none"
            upstream = "api"
            security_headers = true
            headers.response.default = { x-frame-options = "DENY" }
            [[route]]
            path = "/off"
            auth = "none"
            upstream = "api"
            [[route]]
            path = "/closed"
            from = ["192.0.2.0/24"]
            auth = "none"
            upstream = "api"
            security_headers = true
        "#).upstream("api", &origin).run().await;
        let mut client = gateway.connect(via).await;
        let hsts = if via.is_tls() { "max-age=63072000" } else { "" };
        let answer = client.send(get("/on")).await;
        assert_eq!(said(&answer), [hsts, "nosniff", "DENY", "no-referrer"]);
        assert_eq!(said(&client.send(get("/off")).await), ["", "", "", "no-referrer"]);
        // Refusals are shown by browsers as well; calls of gRPC are not.
        let refusal = client.send(get("/closed")).await;
        assert_eq!(refusal.verdict(), refused(403, "network_forbidden"));
        assert_eq!(said(&refusal), [hsts, "nosniff", "SAMEORIGIN", "strict-origin-when-cross-origin"]);
        let call = post("/closed", "").header("content-type", "application/grpc");
        assert_eq!(said(&client.send(call).await), [""; 4]);
    }
}

#[test]
fn cookies_that_cannot_be_are_found_at_load() {
    let gateway = conf(
        "[[route]]\nauth = \"none\"\nrespond = { status = 200 }\ncookies = { http_only = [\"a b\", \"*\"] }",
    );
    let why = gateway.try_run().unwrap_err().to_string();
    assert!(why.contains("`a b` is no name of a cookie"), "{why}");
    assert!(why.contains("`*` stands alone"), "{why}");
}
