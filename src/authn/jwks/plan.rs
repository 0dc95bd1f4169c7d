//! When a key set is fetched anew. Pure: time and chance come in as parameters.

use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL};

/// The plan of one issuer: refreshed before the set grows old, retried ever more slowly while the issuer fails.
#[derive(Debug)]
pub struct Plan {
    refresh: Duration,
    due: Instant,
    failures: u32,
    loaded: bool,
}

/// The shortest lifetime that an issuer may state; `refresh_max` is the longest.
pub const SHORTEST_LIFETIME: Duration = Duration::from_secs(30);

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
    ///
    /// Returns when the lifetime ends.
    pub fn succeeded(&mut self, stated: Option<Duration>, now: Instant, chance: u64) -> Instant {
        self.failures = 0;
        self.loaded = true;
        let lifetime = stated.unwrap_or(self.refresh);
        self.due = now + less(lifetime * 4 / 5, 8, chance);
        now + lifetime
    }

    /// A set was taken over from before; how old it is does not matter, the next fetch is due at once.
    pub fn restored(&mut self) {
        self.loaded = true;
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

/// The lifetime that `Cache-Control` states, less what a cache on the way has used up of it, brought within
/// [`SHORTEST_LIFETIME`] and `longest`. `no-store` and `no-cache` mean the shortest.
#[must_use]
pub fn stated_lifetime(headers: &HeaderMap, longest: Duration) -> Option<Duration> {
    let mut stated = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().unwrap_or("").split(',') {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" => return Some(SHORTEST_LIFETIME.min(longest)),
                "max-age" => {
                    let seconds = argument.trim().trim_matches('"').parse().ok();
                    stated = stated.or(seconds.map(Duration::from_secs));
                }
                _ => {}
            }
        }
    }
    let age = headers
        .get(AGE)
        .and_then(|age| age.to_str().ok()?.parse().ok());
    let age = Duration::from_secs(age.unwrap_or(0));
    stated.map(|lifetime| {
        let left = lifetime.saturating_sub(age);
        left.max(SHORTEST_LIFETIME).min(longest)
    })
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
        const HOUR: Duration = Duration::from_secs(3_600);
        let check = |value: &str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.parse().unwrap());
            let expected = expected.map(Duration::from_secs);
            assert_eq!(stated_lifetime(&headers, HOUR), expected, "{value}");
        };
        check("max-age=120", Some(120));
        check("public, Max-Age=120, must-revalidate", Some(120));
        check("max-age=0", Some(30));
        check("max-age=29", Some(30));
        check("max-age=3600", Some(3_600));
        check("max-age=86400", Some(3_600));
        check("no-store", Some(30));
        check("max-age=300, no-cache", Some(30));
        check("max-age=soon", None);
        check("max-age=99999999999999999999", None);
        check("private", None);
        assert_eq!(stated_lifetime(&HeaderMap::new(), HOUR), None);
    }

    #[test]
    fn the_operators_bound_comes_last_and_a_caches_age_is_counted() {
        let stated = |cache_control: &str, age: Option<&str>, longest: u64| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, cache_control.parse().unwrap());
            headers.extend(age.map(|age| (AGE, age.parse().unwrap())));
            stated_lifetime(&headers, Duration::from_secs(longest)).unwrap()
        };
        let seconds = Duration::from_secs;
        assert_eq!(stated("max-age=3600", None, 300), seconds(300));
        assert_eq!(stated("max-age=3600", Some("3000"), 3_600), seconds(600));
        assert_eq!(stated("max-age=3600", Some("9000"), 3_600), seconds(30));
        assert_eq!(stated("max-age=3600", Some("old"), 3_600), seconds(3_600));
    }
}
