//! The key set in force of one issuer, shared by all workers, and the way an unknown `kid` asks for a newer one.
//!
//! Readers take no lock. One task fetches ([`crate::authn::Issuer::keep_fresh`]); requests only ask it to, so that
//! there is never more than one fetch under way.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwapOption, Guard};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::fetch::Fetched;
use super::plan::Plan;
use super::refetch::{Ask, Refetch};
use super::set::KeySet;
use super::shelf::Kept;
use crate::config::Algorithm;
use crate::types::clock;

/// The keys of one issuer over time.
pub struct Store {
    current: ArcSwapOption<Loaded>,
    ledger: Mutex<Ledger>,
    wake: Arc<Notify>,
    finished: watch::Sender<Finished>,
    waiting: AtomicUsize,
    stale_max: Duration,
    hasher: foldhash::fast::RandomState,
    fetches_ok: AtomicU64,
    fetches_failed: AtomicU64,
    last_error: ArcSwapOption<String>,
    /// Whether the set in force was fetched by this process.
    is_own: AtomicBool,
}

/// A key set that was fetched.
#[derive(Debug)]
pub struct Loaded {
    /// The keys.
    pub set: KeySet,
    /// The bytes that they were read from.
    pub raw: Bytes,
    /// Rises whenever a key has left the set; what was verified under an older one must be verified anew.
    pub generation: u64,
    /// When it was fetched, or last said to be the one still.
    pub at: Instant,
    /// When its lifetime ends; it is used beyond that only while it cannot be fetched anew.
    pub fresh_until: Instant,
}

#[derive(Debug)]
struct Ledger {
    plan: Plan,
    refetch: Refetch,
}

/// How many fetches have ended, and how the last one did.
#[derive(Clone, Copy, Debug, Default)]
struct Finished {
    count: u64,
    good: bool,
}

/// The state of an issuer's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No set has arrived yet.
    NeverLoaded,
    /// The set is in use, and the last fetch went well.
    Fresh,
    /// The set is in use; the issuer cannot be asked, or has not been asked since the start.
    Stale,
    /// The set is older than `stale_max`: no longer in use.
    Expired,
}

impl State {
    /// For operators.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverLoaded => "never_loaded",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
        }
    }
}

/// What came of asking for an unknown `kid`.
#[derive(Debug)]
pub enum Answer {
    /// A set that was fetched after the question.
    Newer(Arc<Loaded>),
    /// The issuer has no such key.
    Absent,
    /// The issuer cannot be asked.
    Unavailable,
}

/// What came of one question.
enum Next {
    /// A set whose fetch began after the question.
    Newer(Arc<Loaded>),
    /// A set whose fetch had begun before.
    Begun(Arc<Loaded>),
    Absent,
    Unavailable,
}

impl From<Next> for Answer {
    fn from(next: Next) -> Self {
        match next {
            Next::Newer(loaded) | Next::Begun(loaded) => Self::Newer(loaded),
            Next::Absent => Self::Absent,
            Next::Unavailable => Self::Unavailable,
        }
    }
}

/// Longest time a request waits for fetches.
pub const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Most requests that wait for a fetch of one issuer; further ones are answered at once.
const MOST_WAITING: usize = 512;

impl Store {
    /// Empty; the first fetch is due at once.
    #[must_use]
    pub fn new(refresh: Duration, stale_max: Duration, now: Instant) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            ledger: Mutex::new(Ledger {
                plan: Plan::new(refresh, now),
                refetch: Refetch::new(now),
            }),
            wake: Arc::new(Notify::new()),
            finished: watch::Sender::new(Finished::default()),
            waiting: AtomicUsize::new(0),
            // A set that is still within its lifetime is not stale yet.
            stale_max: stale_max.max(refresh),
            hasher: foldhash::fast::RandomState::default(),
            fetches_ok: AtomicU64::new(0),
            fetches_failed: AtomicU64::new(0),
            last_error: ArcSwapOption::empty(),
            is_own: AtomicBool::new(false),
        }
    }

    /// The set in force at `now`; `None` when there is none, or it is older than `stale_max`.
    #[must_use]
    pub fn current(&self, now: Instant) -> Option<Guard<Option<Arc<Loaded>>>> {
        let guard = self.current.load();
        let usable = guard
            .as_ref()
            .is_some_and(|loaded| now.saturating_duration_since(loaded.at) <= self.stale_max);
        usable.then_some(guard)
    }

    /// The state at `now`.
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        if self.current.load().is_none() {
            State::NeverLoaded
        } else if self.current(now).is_none() {
            State::Expired
        } else if self.last_error.load().is_some() || !self.is_own.load(Ordering::Relaxed) {
            State::Stale
        } else {
            State::Fresh
        }
    }

    /// Whether the set in force has outlived its lifetime at `now`, or there is none.
    #[must_use]
    pub fn is_outlived(&self, now: Instant) -> bool {
        let guard = self.current.load();
        guard.as_ref().is_none_or(|loaded| now > loaded.fresh_until)
    }

    /// Asks for a set newer than one that does not hold `kid`. Waits for [`LONGEST_WAIT`] at most, and for one fetch;
    /// for another one where the first had begun before the question and does not bring the key either: what it brings
    /// may be older than the key.
    pub async fn newer(&self, kid: &str, now: Instant) -> Answer {
        let until = now + LONGEST_WAIT;
        match self.next(kid, now, until).await {
            Next::Begun(loaded) if !loaded.set.names(kid) => {
                self.next(kid, clock::now(), until).await.into()
            }
            next => next.into(),
        }
    }

    async fn next(&self, kid: &str, now: Instant, until: Instant) -> Next {
        let kid = self.hasher.hash_one(kid);
        let mut finished;
        let asked;
        {
            // Subscribed under the lock: a fetch that ends after the question is not missed.
            let mut ledger = self.ledger.lock();
            finished = self.finished.subscribe();
            asked = ledger.refetch.ask(kid, now);
            match asked {
                Ask::Absent => return Next::Absent,
                Ask::Failing => return Next::Unavailable,
                Ask::Fetch => self.wake.notify_one(),
                Ask::Join | Ask::Await => {}
            }
        }
        let Some(_place) = Place::take(&self.waiting) else {
            return Next::Unavailable;
        };
        let before = finished.borrow().count;
        let end = finished.wait_for(|finished| finished.count > before);
        match tokio::time::timeout_at(until.into(), end).await {
            Ok(Ok(end)) if end.good => {}
            _ => return Next::Unavailable,
        }
        match self.current.load_full() {
            Some(loaded) if asked == Ask::Await => Next::Begun(loaded),
            Some(loaded) => Next::Newer(loaded),
            None => Next::Unavailable,
        }
    }

    /// The newer set does not hold `kid` either.
    pub fn remember_absent(&self, kid: &str, now: Instant) {
        let kid = self.hasher.hash_one(kid);
        self.ledger.lock().refetch.remember_absent(kid, now);
    }

    /// A fetch begins.
    pub fn started(&self) {
        self.ledger.lock().refetch.started();
    }

    /// Takes the set in force over from `earlier`, read anew: `allowed` may have changed. Returns whether there was one.
    pub fn adopt(&self, earlier: &Self, allowed: &[Algorithm]) -> bool {
        let Some(loaded) = earlier.current.load_full() else {
            return false;
        };
        let Ok(mut set) = KeySet::parse(&loaded.raw, allowed) else {
            return false;
        };
        set.follow(&loaded.set);
        self.current.store(Some(Arc::new(Loaded {
            set,
            raw: loaded.raw.clone(),
            generation: loaded.generation,
            at: loaded.at,
            fresh_until: loaded.fresh_until,
        })));
        let is_own = earlier.is_own.load(Ordering::Relaxed);
        self.is_own.store(is_own, Ordering::Relaxed);
        self.ledger.lock().plan.restored();
        true
    }

    /// Takes over a set that an earlier process fetched. It counts as outlived until this one has asked the issuer.
    pub fn restore(&self, kept: Kept, now: Instant) {
        let Some(at) = now.checked_sub(kept.age) else {
            return;
        };
        self.current.store(Some(Arc::new(Loaded {
            set: kept.set,
            raw: kept.raw,
            generation: 0,
            at,
            fresh_until: at,
        })));
        self.ledger.lock().plan.restored();
    }

    /// A fetch brought a set. Returns whether a key has left the one that was in force.
    pub fn install(&self, fetched: Fetched, now: Instant) -> bool {
        let before = self.current.load_full();
        let lost_a_key = before
            .as_ref()
            .is_some_and(|before| !before.set.is_kept_by(&fetched.set));
        let has_news = before
            .as_ref()
            .is_none_or(|before| !fetched.set.is_kept_by(&before.set));
        let generation = before.map_or(0, |before| before.generation) + u64::from(lost_a_key);
        let chance = self.chance();
        let mut ledger = self.ledger.lock();
        let fresh_until = ledger.plan.succeeded(fetched.stated, now, chance);
        self.current.store(Some(Arc::new(Loaded {
            set: fetched.set,
            raw: fetched.raw,
            generation,
            at: now,
            fresh_until,
        })));
        self.went_well();
        self.finish(&mut ledger, true, has_news, now);
        lost_a_key
    }

    /// A fetch brought the word that the set in force is still the one.
    pub fn confirm(&self, stated: Option<Duration>, now: Instant) {
        let chance = self.chance();
        let mut ledger = self.ledger.lock();
        let fresh_until = ledger.plan.succeeded(stated, now, chance);
        if let Some(loaded) = self.current.load_full() {
            self.current.store(Some(Arc::new(Loaded {
                set: loaded.set.clone(),
                raw: loaded.raw.clone(),
                generation: loaded.generation,
                at: now,
                fresh_until,
            })));
        }
        self.went_well();
        self.finish(&mut ledger, true, false, now);
    }

    fn went_well(&self) {
        self.last_error.store(None);
        self.is_own.store(true, Ordering::Relaxed);
        self.fetches_ok.fetch_add(1, Ordering::Relaxed);
    }

    /// A fetch brought nothing; the set in force stays.
    pub fn note_failure(&self, why: String, now: Instant) {
        self.last_error.store(Some(Arc::new(why)));
        self.fetches_failed.fetch_add(1, Ordering::Relaxed);
        let chance = self.chance();
        let mut ledger = self.ledger.lock();
        ledger.plan.failed(now, chance);
        self.finish(&mut ledger, false, false, now);
    }

    /// When the next fetch is due.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.ledger.lock().plan.due()
    }

    /// What wakes the fetching task before that.
    #[must_use]
    pub fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// How many keys are in force at `now`.
    #[must_use]
    pub fn keys(&self, now: Instant) -> usize {
        let current = self.current(now);
        let current = current.as_ref().and_then(|guard| guard.as_ref());
        current.map_or(0, |loaded| loaded.set.keys().len())
    }

    /// How old the set in force is.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let guard = self.current.load();
        let loaded = guard.as_ref()?;
        Some(now.saturating_duration_since(loaded.at))
    }

    /// Fetches that brought a set, since the start.
    #[must_use]
    pub fn fetches_ok(&self) -> u64 {
        self.fetches_ok.load(Ordering::Relaxed)
    }

    /// Fetches that did not, since the start.
    #[must_use]
    pub fn fetches_failed(&self) -> u64 {
        self.fetches_failed.load(Ordering::Relaxed)
    }

    /// Why the last fetch brought nothing; `None` when it went well.
    #[must_use]
    pub fn last_error(&self) -> Option<Arc<String>> {
        self.last_error.load_full()
    }

    fn finish(&self, ledger: &mut Ledger, good: bool, has_news: bool, now: Instant) {
        ledger.refetch.finished(good, has_news, now);
        self.finished.send_modify(|finished| {
            finished.count += 1;
            finished.good = good;
        });
    }

    /// Enough chance to spread refreshes; nothing secret hangs on it.
    fn chance(&self) -> u64 {
        self.hasher
            .hash_one(self.fetches_ok().wrapping_add(self.fetches_failed() << 32))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

/// A place among those who wait.
struct Place<'s>(&'s AtomicUsize);

impl<'s> Place<'s> {
    fn take(waiting: &'s AtomicUsize) -> Option<Self> {
        if waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING {
            return Some(Self(waiting));
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
