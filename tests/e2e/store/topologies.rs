//! Every way to run a store: a cluster, sentinels with a failover, TLS, ACL users.

use std::time::{Duration, Instant};

use super::logouts::{ended, replica, shared, status};
use super::on_each;
use crate::support::client::get;
use crate::support::redis::{self, secret_file, store_at};
use crate::support::{eventually, issuer, origin, pki};

/// Two replicas on the same store: what one ends, the other refuses.
async fn shares(store: &str) {
    let (origin, issuer) = (origin::http().run().await, issuer::run().await);
    let one = replica(&origin, &issuer, store).run().await;
    let other = replica(&origin, &issuer, store).run().await;
    shared(&one).await;
    shared(&other).await;
    let token = issuer.token().sign();
    assert_eq!(status(&other, "/me", &token).await, 200);
    assert_eq!(status(&one, "/logout", &token).await, 200);
    let took = ended(&other, &token).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

on_each! {
    async fn a_cluster_of_three_nodes_is_found_by_one_of_them(kind) {
        let nodes = redis::run_cluster(kind).await;
        shares(&nodes[1].store("topology = \"cluster\"")).await;
        let held: Vec<_> = nodes
            .iter()
            .map(|node| node.ask(&["EXISTS", "vestibule:revocations"]))
            .collect();
        assert_eq!(
            held.iter().filter(|held| *held == "1").count(),
            1,
            "{held:?}"
        );
    }
}

on_each! {
    async fn sentinels_lead_to_the_new_master_after_a_failover(kind) {
        let mut master = kind.run().await;
        let port = master.port.to_string();
        let replica_of = format!("127.0.0.1 {port}");
        let second = kind.run_with(&[
            "--replicaof",
            &replica_of,
            "--repl-diskless-sync-delay",
            "0",
        ])
        .await;
        eventually("the replica follows", async || {
            master
                .ask(&["INFO", "replication"])
                .contains("state=online")
        })
        .await;
        let sentinel = redis::run_sentinel(kind, &master).await;
        eventually("the sentinel knows the replica", async || {
            sentinel
                .ask(&["SENTINEL", "replicas", "house"])
                .contains(&second.port.to_string())
        })
        .await;
        let store = sentinel.store("topology = \"sentinel\"\nmaster = \"house\"");
        let (origin, issuer) = (origin::http().run().await, issuer::run().await);
        let one = replica(&origin, &issuer, &store).run().await;
        let other = replica(&origin, &issuer, &store).run().await;
        shared(&one).await;
        shared(&other).await;
        let token = issuer.token().claim("jti", "first").sign();
        assert_eq!(status(&one, "/logout", &token).await, 200);
        ended(&other, &token).await;

        master.kill();
        one.counted("vestibule_store_up", &[], 0.0).await;
        eventually("the replica becomes the master", async || {
            second.ask(&["ROLE"]).starts_with("master")
        })
        .await;
        let begun = Instant::now();
        shared(&one).await;
        shared(&other).await;
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        let token = issuer.token().claim("jti", "second").sign();
        assert_eq!(status(&one, "/logout", &token).await, 200);
        ended(&other, &token).await;
    }
}

#[tokio::test]
async fn tls_and_an_acl_user_with_no_more_rights_than_the_page_names() {
    let rules = secret_file(ACL);
    let store = redis::run_tls(&["--aclfile", rules.to_str().unwrap()]).await;
    let password = secret_file("sesame");
    let keys = |password: &std::path::Path, ca: &std::path::Path| {
        format!(
            "user = \"vestibule\"\npassword = {{ file = {password:?} }}\ntls = {{ ca = {ca:?} }}"
        )
    };
    let server = format!("\"rediss://{}\"", store.address());
    shares(&store_at(&server, &keys(&password, &pki::SHARED.ca()))).await;

    // Another authority, another password: the store is not used, and the log does not tell the password.
    let stranger = pki::Pki::new();
    let wrong = secret_file("wheat-barley");
    for (keys, why) in [
        (keys(&password, &stranger.ca()), "certificate"),
        (keys(&wrong, &pki::SHARED.ca()), "AuthenticationFailed"),
    ] {
        let (origin, issuer) = (origin::http().run().await, issuer::run().await);
        let gateway = replica(&origin, &issuer, &store_at(&server, &keys))
            .run()
            .await;
        gateway.ready().await;
        let told = gateway.admin(get("/status")).await.json();
        let error = told["store"]["last_error"].as_str().unwrap().to_owned();
        assert!(error.contains(why), "{error}");
        assert!(!error.contains("barley"), "{error}");
    }
}

/// As docs/operations.md has it, behind a default user that may do nothing.
const ACL: &str = "user default off\nuser vestibule on >sesame ~vestibule:* -@all +eval +evalsha +set +time +ping +role +xadd \
    +xread +cluster|slots +pexpire +exists +hget +hmget +hset +hincrby +hdel\n";
