//! One issuer at run time: its policy, its keys, the tokens that it has vouched for and those that it has revoked.
//!
//! `keys` holds where the keys come from, keeps them fresh and checks signatures.

mod keys;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderName;
use serde_json::{Map, Value};

use super::TokenDemands;
use super::answers::{NoWord, Owner};
use super::cache::{Fingerprint, Tokens, Verified};
use super::introspection::{Introspection, Judge};
use super::jwks::store::State;
use super::jwt::{Mapping, Shape, Terms, Window, claims};
use super::refused;
use super::revoke::{Ended, Revocation, Revoked};
use crate::config::{self, Algorithm};
use crate::types::{AuthMethod, Principal, PrincipalFacts, Reason, Rejection, clock};
use crate::upstream::{Cluster, Pools};

pub(super) use keys::{Keys, Network, report_left_out};

/// Who signs tokens, and which of its tokens are accepted. Lives on across reloads that do not change it.
pub struct Issuer {
    pub(super) name: Arc<str>,
    pub(super) config: config::Issuer,
    pub(super) header: Option<HeaderName>,
    pub(super) algorithms: Box<[Algorithm]>,
    pub(super) terms: Terms,
    pub(super) mapping: Mapping,
    pub(super) max_token: usize,
    pub(super) keys: Keys,
    pub(super) introspection: Option<Introspection>,
    pub(super) tokens: Tokens,
    pub(super) revoked: Arc<Revoked>,
    pub(super) longest_life: AtomicU64,
    pub(super) is_kept_fresh: AtomicBool,
}

/// A credential, as far as whoever ends it must know it.
pub(super) struct Known {
    pub(super) what: Ended,
    /// Whose it is, if that is known.
    pub(super) owner: Option<Owner>,
    /// When it would have ended.
    pub(super) until: SystemTime,
}

impl Issuer {
    /// The name in the configuration.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The exact `iss` of its tokens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.config.url
    }

    /// Whether tokens can be judged now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.state(clock::now()), State::Fresh | State::Stale)
    }

    /// The state of the keys. Secrets and files are always fresh.
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        self.store().map_or(State::Fresh, |store| store.state(now))
    }

    /// How many verified tokens are kept, about.
    #[must_use]
    pub fn cached_tokens(&self) -> u64 {
        self.tokens.count()
    }

    /// How often a token was found in the cache, and how often it was not, since the issuer was configured.
    #[must_use]
    pub fn cache_hits_and_misses(&self) -> (u64, u64) {
        self.tokens.hits_and_misses()
    }

    /// Revocations since the start, and how many of them are remembered now, about.
    #[must_use]
    pub fn revocations(&self) -> (u64, u64) {
        (self.revoked.count(), self.revoked.kept())
    }

    /// What introspection came to, by outcome; `None` where there is none.
    #[must_use]
    pub fn introspections(&self) -> Option<[(&'static str, u64); 4]> {
        let introspection = self.introspection.as_ref()?;
        Some(introspection.answers.outcomes())
    }

    /// Where the issuer is asked about tokens; its addresses must be kept current like any upstream's.
    #[must_use]
    pub fn introspection_cluster(&self) -> Option<&Arc<Cluster>> {
        Some(&self.introspection.as_ref()?.cluster)
    }

    /// Whether tokens that are no JWT can be judged.
    pub(super) fn takes_opaque(&self) -> bool {
        self.introspection.is_some()
    }

    /// The verdict on a token that was verified before, if it was and still counts.
    pub(super) fn recall(
        &self,
        token: &Fingerprint,
        demands: &TokenDemands,
        wall: SystemTime,
    ) -> Option<Result<Principal, Rejection>> {
        let verified = self.tokens.find(token, self.generation()?)?;
        let verdict = verified
            .window
            .check(wall, self.terms.leeway)
            .and_then(|()| self.revoked.check(token, &verified.owner, &verified.window));
        if verdict.is_err() {
            self.tokens.evict(token);
        }
        let verdict = verdict
            .and_then(|()| demands.check_type(verified.typ.as_deref()))
            .and_then(|()| self.check_age_of_keys(demands));
        Some(verdict.map(|()| self.principal(AuthMethod::Jwt, &verified.facts)))
    }

    /// Judges a token of this issuer: header, time, key, signature, claims; cheap and harmless things first, so that
    /// an expired token costs neither a signature nor a fetch.
    pub(super) async fn verify(
        &self,
        token: Fingerprint,
        length: usize,
        shape: Shape<'_>,
        demands: &TokenDemands,
        wall: SystemTime,
    ) -> Result<Principal, Rejection> {
        self.tokens.count_miss();
        let window = self.check_shape(&shape, wall)?;
        demands.check_type(shape.jws.header.typ.as_deref())?;
        self.check_age_of_keys(demands)?;
        let generation = self.check_signature(&shape.jws, wall).await?;
        self.check_claims(&shape.claims)?;
        let owner = Owner::of(&shape.claims);
        let mut facts = self.mapping.facts(shape.claims, window.expires_at());
        facts.mark = Some(owner.mark(&self.name, token, window.issued(), self.terms.leeway));
        let verified = Arc::new(Verified {
            owner,
            facts: Arc::new(facts),
            typ: shape.jws.header.typ.map(Into::into),
            window,
            generation,
            length,
        });
        self.note_life(&window);
        self.tokens.keep(token, Arc::clone(&verified));
        // Asked after the token was kept: a logout that found nothing to evict is seen here.
        if let Err(why) = self.revoked.check(&token, &verified.owner, &window) {
            self.tokens.evict(&token);
            return Err(why);
        }
        Ok(self.principal(AuthMethod::Jwt, &verified.facts))
    }

    /// Asks the issuer about a token.
    pub(super) async fn introspect(
        &self,
        pools: &Pools,
        token: &str,
        wall: SystemTime,
    ) -> Result<Principal, Rejection> {
        let Some(introspection) = &self.introspection else {
            return Err(refused(
                Reason::CredentialMalformed,
                "not three parts with dots between them",
            ));
        };
        let judge = Judge {
            name: &self.name,
            issuer: self.url(),
            terms: &self.terms,
            mapping: &self.mapping,
            wall,
        };
        // Boxed: this is the rarer way, and its size would be the size of every exchange.
        match Box::pin(introspection.confirm(pools, token, judge)).await {
            Ok(confirmed) => Ok(self.principal(AuthMethod::Introspection, &confirmed.facts)),
            Err(NoWord::Bad(reason, detail)) => Err(refused(reason, detail)),
            Err(NoWord::Unavailable(why)) => Err(self.cannot_ask(&why)),
        }
    }

    /// Whether every token, JWT or not, is asked about.
    pub(super) fn introspects_all(&self) -> bool {
        self.introspection
            .as_ref()
            .is_some_and(|introspection| introspection.takes_all)
    }

    /// What a token that the issuer is asked about is known to be without asking, for whoever ends it.
    pub(super) async fn known_answer(&self, token: &str, wall: SystemTime) -> Option<Known> {
        let introspection = self.introspection.as_ref()?;
        let print = introspection.fingerprint(token);
        let answer = introspection.answers.known(&print).await;
        Some(Known {
            what: Ended::Answer(print),
            owner: answer.map(|answer| answer.owner),
            until: wall + introspection.cache(),
        })
    }

    /// The same of a JWT that was verified lately.
    pub(super) fn known_verified(&self, print: &Fingerprint) -> Option<Known> {
        let verified = self.tokens.find(print, self.generation()?)?;
        self.known_token(*print, verified.owner, &verified.window)
    }

    /// The same of any other JWT; `None` for one that is not good anyway, or that only keys could judge which are not here.
    pub(super) fn known_jwt(
        &self,
        print: Fingerprint,
        shape: &Shape<'_>,
        wall: SystemTime,
    ) -> Option<Known> {
        let window = self.check_shape(shape, wall).ok()?;
        self.check_with_present_keys(&shape.jws, wall).ok()?;
        self.known_token(print, Owner::of(&shape.claims), &window)
    }

    fn known_token(&self, print: Fingerprint, owner: Owner, window: &Window) -> Option<Known> {
        let end = window.expires_at()?;
        Some(Known {
            what: Ended::Token(print),
            owner: Some(owner),
            until: end.checked_add(self.terms.leeway)?,
        })
    }

    /// Until when a cut-off must be remembered: as long as the longest token that could have been issued before it.
    pub(super) fn cut_off_until(&self, wall: SystemTime) -> SystemTime {
        let seen = Duration::from_secs(self.longest_life.load(Ordering::Relaxed));
        let longest = self.config.longest_token.0.max(seen) + self.terms.leeway;
        wall.checked_add(longest).unwrap_or(wall)
    }

    /// Forgets what `revocation` ends, and remembers that it has ended.
    pub(super) async fn revoke(&self, revocation: &Revocation, wall: SystemTime) {
        self.revoked.remember(revocation, wall);
        let answers = self.introspection.as_ref().map(|one| &one.answers);
        match revocation.what {
            Ended::Token(print) => self.tokens.evict(&print),
            Ended::Answer(print) => {
                if let Some(answers) = answers {
                    answers.evict(&print).await;
                }
            }
            Ended::User(owner, _) | Ended::Login(owner, _) | Ended::UserWithoutLogin(owner, _) => {
                if let Some(answers) = answers {
                    answers.evict_all_of(owner);
                }
            }
        }
    }

    /// What can be judged without a key.
    fn check_shape(&self, shape: &Shape<'_>, wall: SystemTime) -> Result<Window, Rejection> {
        if claims::issuer(&shape.claims) != Some(self.url()) {
            return Err(refused(Reason::TokenIssuer, "`iss` is another issuer"));
        }
        self.check_algorithm(&shape.jws)?;
        self.terms.check_type(shape.jws.header.typ.as_deref())?;
        let window = Window::of(&shape.claims)?;
        window.check(wall, self.terms.leeway)?;
        Ok(window)
    }

    /// What can be judged without a clock.
    pub(super) fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), Rejection> {
        self.terms.check(claims)?;
        self.mapping.check_user(claims)
    }

    /// A year is the most that counts: a token that says it lives for ever must not make a logout last so long.
    fn note_life(&self, window: &Window) {
        const YEAR: u64 = 366 * 86_400;
        if let Some(life) = window.life() {
            let life = life.as_secs().saturating_add(1).min(YEAR);
            if life > self.longest_life.load(Ordering::Relaxed) {
                self.longest_life.fetch_max(life, Ordering::Relaxed);
            }
        }
    }

    fn principal(&self, method: AuthMethod, facts: &Arc<PrincipalFacts>) -> Principal {
        Principal {
            method,
            source: Arc::clone(&self.name),
            facts: Arc::clone(facts),
            beside: None,
        }
    }

    fn cannot_ask(&self, why: &str) -> Rejection {
        Rejection::because(
            Reason::IntrospectionUnavailable,
            format!("issuer `{}`: {why}", self.name),
        )
        .retry_after(Duration::from_secs(1))
        .policy(&self.name)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("name", &self.name)
            .field("url", &self.config.url)
            .finish_non_exhaustive()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        if let Some(store) = self.store() {
            store.wake().notify_one();
        }
    }
}
