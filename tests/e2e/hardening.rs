//! The door: what is refused before it becomes a request is told, counted and logged; memory and descriptors run out
//! without anybody noticing who is being served.

use std::time::{Duration, Instant};

use crate::support::client::{self, Told, Via, get, post, refused};
use crate::support::gateway::{conf, open_to};
use crate::support::origin::{self, Reply, gate};
use crate::support::raw::{self, statuses};
use crate::support::{binary, eventually, json_lines, soon};

#[tokio::test]
async fn a_head_that_is_refused_is_told_counted_and_logged() {
    let origin = origin::http().run().await;
    let conf = open_to(&origin)
        .listen("head_timeout = \"500ms\"")
        .and("[log]\naccess = \"stdout\"");
    let mut process = binary::run(&conf).await;
    for (head, status, code) in [
        ("GET /\r\n\r\n", 400, "bad_framing"),
        ("GET / HTTP/1.2\r\n\r\n", 505, "bad_version"),
        ("GET /#x HTTP/1.1\r\nhost: a\r\n\r\n", 400, "bad_target"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400, "bad_field"),
        (
            "CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
            405,
            "method_refused",
        ),
        ("GET / HTTP/1.1\r\nhost: a\r\nx: y", 408, "head_timeout"),
    ] {
        let mut dialogue = raw::open(process.at("plain")).await;
        let heard = dialogue.send(head).await.until_closed().await;
        assert_eq!(statuses(&heard), [status], "{head}");
        let heard = String::from_utf8_lossy(&heard).into_owned();
        assert!(heard.contains(&format!("\"code\":\"{code}\"")), "{heard}");
        assert!(heard.contains("connection: close"), "{heard}");
        let labels = [("reason", code), ("route", "")];
        let count = process.metric("vestibule_rejections_total", &labels).await;
        assert!(count > 0.0, "{code} is not counted");
    }
    for reason in ["bad_head", "head_timeout"] {
        let labels = [("listener", "plain"), ("reason", reason)];
        eventually(reason, async || {
            let name = "vestibule_connections_refused_total";
            process.metric(name, &labels).await > 0.0
        })
        .await;
    }
    assert!(origin.saw_nothing());
    process.signal("-TERM");
    let (_, log) = process.ended().await;
    let lines = json_lines(&log);
    assert_eq!(lines.len(), 7);
    for line in lines {
        assert_eq!(line["method"], "-", "{line}");
        assert!(line["reason"].is_string() && line["request_id"].is_string());
        assert!(line.get("path").is_none_or(serde_json::Value::is_null));
    }
}

/// h2 takes the fragment away before anybody sees it: what is matched, and what leaves, is the path before it.
#[tokio::test]
async fn a_fragment_in_http_2_reaches_nobody() {
    let origin = origin::http().run().await;
    let conf = conf(
        "[[route]]\npath = \"/admin/*\"\nauth = \"deny\"\n[[route]]\nauth = \"none\"\nupstream = \"api\"",
    );
    let gateway = conf.upstream("api", &origin).run().await;
    for (path, status) in [("/open#/admin", "200"), ("/admin/#/open", "404")] {
        let block = raw::h2_block(&[
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "test.example"),
            (":path", path),
        ]);
        let mut h2 = raw::h2(gateway.at("plain")).await;
        h2.send(raw::headers(1, &block)).await;
        assert_eq!(h2.status(1).await, Some(status.to_owned()), "{path}");
    }
    assert_eq!(origin.only().target, "/open");
}

#[tokio::test]
async fn odd_http_2_heads_are_refused_before_routing() {
    let origin = origin::http().run().await;
    let gateway = open_to(&origin).run().await;
    let usual = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "test.example"),
        (":path", "/"),
    ];
    for (name, value) in [
        (":method", "get"),
        (":scheme", "ftp"),
        (":authority", "user@test.example"),
        (":authority", "test.example/"),
        (":path", "*"),
        (":path", "/a\\b"),
        (":path", "/a%2fb"),
        (":path", "/..;/a"),
        ("x", " a"),
        ("x", "a\t"),
        ("host", "other.example"),
        ("transfer-encoding", "chunked"),
        ("connection", "x"),
        ("te", "gzip"),
        ("upgrade", "websocket"),
        ("content-length", "5, 5"),
    ] {
        let mut fields = usual.to_vec();
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
        let mut h2 = raw::h2(gateway.at("plain")).await;
        h2.send(raw::headers(1, &raw::h2_block(&fields))).await;
        // `None`: the stream was reset.
        let status = h2.status(1).await;
        assert!(
            status.is_none() || status.as_deref() == Some("400"),
            "{name} {value:?}: {status:?}"
        );
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn above_max_memory_requests_are_shed_and_those_in_flight_are_finished() {
    let gate = gate();
    let origin = origin::http()
        .path("/slow", Reply::text("late").behind(&gate))
        .run()
        .await;
    let bound = |bytes: u64| {
        let top =
            format!("max_memory = \"{bytes}B\"\n[[route]]\nauth = \"none\"\nupstream = \"api\"");
        conf(&top)
            .upstream("api", &origin)
            .listen("max_connections_per_ip = 5000")
    };
    let roomy = 4 << 30;
    let process = binary::run(&bound(roomy)).await;
    let plain = process.at("plain");
    let ask =
        async |path: &'static str| client::connect(plain, Via::H1).await.send(get(path)).await;
    assert_eq!(ask("/").await.status, 200);
    // Heads that never end, as large as they may be, until the process has grown enough to be told from idle.
    let mut hoard = Vec::new();
    while process.memory() < (48 << 20) {
        let mut dialogue = raw::open(plain).await;
        let head = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(30 << 10));
        dialogue.send(head).await;
        hoard.push(dialogue);
        assert!(hoard.len() < 3_000, "memory does not grow");
    }
    let slow = tokio::spawn(async move {
        client::connect(plain, Via::H1)
            .await
            .send(get("/slow"))
            .await
    });
    origin.reached(2).await;
    process.rewrite(&bound(32 << 20));
    process.signal("-HUP");
    eventually("requests are shed", async || {
        let answer = ask("/").await;
        answer.verdict() == refused(503, "overloaded") && answer.header("retry-after") == "1"
    })
    .await;
    gate.open();
    assert_eq!(slow.await.unwrap().text(), "late");
    // Nobody is in flight: refusing would free nothing, so that one at a time passes.
    eventually("one passes", async || ask("/").await.status == 200).await;
    process.rewrite(&bound(roomy));
    process.signal("-HUP");
    eventually("it is over", async || {
        let (one, other) = tokio::join!(ask("/"), ask("/"));
        one.status == 200 && other.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_ceiling_below_what_the_gateway_needs_is_a_mistake() {
    let conf =
        conf("max_memory = \"1MiB\"\n[[route]]\nauth = \"none\"\nrespond = { status = 200 }");
    let why = conf.try_run().unwrap_err().to_string();
    assert!(why.contains("max_memory: `1MiB` is less than"), "{why}");
}

/// R18: 256 descriptors, 400 clients. Those who are in are served, upstream connections included; the others wait.
#[tokio::test]
async fn too_many_clients_for_the_descriptors_wait_and_the_others_are_served() {
    let origin = origin::http().run().await;
    let process = binary::run_under("ulimit -n 256", &open_to(&origin)).await;
    let plain = process.at("plain");
    let mut clients = Vec::new();
    for _ in 0..400 {
        clients.push(client::connect(plain, Via::H1).await);
    }
    let refusals = [("listener", "plain"), ("reason", "no_descriptors")];
    eventually("the pause is counted", async || {
        let name = "vestibule_connections_refused_total";
        process.metric(name, &refusals).await > 0.0
    })
    .await;
    for _ in 0..3 {
        for client in &mut clients[..80] {
            let answer = soon("a client that is in", client.send(get("/"))).await;
            assert_eq!(answer.status, 200);
        }
    }
    // Nobody asks for anything now: whatever is spent goes into accepting in vain.
    let cpu = async || process.metric("process_cpu_seconds_total", &[]).await;
    let (before, since) = (cpu().await, Instant::now());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let spent = (cpu().await - before) / since.elapsed().as_secs_f64();
    assert!(spent < 0.3, "{spent} of a core");
    drop(clients.drain(..80));
    let recovered = Instant::now();
    // Whoever was next is served now.
    let answer = soon("the next client", clients[20].send(get("/"))).await;
    assert_eq!(answer.status, 200);
    assert!(recovered.elapsed() < Duration::from_secs(2));
}

/// R18, without a reserve left: accepting fails, pauses, and goes on.
#[tokio::test]
async fn a_listener_outlives_the_want_of_descriptors() {
    let origin = origin::http().run().await;
    let process = binary::run_under("ulimit -n 48", &open_to(&origin)).await;
    let (plain, admin) = (process.at("plain"), process.admin());
    let mut hoard = Vec::new();
    for _ in 0..60 {
        hoard.push(tokio::net::TcpStream::connect(admin).await.unwrap());
    }
    eventually("there is no descriptor left", async || {
        process.open_files() >= 48
    })
    .await;
    let waiting =
        tokio::spawn(async move { client::connect(plain, Via::H1).await.send(get("/")).await });
    eventually("accepting fails", async || {
        process.event("cannot accept; pausing").is_some()
    })
    .await;
    drop(hoard);
    let recovered = Instant::now();
    let answer = soon("it accepts again", waiting).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(recovered.elapsed() < Duration::from_secs(2));
    let labels = [("listener", "plain"), ("reason", "accept_failed")];
    let name = "vestibule_connections_refused_total";
    assert!(process.metric(name, &labels).await > 0.0);
}

/// R9: fifty of each, and the memory is what it was.
#[tokio::test]
async fn hostile_answers_leave_the_memory_flat() {
    let large = "x-filler: 0123456789012345678901234567890123456789\r\n".repeat(20_000);
    let answers = [
        format!("HTTP/1.1 200 OK\r\n{large}\r\n"),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello and more".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n".to_owned(),
        "hello, this is HTTP/0.9".to_owned(),
    ];
    let mut process = None;
    let mut before = 0;
    for answer in answers {
        let address = raw::hostile(answer, true).await;
        let conf = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"")
            .upstream_at("api", "http", address, "");
        let process = match &process {
            None => process.insert(binary::run(&conf).await),
            Some(running) => {
                let running: &binary::Process = running;
                running.rewrite(&conf);
                running.signal("-HUP");
                let name = "vestibule_config_reloads_total";
                let reloads = running.metric(name, &[]).await;
                eventually("the reload", async || {
                    running.metric(name, &[]).await > reloads - 0.5
                })
                .await;
                running
            }
        };
        for round in 0..50 {
            let mut client = client::connect(process.at("plain"), Via::H1).await;
            // The surplus is cut off; everything else is 502, or ends early.
            if let Ok(answer) = client.try_send(post("/", "x")).await {
                assert!(
                    answer.status == 502 || answer.text() == "hello",
                    "{}",
                    answer.text()
                );
            }
            if round == 10 && before == 0 {
                before = process.memory();
            }
        }
    }
    let process = process.unwrap();
    let grown = process.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "{} KiB more", grown >> 10);
}

/// R19, for a debug build in seconds: a thousand idle TLS connections, slow uploads of 10 MiB, downloads of 50 MiB that
/// nobody reads.
#[tokio::test]
async fn the_idle_the_slow_and_the_deaf_fit_below_the_ceiling() {
    const CEILING: u64 = 150 << 20;
    let origin = origin::http()
        .path("/large", Reply::text(vec![b'x'; 50 << 20]))
        .run()
        .await;
    let conf = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\nmax_body = \"10MiB\"")
        .upstream_with("api", &origin, "max_requests = 1000")
        .listen("max_connections_per_ip = 5000");
    let process = binary::run(&conf).await;
    let (plain, secure) = (process.at("plain"), process.at("secure"));
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut arriving = tokio::task::JoinSet::new();
        for _ in 0..50 {
            arriving.spawn(async move {
                let mut client = client::connect(secure, Via::TlsH1).await;
                assert_eq!(client.send(get("/")).await.status, 200);
                client
            });
        }
        while let Some(client) = arriving.join_next().await {
            idle.push(client.unwrap());
        }
    }
    let after_idle = process.memory();
    let mut others = Vec::new();
    let upload = "POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 10485760\r\n\r\n";
    let begun = upload.to_owned() + &"x".repeat(256 << 10);
    let download = "GET /large HTTP/1.1\r\nhost: test.example\r\n\r\n";
    for number in 0..300 {
        let mut dialogue = raw::open(plain).await;
        let wire = if number % 3 == 0 { download } else { &begun };
        dialogue.send(wire).await;
        others.push(dialogue);
    }
    origin.reached(1_000 + 300).await;
    // Somebody else is served, or refused; never left hanging.
    let mut waited = Vec::new();
    for _ in 0..100 {
        let since = Instant::now();
        let mut client = client::connect(plain, Via::H1).await;
        let answer = soon("an answer", client.send(get("/"))).await;
        assert!(answer.status == 200 || answer.verdict() == refused(503, "overloaded"));
        waited.push(since.elapsed());
        assert!(
            process.memory() <= CEILING,
            "{} KiB",
            process.memory() >> 10
        );
    }
    waited.sort();
    println!(
        "{} KiB with the idle, {} KiB with all, {:?}",
        after_idle >> 10,
        process.memory() >> 10,
        waited[98]
    );
    assert!(waited[98] < Duration::from_millis(500), "{waited:?}");
    drop((idle, others));
}
