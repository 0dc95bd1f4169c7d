//! Keeps handshakes from starving requests. One costs as much as twenty requests, all in one step, and a thousand
//! clients that come back at once would be served before anybody else's next byte.
//!
//! A cap on handshakes under way would not do: whoever begins that many and falls silent would keep everybody out until
//! the deadline. So their number is bounded by `max_connections` alone, and what is bounded here is how many of them a
//! worker goes on with before every other task has had its turn.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

/// The steps of the handshakes of one worker.
#[derive(Debug, Default)]
pub(super) struct Pace {
    taken: AtomicU32,
    /// Whether somebody waits in the worker's queue to begin the next round.
    awaited: AtomicBool,
}

impl Pace {
    /// `handshake`, at this pace.
    pub(super) fn keep<F>(self: &Arc<Self>, handshake: F) -> Paced<F> {
        Paced {
            handshake,
            place: Place {
                pace: Arc::clone(self),
                first: false,
            },
        }
    }
}

pin_project_lite::pin_project! {
    /// A handshake that waits for its turn.
    pub(super) struct Paced<F> {
        #[pin]
        handshake: F,
        place: Place,
    }
}

/// A place in the worker's queue.
#[derive(Debug)]
struct Place {
    pace: Arc<Pace>,
    /// Whether it is the first that was put off in this round. When its turn comes, all others have had theirs.
    first: bool,
}

impl Place {
    fn may_go_on(&mut self) -> bool {
        self.begin_round();
        let taken = self.pace.taken.fetch_add(1, Ordering::Relaxed);
        if taken < STEPS {
            return true;
        }
        self.first = !self.pace.awaited.swap(true, Ordering::Relaxed);
        false
    }

    fn begin_round(&mut self) {
        if std::mem::take(&mut self.first) {
            self.pace.taken.store(0, Ordering::Relaxed);
            self.pace.awaited.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.begin_round();
    }
}

impl<F: Future> Future for Paced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let me = self.project();
        if !me.place.may_go_on() {
            // To the end of the queue, behind everything that is ready now.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        me.handshake.poll(cx)
    }
}

/// Steps a round: some milliseconds at most.
const STEPS: u32 = 8;

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::pin::pin;

    use parking_lot::Mutex;

    use super::*;
    use crate::types::task;

    #[tokio::test]
    async fn others_have_their_turn_between_rounds_of_handshakes() {
        let pace = Arc::new(Pace::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..3 * STEPS {
            let order = Arc::clone(&order);
            let handshake = async move { order.lock().push(Some(number)) };
            tasks.push(task::spawn("handshake", pace.keep(handshake)));
        }
        let other = Arc::clone(&order);
        tasks.push(task::spawn("request", async move {
            other.lock().push(None);
        }));
        for task in tasks {
            task.await.unwrap();
        }
        let order = order.lock();
        let before = order.iter().position(Option::is_none).unwrap();
        assert_eq!(before, usize::try_from(STEPS).unwrap());
        assert_eq!(order.iter().flatten().count(), 3 * before);
    }

    #[tokio::test]
    async fn a_handshake_that_is_given_up_holds_nobody_up() {
        let pace = Arc::new(Pace::default());
        let mut silent: Vec<_> = (0..=STEPS)
            .map(|_| Box::pin(pace.keep(pending::<()>())))
            .collect();
        poll_fn(|cx| {
            for handshake in &mut silent {
                assert!(handshake.as_mut().poll(cx).is_pending());
            }
            Poll::Ready(())
        })
        .await;
        drop(silent);
        let mut next = pin!(pace.keep(async { 7 }));
        poll_fn(|cx| {
            assert_eq!(next.as_mut().poll(cx), Poll::Ready(7));
            Poll::Ready(())
        })
        .await;
    }
}
