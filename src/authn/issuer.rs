//! One issuer at run time: its policy, its keys, the tokens that it has vouched for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use jsonwebtoken::DecodingKey;
use tokio::time::sleep_until;

use super::cache::{Fingerprint, Tokens, Verified, token_fingerprint};
use super::jwks::set::LeftOut;
use super::jwks::store::{Answer, Loaded, State};
use super::jwks::{Miss, Remote, Store};
use super::jwt::shape::Jws;
use super::jwt::verify::signature_is_good;
use super::jwt::{Mapping, Shape, Terms, Window};
use super::refused;
use crate::config::{self, Algorithm};
use crate::types::{AuthMethod, Principal, Reason, Rejection, clock};

/// Who signs tokens, and which of its tokens are accepted. Lives on across reloads that do not change it.
pub struct Issuer {
    pub(super) name: Arc<str>,
    pub(super) config: config::Issuer,
    pub(super) algorithms: Box<[Algorithm]>,
    pub(super) terms: Terms,
    pub(super) mapping: Mapping,
    pub(super) max_token: usize,
    pub(super) keys: Keys,
    pub(super) tokens: Tokens,
    pub(super) is_kept_fresh: AtomicBool,
}

/// Where the keys of an issuer come from.
pub(super) enum Keys {
    /// Shared secrets: the current one, and the previous one while a rotation is under way.
    Secrets {
        secrets: Box<[DecodingKey]>,
        fingerprint: Fingerprint,
    },
    /// A file, read when the configuration was compiled.
    File {
        loaded: Box<Loaded>,
        fingerprint: Fingerprint,
    },
    /// The network.
    Remote { remote: Box<Remote>, store: Store },
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

    /// How old the key set is; `None` when none was loaded, or none is fetched.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.store()?.age(clock::now())
    }

    /// Fetches that brought a key set, since the issuer was configured.
    #[must_use]
    pub fn fetches_ok(&self) -> u64 {
        self.store().map_or(0, Store::fetches_ok)
    }

    /// Fetches that did not.
    #[must_use]
    pub fn fetches_failed(&self) -> u64 {
        self.store().map_or(0, Store::fetches_failed)
    }

    /// Why the last fetch failed; `None` when it went well, or nothing is fetched.
    #[must_use]
    pub fn last_error(&self) -> Option<Arc<String>> {
        self.store()?.last_error()
    }

    /// How many verified tokens are kept, about.
    #[must_use]
    pub fn cached_tokens(&self) -> u64 {
        self.tokens.count()
    }

    /// Forgets that `token` was verified; it is judged anew when it comes again.
    pub fn evict(&self, token: &str) {
        self.tokens.evict(&token_fingerprint(token));
    }

    /// Fetches the key set when it is due or asked for, until nobody holds the issuer any more. A second call returns
    /// at once, so that every reload may call it for every issuer.
    pub async fn keep_fresh(self: Arc<Self>) {
        let Some(store) = self.store() else { return };
        if self.is_kept_fresh.swap(true, Ordering::AcqRel) {
            return;
        }
        let wake = store.wake();
        let issuer = Arc::downgrade(&self);
        drop(self);
        loop {
            // Held weakly while waiting: an issuer that a reload has dropped ends its task (see `Drop`).
            let Some(due) = issuer.upgrade().and_then(|issuer| issuer.due()) else {
                return;
            };
            tokio::select! {
                () = sleep_until(due.into()) => {}
                () = wake.notified() => {}
            }
            let Some(issuer) = issuer.upgrade() else {
                return;
            };
            issuer.refresh().await;
        }
    }

    /// Fetches the key set once. Only [`Issuer::keep_fresh`] and commands that have no such task may call it.
    pub async fn refresh(&self) {
        let Keys::Remote { remote, store } = &self.keys else {
            return;
        };
        store.started();
        let fetched = remote.fetch(clock::now()).await;
        let now = clock::now();
        match fetched {
            Ok(fetched) => {
                let known = store.current(now);
                let known = known.as_ref().and_then(|guard| guard.as_ref());
                let known = known.map_or(&[][..], |loaded| loaded.set.left_out());
                report_left_out(&self.name, fetched.set.left_out(), known);
                let count = fetched.set.keys().len();
                let lost_a_key = store.install(fetched, now);
                tracing::debug!(issuer = %self.name, keys = count, lost_a_key, "key set fetched");
            }
            Err(why) => {
                tracing::warn!(issuer = %self.name, error = %why, "key set not fetched");
                store.note_failure(why.to_string(), now);
            }
        }
    }

    /// The verdict on a token that was verified before, if it was and still counts.
    pub(super) fn recall(
        &self,
        token: &Fingerprint,
        wall: SystemTime,
    ) -> Option<Result<Principal, Rejection>> {
        let verified = self.tokens.find(token, self.generation()?)?;
        let verdict = verified.window.check(wall, self.terms.leeway);
        if verdict.is_err() {
            self.tokens.evict(token);
        }
        Some(verdict.map(|()| self.principal(&verified)))
    }

    /// Judges a token of this issuer: header, time, key, signature, claims; cheap and harmless things first, so that
    /// an expired token costs neither a signature nor a fetch.
    pub(super) async fn verify(
        &self,
        token: Fingerprint,
        length: usize,
        shape: Shape<'_>,
        wall: SystemTime,
    ) -> Result<Principal, Rejection> {
        self.check_algorithm(&shape.jws)?;
        self.terms.check_type(shape.jws.header.typ.as_deref())?;
        let window = Window::of(&shape.claims)?;
        window.check(wall, self.terms.leeway)?;
        let generation = self.check_signature(&shape.jws).await?;
        self.terms.check(&shape.claims)?;
        let verified = Arc::new(Verified {
            facts: Arc::new(self.mapping.facts(shape.claims, &window)),
            window,
            generation,
            length,
        });
        let principal = self.principal(&verified);
        self.tokens.keep(token, verified);
        Ok(principal)
    }

    pub(super) fn check_algorithm(&self, jws: &Jws<'_>) -> Result<(), Rejection> {
        if self.algorithms.contains(&jws.header.algorithm) {
            return Ok(());
        }
        Err(refused(
            Reason::TokenAlgorithm,
            "the issuer may not sign with this algorithm",
        ))
    }

    /// Finds the key and verifies the signature. Returns the generation of the key set that vouched for it.
    pub(super) async fn check_signature(&self, jws: &Jws<'_>) -> Result<u64, Rejection> {
        let (remote, store) = match &self.keys {
            Keys::Secrets { secrets, .. } => {
                return verified(secrets.iter().any(|secret| is_signed_with(secret, jws)), 0);
            }
            Keys::File { loaded, .. } => {
                return check_with(loaded, jws)
                    .unwrap_or_else(|| Err(refused(Reason::TokenKey, "`kid` is unknown")));
            }
            Keys::Remote { remote, store } => (remote, store),
        };
        let now = clock::now();
        let current = store.current(now).ok_or_else(|| self.unavailable(now))?;
        if let Some(verdict) = current.as_ref().and_then(|loaded| check_with(loaded, jws)) {
            return verdict;
        }
        drop(current);
        tracing::debug!(issuer = %remote.issuer, "unknown kid");
        self.ask_for_key(store, jws, now).await
    }

    async fn ask_for_key(
        &self,
        store: &Store,
        jws: &Jws<'_>,
        now: Instant,
    ) -> Result<u64, Rejection> {
        let kid = jws.header.kid.as_deref().unwrap_or_default();
        let unknown = || refused(Reason::TokenKey, "`kid` is unknown");
        match store.newer(kid, now).await {
            Answer::Newer(loaded) => check_with(&loaded, jws).unwrap_or_else(|| {
                store.remember_absent(kid, clock::now());
                Err(unknown())
            }),
            Answer::Absent => Err(unknown()),
            Answer::Unavailable => Err(self.unavailable(clock::now())),
        }
    }

    fn unavailable(&self, now: Instant) -> Rejection {
        let wait = self.due().map(|due| due.saturating_duration_since(now));
        Rejection::because(
            Reason::KeysUnavailable,
            format!("issuer `{}`: {:?}", self.name, self.state(now)),
        )
        .retry_after(wait.unwrap_or_default().max(Duration::from_secs(1)))
        .policy(&self.name)
    }

    /// The generation of the keys in force; `None` when there are none.
    fn generation(&self) -> Option<u64> {
        match &self.keys {
            Keys::Secrets { .. } | Keys::File { .. } => Some(0),
            Keys::Remote { store, .. } => {
                let current = store.current(clock::now())?;
                current.as_ref().map(|loaded| loaded.generation)
            }
        }
    }

    fn principal(&self, verified: &Verified) -> Principal {
        Principal {
            method: AuthMethod::Jwt,
            source: Arc::clone(&self.name),
            facts: Arc::clone(&verified.facts),
        }
    }

    fn store(&self) -> Option<&Store> {
        match &self.keys {
            Keys::Remote { store, .. } => Some(store),
            Keys::Secrets { .. } | Keys::File { .. } => None,
        }
    }

    fn due(&self) -> Option<Instant> {
        self.store().map(Store::due)
    }
}

/// Logs what a key set holds in vain; each entry once, not at every refresh.
pub(super) fn report_left_out(issuer: &str, left_out: &[LeftOut], known: &[LeftOut]) {
    for entry in left_out.iter().filter(|entry| !known.contains(entry)) {
        if entry.why.is_harmless() {
            tracing::debug!(issuer, "key set: {entry}; left out");
        } else {
            tracing::warn!(issuer, "key set: {entry}; left out");
        }
    }
}

/// The verdict of a key set on a signature; `None` when it does not know the `kid` and a newer set might.
fn check_with(loaded: &Loaded, jws: &Jws<'_>) -> Option<Result<u64, Rejection>> {
    let header = &jws.header;
    match loaded.set.find(header.kid.as_deref(), header.algorithm) {
        Ok(key) => Some(verified(
            is_signed_with(key.decoding(), jws),
            loaded.generation,
        )),
        Err(Miss::UnknownKid) => None,
        Err(Miss::OtherAlgorithm) => Some(Err(refused(
            Reason::TokenAlgorithm,
            "the key is for another algorithm",
        ))),
        Err(Miss::NotOne) => Some(Err(refused(
            Reason::TokenKey,
            "`kid` is missing, and not exactly one key fits",
        ))),
    }
}

fn is_signed_with(key: &DecodingKey, jws: &Jws<'_>) -> bool {
    signature_is_good(
        key,
        jws.header.algorithm,
        jws.message.as_bytes(),
        &jws.signature,
    )
}

fn verified(good: bool, generation: u64) -> Result<u64, Rejection> {
    if good {
        return Ok(generation);
    }
    Err(refused(Reason::TokenSignature, "the signature is wrong"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::identify_token;
    use crate::authn::jwks::KeySet;
    use crate::authn::jwks::fetch::Fetched;
    use crate::authn::tests::support::{KEYS, NOW, at, authorities, token_of};
    use serde_json::json;

    /// Nobody listens on port 1, so that every fetch fails at once.
    const UNREACHABLE: &str = "[issuer.main]\nurl = \"http://127.0.0.1:1\"\naudiences = [\"x\"]\n";

    #[tokio::test]
    async fn the_keeping_task_ends_with_its_issuer() {
        let authorities = authorities(UNREACHABLE);
        let issuer = Arc::clone(&authorities.issuers["main"]);
        let kept = Arc::clone(&issuer).keep_fresh();
        let rest = async move {
            while issuer.fetches_failed() == 0 {
                tokio::task::yield_now().await;
            }
            assert!(!issuer.is_ready());
            assert!(issuer.last_error().is_some());
            drop((issuer, authorities));
        };
        tokio::join!(kept, rest);
    }

    #[tokio::test]
    async fn a_second_keeping_task_returns_at_once() {
        let authorities = authorities(UNREACHABLE);
        let issuer = Arc::clone(&authorities.issuers["main"]);
        issuer.is_kept_fresh.store(true, Ordering::Release);
        issuer.keep_fresh().await;
        assert_eq!(authorities.issuers["main"].fetches_failed(), 0);
    }

    #[tokio::test]
    async fn an_issuer_that_was_never_reached_is_503_with_a_time_to_wait() {
        let authorities = authorities(UNREACHABLE);
        let issuer = &authorities.issuers["main"];
        issuer.refresh().await;
        assert_eq!((issuer.fetches_ok(), issuer.fetches_failed()), (0, 1));
        let why = issuer.unavailable(clock::now());
        assert_eq!(why.reason(), Reason::KeysUnavailable);
        assert!(
            why.wait()
                .is_some_and(|wait| wait >= Duration::from_secs(1))
        );
    }

    const LOCAL: &str = "http://127.0.0.1:1";

    fn install(issuer: &Issuer, kids: &[&str]) {
        let keys: Vec<_> = kids.iter().map(|kid| KEYS["p256"].jwk(kid)).collect();
        let raw = json!({ "keys": keys }).to_string();
        let set = KeySet::parse(raw.as_bytes(), &issuer.algorithms).unwrap();
        let fetched = Fetched {
            set,
            raw: raw.into(),
            stated: None,
        };
        issuer.store().unwrap().install(fetched, clock::now());
    }

    async fn judge(issuer: &Arc<Issuer>, kid: &str) -> Result<(), Reason> {
        let header = json!({ "alg": "ES256", "kid": kid }).to_string();
        let claims = json!({ "iss": LOCAL, "aud": "x", "sub": "u1", "exp": NOW + 600 });
        let token = token_of(header, claims.to_string(), "ES256", &KEYS["p256"]);
        let verdict = identify_token(std::slice::from_ref(issuer), &token, at(NOW)).await;
        verdict.map(drop).map_err(|why| why.reason())
    }

    #[tokio::test]
    async fn an_outage_leaves_known_keys_alone_and_makes_unknown_ones_503() {
        let issuer = Arc::clone(&authorities(UNREACHABLE).issuers["main"]);
        assert_eq!(
            judge(&issuer, "a").await,
            Err(Reason::KeysUnavailable),
            "never loaded"
        );
        install(&issuer, &["a"]);
        issuer.refresh().await;
        assert_eq!(issuer.state(clock::now()), State::Stale);
        assert_eq!(judge(&issuer, "a").await, Ok(()));
        let store = issuer.store().unwrap();
        let wake = store.wake();
        let outage = async {
            wake.notified().await;
            issuer.refresh().await;
        };
        let (unknown, ()) = tokio::join!(judge(&issuer, "b"), outage);
        assert_eq!(unknown, Err(Reason::KeysUnavailable));
        assert_eq!(
            judge(&issuer, "c").await,
            Err(Reason::KeysUnavailable),
            "at once"
        );
        assert_eq!(judge(&issuer, "a").await, Ok(()));
    }

    #[tokio::test]
    async fn a_rotation_is_followed_and_the_old_key_refused_in_spite_of_the_cache() {
        let issuer = Arc::clone(&authorities(UNREACHABLE).issuers["main"]);
        install(&issuer, &["old"]);
        assert_eq!(judge(&issuer, "old").await, Ok(()));
        let wake = issuer.store().unwrap().wake();
        let rotation = async {
            wake.notified().await;
            issuer.store().unwrap().started();
            install(&issuer, &["old", "new"]);
        };
        let (new, ()) = tokio::join!(judge(&issuer, "new"), rotation);
        assert_eq!(new, Ok(()));
        assert_eq!(judge(&issuer, "old").await, Ok(()), "still published");
        install(&issuer, &["new"]);
        assert_eq!(
            judge(&issuer, "old").await,
            Err(Reason::TokenKey),
            "withdrawn"
        );
        assert_eq!(judge(&issuer, "new").await, Ok(()));
    }

    #[tokio::test]
    async fn random_kids_are_401_at_once_while_the_bucket_is_empty() {
        let issuer = Arc::clone(&authorities(UNREACHABLE).issuers["main"]);
        install(&issuer, &["a"]);
        let wake = issuer.store().unwrap().wake();
        let fetch = async {
            wake.notified().await;
            issuer.store().unwrap().started();
            install(&issuer, &["a"]);
        };
        let (first, ()) = tokio::join!(judge(&issuer, "random"), fetch);
        assert_eq!(first, Err(Reason::TokenKey));
        for number in 0..50 {
            let verdict = judge(&issuer, &format!("random-{number}")).await;
            assert_eq!(verdict, Err(Reason::TokenKey));
        }
        assert_eq!(issuer.fetches_ok(), 2);
    }
}
