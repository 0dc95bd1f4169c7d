//! Decides whether one more request of the same key may pass. Whom a request is charged to (its client address, its
//! caller) was decided elsewhere; refusals are rendered elsewhere.
//!
//! A limit counts for the whole process, exactly: all workers share its buckets. It survives reloads for as long as
//! its configuration stays the same.

mod compile;
mod key;
mod rate;
mod store;
mod timer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;

use crate::client_ip::ClientIp;
use crate::config;
use crate::types::{Principal, Reason, Rejection};

use key::KeyPlan;
use rate::{Rate, Verdict};
pub use timer::{Monotonic, Timer};

/// A named bound on the rate of requests of one key.
///
/// Generic over the clock for the tests alone; everybody else means `Limit`.
pub struct Limit<C: Timer = Monotonic> {
    name: Arc<str>,
    written: config::Limit,
    key: KeyPlan,
    rate: Rate<C>,
    allowed: AtomicU64,
    refused: AtomicU64,
}

/// What a key can be made of.
#[derive(Clone, Copy, Debug)]
pub struct KeyInputs<'a> {
    /// The client.
    pub ip: ClientIp,
    /// The route's name; empty before routing.
    pub route: &'a str,
    /// The request's header fields.
    pub headers: &'a HeaderMap,
    /// The caller; `None` before authentication.
    pub principal: Option<&'a Principal>,
}

/// What a limit has decided since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests let through.
    pub allowed: u64,
    /// Requests refused.
    pub refused: u64,
    /// Of both, those that shared the one bucket of the keys beyond `max_keys`.
    pub overflowed: u64,
}

impl<C: Timer> Limit<C> {
    /// The name in the configuration.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether the key names the caller, so that the check belongs after authentication.
    #[must_use]
    pub fn needs_principal(&self) -> bool {
        self.key.needs_principal()
    }

    /// Charges one request to its key.
    ///
    /// # Errors
    ///
    /// [`Reason::RateLimited`] when the key's bucket is empty. A client that waits for the time stated, and that shares
    /// its key with nobody, is let in.
    pub fn check(&self, inputs: &KeyInputs<'_>) -> Result<(), Rejection> {
        match self.rate.take(self.key.of(inputs)) {
            Verdict::Allowed => {
                self.allowed.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Verdict::Wait(wait) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(self.refusal(wait))
            }
        }
    }

    fn refusal(&self, wait: Duration) -> Rejection {
        Rejection::because(Reason::RateLimited, "the bucket of this key is empty")
            .retry_after(wait)
            .policy(&self.name)
    }

    /// Forgets the keys whose buckets are full again. Takes time in proportion to the keys: for the admin thread, every
    /// few seconds.
    pub fn sweep(&self) {
        self.rate.sweep();
    }

    /// How many keys are kept.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.rate.keys()
    }

    /// What was decided so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally {
            allowed: self.allowed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            overflowed: self.rate.overflowed(),
        }
    }
}

impl<C: Timer> fmt::Debug for Limit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("name", &self.name)
            .field("written", &self.written)
            .field("keys", &self.keys())
            .field("tally", &self.tally())
            .finish_non_exhaustive()
    }
}
