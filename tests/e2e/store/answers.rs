//! What a server may answer instead of a decision: that it cannot now, or that another one must be asked.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::logouts::shared;
use super::on_each;
use crate::support::client::{Told, get, post, refused};
use crate::support::eventually;
use crate::support::gateway::{Gateway, conf};
use crate::support::origin::{self, Origin};
use crate::support::redis::{self, Kind, Redis, secret_file, store_at};

/// One of three replicas: its share of the 30 is 10.
async fn one_of_three(origin: &Origin, store: &str) -> Gateway {
    let gateway = conf("[[route]]\nauth = \"none\"\nlimits = [\"budget\"]\nupstream = \"api\"")
        .upstream("api", origin)
        .and("[limit.budget]\nrate = \"30/h\"\n")
        .and(store)
        .run()
        .await;
    shared(&gateway).await;
    gateway
}

async fn alone(gateway: &Gateway) -> f64 {
    let name = "vestibule_limit_store_down_decisions_total";
    gateway.metric(name, &[]).await
}

async fn last_error(gateway: &Gateway) -> String {
    let told = gateway.admin(get("/status")).await.json();
    let error = told["store"]["last_error"].as_str();
    error.unwrap_or_default().to_owned()
}

/// How many of so many requests pass.
async fn passed(gateway: &Gateway, count: usize) -> usize {
    let mut passed = 0;
    for _ in 0..count {
        let status = gateway.ask(get("/")).await.status.as_u16();
        assert!(matches!(status, 200 | 429), "{status}");
        passed += usize::from(status == 200);
    }
    passed
}

/// The server cannot decide for a while, and says so with `word`: the replica keeps to its share, tells why, and shares
/// again soon after the server can.
async fn cannot_for_a_while(
    gateway: &Gateway,
    store: &mut Redis,
    word: &str,
    fails: impl AsyncFnOnce(&mut Redis),
    back: impl AsyncFnOnce(&mut Redis),
) {
    assert_eq!((passed(gateway, 1).await, alone(gateway).await), (1, 0.0));

    fails(store).await;
    eventually(&format!("the store answers {word}"), async || {
        last_error(gateway).await.contains(word)
    })
    .await;
    gateway.counted("vestibule_store_up", &[], 0.0).await;
    let count = passed(gateway, 30).await;
    assert!((8..=10).contains(&count), "{count} of a share of 10");
    assert!(alone(gateway).await >= 20.0);

    back(store).await;
    let begun = Instant::now();
    shared(gateway).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    // On a machine that is busy with other things, a question may still take too long now and then.
    eventually("the store decides again", async || {
        let before = alone(gateway).await;
        passed(gateway, 2).await;
        (alone(gateway).await - before).abs() < 0.5
    })
    .await;
}

async fn one_server_cannot(
    kind: Kind,
    word: &str,
    fails: impl AsyncFnOnce(&mut Redis),
    back: impl AsyncFnOnce(&mut Redis),
) {
    let (origin, mut store) = (origin::http().run().await, kind.run().await);
    let gateway = one_of_three(&origin, &store.store("")).await;
    cannot_for_a_while(&gateway, &mut store, word, fails, back).await;
}

fn set(store: &Redis, key: &str, value: &str) {
    assert_eq!(store.ask(&["CONFIG", "SET", key, value]), "OK", "{key}");
}

on_each! {
    async fn oom_its_memory_is_full(kind) {
        one_server_cannot(
            kind,
            "OOM",
            async |store| set(store, "maxmemory", "1"),
            async |store| set(store, "maxmemory", "0"),
        )
        .await;
    }
}

on_each! {
    async fn readonly_it_became_a_replica(kind) {
        one_server_cannot(
            kind,
            "READONLY",
            async |store| assert_eq!(store.ask(&["REPLICAOF", "127.0.0.1", "1"]), "OK"),
            async |store| assert_eq!(store.ask(&["REPLICAOF", "NO", "ONE"]), "OK"),
        )
        .await;
    }
}

on_each! {
    async fn masterdown_it_is_a_replica_without_its_master(kind) {
        one_server_cannot(
            kind,
            "MASTERDOWN",
            async |store| {
                set(store, "replica-serve-stale-data", "no");
                assert_eq!(store.ask(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
            },
            async |store| assert_eq!(store.ask(&["REPLICAOF", "NO", "ONE"]), "OK"),
        )
        .await;
    }
}

on_each! {
    async fn misconf_it_cannot_save(kind) {
        one_server_cannot(
            kind,
            "MISCONF",
            async |store| {
                set(store, "save", "3600 1");
                std::fs::remove_dir_all(store.folder()).unwrap();
                store.ask(&["BGSAVE"]);
                eventually("saving fails", async || {
                    store.ask(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:err")
                })
                .await;
            },
            async |store| set(store, "stop-writes-on-bgsave-error", "no"),
        )
        .await;
    }
}

on_each! {
    async fn busy_somebody_elses_script_runs_for_ever(kind) {
        let mut runs = None;
        one_server_cannot(
            kind,
            "BUSY",
            async |store| {
                set(store, "busy-reply-threshold", "50");
                let script = Command::new("redis-cli")
                    .args(["-p", &store.port.to_string(), "EVAL", "while true do end", "0"])
                    .stdout(Stdio::null())
                    .spawn();
                runs = Some(script.unwrap());
            },
            async |store| assert_eq!(store.ask(&["SCRIPT", "KILL"]), "OK"),
        )
        .await;
        runs.unwrap().wait().unwrap();
    }
}

on_each! {
    async fn loading_it_has_started_and_reads_what_it_kept(kind) {
        one_server_cannot(
            kind,
            "LOADING",
            async |store| {
                let fill = "for i = 1, 6000 do redis.call('SET', 'other:' .. i, i) end return redis.status_reply('OK')";
                assert_eq!(store.ask(&["EVAL", fill, "0"]), "OK");
                assert_eq!(store.ask(&["SAVE"]), "OK");
                store.kill();
                // Half a millisecond for each key, and an answer every 35 ms.
                let slowly = ["--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024"];
                store.start_again(&slowly);
            },
            async |store| store.serves().await,
        )
        .await;
    }
}

on_each! {
    async fn noauth_it_wants_a_password_that_we_do_not_have(kind) {
        one_server_cannot(
            kind,
            "NOAUTH",
            async |store| {
                set(store, "requirepass", "sesame");
                let all = ["-a", "sesame", "--no-auth-warning", "CLIENT", "KILL", "TYPE", "normal"];
                store.ask(&all);
            },
            async |store| {
                let open = ["-a", "sesame", "--no-auth-warning", "CONFIG", "SET", "requirepass", ""];
                assert_eq!(store.ask(&open), "OK");
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_password_that_has_changed_is_taken_up_by_a_reload() {
    let origin = origin::http().run().await;
    let store = redis::run().await;
    set(&store, "requirepass", "sesame");
    let password = secret_file("sesame");
    let server = format!("\"redis://{}\"", store.address());
    let keys = format!("password = {{ file = {password:?} }}");
    let conf = conf("[[route]]\nauth = \"none\"\nlimits = [\"budget\"]\nupstream = \"api\"")
        .upstream("api", &origin)
        .and("[limit.budget]\nrate = \"30/h\"\n")
        .and(&store_at(&server, &keys));
    let gateway = conf.clone().run().await;
    shared(&gateway).await;
    let auth = ["-a", "sesame", "--no-auth-warning"];
    let change = ["CONFIG", "SET", "requirepass", "wheat"];
    assert_eq!(store.ask(&[&auth[..], &change].concat()), "OK");
    let auth = ["-a", "wheat", "--no-auth-warning"];
    store.ask(&[&auth[..], &["CLIENT", "KILL", "TYPE", "normal"]].concat());
    gateway.counted("vestibule_store_up", &[], 0.0).await;
    assert_eq!(passed(&gateway, 1).await, 1);
    std::fs::write(&password, "wheat").unwrap();
    assert_eq!(gateway.reload(&conf).await.status, 200);
    let begun = Instant::now();
    shared(&gateway).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
}

on_each! {
    async fn noscript_it_has_forgotten_the_script_and_is_told_it_again(kind) {
        let (origin, store) = (origin::http().run().await, kind.run().await);
        let gateway = one_of_three(&origin, &store.store("")).await;
        let mut count = 0;
        for _ in 0..36 {
            assert_eq!(store.ask(&["SCRIPT", "FLUSH"]), "OK");
            count += passed(&gateway, 1).await;
        }
        assert_eq!((count, alone(&gateway).await), (30, 0.0));
        let answers = store.ask(&["INFO", "errorstats"]);
        assert!(answers.contains("errorstat_NOSCRIPT"), "{answers}");
    }
}

/// Slots by `redis-cli --cluster create`: the last node has the last one.
const LAST_SLOT: &str = "16383";

on_each! {
    async fn clusterdown_a_slot_has_no_node(kind) {
        let (origin, mut nodes) = (origin::http().run().await, redis::run_cluster(kind).await);
        let store = nodes[0].store("topology = \"cluster\"");
        let gateway = one_of_three(&origin, &store).await;
        let mut last = nodes.pop().unwrap();
        cannot_for_a_while(
            &gateway,
            &mut last,
            "CLUSTERDOWN",
            async |last| assert_eq!(last.ask(&["CLUSTER", "DELSLOTS", LAST_SLOT]), "OK"),
            async |last| {
                assert_eq!(last.ask(&["CLUSTER", "ADDSLOTS", LAST_SLOT]), "OK");
                eventually("the cluster is whole", async || {
                    last.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                })
                .await;
            },
        )
        .await;
    }
}

on_each! {
    /// A slot moves to another node under the eyes of a limit that lies in it: not one decision is made without the store.
    async fn ask_and_moved_another_node_has_the_key(kind) {
        let (origin, nodes) = (origin::http().run().await, redis::run_cluster(kind).await);
        let store = nodes[0].store("topology = \"cluster\"");
        let gateway = one_of_three(&origin, &store).await;
        let mut count = passed(&gateway, 3).await;

        let key = |node: &Redis| node.ask(&["KEYS", "vestibule:limit:*"]);
        let from = nodes.iter().find(|node| !key(node).is_empty()).unwrap();
        let to = nodes.iter().find(|node| node.port != from.port).unwrap();
        let key = key(from);
        let slot = from.ask(&["CLUSTER", "KEYSLOT", &key]);
        let [old, new] = [from, to].map(|node| node.ask(&["CLUSTER", "MYID"]));
        let setslot = |node: &Redis, what: &str, id: &str| {
            assert_eq!(node.ask(&["CLUSTER", "SETSLOT", &slot, what, id]), "OK");
        };
        setslot(to, "IMPORTING", &old);
        setslot(from, "MIGRATING", &new);
        count += passed(&gateway, 3).await; // the key is still there
        let port = to.port.to_string();
        let migrated = from.ask(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]);
        assert_eq!(migrated, "OK");
        count += passed(&gateway, 10).await;
        assert!(from.ask(&["INFO", "errorstats"]).contains("errorstat_ASK"));
        for node in [to, from] {
            setslot(node, "NODE", &new);
        }
        count += passed(&gateway, 20).await;
        assert_eq!((count, alone(&gateway).await), (30, 0.0));

        // Soon nobody asks the wrong one any more.
        let astray = || {
            let answers = from.ask(&["INFO", "errorstats"]);
            let moved = answers.lines().find(|line| line.contains("errorstat_MOVED"));
            moved.unwrap_or_default().to_owned()
        };
        assert!(!astray().is_empty());
        eventually("the map is read anew", async || {
            let before = astray();
            passed(&gateway, 1).await;
            astray() == before
        })
        .await;
        assert!(alone(&gateway).await < 0.5);
    }
}

/// One node of three hangs, and the others answer: what lies on them must not hide that nobody should wait for it.
#[tokio::test]
async fn a_node_of_a_cluster_that_hangs_is_not_waited_for_by_every_request() {
    let (origin, nodes) = (
        origin::http().run().await,
        redis::run_cluster(Kind::Redis).await,
    );
    let gateway = conf("[[route]]\nauth = \"none\"\nlimits = [\"budget\"]\nupstream = \"api\"")
        .upstream("api", &origin)
        .and("[limit.budget]\nkey = \"header:x-account\"\nrate = \"30/h\"\n")
        .and(&nodes[0].store("topology = \"cluster\"\ntimeout = \"200ms\""))
        .run()
        .await;
    shared(&gateway).await;
    nodes[2].signal("-STOP");
    let mut slow = 0;
    for account in 0..60 {
        let begun = Instant::now();
        let call = get("/").header("x-account", &format!("account{account}"));
        assert_eq!(gateway.ask(call).await.status, 200);
        slow += usize::from(begun.elapsed() >= Duration::from_millis(180));
    }
    // A third of the accounts lie there: 20 would have waited.
    assert!(slow <= 5, "{slow} waited for the node that hangs");
    gateway.counted("vestibule_store_up", &[], 0.0).await;
    nodes[2].signal("-CONT");
}

/// With 20 ms to each node, six limits cost a request no more time than one.
#[tokio::test]
async fn limits_on_several_nodes_are_asked_at_the_same_time() {
    let (origin, nodes) = (
        origin::http().run().await,
        redis::run_cluster(Kind::Redis).await,
    );
    let mut wires = Vec::new();
    for node in &nodes {
        let wire = redis::slow_wire(node.address(), Duration::from_millis(20)).await;
        set(
            node,
            "cluster-announce-port",
            &wire.address.port().to_string(),
        );
        wires.push(wire);
    }
    eventually("every node tells the wires", async || {
        nodes.iter().all(|node| {
            let slots = node.ask(&["CLUSTER", "SLOTS"]);
            let told = |wire: &redis::Wire| slots.contains(&wire.address.port().to_string());
            wires.iter().all(told)
        })
    })
    .await;
    let limits: String = (1..=6)
        .map(|n| format!("[limit.l{n}]\nrate = \"90/h\"\n"))
        .collect();
    let gateway = conf(
        "[[route]]\npath = \"/one\"\nauth = \"none\"\nlimits = [\"l1\"]\nupstream = \"api\"\n\
         [[route]]\npath = \"/six\"\nauth = \"none\"\nlimits = [\"l1\", \"l2\", \"l3\", \"l4\", \"l5\", \"l6\"]\nupstream = \"api\"",
    )
    .upstream("api", &origin)
    .and(&limits)
    .and(&nodes[0].store("topology = \"cluster\"\ntimeout = \"2s\""))
    .run()
    .await;
    shared(&gateway).await;
    let quickest = async |path: &str| {
        let mut quickest = Duration::MAX;
        for _ in 0..5 {
            let begun = Instant::now();
            assert_eq!(gateway.ask(get(path)).await.status, 200);
            quickest = quickest.min(begun.elapsed());
        }
        quickest
    };
    let (one, six) = (quickest("/one").await, quickest("/six").await);
    assert!(one >= Duration::from_millis(20), "{one:?}");
    assert!(six < one * 2, "{six:?} for six, {one:?} for one");
    assert!(alone(&gateway).await < 0.5);
}

#[tokio::test]
async fn what_one_node_charged_is_given_back_when_another_refuses() {
    let (origin, nodes) = (
        origin::http().run().await,
        redis::run_cluster(Kind::Redis).await,
    );
    let limits: String = (1..=6)
        .map(|n| {
            format!(
                "[limit.l{n}]\nrate = \"{}/h\"\n",
                if n == 4 { 2 } else { 6 }
            )
        })
        .collect();
    let gateway = conf(
        "[[route]]\npath = \"/all\"\nauth = \"none\"\nlimits = [\"l1\", \"l2\", \"l3\", \"l4\", \"l5\", \"l6\"]\nupstream = \"api\"\n\
         [[route]]\npath = \"/others\"\nauth = \"none\"\nlimits = [\"l1\", \"l2\", \"l3\", \"l5\", \"l6\"]\nupstream = \"api\"",
    )
    .upstream("api", &origin)
    .and(&limits)
    .and(&nodes[0].store("topology = \"cluster\""))
    .run()
    .await;
    shared(&gateway).await;
    for _ in 0..2 {
        assert_eq!(gateway.ask(post("/all", "")).await.status, 200);
    }
    for _ in 0..10 {
        let answer = gateway.ask(post("/all", "")).await;
        assert_eq!(answer.verdict(), refused(429, "rate_limited"));
        assert_eq!(answer.at("/policy"), "l4");
    }
    let given_back = [("operation", "count"), ("outcome", "ok")];
    gateway
        .counted("vestibule_store_operations_total", &given_back, 50.0)
        .await;
    let mut count = 0;
    for _ in 0..8 {
        count += usize::from(gateway.ask(post("/others", "")).await.status == 200);
    }
    assert_eq!((count, alone(&gateway).await), (4, 0.0));
}
