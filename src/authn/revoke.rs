//! Credentials that ended before their time: a logout or a password change seen passing by, or an issuer's word.
//!
//! What can be asked about (sessions of a probe, introspected tokens) is evicted, so that the next request asks anew.
//! A JWT answers for itself, so it is remembered as ended until it would have expired: by its hash, or together with
//! all that its user or login was issued up to a moment (a cut-off). Hashes only: nothing here tells who logged out.
//!
//! Every worker reads the same state, so that a revocation holds everywhere in the process when [`Authorities::revoke`]
//! returns. Other replicas learn of it through a [`Relay`].
//!
//! [`Authorities::revoke`]: super::Authorities::revoke

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use foldhash::fast::RandomState;
use moka::Expiry;
use moka::policy::EvictionPolicy;

use super::answers::Owner;
use super::cache::Fingerprint;
use super::jwt::Window;
use super::refused;
use crate::types::{Reason, Rejection};

/// Something that must not let anybody in any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The issuer or session that vouched for it, by its name in the configuration.
    pub source: Arc<str>,
    /// What it is.
    pub what: Ended,
    /// When it may be forgotten, because it would have expired by itself.
    pub until: SystemTime,
}

/// What has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A JWT, by its hash.
    Token(Fingerprint),
    /// What was answered about a credential, by the hash under which it is kept: it can be asked about anew.
    Answer(Fingerprint),
    /// What a user was given before a moment, by the hash of the user.
    User(Fingerprint, SystemTime),
    /// What a login (`sid`) was given before a moment, by the hash of the login.
    Login(Fingerprint, SystemTime),
    /// What a user was given before a moment and does not tell its login.
    UserWithoutLogin(Fingerprint, SystemTime),
}

/// Carries revocations to other replicas, and theirs to [`Authorities::revoke_here`].
///
/// [`Authorities::revoke_here`]: super::Authorities::revoke_here
pub trait Relay: fmt::Debug + Send + Sync {
    /// Tells the others. Must not block: the answer to a logout waits for it.
    fn publish(&self, revocation: &Revocation);
}

/// What has ended of one issuer. Lives on when a reload changes the issuer: a logout is not undone by it.
pub(super) struct Revoked {
    cuts: moka::sync::Cache<Key, Cut, RandomState>,
    /// Logout tokens that were taken: each counts once.
    taken: moka::sync::Cache<Fingerprint, Cut, RandomState>,
    /// Whether there ever was one: most gateways never see a logout, and pay nothing for the chance.
    any: AtomicBool,
    full: AtomicBool,
    count: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Token(Fingerprint),
    User(Fingerprint),
    Login(Fingerprint),
    UserWithoutLogin(Fingerprint),
}

/// Tokens issued before `before` (in seconds since the epoch) are refused, for so long.
#[derive(Clone, Copy, Debug)]
struct Cut {
    before: f64,
    lasts: Duration,
}

/// How many logout tokens are remembered.
const MOST_TAKEN: u64 = 8_192;

/// How many are remembered; the one asked for least lately is forgotten first.
const MOST: u64 = 65_536;

/// How far the clock may be set back without a token coming to life again that was revoked before.
const SET_BACK: Duration = Duration::from_secs(2 * 3_600);

/// Longer than this nothing is remembered; no access token lives so long.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

impl Revoked {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            cuts: moka::sync::Cache::builder()
                .max_capacity(MOST)
                // By default a newcomer may be turned away in favour of what is asked for often.
                .eviction_policy(EvictionPolicy::lru())
                .expire_after(Lasts)
                .build_with_hasher(RandomState::default()),
            taken: moka::sync::Cache::builder()
                .max_capacity(MOST_TAKEN)
                .eviction_policy(EvictionPolicy::lru())
                .expire_after(Lasts)
                .build_with_hasher(RandomState::default()),
            any: AtomicBool::new(false),
            full: AtomicBool::new(false),
            count: AtomicU64::new(0),
        })
    }

    /// Remembers `revocation`. Of two about the same, the one that refuses more counts.
    pub(super) fn remember(&self, revocation: &Revocation, wall: SystemTime) {
        let (key, before) = match revocation.what {
            Ended::Token(print) => (Key::Token(print), f64::INFINITY),
            // Not remembered: whoever invents credentials could make the true ones be forgotten.
            Ended::Answer(_) => return,
            Ended::User(user, before) => (Key::User(user), unix(before)),
            Ended::Login(login, before) => (Key::Login(login), unix(before)),
            Ended::UserWithoutLogin(user, before) => (Key::UserWithoutLogin(user), unix(before)),
        };
        let Ok(lasts) = revocation.until.duration_since(wall) else {
            return;
        };
        let new = Cut {
            before,
            lasts: lasts.min(LONGEST) + SET_BACK,
        };
        self.any.store(true, Ordering::Release);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.cuts.entry(key).and_upsert_with(|known| match known {
            Some(known) if known.value().before > new.before => known.into_value(),
            _ => new,
        });
        if self.kept() >= MOST && !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                source = %revocation.source,
                most = MOST,
                "more logouts than can be remembered: the oldest are forgotten before their tokens expire"
            );
        }
    }

    /// Whether a token may still be used.
    ///
    /// # Errors
    /// [`Reason::TokenRevoked`].
    pub(super) fn check(
        &self,
        token: &Fingerprint,
        owner: &Owner,
        window: &Window,
    ) -> Result<(), Rejection> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let is_cut = |key: Key| {
            let cut = self.cuts.get(&key);
            cut.is_some_and(|cut| window.issued_before(cut.before))
        };
        let by_login = match (owner.login, owner.user) {
            (Some(login), _) => is_cut(Key::Login(login)),
            (None, Some(user)) => is_cut(Key::UserWithoutLogin(user)),
            (None, None) => false,
        };
        let by_user = owner.user.is_some_and(|user| is_cut(Key::User(user)));
        if by_login || by_user || is_cut(Key::Token(*token)) {
            return Err(refused(Reason::TokenRevoked, window.why_revoked()));
        }
        Ok(())
    }

    /// Whether a logout token, by the hash of its `jti`, is taken for the first time. It is remembered for `lasts`.
    pub(super) fn is_first(&self, jti: Fingerprint, lasts: Duration) -> bool {
        let once = Cut {
            before: 0.0,
            lasts: lasts.min(LONGEST),
        };
        self.taken.entry(jti).or_insert(once).is_fresh()
    }

    /// Revocations since the start.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How many are remembered, about.
    pub(super) fn kept(&self) -> u64 {
        self.cuts.entry_count()
    }
}

pub(super) fn unix(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

struct Lasts;

impl<K> Expiry<K, Cut> for Lasts {
    fn expire_after_create(&self, _: &K, cut: &Cut, _: Instant) -> Option<Duration> {
        Some(cut.lasts)
    }

    fn expire_after_update(
        &self,
        _: &K,
        cut: &Cut,
        _: Instant,
        left: Option<Duration>,
    ) -> Option<Duration> {
        Some(left.map_or(cut.lasts, |left| left.max(cut.lasts)))
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoked")
            .field("kept", &self.kept())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(until: SystemTime) -> Revocation {
        Revocation {
            source: "main".into(),
            what: Ended::Token([1; 32]),
            until,
        }
    }

    fn kept_for(revoked: &Revoked) -> Option<Duration> {
        let cut = revoked.cuts.get(&Key::Token([1; 32]));
        cut.map(|cut| cut.lasts)
    }

    /// A token that lives for ten minutes lives for two hours and ten when the clock is set back by two.
    #[test]
    fn a_revocation_outlives_its_token_by_as_much_as_clocks_are_set_back() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let revoked = Revoked::new();
        revoked.remember(&revocation(wall + Duration::from_secs(600)), wall);
        let lasts = kept_for(&revoked).unwrap();
        assert_eq!(lasts, Duration::from_secs(600 + 7_200));
        let over = Revoked::new();
        over.remember(&revocation(wall - Duration::from_secs(1)), wall);
        assert_eq!((kept_for(&over), over.count()), (None, 0));
    }
}
