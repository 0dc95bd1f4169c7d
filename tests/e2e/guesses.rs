//! Limits that count failures: whatever a backend's "no" looks like, in parallel, over every protocol, and for nobody else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::matrix;
use crate::support::body;
use crate::support::client::{self, Call, Told, Via, get, post, refused};
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::origin::{self, Origin, Reply, gate};

/// A login with three failures an hour, and what else is said of the limit.
fn login(origin: &Origin, keys: &str) -> Builder {
    conf("[[route]]\nname = \"login\"\npath = \"/login\"\nauth = \"none\"\nlimits = [\"login\"]\nupstream = \"api\"")
        .upstream("api", origin)
        .and(&format!("[limit.login]\nrate = \"1/h\"\nburst = 3\ncount = \"failures\"\n{keys}\n"))
}

/// A backend that knows one password.
fn backend(right: Reply, wrong: Reply) -> impl Fn(&origin::Seen) -> Reply + Send + Sync + 'static {
    move |seen| match seen.target.as_str() {
        "/login?right" => right.clone(),
        _ => wrong.clone(),
    }
}

matrix! {
    async fn only_failures_are_charged(via, speaks) {
        let answers = backend(Reply::text("welcome"), Reply::empty(401));
        let origin = origin::speaking(speaks).otherwise(answers).run().await;
        let gateway = login(&origin, "").run().await;
        let mut client = gateway.connect(via).await;
        for _ in 0..6 {
            assert_eq!(client.send(get("/login?right")).await.status, 200);
        }
        for _ in 0..3 {
            assert_eq!(client.send(get("/login?wrong")).await.status, 401);
        }
        assert_eq!(client.send(get("/login?right")).await.verdict(), refused(429, "rate_limited"));
        assert_eq!(origin.heads(), 9);
        gateway.counted("vestibule_limit_failures_total", &[("limit", "login")], 3.0).await;
    }
}

#[tokio::test]
async fn a_failure_can_be_a_header_or_where_a_redirect_leads() {
    let redirect = |to: &str| Reply::empty(302).header("location", to);
    let page = |told: &str| Reply::text("a page").header("x-login", told);
    for (rule, right, wrong) in [
        (
            "location = \"~ [?&]error=\"",
            redirect("/home"),
            redirect("/login?error=1"),
        ),
        ("x-login = \"failed\"", page("fine"), page("failed")),
    ] {
        let origin = origin::http().otherwise(backend(right, wrong)).run().await;
        let gateway = login(&origin, &format!("failure = {{ headers = {{ {rule} }} }}"))
            .run()
            .await;
        for _ in 0..6 {
            assert_ne!(gateway.ask(get("/login?right")).await.status, 429);
        }
        for _ in 0..3 {
            assert_ne!(gateway.ask(get("/login?wrong")).await.status, 429);
        }
        assert_eq!(gateway.ask(get("/login?wrong")).await.status, 429, "{rule}");
        assert_eq!(origin.heads(), 9);
    }
}

#[tokio::test]
async fn a_grpc_status_is_seen_in_headers_and_in_trailers() {
    let grpc = |reply: Reply| reply.header("content-type", "application/grpc");
    let right = grpc(Reply::chunks(["data"])).trailer("grpc-status", "0");
    for wrong in [
        grpc(Reply::empty(200)).header("grpc-status", "16"),
        grpc(Reply::chunks([""; 0])).trailer("grpc-status", "16"),
        grpc(Reply::chunks(["data"])).trailer("grpc-status", "7"),
    ] {
        let answers = backend(right.clone(), wrong);
        let origin = origin::h2c().otherwise(answers).run().await;
        let gateway = login(&origin, "").run().await;
        let call = |target| post(target, "").header("content-type", "application/grpc");
        let mut client = gateway.connect(Via::H2c).await;
        for _ in 0..6 {
            client.send(call("/login?right")).await;
        }
        for _ in 0..3 {
            client.send(call("/login?wrong")).await;
        }
        let refused = client.send(call("/login?right")).await;
        assert_eq!(refused.header("grpc-status"), "8");
        assert_eq!(origin.heads(), 9);
    }
}

/// A frame of gRPC-Web or of a Connect stream.
fn frame(flag: u8, message: &str) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag][..], &length, message.as_bytes()].concat().into()
}

#[tokio::test]
async fn a_status_is_seen_where_it_stands_in_the_body() {
    let web = "application/grpc-web+proto";
    let text = "application/grpc-web-text+proto";
    let connect = "application/connect+json";
    let coded = |frame: Bytes| Bytes::from(STANDARD.encode(frame));
    for (content_type, right, wrong) in [
        (
            web,
            frame(0x80, "grpc-status: 0\r\n"),
            frame(0x80, "grpc-status: 16\r\n"),
        ),
        (
            text,
            coded(frame(0x80, "grpc-status:0\r\n")),
            coded(frame(0x80, "grpc-status:7\r\n")),
        ),
        (
            connect,
            frame(2, "{}"),
            frame(2, r#"{"error":{"code":"unauthenticated"}}"#),
        ),
    ] {
        let answer = |closing| Reply::chunks([closing]).header("content-type", content_type);
        let answers = backend(answer(right), answer(wrong));
        let origin = origin::http().otherwise(answers).run().await;
        let gateway = login(&origin, "").run().await;
        let call = |target| post(target, "").header("content-type", content_type);
        for _ in 0..6 {
            gateway.ask(call("/login?right")).await;
        }
        for _ in 0..6 {
            gateway.ask(call("/login?wrong")).await;
        }
        assert_eq!(origin.heads(), 9, "{content_type}");
    }
}

#[tokio::test]
async fn a_status_is_seen_before_grpc_is_made_grpc_web() {
    let wrong = Reply::chunks([""; 0])
        .header("content-type", "application/grpc")
        .trailer("grpc-status", "16");
    let origin = origin::h2c().reply(wrong).run().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nlimits = [\"login\"]\nupstream = \"api\"\ngrpc_web = \"translate\"\n\
                        [limit.login]\nrate = \"3/h\"\ncount = \"failures\"")
    .upstream("api", &origin)
    .run()
    .await;
    for _ in 0..6 {
        let call = post("/a.B/C", "").header("content-type", "application/grpc-web-text+proto");
        gateway.ask(call).await;
    }
    assert_eq!(origin.heads(), 3);
}

#[tokio::test]
async fn guesses_made_at_once_reach_the_backend_no_more_often_than_one_by_one() {
    let gate = gate();
    let origin = origin::h2c()
        .reply(Reply::empty(401).behind(&gate))
        .run()
        .await;
    let gateway = login(&origin, "").run().await;
    let client = gateway.connect(Via::H2c).await;
    let streams: Vec<_> = (0..50)
        .map(|n| {
            let mut client = client.another();
            let target = format!("/login?{n}");
            tokio::spawn(async move { client.send(get(&target)).await.status.as_u16() })
        })
        .collect();
    origin.reached(3).await;
    gateway
        .counted(
            "vestibule_limit_decisions_total",
            &[("limit", "login"), ("decision", "refused")],
            47.0,
        )
        .await;
    gate.open();
    let mut tried = 0;
    for stream in streams {
        tried += usize::from(stream.await.unwrap() == 401);
    }
    assert_eq!((tried, origin.heads()), (3, 3));
    assert_eq!(gateway.ask(get("/login")).await.status, 429);
}

#[tokio::test]
async fn leaving_before_the_answer_is_no_way_to_guess_for_free() {
    let origin = origin::h2c().reply(Reply::never()).run().await;
    let gateway = login(&origin, "").run().await;
    for guess in 1..=3 {
        let mut client = gateway.connect(Via::H2c).await;
        let asked = tokio::spawn(async move { client.try_send(get("/login")).await.is_ok() });
        origin.reached(guess).await;
        asked.abort();
        let failures = guess as f64;
        gateway
            .counted(
                "vestibule_limit_failures_total",
                &[("limit", "login")],
                failures,
            )
            .await;
    }
    assert_eq!(gateway.ask(get("/login")).await.status, 429);
    assert_eq!(origin.heads(), 3);
}

#[tokio::test]
async fn a_short_deadline_is_no_way_to_guess_for_free() {
    let origin = origin::h2c().reply(Reply::never()).run().await;
    let gateway = login(&origin, "").run().await;
    let call = || {
        post("/login", "")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "50m")
    };
    for _ in 0..6 {
        gateway.send(Via::H2c, call()).await;
    }
    assert_eq!(origin.heads(), 3);
}

#[tokio::test]
async fn neither_a_preflight_nor_the_page_of_the_form_is_a_success_of_the_account() {
    let answers = |seen: &origin::Seen| match seen.method.as_str() {
        "POST" => Reply::empty(401),
        _ => Reply::text("a form"),
    };
    let origin = origin::http().otherwise(answers).run().await;
    let gateway = conf(
        "[[route]]\nauth = \"none\"\nlimits = [\"login\"]\nupstream = \"api\"\n\
         cors = { origins = [\"https://app.example\"] }\n\
         [limit.login]\nrate = \"3/h\"\nkey = \"ip+json:email\"\ncount = \"failures\"",
    )
    .upstream("api", &origin)
    .run()
    .await;
    let named = |method: &str| {
        let call = client::call(method, "/login").header("content-type", "application/json");
        call.body(body::full(r#"{"email":"ada@example.com"}"#))
    };
    let preflight = || {
        named("OPTIONS")
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST")
    };
    for failures in 1..=3 {
        assert_eq!(gateway.ask(named("POST")).await.status, 401);
        for good in [preflight(), named("GET"), named("OPTIONS")] {
            let answer = gateway.ask(good).await;
            assert_eq!(answer.status.is_success(), failures < 3);
        }
    }
    let answer = gateway.ask(named("POST")).await;
    assert_eq!(answer.verdict(), refused(429, "rate_limited"));
}

#[tokio::test]
async fn a_ban_outlasts_the_rate() {
    let origin = origin::http().reply(Reply::empty(401)).run().await;
    let gateway = login(&origin, "ban = \"2h\"").run().await;
    for _ in 0..3 {
        assert_eq!(gateway.ask(get("/login")).await.status, 401);
    }
    let refused = gateway.ask(get("/login")).await;
    assert_eq!(refused.status, 429);
    let wait: u32 = refused.header("retry-after").parse().unwrap();
    assert!((7_100..=7_200).contains(&wait), "{wait}");
    gateway
        .counted("vestibule_limit_bans_total", &[("limit", "login")], 1.0)
        .await;
}

#[tokio::test]
async fn a_reload_lifts_no_ban() {
    let origin = origin::http().reply(Reply::empty(401)).run().await;
    let conf = login(&origin, "ban = \"2h\"");
    let gateway = conf.clone().run().await;
    for _ in 0..3 {
        assert_eq!(gateway.ask(get("/login")).await.status, 401);
    }
    assert_eq!(gateway.ask(get("/login")).await.status, 429);
    let more = conf.and("[limit.other]\nrate = \"1/s\"\n");
    assert_eq!(gateway.reload(&more).await.status, 200);
    let refused = gateway.ask(get("/login")).await;
    assert_eq!(refused.status, 429);
    let wait: u32 = refused.header("retry-after").parse().unwrap();
    assert!((7_100..=7_200).contains(&wait), "{wait}");
    assert_eq!(origin.heads(), 3);
}

#[tokio::test]
async fn a_ban_that_is_only_observed_keeps_nobody_out() {
    let origin = origin::http().reply(Reply::empty(401)).run().await;
    let observed = "ban = \"2h\"\nmode = \"observe\"";
    let gateway = login(&origin, observed).run().await;
    for _ in 0..6 {
        assert_eq!(gateway.ask(get("/login")).await.status, 401);
    }
    assert_eq!(origin.heads(), 6);
    let labels = [("limit", "login"), ("decision", "observed")];
    gateway
        .counted("vestibule_limit_decisions_total", &labels, 3.0)
        .await;
}

/// Two at once, two in line.
fn narrow(origin: &Origin) -> Builder {
    conf("[[route]]\npath = \"/login\"\nauth = \"none\"\nlimits = [\"narrow\"]\nupstream = \"api\"\n\
          [limit.narrow]\nconcurrency = 2\nqueue = 2\nqueue_timeout = \"30s\"\nkey = [\"header:x-account\"]")
    .upstream("api", origin)
}

#[tokio::test]
async fn what_is_over_a_concurrency_waits_its_turn_and_what_is_over_the_line_is_refused() {
    let gate = gate();
    let origin = origin::h2c()
        .reply(Reply::text("done").behind(&gate))
        .run()
        .await;
    let gateway = narrow(&origin).run().await;
    let client = gateway.connect(Via::H2c).await;
    let ask = |account: &'static str| {
        let mut client = client.another();
        let call = get("/login").header("x-account", account);
        tokio::spawn(async move { client.send(call).await })
    };
    let under_way = [ask("ada"), ask("ada")];
    origin.reached(2).await;
    let in_line = [ask("ada"), ask("ada")];
    gateway
        .counted("vestibule_limit_waiting", &[("limit", "narrow")], 2.0)
        .await;
    let refusal = ask("ada").await.unwrap();
    assert_eq!(refusal.verdict(), refused(429, "concurrency_limited"));
    let bystander = ask("bob");
    origin.reached(3).await;
    gate.open();
    for asked in under_way.into_iter().chain(in_line).chain([bystander]) {
        assert_eq!(asked.await.unwrap().status, 200);
    }
    assert_eq!(origin.heads(), 5);
}

#[tokio::test]
async fn a_seat_comes_back_when_a_client_leaves() {
    let origin = origin::h2c()
        .otherwise(|seen| match seen.target.as_str() {
            "/login?never" => Reply::never(),
            _ => Reply::text("done"),
        })
        .run()
        .await;
    let gateway = narrow(&origin).run().await;
    for leavers in 1..=4 {
        let mut client = gateway.connect(Via::H2c).await;
        let asked = tokio::spawn(async move { client.try_send(get("/login?never")).await.is_ok() });
        origin.reached(leavers).await;
        asked.abort();
    }
    assert_eq!(gateway.ask(get("/login")).await.status, 200);
}

/// The demo backend, whose logins are real, behind a limit on failures by address.
async fn demo(keys: &str) -> (vestibule::demo::backend::Backend, Gateway) {
    let settings = vestibule::demo::Settings::default();
    let backend = vestibule::demo::backend::start(settings).await.unwrap();
    let gateway = conf("[[route]]\npath = \"/v1/auth/login\"\nauth = \"none\"\nlimits = [\"login\"]\nupstream = \"api\"")
        .upstream_at("api", "http", backend.address, "")
        .listen("trusted_proxies = [\"127.0.0.0/8\"]")
        .and(&format!("[limit.login]\ncount = \"failures\"\n{keys}\n"))
        .run()
        .await;
    (backend, gateway)
}

fn sign_in(from: &str, email: &str, password: &str) -> Call {
    let credentials = serde_json::json!({ "email": email, "password": password });
    post("/v1/auth/login", credentials.to_string())
        .header("content-type", "application/json")
        .header("x-forwarded-for", from)
}

fn ada(from: &str) -> Call {
    sign_in(
        from,
        vestibule::demo::SEEDED_EMAIL,
        vestibule::demo::SEEDED_PASSWORD,
    )
}

/// Leaked pairs of addresses and passwords, tried one after another from one network.
#[tokio::test]
async fn a_stuffing_drill_ends_after_a_few_pairs_and_nobody_else_notices() {
    let (backend, gateway) = demo("rate = [\"1/m\", \"8/h\"]\nburst = 5\nban = \"15m\"").await;
    let mut tried = 0;
    for n in 0..60 {
        let email = format!("user{n}@example.com");
        let call = sign_in(&format!("2001:db8:bad:1::{n:x}"), &email, "letmein");
        tried += usize::from(gateway.ask(call).await.status == 401);
        if n % 6 == 0 {
            assert_eq!(gateway.ask(ada("192.0.2.1")).await.status, 200);
        }
    }
    assert_eq!(tried, 5);
    assert_eq!(backend.requests(), 5 + 10);
    // Not even a pair that is right is tried while the ban lasts.
    assert_eq!(gateway.ask(ada("2001:db8:bad:1::ffff")).await.status, 429);
}

/// One password, many accounts, many connections at once.
#[tokio::test]
async fn a_spraying_drill_in_parallel_ends_as_soon() {
    let (backend, gateway) = demo("rate = \"5/h\"").await;
    let spraying: Vec<_> = (0..4)
        .map(|thread| {
            let address = gateway.address(Via::H2c);
            tokio::spawn(async move {
                let client = client::connect(address, Via::H2c).await;
                let mut tried = 0;
                for n in 0..20 {
                    let email = format!("user{thread}{n}@example.com");
                    let call = sign_in("203.0.113.66", &email, "Summer2026!");
                    tried += usize::from(client.another().send(call).await.status == 401);
                }
                tried
            })
        })
        .collect();
    let mut tried = 0;
    for sprayer in spraying {
        tried += sprayer.await.unwrap();
    }
    assert_eq!((tried, backend.requests()), (5, 5));
    assert_eq!(gateway.ask(ada("192.0.2.1")).await.status, 200);
}
