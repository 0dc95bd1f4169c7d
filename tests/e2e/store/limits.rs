//! Limits that three replicas count together, and what holds of them while the store fails (R15).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::logouts::shared;
use super::on_each;
use crate::support::client::{Answer, Told, Via, get, refused};
use crate::support::eventually;
use crate::support::gateway::{Gateway, conf};
use crate::support::origin::{self, Origin, Reply};
use crate::support::redis::{self, Kind, store_at};

/// Three replicas in front of one origin, with one limit.
async fn three(origin: &Origin, store: &str, limit: &str) -> Vec<Gateway> {
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let conf = conf(
            "[[route]]\nauth = \"none\"\nlimits = [\"budget\"]\nupstream = \"api\"\n\
             [[route]]\npath = \"/free\"\nauth = \"none\"\nupstream = \"api\"",
        )
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

on_each! {
    async fn exactly_the_budget_passes_three_replicas_together(kind) {
        let (origin, store) = (origin::http().run().await, kind.run().await);
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
}

/// The clock that counts is the store's, and nobody is told of what it shows.
#[tokio::test]
async fn a_store_with_a_clock_of_its_own_counts_as_well() {
    let (origin, store) = (origin::http().run().await, redis::run_ahead().await);
    let ahead: u64 = store
        .ask(&["TIME"])
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let ours = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(ahead > ours + 3_500, "{ahead} {ours}");
    let replicas = three_shared(&origin, &store.store(""), "rate = \"30/h\"").await;
    let (count, _) = passed(&replicas, 20).await;
    assert_eq!((count, alone(&replicas).await), (30, 0.0));
    let answer = replicas[0].ask(get("/")).await;
    let wait: u32 = answer.header("retry-after").parse().unwrap();
    assert!((1..=120).contains(&wait), "{wait}");
    let left: u64 = store
        .ask(&["PTTL", &store.ask(&["KEYS", "vestibule:limit:budget:*"])])
        .parse()
        .unwrap();
    assert!((1..=3_700_000).contains(&left), "{left}");
}

on_each! {
    async fn exactly_the_budget_passes_over_a_cluster(kind) {
        let nodes = redis::run_cluster(kind).await;
        let origin = origin::http().run().await;
        let store = nodes[0].store("topology = \"cluster\"");
        let replicas = three_shared(&origin, &store, "rate = \"30/h\"").await;
        let (count, _) = passed(&replicas, 20).await;
        assert_eq!((count, alone(&replicas).await), (30, 0.0));
    }
}

on_each! {
    async fn leased_batches_stay_within_a_twentieth_of_the_budget(kind) {
        let (origin, store) = (origin::http().run().await, kind.run().await);
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
}

on_each! {
    /// What a quiet replica has leased and does not spend is lost to the others: less than a twentieth.
    async fn a_quiet_replica_keeps_little_of_the_budget_to_itself(kind) {
        let (origin, store) = (origin::http().run().await, kind.run().await);
        let limit = "rate = \"1200/h\"\nshared = \"fast\"";
        let replicas = three_shared(&origin, &store.store(""), limit).await;
        let (first, _) = passed(&replicas[..1], 4).await;
        let (rest, _) = passed(&replicas[1..], 700).await;
        let count = first + rest;
        assert!((1_140..=1_260).contains(&count), "{count}");
    }
}

on_each! {
    async fn failures_on_all_replicas_use_up_one_budget_and_successes_do_not(kind) {
        let origin = origin::http().path("/bad", Reply::empty(401)).run().await;
        let store = kind.run().await;
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
}

on_each! {
    async fn a_refusal_by_one_limit_charges_no_other(kind) {
        let (origin, store) = (origin::http().run().await, kind.run().await);
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
}

/// The longest that a request without a limit takes on any of the replicas while `meanwhile` runs: what the machine, busy
/// as it is, takes anyway.
async fn beside<T>(replicas: &[Gateway], meanwhile: impl Future<Output = T>) -> (T, Duration) {
    let over = Arc::new(AtomicBool::new(false));
    let mut others = Vec::new();
    for replica in replicas {
        let mut client = replica.connect(Via::H2c).await;
        let over = Arc::clone(&over);
        others.push(tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::SeqCst) {
                let begun = Instant::now();
                assert_eq!(client.send(get("/free")).await.status, 200);
                longest = longest.max(begun.elapsed());
            }
            longest
        }));
    }
    let outcome = meanwhile.await;
    over.store(true, Ordering::SeqCst);
    let mut longest = Duration::ZERO;
    for other in others {
        longest = longest.max(other.await.unwrap());
    }
    (outcome, longest)
}

/// Longest that the store may delay a request, unless written otherwise.
const DEADLINE: Duration = Duration::from_millis(50);

/// What timers are late, and the difference that a limit makes anyway.
const SLACK: Duration = Duration::from_millis(30);

/// The store fails in some way: each replica keeps to its share at once, nobody waits long, and the store is used again
/// soon after it is back.
async fn holds_while(
    kind: Kind,
    fails: impl AsyncFnOnce(&mut redis::Redis),
    back: impl AsyncFnOnce(&mut redis::Redis),
) {
    let mut server = kind.run().await;
    let store = server.store("");
    holds(&store, &mut server, fails, back).await;
}

/// The same for a store of any shape.
async fn holds<S>(
    store: &str,
    server: &mut S,
    fails: impl AsyncFnOnce(&mut S),
    back: impl AsyncFnOnce(&mut S),
) {
    let origin = origin::http().run().await;
    let replicas = three_shared(&origin, store, "rate = \"60/h\"").await;
    passed(&replicas, 1).await;

    fails(server).await;
    let ((first, longest), usual) = beside(&replicas, passed(&replicas, 40)).await;
    assert!(
        longest < DEADLINE + SLACK + usual,
        "{longest:?}, and {usual:?} without a limit"
    );
    for replica in &replicas {
        replica.counted("vestibule_store_up", &[], 0.0).await;
    }
    // Once that is known nobody waits for the store at all.
    let ((second, longest), usual) = beside(&replicas, passed(&replicas, 20)).await;
    assert!(
        longest < SLACK + usual,
        "{longest:?}, and {usual:?} without a limit"
    );
    let count = first + second;
    assert!((48..=72).contains(&count), "{count} of 60");
    assert!(alone(&replicas).await > 100.0);

    back(server).await;
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

on_each! {
    async fn a_store_that_hangs(kind) {
        holds_while(
            kind,
            async |store| store.signal("-STOP"),
            async |store| store.signal("-CONT"),
        )
        .await;
    }
}

on_each! {
    async fn a_store_that_is_killed(kind) {
        holds_while(
            kind,
            async |store| store.kill(),
            async |store| store.restart().await,
        )
        .await;
    }
}

on_each! {
    async fn a_store_that_answers_errors(kind) {
        holds_while(
            kind,
            async |store| {
                assert_eq!(store.ask(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
            },
            async |store| {
                assert_eq!(store.ask(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
            },
        )
        .await;
    }
}

/// Slower than anybody should wait: as good as gone.
#[tokio::test]
async fn a_store_that_is_slow() {
    let server = redis::run().await;
    let mut wire = redis::wire(server.address()).await;
    let store = store_at(&format!("\"redis://{}\"", wire.address), "");
    holds(
        &store,
        &mut wire,
        async |wire| wire.delay(Duration::from_millis(300)),
        async |wire| wire.delay(Duration::ZERO),
    )
    .await;
}

/// Slow, but not too slow: whoever is limited waits that long, and the budget stays exact.
#[tokio::test]
async fn a_store_within_the_deadline_is_waited_for() {
    let (origin, server) = (origin::http().run().await, redis::run().await);
    let wire = redis::slow_wire(server.address(), Duration::from_millis(15)).await;
    let server = format!("\"redis://{}\"", wire.address);
    let store = store_at(&server, "timeout = \"500ms\"");
    let replicas = three_shared(&origin, &store, "rate = \"20/h\"").await;
    let begun = Instant::now();
    let (count, _) = passed(&replicas, 10).await;
    assert_eq!((count, alone(&replicas).await), (20, 0.0));
    assert!(begun.elapsed() >= Duration::from_millis(30));
}

on_each! {
    /// From the death of the master until a sentinel has made the replica one, each replica keeps to its share.
    async fn a_store_that_fails_over(kind) {
        let master = kind.run().await;
        let port = master.port.to_string();
        let of = format!("127.0.0.1 {port}");
        let second = kind
            .run_with(&["--replicaof", &of, "--repl-diskless-sync-delay", "0"])
            .await;
        eventually("the replica follows", async || {
            master.ask(&["INFO", "replication"]).contains("state=online")
        })
        .await;
        let sentinel = redis::run_sentinel(kind, &master).await;
        eventually("the sentinel knows the replica", async || {
            let known = sentinel.ask(&["SENTINEL", "replicas", "house"]);
            known.contains(&second.port.to_string())
        })
        .await;
        let store = sentinel.store("topology = \"sentinel\"\nmaster = \"house\"");
        holds(
            &store,
            &mut (master, second),
            async |(master, _)| master.kill(),
            async |(_, second)| {
                eventually("the replica becomes the master", async || {
                    second.ask(&["ROLE"]).starts_with("master")
                })
                .await;
            },
        )
        .await;
    }
}

/// However many limits a route names, and however many requests are under way.
#[tokio::test]
async fn a_request_asks_once_and_a_worker_has_one_connection() {
    let (origin, store) = (origin::http().run().await, redis::run().await);
    let limits: String = (1..=5)
        .map(|n| format!("[limit.l{n}]\nrate = \"90/h\"\n"))
        .collect();
    let gateway = conf(
        "workers = 3\n[[route]]\nauth = \"none\"\nlimits = [\"l1\", \"l2\", \"l3\", \"l4\", \"l5\"]\nupstream = \"api\"",
    )
    .upstream("api", &origin)
    .and(&limits)
    .and(&store.store(""))
    .run()
    .await;
    shared(&gateway).await;
    let (count, _) = passed(std::slice::from_ref(&gateway), 40).await;
    assert_eq!(count, 40);
    let asked = [("operation", "decide")];
    let asked = gateway.metric("vestibule_store_operations_total", &asked);
    // The first one also brings the script along.
    assert!((40.0..=43.0).contains(&asked.await));
    let clients = store.ask(&["CLIENT", "LIST", "TYPE", "normal"]);
    let clients = clients
        .lines()
        .filter(|client| !client.contains("cmd=client"));
    // Three workers, the control thread, and whoever reads what other replicas tell.
    assert_eq!(clients.count(), 5);
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
    // What `[store]` says holds for limits that say nothing.
    let down = |word: &str| {
        store_at(
            "\"redis://127.0.0.1:1\"",
            &format!("on_failure = \"{word}\""),
        )
    };
    for (word, keys, status, code) in [
        ("deny", "", 503, "store_unavailable"),
        ("allow", "", 200, ""),
        ("deny", "on_store_down = \"allow\"", 200, ""),
    ] {
        let limit = format!("rate = \"1/h\"\n{keys}");
        let replicas = three(&origin, &down(word), &limit).await;
        for _ in 0..3 {
            let answer = replicas[0].ask(get("/")).await;
            assert_eq!(answer.verdict(), refused(status, code), "{word} {keys}");
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

/// `("budget", 7, 42)` of `"budget";r=7;t=42`.
fn told(answer: &Answer) -> Vec<(String, u32, u64)> {
    let fields = answer.headers.get_all("ratelimit").iter();
    let one = |field: &http::HeaderValue| {
        let mut parts = field.to_str().unwrap().split(';');
        let name = parts.next().unwrap().trim_matches('"').to_owned();
        let mut number = |key: &str| {
            let part = parts.next().and_then(|part| part.strip_prefix(key));
            part.unwrap().parse::<u64>().unwrap()
        };
        let count = u32::try_from(number("r=")).unwrap();
        (name, count, number("t="))
    };
    fields.map(one).collect()
}

/// What one replica tells is true of the budget that all of them share.
#[tokio::test]
async fn clients_are_told_what_all_replicas_together_have_left() {
    let (origin, store) = (origin::http().run().await, redis::run().await);
    let limit = "rate = [\"6/h\", \"20/d\"]\nheaders = true";
    let replicas = three_shared(&origin, &store.store(""), limit).await;
    for (turn, replica) in (0..6_u32).zip(replicas.iter().cycle()) {
        let answer = replica.ask(get("/")).await;
        assert_eq!(answer.status, 200);
        let policy = "\"budget\";q=6;w=3600, \"budget-2\";q=20;w=86400";
        assert_eq!(answer.header("ratelimit-policy"), policy);
        let (name, left, time) = told(&answer).remove(0);
        assert_eq!((name.as_str(), left), ("budget", 5 - turn));
        let full_in = if left == 0 {
            600
        } else {
            600 * u64::from(turn + 1)
        };
        assert!((full_in - 60..=full_in).contains(&time), "{time}");
    }
    let refusal = replicas[0].ask(get("/")).await;
    assert_eq!(refusal.verdict(), refused(429, "rate_limited"));
    let wait: u64 = refusal.header("retry-after").parse().unwrap();
    assert_eq!(told(&refusal), [("budget".to_owned(), 0, wait)]);
    let free = replicas[0].ask(get("/free")).await;
    assert!(!free.headers.contains_key("ratelimit"));
    assert!(alone(&replicas).await < 0.5);
}

/// A replica that leases knows what it has itself and what the store had when it was asked: all of the budget while
/// nobody else takes from it, and never more than there is.
#[tokio::test]
async fn clients_of_leased_limits_are_told_what_the_replica_knows() {
    let (origin, store) = (origin::http().run().await, redis::run().await);
    let limit = "rate = \"1200/h\"\nshared = \"fast\"\nheaders = true";
    let replicas = three_shared(&origin, &store.store(""), limit).await;
    let mut last = 1_200;
    for spent in 1..=30_u32 {
        let answer = replicas[0].ask(get("/")).await;
        let (_, left, _) = told(&answer).remove(0);
        // A batch of ten may be on its way.
        let true_left = 1_200 - spent;
        assert!(
            (true_left - 10..=true_left).contains(&left),
            "{left} of {true_left}"
        );
        assert!(left < last + 10);
        last = left;
    }
}

/// Without the store a replica tells of its share, which is what the client can still have there.
#[tokio::test]
async fn without_the_store_clients_are_told_of_the_share() {
    let origin = origin::http().run().await;
    let nobody = store_at("\"redis://127.0.0.1:1\"", "");
    let replicas = three(&origin, &nobody, "rate = \"30/h\"\nheaders = true").await;
    for left in (0..10).rev() {
        let answer = replicas[0].ask(get("/")).await;
        assert_eq!((answer.status.as_u16(), told(&answer)[0].1), (200, left));
    }
    assert_eq!(replicas[0].ask(get("/")).await.status, 429);
}
