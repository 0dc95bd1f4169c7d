//! What a route demands of a caller, and whether a caller meets it.

use std::sync::Arc;

use http::{HeaderMap, Method};
use serde_json::Value;

use super::client_cert::ClientCerts;
use super::permit::Permit;
use super::when::When;
use crate::client_ip::ClientIp;
use crate::types::client_cert::ClientCert;
use crate::types::rejection::Challenge;
use crate::types::{CidrSet, Principal, PrincipalFacts, Reason, Rejection};

/// The rules of one route.
#[derive(Debug)]
pub struct Rules {
    pub(super) networks: CidrSet,
    pub(super) client_certs: Option<ClientCerts>,
    pub(super) gate: Gate,
}

/// How the route's `auth` decides.
#[derive(Debug)]
pub(super) enum Gate {
    /// `"deny"`: closed.
    Closed,
    /// `"none"`: open to everybody in the networks.
    Open,
    /// A table: for callers that authentication knows, who meet every demand.
    Known {
        /// Whether a caller without credential may pass.
        optional: bool,
        /// All of them.
        demands: Box<[Demand]>,
    },
}

/// Each is met by any one of its values.
#[derive(Debug)]
pub(super) enum Demand {
    Roles(Box<[String]>),
    Scopes {
        scopes: Box<[String]>,
        /// As `WWW-Authenticate` writes them.
        written: Arc<str>,
    },
    Claim {
        path: String,
        values: Box<[String]>,
    },
    When(When),
}

/// What a rule may know of a request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// From where it comes.
    pub client: ClientIp,
    /// Its method.
    pub method: &'a Method,
    /// The canonical host, without port.
    pub host: &'a str,
    /// The canonical path.
    pub path: &'a str,
    /// The certificate that was verified on its connection.
    pub client_cert: Option<&'a ClientCert>,
    /// Its headers; rules see those that are neither credentials nor claims about the sender.
    pub headers: &'a HeaderMap,
}

impl Rules {
    /// Whether only some networks may pass.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        !self.networks.is_empty()
    }

    /// The same rules for clients with one of `certs` alone, whatever else they show.
    #[must_use]
    pub fn for_clients_with(self, certs: ClientCerts) -> Self {
        Self {
            client_certs: Some(certs),
            ..self
        }
    }

    /// Decides. The cheapest and most general question comes first: closed, network, certificate, credential, demands.
    ///
    /// # Errors
    /// [`Reason::RouteClosed`], [`Reason::NetworkForbidden`], [`Reason::CredentialMissing`],
    /// [`Reason::Forbidden`] or [`Reason::InsufficientScope`].
    pub fn decide(&self, principal: &Principal, asked: &Asked<'_>) -> Result<Permit, Rejection> {
        if matches!(self.gate, Gate::Closed) {
            return Err(Rejection::new(Reason::RouteClosed));
        }
        self.check_network(asked)?;
        if let Some(certs) = &self.client_certs {
            certs.check(asked.client_cert)?;
        }
        if let Gate::Known { optional, demands } = &self.gate {
            // Authentication has refused this already; asked again, since everything hangs on it.
            if !optional && !principal.is_authenticated() {
                return Err(
                    Rejection::new(Reason::CredentialMissing).challenge(Challenge::default())
                );
            }
            for demand in demands {
                demand.check(&principal.facts, asked)?;
            }
        }
        Ok(Permit::grant())
    }

    /// What [`Rules::decide`] asks of networks, certificates and claims, each with its answer and in the same order: for
    /// whoever explains, never for a request.
    #[must_use]
    pub fn explain(
        &self,
        principal: &Principal,
        asked: &Asked<'_>,
    ) -> Vec<(String, Result<(), Rejection>)> {
        let mut checks = Vec::new();
        if self.is_restricted() {
            checks.push(("network".to_owned(), self.check_network(asked)));
        }
        if let Some(certs) = &self.client_certs {
            let verdict = certs.check(asked.client_cert);
            checks.push(("client certificate".to_owned(), verdict));
        }
        if let Gate::Known { demands, .. } = &self.gate {
            let each = demands.iter();
            checks.extend(each.map(|one| (one.told(), one.check(&principal.facts, asked))));
        }
        checks
    }

    fn check_network(&self, asked: &Asked<'_>) -> Result<(), Rejection> {
        if self.networks.is_empty() || self.networks.contains(asked.client.address()) {
            return Ok(());
        }
        Err(Rejection::because(
            Reason::NetworkForbidden,
            "the client is in none of the route's networks",
        ))
    }
}

impl Demand {
    fn told(&self) -> String {
        match self {
            Self::Roles(roles) => format!("one role of [{}]", roles.join(" ")),
            Self::Scopes { written, .. } => format!("one scope of [{written}]"),
            Self::Claim { path, values } => format!("claim `{path}` with [{}]", values.join(" ")),
            Self::When(_) => "`when`".to_owned(),
        }
    }

    fn check(&self, facts: &PrincipalFacts, asked: &Asked<'_>) -> Result<(), Rejection> {
        match self {
            Self::Roles(roles) if any_of(&facts.roles, roles) => Ok(()),
            Self::Roles(_) => Err(Rejection::because(
                Reason::Forbidden,
                "none of the route's roles",
            )),
            Self::Scopes { scopes, .. } if any_of(&facts.scopes, scopes) => Ok(()),
            Self::Scopes { written, .. } => Err(lacking_scope(written)),
            Self::Claim { path, values } => match facts.claim(path) {
                Some(claim) if holds(claim, values) => Ok(()),
                _ => Err(Rejection::because(
                    Reason::Forbidden,
                    format!("claim `{path}` has none of the route's values"),
                )),
            },
            Self::When(when) => when.check(facts, asked),
        }
    }
}

fn lacking_scope(written: &Arc<str>) -> Rejection {
    let scope = Some(Arc::clone(written));
    Rejection::because(Reason::InsufficientScope, "none of the route's scopes")
        .challenge(Challenge { scope })
}

fn any_of(given: &[String], wanted: &[String]) -> bool {
    wanted.iter().any(|one| given.contains(one))
}

/// Whether `claim` is one of `values`, holds one in its list, or has one among its names (ZITADEL's role maps). A name
/// whose value is `false` or null is not given.
fn holds(claim: &Value, values: &[String]) -> bool {
    match claim {
        Value::Array(items) => items.iter().any(|item| is_one_of(item, values)),
        Value::Object(members) => values
            .iter()
            .filter_map(|value| members.get(value))
            .any(|given| !matches!(given, Value::Null | Value::Bool(false))),
        single => is_one_of(single, values),
    }
}

/// Strings, numbers and booleans are compared as the text they are written with.
fn is_one_of(claim: &Value, values: &[String]) -> bool {
    let text = match claim {
        Value::String(text) => return values.contains(text),
        Value::Bool(given) => given.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return false,
    };
    values.contains(&text)
}
