//! Revocations as messages between replicas. The store signs and bounds them; here is what they say.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Authorities;
use super::cache::Fingerprint;
use super::revoke::{Ended, Relay, Revocation};
use crate::store::Store;

impl Relay for Store {
    fn publish(&self, revocation: &Revocation) {
        self.bulletin().publish(&revocation.encode());
    }
}

impl Authorities {
    /// Ends here what another replica has told; `false` for a message that makes no sense.
    pub async fn revoke_told(&self, message: &[u8], wall: SystemTime) -> bool {
        let Some(revocation) = Revocation::decode(message) else {
            return false;
        };
        self.revoke_here(&revocation, wall).await;
        true
    }
}

/// What stands between the words of a message; the last word, the source, may hold it.
const GAP: char = ' ';

impl Revocation {
    /// Kind, hash, moment of the cut in milliseconds, second until which it counts, source.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, print, before) = match self.what {
            Ended::Token(print) => ("token", print, UNIX_EPOCH),
            Ended::Answer(print) => ("answer", print, UNIX_EPOCH),
            Ended::User(print, before) => ("user", print, before),
            Ended::Login(print, before) => ("login", print, before),
            Ended::UserWithoutLogin(print, before) => ("user_without_login", print, before),
        };
        let print: String = print.iter().map(|byte| format!("{byte:02x}")).collect();
        let (before, until) = (since_epoch(before).as_millis(), since_epoch(self.until));
        // Rounded up: to remember a second longer costs nothing.
        let until = until.as_secs() + u64::from(until.subsec_nanos() > 0);
        format!("{kind} {print} {before} {until} {}", self.source).into_bytes()
    }

    /// What [`Self::encode`] has written; `None` for anything else.
    #[must_use]
    pub fn decode(message: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(message).ok()?.splitn(5, GAP);
        let mut word = || words.next().filter(|word| !word.is_empty());
        let (kind, print) = (word()?, fingerprint_of(word()?)?);
        let before = UNIX_EPOCH.checked_add(Duration::from_millis(number(word()?)?))?;
        let until = UNIX_EPOCH.checked_add(Duration::from_secs(number(word()?)?))?;
        let what = match kind {
            "token" => Ended::Token(print),
            "answer" => Ended::Answer(print),
            "user" => Ended::User(print, before),
            "login" => Ended::Login(print, before),
            "user_without_login" => Ended::UserWithoutLogin(print, before),
            _ => return None,
        };
        Some(Self {
            source: Arc::from(word()?),
            what,
            until,
        })
    }
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn number(word: &str) -> Option<u64> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|_| digits)
}

fn fingerprint_of(word: &str) -> Option<Fingerprint> {
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut print = [0; 32];
    if word.len() != 2 * print.len() {
        return None;
    }
    for (byte, pair) in print.iter_mut().zip(word.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(print)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        let print = core::array::from_fn(|at| u8::try_from(at * 8).unwrap());
        let before = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        for what in [
            Ended::Token(print),
            Ended::Answer(print),
            Ended::User(print, before),
            Ended::Login(print, before),
            Ended::UserWithoutLogin(print, before),
        ] {
            let revocation = Revocation {
                source: Arc::from("my issuer"),
                what,
                until: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            };
            assert_eq!(Revocation::decode(&revocation.encode()), Some(revocation));
        }
    }

    #[test]
    fn what_is_no_revocation_is_none() {
        let print = "0".repeat(64);
        let good = format!("user {print} 1 2 main");
        assert!(Revocation::decode(good.as_bytes()).is_some());
        for bad in [
            String::new(),
            format!("admin {print} 1 2 main"),
            format!("user {} 1 2 main", "0".repeat(63)),
            format!("user {} 1 2 main", "é".repeat(32)),
            format!("user {print} -1 2 main"),
            format!("user {print} 1 +2 main"),
            format!("user {print} 1 99999999999999999999999 main"),
            format!("user {print} 1 2 "),
            format!("user {print} 1 2"),
            format!("user  {print} 1 2 main"),
        ] {
            assert_eq!(Revocation::decode(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Revocation::decode(&bytes);
        }
    }
}
