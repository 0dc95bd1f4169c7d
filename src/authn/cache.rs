//! Tokens that were verified already. A hit costs a hash and a lookup instead of a signature.
//!
//! Each issuer has a cache of its own, so that its policy is part of the key by construction: a reload that changes the
//! issuer makes a new one with an empty cache. What may have changed since is asked at every hit: the key set's
//! generation and the clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use moka::sync::Cache;

use super::answers::Owner;
use super::jwt::Window;
use crate::types::PrincipalFacts;

/// The whole SHA-256 of a credential; never a part of it, never a faster hash: two credentials must not meet.
pub type Fingerprint = [u8; 32];

/// Hashes `parts`, each with its length in front, so that what belongs to one part cannot count as another's.
#[must_use]
pub fn fingerprint(parts: &[&[u8]]) -> Fingerprint {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut whole = [0; 32];
    whole.copy_from_slice(context.finish().as_ref());
    whole
}

/// Hashes one credential. The hot path: one call, nothing allocated.
#[must_use]
pub fn token_fingerprint(token: &str) -> Fingerprint {
    let mut whole = [0; 32];
    whole.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    whole
}

/// A token whose signature and claims were found good.
#[derive(Debug)]
pub struct Verified {
    /// What it says.
    pub facts: Arc<PrincipalFacts>,
    /// Between which moments it is good.
    pub window: Window,
    /// To whom it belongs.
    pub(super) owner: Owner,
    /// The type that its header states.
    pub typ: Option<Box<str>>,
    /// The generation of the key set that it was verified with.
    pub generation: u64,
    /// Length of the token, from which the weight is estimated.
    pub length: usize,
}

/// The verified tokens of one issuer.
pub struct Tokens {
    verified: Cache<Fingerprint, Arc<Verified>, foldhash::fast::RandomState>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// After this time a token is verified anew, whatever its `exp`.
const LONGEST: Duration = Duration::from_secs(600);

impl Tokens {
    /// Empty. `most_bytes` is the most memory, by estimate.
    #[must_use]
    pub fn new(most_bytes: u64) -> Self {
        let verified = Cache::builder()
            .max_capacity(most_bytes)
            .weigher(|_, verified: &Arc<Verified>| weight(verified.length))
            .time_to_live(LONGEST)
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self {
            verified,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The token, if it was verified with a key set of this generation.
    #[must_use]
    pub fn find(&self, token: &Fingerprint, generation: u64) -> Option<Arc<Verified>> {
        let found = self
            .verified
            .get(token)
            .filter(|verified| verified.generation == generation)?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    /// A token of the issuer was not found: on a route of many issuers, not every one that is asked has missed it.
    pub fn count_miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a token was found, and how often it was not.
    #[must_use]
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (
            self.hits.load(Ordering::Relaxed),
            self.misses.load(Ordering::Relaxed),
        )
    }

    /// Keeps a verified token.
    pub fn keep(&self, token: Fingerprint, verified: Arc<Verified>) {
        self.verified.insert(token, verified);
    }

    /// Forgets a token, at once.
    pub fn evict(&self, token: &Fingerprint) {
        self.verified.invalidate(token);
    }

    /// How many are kept, about.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.verified.entry_count()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

/// Parsed claims take several times the bytes they were written with.
pub(super) fn weight(length: usize) -> u32 {
    u32::try_from(length.saturating_mul(4).saturating_add(1_024)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(generation: u64) -> Arc<Verified> {
        let claims = serde_json::json!({ "exp": 1 });
        Arc::new(Verified {
            facts: Arc::default(),
            window: Window::of(claims.as_object().unwrap()).unwrap(),
            owner: Owner::default(),
            typ: None,
            generation,
            length: 100,
        })
    }

    #[test]
    fn parts_of_a_fingerprint_do_not_run_into_each_other() {
        assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
        assert_ne!(fingerprint(&[b"abc"]), fingerprint(&[b"abc", b""]));
    }

    #[test]
    fn a_token_counts_only_with_the_key_set_that_vouched_for_it() {
        let tokens = Tokens::new(1 << 20);
        let token = token_fingerprint("a.b.c");
        tokens.keep(token, verified(3));
        assert!(tokens.find(&token, 3).is_some());
        assert!(tokens.find(&token, 4).is_none());
        assert!(tokens.find(&token_fingerprint("a.b.d"), 3).is_none());
        tokens.evict(&token);
        assert!(tokens.find(&token, 3).is_none());
    }

    #[test]
    fn the_weight_of_a_token_grows_with_its_length_and_does_not_wrap() {
        assert!(weight(8_192) > weight(300));
        assert_eq!(weight(usize::MAX), u32::MAX);
    }
}
