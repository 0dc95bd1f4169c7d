//! Whether a request may be sent again. Pure, but for the atomic count of the budget.

use std::sync::atomic::{AtomicI64, Ordering};

use http::Method;

/// What a request earns for the retries of others: one retry for five requests.
const EARNED: i64 = 200;
/// What a retry costs.
const COST: i64 = 1_000;
/// The most that can be saved up: a burst of retries when an endpoint dies under load.
const SAVINGS: i64 = 100 * COST;
/// What there is at the start, so that the first requests may be tried again too.
const START: i64 = 20 * COST;
/// Connections found dead before a byte of the request was written; after that many it counts as a failure.
const FREE: u32 = 3;

/// How a request was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// No connection to the endpoint.
    NotConnected,
    /// The connection was found dead before a byte was written.
    Unsent,
    /// The endpoint said that it did nothing with it.
    Refused,
    /// The connection died before an answer, and it had served other requests: it may have been closed as idle.
    OnUsedConnection,
    /// A new connection died before an answer.
    OnNewConnection,
}

/// Keeps retries from multiplying a failure: all requests of a cluster share it.
#[derive(Debug)]
pub(super) struct Budget(AtomicI64);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicI64::new(START))
    }
}

impl Budget {
    /// A request came in.
    pub(super) fn earn(&self) {
        // Nearly always full, and then a request costs one read.
        if self.0.load(Ordering::Relaxed) < SAVINGS {
            self.0.fetch_add(EARNED, Ordering::Relaxed);
        }
    }

    fn spend(&self) -> bool {
        if self.0.fetch_sub(COST, Ordering::Relaxed) >= COST {
            return true;
        }
        self.0.fetch_add(COST, Ordering::Relaxed);
        false
    }
}

/// The tries that one request has left.
#[derive(Debug)]
pub(super) struct Tries {
    retries: u32,
    left: u32,
    free: u32,
    stale: bool,
}

impl Tries {
    pub(super) fn new(retries: u32) -> Self {
        Self {
            retries,
            left: retries,
            free: FREE,
            stale: retries > 0,
        }
    }

    /// Whether a copy of the request is worth keeping.
    pub(super) fn wanted(&self) -> bool {
        self.retries > 0
    }

    /// Whether to try again. The caller still has the request, whole.
    pub(super) fn again(&mut self, lost: Lost, budget: &Budget) -> bool {
        match lost {
            // Nothing was sent, so nothing is multiplied.
            Lost::Unsent if self.free > 0 => {
                self.free -= 1;
                true
            }
            // Closed as idle while we wrote: not a failure of the endpoint, so it does not use up the retry.
            Lost::OnUsedConnection if self.stale => {
                self.stale = false;
                budget.spend()
            }
            _ if self.left > 0 => {
                self.left -= 1;
                budget.spend()
            }
            _ => false,
        }
    }
}

/// Methods that may be carried out twice (RFC 9110 section 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_bounded_by_the_configuration() {
        let budget = Budget::default();
        let mut tries = Tries::new(1);
        assert!(tries.again(Lost::NotConnected, &budget));
        assert!(!tries.again(Lost::NotConnected, &budget));
        assert!(!Tries::new(0).again(Lost::OnNewConnection, &budget));
    }

    #[test]
    fn a_connection_closed_as_idle_does_not_use_up_the_retry() {
        let budget = Budget::default();
        let mut tries = Tries::new(1);
        assert!(tries.again(Lost::OnUsedConnection, &budget));
        assert!(tries.again(Lost::NotConnected, &budget));
        assert!(!tries.again(Lost::OnUsedConnection, &budget));
    }

    #[test]
    fn what_was_never_sent_is_tried_again_even_without_retries_but_not_for_ever() {
        let budget = Budget::default();
        let mut tries = Tries::new(0);
        let again = (0..10)
            .filter(|_| tries.again(Lost::Unsent, &budget))
            .count();
        assert_eq!(again, 3);
    }

    #[test]
    fn when_everything_fails_attempts_stay_below_one_and_a_fifth_of_requests() {
        let budget = Budget::default();
        let retries = (0..10_000)
            .filter(|_| {
                budget.earn();
                Tries::new(1).again(Lost::NotConnected, &budget)
            })
            .count();
        assert!(retries <= 2_020, "{retries}");
        assert!(retries >= 2_000, "{retries}");
    }

    #[test]
    fn savings_are_bounded() {
        let budget = Budget::default();
        (0..100_000).for_each(|_| budget.earn());
        let retries = (0..1_000)
            .filter(|_| Tries::new(1).again(Lost::Refused, &budget))
            .count();
        assert_eq!(retries, 100);
    }

    #[test]
    fn post_and_patch_are_not_idempotent() {
        assert!(is_idempotent(&Method::GET));
        assert!(is_idempotent(&Method::DELETE));
        assert!(!is_idempotent(&Method::POST));
        assert!(!is_idempotent(&Method::PATCH));
        assert!(!is_idempotent(&Method::CONNECT));
    }
}
