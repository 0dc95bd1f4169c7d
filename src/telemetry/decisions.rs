//! The last refusals, so that an operator who was given a decision id can ask what it was. Bounded; nothing in it is
//! secret: what a refusal's detail may say is what the access log says.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::stamp;
use crate::types::{Reason, Rejection};

/// How many are kept.
pub const MOST: usize = 4_096;
/// Bytes of a detail that are kept.
const MOST_DETAIL: usize = 512;

/// A refusal.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The id that the client was told.
    pub id: HeaderValue,
    /// When.
    pub time: SystemTime,
    /// The listener.
    pub listener: Arc<str>,
    /// The route, if one matched.
    pub route: Option<Arc<str>>,
    /// Why.
    pub reason: Reason,
    /// Why exactly.
    pub detail: Box<str>,
    /// The limit, issuer or session that refused.
    pub policy: Option<Arc<str>>,
}

/// The last refusals of the process.
#[derive(Default)]
pub struct Decisions {
    ring: Mutex<VecDeque<Decision>>,
}

impl Decision {
    /// What is kept of `why`.
    #[must_use]
    pub fn of(
        id: HeaderValue,
        time: SystemTime,
        listener: Arc<str>,
        route: Option<Arc<str>>,
        why: &Rejection,
    ) -> Self {
        let detail = why.detail();
        let end = (0..=MOST_DETAIL.min(detail.len())).rev();
        let end = end.into_iter().find(|end| detail.is_char_boundary(*end));
        Self {
            id,
            time,
            listener,
            route,
            reason: why.reason(),
            detail: detail.get(..end.unwrap_or(0)).unwrap_or_default().into(),
            policy: why.policy_name().cloned(),
        }
    }

    /// As the admin listener tells it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut time = Vec::new();
        stamp::write(&mut time, self.time);
        json!({
            "id": self.id.to_str().unwrap_or_default(),
            "time": String::from_utf8_lossy(&time),
            "listener": &*self.listener,
            "route": self.route.as_deref(),
            "reason": self.reason.code(),
            "status": self.reason.status().as_u16(),
            "title": self.reason.title(),
            "detail": &*self.detail,
            "policy": self.policy.as_deref(),
        })
    }
}

impl Decisions {
    /// Keeps a refusal; the oldest goes for it.
    pub fn keep(&self, decision: Decision) {
        let mut ring = self.ring.lock();
        if ring.len() >= MOST {
            ring.pop_front();
        }
        ring.push_back(decision);
    }

    /// The refusal of this id, if it is among the last.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Decision> {
        let ring = self.ring.lock();
        ring.iter()
            .rev()
            .find(|decision| decision.id == id)
            .cloned()
    }
}

impl fmt::Debug for Decisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decisions")
            .field("count", &self.ring.lock().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(id: usize) -> Decision {
        let why = Rejection::because(Reason::Forbidden, "ä".repeat(MOST_DETAIL));
        let id = HeaderValue::from(id);
        Decision::of(id, SystemTime::UNIX_EPOCH, "public".into(), None, &why)
    }

    #[test]
    fn the_last_refusals_are_found_and_the_oldest_go() {
        let decisions = Decisions::default();
        for id in 0..=MOST {
            decisions.keep(decision(id));
        }
        assert!(decisions.find("0").is_none());
        let found = decisions.find("1").unwrap();
        assert_eq!(found.reason, Reason::Forbidden);
        assert!(found.detail.len() <= MOST_DETAIL);
        assert_eq!(found.to_json()["time"], "1970-01-01T00:00:00.000Z");
    }
}
