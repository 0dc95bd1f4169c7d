//! The requests behind the numbers: for a refusal or a slow answer that was counted, the id of the last one. It is the
//! decision id that `/decisions/ID` and `vestibule explain ID` know, and the request id of the log.
//!
//! An answer that is neither refused nor slow pays one comparison. Nothing is allocated per request, and nobody waits:
//! where two workers meet, one of the two ids is enough.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use parking_lot::Mutex;

use crate::types::Reason;

/// One request, behind one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Exemplar {
    id: [u8; ID],
    /// What it added to the number.
    pub(super) value: f64,
    pub(super) at: SystemTime,
}

/// Request ids are 32 hexadecimal digits.
const ID: usize = 32;

/// From here on an answer is slow.
pub(super) const SLOW: Duration = Duration::from_millis(100);

impl Exemplar {
    /// `None` for an id that is none of ours: a label's value must be known to be harmless.
    fn of(id: &HeaderValue, value: f64, at: SystemTime) -> Option<Self> {
        let id: [u8; ID] = id.as_bytes().try_into().ok()?;
        let is_ours = id.iter().all(u8::is_ascii_hexdigit);
        is_ours.then_some(Self { id, value, at })
    }

    pub(super) fn id(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// Of two, the one that was seen later.
    pub(super) fn later(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(if other.at >= one.at { other } else { one }),
            (one, other) => one.or(other),
        }
    }
}

/// The last refusal for each reason that ever was one.
#[derive(Default)]
pub(super) struct LastRefused(Mutex<Vec<(Reason, Exemplar)>>);

impl LastRefused {
    pub(super) fn keep(&self, reason: Reason, id: &HeaderValue, at: SystemTime) {
        let Some(exemplar) = Exemplar::of(id, 1.0, at) else {
            return;
        };
        let Some(mut last) = self.0.try_lock() else {
            return;
        };
        match last.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, kept)) => *kept = exemplar,
            None => last.push((reason, exemplar)),
        }
    }

    pub(super) fn find(&self, reason: Reason) -> Option<Exemplar> {
        let last = self.0.lock();
        let found = last.iter().find(|(known, _)| *known == reason);
        found.map(|(_, exemplar)| *exemplar)
    }
}

impl fmt::Debug for LastRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastRefused").finish_non_exhaustive()
    }
}

/// The last slow answer in each bucket of a distribution.
#[derive(Default)]
pub(super) struct LastSlow(Mutex<Vec<(usize, Exemplar)>>);

impl LastSlow {
    /// `bucket` is the place of the first bound that the value does not exceed; one past the last for none.
    pub(super) fn keep(&self, bucket: usize, value: f64, id: &HeaderValue, at: SystemTime) {
        let Some(exemplar) = Exemplar::of(id, value, at) else {
            return;
        };
        let Some(mut last) = self.0.try_lock() else {
            return;
        };
        match last.iter_mut().find(|(known, _)| *known == bucket) {
            Some((_, kept)) => *kept = exemplar,
            None => last.push((bucket, exemplar)),
        }
    }

    pub(super) fn each(&self) -> Vec<(usize, Exemplar)> {
        self.0.lock().clone()
    }
}

impl fmt::Debug for LastSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastSlow").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    #[test]
    fn the_last_one_of_a_kind_is_kept_and_no_more() {
        let last = LastRefused::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        last.keep(Reason::Forbidden, &id(&"a".repeat(32)), at(1));
        last.keep(Reason::Forbidden, &id(&"b".repeat(32)), at(2));
        last.keep(Reason::RateLimited, &id(&"c".repeat(32)), at(3));
        assert_eq!(last.find(Reason::Forbidden).unwrap().id(), "b".repeat(32));
        assert_eq!(last.find(Reason::NoRoute), None);
        let slow = LastSlow::default();
        for round in 0..1_000 {
            slow.keep(round % 3, 0.2, &id(&"d".repeat(32)), at(4));
        }
        assert_eq!(slow.each().len(), 3);
    }

    #[test]
    fn what_is_no_id_of_ours_names_nothing() {
        let last = LastRefused::default();
        for odd in ["-", "", &"z".repeat(32), &"a".repeat(31), &"\"".repeat(32)] {
            last.keep(Reason::Forbidden, &id(odd), SystemTime::UNIX_EPOCH);
        }
        assert_eq!(last.find(Reason::Forbidden), None);
    }

    #[test]
    fn of_two_the_later_counts() {
        let one = |seconds| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            Exemplar::of(&id(&"a".repeat(32)), 1.0, at)
        };
        assert_eq!(Exemplar::later(one(2), one(1)), one(2));
        assert_eq!(Exemplar::later(one(1), one(2)), one(2));
        assert_eq!(Exemplar::later(None, one(1)), one(1));
    }
}
