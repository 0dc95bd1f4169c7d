//! The keys of one issuer: where they come from, how they are kept fresh, what they say of a signature.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use jsonwebtoken::DecodingKey;
use parking_lot::Mutex;
use tokio::time::sleep_until;

use super::Issuer;
use crate::authn::TokenDemands;
use crate::authn::cache::Fingerprint;
use crate::authn::jwks::fetch::{Fetch, Fetched};
use crate::authn::jwks::key::Key;
use crate::authn::jwks::radar::KeyFacts;
use crate::authn::jwks::set::LeftOut;
use crate::authn::jwks::store::{Answer, Loaded};
use crate::authn::jwks::{Miss, Radar, Remote, Shelf, Store};
use crate::authn::jwt::shape::Jws;
use crate::authn::jwt::verify::signature_is_good;
use crate::authn::refused;
use crate::types::{Reason, Rejection, clock, task};

/// Where the keys of an issuer come from.
pub(in crate::authn) enum Keys {
    /// Nowhere: every token is asked about.
    None,
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
    Remote(Box<Network>),
}

/// Keys that are fetched.
pub(in crate::authn) struct Network {
    pub(in crate::authn) remote: Remote,
    pub(in crate::authn) store: Store,
    /// Lives on when a reload changes the issuer and not the source of its keys.
    pub(in crate::authn) radar: Arc<Radar>,
    pub(in crate::authn) shelf: Option<Shelf>,
    /// What is on the shelf, and since when.
    pub(in crate::authn) shelved: Mutex<Option<(Bytes, SystemTime)>>,
}

/// What is on the shelf is written anew this often although it is the same: its age counts after a restart.
const SHELVED_FOR: Duration = Duration::from_secs(600);

impl Issuer {
    /// How old the key set is; `None` when none was loaded, or none is fetched.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.store()?.age(clock::now())
    }

    /// Fetches that brought a key set, or the word that it is the same, since the issuer was configured.
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

    /// Whether its keys come over the network.
    #[must_use]
    pub fn fetches_keys(&self) -> bool {
        self.network().is_some()
    }

    /// How many keys verify tokens now.
    #[must_use]
    pub fn key_count(&self) -> usize {
        match &self.keys {
            Keys::None => 0,
            Keys::Secrets { secrets, .. } => secrets.len(),
            Keys::File { loaded, .. } => loaded.set.keys().len(),
            Keys::Remote(network) => network.store.keys(clock::now()),
        }
    }

    /// What is known of fetched keys, those that have vanished included.
    #[must_use]
    pub fn key_facts(&self) -> Vec<KeyFacts> {
        self.network()
            .map_or_else(Vec::new, |network| network.radar.facts())
    }

    /// Tokens that were refused because their issuer no longer publishes the key that signed them.
    #[must_use]
    pub fn vanished_key_tokens(&self) -> u64 {
        self.network()
            .map_or(0, |network| network.radar.vanished_tokens())
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
        let Some(network) = self.network() else {
            return;
        };
        network.store.started();
        let holds_last = network.store.keys(clock::now()) > 0;
        let fetched = network.remote.fetch(clock::now(), holds_last).await;
        let now = clock::now();
        match fetched {
            Ok(Fetch::Set(fetched)) => self.install(network, fetched, now),
            Ok(Fetch::Unchanged(stated)) => {
                network.store.confirm(stated, now);
                tracing::debug!(issuer = %self.name, "key set unchanged");
            }
            Err(why) => {
                tracing::warn!(issuer = %self.name, error = %why, "key set not fetched");
                network.store.note_failure(why.to_string(), now);
                return;
            }
        }
        self.shelve(network).await;
    }

    pub(super) fn install(&self, network: &Network, mut fetched: Fetched, now: Instant) {
        let known = network.store.current(now);
        let known = known.as_ref().and_then(|guard| guard.as_ref());
        let known = known.map_or(&[][..], |loaded| loaded.set.left_out());
        report_left_out(&self.name, fetched.set.left_out(), known);
        network
            .radar
            .note(&self.name, &mut fetched.set, clock::wall());
        let count = fetched.set.keys().len();
        let lost_a_key = network.store.install(fetched, now);
        tracing::debug!(issuer = %self.name, keys = count, lost_a_key, "key set fetched");
    }

    /// Keeps the set in force for the next process. A disk that fails is told once, and tried again.
    async fn shelve(&self, network: &Network) {
        let Some(shelf) = network.shelf.clone() else {
            return;
        };
        let now = clock::now();
        let raw = match network.store.current(now) {
            Some(guard) => guard.as_ref().map(|loaded| loaded.raw.clone()),
            None => None,
        };
        let Some(raw) = raw else { return };
        let wall = clock::wall();
        let is_there = network.shelved.lock().as_ref().is_some_and(|(kept, at)| {
            let young = wall.duration_since(*at);
            *kept == raw && young.is_ok_and(|age| age < SHELVED_FOR)
        });
        if is_there {
            return;
        }
        let bytes = raw.clone();
        let kept = task::blocking("keep a key set", move || shelf.keep(&bytes, wall)).await;
        match kept {
            Ok(Ok(())) => *network.shelved.lock() = Some((raw, wall)),
            Ok(Err(why)) => {
                tracing::warn!(issuer = %self.name, error = %why, "key set not kept in `state_dir`");
            }
            Err(why) => tracing::warn!(issuer = %self.name, error = %why, "key set not kept"),
        }
    }

    pub(in crate::authn) fn check_algorithm(&self, jws: &Jws<'_>) -> Result<(), Rejection> {
        if self.algorithms.contains(&jws.header.algorithm) {
            return Ok(());
        }
        Err(refused(
            Reason::TokenAlgorithm,
            "the issuer may not sign with this algorithm",
        ))
    }

    /// Finds the key and verifies the signature, asking for a newer set where the key is unknown. Returns the
    /// generation of the key set that vouched for it.
    pub(in crate::authn) async fn check_signature(
        &self,
        jws: &Jws<'_>,
        wall: SystemTime,
    ) -> Result<u64, Rejection> {
        let verdict = match self.check_with_present_keys(jws, wall) {
            Err(Unsettled::UnknownKid(network)) => {
                tracing::debug!(issuer = %self.name, "unknown kid");
                self.ask_for_key(network, jws, wall).await
            }
            Err(Unsettled::Refused(why)) => Err(why),
            Ok(generation) => Ok(generation),
        };
        if let (Err(why), Some(network)) = (&verdict, self.network())
            && matches!(why.reason(), Reason::TokenKey | Reason::TokenSignature)
        {
            let kid = jws.header.kid.as_deref();
            let algorithm = jws.header.algorithm;
            let signed_by =
                |key: &Key| key.verifies(algorithm) && is_signed_with(key.decoding(), jws);
            network.radar.refused(&self.name, kid, signed_by, wall);
        }
        verdict
    }

    /// The same with the keys at hand.
    pub(super) fn check_with_present_keys(
        &self,
        jws: &Jws<'_>,
        wall: SystemTime,
    ) -> Result<u64, Unsettled<'_>> {
        let network = match &self.keys {
            Keys::None => {
                return Err(refused(Reason::TokenKey, "the issuer has no keys here").into());
            }
            Keys::Secrets { secrets, .. } => {
                let good = secrets.iter().any(|secret| is_signed_with(secret, jws));
                return Ok(verified(good, 0)?);
            }
            Keys::File { loaded, .. } => {
                let verdict = check_with(loaded, jws, wall);
                return Ok(verdict.unwrap_or_else(|| Err(unknown_kid()))?);
            }
            Keys::Remote(network) => network,
        };
        let now = clock::now();
        let current = network
            .store
            .current(now)
            .ok_or_else(|| self.unavailable(now))?;
        match current
            .as_ref()
            .and_then(|loaded| check_with(loaded, jws, wall))
        {
            Some(verdict) => Ok(verdict?),
            None => Err(Unsettled::UnknownKid(network)),
        }
    }

    async fn ask_for_key(
        &self,
        network: &Network,
        jws: &Jws<'_>,
        wall: SystemTime,
    ) -> Result<u64, Rejection> {
        let kid = jws.header.kid.as_deref().unwrap_or_default();
        let store = &network.store;
        match store.newer(kid, clock::now()).await {
            Answer::Newer(loaded) => check_with(&loaded, jws, wall).unwrap_or_else(|| {
                store.remember_absent(kid, clock::now());
                Err(unknown_kid())
            }),
            Answer::Absent => Err(unknown_kid()),
            Answer::Unavailable => Err(self.unavailable(clock::now())),
        }
    }

    /// Refuses to go on with keys that have outlived their time, where the route demands that.
    pub(in crate::authn) fn check_age_of_keys(
        &self,
        demands: &TokenDemands,
    ) -> Result<(), Rejection> {
        if !demands.refuses_outlived_keys {
            return Ok(());
        }
        let now = clock::now();
        match self.store() {
            Some(store) if store.is_outlived(now) => Err(self.unavailable(now)),
            _ => Ok(()),
        }
    }

    pub(super) fn unavailable(&self, now: Instant) -> Rejection {
        let wait = self.due().map(|due| due.saturating_duration_since(now));
        Rejection::because(
            Reason::KeysUnavailable,
            format!("issuer `{}`: {:?}", self.name, self.state(now)),
        )
        .retry_after(wait.unwrap_or_default().max(Duration::from_secs(1)))
        .policy(&self.name)
    }

    /// The generation of the keys in force; `None` when there are none.
    pub(super) fn generation(&self) -> Option<u64> {
        match &self.keys {
            Keys::None => None,
            Keys::Secrets { .. } | Keys::File { .. } => Some(0),
            Keys::Remote(network) => {
                let current = network.store.current(clock::now())?;
                current.as_ref().map(|loaded| loaded.generation)
            }
        }
    }

    pub(in crate::authn) fn network(&self) -> Option<&Network> {
        match &self.keys {
            Keys::Remote(network) => Some(network),
            Keys::None | Keys::Secrets { .. } | Keys::File { .. } => None,
        }
    }

    pub(super) fn store(&self) -> Option<&Store> {
        self.network().map(|network| &network.store)
    }

    fn due(&self) -> Option<Instant> {
        self.store().map(Store::due)
    }
}

/// A signature that the keys at hand do not vouch for.
pub(super) enum Unsettled<'k> {
    /// It is bad, or there are no keys.
    Refused(Rejection),
    /// Its key is not among them; a newer set may hold it.
    UnknownKid(&'k Network),
}

impl From<Rejection> for Unsettled<'_> {
    fn from(why: Rejection) -> Self {
        Self::Refused(why)
    }
}

/// Logs what a key set holds in vain; each entry once, not at every refresh.
pub(in crate::authn) fn report_left_out(issuer: &str, left_out: &[LeftOut], known: &[LeftOut]) {
    for entry in left_out.iter().filter(|entry| !known.contains(entry)) {
        if entry.why.is_harmless() {
            tracing::debug!(issuer, "key set: {entry}; left out");
        } else {
            tracing::warn!(issuer, "key set: {entry}; left out");
        }
    }
}

/// The verdict of a key set on a signature; `None` when it does not know the `kid` and a newer set might.
fn check_with(loaded: &Loaded, jws: &Jws<'_>, wall: SystemTime) -> Option<Result<u64, Rejection>> {
    let header = &jws.header;
    match loaded.set.find(header.kid.as_deref(), header.algorithm) {
        Ok(key) => {
            let good = is_signed_with(key.decoding(), jws);
            if good {
                key.sighting().used(wall);
            }
            Some(verified(good, loaded.generation))
        }
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

fn unknown_kid() -> Rejection {
    refused(Reason::TokenKey, "`kid` is unknown")
}
