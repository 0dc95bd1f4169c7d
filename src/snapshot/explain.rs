//! Walks a described request through the stages and tells what each decides and why: `vestibule explain`.
//!
//! The order is that of `pipeline`. Limits are named and not counted, and nothing is forwarded: what a request with this
//! head would meet is told, not what the gateway's buckets and the backend say of it right now.

use http::header::{AUTHORIZATION, COOKIE, HeaderMap};
use http::request::Parts;

use super::walk::Place;
use super::{Action, Policy, Snapshot, Walk};
use crate::authn::Issuer;
use crate::authz::Asked;
use crate::cors;
use crate::route::Head;
use crate::transform::{self, strip_hop_by_hop};
use crate::types::{Body, Dialect, Principal, Reason, Rejection, Request, clock};
use crate::upstream::Pools;

/// What a stage came to.
#[derive(Debug)]
pub struct Step {
    /// The stage.
    pub stage: &'static str,
    /// Whether it let the request pass, refused it, or had nothing to decide.
    pub verdict: Verdict,
    /// What it found.
    pub detail: String,
}

/// How a stage decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the next stage.
    Passed,
    /// Nothing to decide here, or nothing that can be decided without traffic.
    Skipped,
    /// The gateway answers itself; nothing is forwarded.
    Answered,
    /// Refused.
    Refused(Reason),
}

/// The steps so far. A stage that refuses ends the walk, as `?` does in the pipeline.
#[derive(Debug, Default)]
struct Report(Vec<Step>);

/// The walk has ended.
struct End;

impl Report {
    fn note(&mut self, stage: &'static str, verdict: Verdict, detail: impl Into<String>) {
        self.0.push(Step {
            stage,
            verdict,
            detail: detail.into(),
        });
    }

    fn judged<T>(
        &mut self,
        stage: &'static str,
        outcome: Result<T, Rejection>,
        told: impl FnOnce(&T) -> String,
    ) -> Result<T, End> {
        match outcome {
            Ok(value) => {
                let detail = told(&value);
                self.note(stage, Verdict::Passed, detail);
                Ok(value)
            }
            Err(why) => {
                let by = why.policy_name().map(|name| format!(" (`{name}`)"));
                let detail = format!("{}{}", why.detail(), by.unwrap_or_default());
                self.note(stage, Verdict::Refused(why.reason()), detail);
                Err(End)
            }
        }
    }

    fn ended(&mut self, stage: &'static str, verdict: Verdict, detail: impl Into<String>) -> End {
        self.note(stage, verdict, detail);
        End
    }
}

impl Walk {
    /// The steps of the request through `snapshot`, up to the one that refuses or answers it. Tokens are verified with
    /// the keys that their issuers have now. Backends and issuers are asked about the credential only where `live` says so:
    /// they are shown it.
    pub async fn explain(&self, snapshot: &Snapshot, live: bool) -> Vec<Step> {
        let mut report = Report::default();
        let pools = live.then(Pools::new);
        // Either way the report says where and why it ended.
        let _ = self.explain_to(snapshot, pools.as_ref(), &mut report).await;
        report.0
    }

    async fn explain_to(
        &self,
        snapshot: &Snapshot,
        live: Option<&Pools>,
        report: &mut Report,
    ) -> Result<(), End> {
        let (mut parts, ()) = self.request.clone().into_parts();
        let before = parts.headers.keys_len();
        snapshot.identity.strip(&mut parts.headers);
        let stripped = before - parts.headers.keys_len();
        let told = format!("{stripped} header names of a client removed");
        report.note("identity", Verdict::Passed, told);
        let place = report.judged("listener", self.place(snapshot), |place| {
            format!("`{}`", place.listener.name)
        })?;
        let request = http::Request::from_parts(parts.clone(), ());
        let head = Head::of(&request, &place.conn, &place.listener.caps);
        let head = report.judged("head", head, |head| {
            let authority = head.authority().to_str().unwrap_or_default();
            format!("{authority}{}", head.path())
        })?;
        let client = place.listener.trust.find(&place.conn, &parts.headers);
        let client = report.judged("client", client, |client| {
            format!("{} by {}", client.ip.address(), client.scheme.as_str())
        })?;
        if place.listener.redirect(&head).is_some() {
            return Err(report.ended("redirect", Verdict::Answered, "to https"));
        }
        let dialect = Dialect::of_request(&self.request);
        strip_hop_by_hop(&mut parts.headers, dialect);
        let policy = snapshot.policy_for(place.conn.listener, &head, &parts.method, &parts.headers);
        let policy = report.judged("route", policy, |policy| format!("`{}`", policy.name))?;
        let checked = policy
            .check_head(&head)
            .and_then(|()| policy.check_announced_body(&parts.headers))
            .and_then(|()| transform::deadline::asked(&parts.headers, dialect));
        let time_left =
            report.judged("route rules", checked, |_| "nothing against it".to_owned())?;
        note_limits(report, policy);
        note_preflight(report, policy, &parts)?;
        let principal = explain_authn(report, policy, &parts.headers, live).await?;
        let (method, headers) = (&parts.method, &parts.headers);
        let guarded = policy.check_csrf(&principal, &client, &head, method, headers);
        report.judged("csrf", guarded, |()| told_csrf(policy, &principal, headers))?;
        let asked = Asked {
            client: client.ip,
            method,
            host: head.host(),
            path: head.path(),
            client_cert: place.conn.client_cert.as_deref(),
            headers,
        };
        for (demand, outcome) in policy.authz.explain(&principal, &asked) {
            report.judged("authz", outcome, |()| format!("{demand}: met"))?;
        }
        let permitted = policy.authz.decide(&principal, &asked).map(drop);
        report.judged("authz", permitted, |()| "every demand is met".to_owned())?;
        let Action::Forward(cluster) = &policy.action else {
            return Err(report.ended("action", Verdict::Answered, "by the gateway itself"));
        };
        let rewritten = report.judged("rewrite", policy.transform.rewrite(&head), |head| {
            head.as_ref()
                .map_or_else(|| "none".to_owned(), |head| head.path().to_owned())
        })?;
        let head = rewritten.unwrap_or(head);
        self.held_against_closed(snapshot, &place, &head, report)?;
        let id = http::HeaderValue::from_static("(request id)");
        let facts = transform::Facts {
            principal: &principal,
            client: &client,
            conn: &place.conn,
            head: &head,
            request_id: &id,
            dialect,
            time_left,
            wall: clock::wall,
        };
        let mut request = http::Request::from_parts(parts, Body::empty());
        let written = policy.transform.request(&mut request, &facts);
        report.judged("request", written, |()| "to the upstream:".to_owned())?;
        note_headers(report, &request);
        note_streams(report, policy, &principal, request.headers());
        let told = format!("to `{}`", cluster.name());
        report.note("forward", Verdict::Skipped, told);
        Ok(())
    }

    fn held_against_closed(
        &self,
        snapshot: &Snapshot,
        place: &Place<'_>,
        head: &Head,
        report: &mut Report,
    ) -> Result<(), End> {
        let (method, headers) = (self.request.method(), self.request.headers());
        let leads_to = snapshot
            .routes
            .find(place.conn.listener, head, method, headers);
        match leads_to {
            Ok(other) if other.is_closed() => {
                let verdict = Verdict::Refused(Reason::RouteClosed);
                Err(report.ended("rewrite", verdict, "it leads to a closed route"))
            }
            _ => Ok(()),
        }
    }
}

/// What becomes of bodies, and of whatever lasts.
fn note_streams(report: &mut Report, policy: &Policy, principal: &Principal, headers: &HeaderMap) {
    let mut note = |stage, told: String| report.note(stage, Verdict::Skipped, told);
    if policy.revokes.is_some() {
        note(
            "revokes",
            "a good answer ends what the caller shows".to_owned(),
        );
    }
    if policy.upgrades.is_some() {
        note("switch", "to the protocols that the route lists".to_owned());
    }
    if policy.buffer > 0 {
        let told = format!(
            "a body that announces up to {} bytes is taken in",
            policy.buffer
        );
        note("buffer", told);
    }
    if policy.transform.compresses() {
        note("compress", "answers of the listed media types".to_owned());
    }
    if !principal.is_authenticated() {
        return;
    }
    let told = match policy.authn.keepsake(principal, headers) {
        _ if !policy.binds_streams => "go on when the credential ends".to_owned(),
        None => "end with the credential".to_owned(),
        Some(_) => {
            let every = policy.stream_recheck.as_secs();
            format!("end with the credential, which is asked about every {every} s meanwhile")
        }
    };
    note("streams", told);
}

fn note_limits(report: &mut Report, policy: &Policy) {
    let names: Vec<_> = policy
        .limits()
        .map(|limit| format!("`{}`", limit.name()))
        .collect();
    if !names.is_empty() {
        let told = format!("{}; not counted here", names.join(", "));
        report.note("limits", Verdict::Skipped, told);
    }
}

fn note_preflight(report: &mut Report, policy: &Policy, parts: &Parts) -> Result<(), End> {
    let is_preflight = cors::preflight_method(&parts.method, &parts.headers).is_some();
    match &policy.cors {
        Some(cors) if is_preflight => {
            report.judged("preflight", cors.preflight(&parts.headers), |_| {
                "the origin is allowed".to_owned()
            })?;
            Err(report.ended("action", Verdict::Answered, "by the gateway itself"))
        }
        _ => Ok(()),
    }
}

async fn explain_authn(
    report: &mut Report,
    policy: &Policy,
    headers: &HeaderMap,
    live: Option<&Pools>,
) -> Result<Principal, End> {
    if !policy.authn.wants_credential() {
        report.note("authn", Verdict::Skipped, "no credential is asked for");
    }
    for issuer in policy.authn.all_issuers().filter(|one| one.fetches_keys()) {
        note_keys(report, issuer);
    }
    let (checks, principal) = policy.authn.explain(headers, clock::wall(), live).await;
    for check in checks {
        report.judged("authn", check.outcome, |told| {
            format!("{}: {told}", check.name)
        })?;
    }
    principal.ok_or_else(|| {
        let why = "what follows depends on who the caller is";
        report.ended("authn", Verdict::Skipped, why)
    })
}

/// What fetching the keys of an issuer came to; a token says further down whether they are the right ones.
fn note_keys(report: &mut Report, issuer: &Issuer) {
    let (name, count) = (issuer.name(), issuer.key_count());
    let told = match issuer.last_error() {
        Some(why) => format!("of `{name}`: not fetched: {why}; {count} known from before"),
        None => format!("of `{name}`: {count} fetched"),
    };
    report.note("keys", Verdict::Skipped, told);
}

fn told_csrf(policy: &Policy, principal: &Principal, headers: &HeaderMap) -> String {
    let told = if policy.csrf.is_none() {
        "off"
    } else if policy.authn.is_by_cookie(principal, headers) {
        "no page of another origin"
    } else {
        "no session cookie is the credential"
    };
    told.to_owned()
}

/// Credentials are told by name alone: what explains a request ends up in tickets.
fn note_headers(report: &mut Report, request: &Request) {
    let target = format!("{} {}", request.method(), request.uri().path());
    report.note("upstream sees", Verdict::Passed, target);
    for (name, value) in request.headers() {
        let is_secret = name == AUTHORIZATION
            || name == COOKIE
            || name == transform::assertion::X_VESTIBULE_ASSERTION;
        let value = if is_secret {
            "***".into()
        } else {
            String::from_utf8_lossy(value.as_bytes())
        };
        report.note("upstream sees", Verdict::Passed, format!("{name}: {value}"));
    }
}
