//! Who the caller is.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};

/// The caller as authentication found it. Cheap to clone: the claims are shared.
#[derive(Clone, Debug)]
pub struct Principal {
    /// How the caller was recognised.
    pub method: AuthMethod,
    /// Name of the issuer or session (as configured) that vouches for the caller; empty for anonymous.
    pub source: Arc<str>,
    /// The facts; one allocation shared with the verified-token cache.
    pub facts: Arc<PrincipalFacts>,
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
}

impl AuthMethod {
    /// The value of `x-auth-method` and of the log field.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Jwt => "jwt",
            Self::Session => "session",
        }
    }
}

impl Principal {
    /// The caller of a route that asks for no credential.
    #[must_use]
    pub fn anonymous() -> Self {
        static NOBODY: std::sync::LazyLock<(Arc<str>, Arc<PrincipalFacts>)> =
            std::sync::LazyLock::new(|| (Arc::from(""), Arc::default()));
        Self {
            method: AuthMethod::Anonymous,
            source: Arc::clone(&NOBODY.0),
            facts: Arc::clone(&NOBODY.1),
        }
    }

    /// Whether the caller showed a credential that was accepted.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.method != AuthMethod::Anonymous
    }
}
