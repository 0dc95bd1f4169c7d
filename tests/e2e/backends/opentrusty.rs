//! `conf/examples/opentrusty.toml`: limits, networks and CORS that OpenTrusty's documentation promises and its code lacks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::servers::opentrusty::{self as server, ADMIN, ISSUER, USER, WRONG};
use super::wire::{forge, json};
use super::{Site, check, fitted, over_every_protocol};
use crate::support::client::{self, Answer, Call, Told, Via, call, get, post, refused};
use crate::support::gateway;
use crate::support::origin::{Origin, Seen};

const EXAMPLE: &str = include_str!("../../../conf/examples/opentrusty.toml");
const AUTH: &str = "auth.example.com";
const API: &str = "api.example.com";
const CONSOLE: &str = "https://console.example.com";
const OUTSIDE: &str = "203.0.113.9";

struct OpenTrusty {
    site: Site,
    backend: Origin,
}

fn conf(backend: &Origin) -> gateway::Builder {
    fitted(EXAMPLE, &[("http://opentrusty:8080", backend.endpoint())])
}

async fn start() -> OpenTrusty {
    let backend = server::start().await;
    let site = Site::open(AUTH, conf(&backend)).await;
    OpenTrusty { site, backend }
}

impl OpenTrusty {
    async fn ask(&self, via: Via, call: Call) -> Answer {
        self.site.ask(via, call).await
    }

    async fn ask_api(&self, via: Via, call: Call) -> Answer {
        self.site.ask_at(API, via, call).await
    }

    fn saw(&self, path: &str) -> Vec<Seen> {
        let seen = self.backend.saw().into_iter();
        seen.filter(|seen| seen.target.starts_with(path)).collect()
    }
}

fn login(body: &str) -> Call {
    json("/api/v1/auth/login", body).header("x-csrf-token", "any")
}

#[tokio::test]
async fn the_files_own_cases_pass() {
    check(&conf(&server::start().await));
}

#[tokio::test]
async fn the_files_health_check_finds_the_server() {
    let opentrusty = start().await;
    opentrusty.backend.reached(1).await;
    opentrusty.site.healthy("opentrusty").await;
    assert_eq!(opentrusty.backend.saw()[0].target, "/health");
}

over_every_protocol! {
    /// T1, T2, L5.
    async fn discovery_and_the_one_key_are_public(via) {
        let opentrusty = start().await;
        let document = get("/.well-known/openid-configuration").header("origin", "https://rp.invalid");
        let document = opentrusty.ask(via, document).await;
        assert_eq!(document.at("/issuer"), ISSUER);
        let forged = opentrusty.ask(via, forge(get("/.well-known/openid-configuration"))).await;
        assert_eq!(forged.text(), document.text());
        assert_eq!(document.header("access-control-allow-origin"), "*");
        assert_eq!(document.header("cache-control"), "public, max-age=60");

        let [one, two] = [opentrusty.ask(via, get("/jwks.json")).await, opentrusty.ask(via, get("/jwks.json")).await];
        assert_eq!(one.at("/keys").as_array().unwrap().len(), 1);
        assert_eq!(one.at("/keys/0/kid"), two.at("/keys/0/kid"));
    }
}

over_every_protocol! {
    /// T3.
    async fn health_metrics_and_registration_are_closed(via) {
        let opentrusty = start().await;
        for path in ["/health", "/metrics", "/%68ealth", "//health", "/x/../health", "/api/v1/auth/register"] {
            for host in [AUTH, API] {
                for method in ["GET", "POST", "HEAD"] {
                    let answer = opentrusty.site.ask_at(host, via, call(method, &format!("{path}?mark"))).await;
                    assert_eq!(answer.status, 404, "{method} {host}{path}");
                }
            }
        }
        assert!(opentrusty.backend.saw().iter().all(|seen| !seen.target.contains("mark")));
    }
}

over_every_protocol! {
    /// T4.
    async fn a_login_needs_the_header_then_the_password(via) {
        let opentrusty = start().await;
        let bare = opentrusty.ask(via, json("/api/v1/auth/login", WRONG)).await;
        assert_eq!((bare.status.as_u16(), bare.at("/error")), (403, "missing CSRF token".into()));
        assert_eq!(opentrusty.ask(via, login(WRONG)).await.status, 401);
        let member = opentrusty.ask(via, login(USER)).await;
        assert_eq!(member.at("/error"), "not an administrator");
        let with_tenant = login(WRONG).header("x-tenant-id", "7").header("X_Tenant_ID", "7");
        assert_eq!(opentrusty.ask(via, with_tenant).await.status, 401, "400 if it got through");
        let admin = opentrusty.ask(via, login(ADMIN)).await;
        assert_eq!(admin.status, 200);
        assert_eq!(
            admin.header("set-cookie"),
            "opentrusty_session=s3cret; Path=/; HttpOnly; Secure; SameSite=Lax"
        );
    }
}

/// Rule 0.9: its limiter and its audit log are keyed by the whole text.
#[tokio::test]
async fn the_backend_gets_one_address_whatever_is_sent() {
    let opentrusty = start().await;
    for invented in [
        "198.51.100.1",
        "198.51.100.2, 198.51.100.3",
        "unknown",
        "",
        "127.0.0.1, 127.0.0.1",
    ] {
        let call = get("/jwks.json")
            .header("x-forwarded-for", invented)
            .header("x-forwarded-for", "192.0.2.77")
            .header("x-real-ip", "192.0.2.78")
            .header("forwarded", "for=192.0.2.79");
        assert_eq!(
            opentrusty.ask(Via::TlsH2, call).await.status,
            200,
            "{invented}"
        );
    }
    let seen = opentrusty.saw("/jwks.json");
    assert_eq!(seen.len(), 5);
    for seen in seen {
        assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
        assert_eq!(seen.header("x-real-ip"), "127.0.0.1");
        assert!(!seen.has("forwarded"));
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_one_address_is_the_clients() {
    let opentrusty = start().await;
    let spoofed = format!("198.51.100.1, {OUTSIDE}");
    let answer = opentrusty.site.ask_from(&spoofed, get("/jwks.json")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        opentrusty.saw("/jwks.json")[0].header("x-forwarded-for"),
        OUTSIDE
    );
}

/// L4: five guesses, then Retry-After, which OpenTrusty itself never says.
#[tokio::test]
async fn guesses_end_in_429_for_a_whole_network_while_siblings_answer() {
    let opentrusty = start().await;
    let site = &opentrusty.site;
    let another = r#"{"email":"grace@example.com","password":"guess"}"#;
    for (host, body) in [WRONG, USER, WRONG, USER, another].into_iter().enumerate() {
        let address = format!("2001:db8:0:1:{host}::9");
        let answer = site.ask_from(&address, login(body)).await;
        assert!(matches!(answer.status.as_u16(), 401 | 403));
    }
    let limited = site.ask_from("2001:db8:0:1:ffff::9", login(WRONG)).await;
    assert_eq!(limited.verdict(), refused(429, "rate_limited"));
    let wait: u64 = limited.header("retry-after").parse().unwrap();
    assert!((290..=300).contains(&wait), "{wait}: the ban");
    for form in ["/login", "/consent"] {
        let form = site
            .ask_from("2001:db8:0:1::1", post(form, "email=ada"))
            .await;
        assert_eq!(form.status, 429, "the same budget");
    }
    assert_eq!(
        site.ask_from("2001:db8:0:1::1", get("/login")).await.status,
        200
    );
    assert_eq!(
        site.ask_from("2001:db8:0:2::1", login(WRONG)).await.status,
        401
    );
    assert_eq!(
        opentrusty.saw("/api/v1/auth/login").len(),
        6,
        "none of the refused ones"
    );
}

#[tokio::test]
async fn authorize_and_token_have_budgets_of_their_own() {
    let opentrusty = start().await;
    for _ in 0..10 {
        let answer = opentrusty
            .ask(Via::H1, get("/oauth2/authorize?client_id=1"))
            .await;
        assert_eq!(answer.status, 302);
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    let limited = opentrusty
        .ask(Via::H1, get("/oauth2/authorize?client_id=1"))
        .await;
    assert_eq!(limited.status, 429);
    for _ in 0..20 {
        let answer = opentrusty
            .ask(Via::H1, post("/oauth2/token", "grant_type=x"))
            .await;
        assert_eq!(answer.at("/error"), "invalid_client");
    }
    assert_eq!(
        opentrusty
            .ask(Via::H1, post("/oauth2/revoke", ""))
            .await
            .status,
        429
    );
}

#[tokio::test]
async fn a_form_of_another_site_never_gets_as_far_as_a_password() {
    let opentrusty = start().await;
    for path in [
        "/login",
        "/consent",
        "/api/v1/auth/login",
        "/api/v1/auth/logout",
    ] {
        for host in [AUTH, API] {
            let foreign = post(path, "email=ada").header("sec-fetch-site", "cross-site");
            let answer = opentrusty.site.ask_at(host, Via::TlsH2, foreign).await;
            assert_eq!(
                answer.verdict(),
                refused(404, "route_closed"),
                "{host}{path}"
            );
        }
    }
    let own = post("/login", "email=ada").header("sec-fetch-site", "same-origin");
    assert_eq!(opentrusty.ask(Via::TlsH2, own).await.status, 200);
    assert_eq!(
        opentrusty
            .saw("/")
            .iter()
            .filter(|seen| seen.method == "POST")
            .count(),
        1
    );
}

#[tokio::test]
async fn the_admin_plane_is_for_the_operators_network_and_the_console() {
    let opentrusty = start().await;
    let tenants = || get("/api/v1/tenants").host(API);
    let elsewhere = opentrusty.ask(Via::TlsH2, get("/api/v1/tenants")).await;
    assert_eq!(
        elsewhere.verdict(),
        refused(404, "no_route"),
        "not on the sign-in host"
    );

    let nobody = opentrusty.ask_api(Via::TlsH2, tenants()).await;
    assert_eq!(nobody.at("/error"), "unauthorized");
    let signed_in = tenants()
        .header("cookie", "opentrusty_session=s3cret")
        .header("origin", CONSOLE);
    let signed_in = opentrusty.ask_api(Via::TlsH2, signed_in).await;
    assert_eq!(signed_in.status, 200);
    assert_eq!(signed_in.header("access-control-allow-origin"), CONSOLE);
    assert_eq!(signed_in.header("access-control-allow-credentials"), "true");
    let foreign = opentrusty
        .ask_api(
            Via::TlsH2,
            tenants().header("origin", "https://evil.invalid"),
        )
        .await;
    assert!(!foreign.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn the_admin_plane_is_closed_to_the_world() {
    let backend = server::start().await;
    let site = Site::open(API, conf(&backend)).await;
    for call in [
        get("/api/v1/tenants"),
        login(WRONG),
        post("/api/v1/user/change-password", ""),
    ] {
        let outside = site.ask_from(OUTSIDE, call).await;
        assert_eq!(outside.verdict(), refused(403, "network_forbidden"));
    }
    assert_eq!(
        site.ask_from("10.1.2.3", get("/api/v1/tenants"))
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn passwords_are_changed_three_times_an_hour() {
    let opentrusty = start().await;
    let change = || post("/api/v1/user/change-password", "{}");
    for _ in 0..3 {
        assert_eq!(opentrusty.ask_api(Via::TlsH2, change()).await.status, 401);
    }
    let limited = opentrusty.ask_api(Via::TlsH2, change()).await;
    assert_eq!(limited.verdict(), refused(429, "rate_limited"));
    let wait: u64 = limited.header("retry-after").parse().unwrap();
    assert!((1_000..=1_200).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_refusal_is_not_cached_although_the_route_says_how_long_answers_are() {
    let opentrusty = start().await;
    let answer = opentrusty
        .ask(Via::TlsH2, call("DELETE", "/jwks.json"))
        .await;
    assert_eq!(answer.verdict(), refused(405, "method_refused"));
    let backend = opentrusty.backend.stop().await;
    let down = opentrusty.site.ask(Via::TlsH2, get("/jwks.json")).await;
    assert!(down.status.is_server_error(), "{backend} is down");
    assert_eq!(down.header("cache-control"), "no-store");
}

/// OpenTrusty locks an account after five failures; from one network fewer come through, as JSON or from a form.
#[tokio::test]
async fn an_account_is_not_locked_from_one_network() {
    let opentrusty = start().await;
    let site = &opentrusty.site;
    for _ in 0..4 {
        let answer = site.ask_from("192.0.2.1", login(WRONG)).await;
        assert_eq!(answer.status, 401);
    }
    let limited = site.ask_from("192.0.2.1", login(WRONG)).await;
    assert_eq!(limited.verdict(), refused(429, "rate_limited"));
    assert_eq!(limited.at("/policy"), "account");
    let other = r#"{"email":"grace@example.com","password":"guess"}"#;
    assert_eq!(site.ask_from("192.0.2.1", login(other)).await.status, 401);
    let owner = site.ask_from("198.51.100.1", login(WRONG)).await;
    assert_eq!(owner.status, 401, "whoever owns it is elsewhere");
    assert_eq!(opentrusty.saw("/api/v1/auth/login").len(), 6);
}

/// Secrets of one client guessed from anywhere, and a refusal that its library understands.
#[tokio::test]
async fn a_clients_secret_is_guessed_so_often_from_anywhere() {
    let opentrusty = start().await;
    let site = &opentrusty.site;
    let token = |client: &str| {
        let basic = STANDARD.encode(format!("{client}:guess"));
        post("/oauth2/token", "grant_type=client_credentials")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", &format!("Basic {basic}"))
    };
    for host in 0..20 {
        let answer = site
            .ask_from(&format!("192.0.2.{host}"), token("shop"))
            .await;
        assert_eq!(answer.at("/error"), "invalid_client");
    }
    let limited = site.ask_from("192.0.2.99", token("shop")).await;
    assert_eq!(limited.status, 429);
    assert_eq!(limited.at("/error"), "temporarily_unavailable");
    assert!(limited.header("ratelimit").starts_with("\"client\""));
    let other = site.ask_from("192.0.2.99", token("other")).await;
    assert_eq!(other.at("/error"), "invalid_client");
}

#[tokio::test]
async fn a_session_changes_its_password_three_times_an_hour_wherever_it_is() {
    let opentrusty = start().await;
    let change = |session: &str| {
        let cookie = format!("opentrusty_session={session}");
        post("/api/v1/user/change-password", "{}")
            .header("cookie", &cookie)
            .host(API)
    };
    let mut statuses = Vec::new();
    for host in 0..4 {
        let mut client = client::connect(opentrusty.site.gateway.at("behind"), Via::H1).await;
        let from = format!("10.0.0.{host}");
        let call = change("s3cret").header("x-forwarded-for", &from);
        statuses.push(client.send(call).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    let mut client = client::connect(opentrusty.site.gateway.at("behind"), Via::H1).await;
    let other = change("other").header("x-forwarded-for", "10.0.0.1");
    assert_eq!(client.send(other).await.status, 401);
}
