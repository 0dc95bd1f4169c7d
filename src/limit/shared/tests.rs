//! The scripts on a real Redis, held to the engine's own budget.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::budget::{Budget, Verdict, Why};
use super::super::rate::Window;
use super::*;
use crate::config::{self, OneOrMany, Problems, StoreKind};
use crate::store::{Line, Operation};
use crate::types::task;

/// A server that is killed when the test ends.
struct Redis(Child, u16);

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn redis() -> Redis {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let number = port.to_string();
    let child = Command::new("redis-server")
        .args(["--port", &number, "--bind", "127.0.0.1", "--save", ""])
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|why| panic!("redis-server: {why}; tests/peers/install brings it"));
    Redis(child, port)
}

/// A line to the server, once it is in use.
async fn line(redis: &Redis, secret: &std::path::Path) -> Arc<Line> {
    let written = config::Store {
        kind: StoreKind::Redis,
        servers: OneOrMany(vec![
            format!("redis://127.0.0.1:{}", redis.1).parse().unwrap(),
        ]),
        key_secret: Some(config::SecretRef::File(secret.to_owned())),
        timeout: config::Span::seconds(5),
        ..config::Store::default()
    };
    let mut problems = Problems::default();
    let store = Store::compile(&written, None, &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    let line = Line::new(&store.unwrap());
    task::spawn("store", Arc::clone(&line).keep());
    while !line.store().status().up {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    line
}

#[derive(Clone, Debug)]
enum Step {
    Take { after: u64, cost: u32 },
    Undo { cost: u32, passed: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..30_000_u64, 1..4_u32).prop_map(|(after, cost)| Step::Take { after, cost }),
        1 => (1..3_u32, 0..20_000_u64).prop_map(|(cost, passed)| Step::Undo { cost, passed }),
    ];
    prop::collection::vec(step, 1..40)
}

/// A budget of the engine, and the same as the script wants it.
fn both(windows: &[(u64, u32)], ban: u64) -> (Budget, Terms) {
    let window = |(interval, depth): &(u64, u32)| {
        let per = Duration::from_micros(*interval);
        Window::new(1.try_into().unwrap(), per, (*depth).try_into().unwrap()).unwrap()
    };
    let engine = windows.iter().map(window).collect();
    let terms = Terms {
        windows: windows.to_vec(),
        ban,
        learns: false,
    };
    (
        Budget::new(engine, (ban > 0).then_some(ban * 1_000), false),
        terms,
    )
}

async fn decide(line: &Line, key: &str, now: u64, ask: &Ask<'_>) -> Decision {
    let mut arguments = vec![signed(now)];
    ask.write(&mut arguments);
    let keys = [key.to_owned()];
    let patience = Duration::from_secs(5);
    let answer = line.run(Operation::Decide, &DECIDE, &keys, &arguments, patience);
    read(&answer.await.unwrap(), 1).unwrap()[0]
}

async fn undo(line: &Line, key: &str, terms: &Terms, cost: u32, passed: u64) {
    let mut arguments = vec![0, i64::from(cost), signed(passed), 0];
    arguments.extend(terms.windows.iter().map(|(interval, _)| signed(*interval)));
    let keys = [key.to_owned()];
    let patience = Duration::from_secs(5);
    let answer = line.run(Operation::Count, &SETTLE, &keys, &arguments, patience);
    answer.await.unwrap();
}

#[test]
fn any_sequence_is_decided_as_the_engine_does() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let redis = redis();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "a secret that all replicas share").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, private).unwrap();
    let line = runtime.block_on(line(&redis, &secret));
    let windows = prop::collection::vec((1..50_000_u64, 3..9_u32), 1..=4);
    let ban = prop_oneof![Just(0), 1..100_000_u64];
    let mut runner = TestRunner::new(Config::with_cases(64));
    let count = AtomicU64::new(0);
    let outcome = runner.run(&(windows, ban, steps()), |(windows, ban, steps)| {
        let key = format!("test:{}", count.fetch_add(1, Ordering::Relaxed));
        let (budget, terms) = both(&windows, ban);
        let mut words = vec![0; budget.layout().words];
        // Far from where the server would expire the key while the test runs.
        let mut now = 1_700_000_000_000_000_u64;
        runtime.block_on(async {
            for step in steps {
                match step {
                    Step::Undo { cost, passed } => {
                        budget.undo(&mut words, cost, passed * 1_000);
                        undo(&line, &key, &terms, cost, passed).await;
                    }
                    Step::Take { after, cost } => {
                        now += after;
                        let ask = Ask {
                            terms: &terms,
                            enforced: true,
                            cost,
                            want: cost,
                            tells: true,
                        };
                        let decision = decide(&line, &key, now, &ask).await;
                        let expected = match budget.take(&mut words, now * 1_000, cost) {
                            Verdict::Allowed => (cost, 0, None),
                            Verdict::Wait(wait, why) => (0, wait / 1_000, Some(why)),
                        };
                        let found = (decision.charged, decision.wait, decision.why);
                        prop_assert_eq!(found, expected, "{:?} at {}", ask, now);
                        // What clients are told of the shared budget is what the engine would tell.
                        let left = budget.left(&mut words, now * 1_000);
                        let left = left.filter(|_| decision.why.is_none());
                        prop_assert_eq!(decision.left(), left, "{:?} at {}", ask, now);
                    }
                }
            }
            Ok(())
        })
    });
    outcome.unwrap_or_else(|why| panic!("{why}"));

    runtime.block_on(async {
        // A batch is what there is room for; what refuses one key charges none.
        let (_, terms) = both(&[(1_000_000, 10)], 0);
        let now = 1_700_000_000_000_000;
        let ask = |cost, want| Ask {
            terms: &terms,
            enforced: true,
            cost,
            want,
            tells: false,
        };
        assert_eq!(decide(&line, "batch", now, &ask(1, 8)).await.charged, 8);
        assert_eq!(decide(&line, "batch", now, &ask(1, 8)).await.charged, 2);
        let empty = decide(&line, "batch", now, &ask(1, 8)).await;
        assert_eq!(
            (empty.charged, empty.wait, empty.why),
            (0, 1_000_000, Some(Why::Spent))
        );
        let mut arguments = vec![signed(now)];
        ask(1, 1).write(&mut arguments);
        ask(1, 1).write(&mut arguments);
        let keys = ["other".to_owned(), "batch".to_owned()];
        let patience = Duration::from_secs(5);
        let answer = line.run(Operation::Decide, &DECIDE, &keys, &arguments, patience);
        let decisions = read(&answer.await.unwrap(), 2).unwrap();
        assert!(decisions.iter().all(|decision| decision.charged == 0));
        assert_eq!(decide(&line, "other", now, &ask(1, 10)).await.charged, 10);
        // By the server's own clock the key is new, and goes by itself.
        let charged = decide(&line, "clock", 0, &ask(2, 2)).await.charged;
        assert_eq!(charged, 2);
    });
}

#[test]
fn an_answer_of_another_shape_is_none() {
    for answer in [
        &[][..],
        &[1, 0, 0],
        &[1, 0, 0, 0, 0, 0, 1],
        &[-1, 0, 0, 0, 0, 0],
        &[1, 0, 9, 0, 0, 0],
        &[1, -5, 0, 0, 0, 0],
        &[1, 0, 0, -1, 0, 0],
        &[1, 0, 0, 0, -1, 0],
        &[1, 0, 0, 0, 0, -1],
    ] {
        assert_eq!(read(answer, 1), None, "{answer:?}");
    }
    assert_eq!(read(&[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], 1), None);
    assert!(read(&[0, 7, 4, 0, 0, 0], 1).is_some());
}
