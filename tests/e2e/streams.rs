//! Answers that last: events and downloads pass as they come, and a stream ends with the credential that opened it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::matrix;
use crate::support::client::{Call, Via, call, get};
use crate::support::gateway::{Builder, Gateway, conf, open_to};
use crate::support::issuer::{self, Issuer};
use crate::support::origin::{self, Gate, Origin, Reply, Speaks, gate};
use crate::support::token::now;
use crate::support::websocket::{self, Act, TEXT};
use crate::support::{binary, body, eventually, json_lines, raw, soon};

/// What comes next of an answer; `None` at a clean end.
async fn next(response: &mut Response<Incoming>) -> Option<Result<Bytes, String>> {
    let frame = soon("a frame", response.frame()).await?;
    Some(frame.map(origin::data).map_err(|error| error.to_string()))
}

/// What an answer ends with: trailers, a clean end, or an error.
async fn end(response: &mut Response<Incoming>) -> Result<Option<http::HeaderMap>, String> {
    let mut trailers = None;
    while let Some(frame) = soon("the end", response.frame()).await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Ok(found) = frame.into_trailers() {
            trailers = Some(found);
        }
    }
    Ok(trailers)
}

// === As it comes ===

matrix! {
    async fn the_first_event_arrives_before_there_is_a_second(via, speaks) {
        let gate = gate();
        let events = Reply::two_halves("data: one\n\n", &gate, "data: two\n\n");
        let origin = origin::speaking(speaks)
            .reply(events.header("content-type", "text/event-stream"))
            .run()
            .await;
        let gateway = open_to(&origin).run().await;
        let mut client = gateway.connect(via).await;
        assert_eq!(client.start(get("/warm")).await.unwrap().status(), 200);
        let mut client = gateway.connect(via).await;
        let asked = Instant::now();
        let mut response = client.start(get("/events")).await.unwrap();
        assert_eq!(next(&mut response).await.unwrap().unwrap(), "data: one\n\n");
        let waited = asked.elapsed();
        assert!(waited < Duration::from_millis(500), "{waited:?}");
        // A reload does not disturb it.
        assert_eq!(gateway.reload(&open_to(&origin).and("[limit.x]\nrate = \"1/s\"")).await.status, 200);
        gate.open();
        assert_eq!(next(&mut response).await.unwrap().unwrap(), "data: two\n\n");
        assert_eq!(end(&mut response).await, Ok(None));
    }
}

#[tokio::test]
async fn uploads_pass_as_they_come_as_well() {
    let origin = origin::http().early("/echo", Reply::echo()).run().await;
    let gateway = open_to(&origin).run().await;
    for via in Via::ALL {
        let (sender, payload) = body::channel();
        let mut client = gateway.connect(via).await;
        sender.chunk("one");
        let mut response = client
            .start(call("POST", "/echo").body(payload))
            .await
            .unwrap();
        assert_eq!(
            next(&mut response).await.unwrap().unwrap(),
            "one",
            "{via:?}"
        );
        sender.chunk("two");
        assert_eq!(next(&mut response).await.unwrap().unwrap(), "two");
        drop(sender);
        assert_eq!(end(&mut response).await, Ok(None));
    }
}

#[tokio::test]
async fn a_slow_reader_of_a_long_download_holds_the_origin_back() {
    let taken = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&taken);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(flood(listener, counter));
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream_at("api", "http", address, "")
        .run()
        .await;
    for via in [Via::H1, Via::TlsH2] {
        let mut client = gateway.connect(via).await;
        let before = taken.load(Ordering::SeqCst);
        let mut response = client.start(get("/")).await.unwrap();
        assert!(next(&mut response).await.unwrap().is_ok());
        let mut last = 0;
        eventually("the origin is held back", async || {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = taken.load(Ordering::SeqCst);
            std::mem::replace(&mut last, now) == now
        })
        .await;
        // What sockets and windows hold.
        assert!(
            last - before < 24 << 20,
            "{via:?}: {} MiB",
            (last - before) >> 20
        );
    }
}

/// Answers one request after the other with chunks for ever.
async fn flood(listener: TcpListener, taken: Arc<AtomicUsize>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let taken = Arc::clone(&taken);
        tokio::spawn(async move {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            let chunk = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {
                taken.fetch_add(chunk.len(), Ordering::SeqCst);
            }
        });
    }
}

// === Bound to the credential ===

/// Events that go on until the gate opens, for a caller with a token.
async fn house(speaks: Speaks, keys: &str) -> (Issuer, Origin, Gate, Gateway) {
    let issuer = issuer::run().await;
    let gate = gate();
    let events = Reply::two_halves("data: one\n\n", &gate, "data: two\n\n");
    let grpc = Reply::two_halves("\0\0\0\0\x01a", &gate, "\0\0\0\0\x01b")
        .header("content-type", "application/grpc")
        .trailer("grpc-status", "0");
    let web = Reply::two_halves("\0\0\0\0\x01a", &gate, "")
        .header("content-type", "application/grpc-web+proto");
    let half = Reply::two_halves("\0\0\0\0\x02a", &gate, "")
        .header("content-type", "application/grpc-web+proto");
    let connect = Reply::two_halves("\0\0\0\0\x02{}", &gate, "")
        .header("content-type", "application/connect+json");
    let origin = origin::speaking(speaks)
        .reply(events.header("content-type", "text/event-stream"))
        .path("/grpc", grpc)
        .path("/web", web)
        .path("/half", half)
        .path("/connect", connect)
        .run()
        .await;
    let gateway = bound(&issuer, &origin, keys).run().await;
    gateway.ready().await;
    (issuer, origin, gate, gateway)
}

fn bound(issuer: &Issuer, origin: &Origin, keys: &str) -> Builder {
    conf(&format!(
        "[[route]]\nname = \"events\"\nauth = {{ any = [\"main\"] }}\nupstream = \"api\"\n{keys}"
    ))
    .issuer(issuer)
    .upstream("api", origin)
}

fn short_lived(issuer: &Issuer) -> String {
    issuer.token().claim("exp", now() + 2).sign()
}

matrix! {
    async fn an_answer_under_way_is_cut_off_when_its_token_expires(via, speaks) {
        let (issuer, _origin, _gate, gateway) = house(speaks, "").await;
        let mut client = gateway.connect(via).await;
        let opened = Instant::now();
        let call = get("/").bearer(&short_lived(&issuer));
        let mut response = client.start(call).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(next(&mut response).await.unwrap().unwrap(), "data: one\n\n");
        // An error, and never what could be taken for the end.
        assert!(end(&mut response).await.is_err());
        let lasted = opened.elapsed();
        assert!(lasted > Duration::from_millis(800) && lasted < Duration::from_secs(4), "{lasted:?}");
        // The upstream's request is given up.
        gateway.settled().await;
        let labels = [("route", "events"), ("how", "expired")];
        gateway.counted("vestibule_streams_lapsed_total", &labels, 1.0).await;
    }
}

#[tokio::test]
async fn a_cut_answer_lacks_its_last_chunk() {
    let (issuer, _origin, _gate, gateway) = house(Speaks::Http, "").await;
    let mut dialogue = raw::open(gateway.at("plain")).await;
    let token = short_lived(&issuer);
    dialogue
        .send(format!(
            "GET / HTTP/1.1\r\nhost: test.example\r\nauthorization: Bearer {token}\r\n\r\n"
        ))
        .await;
    let heard = String::from_utf8(dialogue.until_closed().await).unwrap();
    assert!(heard.ends_with("\r\nB\r\ndata: one\n\n\r\n"), "{heard}");
}

#[tokio::test]
async fn calls_end_in_their_own_words() {
    for speaks in [Speaks::H2c, Speaks::Http] {
        let (issuer, _origin, _gate, gateway) = house(speaks, "").await;
        let token = short_lived(&issuer);
        let rpc = |path: &str, media: &str| {
            call("POST", path)
                .header("content-type", media)
                .header("te", "trailers")
                .bearer(&token)
        };
        let mut calls = Vec::new();
        for (via, path, media) in [
            (Via::H2c, "/grpc", "application/grpc"),
            (Via::TlsH2, "/grpc", "application/grpc"),
            (Via::H1, "/web", "application/grpc-web+proto"),
            (Via::TlsH2, "/web", "application/grpc-web+proto"),
            (Via::H1, "/connect", "application/connect+json"),
            (Via::H1, "/half", "application/grpc-web+proto"),
        ] {
            let mut client = gateway.connect(via).await;
            let response = client.start(rpc(path, media)).await.unwrap();
            assert_eq!(response.status(), 200);
            calls.push((path, client, response));
        }
        for (path, _client, mut response) in calls {
            let mut text = Vec::new();
            let mut trailers = None;
            let mut broken = false;
            while let Some(frame) = soon("the end", response.frame()).await {
                match frame {
                    Err(_) => broken = true,
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => text.extend(data),
                        Err(frame) => trailers = frame.into_trailers().ok(),
                    },
                }
            }
            let text = String::from_utf8_lossy(&text).into_owned();
            match path {
                "/grpc" => {
                    let trailers = trailers.expect("trailers");
                    assert_eq!(trailers["grpc-status"], "16");
                    assert!(
                        trailers["grpc-message"]
                            .to_str()
                            .unwrap()
                            .contains("token_expired")
                    );
                }
                "/web" => assert!(
                    text.contains("grpc-status:16") || text.contains("grpc-status: 16"),
                    "{text:?}"
                ),
                "/connect" => assert!(
                    text.contains("\"unauthenticated\"") && text.contains("token_expired"),
                    "{text:?}"
                ),
                // Within a message there is no room for words.
                _ => assert!(broken && text == "\0\0\0\0\x02a", "{text:?}"),
            }
            assert_eq!(broken, path == "/half", "{path}");
        }
        gateway.settled().await;
    }
}

#[tokio::test]
async fn a_download_that_never_pauses_is_cut_off_as_well() {
    let issuer = issuer::run().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(flood(listener, Arc::default()));
    let gateway =
        conf("[[route]]\nname = \"events\"\nauth = { any = [\"main\"] }\nupstream = \"api\"")
            .issuer(&issuer)
            .upstream_at("api", "http", address, "")
            .run()
            .await;
    gateway.ready().await;
    for via in [Via::H1, Via::H2c] {
        let mut client = gateway.connect(via).await;
        let call = get("/").bearer(&short_lived(&issuer));
        let mut response = client.start(call).await.unwrap();
        assert!(end(&mut response).await.is_err(), "{via:?}");
    }
}

#[tokio::test]
async fn a_route_may_let_streams_go_on() {
    let keys = "stream_auth = \"free\"\n[[route]]\npath = \"/bound\"\nauth = { any = [\"main\"] }\nupstream = \"api\"";
    let (issuer, _origin, gate, gateway) = house(Speaks::Http, keys).await;
    let mut client = gateway.connect(Via::H1).await;
    let token = short_lived(&issuer);
    let mut response = client.start(get("/").bearer(&token)).await.unwrap();
    assert!(next(&mut response).await.unwrap().is_ok());
    // By then the same token has ended another.
    let mut bound = gateway.connect(Via::H1).await;
    let mut other = bound.start(get("/bound").bearer(&token)).await.unwrap();
    assert!(end(&mut other).await.is_err());
    gate.open();
    assert_eq!(next(&mut response).await.unwrap().unwrap(), "data: two\n\n");
    assert_eq!(end(&mut response).await, Ok(None));
}

#[tokio::test]
async fn a_websocket_is_closed_with_4401_when_its_token_expires() {
    let issuer = issuer::run().await;
    // A message of which half has come: its rest comes before the close frame.
    let message = websocket::frame(TEXT, &[b'x'; 1000], true, None);
    let chat = websocket::origin(Act::Echo).await;
    let gateway = chatting(&issuer, &chat).run().await;
    gateway.ready().await;
    let token = short_lived(&issuer);
    let lines = format!("authorization: Bearer {token}\r\n");
    let mut h1 = websocket::open(gateway.at("plain"), Via::H1, &lines).await;
    let mut tls = websocket::open(gateway.at("secure"), Via::TlsH1, &lines).await;
    let carrier = websocket::carrier(gateway.at("plain"), Via::H2c).await;
    let mut fields = websocket::version();
    fields.insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut h2 = carrier.open_with("http", fields).await;
    for _ in 0..3 {
        h1.echoes(TEXT, &[b'x'; 100]).await;
        tls.echoes(TEXT, &[b'y'; 70_000]).await;
        h2.echoes(TEXT, &[b'z'; 10]).await;
    }
    assert_eq!(h1.closed().await, 4401);
    assert_eq!(tls.closed().await, 4401);
    assert_eq!(h2.closed().await, 4401);
    drop((h1, tls, h2, carrier));
    chat.ended().await;
    let labels = [("how", "expired")];
    gateway
        .counted("vestibule_tunnels_ended_total", &labels, 3.0)
        .await;

    let half = websocket::origin(Act::Say(message[..500].to_vec())).await;
    let gateway = chatting(&issuer, &half).run().await;
    gateway.ready().await;
    let lines = format!("authorization: Bearer {}\r\n", short_lived(&issuer));
    let mut socket = websocket::open(gateway.at("plain"), Via::H1, &lines).await;
    // The rest never comes: it is cut off, and nothing is put into the middle of a frame.
    socket.cut_within(&message[..500]).await;
}

fn chatting(issuer: &Issuer, chat: &websocket::Origin) -> Builder {
    conf("[[route]]\nname = \"chat\"\nauth = { any = [\"main\"] }\nupstream = \"api\"\nupgrade = [\"websocket\"]")
        .issuer(issuer)
        .upstream_at("api", "http", chat.address, "")
}

#[tokio::test]
async fn the_log_tells_why_a_stream_was_cut_off() {
    let issuer = issuer::run().await;
    let gate = gate();
    let origin = origin::http()
        .reply(Reply::two_halves("one", &gate, "two"))
        .run()
        .await;
    let conf = bound(&issuer, &origin, "").and("[log]\naccess = \"stdout\"");
    let mut process = binary::run(&conf).await;
    let mut admin = crate::support::client::connect(process.admin(), Via::H1).await;
    eventually("ready", async || {
        admin.send(get("/readyz")).await.status == 200
    })
    .await;
    let mut client = crate::support::client::connect(process.at("plain"), Via::H1).await;
    let call = get("/").bearer(&short_lived(&issuer));
    let mut response = client.start(call).await.unwrap();
    assert!(end(&mut response).await.is_err());
    process.signal("-TERM");
    let lines = json_lines(&process.ended().await.1);
    assert_eq!(lines.len(), 1);
    for (key, value) in [
        ("ended", json!("expired")),
        ("reason", json!("token_expired")),
        ("outcome", json!("aborted")),
        ("status", json!(200)),
        ("bytes_out", json!(3)),
    ] {
        assert_eq!(lines[0][key], value, "{key} in {}", lines[0]);
    }
}

// === Revoked ===

const SESSIONS: &str = r#"
    [[route]]
    name = "events"
    path = "/events"
    auth = { any = ["main", "browser"] }
    upstream = "api"
    [[route]]
    name = "chat"
    path = "/socket"
    auth = { any = ["main", "browser"] }
    upgrade = ["websocket"]
    upstream = "chat"
    [[route]]
    path = "/logout"
    auth = "none"
    revokes = { any = ["main", "browser"] }
    upstream = "api"
    [[route]]
    path = "/password"
    auth = { any = ["main", "browser"] }
    revokes = { any = ["main", "browser"], user = true }
    upstream = "api"
    [session.browser]
    cookie = "at"
    probe = { upstream = "api", path = "/session" }
    cache = "60s"
"#;

async fn sessions() -> (Issuer, Origin, websocket::Origin, Gateway) {
    let issuer = issuer::run().await;
    let events = Reply::two_halves("data: one\n\n", &gate(), "never");
    let origin = origin::http()
        .on("/session", |seen| {
            let cookie = seen.header("cookie").to_owned();
            let user = cookie
                .trim_start_matches("at=")
                .split('-')
                .next()
                .unwrap()
                .to_owned();
            Reply::json(&json!({ "user": { "user_id": user } }))
        })
        .path("/events", events)
        .path("/logout", Reply::empty(204))
        .path("/password", Reply::empty(204))
        .run()
        .await;
    let chat = websocket::origin(Act::Echo).await;
    let gateway = conf(SESSIONS)
        .issuer(&issuer)
        .upstream("api", &origin)
        .upstream_at("chat", "http", chat.address, "")
        .run()
        .await;
    gateway.ready().await;
    (issuer, origin, chat, gateway)
}

fn by_cookie(target: &str, session: &str) -> Call {
    get(target).header("cookie", &format!("at={session}"))
}

async fn open(
    gateway: &Gateway,
    call: Call,
) -> (crate::support::client::Client, Response<Incoming>) {
    let mut client = gateway.connect(Via::H2c).await;
    let mut response = client.start(call).await.unwrap();
    assert_eq!(next(&mut response).await.unwrap().unwrap(), "data: one\n\n");
    (client, response)
}

#[tokio::test]
async fn a_logout_ends_the_streams_of_its_session_and_no_others() {
    let (issuer, _origin, _chat, gateway) = sessions().await;
    let token = issuer.token().sign();
    let other_token = issuer.token().claim("sub", "bob").sign();
    let (_a, mut alice) = open(&gateway, by_cookie("/events", "alice-1")).await;
    let (_b, mut again) = open(&gateway, by_cookie("/events", "alice-2")).await;
    let (_c, mut bearer) = open(&gateway, get("/events").bearer(&token)).await;
    let (_d, mut other) = open(&gateway, get("/events").bearer(&other_token)).await;
    let lines = "cookie: at=alice-1\r\norigin: http://test.example\r\n";
    let mut socket = websocket::open(gateway.at("plain"), Via::H1, lines).await;
    socket.echoes(TEXT, b"hello").await;
    // Streams that have lasted are watched over; the end comes at once.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let asked = Instant::now();
    assert_eq!(
        gateway.ask(by_cookie("/logout", "alice-1")).await.status,
        204
    );
    assert!(end(&mut alice).await.is_err());
    assert_eq!(socket.closed().await, 4401);
    assert!(
        asked.elapsed() < Duration::from_millis(900),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(gateway.ask(get("/logout").bearer(&token)).await.status, 204);
    assert!(end(&mut bearer).await.is_err());
    // All of the user, in the end.
    let lines = "cookie: at=alice-3\r\norigin: http://test.example\r\n";
    let mut third = websocket::open(gateway.at("plain"), Via::H1, lines).await;
    assert_eq!(
        gateway.ask(by_cookie("/password", "alice-4")).await.status,
        204
    );
    assert!(end(&mut again).await.is_err());
    assert_eq!(third.closed().await, 4401);
    let wait = tokio::time::timeout(Duration::from_millis(300), other.frame());
    assert!(wait.await.is_err(), "somebody else's goes on");
    let labels = [("route", "events"), ("how", "revoked")];
    gateway
        .counted("vestibule_streams_lapsed_total", &labels, 3.0)
        .await;
    gateway
        .counted("vestibule_tunnels_ended_total", &[("how", "revoked")], 2.0)
        .await;
}

// === Ended without a word ===

/// A backend whose session `alice` is good while `lasts` says so: 200, 401, or whatever.
async fn forgetful(lasts: &Arc<AtomicUsize>) -> (Origin, Arc<AtomicUsize>) {
    let (status, asked) = (Arc::clone(lasts), Arc::<AtomicUsize>::default());
    let (session, introspection) = (Arc::clone(&asked), Arc::clone(&asked));
    let active = Arc::clone(lasts);
    let origin = origin::http()
        .on("/session", move |_| {
            session.fetch_add(1, Ordering::SeqCst);
            let status = u16::try_from(status.load(Ordering::SeqCst)).unwrap();
            Reply::json(&json!({ "user": { "user_id": "alice" } })).status(status)
        })
        .on("/introspect", move |_| {
            introspection.fetch_add(1, Ordering::SeqCst);
            let status = u16::try_from(active.load(Ordering::SeqCst)).unwrap();
            let reply = Reply::json(&json!({ "active": status == 200, "sub": "alice" }));
            reply.status(if status == 401 { 200 } else { status })
        })
        .path(
            "/events",
            Reply::two_halves("data: one\n\n", &gate(), "never"),
        )
        .path(
            "/both",
            Reply::two_halves("data: one\n\n", &gate(), "never"),
        )
        .run()
        .await;
    (origin, asked)
}

fn rechecking(issuer: &Issuer, origin: &Origin, chat: &websocket::Origin, keys: &str) -> Builder {
    let secret = crate::support::pki::SHARED.file("recheck-secret", "a secret of the gateway");
    conf(&format!(
        r#"
        [[route]]
        name = "events"
        path = "/events"
        auth = {{ any = ["browser", "opaque"] }}
        upstream = "api"
        {keys}
        [[route]]
        name = "both"
        path = "/both"
        auth = {{ all = ["main", "browser"] }}
        upstream = "api"
        {keys}
        [[route]]
        name = "chat"
        path = "/socket"
        auth = {{ any = ["browser"] }}
        upgrade = ["websocket"]
        upstream = "chat"
        {keys}
        [[route]]
        path = "/logout"
        auth = "none"
        revokes = {{ any = ["browser"] }}
        upstream = "api"
        [session.browser]
        cookie = "at"
        probe = {{ upstream = "api", path = "/session" }}
        cache = "200ms"
        [issuer.opaque]
        url = "https://opaque.example"
        audiences = []
        introspection = {{ url = "http://{}/introspect", tokens = "all", cache = "200ms", client_id = "edge", client_secret = {{ file = {secret:?} }} }}
        "#,
        origin.address
    ))
    .issuer(issuer)
    .upstream("api", origin)
    .upstream_at("chat", "http", chat.address, "")
}

#[tokio::test]
async fn a_session_that_ends_without_a_word_ends_its_streams_and_an_outage_does_not() {
    let issuer = issuer::run().await;
    let lasts = Arc::new(AtomicUsize::new(200));
    let (origin, asked) = forgetful(&lasts).await;
    let chat = websocket::origin(Act::Echo).await;
    let conf = rechecking(&issuer, &origin, &chat, "stream_recheck = \"1s\"");
    let gateway = conf.run().await;
    gateway.ready().await;
    let token = issuer.token().sign();
    let (_a, mut session) = open(&gateway, by_cookie("/events", "alice")).await;
    let (_b, mut opaque) = open(&gateway, get("/events").bearer("opaque")).await;
    let (_c, mut both) = open(&gateway, by_cookie("/both", "alice").bearer(&token)).await;
    let lines = "cookie: theme=dark; at=alice\r\norigin: http://test.example\r\n";
    let mut socket = websocket::open(gateway.at("plain"), Via::H1, lines).await;
    socket.echoes(TEXT, b"hello").await;
    // Whoever cannot be asked ends nothing.
    lasts.store(500, Ordering::SeqCst);
    let before = asked.load(Ordering::SeqCst);
    eventually("each was asked about in vain", async || {
        asked.load(Ordering::SeqCst) >= before + 4
    })
    .await;
    socket.echoes(TEXT, b"still here").await;
    let wait = tokio::time::timeout(Duration::from_millis(50), session.frame());
    assert!(wait.await.is_err(), "it goes on");
    // The end is heard of by asking alone.
    lasts.store(401, Ordering::SeqCst);
    assert!(end(&mut session).await.is_err());
    assert!(end(&mut opaque).await.is_err());
    assert!(end(&mut both).await.is_err());
    assert_eq!(socket.closed().await, 4401);
    for (route, count) in [("events", 2.0), ("both", 1.0)] {
        let labels = [("route", route), ("how", "revoked")];
        gateway
            .counted("vestibule_streams_lapsed_total", &labels, count)
            .await;
    }
    gateway.settled().await;
}

/// By the second of two credentials, as by the first.
#[tokio::test]
async fn where_all_must_vouch_the_logout_of_any_ends_the_stream() {
    let issuer = issuer::run().await;
    let (origin, asked) = forgetful(&Arc::new(AtomicUsize::new(200))).await;
    let chat = websocket::origin(Act::Echo).await;
    let gateway = rechecking(&issuer, &origin, &chat, "").run().await;
    gateway.ready().await;
    let call = |token: &str| by_cookie("/both", "alice").bearer(token);
    let (_a, mut long) = open(&gateway, call(&issuer.token().sign())).await;
    let (_b, mut short) = open(&gateway, call(&short_lived(&issuer))).await;
    assert!(end(&mut short).await.is_err(), "with its token");
    let before = asked.load(Ordering::SeqCst);
    let logout = gateway.ask(by_cookie("/logout", "alice")).await;
    assert_eq!(logout.status, 200);
    assert!(end(&mut long).await.is_err(), "with its session");
    assert_eq!(asked.load(Ordering::SeqCst), before, "nobody was asked");
}

#[tokio::test]
async fn a_stream_that_goes_free_is_not_asked_about() {
    let issuer = issuer::run().await;
    let lasts = Arc::new(AtomicUsize::new(200));
    let (origin, asked) = forgetful(&lasts).await;
    let chat = websocket::origin(Act::Echo).await;
    let keys = "stream_recheck = \"1s\"\nstream_auth = \"free\"";
    let gateway = rechecking(&issuer, &origin, &chat, keys).run().await;
    gateway.ready().await;
    let (_a, mut session) = open(&gateway, by_cookie("/events", "alice")).await;
    lasts.store(401, Ordering::SeqCst);
    let wait = tokio::time::timeout(Duration::from_millis(2_500), session.frame());
    assert!(wait.await.is_err(), "it goes on");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    for bad in ["0s", "2d"] {
        let conf = rechecking(
            &issuer,
            &origin,
            &chat,
            &format!("stream_recheck = {bad:?}"),
        );
        let refusal = conf.try_run().unwrap_err().to_string();
        assert!(refusal.contains("stream_recheck"), "{refusal}");
    }
}

// === Right after the beginning ===

#[tokio::test]
async fn a_logout_right_after_the_beginning_is_not_missed() {
    let (issuer, _origin, _chat, gateway) = sessions().await;
    let token = issuer.token().sign();
    let (_a, mut alice) = open(&gateway, by_cookie("/events", "alice-1")).await;
    let (_b, mut bearer) = open(&gateway, get("/events").bearer(&token)).await;
    assert_eq!(
        gateway.ask(by_cookie("/logout", "alice-1")).await.status,
        204
    );
    assert_eq!(gateway.ask(get("/logout").bearer(&token)).await.status, 204);
    assert!(end(&mut alice).await.is_err());
    assert!(end(&mut bearer).await.is_err());
    // Another login of the same user has nothing to do with it.
    let (_c, mut later) = open(&gateway, by_cookie("/events", "alice-2")).await;
    let wait = tokio::time::timeout(Duration::from_millis(1500), later.frame());
    assert!(wait.await.is_err());
}
