//! Reload: all or nothing, and nothing is lost meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::client::{Via, connect, get};
use crate::support::gateway::{Builder, conf, open_to};
use crate::support::origin::{self, Origin, Reply, gate};
use crate::support::soon;

fn saying(origin: &Origin, text: &str) -> Builder {
    conf(&format!(
        r#"
        [[route]]
        name = "all"
        auth = "none"
        upstream = "api"
        [[route]]
        name = "who"
        path = "/who"
        auth = "none"
        respond = {{ status = 200, body = "{text}" }}
    "#
    ))
    .upstream("api", origin)
}

#[tokio::test]
async fn a_valid_configuration_takes_over_at_once() {
    let origin = origin::http().run().await;
    let gateway = saying(&origin, "one").run().await;
    for via in Via::ALL {
        let mut client = gateway.connect(via).await;
        assert_eq!(gateway.reload(&saying(&origin, "one")).await.status, 200);
        assert_eq!(client.send(get("/who")).await.text(), "one");
        let answer = gateway.reload(&saying(&origin, "two")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        // The connection stays; what it is served with changes.
        assert_eq!(client.send(get("/who")).await.text(), "two");
    }
    let generation = gateway.metric("vestibule_config_generation", &[]).await;
    assert!((generation - 9.0).abs() < 0.1, "{generation}");
}

#[tokio::test]
async fn an_invalid_one_changes_nothing_and_says_why() {
    let origin = origin::http().run().await;
    let gateway = saying(&origin, "one").run().await;
    for (broken, why) in [
        (
            "[[route]]\nauth = \"none\"\nupstream = \"nobody\"",
            "nobody",
        ),
        ("[[route]]\nauth = \"none\"\nupstreem = \"api\"", "upstream"),
        ("[[route]]\nupstream = \"api\"", "auth"),
        ("this is no TOML", "test.toml:"),
        (
            "workers = 7\n[[route]]\nauth = \"none\"\nupstream = \"api\"",
            "restart",
        ),
    ] {
        let answer = gateway.reload(&conf(broken).upstream("api", &origin)).await;
        assert_eq!(answer.status, 422, "{broken}");
        assert!(answer.text().contains(why), "{broken}: {}", answer.text());
        assert_eq!(gateway.ask(get("/who")).await.text(), "one");
        let success = gateway
            .metric("vestibule_config_last_reload_success", &[])
            .await;
        assert!(success.abs() < 0.1);
        assert_eq!(
            gateway.admin(get("/status")).await.at("/last_reload/ok"),
            false
        );
    }
    let generation = gateway.metric("vestibule_config_generation", &[]).await;
    assert!((generation - 1.0).abs() < 0.1, "{generation}");
    assert_eq!(gateway.reload(&saying(&origin, "two")).await.status, 200);
    assert_eq!(gateway.ask(get("/who")).await.text(), "two");
    assert!(
        (gateway
            .metric("vestibule_config_last_reload_success", &[])
            .await
            - 1.0)
            .abs()
            < 0.1
    );
}

#[tokio::test]
async fn a_missing_secret_refuses_the_whole() {
    let origin = origin::http().run().await;
    let gateway = saying(&origin, "one").run().await;
    let secretless = saying(&origin, "two").and(
        "[issuer.local]\nurl = \"x\"\naudiences = [\"api\"]\nalgorithms = [\"HS256\"]\nsecret = { env = \"VESTIBULE_TEST_NO_SUCH_SECRET\" }",
    );
    assert_eq!(gateway.reload(&secretless).await.status, 422);
    assert_eq!(gateway.ask(get("/who")).await.text(), "one");
    assert!(secretless.try_run().is_err());
}

#[tokio::test]
async fn what_is_in_flight_ends_as_it_began() {
    let gate = gate();
    let origin = origin::http()
        .reply(Reply::two_halves("one", &gate, "two"))
        .run()
        .await;
    let other = origin::http().answer("other").run().await;
    let gateway = open_to(&origin).run().await;
    let mut client = gateway.connect(Via::TlsH2).await;
    let response = client.start(get("/")).await.unwrap();
    assert_eq!(gateway.reload(&open_to(&other)).await.status, 200);
    assert_eq!(client.send(get("/")).await.text(), "other");
    gate.open();
    let answer = soon("the old answer", crate::support::client::collect(response))
        .await
        .unwrap();
    assert_eq!(answer.text(), "onetwo");
    gateway.settled().await;
}

/// R1, the short form: 20 reloads, 5 of them invalid, under load over every protocol: nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_reloads_under_load_lose_nothing() {
    let origin = origin::h2c().run().await;
    let gateway = saying(&origin, "0").run().await;
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = Via::ALL
        .into_iter()
        .cycle()
        .take(8)
        .enumerate()
        .map(|(n, via)| {
            let address = gateway.address(via);
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            tokio::spawn(async move {
                let mut client = connect(address, via).await;
                while !stop.load(Ordering::SeqCst) {
                    // Half of them keep their connection, half open a new one each time.
                    if n >= 4 {
                        client = connect(address, via).await;
                    }
                    assert_eq!(client.send(get("/")).await.text(), "hello");
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for n in 1..=20 {
        let before = sent.load(Ordering::SeqCst);
        let (conf, status) = if n % 4 == 0 {
            (
                conf("[[route]]\nauth = \"none\"\nupstream = \"none\"").upstream("api", &origin),
                422,
            )
        } else {
            (saying(&origin, &n.to_string()), 200)
        };
        let answer = gateway.reload(&conf).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        let shown = if status == 200 { n } else { n - 1 };
        assert_eq!(gateway.ask(get("/who")).await.text(), shown.to_string());
        crate::support::eventually("the load goes on", async || {
            sent.load(Ordering::SeqCst) > before + 20
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    for worker in load {
        worker.await.expect("no request failed");
    }
    gateway.settled().await;
    let total = sent.load(Ordering::SeqCst);
    assert_eq!(origin.saw().len(), total);
    let failed = gateway.metric("vestibule_rejections_total", &[]).await;
    assert!(failed.abs() < 0.1, "{failed}");
}
