//! When an endpoint is put aside because of how it behaves, and when it is tried again. Pure: time comes in.

use std::time::{Duration, Instant};

/// Failures in a row that put an endpoint aside.
const PATIENCE: u32 = 5;
/// The first time aside, and every time for an endpoint that cannot be connected to: trying that again is cheap.
const FIRST: Duration = Duration::from_secs(1);
/// The longest time aside.
const LONGEST: Duration = Duration::from_secs(30);
/// Between requests that try whether an endpoint can be connected to again. One that is silent is only tried again
/// when the last trial has had as long as the endpoint was put aside for: a trial may cost a whole timeout.
const BETWEEN_TRIALS: Duration = Duration::from_millis(250);

/// What an endpoint did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misconduct {
    /// It could not be connected to.
    Unreachable,
    /// It was connected to and did not answer.
    Silent,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Use it.
    In,
    /// Send it one request to see whether it is back.
    Trial,
    /// Leave it alone.
    Aside(Misconduct),
}

/// The record of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Record {
    streak: u32,
    doublings: u32,
    aside: Option<Aside>,
}

#[derive(Debug)]
struct Aside {
    why: Misconduct,
    length: Duration,
    until: Instant,
    next_trial: Instant,
}

impl Record {
    /// It answered: everything is forgiven.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// It can be connected to: what it was put aside for no longer holds if that was all.
    pub(super) fn reachable(&mut self) {
        if self
            .aside
            .as_ref()
            .is_some_and(|aside| aside.why == Misconduct::Unreachable)
        {
            self.answered();
        }
    }

    /// It failed; true if it is put aside for that.
    pub(super) fn failed(&mut self, why: Misconduct, now: Instant) -> bool {
        match &self.aside {
            // Sent before it was put aside: nothing new.
            Some(aside) if now < aside.until => return false,
            Some(_) => {}
            None => {
                self.streak += 1;
                if self.streak < PATIENCE {
                    return false;
                }
            }
        }
        let length = match why {
            Misconduct::Unreachable => FIRST,
            Misconduct::Silent => (FIRST * (1 << self.doublings.min(5))).min(LONGEST),
        };
        if why == Misconduct::Silent {
            self.doublings = self.doublings.saturating_add(1);
        }
        let until = now + length;
        self.aside = Some(Aside {
            why,
            length,
            until,
            next_trial: until,
        });
        true
    }

    /// What to do with the next request.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        match &self.aside {
            None => Verdict::In,
            Some(aside) if now >= aside.next_trial => Verdict::Trial,
            Some(aside) => Verdict::Aside(aside.why),
        }
    }

    /// A request was sent on trial; the next one waits.
    pub(super) fn on_trial(&mut self, now: Instant) {
        if let Some(aside) = &mut self.aside {
            aside.next_trial = now
                + match aside.why {
                    Misconduct::Unreachable => BETWEEN_TRIALS,
                    Misconduct::Silent => aside.length,
                };
        }
    }

    /// Whether nothing speaks against the endpoint.
    pub(super) fn is_clean(&self) -> bool {
        self.streak == 0 && self.aside.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn put_aside(why: Misconduct, now: Instant) -> Record {
        let mut record = Record::default();
        for failure in 1..=PATIENCE {
            assert_eq!(record.failed(why, now), failure == PATIENCE);
        }
        record
    }

    #[test]
    fn five_failures_in_a_row_put_aside() {
        let now = clock::now();
        let record = put_aside(Misconduct::Silent, now);
        assert_eq!(record.verdict(now), Verdict::Aside(Misconduct::Silent));
    }

    #[test]
    fn an_answer_in_between_starts_the_count_anew() {
        let now = clock::now();
        let mut record = Record::default();
        for _ in 0..4 {
            record.failed(Misconduct::Silent, now);
        }
        record.answered();
        assert!(record.is_clean());
        assert!(!record.failed(Misconduct::Silent, now));
        assert_eq!(record.verdict(now), Verdict::In);
    }

    #[test]
    fn one_trial_at_a_time_after_a_second() {
        let now = clock::now();
        let mut record = put_aside(Misconduct::Unreachable, now);
        let back = now + SECOND;
        assert_eq!(record.verdict(back), Verdict::Trial);
        record.on_trial(back);
        assert_eq!(
            record.verdict(back),
            Verdict::Aside(Misconduct::Unreachable)
        );
        assert_eq!(record.verdict(back + BETWEEN_TRIALS), Verdict::Trial);
    }

    #[test]
    fn silence_doubles_up_to_thirty_seconds() {
        let mut now = clock::now();
        let mut record = put_aside(Misconduct::Silent, now);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let back = now + SECOND * seconds;
            assert_ne!(
                record.verdict(back - Duration::from_millis(1)),
                Verdict::Trial
            );
            assert_eq!(record.verdict(back), Verdict::Trial, "{seconds}");
            now = back;
            assert!(record.failed(Misconduct::Silent, now));
        }
    }

    #[test]
    fn a_dead_endpoint_is_tried_every_second_so_that_it_is_back_soon() {
        let mut now = clock::now();
        let mut record = put_aside(Misconduct::Unreachable, now);
        for _ in 0..40 {
            now += SECOND;
            assert_eq!(record.verdict(now), Verdict::Trial);
            assert!(record.failed(Misconduct::Unreachable, now));
        }
    }

    #[test]
    fn trials_of_a_silent_endpoint_do_not_pile_up() {
        let mut now = clock::now();
        let mut record = put_aside(Misconduct::Silent, now);
        for _ in 0..3 {
            now += SECOND * 8;
            record.failed(Misconduct::Silent, now);
        }
        now += SECOND * 8;
        record.on_trial(now);
        assert_ne!(
            record.verdict(now + SECOND * 8 - BETWEEN_TRIALS),
            Verdict::Trial
        );
        assert_eq!(record.verdict(now + SECOND * 8), Verdict::Trial);
    }

    #[test]
    fn stragglers_do_not_prolong_the_time_aside() {
        let now = clock::now();
        let mut record = put_aside(Misconduct::Silent, now);
        assert!(!record.failed(Misconduct::Silent, now + SECOND / 2));
        assert_eq!(record.verdict(now + SECOND), Verdict::Trial);
    }

    #[test]
    fn a_health_check_readmits_what_was_unreachable_but_not_what_was_silent() {
        let now = clock::now();
        let mut record = put_aside(Misconduct::Unreachable, now);
        record.reachable();
        assert_eq!(record.verdict(now), Verdict::In);
        let mut record = put_aside(Misconduct::Silent, now);
        record.reachable();
        assert_eq!(record.verdict(now), Verdict::Aside(Misconduct::Silent));
    }
}
