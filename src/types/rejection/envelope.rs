//! Bodies that the clients of a backend know: where a route says so, a refusal of the gateway looks like one of the
//! backend, so that the code which reads those reads ours. Only plain HTTP has a choice; gRPC and Connect have their own.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Reason, Rejection};

/// What a refusal over plain HTTP looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Envelope {
    /// A problem document (RFC 9457).
    #[default]
    Problem,
    /// `{ "error": { "code", "message", "type" } }`.
    IdentSphere,
    /// `{ "error", "error_description" }` (RFC 6749 section 5.2).
    OAuth,
}

impl Envelope {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Problem => "application/problem+json",
            Self::IdentSphere | Self::OAuth => "application/json",
        }
    }

    pub(super) fn body(self, why: &Rejection, decision: &str) -> Value {
        match self {
            Self::Problem => problem(why, decision),
            Self::IdentSphere => json!({ "error": {
                "code": identsphere_code(why.reason()),
                "message": why.message(decision),
                "type": identsphere_type(why.reason()),
            } }),
            Self::OAuth => json!({
                "error": oauth_error(why.reason()),
                "error_description": why.message(decision),
            }),
        }
    }
}

fn problem(why: &Rejection, decision: &str) -> Value {
    let reason = why.reason();
    let mut body = json!({
        "type": "about:blank",
        "title": reason.title(),
        "status": reason.status().as_u16(),
        "code": reason.code(),
        "decision": decision,
    });
    // A client that is limited may know by what; nobody need know which issuer or rule said no.
    if let (Some(limit), Some(members)) = (why.limit_name(), body.as_object_mut()) {
        members.insert("policy".to_owned(), limit.as_ref().into());
    }
    body
}

/// Its own codes where it has some, ours elsewhere.
fn identsphere_code(reason: Reason) -> &'static str {
    match (reason, reason.status()) {
        (Reason::SessionStepUp, _) => "mfa_required",
        (_, StatusCode::UNAUTHORIZED) => "authentication_required",
        _ => reason.code(),
    }
}

fn identsphere_type(reason: Reason) -> &'static str {
    match reason.status() {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "authorization_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "api_error",
        _ => "invalid_request_error",
    }
}

/// The error codes of RFC 6749 section 5.2 and RFC 6750 section 3.1, and of RFC 6749 section 4.1.2.1 for what those
/// lack.
fn oauth_error(reason: Reason) -> &'static str {
    match (reason, reason.status()) {
        (Reason::InsufficientScope, _) => "insufficient_scope",
        (Reason::CredentialMissing, _) => "invalid_client",
        (_, StatusCode::UNAUTHORIZED) => "invalid_token",
        (_, StatusCode::FORBIDDEN) => "access_denied",
        (_, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            "temporarily_unavailable"
        }
        (_, status) if status.is_server_error() => "server_error",
        _ => "invalid_request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn body(envelope: Envelope, why: &Rejection) -> Value {
        envelope.body(why, "d1")
    }

    #[test]
    fn a_problem_names_the_limit_and_no_other_policy() {
        let name = Arc::from("login");
        let limited = Rejection::new(Reason::RateLimited).policy(&name);
        assert_eq!(body(Envelope::Problem, &limited)["policy"], "login");
        let other = Rejection::new(Reason::TokenSignature).policy(&name);
        assert_eq!(body(Envelope::Problem, &other).get("policy"), None);
    }

    #[test]
    fn identsphere_clients_find_their_codes() {
        for (reason, code, kind) in [
            (Reason::RateLimited, "rate_limited", "rate_limit_error"),
            (
                Reason::CredentialMissing,
                "authentication_required",
                "authentication_error",
            ),
            (
                Reason::SessionInvalid,
                "authentication_required",
                "authentication_error",
            ),
            (
                Reason::SessionStepUp,
                "mfa_required",
                "authentication_error",
            ),
            (Reason::Forbidden, "forbidden", "authorization_error"),
            (
                Reason::BodyTooLarge,
                "body_too_large",
                "invalid_request_error",
            ),
            (Reason::RouteClosed, "route_closed", "not_found_error"),
            (
                Reason::UpstreamUnreachable,
                "upstream_unreachable",
                "api_error",
            ),
        ] {
            let error = body(Envelope::IdentSphere, &Rejection::new(reason));
            assert_eq!(
                (&error["error"]["code"], &error["error"]["type"]),
                (&json!(code), &json!(kind))
            );
        }
    }

    #[test]
    fn oauth_clients_find_the_codes_of_the_rfcs() {
        for (reason, code) in [
            (Reason::RateLimited, "temporarily_unavailable"),
            (Reason::Overloaded, "temporarily_unavailable"),
            (Reason::BodyTooLarge, "invalid_request"),
            (Reason::NoRoute, "invalid_request"),
            (Reason::CredentialMissing, "invalid_client"),
            (Reason::TokenExpired, "invalid_token"),
            (Reason::InsufficientScope, "insufficient_scope"),
            (Reason::NetworkForbidden, "access_denied"),
            (Reason::UpstreamReset, "server_error"),
        ] {
            let error = body(Envelope::OAuth, &Rejection::new(reason));
            assert_eq!(error["error"], code, "{reason:?}");
        }
    }

    #[test]
    fn every_reason_has_every_envelope_and_none_tells_internals() {
        let name = Arc::from("internal-name");
        for reason in Reason::ALL {
            let why = Rejection::because(*reason, "kid 7 of issuer main").policy(&name);
            for envelope in [Envelope::Problem, Envelope::IdentSphere, Envelope::OAuth] {
                let text = body(envelope, &why).to_string();
                assert!(
                    text.contains(reason.title().trim_end_matches('.')),
                    "{text}"
                );
                assert!(text.contains("d1") && !text.contains("kid 7"), "{text}");
                assert_eq!(
                    text.contains("internal-name"),
                    why.limit_name().is_some() && envelope == Envelope::Problem
                );
            }
            // RFC 6749 allows neither quote nor backslash in a description.
            let oauth = body(Envelope::OAuth, &why);
            let description = oauth["error_description"].as_str().unwrap();
            assert!(
                description
                    .bytes()
                    .all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\')
            );
        }
    }
}
