//! When a key set is fetched anew. Pure: time and chance come in as parameters.

use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::CACHE_CONTROL;

/// The plan of one issuer: refreshed before the set grows old, retried ever more slowly while the issuer fails.
#[derive(Debug)]
pub struct Plan {
    refresh: Duration,
    due: Instant,
    failures: u32,
    loaded: bool,
}

/// The issuer's word about the lifetime of its key set counts within these bounds.
const LIFETIME: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));

/// Longest pause between tries while a set is in use.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The same while none was ever loaded: requests are refused meanwhile, and end when the issuer comes up.
const LONGEST_PAUSE_AT_START: Duration = Duration::from_millis(1_500);

impl Plan {
    /// Due at once. `refresh` is the lifetime of a set whose issuer does not state one.
    #[must_use]
    pub fn new(refresh: Duration, now: Instant) -> Self {
        Self {
            refresh,
            due: now,
            failures: 0,
            loaded: false,
        }
    }

    /// When the next fetch is due.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// A set arrived; `stated` is what [`stated_lifetime`] read. Due again after 70 to 80 % of the lifetime, so that
    /// many gateways do not ask at the same moment.
    pub fn succeeded(&mut self, stated: Option<Duration>, now: Instant, chance: u64) {
        self.failures = 0;
        self.loaded = true;
        let lifetime = stated.unwrap_or(self.refresh);
        self.due = now + less(lifetime * 4 / 5, 8, chance);
    }

    /// No set arrived. Pauses 1, 2, 4, … 60 s, each up to a quarter shorter.
    pub fn failed(&mut self, now: Instant, chance: u64) {
        let doubled = Duration::from_secs(1) * 2u32.saturating_pow(self.failures.min(6));
        let longest = if self.loaded {
            LONGEST_PAUSE
        } else {
            LONGEST_PAUSE_AT_START
        };
        self.failures = self.failures.saturating_add(1);
        self.due = now + less(doubled.min(longest), 4, chance);
    }
}

/// `span`, shortened by up to one part of `parts`.
fn less(span: Duration, parts: u32, chance: u64) -> Duration {
    let off = span / parts;
    let steps = u32::try_from(chance % 1_000).unwrap_or(0);
    span - off * steps / 1_000
}

/// The lifetime that `Cache-Control` states, brought within bounds. `no-store` and `no-cache` mean the shortest.
#[must_use]
pub fn stated_lifetime(headers: &HeaderMap) -> Option<Duration> {
    let mut stated = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().unwrap_or("").split(',') {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" => return Some(LIFETIME.0),
                "max-age" => {
                    let seconds = argument.trim().trim_matches('"').parse().ok();
                    stated = stated.or(seconds.map(Duration::from_secs));
                }
                _ => {}
            }
        }
    }
    stated.map(|lifetime| lifetime.clamp(LIFETIME.0, LIFETIME.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock;

    const NONE: u64 = 0;
    const MOST: u64 = 999;

    fn pause_after(failures: u32, loaded: bool, chance: u64) -> Duration {
        let now = clock::now();
        let mut plan = Plan::new(Duration::from_secs(300), now);
        if loaded {
            plan.succeeded(None, now, NONE);
        }
        for _ in 0..failures {
            plan.failed(now, chance);
        }
        plan.due() - now
    }

    #[test]
    fn the_first_fetch_is_due_at_once() {
        let now = clock::now();
        assert_eq!(Plan::new(Duration::from_secs(300), now).due(), now);
    }

    #[test]
    fn a_set_is_fetched_anew_before_its_lifetime_ends() {
        let now = clock::now();
        let mut plan = Plan::new(Duration::from_secs(300), now);
        plan.succeeded(None, now, NONE);
        assert_eq!(plan.due() - now, Duration::from_secs(240));
        plan.succeeded(Some(Duration::from_secs(100)), now, NONE);
        assert_eq!(plan.due() - now, Duration::from_secs(80));
        plan.succeeded(Some(Duration::from_secs(100)), now, MOST);
        assert!(plan.due() - now >= Duration::from_secs(70));
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        for (failures, seconds) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1_000, 60)] {
            let pause = pause_after(failures, true, NONE);
            assert_eq!(pause, Duration::from_secs(seconds), "{failures}");
            let shortest = pause_after(failures, true, MOST);
            assert!(
                shortest < pause && shortest >= pause * 3 / 4,
                "{shortest:?}"
            );
        }
    }

    #[test]
    fn an_issuer_that_was_never_reached_is_asked_often() {
        assert_eq!(pause_after(20, false, NONE), LONGEST_PAUSE_AT_START);
    }

    #[test]
    fn a_success_forgets_the_failures() {
        let now = clock::now();
        let mut plan = Plan::new(Duration::from_secs(300), now);
        plan.succeeded(None, now, NONE);
        for _ in 0..9 {
            plan.failed(now, NONE);
        }
        plan.succeeded(None, now, NONE);
        plan.failed(now, NONE);
        assert_eq!(plan.due() - now, Duration::from_secs(1));
    }

    #[test]
    fn the_issuers_word_counts_within_bounds() {
        let check = |value: &str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.parse().unwrap());
            let expected = expected.map(Duration::from_secs);
            assert_eq!(stated_lifetime(&headers), expected, "{value}");
        };
        check("max-age=120", Some(120));
        check("public, Max-Age=120, must-revalidate", Some(120));
        check("max-age=0", Some(30));
        check("max-age=86400", Some(300));
        check("no-store", Some(30));
        check("max-age=300, no-cache", Some(30));
        check("max-age=soon", None);
        check("max-age=99999999999999999999", None);
        check("private", None);
        assert_eq!(stated_lifetime(&HeaderMap::new()), None);
    }
}
