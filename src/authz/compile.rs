//! From a route's `auth` and `from` to its rules.

use super::rule::{Demand, Gate, Rules};
use super::when::When;
use crate::config::{Auth, AuthRules, KeyPath, Problems, Route};
use crate::types::CidrSet;

impl Rules {
    /// Compiles the rules of `route`, which stands at `path`.
    pub fn compile(route: &Route, path: &KeyPath, problems: &mut Problems) -> Option<Self> {
        let gate = match &route.auth {
            Auth::None => Gate::Open,
            Auth::Deny => Gate::Closed,
            Auth::Rules(rules) => known(rules, &path.key("auth"), problems)?,
        };
        Some(Self {
            networks: CidrSet::new(route.from.iter().copied()),
            client_certs: None,
            gate,
        })
    }
}

fn known(rules: &AuthRules, path: &KeyPath, problems: &mut Problems) -> Option<Gate> {
    let mut demands = Vec::new();
    if !rules.roles.is_empty() {
        demands.push(Demand::Roles(rules.roles.clone().into()));
    }
    if !rules.scopes.is_empty() {
        demands.push(Demand::Scopes {
            scopes: rules.scopes.clone().into(),
            written: rules.scopes.join(" ").into(),
        });
    }
    for (claim, values) in &rules.claims {
        if values.0.is_empty() {
            problems.push(
                &path.key("claims").key(claim),
                "lists no value: nobody could pass",
            );
            return None;
        }
        demands.push(Demand::Claim {
            path: claim.clone(),
            values: values.0.clone().into(),
        });
    }
    if !rules.aal.is_empty() {
        demands.push(Demand::Claim {
            path: "aal".to_owned(),
            values: rules.aal.clone().into(),
        });
    }
    if let Some(odd) = rules.scopes.iter().find(|scope| !is_scope(scope)) {
        problems.push(&path.key("scopes"), format!("`{odd}` is no scope"));
        return None;
    }
    if rules.optional && !demands.is_empty() {
        problems.push_with_help(
            &path.key("optional"),
            "a caller without credential meets no demand of roles, scopes, claims or aal",
            Some("make two routes of it".to_owned()),
        );
        return None;
    }
    // Last, because it is the dearest, and not held against `optional`: a rule can speak of who shows no credential.
    if let Some(source) = &rules.when {
        match When::compile(source) {
            Ok(when) => demands.push(Demand::When(when)),
            Err(why) => {
                problems.push(&path.key("when"), why);
                return None;
            }
        }
    }
    Some(Gate::Known {
        optional: rules.optional,
        demands: demands.into(),
    })
}

/// RFC 6749 section 3.3; anything else could not stand in `WWW-Authenticate`.
fn is_scope(scope: &str) -> bool {
    !scope.is_empty()
        && scope
            .bytes()
            .all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}
