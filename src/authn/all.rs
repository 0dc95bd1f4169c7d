//! `all`: every credential is demanded, and all of one user. Where they differ, the gateway would speak of one user and
//! the backend might act for the other.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;

use super::extract;
use super::{Demand, missing};
use crate::types::{Principal, Reason, Rejection};
use crate::upstream::Pools;

impl Demand {
    /// The caller as `first` knows it, once everybody has vouched.
    pub(super) async fn identify_all(
        &self,
        first: &Arc<str>,
        pools: &Pools,
        headers: &HeaderMap,
        wall: SystemTime,
    ) -> Result<Principal, Rejection> {
        let credentials = extract::find_all(headers, self.places.wanted())?.ok_or_else(missing)?;
        let mut found = Vec::with_capacity(credentials.len());
        for credential in credentials {
            found.push(self.identify(credential, pools, wall).await?);
        }
        one_caller(found, first)
    }
}

/// The caller whom everybody in `found` vouches for, as `first` knows it.
pub(super) fn one_caller(
    mut found: Vec<Principal>,
    first: &Arc<str>,
) -> Result<Principal, Rejection> {
    let (known, others) = found.split_first().ok_or_else(missing)?;
    let user = &known.facts.user;
    // Two that do not say whose they are may be of two users.
    let is_other = |one: &Principal| user.is_empty() || one.facts.user != *user;
    if others.iter().any(is_other) {
        return Err(Rejection::because(
            Reason::CredentialAmbiguous,
            "the credentials are of different users, or of nobody in particular",
        ));
    }
    let is_first = |one: &Principal| one.source == *first;
    let position = found.iter().position(is_first).unwrap_or_default();
    let mut caller = found.swap_remove(position);
    let beside: Vec<_> = found.into_iter().map(|one| one.facts).collect();
    caller.beside = (!beside.is_empty()).then(|| Arc::new(beside));
    Ok(caller)
}
