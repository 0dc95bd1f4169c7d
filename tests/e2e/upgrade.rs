//! WebSockets: what passes, what does not, and how a tunnel ends. Bytes by hand on both sides.

use crate::support::binary;
use crate::support::client::{Told, Via, fields, get, refused};
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::issuer;
use crate::support::origin::{self, Reply, gate};
use crate::support::raw::{self, statuses};
use crate::support::websocket::{
    self, Act, BINARY, CLOSE, KEY, Origin, PING, PONG, TEXT, accept, ask, masked, version,
};
use crate::support::{eventually, json_lines, soon};

/// Everything goes to `origin`, and may switch.
fn to(origin: &Origin, keys: &str) -> Builder {
    conf(&format!(
        "[[route]]\nname = \"chat\"\nauth = \"none\"\nupstream = \"api\"\nupgrade = [\"websocket\"]\n{keys}"
    ))
    .upstream_at("api", "http", origin.address, "")
}

async fn echoing() -> (Origin, Gateway) {
    let origin = websocket::origin(Act::Echo).await;
    let gateway = to(&origin, "").run().await;
    (origin, gateway)
}

async fn ended(gateway: &Gateway, how: &str) {
    let labels = [("route", "chat"), ("how", how)];
    gateway
        .counted("vestibule_tunnels_ended_total", &labels, 1.0)
        .await;
    gateway.counted("vestibule_tunnels_open", &[], 0.0).await;
}

/// As a refusal names its code.
fn quoted(code: &str) -> String {
    format!("\"{code}\"")
}

// === What passes ===

#[tokio::test]
async fn messages_pass_both_ways_byte_by_byte() {
    let big: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
    for via in [Via::H1, Via::TlsH1] {
        let (origin, gateway) = echoing().await;
        let lines = "sec-websocket-protocol: chat\r\nx-forwarded-for: 9.9.9.9\r\nkeep-alive: 5\r\n";
        let mut socket = websocket::open(gateway.address(via), via, lines).await;
        let head = socket.head.to_lowercase();
        for line in [
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-protocol: chat",
            &format!("sec-websocket-accept: {}", accept(KEY)).to_lowercase(),
            "x-request-id: ",
        ] {
            assert!(head.contains(line), "{line} in {head}");
        }
        socket.echoes(TEXT, "grüße".as_bytes()).await;
        socket.echoes(BINARY, &big).await;
        socket.echoes(BINARY, &[]).await;
        // Fragments come back as they were cut.
        socket
            .send(websocket::frame(TEXT, b"one", false, Some([1, 2, 3, 4])))
            .await;
        socket
            .send(websocket::frame(0, b"two", true, Some([4, 3, 2, 1])))
            .await;
        assert_eq!(socket.next().await, Some((TEXT, b"one".to_vec())));
        assert_eq!(socket.next().await, Some((0x80, b"two".to_vec())));
        socket.send(masked(PING, b"?")).await;
        assert_eq!(socket.next().await, Some((0x80 | PONG, b"?".to_vec())));
        gateway
            .counted("vestibule_tunnels_open", &[("route", "chat")], 1.0)
            .await;
        gateway
            .counted("vestibule_requests_in_flight", &[], 0.0)
            .await;
        gateway
            .counted("vestibule_upstream_in_flight", &[], 1.0)
            .await;
        socket.send(masked(CLOSE, &4000_u16.to_be_bytes())).await;
        assert_eq!(socket.closed().await, 4000);
        drop(socket);
        origin.ended().await;
        ended(&gateway, "upstream_closed").await;
        gateway.settled().await;

        let seen = origin.only();
        let field = |name: &str| seen.field(name).unwrap_or_default();
        assert_eq!(field("connection"), "upgrade");
        assert_eq!(field("upgrade"), "websocket");
        assert_eq!(field("sec-websocket-key"), KEY);
        assert_eq!(field("sec-websocket-version"), "13");
        assert_eq!(field("host"), "test.example");
        assert_eq!(field("x-forwarded-for"), "127.0.0.1");
        assert_eq!(seen.field("keep-alive"), None);
        let labels = [("direction", "in")];
        let counted = gateway
            .metric("vestibule_tunnel_bytes_total", &labels)
            .await;
        assert!((counted - seen.bytes.len() as f64).abs() < 0.5);
    }
}

#[tokio::test]
async fn each_side_hears_when_the_other_hangs_up() {
    let (origin, gateway) = echoing().await;
    let mut socket = websocket::open(gateway.at("plain"), Via::H1, "").await;
    socket.echoes(TEXT, b"hello").await;
    drop(socket);
    origin.ended().await;
    ended(&gateway, "client_closed").await;

    let origin =
        websocket::origin(Act::SayAndEnd(websocket::frame(TEXT, b"bye", true, None))).await;
    let gateway = to(&origin, "").run().await;
    let mut socket = websocket::open(gateway.at("plain"), Via::H1, "").await;
    assert_eq!(socket.next().await, Some((0x80 | TEXT, b"bye".to_vec())));
    assert_eq!(socket.next().await, None);
    drop(socket);
    ended(&gateway, "upstream_closed").await;
}

#[tokio::test]
async fn a_reload_leaves_tunnels_alone() {
    let (origin, gateway) = echoing().await;
    let mut socket = websocket::open(gateway.at("plain"), Via::H1, "").await;
    let conf = to(&origin, "timeout = \"9s\"");
    assert_eq!(gateway.reload(&conf).await.status, 200);
    let conf = conf_without_upgrade(&origin);
    assert_eq!(gateway.reload(&conf).await.status, 200);
    socket.echoes(TEXT, b"still here").await;
    assert_eq!(origin.only().field("upgrade").as_deref(), Some("websocket"));
}

fn conf_without_upgrade(origin: &Origin) -> Builder {
    conf("[[route]]\nname = \"chat\"\nauth = \"none\"\nupstream = \"api\"").upstream_at(
        "api",
        "http",
        origin.address,
        "",
    )
}

// === Nothing before the switch ===

#[tokio::test]
async fn bytes_that_come_early_wait_for_the_switch() {
    let gate = gate();
    let origin = websocket::origin_behind(Act::Echo, Some(gate.clone())).await;
    let gateway = to(&origin, "").run().await;
    for (number, via) in [Via::H1, Via::TlsH1].into_iter().enumerate() {
        let mut dialogue = match via {
            Via::TlsH1 => raw::open_tls(gateway.address(via), &["http/1.1"]).await,
            _ => raw::open(gateway.address(via)).await,
        };
        let early = masked(TEXT, b"early");
        dialogue
            .send([ask("/", "").as_bytes(), &early].concat())
            .await;
        origin.reached(number + 1).await;
        dialogue.send(&early).await;
        if number == 0 {
            // Another request passes meanwhile, so that there was time for the bytes to be passed on, too.
            assert_eq!(gateway.admin(get("/livez")).await.status, 200);
            assert!(origin.only().bytes.is_empty());
            gate.open();
        }
        let head = String::from_utf8(dialogue.until("\r\n\r\n").await).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        eventually("the early bytes arrive", async || {
            origin.saw()[number].bytes == [early.clone(), early.clone()].concat()
        })
        .await;
    }
}

#[tokio::test]
async fn early_bytes_are_bounded_and_none_is_lost() {
    let gate = gate();
    let origin = websocket::origin_behind(Act::Say(Vec::new()), Some(gate.clone())).await;
    let gateway = to(&origin, "").run().await;
    let mut dialogue = raw::open(gateway.at("plain")).await;
    dialogue.send(ask("/", "")).await;
    origin.reached(1).await;
    let early = masked(BINARY, &vec![7; 8 << 20]);
    let sent = early.clone();
    let sending = tokio::spawn(async move {
        dialogue.send(&sent).await;
        dialogue
    });
    // More than sockets and gateway hold: the sender has to wait.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(!sending.is_finished() && origin.only().bytes.is_empty());
    gate.open();
    let _dialogue = soon("all is sent", sending).await.unwrap();
    eventually("all arrives", async || {
        origin.only().bytes.len() == early.len()
    })
    .await;
    assert!(origin.only().bytes == early);
}

#[tokio::test]
async fn a_declined_upgrade_ends_both_sides_and_is_no_way_past_the_rules() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnope";
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: test.example\r\n\r\n";
    for answer in [
        ok,
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nnope",
        "HTTP/1.1 426 Upgrade Required\r\nsec-websocket-version: 13\r\ncontent-length: 4\r\n\r\nnope",
        // What is behind the answer would be the answer to somebody else's request.
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnopeHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nnope\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nnope",
    ] {
        let origin = websocket::origin(Act::Answer(answer.to_owned())).await;
        let gateway = to(&origin, "").run().await;
        for (number, pipelined) in [smuggled, ""].into_iter().enumerate() {
            let mut dialogue = raw::open(gateway.at("plain")).await;
            let asked = [ask("/", ""), pipelined.to_owned()].concat();
            dialogue.send(asked).await;
            if answer.ends_with("\r\n\r\nnope") && !answer.contains("content-length") {
                // Only the end of the connection ends this body, and the origin is waiting.
                let head = String::from_utf8(dialogue.until("nope").await).unwrap();
                assert!(head.contains("connection: close"), "{head}");
                continue;
            }
            let heard = dialogue.until_closed().await;
            let text = String::from_utf8_lossy(&heard).into_owned();
            assert_eq!(statuses(&heard).len(), 1, "{answer}: {text}");
            assert!(
                text.contains("connection: close") && text.contains("nope"),
                "{text}"
            );
            assert!(!text.contains("evil"), "{text}");
            origin.reached(number + 1).await;
        }
        let saw = origin.saw();
        assert_eq!(saw.len(), 2, "a connection each");
        for seen in saw {
            assert!(
                !seen.head.contains("smuggled") && seen.bytes.is_empty(),
                "{seen:?}"
            );
        }
        assert!(gateway.metric("vestibule_tunnels_ended_total", &[]).await < 0.5);
    }
}

#[tokio::test]
async fn the_next_user_gets_an_own_answer_after_a_tunnel_and_after_a_refused_one() {
    // An ordinary origin behind the same route: it never switches, and its connections are kept.
    let origin = origin::http()
        .otherwise(|seen| Reply::text(seen.target.clone()))
        .run()
        .await;
    let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\nupgrade = [\"websocket\"]")
        .upstream("api", &origin)
        .run()
        .await;
    assert_eq!(gateway.ask(get("/warm")).await.text(), "/warm");
    for round in 0..5 {
        let mut dialogue = raw::open(gateway.at("plain")).await;
        dialogue.send(ask("/mallory", "")).await;
        dialogue
            .send("GET /poison HTTP/1.1\r\nhost: x\r\n\r\n")
            .await;
        assert_eq!(statuses(&dialogue.until_closed().await), [200]);
        let target = format!("/alice/{round}");
        assert_eq!(gateway.ask(get(&target)).await.text(), target);
    }
    let saw = origin.saw();
    assert!(saw.iter().all(|seen| seen.target != "/poison"));
    // The ordinary requests share one connection; each refused upgrade had its own.
    let ordinary = saw.iter().filter(|seen| !seen.target.contains("mallory"));
    let mut connections: Vec<usize> = ordinary.map(|seen| seen.connection).collect();
    connections.dedup();
    assert_eq!((connections.len(), origin.connections()), (1, 6));
}

#[tokio::test]
async fn an_origin_that_switches_wrongly_is_malformed() {
    let switch = |lines: &str| format!("HTTP/1.1 101 Switching Protocols\r\n{lines}\r\nSECRET");
    for lines in [
        "",
        "connection: upgrade\r\nupgrade: h2c\r\nsec-websocket-accept: {accept}\r\n",
        "connection: upgrade\r\nupgrade: websocket, h2c\r\nsec-websocket-accept: {accept}\r\n",
        "upgrade: websocket\r\nsec-websocket-accept: {accept}\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: AAAA\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\nsec-websocket-accept: {accept}\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\ncontent-length: 6\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\ntransfer-encoding: chunked\r\n",
    ] {
        let origin = websocket::origin(Act::Answer(switch(lines))).await;
        let gateway = to(&origin, "").run().await;
        let mut dialogue = raw::open(gateway.at("plain")).await;
        dialogue.send(ask("/", "")).await;
        let heard = String::from_utf8(dialogue.until_closed().await).unwrap();
        assert!(heard.starts_with("HTTP/1.1 502 "), "{lines}: {heard}");
        assert!(
            heard.contains("upstream_malformed") && !heard.contains("SECRET"),
            "{heard}"
        );
        origin.ended().await;
    }
    // Unasked: an ordinary request on a route that may switch.
    let origin = websocket::origin(Act::Say(Vec::new())).await;
    let gateway = to(&origin, "").run().await;
    let answer = gateway.ask(get("/")).await;
    assert_eq!(answer.verdict(), refused(502, "upstream_malformed"));
}

// === Who may ask ===

#[tokio::test]
async fn what_no_route_lists_is_an_ordinary_request() {
    let origin = origin::http().run().await;
    let gateway = conf(
        "[[route]]\npath = \"/plain\"\nauth = \"none\"\nupstream = \"api\"\n\
         [[route]]\nauth = \"none\"\nupstream = \"api\"\nupgrade = [\"websocket\"]",
    )
    .upstream("api", &origin)
    .run()
    .await;
    for (path, upgrade) in [
        ("/plain", "connection: upgrade\r\nupgrade: websocket"),
        (
            "/",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA",
        ),
        ("/", "connection: upgrade\r\nupgrade: websocket, h2c"),
        (
            "/",
            "connection: upgrade\r\nupgrade: h2c\r\nupgrade: websocket",
        ),
        ("/", "upgrade: websocket"),
    ] {
        let mut dialogue = raw::open(gateway.at("plain")).await;
        let smuggled = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        dialogue
            .send(format!(
                "GET {path} HTTP/1.1\r\nhost: test.example\r\n{upgrade}\r\n\r\n{smuggled}"
            ))
            .await;
        let heard = dialogue.until_closed().await;
        assert_eq!(statuses(&heard), [200], "{upgrade}");
        let seen = origin.only();
        for field in ["upgrade", "connection", "http2-settings"] {
            assert!(!seen.has(field), "{seen:?}");
        }
        origin.forget();
    }
}

#[tokio::test]
async fn a_malformed_handshake_is_told() {
    let (origin, gateway) = echoing().await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
    let key = format!("sec-websocket-key: {KEY}\r\n");
    let version = "sec-websocket-version: 13\r\n";
    for (method, lines, body) in [
        ("GET", format!("{upgrade}{key}"), ""),
        ("GET", format!("{upgrade}{version}"), ""),
        ("GET", format!("{upgrade}{version}{key}{key}"), ""),
        (
            "GET",
            format!("{upgrade}{version}sec-websocket-key: short\r\n"),
            "",
        ),
        ("POST", format!("{upgrade}{version}{key}"), ""),
        (
            "GET",
            format!("{upgrade}{version}{key}content-length: 5\r\n"),
            "hello",
        ),
        (
            "GET",
            format!("{upgrade}{version}{key}transfer-encoding: chunked\r\n"),
            "0\r\n\r\n",
        ),
    ] {
        let mut dialogue = raw::open(gateway.at("plain")).await;
        dialogue
            .send(format!(
                "{method} / HTTP/1.1\r\nhost: test.example\r\n{lines}\r\n{body}"
            ))
            .await;
        let heard = String::from_utf8(dialogue.until_closed().await).unwrap();
        assert!(heard.starts_with("HTTP/1.1 400 "), "{lines}: {heard}");
        assert!(heard.contains(&quoted("bad_upgrade")), "{heard}");
    }
    assert!(origin.saw().is_empty());
}

const GUARDED: &str = r#"
    [[route]]
    name = "chat"
    path = "/socket"
    auth = { any = ["main", "browser"] }
    csrf = { origins = ["https://app.example.org"] }
    upgrade = ["websocket"]
    upstream = "api"
    [session.browser]
    cookie = "at"
    probe = { upstream = "sessions", path = "/session" }
"#;

#[tokio::test]
async fn authentication_comes_first_and_pages_of_strangers_are_refused() {
    let issuer = issuer::run().await;
    let sessions = origin::http()
        .reply(Reply::json(
            &serde_json::json!({ "user": { "user_id": "alice" } }),
        ))
        .run()
        .await;
    let chat = websocket::origin(Act::Echo).await;
    let gateway = conf(GUARDED)
        .issuer(&issuer)
        .upstream("sessions", &sessions)
        .upstream_at("api", "http", chat.address, "")
        .run()
        .await;
    gateway.ready().await;
    let bearer = format!("authorization: Bearer {}\r\n", issuer.token().sign());
    for (lines, status, code) in [
        (String::new(), 401, "credential_missing"),
        (
            "connection: keep-alive\r\n".to_owned(),
            401,
            "credential_missing",
        ),
        (
            "authorization: Bearer a.b.c\r\n".to_owned(),
            401,
            "credential_malformed",
        ),
        (
            "cookie: at=x\r\norigin: https://evil.example\r\n".to_owned(),
            403,
            "csrf_refused",
        ),
        (
            "cookie: at=x\r\norigin: null\r\n".to_owned(),
            403,
            "csrf_refused",
        ),
        (
            "cookie: at=x\r\nsec-fetch-site: cross-site\r\n".to_owned(),
            403,
            "csrf_refused",
        ),
    ] {
        let mut dialogue = raw::open(gateway.at("plain")).await;
        dialogue.send(ask("/socket", &lines)).await;
        if lines.contains("cookie") {
            dialogue.send(masked(TEXT, b"early")).await;
        }
        let heard = String::from_utf8_lossy(&dialogue.until_closed().await).into_owned();
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{heard}");
        assert!(heard.contains(&format!("\"{code}\"")), "{heard}");
    }
    assert!(chat.saw().is_empty());
    for lines in [
        bearer.clone(),
        // Not by cookie: nobody can make a browser send it.
        format!("{bearer}origin: https://evil.example\r\n"),
        "cookie: at=x\r\norigin: http://test.example\r\n".to_owned(),
        "cookie: at=x\r\norigin: https://app.example.org\r\n".to_owned(),
        "cookie: at=x\r\nsec-fetch-site: same-origin\r\norigin: http://test.example\r\n".to_owned(),
    ] {
        let mut socket = websocket::open(gateway.at("plain"), Via::H1, &lines).await;
        socket.echoes(TEXT, b"hello").await;
    }
    assert_eq!(chat.saw()[0].field("x-auth-user").as_deref(), Some("alice"));
}

#[tokio::test]
async fn tunnels_are_bounded_in_number_and_places_are_given_back() {
    let origin = websocket::origin(Act::Echo).await;
    let gateway = conf("max_tunnels = 1\n[[route]]\nname = \"chat\"\nauth = \"none\"\nupstream = \"api\"\nupgrade = [\"websocket\"]")
        .upstream_at("api", "http", origin.address, "")
        .run()
        .await;
    let address = gateway.at("plain");
    let mut first = websocket::open(address, Via::H1, "").await;
    first.echoes(TEXT, b"one").await;
    let mut second = raw::open(address).await;
    let heard = second.send(ask("/", "")).await.until_closed().await;
    let heard = String::from_utf8(heard).unwrap();
    assert!(
        heard.starts_with("HTTP/1.1 503 ") && heard.contains("\"overloaded\""),
        "{heard}"
    );
    drop(first);
    ended(&gateway, "client_closed").await;
    let mut third = websocket::open(address, Via::H1, "").await;
    third.echoes(TEXT, b"three").await;
}

// === How it ends ===

#[tokio::test]
async fn silence_in_both_directions_ends_a_tunnel() {
    let origin = websocket::origin(Act::Echo).await;
    let gateway = to(&origin, "upgrade_idle_timeout = \"400ms\"").run().await;
    let mut socket = websocket::open(gateway.at("plain"), Via::H1, "").await;
    let started = std::time::Instant::now();
    for _ in 0..6 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        socket.echoes(TEXT, b"busy").await;
    }
    assert!(started.elapsed().as_millis() > 500);
    assert_eq!(socket.closed().await, 1001);
    drop(socket);
    origin.ended().await;
    ended(&gateway, "idle").await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_ends_its_tunnel() {
    let origin = websocket::origin(Act::Flood).await;
    let gateway = to(&origin, "")
        .listen("write_timeout = \"500ms\"")
        .run()
        .await;
    let mut dialogue = raw::open(gateway.at("plain")).await;
    dialogue.send(ask("/", "")).await;
    ended(&gateway, "stalled").await;
    origin.ended().await;
}

#[tokio::test]
async fn an_origin_that_takes_nothing_ends_the_tunnel_as_well() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = conf("[[route]]\nname = \"chat\"\nauth = \"none\"\nupstream = \"api\"\nupgrade = [\"websocket\"]")
        .upstream_at("api", "http", address, "")
        .listen("write_timeout = \"500ms\"")
        .run()
        .await;
    let origin = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut head)
            .await
            .unwrap();
        let answer = format!(
            "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {}\r\n\r\n",
            accept(KEY)
        );
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes())
            .await
            .unwrap();
        stream
    });
    let mut socket = websocket::open(gateway.at("plain"), Via::H1, "").await;
    let _stream = origin.await.unwrap();
    let flood = masked(BINARY, &vec![0; 32 << 20]);
    soon("the end", socket.send(flood)).await;
    ended(&gateway, "stalled").await;
}

#[tokio::test]
async fn a_stop_says_goodbye_at_its_limit_and_the_log_tells_what_passed() {
    let origin = websocket::origin(Act::Echo).await;
    let text = format!("drain_timeout = \"1s\"\n{}", to(&origin, "").text());
    let conf = conf(&text.replace("[log]\naccess = \"off\"", "[log]\naccess = \"stdout\""));
    let mut process = binary::run(&conf).await;
    let mut socket = websocket::open(process.at("plain"), Via::H1, "").await;
    let mut tls = websocket::open(process.at("secure"), Via::TlsH1, "").await;
    let carrier = websocket::carrier(process.at("plain"), Via::H2c).await;
    let mut stream = carrier.open("http").await;
    socket.echoes(TEXT, b"hello").await;
    stream.echoes(TEXT, b"hello").await;
    process.signal("-TERM");
    eventually("the drain has begun", async || {
        process.event("draining").is_some()
    })
    .await;
    // Until the limit it goes on.
    socket.echoes(TEXT, b"still").await;
    tls.echoes(TEXT, b"here").await;
    assert_eq!(socket.closed().await, 1001);
    assert_eq!(tls.closed().await, 1001);
    assert_eq!(stream.closed().await, 1001);
    drop((socket, tls, stream, carrier));
    let (code, log) = process.ended().await;
    assert_eq!(code, Some(0));
    let lines = json_lines(&log);
    assert_eq!(lines.len(), 3);
    for line in &lines {
        assert_eq!(line["ended"], "drained", "{line}");
        assert_eq!(line["outcome"], "aborted");
        assert!(line["duration_us"].as_u64().unwrap() > 100_000);
    }
    let by_status = |status: u16| lines.iter().filter(|line| line["status"] == status).count();
    assert_eq!((by_status(101), by_status(200)), (2, 1));
    let first = lines
        .iter()
        .find(|line| line["bytes_in"] == 22)
        .expect("one of 2 messages");
    assert_eq!(first["bytes_out"], 14);
}

// === Over HTTP/2 (RFC 8441) ===

#[tokio::test]
async fn extended_connect_is_told_of_where_a_route_takes_websockets() {
    let (origin, gateway) = echoing().await;
    for via in [Via::H2c, Via::TlsH2] {
        let carrier = websocket::carrier(gateway.address(via), via).await;
        assert!(carrier.sender.is_extended_connect_protocol_enabled());
    }
    let gateway = conf_without_upgrade(&origin).run().await;
    let carrier = websocket::carrier(gateway.at("plain"), Via::H2c).await;
    assert!(!carrier.sender.is_extended_connect_protocol_enabled());
}

#[tokio::test]
async fn websockets_share_a_connection_with_each_other_and_with_requests() {
    let big: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
    for via in [Via::H2c, Via::TlsH2] {
        let (origin, gateway) = echoing().await;
        let carrier = websocket::carrier(gateway.address(via), via).await;
        let mut one = carrier.open(via.scheme()).await;
        let mut two = carrier.open(via.scheme()).await;
        assert_eq!(one.head["sec-websocket-protocol"], "chat");
        for name in ["connection", "upgrade", "sec-websocket-accept"] {
            assert!(!one.head.contains_key(name), "{name}");
        }
        one.echoes(TEXT, b"one").await;
        two.echoes(BINARY, &big).await;
        one.echoes(TEXT, b"one again").await;
        gateway.counted("vestibule_tunnels_open", &[], 2.0).await;
        // One ends; the other one goes on.
        one.send(&masked(CLOSE, &1000_u16.to_be_bytes())).await;
        assert_eq!(one.closed().await, 1000);
        one.sender.send_data(bytes::Bytes::new(), true).unwrap();
        two.echoes(TEXT, b"two again").await;
        // A client that resets its stream ends the tunnel.
        two.sender.send_reset(h2::Reason::CANCEL);
        origin.ended().await;
        gateway.counted("vestibule_tunnels_open", &[], 0.0).await;
        let saw = origin.saw();
        assert_eq!(saw.len(), 2, "a connection each");
        for seen in &saw {
            assert!(
                seen.head.starts_with("GET /socket HTTP/1.1\r\n"),
                "{}",
                seen.head
            );
            assert_eq!(seen.field("host").as_deref(), Some("test.example"));
            assert_eq!(seen.field("upgrade").as_deref(), Some("websocket"));
            assert_eq!(seen.field("sec-websocket-version").as_deref(), Some("13"));
            assert!(
                seen.field("sec-websocket-key")
                    .is_some_and(|key| key.len() == 24)
            );
        }
        assert_ne!(
            saw[0].field("sec-websocket-key"),
            saw[1].field("sec-websocket-key")
        );
        gateway.settled().await;
    }
}

#[tokio::test]
async fn a_quiet_connection_lives_as_long_as_its_tunnel() {
    let origin = websocket::origin(Act::Echo).await;
    let gateway = to(&origin, "")
        .listen("idle_timeout = \"200ms\"")
        .run()
        .await;
    let carrier = websocket::carrier(gateway.at("plain"), Via::H2c).await;
    let mut stream = carrier.open("http").await;
    for _ in 0..2 {
        // One beside it, with nothing under way, is ended by then.
        let mut idle = gateway.connect(Via::H2c).await;
        assert!(idle.try_send(get("/")).await.is_ok());
        idle.closed().await;
        stream.echoes(TEXT, b"still here").await;
    }
    drop((stream, carrier));
    gateway.counted("vestibule_tunnels_open", &[], 0.0).await;
    gateway
        .counted("vestibule_connections_open", &[("protocol", "h2")], 0.0)
        .await;
}

#[tokio::test]
async fn what_is_no_websocket_is_no_connect() {
    let (origin, gateway) = echoing().await;
    let carrier = websocket::carrier(gateway.at("plain"), Via::H2c).await;
    let (answer, _) = carrier.ask("http", "connect-udp", version()).await;
    assert_eq!(answer.status(), 405);
    let (answer, _) = carrier.ask("http", "websocket", fields(&[])).await;
    assert_eq!(answer.status(), 400);
    // A call of gRPC is refused with status 200, which would be a switch here.
    let fields = fields(&[("content-type", "application/grpc"), ("te", "trailers")]);
    let (answer, _) = carrier.ask("http", "websocket", fields).await;
    assert_eq!(answer.status(), 400);
    assert!(origin.saw().is_empty());

    // A route that does not list it, beside one that does.
    let gateway = to(&origin, "path = \"/other\"")
        .and(
            "[[route]]\nname = \"rest\"\nauth = \"none\"\nrespond = { status = 200, body = \"x\" }",
        )
        .run()
        .await;
    let carrier = websocket::carrier(gateway.at("plain"), Via::H2c).await;
    let (answer, _) = carrier.ask("http", "websocket", version()).await;
    assert_eq!(answer.status(), 405);
}

#[tokio::test]
async fn an_origin_that_declines_is_no_success_over_h2() {
    for (answer, status) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnope", 502),
        ("HTTP/1.1 204 No Content\r\n\r\n", 502),
        (
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nnope",
            403,
        ),
        (
            "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            502,
        ),
    ] {
        let origin = websocket::origin(Act::Answer(answer.to_owned())).await;
        let gateway = to(&origin, "").run().await;
        let carrier = websocket::carrier(gateway.at("plain"), Via::H2c).await;
        let (heard, mut stream) = carrier.ask("http", "websocket", version()).await;
        assert_eq!(heard.status(), status, "{answer}");
        let _ = stream.send_data("early".into(), true);
        let mut body = heard.into_body();
        let mut text = Vec::new();
        while let Some(piece) = soon("the body", body.data()).await {
            text.extend(piece.unwrap());
        }
        let text = String::from_utf8(text).unwrap();
        match answer.contains(" 20") {
            true => assert!(text.contains(&quoted("upgrade_refused")), "{text}"),
            false if status == 403 => assert_eq!(text, "nope"),
            false => assert!(text.contains("upstream_malformed"), "{text}"),
        }
        origin.ended().await;
        assert!(origin.only().bytes.is_empty());
    }
}

#[tokio::test]
async fn a_page_of_a_stranger_is_refused_over_h2_as_well() {
    let issuer = issuer::run().await;
    let sessions = origin::http()
        .reply(Reply::json(
            &serde_json::json!({ "user": { "user_id": "alice" } }),
        ))
        .run()
        .await;
    let chat = websocket::origin(Act::Echo).await;
    let gateway = conf(GUARDED)
        .issuer(&issuer)
        .upstream("sessions", &sessions)
        .upstream_at("api", "http", chat.address, "")
        .run()
        .await;
    gateway.ready().await;
    let carrier = websocket::carrier(gateway.at("secure"), Via::TlsH2).await;
    let mut asked = version();
    asked.insert("cookie", "at=x".parse().unwrap());
    asked.insert("origin", "https://evil.example".parse().unwrap());
    let (answer, _) = carrier.ask("https", "websocket", asked.clone()).await;
    assert_eq!(answer.status(), 403);
    assert!(chat.saw().is_empty());
    asked.insert("origin", "https://test.example".parse().unwrap());
    let (answer, _) = carrier.ask("https", "websocket", asked).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(chat.only().field("x-auth-user").as_deref(), Some("alice"));
}

#[tokio::test]
async fn every_close_frame_arrives_over_h2() {
    let (_origin, gateway) = echoing().await;
    let carrier = websocket::carrier(gateway.at("plain"), Via::H2c).await;
    for round in 0..200 {
        let mut stream = carrier.open("http").await;
        stream.echoes(TEXT, b"hello").await;
        stream.send(&masked(CLOSE, &1000_u16.to_be_bytes())).await;
        assert_eq!(stream.closed_cleanly().await, 1000, "{round}");
        stream.sender.send_data(bytes::Bytes::new(), true).unwrap();
    }
    gateway.counted("vestibule_tunnels_open", &[], 0.0).await;
}
