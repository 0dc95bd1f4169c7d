//! What backends and issuers said of credentials a moment ago.
//!
//! Their word is believed for a while, and asked for once however many requests wait for it. An eviction ends what was
//! asked before it: what is kept, what comes of a question under way, and for a request that came after the eviction
//! even the answer that others are still waiting for.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use serde_json::{Map, Value};

use super::cache::{Fingerprint, fingerprint, weight};
use crate::types::principal::Mark;
use crate::types::{PrincipalFacts, Reason};

/// The answers of one backend.
pub(super) struct Answers {
    good: moka::future::Cache<Fingerprint, Arc<Confirmed>, RandomState>,
    bad: moka::sync::Cache<Fingerprint, Reason, RandomState>,
    /// Credentials, users and logins of whom nothing counts that was asked before the eviction of this number.
    cuts: moka::sync::Cache<Fingerprint, u64, RandomState>,
    evictions: AtomicU64,
    tally: Tally,
}

/// A credential that was found good.
#[derive(Debug)]
pub(super) struct Confirmed {
    /// Whose it is.
    pub(super) facts: Arc<PrincipalFacts>,
    /// Under which names it can be evicted together with others.
    pub(super) owner: Owner,
    /// Length of the answer, from which the weight is estimated.
    length: usize,
    /// How long the answer may be believed.
    lasts: Duration,
    /// The number of the last eviction before the question was asked.
    asked_after: u64,
}

/// Why nobody was confirmed.
#[derive(Clone, Debug)]
pub(super) enum NoWord {
    /// The answer is no. The detail is for the log.
    Bad(Reason, Cow<'static, str>),
    /// There is no answer that could be understood.
    Unavailable(String),
}

/// What a question came to when nothing may be kept of it.
enum Unkept {
    /// The credential is good; but it was evicted meanwhile.
    Good(Arc<Confirmed>),
    No(NoWord),
}

/// How often what was said, since the start.
#[derive(Debug, Default)]
struct Tally {
    cached: AtomicU64,
    confirmed: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
}

/// Most memory for good answers, in bytes by estimate.
const MOST_BYTES: u64 = 32 * 1024 * 1024;

/// How many refusals and evictions are remembered.
const MOST_BAD: u64 = 4_096;
const MOST_CUTS: u64 = 65_536;

/// How often a request asks anew because what it got was evicted before it came.
const MOST_TRIES: u32 = 3;

impl Answers {
    /// Good answers are believed for `lasts` at most, bad ones for `bad_lasts`.
    pub(super) fn new(lasts: Duration, bad_lasts: Duration) -> Self {
        let hasher = RandomState::default;
        Self {
            good: moka::future::Cache::builder()
                .max_capacity(MOST_BYTES)
                .weigher(|_, confirmed: &Arc<Confirmed>| weight(confirmed.length))
                .time_to_live(lasts)
                .expire_after(Lasts)
                .build_with_hasher(hasher()),
            bad: moka::sync::Cache::builder()
                .max_capacity(MOST_BAD)
                .time_to_live(bad_lasts.min(lasts))
                .build_with_hasher(hasher()),
            cuts: moka::sync::Cache::builder()
                .max_capacity(MOST_CUTS)
                // By default a newcomer may be turned away in favour of what is asked for often.
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(lasts)
                .build_with_hasher(hasher()),
            evictions: AtomicU64::new(0),
            tally: Tally::default(),
        }
    }

    /// What is known of the credential, or else what `ask` comes to; asked once, however many wait for it.
    pub(super) async fn confirm<F>(
        &self,
        credential: Fingerprint,
        ask: impl Fn() -> F,
    ) -> Result<Arc<Confirmed>, NoWord>
    where
        F: Future<Output = Result<Answer, NoWord>>,
    {
        if let Some(confirmed) = self.known(&credential).await {
            self.tally.cached.fetch_add(1, Ordering::Relaxed);
            return Ok(confirmed);
        }
        if let Some(reason) = self.bad.get(&credential) {
            self.tally.cached.fetch_add(1, Ordering::Relaxed);
            let detail = Cow::Borrowed("the answer was no a moment ago");
            return Err(NoWord::Bad(reason, detail));
        }
        let came_after = self.evictions();
        for _ in 0..MOST_TRIES {
            let confirmed = self.ask_once(&credential, &ask).await?;
            let cut = self.cut(&credential, &confirmed.owner);
            if cut <= confirmed.asked_after || cut > came_after {
                return Ok(confirmed);
            }
        }
        Err(NoWord::Unavailable("evicted again and again".to_owned()))
    }

    async fn ask_once<F>(
        &self,
        credential: &Fingerprint,
        ask: impl Fn() -> F,
    ) -> Result<Arc<Confirmed>, NoWord>
    where
        F: Future<Output = Result<Answer, NoWord>>,
    {
        let asked = self.counted(credential, ask());
        match self.good.try_get_with(*credential, asked).await {
            Ok(confirmed) => Ok(confirmed),
            Err(unkept) => match &*unkept {
                Unkept::Good(confirmed) => Ok(Arc::clone(confirmed)),
                Unkept::No(why) => {
                    if let NoWord::Bad(reason, _) = why {
                        self.bad.insert(*credential, *reason);
                    }
                    Err(why.clone())
                }
            },
        }
    }

    /// A good answer that still counts.
    pub(super) async fn known(&self, credential: &Fingerprint) -> Option<Arc<Confirmed>> {
        let confirmed = self.good.get(credential).await?;
        if self.cut(credential, &confirmed.owner) > confirmed.asked_after {
            self.good.invalidate(credential).await;
            return None;
        }
        Some(confirmed)
    }

    /// Forgets an answer that no longer holds, and nothing that is being asked.
    pub(super) async fn evict_one(&self, credential: &Fingerprint) {
        self.good.invalidate(credential).await;
    }

    /// Forgets what is known of a credential: no later request is let in by what was asked earlier.
    pub(super) async fn evict(&self, credential: &Fingerprint) {
        self.evict_all_of(*credential);
        self.good.invalidate(credential).await;
        self.bad.invalidate(credential);
    }

    /// The same of all credentials of a user or a login.
    pub(super) fn evict_all_of(&self, owner: Fingerprint) {
        let number = self.evictions.fetch_add(1, Ordering::AcqRel) + 1;
        self.cuts.insert(owner, number);
    }

    /// Answers by outcome, since the start; the words are metric labels.
    pub(super) fn outcomes(&self) -> [(&'static str, u64); 4] {
        let count = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        [
            ("cached", count(&self.tally.cached)),
            ("confirmed", count(&self.tally.confirmed)),
            ("refused", count(&self.tally.refused)),
            ("unavailable", count(&self.tally.unavailable)),
        ]
    }

    async fn counted(
        &self,
        credential: &Fingerprint,
        asked: impl Future<Output = Result<Answer, NoWord>>,
    ) -> Result<Arc<Confirmed>, Unkept> {
        let asked_after = self.evictions();
        let answer = asked.await;
        let cell = match &answer {
            Ok(_) => &self.tally.confirmed,
            Err(NoWord::Bad(..)) => &self.tally.refused,
            Err(NoWord::Unavailable(_)) => &self.tally.unavailable,
        };
        cell.fetch_add(1, Ordering::Relaxed);
        let mut answer = answer.map_err(Unkept::No)?;
        if let Some(mark) = &mut answer.facts.mark {
            mark.credential = *credential;
        }
        let confirmed = Arc::new(Confirmed {
            owner: answer.owner,
            facts: Arc::new(answer.facts),
            length: answer.length,
            lasts: answer.lasts,
            asked_after,
        });
        if self.cut(credential, &confirmed.owner) > asked_after {
            return Err(Unkept::Good(confirmed));
        }
        Ok(confirmed)
    }

    /// The number of the last eviction that concerns a credential; 0 for none.
    fn cut(&self, credential: &Fingerprint, owner: &Owner) -> u64 {
        if self.evictions() == 0 {
            return 0;
        }
        let names = [Some(credential), owner.user.as_ref(), owner.login.as_ref()];
        let cuts = names.into_iter().flatten();
        cuts.filter_map(|name| self.cuts.get(name))
            .max()
            .unwrap_or(0)
    }

    fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Acquire)
    }
}

/// A good answer, as it was read.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whose the credential is; its mark is completed when it is kept.
    pub(super) facts: PrincipalFacts,
    /// Under which names it can be evicted.
    pub(super) owner: Owner,
    /// Length of the answer.
    pub(super) length: usize,
    /// How long it may be believed, if shorter than others.
    pub(super) lasts: Duration,
}

/// To whom a credential belongs, as hashes: no name is kept to recognise it by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    /// The user.
    pub(super) user: Option<Fingerprint>,
    /// The login, where the credential names it (`sid`).
    pub(super) login: Option<Fingerprint>,
}

impl Owner {
    /// The mark of such a credential, which `keeper` learns the end of.
    pub(super) fn mark(
        &self,
        keeper: &Arc<str>,
        credential: Fingerprint,
        issued: f64,
        leeway: Duration,
    ) -> Mark {
        Mark {
            keeper: Arc::clone(keeper),
            credential,
            user: self.user,
            login: self.login,
            issued,
            leeway,
        }
    }

    /// Of a token or an answer with these claims: `sub` and `sid`, which logout tokens name too.
    pub(super) fn of(claims: &Map<String, Value>) -> Self {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        Self {
            user: text("sub").map(user_fingerprint),
            login: text("sid").map(login_fingerprint),
        }
    }
}

/// The hash under which a user is known.
pub(super) fn user_fingerprint(user: &str) -> Fingerprint {
    fingerprint(&[b"user", user.as_bytes()])
}

/// The hash under which a login is known.
pub(super) fn login_fingerprint(sid: &str) -> Fingerprint {
    fingerprint(&[b"login", sid.as_bytes()])
}

/// Each answer for its own time.
struct Lasts;

impl Expiry<Fingerprint, Arc<Confirmed>> for Lasts {
    fn expire_after_create(
        &self,
        _: &Fingerprint,
        confirmed: &Arc<Confirmed>,
        _: Instant,
    ) -> Option<Duration> {
        Some(confirmed.lasts)
    }

    fn expire_after_update(
        &self,
        _: &Fingerprint,
        confirmed: &Arc<Confirmed>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(confirmed.lasts)
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers")
            .field("kept", &self.good.entry_count())
            .finish_non_exhaustive()
    }
}
