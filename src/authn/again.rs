//! Asks again about credentials that do not say when they end, while streams that they opened go on: a session may end at
//! its backend, and a token at its issuer, without a word that passes by here.
//!
//! A request keeps a share of the fields in which its credentials stand, no copy; what is short costs nothing else. What
//! is asked goes the way of every request, so that its answer is kept, and asked for once however many streams wait.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::sleep_until;

use super::{Authn, extract};
use crate::types::{AuthMethod, Principal, clock};
use crate::upstream::Pools;

/// The fields in which the credentials of a request stand.
#[derive(Clone)]
pub struct Keepsake {
    first: (HeaderName, HeaderValue),
    /// Where every credential is demanded, the others.
    rest: Vec<(HeaderName, HeaderValue)>,
}

impl Authn {
    /// What to keep of a request in order to ask about its credentials again; nothing of one whose credential says itself
    /// when it ends.
    #[must_use]
    pub fn keepsake(&self, principal: &Principal, headers: &HeaderMap) -> Option<Keepsake> {
        let is_asked_about = principal.beside.is_some()
            || matches!(
                principal.method,
                AuthMethod::Session | AuthMethod::Introspection
            );
        let demand = self.demand.as_ref().filter(|_| is_asked_about)?;
        let mut fields = extract::fields(headers, demand.places.wanted());
        Some(Keepsake {
            first: fields.next()?,
            rest: fields.collect(),
        })
    }

    /// Ready when nobody vouches for `principal` any more. Asks after `every` such time, or up to an eighth later, so that
    /// streams that began together do not ask together. Whoever cannot be asked is no reason to end anything.
    pub async fn forsaken(
        &self,
        pools: &Pools,
        keepsake: Keepsake,
        principal: &Principal,
        every: Duration,
    ) {
        let headers = keepsake.into_headers();
        loop {
            sleep_until((clock::now() + spread(every)).into()).await;
            match self.identify(pools, &headers, clock::wall()).await {
                Ok(now) if now.facts.user == principal.facts.user => {}
                // The credential is somebody else's by now.
                Ok(_) => return,
                Err(why) if why.reason().status().is_client_error() => return,
                Err(why) => tracing::debug!(
                    source = %principal.source,
                    reason = why.reason().code(),
                    "a stream goes on: its credential cannot be asked about"
                ),
            }
        }
    }
}

impl Keepsake {
    /// The same as copies, for what lasts: a share holds whatever else was read together with it.
    #[must_use]
    pub fn settled(self) -> Self {
        let copied = |(name, value): (HeaderName, HeaderValue)| {
            let copy = HeaderValue::from_bytes(value.as_bytes());
            let mut value = copy.unwrap_or(value);
            value.set_sensitive(true);
            (name, value)
        };
        Self {
            first: copied(self.first),
            rest: self.rest.into_iter().map(copied).collect(),
        }
    }

    fn into_headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in std::iter::once(self.first).chain(self.rest) {
            headers.append(name, value);
        }
        headers
    }
}

impl fmt::Debug for Keepsake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keepsake").finish_non_exhaustive()
    }
}

fn spread(every: Duration) -> Duration {
    let mut chance = [0];
    // Without chance streams ask at the same time, and nothing else is wrong.
    let _ = aws_lc_rs::rand::fill(&mut chance);
    let [chance] = chance;
    every + every / 8 * u32::from(chance) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_ask_after_their_time_and_not_much_later() {
        let every = Duration::from_secs(30);
        for _ in 0..1_000 {
            let pause = spread(every);
            assert!((every..=every + every / 8).contains(&pause), "{pause:?}");
        }
    }
}
