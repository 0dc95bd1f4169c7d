//! The steps of the tour.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::Place;
use crate::demo::client::rpc::Wire;
use crate::demo::client::{ClientTls, Target};
use crate::demo::grpc::{HelloRequest, SAY_HELLO};
use crate::demo::keys::Signing;
use crate::types::Reason;

/// One thing to ask, and the answer that it should have.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) title: &'static str,
    pub(super) door: Door,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) payload: Payload,
    pub(super) credential: Credential,
    pub(super) tries: Tries,
    pub(super) expect: Expect,
}

/// Which listener, and which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    TlsHttp1,
    TlsHttp2,
    H2c,
    Admin,
}

/// What is sent along.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload {
    None,
    Json(&'static str),
    TokenForm(Signing),
    Hello(Wire),
}

/// What is shown of oneself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    None,
    /// The client of the token endpoint.
    Client,
    Token,
    Forged,
    Cookies,
    CookiesAndCsrf,
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tries {
    Once,
    /// As fast as possible, until the answer is the expected one.
    Burst,
    /// With patience, until the answer is the expected one.
    Patient,
}

/// What should come back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    Ready,
    Health,
    Refused(Reason),
    Token(Signing),
    /// The backend knows the caller: the header, and its value.
    Known(&'static str, &'static str),
    LoggedIn,
    LoggedOut,
    Greeting(Wire),
    Limited,
    /// Wrong passwords are wrong until there were too many for the account.
    Guessed,
    Counted,
}

const READY: Step = Step {
    title: "The gateway is ready",
    door: Door::Admin,
    method: "GET",
    path: "/readyz",
    payload: Payload::None,
    credential: Credential::None,
    tries: Tries::Patient,
    expect: Expect::Ready,
};

const HEALTH: Step = Step {
    title: "Health over HTTP/1.1 and TLS",
    door: Door::TlsHttp1,
    path: "/health",
    tries: Tries::Once,
    expect: Expect::Health,
    ..READY
};

const PROTECTED: Step = Step {
    title: "A protected route without a token",
    door: Door::TlsHttp2,
    path: "/api/whoami",
    expect: Expect::Refused(Reason::CredentialMissing),
    ..HEALTH
};

const LOGIN: Step = Step {
    title: "A login that sets a session",
    door: Door::TlsHttp2,
    method: "POST",
    path: "/v1/auth/login",
    payload: Payload::Json(
        r#"{"email":"ada@example.com","password":"correct horse battery staple"}"#,
    ),
    expect: Expect::LoggedIn,
    ..HEALTH
};

/// The tour, in order. What a step picks up (a token, cookies) the later ones show.
pub(super) const STEPS: &[Step] = &[
    READY,
    HEALTH,
    Step {
        title: "Health over HTTP/2 and TLS",
        door: Door::TlsHttp2,
        ..HEALTH
    },
    Step {
        title: "Health over HTTP/2 in cleartext, with prior knowledge",
        door: Door::H2c,
        ..HEALTH
    },
    PROTECTED,
    token("A token signed with RS256", Signing::Rs256),
    Step {
        title: "The protected route with a forged token",
        credential: Credential::Forged,
        expect: Expect::Refused(Reason::TokenSignature),
        ..PROTECTED
    },
    with_token("The protected route with the RS256 token"),
    token("A token signed with ES256", Signing::Es256),
    with_token("The protected route with the ES256 token"),
    token("A token signed with EdDSA", Signing::EdDsa),
    with_token("The protected route with the EdDSA token"),
    LOGIN,
    Step {
        title: "A route for sessions, with the session",
        path: "/me/whoami",
        credential: Credential::Cookies,
        expect: Expect::Known("x-auth-email", "ada@example.com"),
        ..PROTECTED
    },
    Step {
        title: "Logout",
        path: "/v1/auth/logout",
        payload: Payload::None,
        credential: Credential::CookiesAndCsrf,
        expect: Expect::LoggedOut,
        ..LOGIN
    },
    Step {
        title: "The route for sessions after the logout",
        path: "/me/whoami",
        credential: Credential::Cookies,
        // Although the gateway believes the backend for much longer: the logout passed by.
        expect: Expect::Refused(Reason::SessionInvalid),
        ..PROTECTED
    },
    Step {
        title: "Guesses at one account, until there were too many",
        payload: Payload::Json(r#"{"email":"grace@example.com","password":"letmein"}"#),
        tries: Tries::Burst,
        expect: Expect::Guessed,
        ..LOGIN
    },
    Step {
        title: "A right password for another account, from the same address",
        ..LOGIN
    },
    greeting("A native gRPC call", Door::TlsHttp2, Wire::Grpc),
    greeting(
        "The same call as gRPC-Web in binary, over HTTP/1.1",
        Door::TlsHttp1,
        Wire::Web,
    ),
    greeting(
        "The same call as gRPC-Web in text",
        Door::TlsHttp2,
        Wire::WebText,
    ),
    Step {
        title: "A burst that is more than the limit",
        path: "/limited",
        tries: Tries::Burst,
        expect: Expect::Limited,
        ..HEALTH
    },
    Step {
        title: "The metrics that counted it all",
        path: "/metrics",
        // An exchange is counted when its last byte has left, which may be after it has arrived.
        expect: Expect::Counted,
        ..READY
    },
];

const fn token(title: &'static str, signing: Signing) -> Step {
    Step {
        title,
        path: "/oauth/token",
        payload: Payload::TokenForm(signing),
        credential: Credential::Client,
        expect: Expect::Token(signing),
        ..LOGIN
    }
}

const fn with_token(title: &'static str) -> Step {
    Step {
        title,
        credential: Credential::Token,
        expect: Expect::Known("x-auth-user", "demo-client"),
        ..PROTECTED
    }
}

const fn greeting(title: &'static str, door: Door, wire: Wire) -> Step {
    Step {
        title,
        door,
        path: SAY_HELLO,
        payload: Payload::Hello(wire),
        credential: Credential::Token,
        expect: Expect::Greeting(wire),
        ..LOGIN
    }
}

/// The message of every gRPC step.
pub(super) fn hello() -> HelloRequest {
    HelloRequest {
        name: "Ada".to_owned(),
    }
}

impl Step {
    pub(super) fn url(&self, place: &Place) -> String {
        format!("{}{}", self.door.origin(place), self.path)
    }
}

impl Door {
    fn origin(self, place: &Place) -> String {
        match self {
            Self::TlsHttp1 | Self::TlsHttp2 => format!("https://localhost:{}", place.https.port()),
            Self::H2c => format!("http://localhost:{}", place.http.port()),
            Self::Admin => format!("http://{}", place.admin),
        }
    }

    pub(super) fn target(self, place: &Place) -> Target {
        let tls = || {
            Some(ClientTls {
                root_pem: place.root_pem.clone(),
                server_name: "localhost".to_owned(),
            })
        };
        let to = |address: SocketAddr, tls, http2| Target {
            address,
            tls,
            http2,
        };
        match self {
            Self::TlsHttp1 => to(place.https, tls(), false),
            Self::TlsHttp2 => to(place.https, tls(), true),
            Self::H2c => to(place.http, None, true),
            Self::Admin => to(place.admin, None, false),
        }
    }

    pub(super) fn protocol(self) -> &'static str {
        match self {
            Self::TlsHttp1 | Self::Admin => "HTTP/1.1",
            Self::TlsHttp2 | Self::H2c => "HTTP/2",
        }
    }
}

impl Payload {
    pub(super) fn text(self) -> String {
        match self {
            Self::Json(text) => text.to_owned(),
            Self::TokenForm(signing) => {
                format!(
                    "grant_type=client_credentials&scope=read&alg={}",
                    signing.as_str()
                )
            }
            Self::None | Self::Hello(_) => String::new(),
        }
    }

    pub(super) fn content_type(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Json(_) => Some("application/json"),
            Self::TokenForm(_) => Some("application/x-www-form-urlencoded"),
            Self::Hello(wire) => Some(wire.content_type()),
        }
    }
}

impl Credential {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => "as the client of the token endpoint",
            Self::Token => "with the token",
            Self::Forged => "with the token, its signature changed",
            Self::Cookies => "with the cookies",
            Self::CookiesAndCsrf => "with the cookies and X-CSRF-Token",
        }
    }
}

impl Tries {
    pub(super) fn count(self) -> u32 {
        match self {
            Self::Once => 1,
            Self::Burst => 20,
            Self::Patient => 200,
        }
    }

    pub(super) fn pause(self) -> Duration {
        match self {
            Self::Once | Self::Burst => Duration::ZERO,
            Self::Patient => Duration::from_millis(50),
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Once | Self::Patient => "",
            Self::Burst => "again and again",
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("200"),
            Self::Health => f.write_str("200 with the status `pass`"),
            Self::Refused(reason) => {
                write!(f, "{} with the code `{}`", reason.status(), reason.code())
            }
            Self::Token(signing) => write!(f, "200 with a token, {}", signing.as_str()),
            Self::Known(name, value) => write!(f, "200, and the backend saw `{name}: {value}`"),
            Self::LoggedIn => f.write_str("200 with cookies"),
            Self::LoggedOut => f.write_str("200"),
            Self::Greeting(_) => f.write_str("grpc-status 0 and a greeting for demo-client"),
            Self::Limited => f.write_str("200 first, and then 429 with Retry-After"),
            Self::Guessed => f.write_str("401 until the limit `account` says 429"),
            Self::Counted => f.write_str("requests counted with the statuses 200, 401 and 429"),
        }
    }
}
