//! Futures that run at the same time, in one task.

use std::future::{Future, poll_fn};
use std::task::Poll;

/// What all of them come to, in their order.
pub(super) async fn all_at_once<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, output) in running.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(done) = future.as_mut().poll(context)
            {
                *output = Some(done);
            }
        }
        match outputs.iter().all(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use tokio::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn none_waits_for_another_to_end_and_their_order_is_kept() {
        let all_are_there = Barrier::new(3);
        let numbers = [3, 1, 2].map(|number| {
            let all_are_there = &all_are_there;
            async move {
                all_are_there.wait().await;
                number
            }
        });
        assert_eq!(all_at_once(numbers.into_iter()).await, [3, 1, 2]);
    }
}
