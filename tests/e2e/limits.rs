//! Bounds on rate: bursts, keys, addresses, and every way around them that does not work.

use crate::matrix;
use crate::support::client::{Call, Told, Via, call, get, post, refused};
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::issuer;
use crate::support::origin::{self, Origin};
use crate::support::raw;

/// So slow that no bucket fills up again while a test runs.
fn slow(burst: u32) -> String {
    format!("[limit.slow]\nrate = \"1/h\"\nburst = {burst}\n")
}

fn limited(origin: &Origin, burst: u32, keys: &str) -> Builder {
    conf("[[route]]\nname = \"login\"\npath = \"/login\"\nauth = \"none\"\nlimits = [\"slow\"]\nupstream = \"api\"\n\
          [[route]]\nname = \"free\"\npath = \"/free\"\nauth = \"none\"\nupstream = \"api\"")
        .upstream("api", origin)
        .and(&slow(burst))
        .and(keys)
}

async fn passes(gateway: &Gateway, target: &str, times: usize) -> usize {
    let mut passed = 0;
    for _ in 0..times {
        passed += usize::from(gateway.ask(get(target)).await.status == 200);
    }
    passed
}

matrix! {
    async fn a_burst_passes_and_then_429(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = limited(&origin, 3, "").run().await;
        let mut client = gateway.connect(via).await;

        for _ in 0..3 {
            assert_eq!(client.send(get("/login")).await.status, 200);
        }
        let answer = client.send(get("/login")).await;
        assert_eq!(answer.verdict(), refused(429, "rate_limited"));
        let wait: u32 = answer.header("retry-after").parse().unwrap();
        assert!((3_000..=3_600).contains(&wait), "{wait}");
        assert_eq!(origin.heads(), 3);

        // Another route, same connection: free.
        assert_eq!(client.send(get("/free")).await.status, 200);
        let decided = |decision| ("vestibule_limit_decisions_total", [("limit", "slow"), ("decision", decision)]);
        let (name, labels) = decided("allowed");
        assert!((gateway.metric(name, &labels).await - 3.0).abs() < 0.1);
        let (name, labels) = decided("refused");
        assert!((gateway.metric(name, &labels).await - 1.0).abs() < 0.1);
    }
}

#[tokio::test]
async fn one_who_waits_for_retry_after_is_let_in() {
    let origin = origin::http().run().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nlimits = [\"quick\"]\nupstream = \"api\"\n[limit.quick]\nrate = \"1/s\"\nburst = 1")
        .upstream("api", &origin)
        .run()
        .await;
    assert_eq!(gateway.ask(get("/")).await.status, 200);
    let answer = gateway.ask(get("/")).await;
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert_eq!((answer.status.as_u16(), wait), (429, 1));
    tokio::time::sleep(std::time::Duration::from_secs(wait)).await; // what the answer asks its client to do
    assert_eq!(gateway.ask(get("/")).await.status, 200);
}

#[tokio::test]
async fn a_request_counts_whatever_its_method() {
    let origin = origin::http().run().await;
    let gateway = limited(&origin, 6, "").run().await;
    for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH"] {
        let answer = gateway.ask(call(method, "/login")).await;
        assert_eq!(answer.status, 200, "{method}");
    }
    for method in ["HEAD", "OPTIONS", "PATCH"] {
        let answer = gateway.ask(call(method, "/login")).await;
        assert_eq!(answer.status, 429, "{method}");
    }
    assert_eq!(origin.heads(), 6);
}

#[tokio::test]
async fn protocols_and_connections_share_a_bucket() {
    let origin = origin::http().run().await;
    let gateway = limited(&origin, 4, "").run().await;
    let mut passed = 0;
    for via in Via::ALL {
        for _ in 0..3 {
            passed += usize::from(gateway.send(via, get("/login")).await.status == 200);
        }
    }
    assert_eq!((passed, origin.heads()), (4, 4));
}

#[tokio::test]
async fn all_workers_share_a_bucket() {
    let origin = origin::http().run().await;
    let gateway =
        conf("workers = 4\n[[route]]\nauth = \"none\"\nlimits = [\"slow\"]\nupstream = \"api\"")
            .upstream("api", &origin)
            .and(&slow(5))
            .run()
            .await;
    assert_eq!(passes(&gateway, "/", 40).await, 5);
    assert_eq!(origin.heads(), 5);
}

#[tokio::test]
async fn a_hundred_streams_at_once_pass_no_more_than_the_burst() {
    let origin = origin::h2c().run().await;
    let gateway = limited(&origin, 7, "").run().await;
    let client = gateway.connect(Via::H2c).await;
    let streams: Vec<_> = (0..100)
        .map(|_| {
            let mut client = client.another();
            tokio::spawn(async move { client.send(get("/login")).await.status.as_u16() })
        })
        .collect();
    let mut passed = 0;
    for stream in streams {
        passed += usize::from(stream.await.unwrap() == 200);
    }
    assert_eq!((passed, origin.heads()), (7, 7));
}

#[tokio::test]
async fn spellings_of_a_path_share_its_bucket() {
    let origin = origin::http().run().await;
    let gateway = limited(&origin, 2, "").run().await;
    let spellings = [
        "/login",
        "//login",
        "/x/../login",
        "/%6cogin",
        "/./login",
        "/login?x=1",
        "/lo%67in",
    ];
    let mut passed = 0;
    for spelling in spellings {
        passed += passes(&gateway, spelling, 1).await;
    }
    assert_eq!((passed, origin.heads()), (2, 2));
    // Hosts as well.
    for host in ["TEST.example", "test.example.", "test.example:81"] {
        assert_eq!(
            gateway.ask(get("/login").host(host)).await.status,
            429,
            "{host}"
        );
    }
}

#[tokio::test]
async fn lies_about_the_address_buy_nothing() {
    let origin = origin::http().run().await;
    let gateway = limited(&origin, 2, "").run().await;
    let mut passed = 0;
    for n in 0..20 {
        let address = format!("203.0.113.{n}");
        let lies = [
            "x-forwarded-for",
            "x-real-ip",
            "forwarded",
            "true-client-ip",
            "cf-connecting-ip",
        ];
        let call = lies
            .iter()
            .fold(get("/login"), |call, name| call.header(name, &address));
        passed += usize::from(gateway.ask(call).await.status == 200);
    }
    assert_eq!(passed, 2);
}

#[tokio::test]
async fn addresses_have_buckets_of_their_own_and_ipv6_by_its_network() {
    let origin = origin::http().run().await;
    let gateway = limited(&origin, 1, "")
        .listen("trusted_proxies = [\"127.0.0.0/8\"]")
        .run()
        .await;
    for (address, status) in [
        ("203.0.113.1", 200),
        ("203.0.113.1", 429),
        ("203.0.113.2", 200),
        ("::ffff:203.0.113.2", 429),
        ("2001:db8:0:1::1", 200),
        ("2001:db8:0:1::2", 429),
        ("2001:db8:0:1:ffff:ffff:ffff:ffff", 429),
        ("2001:db8:0:2::1", 200),
        ("[2001:db8:0:2::9]", 429),
        ("203.0.113.3:4711", 200),
        ("203.0.113.3:4712", 429),
    ] {
        let answer = gateway
            .ask(get("/login").header("x-forwarded-for", address))
            .await;
        assert_eq!(answer.status, status, "{address}: {}", answer.text());
    }
    assert_eq!(origin.heads(), 5);
}

#[tokio::test]
async fn keys_can_be_headers_and_callers() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = conf(
        r#"
        [[route]]
        name = "tenant"
        path = "/tenant"
        auth = "none"
        limits = ["tenant"]
        upstream = "api"
        [[route]]
        name = "me"
        path = "/me"
        auth = { any = ["main"] }
        limits = ["me"]
        upstream = "api"
        [limit.tenant]
        rate = "1/h"
        key = ["header:x-tenant"]
        [limit.me]
        rate = "1/h"
        key = ["principal"]
    "#,
    )
    .issuer(&issuer)
    .upstream("api", &origin)
    .run()
    .await;
    gateway.ready().await;
    let tenant = async |name: &str| {
        gateway
            .ask(get("/tenant").header("x-tenant", name))
            .await
            .status
            .as_u16()
    };
    assert_eq!(
        [tenant("a").await, tenant("a").await, tenant("b").await],
        [200, 429, 200]
    );
    let me = async |user: &str, n: u32| {
        let token = issuer.token().claim("sub", user).claim("n", n).sign();
        gateway.ask(get("/me").bearer(&token)).await.status.as_u16()
    };
    assert_eq!(
        [
            me("alice", 1).await,
            me("alice", 2).await,
            me("bob", 1).await
        ],
        [200, 429, 200]
    );
    // A stranger cannot empty somebody's bucket: refused before it is counted.
    let forged = issuer
        .token()
        .claim("sub", "carol")
        .with_signature(&[1; 64]);
    assert_eq!(gateway.ask(get("/me").bearer(&forged)).await.status, 401);
    assert_eq!(me("carol", 1).await, 200);
}

#[tokio::test]
async fn scans_that_match_no_route_are_bounded_by_the_listener() {
    let origin = origin::http().run().await;
    let gateway = conf("[[route]]\npath = \"/login\"\nauth = \"none\"\nupstream = \"api\"")
        .upstream("api", &origin)
        .listen("limits = [\"slow\"]")
        .and(&slow(5))
        .run()
        .await;
    let mut statuses = Vec::new();
    for n in 0..8 {
        statuses.push(
            gateway
                .ask(get(&format!("/scan/{n}")))
                .await
                .status
                .as_u16(),
        );
    }
    assert_eq!(statuses, [404, 404, 404, 404, 404, 429, 429, 429]);
    assert_eq!(gateway.ask(get("/login")).await.status, 429);
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_limit_of_the_whole_gateway_and_a_cost_of_a_route_add_up() {
    let origin = origin::http().run().await;
    let gateway = conf(
        r#"
        limits = ["all"]
        [limit.all]
        rate = "1/h"
        burst = 10
        [[route]]
        path = "/dear"
        auth = "none"
        limits = [{ name = "all", cost = 4 }]
        upstream = "api"
    "#,
    )
    .upstream("api", &origin)
    .run()
    .await;
    assert_eq!(passes(&gateway, "/dear", 3).await, 2, "five at a time");
    assert_eq!(gateway.ask(get("/nowhere")).await.status, 429);
    assert_eq!(origin.heads(), 2);
}

#[tokio::test]
async fn an_observing_limit_counts_logs_and_refuses_nothing() {
    let origin = origin::http().run().await;
    let gateway = limited(&origin, 2, "mode = \"observe\"").run().await;
    assert_eq!(passes(&gateway, "/login", 5).await, 5);
    for (decision, count) in [("allowed", 2.0), ("observed", 3.0)] {
        let labels = [("limit", "slow"), ("decision", decision)];
        let name = "vestibule_limit_decisions_total";
        gateway.counted(name, &labels, count).await;
    }
}

#[tokio::test]
async fn a_reload_keeps_the_buckets_of_unchanged_limits() {
    let origin = origin::http().run().await;
    let conf = limited(&origin, 2, "");
    let gateway = conf.clone().run().await;
    assert_eq!(passes(&gateway, "/login", 3).await, 2);

    let other = limited(&origin, 2, "[limit.other]\nrate = \"1/s\"\n");
    assert_eq!(gateway.reload(&other).await.status, 200);
    assert_eq!(passes(&gateway, "/login", 3).await, 0);

    let wider = limited(&origin, 4, "");
    assert_eq!(gateway.reload(&wider).await.status, 200);
    assert_eq!(passes(&gateway, "/login", 6).await, 4);
}

#[tokio::test]
async fn preflights_and_refusals_are_counted_too() {
    let origin = origin::http().run().await;
    let gateway = conf(
        r#"
        [[route]]
        path = "/api"
        auth = "none"
        limits = ["slow"]
        upstream = "api"
        cors = { origins = ["https://app.example"] }
    "#,
    )
    .upstream("api", &origin)
    .and(&slow(2))
    .run()
    .await;
    let preflight = || {
        call("OPTIONS", "/api")
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST")
    };
    assert_eq!(gateway.ask(preflight()).await.status, 204);
    assert_eq!(gateway.ask(preflight()).await.status, 204);
    let answer = gateway.ask(preflight()).await;
    assert_eq!(answer.verdict(), refused(429, "rate_limited"));
    // A page must be able to read why.
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://app.example"
    );
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn grpc_callers_learn_it_as_resource_exhausted() {
    let origin = origin::h2c().run().await;
    let gateway = limited(&origin, 1, "").run().await;
    let ask = || post("/login", "").header("content-type", "application/grpc");
    gateway.send(Via::H2c, ask()).await;
    let answer = gateway.send(Via::H2c, ask()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("grpc-status")),
        (200, "8")
    );
    assert!(answer.header("grpc-message").contains("rate_limited"));
    assert!(!answer.header("retry-after").is_empty());
}

/// Who asks, as a trusted proxy tells it: always the same one to a limit, however it is spelt.
fn spelt(client: usize, n: usize) -> String {
    let roaming = n % 97;
    let forged = format!("198.51.100.{roaming}, ");
    let forged = if n.is_multiple_of(3) {
        forged
    } else {
        String::new()
    };
    let address = match client {
        0 => "203.0.113.7".to_owned(),
        1 if n.is_multiple_of(2) => "::ffff:203.0.113.8".to_owned(),
        1 => format!("203.0.113.8:{}", 1_000 + n),
        2 => format!("2001:db8:7:7::{roaming:x}"),
        _ => format!("[2001:db8:7:8:ffff::{roaming:x}]"),
    };
    format!("{forged}{address}")
}

/// One more request of this client, in one more spelling.
fn disguised(client: usize, n: usize) -> Call {
    let paths = [
        "/login",
        "//login",
        "/x/../login",
        "/%6cogin",
        "/./login",
        "/login?x=1",
    ];
    let hosts = ["test.example", "TEST.example", "test.example."];
    get(paths[n % paths.len()])
        .host(hosts[n % hosts.len()])
        .header("x-forwarded-for", &spelt(client, n))
        .header("true-client-ip", &format!("192.0.2.{}", n % 100))
}

/// Four clients that try everything, on both protocols and many streams at once, across a reload; and others beside
/// them that do nothing wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_truth_through_the_whole_gateway() {
    const BURST: usize = 20;
    let origin = origin::h2c().run().await;
    let conf = conf("workers = 2\n[[route]]\nname = \"login\"\npath = \"/login\"\nauth = \"none\"\nlimits = [\"slow\"]\nupstream = \"api\"")
        .upstream("api", &origin)
        .and(&slow(20))
        .listen("trusted_proxies = [\"127.0.0.0/8\"]");
    let gateway = conf.clone().run().await;
    let mut asking = Vec::new();
    for client in 0..4_usize {
        for connection in 0..6_usize {
            let via = if connection < 3 { Via::H1 } else { Via::H2c };
            let opened = gateway.connect(via).await;
            let streams = if via == Via::H2c { 8 } else { 1 };
            for stream in 0..streams {
                let mut sender = match via {
                    Via::H1 => gateway.connect(via).await,
                    _ => opened.another(),
                };
                asking.push(tokio::spawn(async move {
                    let mut passed = [0; 4];
                    for n in 0..24 / streams {
                        let n = (connection * 8 + stream) * 24 + n;
                        let answer = sender.send(disguised(client, n)).await;
                        passed[client] += usize::from(answer.status == 200);
                    }
                    passed
                }));
            }
            if via == Via::H1 {
                let mut raw = raw::open(gateway.address(Via::H1)).await;
                let address = spelt(client, connection);
                let request = format!(
                    "GET /login HTTP/1.1\r\nhOST: test.example\r\nX-FORWARDED-for: {address}\r\ncONNECTION: close\r\n\r\n"
                );
                asking.push(tokio::spawn(async move {
                    let mut passed = [0; 4];
                    let answer = raw.send(request).await.until_closed().await;
                    passed[client] += usize::from(raw::statuses(&answer) == [200]);
                    passed
                }));
            }
        }
        if client == 1 {
            let other = conf.clone().and("[limit.other]\nrate = \"1/s\"\n");
            assert_eq!(gateway.reload(&other).await.status, 200, "in mid-window");
        }
    }
    let bystanders = (0..10_usize).map(|n| {
        let address = if n.is_multiple_of(2) {
            format!("203.0.113.{}", 100 + n)
        } else {
            format!("2001:db8:9:{n:x}::1")
        };
        let call = get("/login").header("x-forwarded-for", &address);
        async { gateway.ask(call).await.status }
    });
    for asked in bystanders {
        assert_eq!(asked.await, 200, "a bystander");
    }
    let mut passed = [0; 4];
    for asked in asking {
        for (sum, more) in passed.iter_mut().zip(asked.await.unwrap()) {
            *sum += more;
        }
    }
    assert_eq!(passed, [BURST; 4]);
    assert_eq!(origin.heads(), 4 * BURST + 10);
}
