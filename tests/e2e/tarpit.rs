//! Refusals that are held back: whoever is refused waits for it, and nobody else does.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::matrix;
use crate::support::body;
use crate::support::client::{Answer, Call, Told, Via, call, get, post, refused};
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::origin::{self, Origin};

/// One request an hour from each address; what is refused beyond that is held back so long.
fn holding(origin: &Origin, time: &str, keys: &str) -> Builder {
    conf("[[route]]\nname = \"login\"\nauth = \"none\"\nlimits = [\"slow\"]\nupstream = \"api\"")
        .listen("trusted_proxies = [\"127.0.0.0/8\"]")
        .upstream("api", origin)
        .and(&format!(
            "[limit.slow]\nrate = \"1/h\"\ntarpit = \"{time}\"\n{keys}"
        ))
}

fn from(address: &str) -> Call {
    get("/").header("x-forwarded-for", address)
}

async fn held(gateway: &Gateway, now: f64) {
    let metric = "vestibule_limit_tarpit_held";
    gateway.counted(metric, &[("limit", "slow")], now).await;
}

/// A client whose budget is used up, and whose refusal is under way for as long as it is held back.
async fn stuck(gateway: &Gateway, via: Via, address: &str) -> JoinHandle<Result<Answer, String>> {
    let before = metric(gateway, "held").await;
    let mut client = gateway.connect(via).await;
    assert_eq!(client.send(from(address)).await.status, 200);
    let call = from(address);
    let waiting = tokio::spawn(async move { client.try_send(call).await });
    let labels = [("limit", "slow"), ("outcome", "held")];
    let total = "vestibule_limit_tarpit_total";
    gateway.counted(total, &labels, before + 1.0).await;
    waiting
}

async fn metric(gateway: &Gateway, outcome: &str) -> f64 {
    let labels = [("limit", "slow"), ("outcome", outcome)];
    gateway
        .metric("vestibule_limit_tarpit_total", &labels)
        .await
}

matrix! {
    async fn a_refusal_is_held_back_and_what_it_says_is_true_when_it_leaves(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = holding(&origin, "1s", "").run().await;
        let mut client = gateway.connect(via).await;
        assert_eq!(client.send(from("203.0.113.1")).await.status, 200);
        let begun = Instant::now();
        let answer = client.send(from("203.0.113.1")).await;
        assert_eq!(answer.verdict(), refused(429, "rate_limited"));
        assert!(begun.elapsed() >= Duration::from_secs(1));
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((3_500..=3_599).contains(&wait), "{wait}: a second has passed since the decision");
        assert_eq!(answer.header("ratelimit"), format!("\"slow\";r=0;t={wait}"));
        let bystander = client.send(from("203.0.113.2")).await;
        assert_eq!((bystander.status.as_u16(), origin.heads()), (200, 2), "the connection goes on");
        held(&gateway, 0.0).await;
    }
}

#[tokio::test]
async fn grpc_waits_for_its_refusal_too_but_never_beyond_its_deadline() {
    let origin = origin::h2c().run().await;
    let gateway = holding(&origin, "1s", "").run().await;
    let rpc = || post("/a.B/C", "").header("content-type", "application/grpc");
    assert_eq!(gateway.send(Via::H2c, rpc()).await.status, 200);
    let begun = Instant::now();
    let answer = gateway.send(Via::H2c, rpc()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("grpc-status")),
        (200, "8")
    );
    assert!(begun.elapsed() >= Duration::from_secs(1));

    let gateway = holding(&origin, "60s", "").run().await;
    assert_eq!(gateway.send(Via::H2c, rpc()).await.status, 200);
    let hurried = rpc().header("grpc-timeout", "300m");
    let answer = gateway.send(Via::H2c, hurried).await;
    assert_eq!(answer.header("grpc-status"), "8");
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_slot_back_at_once() {
    let origin = origin::http().run().await;
    let gateway = holding(&origin, "60s", "tarpit_slots = 1").run().await;
    for (n, via) in Via::ALL.into_iter().enumerate() {
        let waiting = stuck(&gateway, via, &format!("203.0.113.{n}")).await;
        held(&gateway, 1.0).await;
        waiting.abort(); // and with it the connection
        held(&gateway, 0.0).await;
    }
    let mut client = gateway.connect(Via::TlsH2).await;
    assert_eq!(client.send(from("203.0.113.9")).await.status, 200);
    let mut other = client.another();
    let stream = tokio::spawn(async move { other.try_send(from("203.0.113.9")).await });
    held(&gateway, 1.0).await;
    stream.abort();
    held(&gateway, 0.0).await;
    assert_eq!(client.send(from("203.0.113.10")).await.status, 200);
}

#[tokio::test]
async fn without_a_free_slot_the_answer_goes_out_at_once() {
    let origin = origin::http().run().await;
    let gateway = holding(&origin, "60s", "tarpit_slots = 2").run().await;
    let one = stuck(&gateway, Via::H1, "203.0.113.1").await;
    let two = stuck(&gateway, Via::H2c, "203.0.113.2").await;
    gateway.settled().await; // whoever is held is not in flight
    let mut client = gateway.connect(Via::H1).await;
    for status in [200, 429, 429] {
        let answer = client.send(from("203.0.113.3")).await;
        assert_eq!(answer.status.as_u16(), status);
    }
    assert_eq!(metric(&gateway, "no_slot").await.to_string(), "2");
    held(&gateway, 2.0).await;
    one.abort();
    two.abort();
    held(&gateway, 0.0).await;
}

#[tokio::test]
async fn a_stop_lets_the_held_answers_go() {
    let origin = origin::http().run().await;
    let gateway = holding(&origin, "60s", "").run().await;
    let waiting = [
        stuck(&gateway, Via::TlsH1, "203.0.113.1").await,
        stuck(&gateway, Via::TlsH2, "203.0.113.2").await,
    ];
    gateway.stop();
    for answer in waiting {
        let answer = answer.await.unwrap().expect("the answer, at once");
        assert_eq!(answer.verdict(), refused(429, "rate_limited"));
    }
}

#[tokio::test]
async fn a_reload_neither_waits_for_the_held_nor_forgets_them() {
    let origin = origin::http().run().await;
    let conf = holding(&origin, "60s", "");
    let gateway = conf.clone().run().await;
    let waiting = stuck(&gateway, Via::TlsH2, "203.0.113.1").await;
    let more = "[[route]]\npath = \"/more\"\nauth = \"none\"\nupstream = \"api\"";
    assert_eq!(gateway.reload(&conf.and(more)).await.status, 200);
    held(&gateway, 1.0).await;
    let free = crate::support::gateway::open_to(&origin);
    assert_eq!(gateway.reload(&free).await.status, 200);
    let passes = gateway.ask(from("203.0.113.1")).await;
    assert_eq!(passes.status, 200, "the limit is gone");
    gateway.stop();
    let answer = waiting.await.unwrap().expect("the answer of before");
    assert_eq!(answer.verdict(), refused(429, "rate_limited"));
}

#[tokio::test]
async fn the_held_take_no_seat_and_no_turn_from_others() {
    let origin = origin::http().run().await;
    let gateway = conf(
        "max_in_flight = 1\n[[route]]\nauth = \"none\"\nlimits = [\"seat\", \"slow\"]\nupstream = \"api\"\n\
         [limit.seat]\nkey = \"route\"\nconcurrency = 1\nqueue = 0\n\
         [limit.slow]\nrate = \"1/h\"\ntarpit = \"60s\"",
    )
    .listen("trusted_proxies = [\"127.0.0.0/8\"]")
    .upstream("api", &origin)
    .run()
    .await;
    let waiting = stuck(&gateway, Via::H1, "203.0.113.1").await;
    gateway.settled().await;
    let bystander = gateway.ask(from("203.0.113.2")).await;
    assert_eq!(bystander.status, 200);
    waiting.abort();
}

#[tokio::test]
async fn whoever_is_only_observed_is_never_held() {
    let origin = origin::http().run().await;
    let gateway = holding(&origin, "60s", "mode = \"observe\"").run().await;
    for _ in 0..3 {
        assert_eq!(gateway.ask(from("203.0.113.1")).await.status, 200);
    }
    assert_eq!(metric(&gateway, "held").await.to_string(), "0");
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_not_kept_while_its_answer_is_held() {
    let origin = origin::http().run().await;
    let gateway = holding(&origin, "1s", "").run().await;
    for via in Via::ALL {
        let address = format!("203.0.113.{}", via as u8);
        let upload = |kib: usize| {
            let upload = call("POST", "/").header("x-forwarded-for", &address);
            upload.body(body::full(vec![b'x'; kib * 1024]))
        };
        let mut client = gateway.connect(via).await;
        assert_eq!(client.send(upload(1)).await.status, 200);
        let answer = client.try_send(upload(512)).await;
        if let Ok(answer) = answer {
            assert_eq!(answer.verdict(), refused(429, "rate_limited"), "{via:?}");
        } // or the connection was ended in the middle of the body
        held(&gateway, 0.0).await;
    }
    assert_eq!(metric(&gateway, "held").await.to_string(), "4");
}

#[tokio::test]
async fn a_tarpit_that_cannot_be_is_named_at_load() {
    let origin = origin::http().run().await;
    let why = |time: &str, keys: &str| {
        let conf = holding(&origin, time, keys);
        conf.try_run().map(drop).unwrap_err().to_string()
    };
    assert!(why("0s", "").contains("up to 60 s"));
    assert!(why("61s", "").contains("up to 60 s"));
    let seats = conf(
        "[[route]]\nauth = \"none\"\nlimits = [\"seat\"]\nrespond = { status = 204 }\n[limit.seat]\nconcurrency = 1\ntarpit = \"1s\"",
    );
    let why = seats.try_run().map(drop).unwrap_err().to_string();
    assert!(why.contains("without a `rate` or `distinct`"), "{why}");
}
