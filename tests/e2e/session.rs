//! Logins that live in a cookie: the backend is asked, once, and believed for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::matrix;
use crate::support::client::{Client, Told, Via, get, post, refused};
use crate::support::eventually;
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::issuer;
use crate::support::origin::{self, Gate, Origin, Reply, Speaks, gate};

/// What the backend says of the cookie `good`.
fn alice() -> Value {
    json!({
        "user": { "user_id": "alice", "organization_id": "acme", "email": "a@example.com" },
        "capabilities": { "role": "admin", "permissions": ["orders:read"] },
    })
}

struct Backend {
    origin: Origin,
    probes: Arc<AtomicUsize>,
    says: Arc<Mutex<Reply>>,
}

async fn backend(speaks: Speaks, gate: Option<Gate>) -> Backend {
    let probes = Arc::<AtomicUsize>::default();
    let says = Arc::new(Mutex::new(Reply::json(&alice())));
    let (counter, told) = (Arc::clone(&probes), Arc::clone(&says));
    let origin = origin::speaking(speaks)
        .on("/v1/auth/session", move |seen| {
            counter.fetch_add(1, Ordering::SeqCst);
            let reply = match seen.header("cookie") {
                "at=good" => told.lock().clone(),
                "at=half" => {
                    Reply::json(&json!({ "error": { "code": "mfa_required" } })).status(401)
                }
                _ => Reply::json(&json!({ "error": { "code": "unauthorized" } })).status(401),
            };
            match &gate {
                Some(gate) => reply.behind(gate),
                None => reply,
            }
        })
        .run()
        .await;
    Backend {
        origin,
        probes,
        says,
    }
}

fn guarded(origin: &Origin, cache: &str) -> Builder {
    conf(&format!(
        r#"
        [[route]]
        path = "/me"
        auth = {{ any = ["browser"] }}
        upstream = "api"
        [[route]]
        path = "/admin"
        auth = {{ any = ["browser"], roles = ["admin"], scopes = ["orders:read"] }}
        upstream = "api"
        [session.browser]
        cookie = "at"
        probe = {{ upstream = "api", path = "/v1/auth/session", timeout = "1s" }}
        cache = "{cache}"
    "#
    ))
    .upstream("api", origin)
}

impl Backend {
    fn probed(&self) -> usize {
        self.probes.load(Ordering::SeqCst)
    }

    fn says(&self, reply: Reply) {
        *self.says.lock() = reply;
    }
}

async fn me(gateway: &Gateway, cookie: &str) -> (u16, String) {
    gateway
        .ask(get("/me").header("cookie", cookie))
        .await
        .verdict()
}

matrix! {
    async fn a_good_session_passes_and_a_bad_one_does_not(via, speaks) {
        let backend = backend(speaks, None).await;
        let gateway = guarded(&backend.origin, "60s").run().await;
        let mut client = gateway.connect(via).await;

        let answer = client.send(get("/me")).await;
        assert_eq!(answer.verdict(), refused(401, "credential_missing"));
        let answer = client.send(get("/me").header("cookie", "at=bad")).await;
        assert_eq!(answer.verdict(), refused(401, "session_invalid"));
        let answer = client.send(get("/me").header("cookie", "at=half")).await;
        assert_eq!(answer.verdict(), refused(401, "session_step_up"));
        assert!(backend.origin.saw().iter().all(|seen| seen.target == "/v1/auth/session"));

        let answer = client.send(get("/me").header("cookie", "theme=dark; at=good; lang=en").header("x-auth-user", "root")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = backend.origin.last();
        let told = ["x-auth-user", "x-auth-org", "x-auth-email", "x-auth-roles"].map(|name| seen.header(name).to_owned());
        assert_eq!(told, ["alice", "acme", "a@example.com", "admin"]);
        // The probe is told the session and nothing else of the request.
        let saw = backend.origin.saw();
        let probe = &saw[saw.len() - 2];
        assert_eq!((probe.method.as_str(), probe.header("cookie")), ("GET", "at=good"));
        assert!(!probe.has("x-auth-user") && !probe.has("authorization"));
    }
}

#[tokio::test]
async fn a_good_answer_is_believed_for_a_while() {
    let backend = backend(Speaks::Http, None).await;
    let gateway = guarded(&backend.origin, "60s").run().await;
    for _ in 0..10 {
        assert_eq!(me(&gateway, "at=good").await.0, 200);
    }
    assert_eq!(backend.probed(), 1);
    assert_eq!(
        gateway
            .ask(get("/admin").header("cookie", "at=good"))
            .await
            .status,
        200
    );
    assert_eq!(backend.probed(), 1);
}

#[tokio::test]
async fn a_good_answer_is_not_believed_for_longer() {
    let backend = backend(Speaks::Http, None).await;
    let gateway = guarded(&backend.origin, "100ms").run().await;
    assert_eq!(me(&gateway, "at=good").await.0, 200);
    backend.says(Reply::empty(401));
    eventually("the session ends", async || {
        me(&gateway, "at=good").await == refused(401, "session_invalid")
    })
    .await;
}

#[tokio::test]
async fn many_at_once_cause_one_probe() {
    let gate = gate();
    let backend = backend(Speaks::Http, Some(gate.clone())).await;
    let gateway = guarded(&backend.origin, "60s").run().await;
    let client = gateway.connect(Via::H2c).await;
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let mut client = client.another();
            tokio::spawn(async move {
                client
                    .send(get("/me").header("cookie", "at=good"))
                    .await
                    .status
            })
        })
        .collect();
    backend.origin.reached(1).await;
    gateway
        .counted("vestibule_requests_in_flight", &[], 50.0)
        .await;
    gate.open();
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), 200);
    }
    assert_eq!(backend.probed(), 1);
}

/// The one who asks for all the others may be the first to leave.
#[tokio::test]
async fn a_client_that_goes_away_takes_nobody_elses_answer_with_it() {
    let gate = gate();
    let backend = backend(Speaks::Http, Some(gate.clone())).await;
    let gateway = guarded(&backend.origin, "60s").run().await;
    let ask = |mut client: Client| {
        let call = get("/me").header("cookie", "at=good");
        tokio::spawn(async move { client.send(call).await.status })
    };
    let first = ask(gateway.connect(Via::H1).await);
    backend.origin.reached(1).await;
    let others = [
        ask(gateway.connect(Via::H1).await),
        ask(gateway.connect(Via::H2c).await),
    ];
    gateway
        .counted("vestibule_requests_in_flight", &[], 3.0)
        .await;
    first.abort();
    gateway
        .counted("vestibule_requests_in_flight", &[], 2.0)
        .await;
    gate.open();
    for answer in others {
        assert_eq!(answer.await.unwrap(), 200);
    }
    assert!(backend.probed() <= 2, "{}", backend.probed());
}

/// R15, the part without a store: what cannot be asked is 503, never 401, never anonymous, never let in.
#[tokio::test]
async fn a_backend_that_cannot_be_asked_is_503() {
    let backend = backend(Speaks::Http, None).await;
    let gateway = guarded(&backend.origin, "100ms").run().await;
    for reply in [
        Reply::empty(500),
        Reply::empty(302).header("location", "/login"),
        Reply::text("<html>").header("content-type", "text/html"),
        Reply::json(&json!({})),
        Reply::json(&json!({ "user": { "user_id": "" } })),
        Reply::json(&json!([])),
        Reply::text(vec![b' '; 1 << 20]),
        Reply::never(),
    ] {
        backend.says(reply.clone());
        let answer = gateway.ask(get("/me").header("cookie", "at=good")).await;
        assert_eq!(
            answer.verdict(),
            refused(503, "session_unavailable"),
            "{reply:?}"
        );
        assert!(!answer.header("retry-after").is_empty());
    }
    assert!(
        backend
            .origin
            .saw()
            .iter()
            .all(|seen| seen.target == "/v1/auth/session")
    );
    backend.says(Reply::json(&alice()));
    assert_eq!(me(&gateway, "at=good").await.0, 200);
    backend.origin.stop().await;
    eventually("the backend is gone", async || {
        me(&gateway, "at=good").await == refused(503, "session_unavailable")
    })
    .await;
}

#[tokio::test]
async fn one_cookie_means_one_session() {
    let backend = backend(Speaks::Http, None).await;
    let gateway = guarded(&backend.origin, "60s").run().await;
    for cookies in ["at=good; at=bad", "at=bad; at=good"] {
        let verdict = me(&gateway, cookies).await;
        assert_eq!(verdict, refused(400, "credential_ambiguous"), "{cookies}");
    }
    let split = get("/me")
        .header("cookie", "at=good")
        .header("cookie", "at=bad");
    assert_eq!(
        gateway.ask(split).await.verdict(),
        refused(400, "credential_ambiguous")
    );
    assert_eq!(
        me(&gateway, "at=").await,
        refused(401, "credential_missing")
    );
    assert_eq!(
        me(&gateway, "AT=good").await,
        refused(401, "credential_missing")
    );
    assert!(backend.origin.saw_nothing());
}

#[tokio::test]
async fn a_bearer_token_beside_a_session_is_ambiguous() {
    let issuer = issuer::run().await;
    let backend = backend(Speaks::Http, None).await;
    let gateway = conf(
        r#"
        [[route]]
        path = "/both"
        auth = { any = ["main", "browser"] }
        upstream = "api"
        [session.browser]
        cookie = "at"
        probe = { upstream = "api", path = "/v1/auth/session" }
    "#,
    )
    .issuer(&issuer)
    .upstream("api", &backend.origin)
    .run()
    .await;
    gateway.ready().await;
    let token = issuer.token().claim("sub", "bob").sign();
    let both = get("/both").bearer(&token).header("cookie", "at=good");
    assert_eq!(
        gateway.ask(both).await.verdict(),
        refused(400, "credential_ambiguous")
    );
    assert!(backend.origin.saw_nothing());
    assert_eq!(gateway.ask(get("/both").bearer(&token)).await.status, 200);
    assert_eq!(backend.origin.last().header("x-auth-user"), "bob");
    assert_eq!(
        gateway
            .ask(get("/both").header("cookie", "at=good"))
            .await
            .status,
        200
    );
    assert_eq!(backend.origin.last().header("x-auth-user"), "alice");
}

#[tokio::test]
async fn a_token_in_a_cookie_is_judged_like_any_token() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = conf("[[route]]\nauth = { any = [\"app\"] }\nupstream = \"api\"\n[session.app]\ncookie = \"at\"\nissuer = \"main\"")
        .issuer(&issuer)
        .upstream("api", &origin)
        .run()
        .await;
    gateway.ready().await;
    let ask = async |token: String| {
        gateway
            .ask(get("/").header("cookie", &format!("at={token}")))
            .await
            .verdict()
    };
    assert_eq!(ask(issuer.token().sign()).await.0, 200);
    assert_eq!(
        ask(issuer.token().expired().sign()).await,
        refused(401, "token_expired")
    );
    assert_eq!(
        gateway
            .ask(get("/").bearer(&issuer.token().sign()))
            .await
            .status,
        401
    );
    assert_eq!(origin.heads(), 1);
}

/// The demo's backend, whose logout is real: behind the cache's few seconds nobody is let in any more.
#[tokio::test]
async fn after_a_logout_the_session_is_refused() {
    let backend = vestibule::demo::backend::start(vestibule::demo::Settings::default())
        .await
        .unwrap();
    let gateway = conf(
        r#"
        [[route]]
        path = "/v1/auth/*"
        auth = "none"
        upstream = "api"
        [[route]]
        path = "/api/*"
        auth = { any = ["browser"] }
        upstream = "api"
        [session.browser]
        cookie = "identsphere_at"
        probe = { upstream = "api", path = "/v1/auth/session" }
        cache = "200ms"
    "#,
    )
    .upstream_at("api", "http", backend.address, "")
    .run()
    .await;
    let mut client = gateway.connect(Via::TlsH2).await;
    let login = json!({ "email": vestibule::demo::SEEDED_EMAIL, "password": vestibule::demo::SEEDED_PASSWORD });
    let login =
        post("/v1/auth/login", login.to_string()).header("content-type", "application/json");
    let answer = client.send(login).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let cookie = |name: &str| format!("{name}={}", answer.cookie(name).unwrap_or_default());
    let access = cookie("identsphere_at");
    assert_eq!(
        client
            .send(get("/api/whoami").header("cookie", &access))
            .await
            .status,
        200
    );

    let csrf = answer.cookie("identsphere_csrf").unwrap_or_default();
    let all = [
        access.clone(),
        cookie("identsphere_rt"),
        cookie("identsphere_csrf"),
    ]
    .join("; ");
    let logout = post("/v1/auth/logout", "")
        .header("cookie", &all)
        .header("x-csrf-token", csrf);
    let told = client.send(logout).await;
    assert!(told.status.is_success(), "{} {}", told.status, told.text());
    eventually("the session is refused", async || {
        let answer = gateway
            .ask(get("/api/whoami").header("cookie", &access))
            .await;
        answer.verdict() == refused(401, "session_invalid")
    })
    .await;
}
