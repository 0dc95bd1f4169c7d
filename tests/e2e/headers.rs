//! What headers survive the way: identity, hop-by-hop, forwarding headers, edits.

use crate::matrix;
use crate::support::client::{Told, Via, get, post, refused};
use crate::support::gateway::{conf, open_to};
use crate::support::origin::{self, Reply, Speaks};
use crate::support::{issuer, raw};

/// Every spelling that some backend reads as `x-auth-user`, `x-user-id` or a cousin.
const SPOOFS: &[&str] = &[
    "x-auth-user",
    "X-Auth-User",
    "x_auth_user",
    "x-auth_user",
    "x.auth.user",
    "X_AUTH-USER",
    "x-auth-org",
    "x-auth-roles",
    "x-auth-email",
    "x-auth-method",
    "x-auth-anything",
    "x-user-id",
    "X-USER-ID",
    "x_user_id",
    "x-user-roles",
    "x-vestibule-user",
    "remote-user",
    "remote_user",
    "x-remote-user",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-authenticated-user",
    "any_underscore",
];

matrix! {
    async fn no_identity_of_the_clients_making_arrives(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = open_to(&origin).run().await;

        let call = SPOOFS.iter().fold(get("/"), |call, name| call.header(name, "root").header(name, "admin"));
        let answer = gateway.send(via, call.header("x-authority", "kept").header("x-users", "kept")).await;

        assert_eq!(answer.status, 200);
        let seen = origin.only();
        for (name, value) in &seen.headers {
            assert!(value != "root" && value != "admin", "{name}: {value}");
        }
        assert_eq!((seen.header("x-authority"), seen.header("x-users")), ("kept", "kept"));
    }
}

matrix! {
    async fn hop_by_hop_fields_end_here(via, speaks) {
        let reply = Reply::text("hello")
            .header("x-listed", "secret").header("keep-alive", "timeout=5").header("proxy-authenticate", "Basic");
        let reply = if speaks.is_h2() { reply } else { reply.header("connection", "x-listed") };
        let origin = origin::speaking(speaks).reply(reply).run().await;
        let gateway = open_to(&origin).run().await;

        let call = get("/")
            .header("proxy-authorization", "Basic YTpi").header("proxy", "http://evil").header("te", "trailers")
            .header("x-hop", "1").header("x-kept", "1");
        let call = if via.is_h2() { call } else {
            call.header("connection", "x-hop, keep-alive").header("keep-alive", "timeout=5").header("proxy-connection", "keep-alive")
        };
        let answer = gateway.send(via, call).await;

        assert_eq!(answer.status, 200);
        let seen = origin.only();
        for name in ["proxy-authorization", "proxy", "te", "keep-alive", "proxy-connection", "upgrade"] {
            assert!(!seen.has(name), "{name}: {:?}", seen.all(name));
        }
        assert_eq!(seen.has("x-hop"), via.is_h2());
        assert_eq!(seen.header("x-kept"), "1");
        assert!(!answer.headers.contains_key("keep-alive") && !answer.headers.contains_key("proxy-authenticate"));
        assert_eq!(answer.headers.contains_key("x-listed"), speaks.is_h2());
    }
}

matrix! {
    async fn forwarding_headers_are_written_anew(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = open_to(&origin).run().await;

        let lies = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-real-ip",
            "forwarded", "x-forwarded", "x-forwarded-prefix", "x-original-url", "x-original-host", "x-rewrite-url",
            "x-http-method-override", "x-envoy-original-path", "x-envoy-external-address", "true-client-ip",
            "cf-connecting-ip", "x-client-ip", "x-zitadel-instance-host", "x-zitadel-public-host"];
        let call = lies.iter().fold(get("/"), |call, name| call.header(name, "6.6.6.6"));
        let answer = gateway.send(via, call).await;

        assert_eq!(answer.status, 200);
        let seen = origin.only();
        assert!(seen.headers.iter().all(|(_, value)| !value.contains("6.6.6.6")), "{seen:#?}");
        assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
        assert_eq!(seen.header("x-real-ip"), "127.0.0.1");
        assert_eq!(seen.header("x-forwarded-proto"), via.scheme());
        assert_eq!(seen.header("x-forwarded-host"), "test.example");
        assert_eq!(seen.header("x-forwarded-port"), if via.is_tls() { "443" } else { "80" });
    }
}

#[tokio::test]
async fn connection_cannot_remove_what_the_gateway_adds() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = conf("[[route]]\nauth = { any = [\"main\"] }\nupstream = \"api\"")
        .issuer(&issuer)
        .upstream("api", &origin)
        .run()
        .await;
    gateway.ready().await;

    let listed = "x-auth-user, x-forwarded-for, x-forwarded-proto, x-real-ip, x-request-id, host, authorization";
    let call = get("/")
        .header("connection", listed)
        .header("x-auth-user", "root");
    let answer = gateway.ask(call.bearer(&issuer.token().sign())).await;

    assert_eq!(answer.status, 200);
    let seen = origin.only();
    assert_eq!(seen.header("x-auth-user"), "alice");
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen.header("x-request-id"), answer.header("x-request-id"));
    assert!(!seen.has("connection"));
}

#[tokio::test]
async fn identity_headers_say_what_the_token_says() {
    let issuer = issuer::run().await;
    let origin = origin::h2c().run().await;
    let gateway = conf(
        r#"
        [[route]]
        path = "/usual"
        auth = { any = ["main"] }
        upstream = "api"
        [[route]]
        path = "/own"
        auth = { any = ["main"] }
        upstream = "api"
        identity_headers = { remote-id = "claim:sub", x-team = "claim:team.name" }
    "#,
    )
    .issuer(&issuer)
    .upstream("api", &origin)
    .run()
    .await;
    gateway.ready().await;
    let token = issuer
        .token()
        .claim("org", "acme")
        .claim("roles", serde_json::json!(["reader", "writer"]))
        .claim("email", "a@example.com")
        .claim("team", serde_json::json!({ "name": "blue" }))
        .sign();

    assert_eq!(gateway.ask(get("/usual").bearer(&token)).await.status, 200);
    let seen = origin.last();
    let told = ["x-auth-user", "x-auth-org", "x-auth-roles", "x-auth-email"]
        .map(|name| seen.header(name).to_owned());
    assert_eq!(told, ["alice", "acme", "reader,writer", "a@example.com"]);
    assert!(seen.has("x-auth-method") && !seen.has("remote-id"));

    let spoofed = get("/own")
        .bearer(&token)
        .header("remote-id", "root")
        .header("Remote_Id", "root")
        .header("x-team", "red");
    assert_eq!(gateway.ask(spoofed).await.status, 200);
    let seen = origin.last();
    assert_eq!(
        (seen.header("remote-id"), seen.header("x-team")),
        ("alice", "blue")
    );
    assert!(!seen.has("x-auth-user"));

    // What one route writes no other route lets in.
    let spoofed = get("/usual")
        .bearer(&token)
        .header("remote.id", "root")
        .header("x-team", "red");
    assert_eq!(gateway.ask(spoofed).await.status, 200);
    let seen = origin.last();
    assert!(!seen.has("remote.id") && !seen.has("x-team"));
}

#[tokio::test]
async fn an_identity_that_cannot_be_sent_safely_is_refused() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = conf("[[route]]\nauth = { any = [\"main\"] }\nupstream = \"api\"")
        .issuer(&issuer)
        .upstream("api", &origin)
        .run()
        .await;
    gateway.ready().await;

    for user in ["a\r\nx-auth-roles: admin", "a\u{0}", " padded "] {
        let answer = gateway
            .ask(get("/").bearer(&issuer.token().claim("sub", user).sign()))
            .await;
        assert!(
            answer.status.is_client_error(),
            "{user:?}: {}",
            answer.text()
        );
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_trusted_proxy_tells_who_the_client_is() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin)
        .listen("trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]")
        .run()
        .await;

    for (name, value, client) in [
        ("x-forwarded-for", "203.0.113.7", "203.0.113.7"),
        (
            "x-forwarded-for",
            "1.1.1.1, 203.0.113.7, 10.0.0.9",
            "203.0.113.7",
        ),
        ("x-forwarded-for", "2001:db8::7", "2001:db8::7"),
        (
            "forwarded",
            "for=1.1.1.1, for=203.0.113.7;proto=https",
            "203.0.113.7",
        ),
    ] {
        let answer = gateway
            .ask(
                get("/")
                    .header(name, value)
                    .header("x-forwarded-host", "evil.example"),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = origin.last();
        assert_eq!(seen.header("x-forwarded-for"), client, "{value}");
        assert_eq!(seen.header("x-real-ip"), client);
        assert_eq!(seen.header("x-forwarded-host"), "test.example");
        assert!(!seen.has("forwarded"));
    }
    let answer = gateway
        .ask(
            get("/")
                .header("x-forwarded-for", "203.0.113.7")
                .header("x-forwarded-proto", "https"),
        )
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(origin.last().header("x-forwarded-proto"), "https");

    let before = origin.heads();
    for (name, value) in [
        ("x-forwarded-for", "not an address"),
        ("x-forwarded-for", "203.0.113.7, _hidden"),
        ("x-forwarded-proto", "gopher"),
        ("forwarded", "for="),
    ] {
        let answer = gateway.ask(get("/").header(name, value)).await;
        assert_eq!(
            answer.verdict(),
            refused(400, "bad_forwarding"),
            "{name}: {value}"
        );
    }
    assert_eq!(origin.heads(), before);
}

#[tokio::test]
async fn edits_remove_set_and_default_in_this_order() {
    let reply = Reply::text("hello")
        .header("server", "origin/1")
        .header("x-frame-options", "ALLOW");
    let origin = origin::http().reply(reply).run().await;
    let gateway = conf(r#"
        [[route]]
        auth = "none"
        upstream = "api"
        headers.request = { remove = ["x-debug"], set = { x-tier = "gold" }, default = { x-lang = "en" } }
        headers.response = { remove = ["server"], set = { x-frame-options = "DENY" }, default = { x-new = "1" } }
    "#)
    .upstream("api", &origin)
    .run()
    .await;

    let answer = gateway
        .ask(
            get("/")
                .header("x-debug", "1")
                .header("x-tier", "bronze")
                .header("x-lang", "de"),
        )
        .await;
    let seen = origin.only();
    assert_eq!(
        (seen.header("x-tier"), seen.header("x-lang")),
        ("gold", "de")
    );
    assert!(!seen.has("x-debug"));
    assert!(!answer.headers.contains_key("server"));
    assert_eq!(
        (answer.header("x-frame-options"), answer.header("x-new")),
        ("DENY", "1")
    );
}

#[tokio::test]
async fn refusals_are_dressed_like_answers() {
    let origin = origin::http().run().await;
    let gateway = conf(
        r#"
        [[route]]
        methods = ["GET"]
        auth = "deny"
        headers.response = { set = { strict-transport-security = "max-age=1" } }
    "#,
    )
    .upstream("api", &origin)
    .run()
    .await;
    let answer = gateway.ask(get("/")).await;
    assert_eq!(answer.verdict(), refused(404, "route_closed"));
    assert_eq!(answer.header("strict-transport-security"), "max-age=1");
    assert_eq!(answer.at("/decision"), answer.header("x-request-id"));
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn te_trailers_passes_for_grpc_only() {
    let origin = origin::h2c().run().await;
    let gateway = open_to(&origin).run().await;
    let call = post("/s.S/M", "").header("te", "trailers");
    gateway
        .send(Via::H2c, call.header("content-type", "application/grpc"))
        .await;
    assert_eq!(origin.last().header("te"), "trailers");
    gateway
        .send(Via::H2c, post("/", "").header("te", "trailers"))
        .await;
    assert!(!origin.last().has("te"));
}

#[tokio::test]
async fn expectations_are_met_or_refused() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;

    let mut dialogue = raw::open(gateway.at("plain")).await;
    dialogue
        .send("POST / HTTP/1.1\r\nhost: test.example\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        .await;
    let interim = dialogue.until("\r\n\r\n").await;
    assert!(
        interim.starts_with(b"HTTP/1.1 100"),
        "{}",
        String::from_utf8_lossy(&interim)
    );
    assert!(
        dialogue
            .send("ok")
            .await
            .answer()
            .await
            .starts_with("HTTP/1.1 200")
    );
    let seen = origin.only();
    assert_eq!(seen.text(), "ok");
    assert!(!seen.has("expect"));

    let answer = gateway
        .ask(post("/", "x").header("expect", "a-miracle"))
        .await;
    assert_eq!(answer.verdict(), refused(417, "bad_expectation"));
    assert_eq!(origin.heads(), 1);
}

#[tokio::test]
async fn an_upgrade_that_no_route_lists_is_an_ordinary_request() {
    let origin = origin::speaking(Speaks::Http).run().await;
    let gateway = open_to(&origin).run().await;
    let call = get("/")
        .header("connection", "upgrade, http2-settings")
        .header("upgrade", "h2c");
    let answer = gateway
        .ask(call.header("http2-settings", "AAMAAABkAAQAAP__"))
        .await;
    assert_eq!(answer.status, 200);
    let seen = origin.only();
    assert!(!seen.has("upgrade") && !seen.has("http2-settings") && !seen.has("connection"));
}

matrix! {
    /// HTTP/2 may cut cookies into fields (RFC 9113 section 8.2.3); a backend must not see only the first.
    async fn cookies_arrive_as_one(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = open_to(&origin).run().await;
        let answer = gateway.send(via, get("/").header("cookie", "a=1").header("cookie", "b=2; c=3")).await;
        assert_eq!(answer.status, 200);
        let seen = origin.only();
        assert_eq!(seen.all("cookie").join("; "), "a=1; b=2; c=3");
        assert!(speaks.is_h2() || seen.all("cookie").len() == 1);
    }
}
