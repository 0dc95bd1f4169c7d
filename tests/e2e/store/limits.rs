//! Limits that three replicas count together, and what holds of them while the store fails (R15).

use std::time::{Duration, Instant};

use super::logouts::shared;
use crate::support::client::{Told, Via, get, refused};
use crate::support::eventually;
use crate::support::gateway::{Gateway, conf};
use crate::support::origin::{self, Origin, Reply};
use crate::support::redis::{self, store_at};

/// Three replicas in front of one origin, with one limit.
async fn three(origin: &Origin, store: &str, limit: &str) -> Vec<Gateway> {
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let conf = conf("[[route]]\nauth = \"none\"\nlimits = [\"budget\"]\nupstream = \"api\"")
            .upstream("api", origin)
            .and(&format!("[limit.budget]\n{limit}\n"))
            .and(store);
        replicas.push(conf.run().await);
    }
    replicas
}

async fn three_shared(origin: &Origin, store: &str, limit: &str) -> Vec<Gateway> {
    let replicas = three(origin, store, limit).await;
    for replica in &replicas {
        shared(replica).await;
    }
    replicas
}

/// How many of `count` requests to each replica pass, all replicas at once; and the longest that one took.
async fn passed(replicas: &[Gateway], count: usize) -> (usize, Duration) {
    let mut clients = Vec::new();
    for replica in replicas {
        let client = replica.connect(Via::H2c).await;
        for part in 0..4 {
            let mut client = client.another();
            let mine = count / 4 + usize::from(part < count % 4);
            clients.push(tokio::spawn(async move {
                let (mut passed, mut longest) = (0, Duration::ZERO);
                for _ in 0..mine {
                    let begun = Instant::now();
                    let status = client.send(get("/")).await.status.as_u16();
                    longest = longest.max(begun.elapsed());
                    passed += usize::from(status == 200);
                    assert!(matches!(status, 200 | 429 | 503), "{status}");
                }
                (passed, longest)
            }));
        }
    }
    let (mut sum, mut longest) = (0, Duration::ZERO);
    for client in clients {
        let (passed, slowest) = client.await.unwrap();
        sum += passed;
        longest = longest.max(slowest);
    }
    (sum, longest)
}

async fn alone(replicas: &[Gateway]) -> f64 {
    let mut sum = 0.0;
    for replica in replicas {
        let name = "vestibule_limit_store_down_decisions_total";
        sum += replica.metric(name, &[]).await;
    }
    sum
}

#[tokio::test]
async fn exactly_the_budget_passes_three_replicas_together() {
    let (origin, store) = (origin::http().run().await, redis::run().await);
    let limit = "rate = [\"40/h\", \"100/d\"]";
    let replicas = three_shared(&origin, &store.store(""), limit).await;
    let (count, _) = passed(&replicas, 40).await;
    assert_eq!((count, alone(&replicas).await), (40, 0.0));
    assert_eq!(origin.heads(), 40);
    let answer = replicas[0].ask(get("/")).await;
    assert_eq!(answer.verdict(), refused(429, "rate_limited"));
    let wait: u32 = answer.header("retry-after").parse().unwrap();
    assert!((1..=90).contains(&wait), "{wait}");
    // Nobody who reads the store learns whom it counts, and what it holds goes by itself.
    let keys = store.ask(&["KEYS", "vestibule:limit:budget:*"]);
    assert_eq!(keys.lines().count(), 1, "{keys}");
    assert!(!keys.contains("127.0.0.1"));
    let left: u64 = store.ask(&["PTTL", &keys]).parse().unwrap();
    assert!((1..=3_700_000 * 24).contains(&left), "{left}");
}

#[tokio::test]
async fn exactly_the_budget_passes_over_a_cluster() {
    let nodes = redis::run_cluster().await;
    let origin = origin::http().run().await;
    let store = nodes[0].store("topology = \"cluster\"");
    let replicas = three_shared(&origin, &store, "rate = \"30/h\"").await;
    let (count, _) = passed(&replicas, 20).await;
    assert_eq!((count, alone(&replicas).await), (30, 0.0));
}

#[tokio::test]
async fn leased_batches_stay_within_a_twentieth_of_the_budget() {
    let (origin, store) = (origin::http().run().await, redis::run().await);
    let limit = "rate = \"1200/h\"\nshared = \"fast\"";
    let replicas = three_shared(&origin, &store.store(""), limit).await;
    let (count, _) = passed(&replicas, 600).await;
    assert!((1_140..=1_260).contains(&count), "{count}");
    let asked = [("operation", "decide")];
    let mut questions = 0.0;
    for replica in &replicas {
        questions += replica
            .metric("vestibule_store_operations_total", &asked)
            .await;
    }
    assert!(
        questions < 600.0,
        "most requests wait for nobody: {questions}"
    );
}

#[tokio::test]
async fn failures_on_all_replicas_use_up_one_budget_and_successes_do_not() {
    let origin = origin::http().path("/bad", Reply::empty(401)).run().await;
    let store = redis::run().await;
    let limit = "rate = \"6/h\"\ncount = \"failures\"\nban = \"10m\"";
    let replicas = three_shared(&origin, &store.store(""), limit).await;
    for _ in 0..4 {
        for replica in &replicas {
            assert_eq!(
                replica.ask(get("/")).await.status,
                200,
                "a success costs nothing"
            );
        }
    }
    let released = || async {
        let keys = store.ask(&["KEYS", "vestibule:limit:budget:*"]);
        store.ask(&["HGET", &keys, "p"]) == "0"
    };
    eventually("nothing is under way", async || released().await).await;
    for _ in 0..2 {
        for replica in &replicas {
            assert_eq!(replica.ask(get("/bad")).await.status, 401);
        }
    }
    eventually("nothing is under way", async || released().await).await;
    for replica in &replicas {
        let answer = replica.ask(get("/")).await;
        assert_eq!(answer.verdict(), refused(429, "rate_limited"));
        let wait: u32 = answer.header("retry-after").parse().unwrap();
        assert!((590..=3_600).contains(&wait), "{wait}: the ban");
    }
    assert_eq!(origin.heads(), 18);
}

#[tokio::test]
async fn a_refusal_by_one_limit_charges_no_other() {
    let (origin, store) = (origin::http().run().await, redis::run().await);
    let gateway = conf(
        "[[route]]\npath = \"/both\"\nauth = \"none\"\nlimits = [\"wide\", \"narrow\"]\nupstream = \"api\"\n\
         [[route]]\npath = \"/wide\"\nauth = \"none\"\nlimits = [\"wide\"]\nupstream = \"api\"",
    )
    .upstream("api", &origin)
    .and("[limit.wide]\nrate = \"6/h\"\n[limit.narrow]\nrate = \"2/h\"\n")
    .and(&store.store(""))
    .run()
    .await;
    shared(&gateway).await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(gateway.ask(get("/both")).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429, 429, 429, 429, 429]);
    for expected in [200, 200, 200, 200, 429] {
        assert_eq!(gateway.ask(get("/wide")).await.status.as_u16(), expected);
    }
}

/// The store fails in some way: each replica keeps to its share at once, nobody waits long, and the store is used again
/// soon after it is back.
async fn holds_while(
    fails: impl AsyncFnOnce(&mut redis::Redis),
    back: impl AsyncFnOnce(&mut redis::Redis),
) {
    let origin = origin::http().run().await;
    let mut store = redis::run().await;
    let replicas = three_shared(&origin, &store.store(""), "rate = \"60/h\"").await;
    let (_, usual) = passed(&replicas, 1).await;

    fails(&mut store).await;
    let (count, longest) = passed(&replicas, 60).await;
    assert!((48..=72).contains(&count), "{count} of 60");
    // 50 ms for the store; the rest is what a busy machine takes anyway.
    assert!(
        longest < Duration::from_millis(50 + 150) + usual,
        "{longest:?}, usually {usual:?}"
    );
    assert!(alone(&replicas).await > 100.0);

    back(&mut store).await;
    let begun = Instant::now();
    for replica in &replicas {
        shared(replica).await;
    }
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    // On a machine that is busy with other things, a question may still take too long now and then.
    eventually("the store decides again", async || {
        let before = alone(&replicas).await;
        passed(&replicas, 4).await;
        (alone(&replicas).await - before).abs() < 0.5
    })
    .await;
}

#[tokio::test]
async fn a_store_that_hangs() {
    holds_while(
        async |store| store.signal("-STOP"),
        async |store| store.signal("-CONT"),
    )
    .await;
}

#[tokio::test]
async fn a_store_that_is_killed() {
    holds_while(
        async |store| store.kill(),
        async |store| store.restart().await,
    )
    .await;
}

#[tokio::test]
async fn a_store_that_answers_errors() {
    holds_while(
        async |store| {
            assert_eq!(store.ask(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
        },
        async |store| {
            assert_eq!(store.ask(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
        },
    )
    .await;
}

#[tokio::test]
async fn without_the_store_a_limit_does_what_it_says() {
    let origin = origin::http().run().await;
    let nobody = store_at("\"redis://127.0.0.1:1\"", "");
    for (policy, status, code) in [("deny", 503, "store_unavailable"), ("allow", 200, "")] {
        let limit = format!("rate = \"1/h\"\non_store_down = \"{policy}\"");
        let replicas = three(&origin, &nobody, &limit).await;
        for _ in 0..3 {
            let answer = replicas[0].ask(get("/")).await;
            assert_eq!(answer.verdict(), refused(status, code), "{policy}");
        }
    }
    // A limit that is not shared does not care.
    let replicas = three(&origin, &nobody, "rate = \"2/h\"\nshared = \"off\"").await;
    let (count, _) = passed(&replicas, 4).await;
    assert_eq!(count, 6);
}

#[tokio::test]
async fn sharing_that_cannot_be_is_refused() {
    let origin = origin::http().run().await;
    let mistake = |limit: &str, store: &str| {
        let conf = conf("[[route]]\nauth = \"none\"\nlimits = [\"budget\"]\nupstream = \"api\"")
            .upstream("api", &origin)
            .and(&format!("[limit.budget]\n{limit}\n"))
            .and(store);
        conf.try_run()
            .err()
            .map(|why| why.to_string())
            .unwrap_or_default()
    };
    let store = store_at("\"redis://127.0.0.1:1\"", "");
    for (limit, store, why) in [
        (
            "rate = \"5/m\"\nshared = \"exact\"",
            "",
            "there is no `[store]`",
        ),
        (
            "rate = \"500/m\"\nban = \"1m\"\nshared = \"fast\"",
            &*store,
            "not leased",
        ),
        (
            "concurrency = 3\nshared = \"exact\"",
            &*store,
            "nothing without a `rate`",
        ),
        (
            "rate = \"2000000/s\"\nshared = \"exact\"",
            &*store,
            "a million",
        ),
    ] {
        let found = mistake(limit, store);
        assert!(found.contains(why), "{limit}: {found}");
    }
}
