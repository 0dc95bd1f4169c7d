//! How long to wait for the head of an answer, given how the request body gets on.

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use crate::types::body::Fate;
use crate::types::clock;

/// How many times within the timeout we look at how the request body gets on.
const LOOKS: u32 = 10;

/// Longest time between two looks. Callers count on being polled as often: a credential may end during the upload.
const LONGEST: Duration = Duration::from_secs(1);

/// Polls `work` until it is done or patience ends.
pub(super) async fn within<F: Future>(
    started: Instant,
    timeout: Duration,
    fate: Option<&Fate>,
    mut work: Pin<&mut F>,
) -> Option<F::Output> {
    let mut patience = Patience::new(started, timeout, fate.is_some());
    let mut alarm = pin!(tokio::time::sleep_until(patience.next_look(started).into()));
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = &mut alarm => {}
        }
        let now = clock::now();
        if let Some(fate) = fate {
            patience.look(now, fate.bytes(), fate.waiting());
        }
        if patience.is_over(now) {
            return None;
        }
        alarm.as_mut().reset(patience.next_look(now).into());
    }
}

/// The wait for one answer. Pure.
#[derive(Debug)]
struct Patience {
    timeout: Duration,
    ends: Instant,
    /// Bytes of the request body at the last look; `None` if there is no body to look at.
    seen: Option<u64>,
}

impl Patience {
    fn new(now: Instant, timeout: Duration, has_body: bool) -> Self {
        Self {
            timeout,
            ends: now + timeout,
            seen: has_body.then_some(0),
        }
    }

    fn look(&mut self, now: Instant, bytes: u64, waiting: bool) {
        if waiting || self.seen.is_some_and(|seen| bytes > seen) {
            self.ends = now + self.timeout;
        }
        self.seen = Some(bytes);
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.ends
    }

    fn next_look(&self, now: Instant) -> Instant {
        match self.seen {
            Some(_) => self.ends.min(now + (self.timeout / LOOKS).min(LONGEST)),
            None => self.ends,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_a_body_the_wait_ends_at_the_timeout() {
        let start = clock::now();
        let patience = Patience::new(start, SECOND * 10, false);
        assert_eq!(patience.next_look(start), start + SECOND * 10);
        assert!(!patience.is_over(start + SECOND * 9));
        assert!(patience.is_over(start + SECOND * 10));
    }

    #[test]
    fn the_wait_starts_when_the_body_is_through_to_a_tenth() {
        let start = clock::now();
        let mut patience = Patience::new(start, SECOND * 10, true);
        let mut now = start;
        for (bytes, waiting) in [(10, true), (20, true), (30, false)] {
            now = patience.next_look(now);
            patience.look(now, bytes, waiting);
        }
        let through = now;
        while !patience.is_over(now) {
            now = patience.next_look(now);
            patience.look(now, 30, false);
        }
        assert_eq!(now, through + SECOND * 10);
    }

    #[test]
    fn a_client_that_delays_its_body_is_not_the_endpoints_fault() {
        let start = clock::now();
        let mut patience = Patience::new(start, SECOND, true);
        let mut now = start;
        for _ in 0..1_000 {
            now = patience.next_look(now);
            patience.look(now, 5, true);
            assert!(!patience.is_over(now));
        }
    }

    #[test]
    fn an_endpoint_that_takes_no_byte_runs_out_of_time() {
        let start = clock::now();
        let mut patience = Patience::new(start, SECOND, true);
        patience.look(start + SECOND / 10, 0, false);
        assert!(patience.is_over(start + SECOND));
    }
}
