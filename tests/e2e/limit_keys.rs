//! Accounts, networks and clients as keys of limits: what is read of a body, every way around that does not work, and
//! that the body passes on untouched.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::matrix;
use crate::support::body;
use crate::support::client::{Call, Told, Via, call, fields, post, refused};
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::issuer;
use crate::support::origin::{self, Origin};
use crate::support::raw;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// One route with one limit by `key` that lets one request of a key through and no second one, behind a proxy that
/// tells client addresses.
fn counting(origin: &Origin, key: &str, keys: &str) -> Builder {
    behind_a_proxy(origin, &format!("rate = \"1/h\"\nkey = {key}\n{keys}"))
}

/// One route with one limit, behind a proxy that tells client addresses.
fn behind_a_proxy(origin: &Origin, limit: &str) -> Builder {
    conf("[[route]]\nname = \"login\"\nauth = \"none\"\nlimits = [\"slow\"]\nupstream = \"api\"")
        .listen("trusted_proxies = [\"127.0.0.0/8\"]")
        .upstream("api", origin)
        .and(&format!("[limit.slow]\n{limit}"))
}

fn sent(call: Call, media: &str, from: &str) -> Call {
    call.header("content-type", media)
        .header("x-forwarded-for", from)
}

fn json(from: &str, payload: &str) -> Call {
    sent(post("/login", payload.to_owned()), JSON, from)
}

fn form(from: &str, payload: &str) -> Call {
    sent(post("/login", payload.to_owned()), FORM, from)
}

/// An address for each number.
fn address(n: usize) -> String {
    format!("203.0.113.{n}")
}

/// How many of `calls` pass.
async fn passed(gateway: &Gateway, calls: impl IntoIterator<Item = Call>) -> usize {
    let mut passed = 0;
    for call in calls {
        let answer = gateway.ask(call).await;
        if answer
            .headers
            .get("grpc-status")
            .is_some_and(|status| status == "8")
        {
            continue; // 429 in the dialect of gRPC
        }
        if answer.status == 200 {
            passed += 1;
        } else {
            assert_eq!(answer.verdict(), refused(429, "rate_limited"));
        }
    }
    passed
}

matrix! {
    async fn an_account_is_limited_over_many_addresses_and_the_body_passes_untouched(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = counting(&origin, "\"json:email\"", "").run().await;
        let payload = r#"{"email":"ada@example.com", "password" : "x"}"#;
        let mut client = gateway.connect(via).await;

        let answer = client.send(json(&address(1), payload)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = origin.only();
        assert_eq!((seen.text().as_str(), seen.whole), (payload, true));
        assert_eq!(seen.header("content-length"), payload.len().to_string());

        let answer = client.send(json(&address(2), payload)).await;
        assert_eq!(answer.verdict(), refused(429, "rate_limited"));
        assert!(answer.headers.contains_key("retry-after"));
        let bystander = client.send(json(&address(1), r#"{"email":"bob@example.com"}"#)).await;
        assert_eq!(bystander.status, 200);
        assert_eq!(origin.heads(), 2);
    }
}

#[tokio::test]
async fn no_spelling_of_an_account_is_another_account() {
    let origin = origin::http().run().await;
    let gateway = counting(&origin, "\"json:checks.user.loginName\"", "")
        .run()
        .await;
    let spellings = [
        r#"{"checks":{"user":{"loginName":"ada@example.com"}}}"#,
        r#"{"checks":{"user":{"loginName":"ADA@example.com"}}}"#,
        r#"{"checks":{"user":{"loginName":"  ada@Example.COM\n"}}}"#,
        r#"{"checks":{"user":{"loginName":"\u0061\u0064a@example.com"}}}"#,
        r#"{"checks":{"user":{"login\u004eame":"ada@example.com"}}}"#,
        r#"{"checks":{"user":{"login_name":"ada@example.com"}}}"#,
        r#"{"Checks":{"USER":{"LoginName":"ada@example.com"}},"x":1}"#,
        r#"{"metadata":[{"loginName":"bob"}],"checks":{"password":{},"user":{"loginName":"ada@example.com"}}}"#,
    ];
    let calls = spellings
        .iter()
        .enumerate()
        .map(|(n, text)| json(&address(n), text));
    assert_eq!(passed(&gateway, calls).await, 1);
    assert_eq!(origin.heads(), 1);
}

#[tokio::test]
async fn what_cannot_be_read_in_one_way_is_one_key_and_never_a_way_out() {
    let origin = origin::http().run().await;
    let gateway = counting(&origin, "\"json:email\"", "peek = \"1KiB\"")
        .run()
        .await;
    let large = format!(
        "{{\"email\":\"a\",\"x\":\"{}\",\"email\":\"b\"}}",
        "x".repeat(2_000)
    );
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let media = |media: &str| sent(post("/login", r#"{"email":"a"}"#), media, &address(3));
    let calls = [
        json(&address(0), r#"{"email":"a","email":"b"}"#),
        json(&address(1), r#"{"email":"a","Email":"b"}"#),
        json(&address(2), r#"{"email":"a","\u0065mail":"b"}"#),
        json(&address(4), r#"{"email":["a"]}"#),
        json(&address(5), r#"{"email":"a"} {"email":"b"}"#),
        json(&address(6), "email=a"),
        json(&address(7), &large),
        json(&address(8), r#"{"email":"a"}"#).header("content-type", JSON),
        sent(
            post("/login", Bytes::copy_from_slice(&gzip)),
            JSON,
            &address(9),
        )
        .header("content-encoding", "gzip"),
        json(&address(10), r#"{"email":"a"}"#).header("content-encoding", "x-unknown"),
        media("text/plain"),
        media("application/json; charset=utf-16"),
        media("application/grpc"),
        media("application/x-www-form-urlencoded"),
        sent(
            post("/login?email=b", r#"{"email":"a"}"#),
            JSON,
            &address(11),
        ),
        sent(post("/login?EM%41IL=b", "{}"), JSON, &address(12)),
        post("/login", r#"{"email":"a"}"#).header("x-forwarded-for", &address(13)),
    ];
    let count = calls.len();
    assert_eq!(passed(&gateway, calls).await, 1, "all of them are one key");
    assert_eq!(origin.heads(), 1);
    let metric = "vestibule_limit_unreadable_decisions_total";
    gateway
        .counted(metric, &[("limit", "slow")], count as f64)
        .await;

    // Whoever means well is not hurt.
    assert_eq!(
        passed(&gateway, [json(&address(3), r#"{"email":"a"}"#)]).await,
        1
    );
    // With the address in the key, an attacker uses up the own one only.
    let gateway = counting(&origin, "\"ip+json:email\"", "").run().await;
    let calls = (0..10).map(|n| json(&address(n % 2), "nonsense"));
    assert_eq!(passed(&gateway, calls).await, 2);
}

#[tokio::test]
async fn a_body_in_many_pieces_is_read_all_the_same() {
    let origin = origin::http().run().await;
    let gateway = counting(&origin, "\"json:email\"", "").run().await;
    let payload = r#"{"email":"ada@example.com","password":"x"}"#;
    let letters = || payload.bytes().map(|byte| Bytes::copy_from_slice(&[byte]));
    for (n, via) in Via::ALL.into_iter().enumerate() {
        let call = sent(post("/login", ""), JSON, &address(n)).body(body::chunks(letters(), None));
        let answer = gateway.send(via, call).await;
        assert_eq!(
            answer.status.as_u16(),
            if n == 0 { 200 } else { 429 },
            "{via:?}"
        );
    }
    assert_eq!(origin.only().text(), payload);
    assert!(
        !origin.only().has("content-length"),
        "what was chunked stays so"
    );
}

#[tokio::test]
async fn trailers_end_here_behind_a_body_that_was_read_ahead_too() {
    let origin = origin::h2c().run().await;
    let gateway = counting(&origin, "\"json:email\"", "").run().await;
    let chunks = ["{\"email\":".into(), "\"a\"}".into()];
    let sum = Some(fields(&[("x-sum", "7")]));
    let call = sent(post("/login", ""), JSON, "203.0.113.1").body(body::chunks(chunks, sum));
    assert_eq!(gateway.send(Via::H2c, call).await.status, 200);
    let seen = origin.only();
    assert_eq!(
        (seen.text().as_str(), seen.whole),
        (r#"{"email":"a"}"#, true)
    );
    assert!(seen.trailers.is_empty(), "as on every other route");
}

matrix! {
    async fn a_body_larger_than_what_is_read_ahead_streams_on(via, speaks) {
        let origin = origin::speaking(speaks).early("/login", origin::Reply::echo()).run().await;
        let gateway = counting(&origin, "\"json:email\"", "").run().await;
        let (sender, payload) = body::channel();
        sender.chunk("x".repeat(20_000));
        let mut client = gateway.connect(via).await;
        let call = sent(post("/login", ""), JSON, "203.0.113.1").body(payload);
        let response = client.start(call).await.unwrap(); // the head comes back while the body is under way
        sender.chunk("y".repeat(50_000));
        drop(sender);
        let answer = crate::support::client::collect(response).await.unwrap();
        let expected = "x".repeat(20_000) + &"y".repeat(50_000);
        assert!(answer.text() == expected, "{} bytes", answer.body.len());
    }
}

#[tokio::test]
async fn a_body_that_is_late_counts_as_unreadable_and_goes_on() {
    let origin = origin::http().run().await;
    let gateway = counting(&origin, "\"json:email\"", "peek_timeout = \"100ms\"")
        .run()
        .await;
    for (n, expected) in [(1, 200), (2, 429)] {
        let (sender, payload) = body::channel();
        sender.chunk("{\"email\":");
        let mut client = gateway.connect(Via::H1).await;
        let call = sent(post("/login", ""), JSON, &address(n)).body(payload);
        let answer = tokio::spawn(async move { client.send(call).await });
        let labels = [("limit", "slow")];
        let metric = "vestibule_limit_unreadable_decisions_total";
        gateway
            .counted(metric, &labels, f64::from(u8::try_from(n).unwrap()))
            .await;
        sender.chunk(format!("\"a{n}\"}}"));
        drop(sender);
        assert_eq!(answer.await.unwrap().status.as_u16(), expected);
    }
    assert_eq!(origin.only().text(), r#"{"email":"a1"}"#);
}

#[tokio::test]
async fn expect_continue_is_answered_by_whoever_reads() {
    let origin = origin::http().run().await;
    let gateway = counting(&origin, "\"json:email\"", "").run().await;
    for expected in ["HTTP/1.1 200", "HTTP/1.1 429"] {
        let mut dialogue = raw::open(gateway.at("plain")).await;
        dialogue
            .send(
                "POST /login HTTP/1.1\r\nhost: test.example\r\ncontent-type: application/json\r\n\
                   content-length: 13\r\nexpect: 100-continue\r\n\r\n",
            )
            .await;
        let interim = dialogue.until("\r\n\r\n").await;
        assert!(interim.starts_with(b"HTTP/1.1 100"));
        let answer = dialogue.send(r#"{"email":"a"}"#).await.answer().await;
        assert!(answer.starts_with(expected), "{answer}");
    }
    assert_eq!(origin.only().text(), r#"{"email":"a"}"#);
}

#[tokio::test]
async fn a_connection_goes_on_after_a_refusal_by_the_body() {
    let origin = origin::http().run().await;
    let gateway = counting(&origin, "\"json:email\"", "").run().await;
    let mut client = gateway.connect(Via::H1).await;
    for expected in [200, 429, 429] {
        let chunks = body::chunks([Bytes::from_static(br#"{"email":"a"}"#)], None);
        let call = sent(post("/login", ""), JSON, "203.0.113.1").body(chunks);
        assert_eq!(client.send(call).await.status.as_u16(), expected);
    }
}

#[tokio::test]
async fn forms_count_by_their_fields() {
    let origin = origin::http().run().await;
    let gateway = counting(&origin, "\"form:email\"", "").run().await;
    let same = [
        "email=ada%40example.com",
        "password=x&email=ADA@example.com+",
        "e%6dail=%61da@example.com",
        "E-Mail=ada@example.com",
    ];
    let calls = same
        .iter()
        .enumerate()
        .map(|(n, text)| form(&address(n), text));
    assert_eq!(passed(&gateway, calls).await, 1);
    let unreadable = [
        "email=a&email=b",
        "email[]=a",
        "email=%",
        "email=%ff",
        r#"{"email":"a"}"#,
    ];
    let calls = unreadable
        .iter()
        .enumerate()
        .map(|(n, text)| form(&address(n), text));
    assert_eq!(passed(&gateway, calls).await, 1);
    assert_eq!(passed(&gateway, [form(&address(9), "email=bob")]).await, 1);
}

#[tokio::test]
async fn who_names_no_account_counts_by_address() {
    let origin = origin::http().run().await;
    let gateway = counting(&origin, "\"json:email\"", "").run().await;
    for n in 0..3 {
        let calls = [
            json(&address(n), "{}"),
            json(&address(n), r#"{"email":" "}"#),
            json(&address(n), ""),
        ];
        assert_eq!(passed(&gateway, calls).await, 1);
    }
}

#[tokio::test]
async fn cookies_and_client_ids_are_keys() {
    let origin = origin::http().run().await;
    let gateway = counting(&origin, "[\"cookie:rt\"]", "").run().await;
    let with = |n, cookie: &str| json(&address(n), "{}").header("cookie", cookie);
    let same = [
        with(1, "rt=one"),
        with(2, "x=y; rt=one"),
        with(3, "rt=ONE").header("cookie", "a=b"),
    ];
    assert_eq!(passed(&gateway, same).await, 1);
    assert_eq!(passed(&gateway, [with(1, "rt=two")]).await, 1);
    let unclear = [with(1, "rt=a; rt=b"), with(2, "rt=\"c\""), with(3, "rt =d")];
    assert_eq!(passed(&gateway, unclear).await, 1);

    let gateway = counting(&origin, "\"basic:client_id\"", "").run().await;
    let basic = |n, pair: &str| {
        let value = format!("Basic {}", STANDARD.encode(pair));
        form(&address(n), "grant_type=client_credentials").header("authorization", &value)
    };
    let same = [
        basic(1, "billing:a"),
        basic(2, "Billing:b"),
        basic(3, "bil%6Cing:c:d"),
    ];
    assert_eq!(passed(&gateway, same).await, 1);
    assert_eq!(passed(&gateway, [basic(1, "other:a")]).await, 1);
    let unclear = [
        basic(4, "no colon"),
        form(&address(5), "x=1").header("authorization", "Basic ?"),
        basic(6, "a:b").header("authorization", "Bearer x"),
    ];
    assert_eq!(passed(&gateway, unclear).await, 1);
    let none = form(&address(7), "x=1").header("authorization", "Bearer x");
    assert_eq!(
        passed(
            &gateway,
            [none, form(&address(7), "x=1"), form(&address(8), "x=1")]
        )
        .await,
        2
    );
}

#[tokio::test]
async fn claims_are_keys() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = conf(
        "[[route]]\nauth = { any = [\"main\"] }\nlimits = [\"tenant\"]\nupstream = \"api\"\n\
                        [limit.tenant]\nrate = \"1/h\"\nkey = \"claim:org\"",
    )
    .issuer(&issuer)
    .upstream("api", &origin)
    .run()
    .await;
    gateway.ready().await;
    let token = |user: &str, org: &str| issuer.token().claim("sub", user).claim("org", org).sign();
    for (user, org, status) in [("ada", "1", 200), ("bob", "1", 429), ("ada", "2", 200)] {
        let answer = gateway
            .ask(call("GET", "/").bearer(&token(user, org)))
            .await;
        assert_eq!(answer.status.as_u16(), status, "{user} of {org}");
    }
}

#[tokio::test]
async fn networks_methods_and_services_are_keys() {
    let origin = origin::http().run().await;
    let networks =
        "[network.office]\ncidrs = [\"10.0.0.0/8\"]\n[network.lab]\ncidrs = [\"10.1.0.0/16\"]";
    let gateway = counting(&origin, "\"network\"", networks).run().await;
    let from = |address: &str| json(address, "{}");
    let office = ["10.0.0.1", "10.2.0.1", "::ffff:10.3.0.1"].map(from);
    assert_eq!(passed(&gateway, office).await, 1);
    assert_eq!(
        passed(&gateway, ["10.1.0.1", "10.1.2.3"].map(from)).await,
        1
    );
    assert_eq!(
        passed(
            &gateway,
            ["203.0.113.1", "203.0.113.2", "203.0.113.1"].map(from)
        )
        .await,
        2
    );

    let gateway = counting(&origin, "\"ip+method\"", "ipv4_prefix = 24")
        .run()
        .await;
    let calls = ["POST", "GET", "POST", "GET"].iter().enumerate();
    let calls = calls.map(|(n, method)| call(method, "/").header("x-forwarded-for", &address(n)));
    assert_eq!(passed(&gateway, calls).await, 2);

    let gateway = counting(&origin, "[\"ip\", \"grpc:service\"]", "")
        .run()
        .await;
    let calls = ["/a.B/C", "/a.B/D", "/a.E/C"].map(|path| call("POST", path));
    assert_eq!(passed(&gateway, calls).await, 2);
}

#[tokio::test]
async fn limits_that_cannot_know_their_key_are_named_at_load() {
    let origin = origin::http().run().await;
    let why = |key: &str, keys: &str, listen: &str| {
        let conf = counting(&origin, key, keys).listen(listen);
        conf.try_run().map(drop).unwrap_err().to_string()
    };
    let listener = "limits = [\"slow\"]";
    assert!(
        why("\"json:email\"", "", listener)
            .contains("by the body, which is not read before routing")
    );
    assert!(
        why("\"claim:org\"", "", listener).contains("callers, who are not known before routing")
    );
    assert!(why("\"network\"", "", "").contains("[network.office]"));
    assert!(
        why(
            "\"network\"",
            "networks = [\"offce\"]\n[network.office]\ncidrs = []",
            ""
        )
        .contains("did you mean `office`")
    );
    assert!(why("\"ip\"", "ipv6_prefix = 129", "").contains("1 to 128 bits"));
    assert!(why("\"json:email\"", "peek = \"2MiB\"", "").contains("1MiB"));
    assert!(why("\"query:email\"", "", "").contains("json:PATH"));
}

#[tokio::test]
async fn a_network_that_changes_ends_the_buckets_of_its_limits() {
    let origin = origin::http().run().await;
    let conf = |cidr: &str| {
        counting(
            &origin,
            "\"network\"",
            &format!("[network.office]\ncidrs = [\"{cidr}\"]"),
        )
    };
    let gateway = conf("10.0.0.0/8").run().await;
    let from = |address: &str| json(address, "{}");
    assert_eq!(passed(&gateway, [from("10.0.0.1")]).await, 1);
    assert_eq!(gateway.reload(&conf("10.0.0.0/8")).await.status, 200);
    assert_eq!(passed(&gateway, [from("10.0.0.2")]).await, 0);
    assert_eq!(gateway.reload(&conf("10.0.0.0/16")).await.status, 200);
    assert_eq!(
        passed(&gateway, ["10.0.0.1", "10.0.9.9", "10.1.0.1"].map(from)).await,
        2
    );
}

#[tokio::test]
async fn sprayed_passwords_stop_at_the_address_and_nobody_else() {
    let origin = origin::http().run().await;
    let spray = "key = \"ip\"\ndistinct = { of = \"json:email\", per = \"10m\", above = 5 }";
    let gateway = behind_a_proxy(&origin, spray).run().await;
    let account =
        |n: usize, from: &str| json(from, &format!("{{\"email\":\"user{n}@example.com\"}}"));
    let attack = (0..30).map(|n| account(n, "203.0.113.1"));
    assert_eq!(passed(&gateway, attack).await, 5);
    let known = (0..5).map(|n| account(n, "203.0.113.1"));
    assert_eq!(
        passed(&gateway, known).await,
        5,
        "who was there before goes on"
    );
    let elsewhere = (10..15).map(|n| account(n, "203.0.113.2"));
    assert_eq!(passed(&gateway, elsewhere).await, 5);
    let metric = "vestibule_limit_distinct_exceeded_total";
    gateway.counted(metric, &[("limit", "slow")], 25.0).await;
    let answer = gateway.ask(account(99, "203.0.113.1")).await;
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((300..=900).contains(&wait), "{wait}");
}

#[tokio::test]
async fn where_failures_count_an_office_that_signs_in_sprays_nothing() {
    let answers = |seen: &origin::Seen| {
        if seen.text().contains("wrong") {
            origin::Reply::empty(401)
        } else {
            origin::Reply::text("welcome")
        }
    };
    let origin = origin::http().otherwise(answers).run().await;
    let spray = "key = \"ip\"\ncount = \"failures\"\nrate = \"100/m\"\n\
                 distinct = { of = \"json:email\", per = \"10m\", above = 3 }";
    let gateway = behind_a_proxy(&origin, spray).run().await;
    let sign_in = |n: usize, password: &str| {
        let text = format!("{{\"email\":\"user{n}\",\"password\":\"{password}\"}}");
        json("203.0.113.1", &text)
    };
    for n in 0..9 {
        assert_eq!(gateway.ask(sign_in(n, "right")).await.status, 200);
    }
    for n in 0..3 {
        assert_eq!(gateway.ask(sign_in(n, "wrong")).await.status, 401);
    }
    let answer = gateway.ask(sign_in(9, "wrong")).await;
    assert_eq!(answer.verdict(), refused(429, "rate_limited"));
    assert!(
        !answer.headers.contains_key("ratelimit"),
        "the rate has room"
    );
    assert_eq!(gateway.ask(sign_in(1, "right")).await.status, 200);
}

#[tokio::test]
async fn an_allow_list_believes_nobody_who_only_says_so() {
    let origin = origin::http().run().await;
    let gateway = conf("[[route]]\nauth = \"none\"\nlimits = [\"slow\"]\nupstream = \"api\"")
        .upstream("api", &origin)
        .and("[limit.slow]\nrate = \"1/h\"\nallow = { networks = [\"10.0.0.0/8\"] }")
        .run()
        .await;
    let calls = [
        "x-forwarded-for",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
    ]
    .map(|name| call("GET", "/").header(name, "10.0.0.1"));
    assert_eq!(passed(&gateway, calls).await, 1);
    let forwarded = call("GET", "/").header("forwarded", "for=10.0.0.1");
    assert_eq!(passed(&gateway, [forwarded]).await, 0);
}

#[tokio::test]
async fn many_networks_on_one_account_are_seen() {
    let origin = origin::http().run().await;
    let swarm = "key = \"json:email\"\ndistinct = { of = \"ip\", per = \"1h\", above = 3 }";
    let gateway = behind_a_proxy(&origin, swarm).run().await;
    let victim = (0..10).map(|n| json(&address(n), r#"{"email":"ada"}"#));
    assert_eq!(passed(&gateway, victim).await, 3);
    let other = (0..3).map(|n| json(&address(n), r#"{"email":"bob"}"#));
    assert_eq!(passed(&gateway, other).await, 3);
}

matrix! {
    async fn a_refusal_tells_the_quota_and_never_the_key(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = counting(&origin, "\"json:email\"", "").run().await;
        let mut client = gateway.connect(via).await;
        let passes = client.send(json(&address(1), r#"{"email":"ada"}"#)).await;
        assert!(!passes.headers.contains_key("ratelimit"));
        let answer = client.send(json(&address(1), r#"{"email":"ada"}"#)).await;
        assert_eq!(answer.status, 429);
        assert_eq!(answer.header("ratelimit-policy"), r#""slow";q=1;w=3600"#);
        let wait = answer.header("retry-after");
        assert_eq!(answer.header("ratelimit"), format!("\"slow\";r=0;t={wait}"));
        assert_eq!(answer.at("/policy"), "slow");
        assert!(!answer.text().contains("ada"));
    }
}

#[tokio::test]
async fn who_passes_is_told_what_is_left_where_the_limit_says_so() {
    let origin = origin::http().run().await;
    let gateway = conf(
        "[[route]]\nauth = \"none\"\nlimits = [\"slow\"]\nupstream = \"api\"\n\
                        [limit.slow]\nrate = [\"3/h\", \"100/d\"]\nheaders = true",
    )
    .upstream("api", &origin)
    .run()
    .await;
    for left in [2, 1, 0] {
        let answer = gateway.ask(call("GET", "/")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("ratelimit-policy"),
            r#""slow";q=3;w=3600, "slow-2";q=100;w=86400"#
        );
        let told = answer.header("ratelimit");
        assert!(told.starts_with(&format!("\"slow\";r={left};t=")), "{told}");
    }
    let answer = gateway.ask(call("GET", "/")).await;
    assert_eq!(answer.status, 429);
    assert!(answer.header("ratelimit").starts_with("\"slow\";r=0;t="));
}

#[tokio::test]
async fn who_is_refused_is_told_which_window_has_no_room() {
    let origin = origin::http().run().await;
    let gateway = conf(
        "[[route]]\nauth = \"none\"\nlimits = [\"slow\"]\nupstream = \"api\"\n\
         [limit.slow]\nrate = [\"100/m\", \"2/h\"]",
    )
    .upstream("api", &origin)
    .run()
    .await;
    for _ in 0..2 {
        assert_eq!(gateway.ask(call("GET", "/")).await.status, 200);
    }
    let answer = gateway.ask(call("GET", "/")).await;
    let wait = answer.header("retry-after");
    assert_eq!(
        answer.header("ratelimit"),
        format!("\"slow-2\";r=0;t={wait}")
    );
}

#[tokio::test]
async fn grpc_and_connect_are_told_in_their_own_words_and_in_the_fields() {
    let origin = origin::h2c().run().await;
    let gateway = counting(&origin, "\"ip\"", "").run().await;
    let call = |media: &str| sent(post("/a.B/C", "{}"), media, "203.0.113.1");
    assert_eq!(gateway.send(Via::H2c, call(JSON)).await.status, 200);
    for media in ["application/grpc", "application/grpc-web+proto"] {
        let answer = gateway.send(Via::H2c, call(media)).await;
        assert_eq!(answer.status, 200, "{media}");
        let text = answer.text();
        let status = answer
            .headers
            .get("grpc-status")
            .is_some_and(|status| status == "8");
        assert!(status || text.contains("grpc-status: 8"), "{media}");
        assert!(answer.header("ratelimit").starts_with("\"slow\";r=0;t="));
    }
    let connect = call(JSON).header("connect-protocol-version", "1");
    let answer = gateway.send(Via::H2c, connect).await;
    assert_eq!(
        (answer.status.as_u16(), answer.at("/code").as_str()),
        (429, Some("resource_exhausted"))
    );
}

#[tokio::test]
async fn refusals_wear_the_envelope_that_the_route_or_the_listener_says() {
    let origin = origin::http().run().await;
    let issuer = issuer::run().await;
    let gateway = conf(
        r#"
        [[route]]
        path = "/v1/*"
        auth = { any = ["main"] }
        upstream = "api"
        [[route]]
        path = "/token"
        auth = "none"
        errors = "oauth"
        max_body = "8B"
        upstream = "api"
        [[route]]
        path = "/plain"
        auth = "deny"
        errors = "problem"
        "#,
    )
    .listen("errors = \"identsphere\"")
    .issuer(&issuer)
    .upstream("api", &origin)
    .run()
    .await;
    gateway.ready().await;
    let answer = gateway.ask(call("GET", "/v1/x")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.at("/error/code").as_str()),
        (401, Some("authentication_required"))
    );
    assert_eq!(answer.at("/error/type"), "authentication_error");
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(answer.headers.contains_key("www-authenticate"));
    let answer = gateway.ask(call("GET", "/nowhere")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.at("/error/code").as_str()),
        (404, Some("no_route"))
    );
    let answer = gateway.ask(post("/token", "more than eight")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.at("/error").as_str()),
        (413, Some("invalid_request"))
    );
    assert!(
        answer
            .at("/error_description")
            .as_str()
            .unwrap()
            .contains("body_too_large")
    );
    let answer = gateway.ask(call("GET", "/plain")).await;
    assert_eq!(answer.verdict(), refused(404, "route_closed"));
    assert_eq!(answer.header("content-type"), "application/problem+json");
}
