//! Credentials that end before their time: a logout seen passing by, and an issuer's word (Back-Channel Logout 1.0).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::matrix;
use crate::support::client::{Call, Told, Via, call, get, post, refused};
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::issuer::{self, Fault, Issuer};
use crate::support::origin::{self, Origin, Reply, Speaks, gate};
use crate::support::token::{Key, Token, now};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A backend whose sessions are `USER-N`; each stays good until it is ended here.
struct Backend {
    origin: Origin,
    probes: Arc<AtomicUsize>,
    ended: Arc<Mutex<HashSet<String>>>,
}

async fn backend(speaks: Speaks) -> Backend {
    let probes = Arc::<AtomicUsize>::default();
    let ended = Arc::<Mutex<HashSet<String>>>::default();
    let (counter, gone) = (Arc::clone(&probes), Arc::clone(&ended));
    let logged_out = Arc::clone(&ended);
    let origin = origin::speaking(speaks)
        .on("/v1/auth/session", move |seen| {
            counter.fetch_add(1, Ordering::SeqCst);
            let cookie = seen.header("cookie").to_owned();
            let session = cookie.strip_prefix("at=").unwrap_or_default();
            if gone.lock().contains(session) {
                return Reply::empty(401);
            }
            let user = session.split('-').next().unwrap();
            Reply::json(&json!({ "user": { "user_id": user } }))
        })
        .on("/logout", move |seen| {
            let cookie = seen.all("cookie").join("; ");
            let sessions = cookie
                .split("; ")
                .filter_map(|pair| pair.strip_prefix("at="));
            logged_out.lock().extend(sessions.map(str::to_owned));
            Reply::empty(204)
        })
        .path("/refused", Reply::empty(403))
        .path("/failed", Reply::empty(500))
        .path("/elsewhere", Reply::empty(302).header("location", "/"))
        .path(
            "/grpc",
            Reply::empty(200)
                .header("content-type", "application/grpc")
                .header("grpc-status", "7"),
        )
        .run()
        .await;
    Backend {
        origin,
        probes,
        ended,
    }
}

const SESSIONS: &str = r#"
    [[route]]
    path = "/me"
    auth = { any = ["browser"] }
    upstream = "api"
    [[route]]
    path = ["/logout", "/refused", "/failed", "/elsewhere", "/grpc"]
    auth = "none"
    revokes = { any = ["browser"] }
    upstream = "api"
    [[route]]
    path = "/password"
    auth = { any = ["browser"] }
    revokes = { any = ["browser"], user = true }
    upstream = "api"
    [session.browser]
    cookie = "at"
    probe = { upstream = "api", path = "/v1/auth/session" }
    cache = "60s"
"#;

fn cookie(target: &str, session: &str) -> Call {
    get(target).header("cookie", &format!("at={session}"))
}

matrix! {
    async fn a_logout_ends_the_session_before_its_answer_leaves(via, speaks) {
        let backend = backend(speaks).await;
        let gateway = conf(SESSIONS).upstream("api", &backend.origin).run().await;
        let mut client = gateway.connect(via).await;
        for session in ["alice-1", "alice-2", "bob-1"] {
            assert_eq!(client.send(cookie("/me", session)).await.status, 200);
        }
        assert_eq!(client.send(cookie("/logout", "alice-1")).await.status, 204);
        assert_eq!(client.send(cookie("/me", "alice-1")).await.verdict(), refused(401, "session_invalid"));
        for session in ["alice-2", "bob-1"] {
            assert_eq!(client.send(cookie("/me", session)).await.status, 200);
        }
        assert_eq!(backend.probes.load(Ordering::SeqCst), 4, "the others are believed still");
    }
}

#[tokio::test]
async fn what_was_not_done_ends_nothing() {
    let backend = backend(Speaks::Http).await;
    let gateway = conf(SESSIONS).upstream("api", &backend.origin).run().await;
    assert_eq!(gateway.ask(cookie("/me", "alice-1")).await.status, 200);
    for path in ["/refused", "/failed", "/elsewhere", "/grpc"] {
        gateway.ask(cookie(path, "alice-1")).await;
        assert_eq!(gateway.ask(cookie("/me", "alice-1")).await.status, 200);
        assert_eq!(backend.probes.load(Ordering::SeqCst), 1, "{path}");
    }
}

#[tokio::test]
async fn a_password_change_ends_all_sessions_of_the_user() {
    let backend = backend(Speaks::Http).await;
    let gateway = conf(SESSIONS).upstream("api", &backend.origin).run().await;
    for session in ["alice-1", "alice-2", "bob-1"] {
        assert_eq!(gateway.ask(cookie("/me", session)).await.status, 200);
    }
    // The backend keeps the session that changed the password, and ends the others.
    backend.ended.lock().insert("alice-2".to_owned());
    assert_eq!(
        gateway.ask(cookie("/password", "alice-1")).await.status,
        200
    );
    let verdict = gateway.ask(cookie("/me", "alice-2")).await.verdict();
    assert_eq!(verdict, refused(401, "session_invalid"));
    assert_eq!(gateway.ask(cookie("/me", "alice-1")).await.status, 200);
    let probes = backend.probes.load(Ordering::SeqCst);
    assert_eq!(gateway.ask(cookie("/me", "bob-1")).await.status, 200);
    assert_eq!(backend.probes.load(Ordering::SeqCst), probes);
}

/// Requests that were under way when the logout passed, and came after it.
#[tokio::test]
async fn nobody_is_let_in_by_a_question_asked_before_the_logout() {
    let held = gate();
    let ended = Arc::<Mutex<bool>>::default();
    let (gone, hold) = (Arc::clone(&ended), held.clone());
    let origin = origin::http()
        .on("/v1/auth/session", move |_| {
            if *gone.lock() {
                Reply::empty(401)
            } else {
                Reply::json(&json!({ "user": { "user_id": "alice" } })).behind(&hold)
            }
        })
        .run()
        .await;
    let gateway = conf(SESSIONS).upstream("api", &origin).run().await;
    let client = gateway.connect(Via::H2c).await;
    let start = |target: &'static str| {
        let mut client = client.another();
        tokio::spawn(async move { client.send(cookie(target, "alice-1")).await })
    };
    let before = start("/me");
    origin.reached(1).await;
    *ended.lock() = true;
    assert_eq!(start("/logout").await.unwrap().status, 200);
    let after = start("/me");
    gateway
        .counted("vestibule_requests_in_flight", &[], 2.0)
        .await;
    held.open();
    assert_eq!(before.await.unwrap().status, 200, "it came before");
    let verdict = after.await.unwrap().verdict();
    assert_eq!(verdict, refused(401, "session_invalid"));
}

const TOKENS: &str = r#"
    [[route]]
    path = "/api"
    auth = { any = ["main"] }
    upstream = "api"
    [[route]]
    path = "/app"
    auth = { any = ["web"] }
    upstream = "api"
    [[route]]
    path = "/logout"
    auth = "none"
    revokes = { any = ["main", "web"] }
    upstream = "api"
    [[route]]
    path = "/password"
    auth = { any = ["main"] }
    revokes = { any = ["main"], user = true }
    upstream = "api"
    [[route]]
    path = "/backchannel"
    auth = "none"
    backchannel_logout = { issuer = "main", audiences = ["web-client"] }
    [session.web]
    cookie = "at"
    issuer = "main"
"#;

struct House {
    issuer: Issuer,
    origin: Origin,
    gateway: Gateway,
}

fn tokens(issuer: &Issuer, origin: &Origin, keys: &str) -> Builder {
    conf(TOKENS)
        .issuer_with(issuer, keys)
        .upstream("api", origin)
}

async fn house() -> House {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = tokens(&issuer, &origin, "").run().await;
    gateway.ready().await;
    House {
        issuer,
        origin,
        gateway,
    }
}

impl House {
    fn token(&self) -> Token {
        self.issuer.token()
    }

    async fn ask(&self, path: &str, token: &str) -> (u16, String) {
        self.gateway.ask(get(path).bearer(token)).await.verdict()
    }

    async fn tell(&self, logout: &Token) -> (u16, String) {
        self.gateway.ask(told(&logout.sign())).await.verdict()
    }

    /// A logout token of now, of the client that the endpoint is for.
    fn logout(&self, id: &str) -> Token {
        logout(self.token(), id)
    }
}

fn logout(token: Token, id: &str) -> Token {
    token
        .header("typ", "logout+jwt")
        .without("sub")
        .claim("aud", "web-client")
        .claim("jti", id)
        .claim("events", json!({ EVENT: {} }))
}

fn told(token: &str) -> Call {
    post("/backchannel", format!("logout_token={token}"))
        .header("content-type", "application/x-www-form-urlencoded")
}

#[tokio::test]
async fn a_jwt_that_was_logged_out_is_refused_until_it_would_have_expired() {
    let house = house().await;
    let one = house.token().claim("jti", "1").sign();
    let other = house.token().claim("jti", "2").sign();
    let unseen = house.token().claim("jti", "3").sign();
    for token in [&one, &other] {
        assert_eq!(house.ask("/api", token).await.0, 200);
    }
    // Seen or not: a good token that its bearer ends has ended.
    for token in [&one, &unseen] {
        assert_eq!(house.ask("/logout", token).await.0, 200);
        for _ in 0..2 {
            assert_eq!(
                house.ask("/api", token).await,
                refused(401, "token_revoked")
            );
        }
        let in_cookie = house.gateway.ask(cookie("/app", token)).await;
        assert_eq!(in_cookie.verdict(), refused(401, "token_revoked"));
    }
    assert_eq!(house.ask("/api", &other).await.0, 200);

    // A reload that changes the issuer forgets verdicts, not logouts.
    let changed = tokens(&house.issuer, &house.origin, "leeway = \"5s\"");
    assert_eq!(house.gateway.reload(&changed).await.status, 200);
    assert_eq!(house.ask("/api", &one).await, refused(401, "token_revoked"));
    assert_eq!(house.ask("/api", &other).await.0, 200);
    let ended = house
        .gateway
        .metric("vestibule_revocations_total", &[])
        .await;
    assert!((ended - 2.0).abs() < 0.5, "{ended}");
}

/// A logout route is public; what is shown there must not be able to harm anybody else.
#[tokio::test]
async fn credentials_that_are_not_good_end_nothing() {
    let house = house().await;
    let good = house.token().sign();
    let other = house.issuer.key(Algorithm::ES256).impostor();
    let call = get("/logout")
        .bearer(&house.token().signed_by(&other).sign())
        .header("cookie", "at=rubbish; at2=x");
    assert_eq!(house.gateway.ask(call).await.status, 200);
    for token in ["rubbish", "a.b.c", &house.token().expired().sign()] {
        assert_eq!(house.ask("/logout", token).await.0, 200);
    }
    assert_eq!(house.ask("/api", &good).await.0, 200);
    let ended = house
        .gateway
        .metric("vestibule_revocations_total", &[])
        .await;
    assert!(ended.abs() < 0.5, "{ended}");
    // Both that are shown, although either alone would do.
    let in_cookie = house.token().claim("jti", "2").sign();
    let both = cookie("/logout", &in_cookie).bearer(&good);
    assert_eq!(house.gateway.ask(both).await.status, 200);
    for token in [&good, &in_cookie] {
        assert_eq!(
            house.ask("/api", token).await,
            refused(401, "token_revoked")
        );
    }
}

#[tokio::test]
async fn a_password_change_ends_what_the_user_was_issued_before() {
    let house = house().await;
    let earlier = |sub: &str, jti: &str| {
        let token = house.token().claim("sub", sub).claim("jti", jti);
        token.claim("iat", now() - 10).sign()
    };
    let (one, other, bobs) = (
        earlier("alice", "1"),
        earlier("alice", "2"),
        earlier("bob", "3"),
    );
    for token in [&one, &other, &bobs] {
        assert_eq!(house.ask("/api", token).await.0, 200);
    }
    assert_eq!(house.ask("/password", &one).await.0, 200);
    for token in [&one, &other, &earlier("alice", "unseen")] {
        assert_eq!(
            house.ask("/api", token).await,
            refused(401, "token_revoked")
        );
    }
    assert_eq!(house.ask("/api", &bobs).await.0, 200);
    // What the answer itself brought.
    let new = house.token().claim("jti", "new").sign();
    assert_eq!(house.ask("/api", &new).await.0, 200);
}

matrix! {
    async fn an_issuers_word_ends_what_it_issued_before(via, speaks) {
        let issuer = issuer::run().await;
        let origin = origin::speaking(speaks).run().await;
        let gateway = tokens(&issuer, &origin, "").run().await;
        gateway.ready().await;
        let mut client = gateway.connect(via).await;
        let earlier = |jti: &str| issuer.token().claim("iat", now() - 10).claim("jti", jti);
        let seen = earlier("seen").sign();
        assert_eq!(client.send(get("/api").bearer(&seen)).await.status, 200);

        let word = logout(issuer.token(), "l1").claim("sub", "alice").claim("iat", now() - 1).sign();
        let answer = client.send(told(&word)).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-store"), "{}", answer.text());
        for token in [&seen, &earlier("unseen").sign()] {
            assert_eq!(client.send(get("/api").bearer(token)).await.verdict(), refused(401, "token_revoked"));
        }
        let bobs = earlier("bob").claim("sub", "bob").sign();
        assert_eq!(client.send(get("/api").bearer(&bobs)).await.status, 200);
        let later = issuer.token().claim("jti", "later").sign();
        assert_eq!(client.send(get("/api").bearer(&later)).await.status, 200, "a new login");
        // Good once.
        let answer = client.send(told(&word)).await;
        assert_eq!(answer.verdict(), refused(400, "logout_refused"));
        assert_eq!((answer.header("cache-control"), answer.header("content-type")), ("no-store", "application/problem+json"));
        assert_eq!(origin.saw().iter().filter(|seen| seen.target == "/backchannel").count(), 0);
    }
}

#[tokio::test]
async fn a_logout_of_one_login_leaves_the_others_alone() {
    let house = house().await;
    let of = |login: &str| house.token().claim("sid", login).claim("iat", now() - 10);
    let (phone, laptop) = (of("phone").sign(), of("laptop").sign());
    let untold = house.token().claim("iat", now() - 10).sign();
    for token in [&phone, &laptop, &untold] {
        assert_eq!(house.ask("/api", token).await.0, 200);
    }
    let word = house.logout("1").claim("sid", "phone");
    assert_eq!(house.tell(&word).await.0, 200);
    assert_eq!(
        house.ask("/api", &phone).await,
        refused(401, "token_revoked")
    );
    assert_eq!(house.ask("/api", &laptop).await.0, 200);
    assert_eq!(house.ask("/api", &untold).await.0, 200);
    // With the user named too, a token that does not tell its login may be of this one.
    let second = now();
    let word = house
        .logout("2")
        .claim("sid", "tablet")
        .claim("sub", "alice");
    assert_eq!(house.tell(&word.claim("iat", second)).await.0, 200);
    assert_eq!(house.ask("/api", &laptop).await.0, 200);
    assert_eq!(
        house.ask("/api", &untold).await,
        refused(401, "token_revoked")
    );
    let of_that_second = house.token().claim("jti", "2").claim("iat", second);
    assert_eq!(house.ask("/api", &of_that_second.sign()).await.0, 401);
    let later = house.token().claim("jti", "3").claim("iat", second + 1);
    assert_eq!(house.ask("/api", &later.sign()).await.0, 200);
}

#[tokio::test]
async fn a_token_that_does_not_say_when_it_was_issued_was_issued_before() {
    let house = house().await;
    let timeless = house.token().without("iat").sign();
    assert_eq!(house.ask("/api", &timeless).await.0, 200);
    let word = house.logout("1").claim("sub", "alice");
    assert_eq!(house.tell(&word).await.0, 200);
    assert_eq!(
        house.ask("/api", &timeless).await,
        refused(401, "token_revoked")
    );
}

#[tokio::test]
async fn forged_logout_tokens_end_nothing() {
    let house = house().await;
    let good = house.token().claim("iat", now() - 10).sign();
    let ids = AtomicUsize::new(0);
    let word = || {
        let id = ids.fetch_add(1, Ordering::SeqCst).to_string();
        house.logout(&id).claim("sub", "alice")
    };
    let key = house.issuer.key(Algorithm::ES256);
    let events = |events: Value| word().claim("events", events);
    let table: Vec<(&str, Token)> = vec![
        ("a stranger's", word().signed_by(&key.impostor())),
        (
            "another issuer's",
            word().claim("iss", "https://evil.example"),
        ),
        ("for another client", word().claim("aud", "other")),
        ("for the API", word().claim("aud", "api")),
        ("no aud", word().without("aud")),
        ("an access token", word().header("typ", "at+jwt")),
        ("a DPoP proof", word().header("typ", "dpop+jwt")),
        ("expired", word().claim("exp", now() - 60)),
        ("no exp", word().without("exp")),
        ("no iat", word().without("iat")),
        ("iat ahead", word().claim("iat", now() + 120)),
        ("nonce", word().claim("nonce", "n")),
        ("empty nonce", word().claim("nonce", json!(null))),
        ("no events", word().without("events")),
        ("events is a list", events(json!([EVENT]))),
        (
            "another event",
            events(json!({ "http://schemas.openid.net/event/other": {} })),
        ),
        ("the event is no object", events(json!({ EVENT: true }))),
        ("neither sub nor sid", word().without("sub")),
        ("sub is a number", word().claim("sub", 7)),
        ("empty sid", word().claim("sid", "")),
        ("no jti", word().without("jti")),
        ("empty jti", word().claim("jti", "")),
        ("crit", word().header("crit", json!(["exp"]))),
        ("none", word().header("alg", "none")),
        ("unknown kid", word().header("kid", "nobody")),
        ("a long sub", word().claim("sub", "x".repeat(2_000))),
    ];
    for (name, token) in table {
        assert_eq!(
            house.tell(&token).await,
            refused(400, "logout_refused"),
            "{name}"
        );
    }
    let sign = || word().sign();
    for (name, call) in [
        (
            "no form",
            post("/backchannel", format!("logout_token={}", sign())),
        ),
        (
            "JSON",
            post("/backchannel", sign()).header("content-type", "application/json"),
        ),
        (
            "twice",
            told(&format!("{}&logout_token={}", sign(), sign())),
        ),
        ("no token", told("")),
        (
            "another field",
            told("").body(crate::support::body::full(format!("token={}", sign()))),
        ),
        (
            "no UTF-8",
            told("").body(crate::support::body::full(b"logout_token=\xff".to_vec())),
        ),
        ("large", told(&"x".repeat(17 * 1024))),
    ] {
        let verdict = house.gateway.ask(call).await.verdict();
        assert_eq!(verdict, refused(400, "logout_refused"), "{name}");
    }
    let too_large = told(&"x".repeat(60 * 1024));
    assert_eq!(
        house.gateway.ask(too_large).await.verdict(),
        refused(413, "body_too_large")
    );
    for method in ["GET", "PUT", "DELETE"] {
        let call = call(method, &format!("/backchannel?logout_token={}", sign()));
        assert_eq!(
            house.gateway.ask(call).await.verdict(),
            refused(405, "method_refused")
        );
    }
    assert_eq!(house.ask("/api", &good).await.0, 200);
    let ended = house
        .gateway
        .metric("vestibule_revocations_total", &[])
        .await;
    assert!(ended.abs() < 0.5, "{ended}");
    // A logout token is no credential, whether its type says so or not, and other media types are none of its own.
    let shown = || word().claim("aud", "api");
    for token in [
        shown(),
        shown().header("typ", "JWT"),
        shown().header("typ", "at+jwt"),
        shown().without_header("typ"),
    ] {
        let verdict = house.ask("/api", &token.sign()).await;
        assert_eq!(verdict, refused(401, "token_type"));
    }
    let other_events = shown()
        .header("typ", "JWT")
        .claim("events", json!(["seen"]));
    assert_eq!(house.ask("/api", &other_events.sign()).await.0, 200);
    for typ in ["JWT", "logout+jwt", "application/logout+JWT"] {
        let fine = word().header("typ", typ).claim("sub", "carol");
        assert_eq!(house.tell(&fine).await.0, 200, "{typ}");
    }
    assert_eq!(
        house
            .tell(&word().without_header("typ").claim("sub", "carol"))
            .await
            .0,
        200
    );
    assert!(house.origin.heads() == 2);
}

#[tokio::test]
async fn a_logout_that_cannot_be_judged_now_is_503_and_may_come_again() {
    let house = house().await;
    house.issuer.fails(Fault::Status500);
    let new = Key::generate(Algorithm::ES256, "new");
    let word = logout(Token::new(&new, house.issuer.url()), "1").claim("sub", "alice");
    assert_eq!(house.tell(&word).await, refused(503, "keys_unavailable"));
    let known = house.logout("2").claim("sub", "alice");
    assert_eq!(house.tell(&known).await.0, 200, "known keys go on working");
}

#[tokio::test]
async fn what_cannot_work_does_not_start() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    for (route, why) in [
        (
            "auth = { any = [\"main\"] }\nbackchannel_logout = { issuer = \"main\" }",
            "auth = \"none\"",
        ),
        (
            "auth = \"none\"\nbackchannel_logout = { issuer = \"mian\" }",
            "did you mean `main`",
        ),
        (
            "auth = \"none\"\nupstream = \"api\"\nbackchannel_logout = { issuer = \"main\" }",
            "exactly one of",
        ),
        (
            "auth = \"none\"\nupstream = \"api\"\nrevokes = { any = [\"mian\"] }",
            "did you mean `main`",
        ),
        (
            "auth = \"none\"\nupstream = \"api\"\nrevokes = { any = [] }",
            "revokes.any",
        ),
        (
            "auth = \"none\"\nrespond = { status = 204 }\nrevokes = { any = [\"main\"] }",
            "needs an `upstream`",
        ),
    ] {
        let conf = conf(&format!("[[route]]\n{route}"))
            .issuer(&issuer)
            .upstream("api", &origin);
        let refusal = conf.try_run().unwrap_err().to_string();
        assert!(refusal.contains(why), "{why}: {refusal}");
    }
}
