//! `conf/examples/identsphere.toml`: sessions in cookies, and an application that believes what the edge says of the
//! caller. IdentSphere is the demo backend, which has its shape.

use std::net::SocketAddr;

use serde_json::json as value;
use vestibule::demo::backend::{self, Backend, Settings};

use super::servers::app;
use super::wire::{forge, json};
use super::{Site, check, fitted, over_every_protocol};
use crate::support::body;
use crate::support::client::{self, Answer, Call, Told, Via, call, get, post, refused};
use crate::support::eventually;
use crate::support::gateway;
use crate::support::origin::{self, Origin};

const EXAMPLE: &str = include_str!("../../../conf/examples/identsphere.toml");
const HOST: &str = "app.example.com";
const PUBLIC: &str = "https://app.example.com";
/// The page of another origin that may call the API.
const FRIEND: &str = "https://www.example.com";

struct IdentSphere {
    site: Site,
    backend: Backend,
    app: Origin,
}

fn conf(identsphere: SocketAddr, app: &Origin) -> gateway::Builder {
    let endpoints = [
        ("http://identsphere:8080", format!("http://{identsphere}")),
        ("http://app:8000", app.endpoint()),
    ];
    fitted(EXAMPLE, &endpoints)
}

async fn start() -> IdentSphere {
    let settings = Settings {
        issuer: Some(PUBLIC.to_owned()),
        ..Settings::default()
    };
    let backend = backend::start(settings).await.unwrap();
    let app = origin::http().otherwise(app::answer).run().await;
    let site = Site::open(HOST, conf(backend.address, &app)).await;
    IdentSphere { site, backend, app }
}

/// What a browser keeps of a login.
struct Login {
    cookies: String,
    csrf: String,
}

impl Login {
    fn of(answer: &Answer) -> Self {
        assert_eq!(answer.at("/status"), "success", "{}", answer.text());
        let names = ["identsphere_at", "identsphere_rt", "identsphere_csrf"];
        let pairs = names.map(|name| format!("{name}={}", answer.cookie(name).unwrap()));
        Self {
            cookies: pairs.join("; "),
            csrf: answer.cookie("identsphere_csrf").unwrap().to_owned(),
        }
    }

    fn with(&self, call: Call) -> Call {
        call.header("cookie", &self.cookies)
    }

    /// With the header that a writing request needs.
    fn writing(&self, call: Call) -> Call {
        self.with(call).header("x-csrf-token", &self.csrf)
    }
}

/// Status and code of a refusal in IdentSphere's own envelope.
fn told(answer: &Answer) -> (u16, String) {
    let code = answer.at("/error/code");
    refused(answer.status.as_u16(), code.as_str().unwrap_or_default())
}

fn registration(email: &str) -> Call {
    let body = value!({
        "email": email,
        "password": "correct horse battery staple",
        "organization_name": "Analytical Engines",
    });
    json("/v1/auth/register", &body.to_string())
}

fn wrong_login() -> Call {
    json(
        "/v1/auth/login",
        r#"{"email":"nobody@x.invalid","password":"guess"}"#,
    )
}

impl IdentSphere {
    async fn ask(&self, via: Via, call: Call) -> Answer {
        self.site.ask(via, call).await
    }

    async fn register(&self, via: Via, email: &str) -> Login {
        Login::of(&self.ask(via, registration(email)).await)
    }
}

#[tokio::test]
async fn the_files_own_cases_pass() {
    let identsphere = backend::start(Settings::default()).await.unwrap();
    let app = origin::http().run().await;
    check(&conf(identsphere.address, &app));
}

#[tokio::test]
async fn an_unauthenticated_session_counts_as_healthy() {
    let identsphere = start().await;
    eventually("a health check", async || {
        identsphere.backend.requests() > 0
    })
    .await;
    identsphere.site.healthy("identsphere").await;
}

over_every_protocol! {
    /// P1, P7.
    async fn register_session_logout_session(via) {
        let identsphere = start().await;
        let nobody = identsphere.ask(via, get("/v1/auth/session")).await;
        assert_eq!(nobody.status, 401);
        assert_eq!(nobody.at("/error/code"), "authentication_required");

        let registered = identsphere.ask(via, registration("grace@example.com")).await;
        let cookies: Vec<&str> = registered
            .headers
            .get_all("set-cookie")
            .iter()
            .map(|cookie| cookie.to_str().unwrap())
            .collect();
        assert_eq!(cookies.len(), 3);
        for (name, path, hidden) in [
            ("identsphere_at", "/", true),
            ("identsphere_rt", "/v1/auth", true),
            ("identsphere_csrf", "/", false),
        ] {
            let cookie = cookies.iter().find(|cookie| cookie.starts_with(name)).unwrap();
            assert!(cookie.contains(&format!("; Path={path};")), "{cookie}");
            assert_eq!(cookie.contains("; HttpOnly"), hidden, "{cookie}");
        }

        let login = Login::of(&registered);
        let session = identsphere.ask(via, login.with(get("/v1/auth/session"))).await;
        assert_eq!(session.at("/user/email"), "grace@example.com");

        let unarmed = identsphere.ask(via, login.with(post("/v1/auth/logout", ""))).await;
        assert_eq!(unarmed.status, 403, "a cookie alone writes nothing");
        let logout = identsphere.ask(via, login.writing(post("/v1/auth/logout", ""))).await;
        assert_eq!(logout.status, 200, "{}", logout.text());
        let gone = identsphere.ask(via, login.with(get("/v1/auth/session"))).await;
        assert_eq!(gone.at("/error/code"), "authentication_required");
    }
}

#[tokio::test]
async fn a_refresh_renews_the_session_with_its_scoped_cookie() {
    let identsphere = start().await;
    let login = identsphere.register(Via::TlsH2, "grace@example.com").await;
    let refresh = login.writing(post("/v1/auth/refresh", ""));
    let renewed = Login::of(&identsphere.ask(Via::TlsH2, refresh).await);
    assert_ne!(renewed.cookies, login.cookies);
    let page = identsphere.ask(Via::TlsH2, renewed.with(get("/"))).await;
    assert_eq!(page.status, 200);
}

over_every_protocol! {
    async fn the_app_learns_who_calls_from_the_edge_alone(via) {
        let identsphere = start().await;
        let nobody = identsphere.ask(via, get("/dashboard")).await;
        assert_eq!(nobody.verdict(), refused(401, "credential_missing"));
        let invented = get("/dashboard").header("cookie", "identsphere_at=invented");
        assert_eq!(identsphere.ask(via, invented).await.verdict(), refused(401, "session_invalid"));
        assert!(identsphere.app.saw_nothing());

        let login = identsphere.register(via, "grace@example.com").await;
        let session = identsphere.ask(via, login.with(get("/v1/auth/session"))).await;
        let mut page = login.with(get("/dashboard?x=1"));
        for name in [
            "x-auth-user", "x_auth_user", "X-Auth.User", "x-auth-roles", "x-auth-email", "x-auth-org",
            "x-auth-admin", "x-user-id", "x_user_roles",
        ] {
            page = page.header(name, "evil");
        }
        let page = identsphere.ask(via, forge(page)).await;
        assert_eq!(page.status, 200, "{}", page.text());
        assert_eq!(page.at("/user"), session.at("/user/user_id"));
        assert_eq!(page.at("/org"), session.at("/user/organization_id"));
        assert_eq!(page.at("/email"), "grace@example.com");
        assert_eq!(page.at("/roles"), "owner");
        assert_eq!(page.header("x-frame-options"), "DENY");

        let seen = identsphere.app.only();
        assert_eq!(seen.target, "/dashboard?x=1");
        assert_eq!(seen.header("x-auth-method"), "session");
        for (name, value) in &seen.headers {
            assert!(!value.contains("evil"), "{name}: {value}");
        }
        assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
        assert_eq!(seen.header("x-forwarded-host"), HOST);
    }
}

#[tokio::test]
async fn admin_pages_are_for_owners_and_admins() {
    let identsphere = start().await;
    let owner = identsphere.register(Via::TlsH2, "grace@example.com").await;
    let member = identsphere
        .register(Via::TlsH2, "member+alan@example.com")
        .await;
    for path in [
        "/admin",
        "/admin/users",
        "/x/../admin",
        "/docs/%2E%2e/admin",
        "//admin",
    ] {
        let page = identsphere.ask(Via::TlsH2, owner.with(get(path))).await;
        assert_eq!(page.status, 200, "{path}");
        let page = identsphere.ask(Via::TlsH2, member.with(get(path))).await;
        assert_eq!(page.verdict(), refused(403, "forbidden"), "{path}");
    }
    let page = identsphere
        .ask(Via::TlsH2, member.with(get("/administrator")))
        .await;
    assert_eq!(page.at("/roles"), "member");
    assert!(
        identsphere
            .app
            .saw()
            .iter()
            .all(|seen| seen.header("x-auth-roles") == "owner" || seen.target == "/administrator")
    );
}

/// The edge believes the backend for five seconds, then asks again.
#[tokio::test]
async fn a_logout_reaches_the_app_within_the_cache_time() {
    let identsphere = start().await;
    let login = identsphere.register(Via::TlsH2, "grace@example.com").await;
    assert_eq!(
        identsphere
            .ask(Via::TlsH2, login.with(get("/")))
            .await
            .status,
        200
    );
    let logout = login.writing(post("/v1/auth/logout", ""));
    assert_eq!(identsphere.ask(Via::TlsH2, logout).await.status, 200);
    eventually("the app is closed to the old cookie", async || {
        identsphere
            .ask(Via::TlsH2, login.with(get("/")))
            .await
            .status
            == 401
    })
    .await;
}

/// P2, P3.
#[tokio::test]
async fn sign_in_by_google_starts_and_comes_back_to_the_public_host() {
    let identsphere = start().await;
    for provider in ["google", "github"] {
        let path = format!("/v1/auth/oauth/{provider}/start?redirect_to=");
        let off = identsphere
            .ask(Via::TlsH1, forge(get(&format!("{path}/"))))
            .await;
        assert_eq!(off.status, 307);
        let callback = format!("redirect_uri={PUBLIC}/v1/auth/oauth/{provider}/callback&");
        assert!(
            off.header("location").contains(&callback),
            "{}",
            off.header("location")
        );
        let astray = identsphere
            .ask(Via::TlsH1, get(&format!("{path}//evil.invalid")))
            .await;
        assert_eq!(astray.status, 400);
    }
}

over_every_protocol! {
    /// P4.
    async fn one_foreign_origin_may_read_and_no_other(via) {
        let identsphere = start().await;
        let preflight = |origin: &str, method: &str| {
            call("OPTIONS", "/v1/auth/session")
                .header("origin", origin)
                .header("access-control-request-method", method)
        };
        let allowed = identsphere.ask(via, preflight(FRIEND, "GET")).await;
        assert_eq!(allowed.status, 204);
        assert_eq!(allowed.header("access-control-allow-origin"), FRIEND);
        assert_eq!(allowed.header("access-control-allow-credentials"), "true");
        assert!(allowed.header("vary").to_lowercase().contains("origin"));
        let csrf = preflight(FRIEND, "POST").header("access-control-request-headers", "x-csrf-token");
        let headers = identsphere.ask(via, csrf).await;
        assert!(headers.header("access-control-allow-headers").contains("x-csrf-token"), "{headers:?}");

        for foreign in ["https://evil.invalid", "https://www.example.com.evil.invalid", "null", "http://www.example.com"] {
            let refused = identsphere.ask(via, preflight(foreign, "GET")).await;
            assert!(!refused.headers.contains_key("access-control-allow-origin"), "{foreign}");
            let read = get("/v1/auth/session").header("origin", foreign);
            let read = identsphere.ask(via, read).await;
            assert!(!read.headers.contains_key("access-control-allow-origin"), "{foreign}");
        }
        let read = identsphere.ask(via, get("/v1/auth/session").header("origin", FRIEND)).await;
        assert_eq!(read.status, 401);
        assert_eq!(read.header("access-control-allow-origin"), FRIEND, "or the page cannot see the 401");
    }
}

over_every_protocol! {
    /// P5.
    async fn a_picture_that_is_too_large_ends_at_the_edge(via) {
        let identsphere = start().await;
        let (_unsent, payload) = body::channel();
        let length = ((5 << 20) + (64 << 10)).to_string();
        let large = call("POST", "/v1/users/me/avatar").header("content-length", &length).body(payload);
        let answer = identsphere.ask(via, large).await;
        assert_eq!(told(&answer), refused(413, "body_too_large"));

        let small = identsphere.ask(via, post("/v1/users/me/avatar", vec![0; 1024])).await;
        assert_eq!(small.status, 401);
        assert_eq!(small.at("/error/code"), "authentication_required");
        let login = identsphere.register(via, "grace@example.com").await;
        let picture = login.writing(post("/v1/users/me/avatar", vec![0; 2 << 20]));
        assert_eq!(identsphere.ask(via, picture).await.status, 200);
    }
}

#[tokio::test]
async fn a_body_that_grows_beyond_its_cap_is_cut_off() {
    let identsphere = start().await;
    let (sender, payload) = body::channel();
    for _ in 0..3 {
        sender.chunk(vec![b' '; 8 << 10]);
    }
    let address = identsphere.site.gateway.address(Via::H2c);
    let mut client = client::connect(address, Via::H2c).await;
    let login = call("POST", "/v1/auth/login").host(HOST).body(payload);
    let answer = client.try_send(login).await;
    assert!(answer.is_err() || answer.unwrap().status == 413);
}

/// P6.
#[tokio::test]
async fn the_key_set_is_public_and_cached() {
    let identsphere = start().await;
    let keys = get("/.well-known/jwks.json").header("origin", "https://elsewhere.invalid");
    let keys = identsphere.ask(Via::TlsH2, keys).await;
    assert!(keys.at("/keys/0/kid").is_string());
    assert_eq!(keys.header("access-control-allow-origin"), "*");
    assert_eq!(keys.header("cache-control"), "public, max-age=300");
}

/// L4.
#[tokio::test]
async fn guesses_end_in_429_while_siblings_answer() {
    let identsphere = start().await;
    for _ in 0..5 {
        let answer = identsphere.ask(Via::TlsH2, wrong_login()).await;
        assert_eq!(answer.status, 401);
    }
    let limited = identsphere.ask(Via::TlsH2, wrong_login()).await;
    assert_eq!(told(&limited), refused(429, "rate_limited"));
    assert_eq!(limited.at("/error/type"), "rate_limit_error");
    let wait: u64 = limited.header("retry-after").parse().unwrap();
    assert!((290..=300).contains(&wait), "{wait}: the ban");
    for sibling in [
        registration("grace@example.com"),
        json("/v1/auth/mfa/challenge", "{}"),
    ] {
        assert_eq!(
            identsphere.ask(Via::H1, sibling).await.status,
            429,
            "the same budget"
        );
    }
    let session = identsphere.ask(Via::TlsH2, get("/v1/auth/session")).await;
    assert_eq!(session.status, 401, "another budget");
}

#[tokio::test]
async fn requests_that_send_mail_have_a_budget_of_their_own() {
    let identsphere = start().await;
    for path in [
        "/v1/auth/password/forgot",
        "/v1/auth/email-otp/request",
        "/v1/auth/password/forgot",
    ] {
        let answer = identsphere.ask(Via::TlsH2, json(path, "{}")).await;
        assert_ne!(answer.status, 429);
    }
    let limited = identsphere
        .ask(Via::TlsH2, json("/v1/auth/email-otp/request", "{}"))
        .await;
    assert_eq!(limited.status, 429);
    assert_eq!(identsphere.ask(Via::TlsH2, wrong_login()).await.status, 401);
}

/// Counted by what stands in the body or in the cookie, whatever network it comes from, and nobody else is hurt.
#[tokio::test]
async fn accounts_codes_mailboxes_and_cookies_have_budgets_of_their_own() {
    let identsphere = start().await;
    let site = &identsphere.site;
    let login = |email: &str| {
        let body = value!({ "email": email, "password": "guess" });
        json("/v1/auth/login", &body.to_string())
    };
    let mail = |email: &str| {
        let body = value!({ "email": email });
        json("/v1/auth/password/forgot", &body.to_string())
    };
    let code = |token: &str| {
        let body = value!({ "mfa_token": token, "code": "000000" });
        json("/v1/auth/mfa/challenge", &body.to_string())
    };
    type Calls<'c> = (&'c str, usize, Box<dyn Fn(&str) -> Call + 'c>);
    let groups: [Calls<'_>; 3] = [
        ("account", 10, Box::new(login)),
        ("code", 5, Box::new(code)),
        ("mailbox", 3, Box::new(mail)),
    ];
    for (limit, budget, call) in &groups {
        for host in 0..*budget {
            let address = format!("192.0.2.{host}");
            let answer = site.ask_from(&address, call("victim@x.invalid")).await;
            assert_ne!(answer.status, 429, "{limit} {host}");
        }
        let limited = site
            .ask_from("192.0.2.99", call(" VICTIM@x.invalid "))
            .await;
        assert_eq!(told(&limited), refused(429, "rate_limited"), "{limit}");
        let field = limited.header("ratelimit");
        assert!(field.starts_with(&format!("\"{limit}\";r=0;t=")), "{field}");
        let other = site.ask_from("192.0.2.99", call("other@x.invalid")).await;
        assert_ne!(other.status, 429, "{limit}: another one");
    }

    let refresh = |cookie: String| {
        let cookies = format!("identsphere_rt={cookie}; identsphere_csrf=x");
        let call = post("/v1/auth/refresh", "").header("cookie", &cookies);
        call.header("x-csrf-token", "x")
    };
    for _ in 0..10 {
        let answer = site
            .ask_from("198.51.100.1", refresh("one".to_owned()))
            .await;
        assert_eq!(answer.status, 401);
    }
    let limited = site
        .ask_from("198.51.100.1", refresh("one".to_owned()))
        .await;
    assert!(limited.header("ratelimit").starts_with("\"refresh\""));
    for invented in 0..10 {
        let cookie = format!("invented{invented}");
        let answer = site.ask_from("198.51.100.1", refresh(cookie)).await;
        assert_eq!(answer.status, 401);
    }
    let limited = site
        .ask_from("198.51.100.1", refresh("more".to_owned()))
        .await;
    assert_eq!(told(&limited), refused(429, "rate_limited"));
    assert!(limited.header("ratelimit").starts_with("\"refresh-guess\""));
}

/// Forty accounts from one network are an office, one more is no office.
#[tokio::test]
async fn one_network_signs_in_to_so_many_accounts_and_no_more() {
    let identsphere = start().await;
    let site = &identsphere.site;
    for number in 0..40 {
        let new = registration(&format!("user{number}@example.com"));
        let answer = site.ask_from("192.0.2.1", new).await;
        assert!(answer.status.is_success(), "{number}: {}", answer.text());
    }
    let limited = site
        .ask_from("192.0.2.1", registration("user40@example.com"))
        .await;
    assert_eq!(told(&limited), refused(429, "rate_limited"));
    let elsewhere = site
        .ask_from("192.0.2.2", registration("user40@example.com"))
        .await;
    assert!(elsewhere.status.is_success());
}
