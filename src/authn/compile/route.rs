//! `auth` of a route: who may vouch for its callers, where their credentials stand, and who judges what stands there.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::HeaderName;

use crate::authn::jwt::shape::media_type;
use crate::authn::session::MOST_BEARER;
use crate::authn::{
    Authn, Authorities, Bench, Demand, Issuer, Other, Places, Session, TokenDemands,
};
use crate::config::{Auth, AuthRules, KeyPath, OnIssuerDown, Problems};

impl Authn {
    /// Compiles what a route asks of its callers. `path` is that of the route's `auth`.
    pub fn compile(
        auth: &Auth,
        path: &KeyPath,
        authorities: &Authorities,
        problems: &mut Problems,
    ) -> Option<Self> {
        let demand = match auth {
            Auth::None | Auth::Deny => None,
            Auth::Rules(rules) => Some(Demand::compile(rules, path, authorities, problems)?),
        };
        Some(Self { demand })
    }
}

impl Demand {
    fn compile(
        rules: &AuthRules,
        path: &KeyPath,
        authorities: &Authorities,
        problems: &mut Problems,
    ) -> Option<Self> {
        let (names, path) = vouchers(rules, path, problems)?;
        let everybody = !rules.all.is_empty();
        let named = Named::find(names, everybody, &path, authorities, problems)?;
        Some(Self {
            places: named.places(&path, problems)?,
            issuers: named.issuers.into(),
            sessions: named.sessions.into(),
            tokens: TokenDemands {
                typ: rules.token_type.as_deref().map(media_type),
                refuses_outlived_keys: rules.on_issuer_down == OnIssuerDown::Deny,
            },
            optional: rules.optional,
            first_of_all: names
                .first()
                .filter(|_| everybody)
                .map(|name| name.as_str().into()),
        })
    }
}

/// The names under `any` or `all`, and where they stand.
fn vouchers<'r>(
    rules: &'r AuthRules,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<(&'r [String], KeyPath)> {
    match (rules.any.is_empty(), rules.all.is_empty()) {
        (true, true) => {
            problems.push(
                &path.key("any"),
                "nobody is named here or under `all`: nobody could pass",
            );
            None
        }
        (false, false) => {
            problems.push(&path.key("all"), "there is `any` already: say one of them");
            None
        }
        (true, false) if rules.optional => {
            problems.push(&path.key("optional"), "goes with `any` only");
            None
        }
        (true, false) => Some((&rules.all, path.key("all"))),
        (false, true) => Some((&rules.any, path.key("any"))),
    }
}

/// The issuers and sessions that a list names.
pub(super) struct Named {
    pub(super) issuers: Vec<Arc<Issuer>>,
    pub(super) sessions: Vec<Arc<Session>>,
    /// Whether every one of them must vouch, not one alone.
    everybody: bool,
}

impl Named {
    pub(super) fn find(
        names: &[String],
        everybody: bool,
        path: &KeyPath,
        authorities: &Authorities,
        problems: &mut Problems,
    ) -> Option<Self> {
        let mut issuers: Vec<Arc<Issuer>> = Vec::new();
        let mut sessions: Vec<Arc<Session>> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut is_whole = true;
        for (position, name) in names.iter().enumerate() {
            let path = path.index(position);
            if !seen.insert(name) {
                problems.push(&path, format!("`{name}` is named twice"));
                is_whole = false;
            } else if let Some(issuer) = authorities.issuers.get(name) {
                is_whole &= no_clash(&issuers, issuer, |one| one.url(), &path, problems);
                issuers.push(Arc::clone(issuer));
            } else if let Some(session) = authorities.sessions.get(name) {
                is_whole &= no_clash(&sessions, session, |one| one.cookie(), &path, problems);
                sessions.push(Arc::clone(session));
            } else {
                authorities.complain_of(name, &path, problems);
                is_whole = false;
            }
        }
        is_whole.then_some(Self {
            issuers,
            sessions,
            everybody,
        })
    }

    /// Where their credentials stand.
    pub(super) fn places(&self, path: &KeyPath, problems: &mut Problems) -> Option<Places> {
        let mut headers: Vec<HeaderName> = Vec::new();
        for issuer in &self.issuers {
            let new = issuer.header.iter().filter(|name| !headers.contains(name));
            headers.extend(new.cloned().collect::<Vec<_>>());
        }
        let bearer = Bench::compile(self, None, path, problems)?;
        let header_benches: Option<Vec<Bench>> = headers
            .iter()
            .map(|name| Bench::compile(self, Some(name), path, problems))
            .collect();
        Some(Places {
            bearer: (!bearer.is_empty()).then_some(bearer),
            header_benches: header_benches?.into(),
            headers: headers.into(),
            cookies: self
                .sessions
                .iter()
                .map(|session| session.cookie().into())
                .collect(),
            sessions: self.sessions.clone().into(),
        })
    }
}

impl Bench {
    pub(in crate::authn) fn alone(issuer: Arc<Issuer>) -> Self {
        let other = issuer
            .takes_opaque()
            .then(|| Other::Issuer(Arc::clone(&issuer)));
        Self::of(vec![issuer], other)
    }

    fn of(issuers: Vec<Arc<Issuer>>, other: Option<Other>) -> Self {
        let most = issuers.iter().map(|issuer| issuer.max_token).max();
        let most_of_other = match &other {
            Some(Other::Session(_)) => MOST_BEARER,
            Some(Other::Issuer(_)) | None => 0,
        };
        Self {
            most_token: most.unwrap_or(0).max(most_of_other),
            issuers: issuers.into(),
            other,
        }
    }

    /// Of those who are named, who judges tokens in the header `name`, or in `Authorization`.
    fn compile(
        named: &Named,
        name: Option<&HeaderName>,
        path: &KeyPath,
        problems: &mut Problems,
    ) -> Option<Self> {
        let stands_here = |issuer: &&Arc<Issuer>| issuer.header.as_ref() == name;
        let issuers: Vec<_> = named.issuers.iter().filter(stands_here).cloned().collect();
        if named.everybody && issuers.len() > 1 {
            let message = "two issuers cannot both vouch: a request has room for one bearer token";
            problems.push(path, message);
            return None;
        }
        let opaque = issuers.iter().filter(|issuer| issuer.takes_opaque());
        let mut others: Vec<(Other, Arc<str>)> = opaque
            .map(|issuer| (Other::Issuer(Arc::clone(issuer)), Arc::clone(issuer.name())))
            .collect();
        // Where all must vouch, a session does so by its cookie.
        if name.is_none() && !named.everybody {
            let asked = named.sessions.iter().filter(|one| one.takes_bearer());
            others
                .extend(asked.map(|one| (Other::Session(Arc::clone(one)), Arc::clone(one.name()))));
        }
        if let [(_, one), (_, other), ..] = others.as_slice() {
            let why = format!(
                "`{one}` and `{other}` both judge tokens that are no JWT of a known issuer; which to ask cannot be told"
            );
            problems.push(path, why);
            return None;
        }
        Some(Self::of(issuers, others.pop().map(|(other, _)| other)))
    }

    fn is_empty(&self) -> bool {
        self.issuers.as_slice().is_empty() && self.other.is_none()
    }
}

/// Two issuers of one URL, or two sessions of one cookie, could not be told apart by what a request shows.
fn no_clash<T>(
    earlier: &[Arc<T>],
    new: &Arc<T>,
    told_by: fn(&T) -> &str,
    path: &KeyPath,
    problems: &mut Problems,
) -> bool {
    let told = told_by(new);
    let clashes = earlier.iter().any(|one| told_by(one) == told);
    if clashes {
        problems.push(path, format!("`{told}` is that of another one named here"));
    }
    !clashes
}
