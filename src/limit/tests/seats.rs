//! How many at once.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

fn line(concurrency: u32, queue: u32, patience: Duration) -> Arc<Limit<FakeRelativeClock>> {
    let written = config::Limit {
        rate: None,
        concurrency: Some(concurrency),
        queue: Some(queue),
        queue_timeout: Span(patience),
        ..written(1, MINUTE, None, &[LimitKey::Ip])
    };
    limit(&written).0
}

/// Asks for a seat; `None` while it has to be waited for.
macro_rules! ask {
    ($future:expr) => {
        match $future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    };
}

async fn enter(
    limit: &Arc<Limit<FakeRelativeClock>>,
    client: &Visit,
) -> Result<Charges<FakeRelativeClock>, Rejection> {
    let mut charges = Charges::default();
    let checked = used(limit, 1).check(&client.inputs(), &mut charges).await;
    checked.map(|()| charges)
}

#[tokio::test]
async fn one_too_many_waits_for_a_seat_and_takes_its_turn() {
    let (limit, client) = (line(1, 2, MINUTE), from("192.0.2.1"));
    let seated = enter(&limit, &client).await.unwrap();
    let (mut second, mut third) = (pin!(enter(&limit, &client)), pin!(enter(&limit, &client)));
    assert!(ask!(second).is_none() && ask!(third).is_none());
    assert_eq!(limit.tally().waiting, 2);
    let full = enter(&limit, &client).await.unwrap_err();
    assert_eq!(full.reason(), Reason::ConcurrencyLimited);
    assert!(enter(&limit, &from("192.0.2.2")).await.is_ok(), "bystander");

    drop(seated);
    assert!(ask!(third).is_none(), "who came first is next");
    let seated = ask!(second).unwrap().unwrap();
    assert!(ask!(third).is_none());
    drop(seated);
    assert!(ask!(third).unwrap().is_ok());
    assert_eq!(limit.tally().waiting, 0);
}

#[tokio::test]
async fn a_wait_ends_in_time() {
    let (limit, client) = (line(1, 2, Duration::from_millis(5)), from("192.0.2.1"));
    let _seated = enter(&limit, &client).await.unwrap();
    let refused = enter(&limit, &client).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::ConcurrencyLimited);
    assert_eq!(limit.tally().refused, 1);
}

#[tokio::test]
async fn a_seat_is_never_lost_whoever_leaves_when() {
    let (limit, client) = (line(1, 3, MINUTE), from("192.0.2.1"));
    for leave_before_the_turn in [true, false] {
        let seated = enter(&limit, &client).await.unwrap();
        let mut last = pin!(enter(&limit, &client));
        {
            let mut leaver = Box::pin(enter(&limit, &client));
            assert!(ask!(leaver).is_none() && ask!(last).is_none());
            if leave_before_the_turn {
                drop(leaver);
                drop(seated);
            } else {
                drop(seated);
                drop(leaver); // with the seat in hand
            }
        }
        assert!(ask!(last).unwrap().is_ok());
    }
    assert!(enter(&limit, &client).await.is_ok());
}

#[tokio::test]
async fn those_who_left_the_line_take_no_room_in_it() {
    let (limit, client) = (line(1, 1, MINUTE), from("192.0.2.1"));
    let seated = enter(&limit, &client).await.unwrap();
    for _ in 0..50 {
        let mut leaver = Box::pin(enter(&limit, &client));
        assert!(ask!(leaver).is_none());
    }
    let mut patient = pin!(enter(&limit, &client));
    assert!(ask!(patient).is_none());
    drop(seated);
    assert!(ask!(patient).unwrap().is_ok());
}
