//! Why a request was refused. One table holds every reason: its code, its status, its gRPC status, whose fault.
//!
//! Codes are stable: dashboards, tests and operators' runbooks name them. [`Rejection::render`] spells a refusal in the
//! caller's dialect; no stage renders its own.

mod envelope;
mod render;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderValue;

pub use envelope::Envelope;

use super::body::InFlight;

/// A refusal: the reason that the client may know, and the detail that only the log may know.
#[derive(Debug)]
pub struct Rejection {
    facts: Box<Facts>,
}

#[derive(Debug)]
struct Facts {
    reason: Reason,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
    challenge: Option<Challenge>,
    policy: Option<Arc<str>>,
    budget: Option<Budget>,
    hold: Option<Hold>,
}

/// How long the answer is held back, and the slot that allows it.
#[derive(Debug)]
pub struct Hold {
    /// How long.
    pub time: Duration,
    /// Given back by dropping it.
    pub slot: InFlight,
}

/// What a client is told about the limit that it met (`RateLimit-Policy` and `RateLimit`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What the limit allows.
    pub policy: HeaderValue,
    /// The window that is told of, as a string of RFC 9651.
    pub window: Arc<str>,
    /// How many more it lets through.
    pub count: u32,
    /// How long until it is full; until it lets one through, where it lets none through now.
    pub time: Duration,
}

impl Budget {
    /// What is left. Times are rounded up: whoever waits that long is let in.
    #[must_use]
    pub fn left(&self) -> Option<HeaderValue> {
        let seconds = self.time.as_secs() + u64::from(self.time.subsec_nanos() > 0);
        let Self { window, count, .. } = self;
        HeaderValue::try_from(format!("{window};r={count};t={seconds}")).ok()
    }
}

/// What goes into `WWW-Authenticate` (RFC 6750 section 3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    /// The scope that would have sufficed, for `insufficient_scope`.
    pub scope: Option<Arc<str>>,
}

/// Whose fault a refusal is; the label that decides whom to wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client sent something we do not accept.
    Client,
    /// A policy that the operator wrote said no.
    Policy,
    /// The backend or an issuer failed.
    Upstream,
    /// The gateway itself.
    Gateway,
}

impl Rejection {
    /// A refusal for `reason`, without further detail.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self::because(reason, "")
    }

    /// A refusal with a detail for the log. The detail never reaches the client and must hold no secret.
    #[must_use]
    pub fn because(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            facts: Box::new(Facts {
                reason,
                detail: detail.into(),
                retry_after: None,
                challenge: None,
                policy: None,
                budget: None,
                hold: None,
            }),
        }
    }

    /// Adds `Retry-After`; rounded up to whole seconds when rendered, so that a client that waits is let in.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.facts.retry_after = Some(wait);
        self
    }

    /// Adds a `WWW-Authenticate: Bearer` challenge.
    #[must_use]
    pub fn challenge(mut self, challenge: Challenge) -> Self {
        self.facts.challenge = Some(challenge);
        self
    }

    /// Names the policy (limit, rule) that refused, for logs and metrics.
    #[must_use]
    pub fn policy(mut self, name: &Arc<str>) -> Self {
        self.facts.policy = Some(Arc::clone(name));
        self
    }

    /// Adds what the client is told about the limit.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.facts.budget = Some(budget);
        self
    }

    /// Has the answer held back.
    #[must_use]
    pub fn hold(mut self, hold: Hold) -> Self {
        self.facts.hold = Some(hold);
        self
    }

    /// Whether the answer is to be held back, and how long; asked once.
    pub fn take_hold(&mut self) -> Option<Hold> {
        self.facts.hold.take()
    }

    /// Makes what is said of waiting true for an answer that leaves so much later than it was decided on.
    pub fn later(&mut self, passed: Duration) {
        let less = |wait: Duration| wait.min(wait.saturating_sub(passed).max(ONE_SECOND));
        self.facts.retry_after = self.facts.retry_after.map(less);
        if let Some(budget) = &mut self.facts.budget {
            budget.time = less(budget.time);
        }
    }

    /// The stable reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.facts.reason
    }

    /// What the log may know beyond the reason.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.facts.detail
    }

    /// How long the client should wait, if that is known.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        self.facts.retry_after
    }

    /// The challenge to send with a 401 or 403.
    #[must_use]
    pub fn www_authenticate(&self) -> Option<&Challenge> {
        self.facts.challenge.as_ref()
    }

    /// What the client is told about the limit that refused.
    #[must_use]
    pub fn told_budget(&self) -> Option<&Budget> {
        self.facts.budget.as_ref()
    }

    /// The limit that refused, if one did.
    #[must_use]
    pub fn limit_name(&self) -> Option<&Arc<str>> {
        self.policy_name().filter(|_| self.reason().is_by_limit())
    }

    /// The policy that refused, if one did.
    #[must_use]
    pub fn policy_name(&self) -> Option<&Arc<str>> {
        self.facts.policy.as_ref()
    }
}

impl Reason {
    /// Whether a limit refused.
    #[must_use]
    pub const fn is_by_limit(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::ConcurrencyLimited | Self::StoreUnavailable
        )
    }
}

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $code:literal, $status:ident, $grpc:literal, $blame:ident; )+) => {
        /// Every reason for which a request can be refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $( $(#[doc = $doc])+ $variant, )+ }

        impl Reason {
            /// All reasons, in the order of the pipeline.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The stable code: in the body, the log and the metric label.
            #[must_use]
            pub const fn code(self) -> &'static str { match self { $( Self::$variant => $code, )+ } }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> StatusCode { match self { $( Self::$variant => StatusCode::$status, )+ } }

            /// The gRPC status (numbers as in the gRPC specification).
            #[must_use]
            pub const fn grpc_status(self) -> u8 { match self { $( Self::$variant => $grpc, )+ } }

            /// Whose fault it is.
            #[must_use]
            pub const fn blame(self) -> Blame { match self { $( Self::$variant => Blame::$blame, )+ } }

            /// One sentence that the client may read.
            #[must_use]
            pub const fn title(self) -> &'static str { match self { $( Self::$variant => concat!($($doc),+).trim_ascii(), )+ } }
        }
    };
}

// grpc: 3 INVALID_ARGUMENT, 4 DEADLINE_EXCEEDED, 7 PERMISSION_DENIED, 8 RESOURCE_EXHAUSTED, 12 UNIMPLEMENTED,
// 13 INTERNAL, 14 UNAVAILABLE, 16 UNAUTHENTICATED.
reasons! {
    /// The gateway has too many requests in flight.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, 14, Gateway;
    /// The message framing is ambiguous or malformed.
    BadFraming = "bad_framing", BAD_REQUEST, 3, Client;
    /// The request head did not arrive in time.
    HeadTimeout = "head_timeout", REQUEST_TIMEOUT, 4, Client;
    /// The HTTP version is not supported.
    BadVersion = "bad_version", HTTP_VERSION_NOT_SUPPORTED, 12, Client;
    /// The transfer coding is not supported.
    UnsupportedCoding = "unsupported_transfer_coding", NOT_IMPLEMENTED, 12, Client;
    /// The request target is too long.
    TargetTooLong = "target_too_long", URI_TOO_LONG, 3, Client;
    /// The request header fields are too large.
    HeadTooLarge = "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, 8, Client;
    /// The request has too many header fields.
    TooManyFields = "too_many_fields", REQUEST_HEADER_FIELDS_TOO_LARGE, 8, Client;
    /// A header field is malformed.
    BadField = "bad_field", BAD_REQUEST, 3, Client;
    /// The method is misspelt.
    BadMethod = "bad_method", BAD_REQUEST, 3, Client;
    /// The method is not allowed here.
    MethodRefused = "method_refused", METHOD_NOT_ALLOWED, 12, Client;
    /// The host is missing, repeated or malformed.
    BadHost = "bad_host", BAD_REQUEST, 3, Client;
    /// The host differs from the server name of the connection.
    Misdirected = "misdirected", MISDIRECTED_REQUEST, 3, Client;
    /// The request target is malformed.
    BadTarget = "bad_target", BAD_REQUEST, 3, Client;
    /// The expectation cannot be met.
    BadExpectation = "bad_expectation", EXPECTATION_FAILED, 3, Client;
    /// The request for another protocol is malformed.
    BadUpgrade = "bad_upgrade", BAD_REQUEST, 3, Client;
    /// The forwarding headers of the proxy in front are malformed.
    BadForwarding = "bad_forwarding", BAD_REQUEST, 3, Client;
    /// Nothing is served here.
    NoRoute = "no_route", NOT_FOUND, 12, Client;
    /// This path is closed.
    RouteClosed = "route_closed", NOT_FOUND, 12, Policy;
    /// The timeout of the call is malformed.
    BadTimeout = "bad_timeout", BAD_REQUEST, 3, Client;
    /// Too many requests.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, 8, Policy;
    /// Too many requests at once.
    ConcurrencyLimited = "concurrency_limited", TOO_MANY_REQUESTS, 8, Policy;
    /// Whether the request is one too many cannot be told now.
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE, 14, Gateway;
    /// The cross-origin request is not allowed.
    CorsRefused = "cors_refused", FORBIDDEN, 7, Policy;
    /// A credential is required.
    CredentialMissing = "credential_missing", UNAUTHORIZED, 16, Client;
    /// The request carries more than one credential.
    CredentialAmbiguous = "credential_ambiguous", BAD_REQUEST, 3, Client;
    /// The credential is malformed.
    CredentialMalformed = "credential_malformed", UNAUTHORIZED, 16, Client;
    /// The token is too large.
    TokenTooLarge = "token_too_large", UNAUTHORIZED, 16, Client;
    /// The token header is not acceptable.
    TokenHeader = "token_header", UNAUTHORIZED, 16, Client;
    /// The token algorithm is not acceptable.
    TokenAlgorithm = "token_algorithm", UNAUTHORIZED, 16, Client;
    /// The token type is not acceptable.
    TokenType = "token_type", UNAUTHORIZED, 16, Client;
    /// The token was issued by somebody else.
    TokenIssuer = "token_issuer", UNAUTHORIZED, 16, Client;
    /// The token key is unknown.
    TokenKey = "token_key", UNAUTHORIZED, 16, Client;
    /// The token signature is wrong.
    TokenSignature = "token_signature", UNAUTHORIZED, 16, Client;
    /// The token has expired.
    TokenExpired = "token_expired", UNAUTHORIZED, 16, Client;
    /// The token is not valid yet.
    TokenNotYetValid = "token_not_yet_valid", UNAUTHORIZED, 16, Client;
    /// The token is for another audience.
    TokenAudience = "token_audience", UNAUTHORIZED, 16, Client;
    /// The token claims are not acceptable.
    TokenClaims = "token_claims", UNAUTHORIZED, 16, Client;
    /// The token was revoked, or its user has logged out.
    TokenRevoked = "token_revoked", UNAUTHORIZED, 16, Client;
    /// The issuer says that the token is not active.
    TokenInactive = "token_inactive", UNAUTHORIZED, 16, Client;
    /// The keys of the issuer are not available.
    KeysUnavailable = "keys_unavailable", SERVICE_UNAVAILABLE, 14, Upstream;
    /// The issuer cannot be asked about the token now.
    IntrospectionUnavailable = "introspection_unavailable", SERVICE_UNAVAILABLE, 14, Upstream;
    /// The session is not valid.
    SessionInvalid = "session_invalid", UNAUTHORIZED, 16, Client;
    /// The session needs a further factor.
    SessionStepUp = "session_step_up", UNAUTHORIZED, 16, Client;
    /// The session cannot be checked now.
    SessionUnavailable = "session_unavailable", SERVICE_UNAVAILABLE, 14, Upstream;
    /// A page of another site made this request.
    CsrfRefused = "csrf_refused", FORBIDDEN, 7, Policy;
    /// The caller may not do this.
    Forbidden = "forbidden", FORBIDDEN, 7, Policy;
    /// The caller lacks a scope.
    InsufficientScope = "insufficient_scope", FORBIDDEN, 7, Policy;
    /// The network of the caller may not do this.
    NetworkForbidden = "network_forbidden", FORBIDDEN, 7, Policy;
    /// The logout token is not acceptable.
    LogoutRefused = "logout_refused", BAD_REQUEST, 3, Client;
    /// The request body is too large.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, 8, Client;
    /// The request body did not arrive in time.
    BodyStalled = "body_stalled", REQUEST_TIMEOUT, 4, Client;
    /// The request body is malformed.
    BadBody = "bad_body", BAD_REQUEST, 3, Client;
    /// The media type cannot be translated.
    BadGrpcWeb = "bad_grpc_web", UNSUPPORTED_MEDIA_TYPE, 3, Client;
    /// No backend is available.
    NoEndpoint = "no_endpoint", SERVICE_UNAVAILABLE, 14, Upstream;
    /// The backend has too many requests in flight.
    UpstreamOverloaded = "upstream_overloaded", SERVICE_UNAVAILABLE, 14, Upstream;
    /// The backend cannot be reached.
    UpstreamUnreachable = "upstream_unreachable", BAD_GATEWAY, 14, Upstream;
    /// The backend ended the connection.
    UpstreamReset = "upstream_reset", BAD_GATEWAY, 14, Upstream;
    /// The backend answered malformed.
    UpstreamMalformed = "upstream_malformed", BAD_GATEWAY, 14, Upstream;
    /// The backend did not answer in time.
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT, 4, Upstream;
    /// The call did not end within the time that its caller gave it.
    DeadlineExceeded = "deadline_exceeded", GATEWAY_TIMEOUT, 4, Client;
    /// The backend did not switch protocols.
    UpgradeRefused = "upgrade_refused", BAD_GATEWAY, 14, Upstream;
    /// Something went wrong in the gateway.
    Internal = "internal", INTERNAL_SERVER_ERROR, 13, Gateway;
}

impl Reason {
    /// Code and HTTP status of the Connect protocol: it names the statuses of gRPC, and maps them to HTTP itself.
    #[must_use]
    pub const fn connect(self) -> (&'static str, StatusCode) {
        match self.grpc_status() {
            3 => ("invalid_argument", StatusCode::BAD_REQUEST),
            4 => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
            7 => ("permission_denied", StatusCode::FORBIDDEN),
            8 => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
            12 => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
            14 => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
            16 => ("unauthenticated", StatusCode::UNAUTHORIZED),
            _ => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// Waits are told in whole seconds, and none of them is none at all.
const ONE_SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_snake_case_words() {
        let mut seen = HashSet::new();
        for reason in Reason::ALL {
            let code = reason.code();
            assert!(seen.insert(code), "{code} twice");
            assert!(
                code.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{code}"
            );
        }
    }

    #[test]
    fn every_refusal_is_an_error_in_both_worlds() {
        for reason in Reason::ALL {
            assert!(
                reason.status().is_client_error() || reason.status().is_server_error(),
                "{reason:?}"
            );
            assert!((1..=16).contains(&reason.grpc_status()), "{reason:?}");
            assert!(reason.title().ends_with('.'), "{reason:?}");
        }
    }

    #[test]
    fn what_is_the_backends_fault_is_a_5xx() {
        for reason in Reason::ALL
            .iter()
            .filter(|reason| reason.blame() == Blame::Upstream)
        {
            assert!(reason.status().is_server_error(), "{reason:?}");
        }
    }
}
