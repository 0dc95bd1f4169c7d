//! Attacks on logins, as they are made, with bystanders who log in meanwhile and must not notice: stuffing (leaked pairs,
//! many accounts, few networks), brute force (one account, many addresses), spraying (one password, many accounts).
//!
//! All clients are behind a proxy that is believed, as where a load balancer stands in front. Each drill runs against a
//! real login API that answers 401, and against pages that answer 200 to a wrong password.

mod glewlwyd;
mod pages;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use glewlwyd::Glewlwyd;

use crate::support::client::{self, Answer, Call, Client, Via, post};
use crate::support::gateway::{Gateway, conf};
use crate::support::origin::Origin;

/// Accounts `user0` and so on, all with the password that glewlwyd's package gives to its own account.
const ACCOUNTS: usize = 60;
const PASSWORD: &str = "password";

/// A login behind the gateway.
struct Login {
    gateway: Gateway,
    backend: Backend,
}

enum Backend {
    Glewlwyd(Glewlwyd),
    Pages(Origin),
    Silent(Origin),
}

/// A password that reached the backend.
#[derive(Debug)]
struct Tried {
    user: String,
    /// Where from, if the backend tells.
    from: Option<String>,
    is_right: bool,
}

/// A password to try.
#[derive(Clone, Debug)]
struct Attempt {
    from: String,
    user: String,
    password: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    In,
    Wrong,
    /// By which limit.
    Refused(String),
}

impl Tried {
    fn new(user: &str, from: Option<&str>, is_right: bool) -> Self {
        Self {
            user: user.to_owned(),
            from: from.map(str::to_owned),
            is_right,
        }
    }
}

fn attempt(from: impl Into<String>, user: impl Into<String>, password: &str) -> Attempt {
    Attempt {
        from: from.into(),
        user: user.into(),
        password: password.to_owned(),
    }
}

impl Backend {
    /// With limits as a login should have them; `rates` are those of failures from one address.
    async fn behind(self, rates: &str) -> Login {
        let (path, field, failures) = match &self {
            Self::Glewlwyd(_) => ("/api/auth", "json:username", "count = \"failures\""),
            Self::Pages(_) => (
                "/login",
                "form:login",
                "count = \"failures\"\nfailure = { status = [200] }",
            ),
            // Nothing in the head tells a wrong password from a right one: all of them count.
            Self::Silent(_) => ("/login", "form:login", "count = \"all\""),
        };
        let endpoint = match &self {
            Self::Glewlwyd(server) => format!("http://{}", server.address),
            Self::Pages(origin) | Self::Silent(origin) => origin.endpoint(),
        };
        let text = format!(
            r#"
            [upstream.accounts]
            endpoints = ["{endpoint}"]

            [limit.address]
            rate = {rates}
            {failures}
            ban = "15m"

            [limit.pair]
            key = ["ip", "{field}"]
            rate = "20/h"
            burst = 3
            {failures}

            [limit.swarm]
            key = "{field}"
            distinct = {{ of = "ip", per = "1h", above = 20 }}

            [limit.spray]
            key = "ip"
            distinct = {{ of = "{field}", per = "1h", above = 10 }}

            [[route]]
            path = "{path}"
            methods = ["POST"]
            auth = "none"
            limits = ["address", "pair", "swarm", "spray"]
            upstream = "accounts"
            "#
        );
        let gateway = conf(&text)
            .listen("trusted_proxies = [\"127.0.0.0/8\"]")
            .run()
            .await;
        Login {
            gateway,
            backend: self,
        }
    }
}

impl Login {
    fn call(&self, attempt: &Attempt) -> Call {
        let Attempt {
            from,
            user,
            password,
        } = attempt;
        let call = match &self.backend {
            Backend::Glewlwyd(_) => {
                let body = serde_json::json!({ "username": user, "password": password });
                post("/api/auth", body.to_string()).header("content-type", "application/json")
            }
            Backend::Pages(_) | Backend::Silent(_) => {
                post("/login", format!("login={user}&password={password}"))
                    .header("content-type", "application/x-www-form-urlencoded")
            }
        };
        call.header("x-forwarded-for", from)
    }

    fn verdict(&self, answer: &Answer) -> Verdict {
        let status = answer.status.as_u16();
        if status == 429 {
            let wait: u64 = answer.header("retry-after").parse().unwrap();
            assert!(wait >= 1);
            return Verdict::Refused(answer.at("/policy").as_str().unwrap().to_owned());
        }
        match (&self.backend, status) {
            (Backend::Glewlwyd(_), 200) | (Backend::Pages(_), 303) => Verdict::In,
            (Backend::Glewlwyd(_), 401) | (Backend::Pages(_), 200) => Verdict::Wrong,
            (Backend::Silent(_), 200) if answer.text().contains("welcome") => Verdict::In,
            (Backend::Silent(_), 200) => Verdict::Wrong,
            _ => panic!("{status}: {}", answer.text()),
        }
    }

    async fn send(&self, client: &mut Client, attempt: &Attempt) -> Verdict {
        let answer = client.send(self.call(attempt)).await;
        self.verdict(&answer)
    }

    async fn once(&self, from: &str, user: &str, password: &str) -> Verdict {
        let mut client = self.gateway.connect(Via::H1).await;
        self.send(&mut client, &attempt(from, user, password)).await
    }

    /// What the backend was made to look at.
    fn tried(&self) -> Vec<Tried> {
        match &self.backend {
            Backend::Glewlwyd(server) => server.tried(),
            Backend::Pages(origin) | Backend::Silent(origin) => pages::tried(origin),
        }
    }
}

/// Four connections make the attempts, each one its list from the first to the last, while bystanders log in, again and
/// again, from before the first until after the last one. What came of the attempts.
async fn attacked(
    login: &Arc<Login>,
    lists: [Vec<Attempt>; 4],
    bystanders: &[(&str, &str)],
) -> Vec<Verdict> {
    let over = Arc::new(AtomicBool::new(false));
    let mut honest = Vec::new();
    for (from, user) in bystanders {
        let (login, over) = (Arc::clone(login), Arc::clone(&over));
        let right = attempt(*from, *user, PASSWORD);
        assert_eq!(login.once(from, user, PASSWORD).await, Verdict::In);
        honest.push(tokio::spawn(async move {
            let mut client = login.gateway.connect(Via::TlsH2).await;
            let mut last = false;
            while !last {
                last = over.load(Ordering::SeqCst);
                let verdict = login.send(&mut client, &right).await;
                assert_eq!(verdict, Verdict::In, "{right:?}");
            }
        }));
    }
    let mut attackers = Vec::new();
    for (via, list) in [Via::H1, Via::TlsH2, Via::H2c, Via::TlsH1]
        .into_iter()
        .zip(lists)
    {
        let login = Arc::clone(login);
        attackers.push(tokio::spawn(async move {
            let mut client = client::connect(login.gateway.address(via), via).await;
            let mut verdicts = Vec::new();
            for attempt in &list {
                verdicts.push(login.send(&mut client, attempt).await);
            }
            verdicts
        }));
    }
    let mut verdicts = Vec::new();
    for attacker in attackers {
        verdicts.extend(attacker.await.unwrap());
    }
    over.store(true, Ordering::SeqCst);
    for bystander in honest {
        bystander.await.unwrap();
    }
    verdicts
}

fn count(verdicts: &[Verdict], wanted: &Verdict) -> usize {
    verdicts.iter().filter(|verdict| *verdict == wanted).count()
}

fn by(limit: &str) -> Verdict {
    Verdict::Refused(limit.to_owned())
}

/// Leaked pairs from three networks: 40 from each, the right ones among the last. Five wrong ones from a network, and it
/// is banned.
async fn stuffing(login: Login) {
    let login = Arc::new(login);
    let mut lists: [Vec<Attempt>; 4] = Default::default();
    for number in 0..40_usize {
        let password = if number < 32 { "letmein" } else { PASSWORD };
        for (network, from) in [
            format!("2001:db8:bad:1:{number:x}::1"),
            format!("2001:db8:bad:2::{number:x}"),
            "198.51.100.66".to_owned(),
        ]
        .into_iter()
        .enumerate()
        {
            let user = format!("user{}", (number + 7 * network) % 40);
            lists[number % 4].push(attempt(from, user, password));
        }
    }
    let neighbours = [
        ("2001:db8:bad:3::1", "user41"), // the next customer
        ("198.51.100.67", "user42"),
        ("192.0.2.1", "user3"), // whose account is on the list
    ];
    let verdicts = attacked(&login, lists, &neighbours).await;
    assert_eq!(count(&verdicts, &Verdict::In), 0);
    assert_eq!(count(&verdicts, &Verdict::Wrong), 15);
    assert_eq!(count(&verdicts, &by("address")), 105);
    let tried = login.tried();
    assert_eq!(tried.iter().filter(|tried| !tried.is_right).count(), 15);
    let known = ["user41", "user42", "user3"];
    assert!(
        tried
            .iter()
            .all(|tried| !tried.is_right || known.contains(&&*tried.user))
    );
    // While the ban lasts not even a right pair is tried; 15 minutes, and no promise that is broken.
    let refused = login.once("198.51.100.66", "user50", PASSWORD).await;
    assert_eq!(refused, by("address"));
}

/// One account from 60 addresses, four guesses each, however its name is spelt. Its owner has logged in before.
async fn brute_force(login: Login) {
    let login = Arc::new(login);
    let mut lists: [Vec<Attempt>; 4] = Default::default();
    for address in 0..60_usize {
        for (guess, user) in ["user7", "USER7", "User7", "uSER7"].iter().enumerate() {
            let password = if guess == 3 { PASSWORD } else { "guess" };
            let from = format!("203.0.113.{address}");
            lists[address % 4].push(attempt(from, *user, password));
        }
    }
    let bystanders = [
        ("192.0.2.7", "user7"), // the owner, from where the owner is known
        ("192.0.2.8", "user8"),
        ("203.0.113.200", "user9"),
    ];
    let verdicts = attacked(&login, lists, &bystanders).await;
    assert_eq!(count(&verdicts, &Verdict::In), 0);
    // 20 addresses have room, the owner's among them; three guesses from each.
    assert_eq!(count(&verdicts, &Verdict::Wrong), 19 * 3);
    assert_eq!(count(&verdicts, &by("pair")), 19);
    assert_eq!(count(&verdicts, &by("swarm")), 41 * 4);
    let wrong: Vec<Tried> = login
        .tried()
        .into_iter()
        .filter(|tried| !tried.is_right)
        .collect();
    assert_eq!(wrong.len(), 19 * 3);
    // The backend learns of the client, not of the proxy.
    assert!(wrong.iter().all(|tried| {
        let from = tried.from.as_deref().unwrap_or_default();
        from.starts_with("203.0.113.") && tried.user.eq_ignore_ascii_case("user7")
    }));
    // Whoever shares an address with the attack still logs in, to every other account.
    for address in 0..60 {
        let from = format!("203.0.113.{address}");
        let shared = login.once(&from, "user30", PASSWORD).await;
        // The 20 of this account are used up by this very test.
        assert_eq!(shared == Verdict::In, address < 20, "{shared:?}");
    }
    // The price: while it lasts, the owner cannot log in from a new address.
    assert_eq!(
        login.once("192.0.2.99", "user7", PASSWORD).await,
        by("swarm")
    );
}

/// One password, 50 accounts, one network, so slowly that no rate minds. Somebody who has logged in from there before
/// goes on.
async fn spraying(login: Login) {
    let login = Arc::new(login);
    let mut lists: [Vec<Attempt>; 4] = Default::default();
    for number in 0..50_usize {
        let from = format!("2001:db8:0:5::{number:x}");
        lists[number % 4].push(attempt(from, format!("user{number}"), "Summer2026!"));
    }
    let bystanders = [
        ("2001:db8:0:5::ffff", "user55"), // in the same network
        ("2001:db8:0:6::1", "user56"),
        ("192.0.2.1", "user5"),
    ];
    let verdicts = attacked(&login, lists, &bystanders).await;
    assert_eq!(count(&verdicts, &Verdict::In), 0);
    assert_eq!(count(&verdicts, &Verdict::Wrong), 9, "and the colleague");
    assert_eq!(count(&verdicts, &by("spray")), 41);
    let tried = login.tried();
    assert_eq!(tried.iter().filter(|tried| !tried.is_right).count(), 9);
}

/// Expands to a module with the drill against each kind of backend.
macro_rules! drill {
    ($name:ident, $attack:path, $rates:literal) => {
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_a_login_api_that_answers_401() {
                let backend = Backend::Glewlwyd(glewlwyd::run().await);
                $attack(backend.behind($rates).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_pages_that_answer_200() {
                let backend = Backend::Pages(pages::run().await);
                $attack(backend.behind($rates).await).await;
            }
        }
    };
}

drill!(
    stuffing_ends_after_a_few_pairs_and_bystanders_log_in,
    stuffing,
    "\"5/h\""
);
drill!(
    brute_force_from_many_addresses_ends_and_the_owner_logs_in,
    brute_force,
    "\"5/h\""
);
drill!(
    spraying_below_every_rate_ends_and_colleagues_log_in,
    spraying,
    "\"1000/m\""
);

/// Where the answer does not tell, right passwords count as well: fewer may come from one address, whoever they are.
#[tokio::test]
async fn stuffing_ends_where_no_answer_tells_a_failure() {
    let backend = Backend::Silent(pages::run_silent().await);
    let login = backend.behind("\"5/h\"").await;
    let mut verdicts = Vec::new();
    for number in 0..40 {
        let password = if number < 8 { "letmein" } else { PASSWORD };
        let user = format!("user{number}");
        verdicts.push(login.once("198.51.100.66", &user, password).await);
        if number % 20 == 0 {
            assert_eq!(
                login.once("192.0.2.1", "user3", PASSWORD).await,
                Verdict::In
            );
        }
    }
    assert_eq!(count(&verdicts, &Verdict::Wrong), 5);
    assert_eq!(count(&verdicts, &by("address")), 35);
    assert_eq!(login.tried().len(), 5 + 2);
}
