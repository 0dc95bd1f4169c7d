//! A logout on one replica ends the login on all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::on_each;
use crate::support::client::{Told, get, refused};
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::issuer::{self, Issuer};
use crate::support::origin::{self, Origin, Reply};
use crate::support::redis::{self, Kind, Redis, SECRET, store_at, wire};
use crate::support::{binary, eventually};

/// A replica whose logins are the issuer's tokens.
pub(super) fn replica(origin: &Origin, issuer: &Issuer, store: &str) -> Builder {
    conf(
        "[[route]]\npath = \"/me\"\nauth = { any = [\"main\"] }\nupstream = \"api\"\n\
         [[route]]\npath = \"/logout\"\nauth = { any = [\"main\"] }\nrevokes = { any = [\"main\"] }\nupstream = \"api\"",
    )
    .upstream("api", origin)
    .issuer(issuer)
    .and(store)
}

/// An issuer, a backend, and the store that replicas share.
struct Fleet {
    origin: Origin,
    issuer: Issuer,
    store: Redis,
}

impl Fleet {
    async fn start() -> Self {
        Self::on(Kind::Redis).await
    }

    async fn on(kind: Kind) -> Self {
        Self {
            origin: origin::http().run().await,
            issuer: issuer::run().await,
            store: kind.run().await,
        }
    }

    /// One more replica, which has reached the store.
    async fn replica(&self) -> Gateway {
        self.replica_with(&self.store.store("")).await
    }

    async fn replica_with(&self, store: &str) -> Gateway {
        let gateway = replica(&self.origin, &self.issuer, store).run().await;
        shared(&gateway).await;
        gateway
    }

    fn alice(&self) -> String {
        self.issuer.token().claim("sub", "alice").sign()
    }
}

/// Waits until as many messages as that came to `outcome`.
async fn messages(gateway: &Gateway, outcome: &str, count: f64) {
    let labels = [("outcome", outcome)];
    let name = "vestibule_store_messages_total";
    gateway.counted(name, &labels, count).await;
}

pub(super) async fn shared(gateway: &Gateway) {
    gateway.counted("vestibule_store_up", &[], 1.0).await;
    gateway.ready().await;
}

pub(super) async fn status(gateway: &Gateway, path: &str, token: &str) -> u16 {
    gateway.ask(get(path).bearer(token)).await.status.as_u16()
}

/// How long it takes until the token is refused.
pub(super) async fn ended(gateway: &Gateway, token: &str) -> Duration {
    let begun = Instant::now();
    eventually("the other replica refuses the token", async || {
        status(gateway, "/me", token).await == 401
    })
    .await;
    let answer = gateway.ask(get("/me").bearer(token)).await;
    assert_eq!(answer.verdict(), refused(401, "token_revoked"));
    begun.elapsed()
}

on_each! {
    async fn a_logout_on_one_replica_is_known_on_another_within_a_second(kind) {
        let fleet = Fleet::on(kind).await;
        let one = fleet.replica().await;
        let other = fleet.replica().await;
        let (token, bystander) = (
            fleet.alice(),
            fleet.issuer.token().claim("sub", "bob").sign(),
        );
        for gateway in [&one, &other] {
            assert_eq!(status(gateway, "/me", &token).await, 200);
            assert_eq!(status(gateway, "/me", &bystander).await, 200);
        }
        assert_eq!(status(&one, "/logout", &token).await, 200);
        let took = ended(&other, &token).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(status(&other, "/me", &bystander).await, 200);
        messages(&one, "sent", 1.0).await;
        messages(&other, "received", 1.0).await;
        let bad = other.metric("vestibule_store_messages_total", &[("outcome", "bad")]);
        assert!(bad.await < 0.5);
        // Who can read the store learns neither the user nor the token.
        let stream = fleet
            .store
            .ask(&["XRANGE", "vestibule:revocations", "-", "+"]);
        assert!(stream.contains("main") && !stream.contains("alice") && !stream.contains(&token));
    }
}

on_each! {
    async fn a_replica_that_was_cut_off_learns_what_it_missed(kind) {
        let fleet = Fleet::on(kind).await;
        let wire = wire(fleet.store.address()).await;
        let one = fleet.replica().await;
        let far = store_at(&format!("\"redis://{}\"", wire.address), "");
        let other = fleet.replica_with(&far).await;
        let token = fleet.alice();
        assert_eq!(status(&other, "/me", &token).await, 200);

        wire.cut();
        other.counted("vestibule_store_up", &[], 0.0).await;
        assert_eq!(status(&one, "/logout", &token).await, 200);
        messages(&one, "sent", 1.0).await;
        assert_eq!(status(&other, "/me", &token).await, 200, "it cannot know");

        wire.mend();
        let took = ended(&other, &token).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

on_each! {
    /// A session whose confirmation the other replica would believe for much longer.
    async fn a_session_that_ends_on_one_replica_is_not_believed_on_another(kind) {
        let store = kind.run().await;
        let ended = Arc::<AtomicBool>::default();
        let (gone, logged_out) = (Arc::clone(&ended), Arc::clone(&ended));
        let origin = origin::http()
            .on("/session", move |seen| {
                let is_over = gone.load(Ordering::SeqCst) && seen.header("cookie") == "at=alice";
                match is_over {
                    true => Reply::empty(401),
                    false => Reply::json(&serde_json::json!({ "user": { "user_id": "some" } })),
                }
            })
            .on("/logout", move |_| {
                logged_out.store(true, Ordering::SeqCst);
                Reply::empty(204)
            })
            .run()
            .await;
        let replica = conf(
            "[session.browser]\ncookie = \"at\"\nprobe = { upstream = \"api\", path = \"/session\" }\ncache = \"10m\"\n\
             [[route]]\npath = \"/me\"\nauth = { any = [\"browser\"] }\nupstream = \"api\"\n\
             [[route]]\npath = \"/logout\"\nauth = \"none\"\nrevokes = { any = [\"browser\"] }\nupstream = \"api\"",
        )
        .upstream("api", &origin)
        .and(&store.store(""));
        let (one, other) = (replica.clone().run().await, replica.run().await);
        shared(&one).await;
        shared(&other).await;
        let me = async |gateway: &Gateway, who: &str| {
            let call = get("/me").header("cookie", &format!("at={who}"));
            gateway.ask(call).await.status.as_u16()
        };
        for gateway in [&one, &other] {
            assert_eq!((me(gateway, "alice").await, me(gateway, "bob").await), (200, 200));
        }
        let logout = get("/logout").header("cookie", "at=alice");
        assert_eq!(one.ask(logout).await.status, 204);
        let begun = Instant::now();
        assert_eq!(me(&one, "alice").await, 401);
        eventually("the other replica asks again", async || me(&other, "alice").await == 401).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(me(&other, "bob").await, 200);
    }
}

#[tokio::test]
async fn a_logout_without_the_store_holds_here_and_is_told_when_the_store_is_back() {
    let fleet = Fleet::start().await;
    let wire = wire(fleet.store.address()).await;
    let far = store_at(&format!("\"redis://{}\"", wire.address), "");
    let one = fleet.replica_with(&far).await;
    let other = fleet.replica().await;
    let token = fleet.alice();
    assert_eq!(status(&other, "/me", &token).await, 200);

    wire.cut();
    one.counted("vestibule_store_up", &[], 0.0).await;
    assert_eq!(status(&one, "/logout", &token).await, 200);
    assert_eq!(status(&one, "/me", &token).await, 401);
    assert_eq!(status(&other, "/me", &token).await, 200);

    wire.mend();
    ended(&other, &token).await;
}

#[tokio::test]
async fn a_restart_does_not_forget_logouts() {
    let fleet = Fleet::start().await;
    let one = fleet.replica().await;
    let token = fleet.alice();
    assert_eq!(status(&one, "/logout", &token).await, 200);
    messages(&one, "sent", 1.0).await;
    drop(one);
    let again = fleet.replica().await;
    ended(&again, &token).await;
}

#[tokio::test]
async fn messages_that_no_replica_has_signed_end_nobodys_login() {
    let fleet = Fleet::start().await;
    let one = fleet.replica().await;
    let token = fleet.alice();
    assert_eq!(status(&one, "/me", &token).await, 200);
    let forgeries = [
        vec!["x", "y"],
        vec!["m", ""],
        vec!["m", "user 00 1 2 main"],
        vec![
            "m",
            "\u{1}aaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbuser 00 1 2 main",
        ],
    ];
    for forgery in &forgeries {
        let mut command = vec!["XADD", "vestibule:revocations", "*"];
        command.extend(forgery);
        fleet.store.ask(&command);
    }
    messages(&one, "bad", 4.0).await;
    assert_eq!(status(&one, "/me", &token).await, 200);

    // Nor does one with another secret.
    let servers = format!("\"redis://{}\"", fleet.store.address());
    let stranger = redis::store_with(&servers, &SECRET.to_uppercase(), "");
    let stranger = fleet.replica_with(&stranger).await;
    assert_eq!(status(&stranger, "/logout", &token).await, 200);
    messages(&one, "bad", 5.0).await;
    assert_eq!(status(&one, "/me", &token).await, 200);
}

#[tokio::test]
async fn a_gateway_starts_and_serves_without_its_store() {
    let (origin, issuer) = (origin::http().run().await, issuer::run().await);
    let nobody = store_at("\"redis://127.0.0.1:1\"", "");
    let gateway = replica(&origin, &issuer, &nobody).run().await;
    gateway.ready().await;
    let token = issuer.token().sign();
    assert_eq!(status(&gateway, "/me", &token).await, 200);
    assert_eq!(status(&gateway, "/logout", &token).await, 200);
    assert_eq!(status(&gateway, "/me", &token).await, 401);
    let told = gateway.admin(get("/status")).await.json();
    assert_eq!(told["store"]["up"], false);
    assert_eq!(told["store"]["open_circuits"], told["store"]["lines"]);
    assert!(
        told["store"]["last_error"]
            .as_str()
            .unwrap()
            .contains("127.0.0.1:1")
    );

    let needed = store_at("\"redis://127.0.0.1:1\"", "required = true");
    let gateway = replica(&origin, &issuer, &needed).run().await;
    eventually("it says what is missing", async || {
        gateway
            .admin(get("/readyz"))
            .await
            .text()
            .contains("the store cannot be used")
    })
    .await;
    let token = issuer.token().sign();
    eventually("it serves all the same", async || {
        status(&gateway, "/me", &token).await == 200
    })
    .await;
}

#[tokio::test]
async fn a_change_of_the_store_is_one_line_in_the_log() {
    let (origin, issuer) = (origin::http().run().await, issuer::run().await);
    let mut store = redis::run().await;
    // So patient that a busy machine makes no changes of its own.
    let conf = replica(&origin, &issuer, &store.store("timeout = \"5s\""));
    let process = binary::run(&conf).await;
    let lines = |word: &str| {
        process
            .events()
            .iter()
            .filter(|event| event.to_string().contains(word))
            .count()
    };
    eventually("it is in use", async || lines("the store answers") == 1).await;
    store.kill();
    eventually("it is gone", async || {
        lines("the store cannot be used") == 1
    })
    .await;
    store.restart().await;
    let begun = Instant::now();
    eventually("it is in use again", async || {
        lines("the store answers") == 2
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(lines("the store cannot be used"), 1);
    assert!(
        !process
            .events()
            .iter()
            .any(|event| event.to_string().contains(SECRET))
    );
}
