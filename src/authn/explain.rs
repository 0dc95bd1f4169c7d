//! The checks of this room one by one, with what each came to: for `vestibule explain`, never for a request. Backends and
//! issuers are asked about sessions and opaque tokens only where the operator wants that: they are shown the credential.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;

use super::all::one_caller;
use super::answers::Owner;
use super::cache::token_fingerprint;
use super::extract::{self, Credential};
use super::issuer::Issuer;
use super::jwt::{Shape, Window, shape};
use super::session::{Proof, Session, Shown};
use super::{Authn, Bench, Demand, Other, TokenDemands, chosen, missing, other_issuer};
use crate::types::{AuthMethod, Principal, Rejection, clock};
use crate::upstream::Pools;

/// One check.
#[derive(Debug)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// What was found, or why it was refused.
    pub outcome: Result<String, Rejection>,
}

/// The checks so far.
#[derive(Debug, Default)]
struct Report(Vec<Check>);

/// How the checks are made.
#[derive(Clone, Copy)]
struct How<'h> {
    demands: &'h TokenDemands,
    wall: SystemTime,
    /// Whoever alone knows what a credential stands for is asked through these; nobody is, without.
    live: Option<&'h Pools>,
}

impl Report {
    /// Notes a check; `None` ends the walk.
    fn note<T>(
        &mut self,
        name: &'static str,
        outcome: Result<T, Rejection>,
        told: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let (outcome, value) = match outcome {
            Ok(value) => (Ok(told(&value)), Some(value)),
            Err(why) => (Err(why), None),
        };
        self.0.push(Check { name, outcome });
        value
    }
}

impl Authn {
    /// The issuers whose keys a token of the route may need, those of session cookies included.
    pub fn all_issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        let of_cookies = self.sessions().iter().filter_map(|one| one.issuer());
        self.issuers().iter().chain(of_cookies)
    }

    /// Walks a request with these headers through the checks. No principal where a check refused, or where only a
    /// backend or an issuer could tell and `live` does not say through what to ask them.
    pub async fn explain(
        &self,
        headers: &HeaderMap,
        wall: SystemTime,
        live: Option<&Pools>,
    ) -> (Vec<Check>, Option<Principal>) {
        let mut report = Report::default();
        let principal = match &self.demand {
            None => Some(Principal::anonymous()),
            Some(demand) if demand.first_of_all.is_some() => {
                demand.explain_all(&mut report, headers, wall, live).await
            }
            Some(demand) => demand.explain_any(&mut report, headers, wall, live).await,
        };
        (report.0, principal)
    }
}

impl Demand {
    async fn explain_any(
        &self,
        report: &mut Report,
        headers: &HeaderMap,
        wall: SystemTime,
        live: Option<&Pools>,
    ) -> Option<Principal> {
        let found = extract::find(headers, self.places.wanted()).and_then(|found| match found {
            None if !self.optional => Err(missing()),
            found => Ok(found),
        });
        let found = report.note("credential", found, |found| {
            found.map_or_else(|| "none; optional here".to_owned(), |one| self.told(one))
        })?;
        match found {
            None => Some(Principal::anonymous()),
            Some(credential) => self.explain_one(report, credential, wall, live).await,
        }
    }

    async fn explain_all(
        &self,
        report: &mut Report,
        headers: &HeaderMap,
        wall: SystemTime,
        live: Option<&Pools>,
    ) -> Option<Principal> {
        let found = extract::find_all(headers, self.places.wanted())
            .and_then(|found| found.ok_or_else(missing));
        let found = report.note("credentials", found, |found| {
            let told: Vec<_> = found.iter().map(|one| self.told(*one)).collect();
            told.join(" and ")
        })?;
        let mut vouched = Vec::with_capacity(found.len());
        for credential in found {
            vouched.push(self.explain_one(report, credential, wall, live).await?);
        }
        let first = self.first_of_all.as_ref()?;
        let caller = one_caller(vouched, first);
        report.note("one user", caller, |caller| caller.facts.user.clone())
    }

    fn told(&self, credential: Credential<'_>) -> String {
        let places = &self.places;
        match credential {
            Credential::Bearer(token) => format!("a bearer token of {} bytes", token.len()),
            Credential::Header { position, value } => {
                let name = places
                    .headers
                    .get(position)
                    .map_or("", |name| name.as_str());
                format!("a token of {} bytes in the header `{name}`", value.len())
            }
            Credential::Cookie { position, .. } => {
                let name = places.cookies.get(position).map_or("", |name| name);
                format!("the cookie `{name}`")
            }
        }
    }

    async fn explain_one(
        &self,
        report: &mut Report,
        credential: Credential<'_>,
        wall: SystemTime,
        live: Option<&Pools>,
    ) -> Option<Principal> {
        let places = &self.places;
        let how = How {
            demands: &self.tokens,
            wall,
            live,
        };
        let (position, value) = match credential {
            Credential::Bearer(token) => {
                let bench = places.bearer.as_ref()?;
                return bench.explain(report, how, token).await;
            }
            Credential::Header { position, value } => {
                let bench = places.header_benches.get(position)?;
                return bench.explain(report, how, value).await;
            }
            Credential::Cookie { position, value } => (position, value),
        };
        let session = places.sessions.get(position)?;
        let principal = match &session.proof {
            Proof::Token(_, bench) => bench.explain(report, how, value).await?,
            Proof::Introspection(issuer) => report.ask_issuer(issuer, value, how).await?,
            Proof::Probe(_) => {
                let shown = Shown::Cookie(value);
                return report.ask_backend(session, shown, how).await;
            }
        };
        Some(Principal {
            source: Arc::clone(session.name()),
            ..principal
        })
    }
}

impl Report {
    async fn ask_backend(
        &mut self,
        session: &Session,
        shown: Shown<'_>,
        how: How<'_>,
    ) -> Option<Principal> {
        let name = session.name();
        let Some(pools) = how.live else {
            let told = format!("only the backend of `{name}` knows; --live asks it");
            return self.unasked("session", told);
        };
        let answer = session.identify_shown(pools, shown).await;
        self.note("session", answer, |principal| {
            format!("the backend of `{name}` says: {}", told(principal))
        })
    }

    async fn ask_issuer(
        &mut self,
        issuer: &Issuer,
        token: &str,
        how: How<'_>,
    ) -> Option<Principal> {
        let name = issuer.name();
        let Some(pools) = how.live else {
            let told = format!("only `{name}` knows; --live asks it");
            return self.unasked("introspection", told);
        };
        let answer = issuer.introspect(pools, token, how.wall).await;
        self.note("introspection", answer, |principal| {
            format!("`{name}` says: {}", told(principal))
        })
    }

    fn unasked(&mut self, name: &'static str, told: String) -> Option<Principal> {
        self.note(name, Ok(()), |()| told);
        None
    }
}

impl Bench {
    /// The checks of [`Bench::identify`], in the same order.
    async fn explain(&self, report: &mut Report, how: How<'_>, token: &str) -> Option<Principal> {
        let size = shape::check_size(token, self.most_token);
        report.note("size", size, |()| format!("{} bytes", token.len()))?;
        let is_opaque = !shape::has_three_parts(token);
        match (&self.other, self.issuers.as_slice()) {
            (Some(Other::Issuer(issuer)), _) if is_opaque => {
                let size = shape::check_size(token, issuer.max_token);
                report.note("size for this issuer", size, |()| {
                    format!("at most {}", issuer.max_token)
                })?;
                return report.ask_issuer(issuer, token, how).await;
            }
            (Some(Other::Session(session)), issuers) if is_opaque || issuers.is_empty() => {
                let shown = Shown::Bearer(token);
                return report.ask_backend(session, shown, how).await;
            }
            (_, [only]) if only.introspects_all() => {
                return report.ask_issuer(only, token, how).await;
            }
            _ => {}
        }
        let shape = report.note("form", Shape::parse(token), |shape| {
            let header = &shape.jws.header;
            format!(
                "alg {:?}, kid {}, typ {}",
                header.algorithm,
                header.kid.as_deref().unwrap_or("-"),
                header.typ.as_deref().unwrap_or("-")
            )
        })?;
        let chosen = chosen(&self.issuers, &shape);
        if let (None, Some(Other::Session(session))) = (chosen, &self.other) {
            let shown = Shown::Bearer(token);
            return report.ask_backend(session, shown, how).await;
        }
        let issuer = report.note("issuer", chosen.ok_or_else(other_issuer), |issuer| {
            format!("`{}` ({})", issuer.name(), issuer.url())
        })?;
        let size = shape::check_size(token, issuer.max_token);
        report.note("size for this issuer", size, |()| {
            format!("at most {}", issuer.max_token)
        })?;
        if issuer.introspects_all() {
            return report.ask_issuer(issuer, token, how).await;
        }
        issuer.explain(report, how, token, shape).await
    }
}

impl Issuer {
    /// The checks of [`Issuer::verify`], in the same order.
    async fn explain(
        &self,
        report: &mut Report,
        how: How<'_>,
        token: &str,
        shape: Shape<'_>,
    ) -> Option<Principal> {
        let How { demands, wall, .. } = how;
        let algorithm = self.check_algorithm(&shape.jws);
        report.note("algorithm", algorithm, |()| "accepted".to_owned())?;
        let typ = shape.jws.header.typ.as_deref();
        let typ = self
            .terms
            .check_type(typ)
            .and_then(|()| demands.check_type(typ));
        report.note("type", typ, |()| "accepted".to_owned())?;
        let window = report.note("times", Window::of(&shape.claims), |_| {
            "well-formed".to_owned()
        })?;
        let in_time = window.check(wall, self.terms.leeway);
        report.note("time", in_time, |()| until(&window, wall))?;
        let age = self.check_age_of_keys(demands);
        report.note("age of the keys", age, |()| "accepted here".to_owned())?;
        let signed = self.check_signature(&shape.jws, wall).await;
        report.note("key and signature", signed, |_| {
            format!("good; keys are {:?}", self.state(clock::now()))
        })?;
        let claims = self.check_claims(&shape.claims);
        report.note("claims", claims, |()| {
            "audience, subject and what is required".to_owned()
        })?;
        let owner = Owner::of(&shape.claims);
        let revoked = self
            .revoked
            .check(&token_fingerprint(token), &owner, &window);
        report.note("revocation", revoked, |()| {
            "none known to this process".to_owned()
        })?;
        let facts = self.mapping.facts(shape.claims, window.expires_at());
        let caller = Principal {
            method: AuthMethod::Jwt,
            source: Arc::clone(self.name()),
            facts: Arc::new(facts),
            beside: None,
        };
        report.note("caller", Ok(caller), told)
    }
}

fn told(caller: &Principal) -> String {
    let facts = &caller.facts;
    format!(
        "user {}, org {}, roles [{}], scopes [{}]",
        facts.user,
        facts.org.as_deref().unwrap_or("-"),
        facts.roles.join(" "),
        facts.scopes.join(" ")
    )
}

fn until(window: &Window, wall: SystemTime) -> String {
    let left = window
        .expires_at()
        .and_then(|end| end.duration_since(wall).ok());
    left.map_or_else(
        || "expired, within the leeway".to_owned(),
        |left| format!("good for {} s", left.as_secs()),
    )
}
