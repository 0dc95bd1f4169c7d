//! What an operator may read of the issuers, for the admin listener.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::Snapshot;
use crate::authn::Issuer;
use crate::authn::jwks::radar::KeyFacts;

impl Snapshot {
    /// Every issuer by name: the state of its keys, why it could not be asked last, and the keys it was seen with.
    #[must_use]
    pub fn issuers(&self, now: Instant) -> Map<String, Value> {
        let issuers = self.authorities.issuers.values();
        issuers
            .map(|issuer| (issuer.name().to_string(), status(issuer, now)))
            .collect()
    }
}

impl Snapshot {
    /// The store that replicas share; null where there is none.
    #[must_use]
    pub fn store_status(&self) -> Value {
        let Some(store) = &self.store else {
            return Value::Null;
        };
        let status = store.status();
        json!({
            "up": status.up,
            "lines": status.lines,
            "open_circuits": status.open,
            "last_error": status.last_error,
        })
    }
}

fn status(issuer: &Issuer, now: Instant) -> Value {
    json!({
        "state": issuer.state(now).as_str(),
        "age_seconds": issuer.age().map(|age| age.as_secs()),
        "last_error": issuer.last_error().as_deref(),
        "keys": issuer.key_facts().iter().map(key).collect::<Vec<_>>(),
    })
}

fn key(facts: &KeyFacts) -> Value {
    json!({
        "kid": facts.kid,
        "first_seen": facts.first_seen,
        "last_used": (facts.last_used > 0).then_some(facts.last_used),
        "vanished": facts.vanished,
    })
}
