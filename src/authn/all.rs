//! `all`: every credential is demanded, and all of one user. Where they differ, the gateway would speak of one user and
//! the backend might act for the other.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;

use super::extract::{self, Credential};
use super::{Demand, identify_token, missing};
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
        let credentials = extract::find_all(headers, self.wanted())?.ok_or_else(missing)?;
        let mut caller: Option<Principal> = None;
        for credential in credentials {
            let principal = match credential {
                Credential::Bearer(token) => identify_token(&self.issuers, token, wall).await?,
                Credential::Cookie { position, value } => {
                    let session = self.sessions.get(position).ok_or_else(missing)?;
                    session.identify(pools, value, wall).await?
                }
            };
            caller = Some(match caller {
                Some(known) if known.facts.user != principal.facts.user => {
                    return Err(Rejection::because(
                        Reason::CredentialAmbiguous,
                        "the credentials are of different users",
                    ));
                }
                Some(known) if principal.source != *first => known,
                _ => principal,
            });
        }
        caller.ok_or_else(missing)
    }
}
