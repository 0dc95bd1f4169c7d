//! Keeps watch over credentials while streams that they opened go on: such a stream ends with the credential, at its
//! `exp` or when it is revoked; with the first of them, where a request showed several.
//!
//! Only what lasts is registered here: a short request costs one look at a number. What was revoked between that look
//! and the registration is not missed, because the last revocations are remembered in their order.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant, SystemTime};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::cache::Fingerprint;
use super::revoke::{Ended, Revocation, unix};
use crate::types::principal::Mark;
use crate::types::{Principal, PrincipalFacts, clock};

/// Everybody who waits for a credential to end. One for the process: it outlives every reload.
#[derive(Debug, Default)]
pub struct Vigils {
    /// Revocations told of so far.
    told: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Under each name that the credential can be revoked by.
    watchers: HashMap<Fingerprint, Vec<Arc<Watcher>>, RandomState>,
    recent: VecDeque<Revocation>,
}

/// One stream that is watched over.
pub struct Vigil {
    vigils: Arc<Vigils>,
    watcher: Arc<Watcher>,
    ends: Option<SystemTime>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Ready when nobody vouches for the caller any more. The lock is never taken: it makes an exchange that holds a vigil
    /// fit to be shared.
    forsaken: Option<Mutex<Forsaken>>,
}

/// See [`Vigil::asking`].
pub type Forsaken = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Debug)]
struct Watcher {
    caller: Principal,
    revoked: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// How a credential ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// At its `exp`.
    Expired,
    /// Before.
    Revoked,
}

/// Revocations that are remembered for those who are about to register.
const MOST_RECENT: usize = 4_096;

/// Longest time without a look at the wall clock, which may be set.
const LOOK: Duration = Duration::from_secs(60);

impl Vigils {
    /// How many revocations there were. Asked before a credential is judged, and told to [`Vigils::keep`] afterwards.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// Watches over the credentials of `caller`, which were judged when `since` revocations had been told of. `None` for
    /// a caller of whose credentials nothing is known.
    #[must_use]
    pub fn keep(self: &Arc<Self>, caller: &Principal, since: u64) -> Option<Vigil> {
        marks(caller).next()?;
        let watcher = Arc::new(Watcher {
            caller: caller.clone(),
            revoked: AtomicBool::new(false),
            waker: Mutex::default(),
        });
        let mut kept = self.kept.lock();
        let count = self.told() - since;
        if marks(caller).any(|mark| kept.missed(mark, count)) {
            watcher.revoked.store(true, Ordering::Release);
        } else {
            for name in names(caller) {
                let watchers = kept.watchers.entry(name).or_default();
                watchers.push(Arc::clone(&watcher));
            }
        }
        drop(kept);
        let wall = clock::wall();
        let ends = caller.all_facts().filter_map(|facts| ends_at(facts, wall));
        Some(Vigil {
            vigils: Arc::clone(self),
            watcher,
            ends: ends.min(),
            timer: None,
            forsaken: None,
        })
    }

    /// Ends what `revocation` is about.
    pub(super) fn tell(&self, revocation: &Revocation) {
        let name = match revocation.what {
            Ended::Token(name)
            | Ended::Answer(name)
            | Ended::User(name, _)
            | Ended::Login(name, _)
            | Ended::UserWithoutLogin(name, _) => name,
        };
        let mut kept = self.kept.lock();
        if kept.recent.len() >= MOST_RECENT {
            kept.recent.pop_front();
        }
        kept.recent.push_back(revocation.clone());
        self.told.fetch_add(1, Ordering::AcqRel);
        let concerned = kept.watchers.get(&name).into_iter().flatten();
        let concerned: Vec<_> = concerned
            .filter(|one| one.is_ended_by(revocation))
            .cloned()
            .collect();
        drop(kept);
        for watcher in concerned {
            watcher.revoke();
        }
    }

    /// Streams that are watched over.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.kept.lock().watchers.values().map(Vec::len).sum()
    }
}

impl Kept {
    /// Whether one of the last `count` revocations ended the credential. More than are remembered count as one that did.
    fn missed(&self, mark: &Mark, count: u64) -> bool {
        let Ok(count) = usize::try_from(count) else {
            return true;
        };
        let mut missed = self.recent.iter().rev().take(count);
        count > self.recent.len() || missed.any(|revocation| ends(revocation, mark))
    }
}

impl Vigil {
    /// Ends as well when `forsaken` is ready: for credentials that may end without a word. It is not polled afterwards.
    #[must_use]
    pub fn asking(mut self, forsaken: Forsaken) -> Self {
        self.forsaken = Some(Mutex::new(forsaken));
        self
    }

    /// Ready when the credential has ended.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Lapse> {
        if self.watcher.is_revoked(cx) {
            return Poll::Ready(Lapse::Revoked);
        }
        if let Some(forsaken) = &mut self.forsaken
            && forsaken.get_mut().as_mut().poll(cx).is_ready()
        {
            self.forsaken = None;
            self.watcher.revoked.store(true, Ordering::Release);
            return Poll::Ready(Lapse::Revoked);
        }
        let Some(ends) = self.ends else {
            return Poll::Pending;
        };
        loop {
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(cx));
            }
            let Ok(left) = ends.duration_since(clock::wall()) else {
                return Poll::Ready(Lapse::Expired);
            };
            if left.is_zero() {
                return Poll::Ready(Lapse::Expired);
            }
            let at: Instant = clock::now() + left.min(LOOK);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(at.into()),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(at.into()))),
            }
        }
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        let mut kept = self.vigils.kept.lock();
        for name in names(&self.watcher.caller) {
            if let Some(watchers) = kept.watchers.get_mut(&name) {
                watchers.retain(|one| !Arc::ptr_eq(one, &self.watcher));
                if watchers.is_empty() {
                    kept.watchers.remove(&name);
                }
            }
        }
    }
}

impl Watcher {
    fn is_ended_by(&self, revocation: &Revocation) -> bool {
        marks(&self.caller).any(|mark| ends(revocation, mark))
    }

    fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The task of `cx` is woken when it becomes so.
    fn is_revoked(&self, cx: &Context<'_>) -> bool {
        {
            let mut waker = self.waker.lock();
            if !waker
                .as_ref()
                .is_some_and(|known| known.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
        }
        self.revoked.load(Ordering::Acquire)
    }
}

impl Lapse {
    /// The word in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Debug for Vigil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vigil")
            .field("watcher", &self.watcher)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// Whether `revocation` is about the credential.
fn ends(revocation: &Revocation, mark: &Mark) -> bool {
    if revocation.source != mark.keeper {
        return false;
    }
    let issued_before = |before| mark.issued < unix(before);
    match revocation.what {
        Ended::Token(name) | Ended::Answer(name) => name == mark.credential,
        Ended::User(user, before) => mark.user == Some(user) && issued_before(before),
        Ended::Login(login, before) => mark.login == Some(login) && issued_before(before),
        Ended::UserWithoutLogin(user, before) => {
            mark.login.is_none() && mark.user == Some(user) && issued_before(before)
        }
    }
}

/// `exp`. A stream that was opened in the time that is forgiven beyond it has until the end of that.
fn ends_at(facts: &PrincipalFacts, wall: SystemTime) -> Option<SystemTime> {
    let (exp, mark) = (facts.expires_at?, facts.mark.as_ref()?);
    if wall < exp {
        return Some(exp);
    }
    exp.checked_add(mark.leeway)
}

fn marks(caller: &Principal) -> impl Iterator<Item = &Mark> {
    caller.all_facts().filter_map(|facts| facts.mark.as_ref())
}

/// Each once: several credentials may be of one user.
fn names(caller: &Principal) -> BTreeSet<Fingerprint> {
    let each = marks(caller).flat_map(|mark| [Some(mark.credential), mark.user, mark.login]);
    each.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Fingerprint = [1; 32];
    const LOGIN: Fingerprint = [2; 32];
    const TOKEN: Fingerprint = [3; 32];

    fn moment(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn mark(keeper: &str, credential: Fingerprint, login: Option<Fingerprint>) -> Mark {
        Mark {
            keeper: keeper.into(),
            credential,
            user: Some(USER),
            login,
            issued: 100.0,
            leeway: Duration::from_secs(30),
        }
    }

    fn facts(mark: Mark, expires_at: Option<SystemTime>) -> Arc<PrincipalFacts> {
        Arc::new(PrincipalFacts {
            expires_at,
            mark: Some(mark),
            ..PrincipalFacts::default()
        })
    }

    fn known(facts: Arc<PrincipalFacts>) -> Principal {
        Principal {
            facts,
            ..Principal::anonymous()
        }
    }

    fn caller(login: Option<Fingerprint>, expires_at: Option<SystemTime>) -> Principal {
        known(facts(mark("main", TOKEN, login), expires_at))
    }

    fn revocation(source: &str, what: Ended) -> Revocation {
        Revocation {
            source: source.into(),
            what,
            until: moment(1_000),
        }
    }

    fn poll(vigil: &mut Vigil) -> Poll<Lapse> {
        vigil.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn only_what_names_the_credential_ends_it() {
        let (late, early) = (moment(101), moment(100));
        for (login, source, what, ended) in [
            (None, "main", Ended::Token(TOKEN), true),
            (None, "main", Ended::Answer(TOKEN), true),
            (None, "main", Ended::Token([9; 32]), false),
            (None, "other", Ended::Token(TOKEN), false),
            (None, "main", Ended::User(USER, late), true),
            (None, "main", Ended::User(USER, early), false),
            (None, "main", Ended::User([9; 32], late), false),
            (None, "main", Ended::Login(LOGIN, late), false),
            (Some(LOGIN), "main", Ended::Login(LOGIN, late), true),
            (Some(LOGIN), "main", Ended::Login(LOGIN, early), false),
            (None, "main", Ended::UserWithoutLogin(USER, late), true),
            (
                Some(LOGIN),
                "main",
                Ended::UserWithoutLogin(USER, late),
                false,
            ),
        ] {
            let expected = if ended {
                Poll::Ready(Lapse::Revoked)
            } else {
                Poll::Pending
            };
            let vigils = Arc::new(Vigils::default());
            let since = vigils.told();
            let mut earlier = vigils.keep(&caller(login, None), since).unwrap();
            assert_eq!(poll(&mut earlier), Poll::Pending);
            vigils.tell(&revocation(source, what));
            assert_eq!(poll(&mut earlier), expected, "{what:?}");
            // Revoked between the judgement and the registration.
            let mut later = vigils.keep(&caller(login, None), since).unwrap();
            assert_eq!(poll(&mut later), expected, "{what:?}");
            // Judged afterwards: what was revoked then is no longer of interest.
            let mut after = vigils.keep(&caller(login, None), vigils.told()).unwrap();
            assert_eq!(poll(&mut after), Poll::Pending);
            drop((earlier, later, after));
            assert_eq!(vigils.count(), 0);
        }
    }

    #[test]
    fn what_can_no_longer_be_told_counts_as_revoked() {
        let vigils = Arc::new(Vigils::default());
        for _ in 0..=MOST_RECENT {
            vigils.tell(&revocation("main", Ended::Token([9; 32])));
        }
        let mut vigil = vigils.keep(&caller(None, None), 0).unwrap();
        assert_eq!(poll(&mut vigil), Poll::Ready(Lapse::Revoked));
        let mut vigil = vigils.keep(&caller(None, None), 1).unwrap();
        assert_eq!(poll(&mut vigil), Poll::Pending);
    }

    #[test]
    fn a_credential_ends_at_exp_or_with_what_is_forgiven_beyond_it() {
        let facts = caller(None, Some(moment(200))).facts;
        assert_eq!(ends_at(&facts, moment(199)), Some(moment(200)));
        assert_eq!(ends_at(&facts, moment(201)), Some(moment(230)));
    }

    #[tokio::test]
    async fn the_end_wakes_who_waits_for_it() {
        let vigils = Arc::new(Vigils::default());
        let mut vigil = vigils.keep(&caller(None, None), 0).unwrap();
        let (lapse, ()) = tokio::join!(std::future::poll_fn(|cx| vigil.poll(cx)), async {
            vigils.tell(&revocation("main", Ended::Token(TOKEN)));
        });
        assert_eq!(lapse, Lapse::Revoked);
        let soon = clock::wall() + Duration::from_millis(20);
        let mut vigil = vigils.keep(&caller(None, Some(soon)), 1).unwrap();
        let lapse = std::future::poll_fn(|cx| vigil.poll(cx)).await;
        assert_eq!((lapse, clock::wall() >= soon), (Lapse::Expired, true));
    }

    /// A caller who had to show two credentials is known by both.
    #[tokio::test]
    async fn of_several_credentials_the_first_that_ends_ends_the_stream() {
        let both = |first_ends, other_ends| Principal {
            beside: Some(Arc::new(vec![facts(
                mark("web", [4; 32], None),
                other_ends,
            )])),
            ..caller(None, first_ends)
        };
        let vigils = Arc::new(Vigils::default());
        for (source, what) in [
            ("main", Ended::Token(TOKEN)),
            ("web", Ended::Answer([4; 32])),
            ("web", Ended::User(USER, moment(101))),
        ] {
            let since = vigils.told();
            let mut earlier = vigils.keep(&both(None, None), since).unwrap();
            assert_eq!(poll(&mut earlier), Poll::Pending);
            vigils.tell(&revocation(source, what));
            assert_eq!(poll(&mut earlier), Poll::Ready(Lapse::Revoked), "{what:?}");
            let mut later = vigils.keep(&both(None, None), since).unwrap();
            assert_eq!(poll(&mut later), Poll::Ready(Lapse::Revoked), "{what:?}");
        }
        assert_eq!(vigils.count(), 0);
        let (soon, late) = (
            clock::wall() + Duration::from_millis(20),
            clock::wall() + Duration::from_secs(3_600),
        );
        for caller in [both(Some(late), Some(soon)), both(Some(soon), Some(late))] {
            let mut vigil = vigils.keep(&caller, vigils.told()).unwrap();
            let lapse = std::future::poll_fn(|cx| vigil.poll(cx)).await;
            assert_eq!((lapse, clock::wall() >= soon), (Lapse::Expired, true));
        }
    }

    #[test]
    fn a_caller_for_whom_nobody_vouches_any_more_is_revoked_for_good() {
        let vigils = Arc::new(Vigils::default());
        let vigil = vigils.keep(&caller(None, None), 0).unwrap();
        let mut vigil = vigil.asking(Box::pin(std::future::ready(())));
        for _ in 0..2 {
            assert_eq!(poll(&mut vigil), Poll::Ready(Lapse::Revoked));
        }
        let vigil = vigils.keep(&caller(None, None), 0).unwrap();
        let mut vigil = vigil.asking(Box::pin(std::future::pending()));
        assert_eq!(poll(&mut vigil), Poll::Pending);
    }
}
