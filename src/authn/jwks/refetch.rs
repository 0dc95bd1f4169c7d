//! What an unknown `kid` may cause. Pure: time comes in as a parameter.
//!
//! Whoever can send a request can invent a `kid`. So unknown ones cause at most one fetch per [`REFILL`] and issuer, wait
//! for a fetch that is under way, and are otherwise answered from what is known. An issuer that changes its keys several
//! times in a row may be asked up to [`BURST`] times: what was saved up is lost with the first fetch that brings nothing
//! new, so that invented names cannot spend it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The answer to an unknown `kid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Start a fetch, and wait for it.
    Fetch,
    /// Wait for the fetch that is about to begin.
    Join,
    /// Wait for the fetch that is under way, which began before this question: its answer may be older than the key.
    Await,
    /// The issuer has no such key: it was asked a moment ago.
    Absent,
    /// The issuer was asked a moment ago and did not answer.
    Failing,
}

/// The state machine of one issuer: idle, wanted, running; and idle again, with an outcome.
#[derive(Debug)]
pub struct Refetch {
    phase: Phase,
    tokens: u32,
    refilled: Instant,
    failing: bool,
    /// Whether the fetch that is wanted or running was caused by an unknown `kid`.
    asked_for: bool,
    absent: VecDeque<(u64, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Wanted,
    Running,
}

/// One fetch for an unknown `kid` in this time.
pub const REFILL: Duration = Duration::from_secs(10);

/// How many may be saved up.
pub const BURST: u32 = 3;

/// How long a `kid` that the issuer did not know is taken as unknown.
const ABSENT_FOR: Duration = Duration::from_secs(30);

/// How many of those are remembered; the oldest is forgotten first.
const MOST_ABSENT: usize = 256;

impl Refetch {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Idle,
            tokens: BURST,
            refilled: now,
            failing: false,
            asked_for: false,
            absent: VecDeque::new(),
        }
    }

    /// Judges an unknown `kid`, by its hash.
    pub fn ask(&mut self, kid: u64, now: Instant) -> Ask {
        if self.is_absent(kid, now) {
            return Ask::Absent;
        }
        match self.phase {
            Phase::Idle => {}
            Phase::Wanted => return Ask::Join,
            Phase::Running => return Ask::Await,
        }
        if self.take(now) {
            self.phase = Phase::Wanted;
            self.asked_for = true;
            return Ask::Fetch;
        }
        if self.failing {
            Ask::Failing
        } else {
            Ask::Absent
        }
    }

    /// A fetch begins, for whatever reason.
    pub fn started(&mut self) {
        self.phase = Phase::Running;
    }

    /// The fetch ended. `good`: with a set; `news`: with a key that was not known before.
    pub fn finished(&mut self, good: bool, news: bool, now: Instant) {
        self.phase = Phase::Idle;
        self.failing = !good;
        if self.asked_for && !news {
            self.tokens = 0;
            self.refilled = now;
        }
        self.asked_for = false;
    }

    /// The set that has just been fetched does not hold `kid` either.
    pub fn remember_absent(&mut self, kid: u64, now: Instant) {
        if self.is_absent(kid, now) {
            return;
        }
        if self.absent.len() == MOST_ABSENT {
            self.absent.pop_front();
        }
        self.absent.push_back((kid, now + ABSENT_FOR));
    }

    fn is_absent(&mut self, kid: u64, now: Instant) -> bool {
        while self.absent.front().is_some_and(|(_, until)| *until <= now) {
            self.absent.pop_front();
        }
        self.absent.iter().any(|(known, _)| *known == kid)
    }

    fn take(&mut self, now: Instant) -> bool {
        while self.tokens < BURST && now.saturating_duration_since(self.refilled) >= REFILL {
            self.tokens += 1;
            self.refilled += REFILL;
        }
        if self.tokens == BURST {
            self.refilled = now;
        }
        let some = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn run(refetch: &mut Refetch, good: bool, now: Instant) {
        refetch.started();
        refetch.finished(good, false, now);
    }

    #[test]
    fn the_first_unknown_kid_causes_a_fetch_and_the_others_wait_for_it() {
        let now = clock::now();
        let mut refetch = Refetch::new(now);
        assert_eq!(refetch.ask(1, now), Ask::Fetch);
        assert_eq!(refetch.ask(2, now), Ask::Join, "wanted");
        refetch.started();
        assert_eq!(refetch.ask(1, now), Ask::Await, "running");
    }

    #[test]
    fn five_thousand_random_kids_in_ten_seconds_cause_two_fetches() {
        let start = clock::now();
        let mut refetch = Refetch::new(start);
        let mut fetches = 0;
        for kid in 0..5_000 {
            let now = start + Duration::from_millis(2 * kid);
            match refetch.ask(kid, now) {
                Ask::Fetch => {
                    fetches += 1;
                    run(&mut refetch, true, now);
                    refetch.remember_absent(kid, now);
                }
                Ask::Absent => {}
                other => panic!("{other:?} for {kid}"),
            }
        }
        assert!(fetches <= 2, "{fetches}");
    }

    #[test]
    fn fetches_that_bring_nothing_new_are_ten_seconds_apart() {
        let start = clock::now();
        let mut refetch = Refetch::new(start);
        for (kid, (second, expected)) in (1..).zip([
            (0, Ask::Fetch),
            (9, Ask::Absent),
            (10, Ask::Fetch),
            (11, Ask::Absent),
            (100, Ask::Fetch),
            (101, Ask::Absent),
            (109, Ask::Absent),
            (110, Ask::Fetch),
        ]) {
            let now = start + seconds(second);
            let answer = refetch.ask(kid, now);
            assert_eq!(answer, expected, "at {second} s");
            if answer == Ask::Fetch {
                run(&mut refetch, true, now);
            }
        }
    }

    #[test]
    fn an_issuer_that_changes_its_keys_again_and_again_is_followed_three_times() {
        let start = clock::now();
        let mut refetch = Refetch::new(start);
        for kid in 1..=3 {
            assert_eq!(refetch.ask(kid, start), Ask::Fetch, "{kid}");
            refetch.started();
            refetch.finished(true, true, start);
        }
        assert_eq!(refetch.ask(4, start), Ask::Absent);
        assert_eq!(refetch.ask(4, start + REFILL), Ask::Fetch);
    }

    #[test]
    fn a_failed_fetch_leaves_the_machine_ready_for_the_next() {
        let start = clock::now();
        let mut refetch = Refetch::new(start);
        assert_eq!(refetch.ask(1, start), Ask::Fetch);
        run(&mut refetch, false, start);
        assert_eq!(refetch.ask(1, start), Ask::Failing, "503, not 401");
        assert_eq!(refetch.ask(2, start), Ask::Failing);
        assert_eq!(refetch.ask(1, start + REFILL), Ask::Fetch);
        run(&mut refetch, true, start + REFILL);
        assert_eq!(refetch.ask(1, start + REFILL), Ask::Absent);
    }

    #[test]
    fn a_scheduled_fetch_is_joined_and_costs_nothing() {
        let now = clock::now();
        let mut refetch = Refetch::new(now);
        refetch.started();
        assert_eq!(refetch.ask(1, now), Ask::Await);
        refetch.finished(true, false, now);
        assert_eq!(refetch.ask(1, now), Ask::Fetch);
    }

    #[test]
    fn an_absent_kid_causes_no_fetch_until_it_is_forgotten() {
        let start = clock::now();
        let mut refetch = Refetch::new(start);
        refetch.remember_absent(7, start);
        assert_eq!(refetch.ask(7, start + seconds(29)), Ask::Absent);
        assert_eq!(refetch.ask(7, start + ABSENT_FOR), Ask::Fetch);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let now = clock::now();
        let mut refetch = Refetch::new(now);
        for kid in 0..10_000 {
            refetch.remember_absent(kid, now);
        }
        assert_eq!(refetch.absent.len(), MOST_ABSENT);
    }
}
