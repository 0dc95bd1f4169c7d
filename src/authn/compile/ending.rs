//! `revokes` and `backchannel_logout` of a route: what ends by its good answers, or by an issuer's word.

use std::sync::Arc;

use super::route::Named;
use crate::authn::issuer::Keys;
use crate::authn::{Authorities, Logout, Revokes};
use crate::config::{self, BackchannelLogout, KeyPath, Problems};

impl Revokes {
    /// Compiles what the good answers of a route end. `path` is that of `revokes`.
    pub fn compile(
        revokes: &config::Revokes,
        path: &KeyPath,
        authorities: &Authorities,
        problems: &mut Problems,
    ) -> Option<Self> {
        let path = path.key("any");
        if revokes.any.is_empty() {
            problems.push(&path, "is empty: nothing would end");
            return None;
        }
        let named = Named::find(&revokes.any, false, &path, authorities, problems)?;
        Some(Self {
            places: named.places(&path, problems)?,
            issuers: named.issuers.into(),
            sessions: named.sessions.into(),
            user: revokes.user,
        })
    }
}

impl Logout {
    /// Compiles the endpoint for an issuer's logout tokens. `path` is that of `backchannel_logout`.
    pub fn compile(
        logout: &BackchannelLogout,
        path: &KeyPath,
        authorities: &Authorities,
        problems: &mut Problems,
    ) -> Option<Self> {
        if logout.audiences.iter().any(String::is_empty) {
            problems.push(&path.key("audiences"), "an audience is empty");
        }
        let path = path.key("issuer");
        let known = &authorities.issuers;
        let Some(issuer) = known.get(&logout.issuer) else {
            if !authorities.broken.contains(&logout.issuer) {
                let known = known.keys().map(String::as_str);
                problems.unknown_name(&path, "issuer", &logout.issuer, known);
            }
            return None;
        };
        if matches!(issuer.keys, Keys::None) {
            problems.push(&path, "has no keys that could verify a logout token");
            return None;
        }
        if logout.audiences.is_empty() && issuer.terms.audiences.is_empty() {
            problems.push(
                &path,
                "has no audiences, so `audiences` must name those of its logout tokens",
            );
            return None;
        }
        Some(Self {
            issuer: Arc::clone(issuer),
            audiences: logout.audiences.clone().into(),
        })
    }
}
