//! How often, from where, how much: limits, networks, sizes, hosts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::start;
use crate::backends::servers::zitadel::HOST;
use crate::backends::wire::{EMPTY_FRAME, grpc, grpc_status, json, web, web_status};
use crate::support::body;
use crate::support::client::{self, Told, Via, call, get, post, refused};
use crate::support::raw;

/// L4: passwords by API, by RPC and by page share one budget, and nothing else is hurt by it.
#[tokio::test]
async fn guesses_end_in_429_while_siblings_answer() {
    let zitadel = start().await;
    let guess = || {
        json(
            "/v2/sessions",
            r#"{"checks":{"password":{"password":"guess"}}}"#,
        )
    };
    for _ in 0..10 {
        assert_eq!(zitadel.ask(Via::TlsH2, guess()).await.status, 401);
    }
    let limited = zitadel.ask(Via::TlsH2, guess()).await;
    assert_eq!(limited.verdict(), refused(429, "rate_limited"));
    let wait: u64 = limited.header("retry-after").parse().unwrap();
    assert!((290..=300).contains(&wait), "{wait}: the ban");

    for way_around in [
        json("/v2beta/sessions", "{}"),
        json("/api/v2/sessions", "{}"),
        call("PATCH", "/v2/sessions/271"),
        post("/v2/users/271/password", ""),
        post("/v2/users/271/totp/verify", ""),
        post("/ui/v2/login/password", ""),
        post("/ui/login/password", ""),
        get("/ui/login/password/reset"),
        json("/zitadel.session.v2.SessionService/SetSession", "{}"),
        json("/zitadel.user.v2.UserService/PasswordReset", "{}"),
    ] {
        let asked = format!("{way_around:?}");
        let answer = zitadel.ask(Via::H1, way_around).await;
        assert_eq!(answer.status, 429, "{asked}");
    }
    let native = grpc("/zitadel.session.v2.SessionService/CreateSession");
    assert_eq!(grpc_status(&zitadel.ask(Via::H2c, native).await), Some(8));

    for sibling in [
        get("/ui/v2/login/loginname"),
        get("/auth/v1/healthz"),
        json("/v2/sessions/search", "{}"),
        json("/oauth/v2/introspect", ""),
    ] {
        let answer = zitadel.ask(Via::TlsH2, sibling).await;
        assert_ne!(answer.status, 429);
    }
    assert_eq!(
        zitadel
            .login
            .saw()
            .iter()
            .filter(|seen| seen.method == "POST")
            .count(),
        0
    );
}

/// H15: one customer has more IPv6 addresses than there are guesses.
#[tokio::test]
async fn a_network_of_64_bits_is_one_guesser() {
    let zitadel = start().await;
    let guess = |address: String| {
        let site = &zitadel.site;
        async move {
            site.ask_from(&address, json("/v2/sessions", "{}"))
                .await
                .status
        }
    };
    for host in 0..10 {
        assert_eq!(guess(format!("2001:db8:0:1::{host}")).await, 401);
    }
    assert_eq!(guess("2001:db8:0:1:ffff::1".to_owned()).await, 429);
    assert_eq!(guess("2001:db8:0:2::1".to_owned()).await, 401);
    assert_eq!(guess("192.0.2.1".to_owned()).await, 401);
}

#[tokio::test]
async fn the_console_and_the_instance_are_administered_from_inside() {
    let zitadel = start().await;
    for path in [
        "/ui/console/",
        "/admin/v1/orgs",
        "/api/v2/users",
        "/api/admin/v1/healthz",
    ] {
        let outside = zitadel.site.ask_from("203.0.113.9", get(path)).await;
        assert_eq!(
            outside.verdict(),
            refused(403, "network_forbidden"),
            "{path}"
        );
    }
    let service = "/zitadel.admin.v1.AdminService";
    let orgs = json(&format!("{service}/ListOrgs"), "{}");
    assert_eq!(zitadel.site.ask_from("203.0.113.9", orgs).await.status, 403);
    for open in [
        "/admin/v1/healthz",
        "/ui/v2/login/loginname",
        "/.well-known/openid-configuration",
    ] {
        assert_eq!(
            zitadel.site.ask_from("203.0.113.9", get(open)).await.status,
            200,
            "{open}"
        );
    }
    let health = web(
        "application/grpc-web+proto",
        &format!("{service}/Healthz"),
        EMPTY_FRAME,
    );
    assert_eq!(
        web_status(&zitadel.site.ask_from("203.0.113.9", health).await),
        Some(0)
    );
    let inside = zitadel
        .site
        .ask_from("10.1.2.3", get("/admin/v1/orgs"))
        .await;
    assert_eq!(inside.at("/code"), 16, "ZITADEL's own answer");
}

#[tokio::test]
async fn bodies_are_capped_by_what_they_are_for() {
    let zitadel = start().await;
    for (path, most) in [
        ("/oauth/v2/token", 64 << 10),
        ("/v2/sessions", 64 << 10),
        ("/ui/v2/login/password", 256 << 10),
        ("/v2/users/human", 4 << 20),
        ("/assets/v1/org/logo", 5 << 20),
    ] {
        let (_unsent, payload) = body::channel();
        let length = (most + 1).to_string();
        let call = call("POST", path)
            .header("content-length", &length)
            .body(payload);
        let answer = zitadel.ask(Via::TlsH2, call).await;
        assert_eq!(answer.status, 413, "{path}");
        if path == "/oauth/v2/token" {
            assert_eq!(answer.at("/error"), "invalid_request", "as OAuth has it");
        } else {
            assert_eq!(answer.code(), "body_too_large", "{path}");
        }
    }
}

#[tokio::test]
async fn hosts_that_are_not_ours_end_at_the_edge() {
    let zitadel = start().await;
    for host in [
        "other.example.com",
        "zitadel",
        "10.0.0.5",
        "auth.example.com.evil.invalid",
    ] {
        let call = get("/.well-known/openid-configuration?mark");
        let answer = zitadel.site.ask_at(host, Via::H1, call).await;
        assert_eq!(answer.verdict(), refused(404, "no_route"), "{host}");
    }
    assert!(zitadel.api_saw("mark").is_empty());
}

#[tokio::test]
async fn an_upgrade_to_h2c_never_reaches_the_api() {
    let zitadel = start().await;
    let mut dialogue = raw::open(zitadel.site.gateway.address(Via::H1)).await;
    dialogue
        .send(format!(
            "GET /auth/v1/healthz?mark HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
        ))
        .await;
    let answer = dialogue.answer().await;
    assert!(!answer.starts_with("HTTP/1.1 101"), "{answer}");
    for seen in zitadel.api_saw("mark") {
        assert!(
            !seen.has("upgrade") && !seen.has("http2-settings"),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn plain_http_is_sent_to_https() {
    let zitadel = start().await;
    let mut client = client::connect(zitadel.site.gateway.at("redirect"), Via::H1).await;
    let answer = client.send(get("/ui/console/?a=b").host(HOST)).await;
    assert_eq!(answer.status, 308);
    assert_eq!(
        answer.header("location"),
        format!("https://{HOST}/ui/console/?a=b")
    );
}

/// One account, by REST and by Connect, from anywhere; and nobody else is hurt by it.
#[tokio::test]
async fn an_account_is_guessed_so_often_from_anywhere() {
    let zitadel = start().await;
    let site = &zitadel.site;
    let guess = |path: &str, name: &str| {
        json(
            path,
            &format!(
                r#"{{"checks":{{"user":{{"loginName":"{name}"}},"password":{{"password":"guess"}}}}}}"#
            ),
        )
    };
    let paths = [
        "/v2/sessions",
        "/zitadel.session.v2.SessionService/CreateSession",
    ];
    for host in 0..10 {
        let address = format!("192.0.2.{host}");
        let call = guess(paths[host % 2], "Ada@example.com");
        assert_eq!(site.ask_from(&address, call).await.status, 401);
    }
    for path in paths {
        let limited = site
            .ask_from("192.0.2.99", guess(path, "ada@example.com"))
            .await;
        assert_eq!(limited.status, 429);
        assert!(limited.header("ratelimit").starts_with("\"account\""));
    }
    let other = site
        .ask_from("192.0.2.99", guess(paths[0], "grace@example.com"))
        .await;
    assert_eq!(other.status, 401);
}

/// Login v1 names the account on its first page, and answers 200 whatever is tried: every request counts.
#[tokio::test]
async fn a_login_name_is_tried_so_often_from_anywhere() {
    let zitadel = start().await;
    let site = &zitadel.site;
    let name = |name: &str| {
        post("/ui/login/loginname", format!("loginName={name}"))
            .header("content-type", "application/x-www-form-urlencoded")
    };
    for host in 0..10 {
        let answer = site.ask_from(&format!("192.0.2.{host}"), name("ada")).await;
        assert_eq!(answer.status, 200);
    }
    let limited = site.ask_from("192.0.2.99", name("ADA")).await;
    assert_eq!(limited.at("/policy"), "login-name");
    assert_eq!(site.ask_from("192.0.2.99", name("grace")).await.status, 200);
}

/// Mails and messages to one user, and from one network.
#[tokio::test]
async fn a_mailbox_cannot_be_bombed() {
    let zitadel = start().await;
    let site = &zitadel.site;
    let send = |user: &str| {
        let body = format!(r#"{{"userId":"{user}"}}"#);
        json("/zitadel.user.v2.UserService/PasswordReset", &body)
    };
    for host in 0..5 {
        let answer = site.ask_from(&format!("192.0.2.{host}"), send("271")).await;
        assert_eq!(answer.status, 401);
    }
    let limited = site.ask_from("192.0.2.99", send("271")).await;
    assert_eq!(limited.status, 429);
    assert!(limited.header("ratelimit").starts_with("\"mail-user\""));
    assert_eq!(site.ask_from("192.0.2.99", send("272")).await.status, 401);
    for user in 0..5 {
        let path = format!("/v2/users/{user}/email/resend");
        assert_eq!(
            site.ask_from("198.51.100.1", json(&path, "{}"))
                .await
                .status,
            401
        );
    }
    let limited = site
        .ask_from("198.51.100.1", json("/v2/users/9/email/send", "{}"))
        .await;
    assert_eq!(limited.at("/policy"), "mail");
}

/// Secrets of one client from anywhere, user codes from one network; OAuth clients understand the refusal.
#[tokio::test]
async fn client_secrets_and_user_codes_are_guessed_so_often() {
    let zitadel = start().await;
    let site = &zitadel.site;
    let form = |path: &str, body: String| {
        post(path, body).header("content-type", "application/x-www-form-urlencoded")
    };
    let token = |client: &str| {
        let basic = STANDARD.encode(format!("{client}:guess"));
        form(
            "/oauth/v2/token",
            "grant_type=client_credentials".to_owned(),
        )
        .header("authorization", &format!("Basic {basic}"))
    };
    for host in 0..30 {
        let answer = site
            .ask_from(&format!("192.0.2.{host}"), token("shop"))
            .await;
        assert_eq!(answer.at("/error"), "invalid_client");
    }
    let limited = site.ask_from("192.0.2.99", token("shop")).await;
    assert_eq!(
        (limited.status.as_u16(), limited.at("/error")),
        (429, "temporarily_unavailable".into())
    );
    assert!(limited.header("ratelimit").starts_with("\"client\""));
    assert_eq!(
        site.ask_from("192.0.2.99", token("other")).await.status,
        401
    );

    let public = || {
        form(
            "/oauth/v2/token",
            "grant_type=refresh_token&client_id=app".to_owned(),
        )
    };
    for _ in 0..20 {
        assert_eq!(site.ask_from("198.51.100.1", public()).await.status, 401);
    }
    let limited = site.ask_from("198.51.100.1", public()).await;
    assert!(limited.header("ratelimit").starts_with("\"client-form\""));
    assert_eq!(
        site.ask_from("198.51.100.2", public()).await.status,
        401,
        "another user of it"
    );

    let code = |code: usize| form("/device", format!("user_code=ABCD-{code:04}"));
    for number in 0..10 {
        assert_ne!(site.ask_from("203.0.113.1", code(number)).await.status, 429);
    }
    assert_eq!(
        site.ask_from("203.0.113.1", code(10)).await.at("/policy"),
        "device"
    );
    assert_ne!(
        site.ask_from("203.0.113.1", code(3)).await.status,
        429,
        "a code once more"
    );
}
