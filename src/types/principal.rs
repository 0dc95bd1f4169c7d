//! Who the caller is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::memo::Kept;

/// The caller as authentication found it. Cheap to clone: the claims are shared.
#[derive(Clone, Debug)]
pub struct Principal {
    /// How the caller was recognised.
    pub method: AuthMethod,
    /// Name of the issuer or session (as configured) that vouches for the caller; empty for anonymous.
    pub source: Arc<str>,
    /// The facts; one allocation shared with the verified-token cache.
    pub facts: Arc<PrincipalFacts>,
    /// Where every credential of a request was demanded, what the others say: the caller is known as long as all are good.
    pub beside: Option<Arc<Vec<Arc<PrincipalFacts>>>>,
}

/// What the credential says, in the gateway's own words.
#[derive(Clone, Debug, Default)]
pub struct PrincipalFacts {
    /// User id (`sub`).
    pub user: String,
    /// Organisation or tenant.
    pub org: Option<String>,
    /// E-mail address.
    pub email: Option<String>,
    /// Roles, in the order in which the credential lists them.
    pub roles: Vec<String>,
    /// OAuth scopes or backend permissions.
    pub scopes: Vec<String>,
    /// Every claim, for rules.
    pub claims: Map<String, Value>,
    /// When the credential ends, if it says so.
    pub expires_at: Option<SystemTime>,
    /// By what the credential is recognised when it ends early.
    pub mark: Option<Mark>,
    /// What was made of these facts, and holds as long as they do.
    pub kept: Kept,
}

/// By what a credential is recognised when it ends while a stream that it opened goes on. Hashes, no names.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The issuer or session that learns of its end, by its name in the configuration.
    pub keeper: Arc<str>,
    /// The credential itself.
    pub credential: [u8; 32],
    /// Its user.
    pub user: Option<[u8; 32]>,
    /// The login that it belongs to.
    pub login: Option<[u8; 32]>,
    /// When it was issued, in seconds since the epoch; before everything where that is not known.
    pub issued: f64,
    /// How long beyond its end it is accepted.
    pub leeway: Duration,
}

impl PrincipalFacts {
    /// Whether the credential has ended at `wall`, `leeway` forgiven.
    #[must_use]
    pub fn has_ended(&self, wall: SystemTime, leeway: Duration) -> bool {
        let end = self.expires_at.and_then(|exp| exp.checked_add(leeway));
        end.is_some_and(|end| wall >= end)
    }

    /// The claim at `path`; see [`claim_at`].
    #[must_use]
    pub fn claim(&self, path: &str) -> Option<&Value> {
        claim_at(&self.claims, path)
    }
}

/// Finds `path` among `claims`. A claim of exactly that name comes first, whatever dots and colons it holds
/// (`urn:zitadel:iam:org:project:roles`, `https://example.com/role`); otherwise dots walk into objects.
#[must_use]
pub fn claim_at<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(whole) = claims.get(path) {
        return Some(whole);
    }
    path.match_indices('.').find_map(|(dot, _)| {
        let (name, rest) = (path.get(..dot)?, path.get(dot + 1..)?);
        claim_at(claims.get(name)?.as_object()?, rest)
    })
}

/// How a caller was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// No credential was asked for.
    Anonymous,
    /// A signed token.
    Jwt,
    /// A session that the backend confirmed.
    Session,
    /// A token that its issuer was asked about.
    Introspection,
}

impl AuthMethod {
    /// The value of `x-auth-method` and of the log field.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Jwt => "jwt",
            Self::Session => "session",
            Self::Introspection => "introspection",
        }
    }
}

impl Principal {
    /// The caller of a route that asks for no credential.
    #[must_use]
    pub fn anonymous() -> Self {
        thread_local! {
            // One a thread: workers would quarrel over the counts of a shared one.
            static NOBODY: Principal = Principal {
                method: AuthMethod::Anonymous,
                source: Arc::from(""),
                facts: Arc::default(),
                beside: None,
            };
        }
        NOBODY.with(Self::clone)
    }

    /// What each credential says that the caller showed.
    pub fn all_facts(&self) -> impl Iterator<Item = &Arc<PrincipalFacts>> {
        let beside = self.beside.iter().flat_map(|beside| beside.iter());
        std::iter::once(&self.facts).chain(beside)
    }

    /// Whether the caller showed a credential that was accepted.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.method != AuthMethod::Anonymous
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(path: &str, expected: impl Into<Option<Value>>) {
        let claims = json!({
            "org": "42",
            "a": { "b": { "c": 1 }, "x.y": 2 },
            "a.b": "whole",
            "urn:p:roles": { "admin": {} },
            "https://example.com/of": { "role": "r" },
        });
        let claims = claims.as_object().unwrap();
        assert_eq!(claim_at(claims, path), expected.into().as_ref(), "{path}");
    }

    #[test]
    fn a_claim_is_found_by_its_whole_name_before_dots_walk() {
        check("org", json!("42"));
        check("a.b", json!("whole"));
        check("a.b.c", json!(1));
        check("a.x.y", json!(2));
        check("urn:p:roles", json!({ "admin": {} }));
        check("https://example.com/of.role", json!("r"));
    }

    #[test]
    fn a_path_that_leads_nowhere_finds_nothing() {
        for path in ["", ".", "a.", ".a", "a..b", "org.x", "none"] {
            check(path, None);
        }
    }
}
