//! Logins in the way of IdentSphere: its paths, its three cookies, its CSRF rule, its error envelope.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, LOCATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use super::account::{ACCESS_LIFETIME, Grant, REFRESH_LIFETIME, Refusal, Session, User};
use super::answer::{self, Answer, With};
use super::backend::Site;
use super::keys::{Signing, random_id};
use crate::types::clock;

/// What all its paths but [`AVATAR`] begin with, and what the refresh cookie is scoped to.
pub(super) const PREFIX: &str = "/v1/auth/";

/// Where a picture is sent to.
pub(super) const AVATAR: &str = "/v1/users/me/avatar";

pub(super) fn respond(site: &Site, method: &str, parts: &Parts, body: &Bytes) -> Answer {
    let headers = &parts.headers;
    let now = clock::wall();
    let path = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let answer = match (method, path) {
        ("POST", "register") => register(site, body, now),
        ("POST", "login") => login(site, body, now),
        ("POST", "mfa/challenge") => second_factor(site, body, now),
        ("GET", "session") => session(site, headers, now),
        ("POST", "refresh") => refresh(site, headers, now),
        ("POST", "logout") => logout(site, headers),
        ("GET", "oauth/google/start") => oauth_start(site, "google", parts.uri.query()),
        ("GET", "oauth/github/start") => oauth_start(site, "github", parts.uri.query()),
        _ => Err(Fault::NotFound),
    };
    answer.unwrap_or_else(Fault::answer).not_stored()
}

/// A picture for whoever is logged in. It is counted and let go.
pub(super) async fn avatar(site: &Site, headers: &HeaderMap, body: Incoming) -> Answer {
    let answer = async {
        live_session(site, headers, clock::wall())?;
        if bearer(headers).is_none() {
            check_csrf(headers)?;
        }
        let picture = Limited::new(body, MAX_AVATAR).collect().await;
        picture.map_err(|_| Fault::TooLarge)?;
        Ok(answer::json(
            StatusCode::OK,
            &json!({ "avatar_url": "https://cdn.example.com/1.png" }),
        ))
    };
    answer.await.unwrap_or_else(Fault::answer).not_stored()
}

/// Off to the provider, which sends the browser back to our callback, which sends it to `redirect_to`: a path of this
/// site, so exactly one slash in front.
fn oauth_start(site: &Site, provider: &str, query: Option<&str>) -> Result<Answer, Fault> {
    let redirect_to = query.and_then(|query| query.strip_prefix("redirect_to="));
    let path = redirect_to.unwrap_or("/").strip_prefix('/');
    if path.is_none_or(|path| path.starts_with(['/', '\\'])) {
        return Err(Fault::Unacceptable);
    }
    let callback = format!("{}/v1/auth/oauth/{provider}/callback", site.issuer());
    let state = random_id();
    let location =
        format!("https://{provider}.example/authorize?redirect_uri={callback}&state={state}");
    let mut answer = answer::json(StatusCode::TEMPORARY_REDIRECT, &json!({}));
    let location = HeaderValue::from_str(&location).map_err(|_| Fault::Broken)?;
    answer.headers_mut().insert(LOCATION, location);
    Ok(answer)
}

#[derive(Deserialize)]
struct Registration {
    email: String,
    password: String,
    organization_name: String,
}

fn register(site: &Site, body: &Bytes, now: SystemTime) -> Result<Answer, Fault> {
    let new: Registration = read(body)?;
    let acceptable = (3..=254).contains(&new.email.len())
        && new.email.contains('@')
        && (8..=1_024).contains(&new.password.len())
        && (1..=200).contains(&new.organization_name.len());
    if !acceptable {
        return Err(Fault::Unacceptable);
    }
    let user = site
        .accounts
        .register(&new.email, &new.password, &new.organization_name)
        .map_err(Fault::Account)?;
    open(site, &user, None, now)
}

#[derive(Deserialize)]
struct Login {
    email: String,
    password: String,
}

fn login(site: &Site, body: &Bytes, now: SystemTime) -> Result<Answer, Fault> {
    let login: Login = read(body)?;
    let user = site
        .accounts
        .verify(&login.email, &login.password)
        .map_err(Fault::Account)?;
    if !user.second_factor {
        return open(site, &user, None, now);
    }
    let token = site.accounts.challenge(user, now).map_err(Fault::Account)?;
    Ok(answer::json(
        StatusCode::OK,
        &json!({ "status": "mfa_required", "mfa_token": token, "methods": ["totp"] }),
    ))
}

#[derive(Deserialize)]
struct SecondFactor {
    mfa_token: String,
    code: String,
}

fn second_factor(site: &Site, body: &Bytes, now: SystemTime) -> Result<Answer, Fault> {
    let factor: SecondFactor = read(body)?;
    let user = site
        .accounts
        .answer_challenge(&factor.mfa_token, &factor.code, now)
        .map_err(|refusal| match refusal {
            Refusal::Invalid => Fault::BadCode,
            other => Fault::Account(other),
        })?;
    open(site, &user, Some(now), now)
}

fn session(site: &Site, headers: &HeaderMap, now: SystemTime) -> Result<Answer, Fault> {
    let session = live_session(site, headers, now)?;
    Ok(answer::json(StatusCode::OK, &described(&session)))
}

fn live_session(site: &Site, headers: &HeaderMap, now: SystemTime) -> Result<Session, Fault> {
    let access = match bearer(headers) {
        Some(token) => token,
        None => cookie(headers, ACCESS_COOKIE).ok_or(Fault::Unauthenticated)?,
    };
    site.accounts
        .session(access, now)
        .ok_or(Fault::Unauthenticated)
}

fn refresh(site: &Site, headers: &HeaderMap, now: SystemTime) -> Result<Answer, Fault> {
    let token = cookie(headers, REFRESH_COOKIE).ok_or(Fault::Unauthenticated)?;
    check_csrf(headers)?;
    let session = site
        .accounts
        .renewable(token, now)
        .ok_or(Fault::Unauthenticated)?;
    let access = access_token(site, &session.user, session.mfa_verified_at, now)?;
    let grant = site
        .accounts
        .renew(token, &access, now)
        .map_err(|_| Fault::Unauthenticated)?;
    Ok(logged_in(&session.user, &access, &grant))
}

/// Without a session there is nothing to end, which is what was asked for.
fn logout(site: &Site, headers: &HeaderMap) -> Result<Answer, Fault> {
    if let Some(token) = bearer(headers) {
        site.accounts.close(token);
    } else if let Some(token) = cookie(headers, ACCESS_COOKIE) {
        check_csrf(headers)?;
        site.accounts.close(token);
    }
    let mut answer = answer::json(StatusCode::OK, &json!({ "status": "success" }));
    for (name, path) in [
        (ACCESS_COOKIE, "/"),
        (REFRESH_COOKIE, REFRESH_PATH),
        (CSRF_COOKIE, "/"),
    ] {
        set_cookie(&mut answer, &Cookie::cleared(name, path));
    }
    Ok(answer)
}

fn open(
    site: &Site,
    user: &Arc<User>,
    mfa_verified_at: Option<SystemTime>,
    now: SystemTime,
) -> Result<Answer, Fault> {
    let access = access_token(site, user, mfa_verified_at, now)?;
    let grant = site
        .accounts
        .open(Arc::clone(user), &access, mfa_verified_at, now)
        .map_err(Fault::Account)?;
    Ok(logged_in(user, &access, &grant))
}

fn logged_in(user: &User, access: &str, grant: &Grant) -> Answer {
    let mut answer = answer::json(
        StatusCode::OK,
        &json!({
            "status": "success",
            "user": { "user_id": user.id, "organization_id": user.organization_id, "email": user.email },
        }),
    );
    let cookies = [
        Cookie {
            name: ACCESS_COOKIE,
            value: access,
            path: "/",
            lifetime: ACCESS_LIFETIME,
        },
        Cookie {
            name: REFRESH_COOKIE,
            value: &grant.refresh,
            path: REFRESH_PATH,
            lifetime: REFRESH_LIFETIME,
        },
        Cookie {
            name: CSRF_COOKIE,
            value: &grant.csrf,
            path: "/",
            lifetime: REFRESH_LIFETIME,
        },
    ];
    for cookie in &cookies {
        set_cookie(&mut answer, cookie);
    }
    answer
}

/// The claims of IdentSphere, which are not those of the token endpoint: another `iss`, no audience, no `at+jwt`.
fn access_token(
    site: &Site,
    user: &User,
    mfa_verified_at: Option<SystemTime>,
    now: SystemTime,
) -> Result<String, Fault> {
    let claims = json!({
        "iss": TOKEN_ISSUER,
        "sub": user.id,
        "org": user.organization_id,
        "email": user.email,
        "aal": if mfa_verified_at.is_some() { "aal2" } else { "aal1" },
        "mfa_verified_at": mfa_verified_at.map(clock::unix_seconds),
        "iat": clock::unix_seconds(now),
        "exp": clock::unix_seconds(now + ACCESS_LIFETIME),
        "jti": random_id(),
    });
    let claims: Map<String, Value> = match claims {
        Value::Object(claims) => claims,
        _ => Map::new(),
    };
    site.keys
        .sign(Signing::Rs256, "JWT", &claims)
        .map_err(|error| {
            tracing::warn!(%error, "demo backend");
            Fault::Broken
        })
}

/// An address that begins with `member+` has the lesser role.
fn described(session: &Session) -> Value {
    let user = &session.user;
    let method = if session.mfa_verified_at.is_some() {
        "password+totp"
    } else {
        "password"
    };
    let (role, permissions): (&str, &[&str]) = if user.email.starts_with("member+") {
        ("member", &["org.read"])
    } else {
        ("owner", &["org.read", "org.write"])
    };
    json!({
        "user": {
            "user_id": user.id,
            "organization_id": user.organization_id,
            "organization_name": user.organization_name,
            "email": user.email,
            "session_family_id": session.family,
            "auth_method": method,
            "mfa_verified_at": session.mfa_verified_at.map(clock::unix_seconds),
        },
        "capabilities": { "role": role, "permissions": permissions },
    })
}

/// The header must repeat the cookie, which a foreign page cannot read.
fn check_csrf(headers: &HeaderMap) -> Result<(), Fault> {
    let sent = headers.get("x-csrf-token").map(HeaderValue::as_bytes);
    let expected = cookie(headers, CSRF_COOKIE).map(str::as_bytes);
    match (sent, expected) {
        (Some(sent), Some(expected)) if bool::from(sent.ct_eq(expected)) => Ok(()),
        _ => Err(Fault::Csrf),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// HTTP/2 clients may send one field a cookie.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value)
}

/// Without `Secure`, as IdentSphere by default: behind TLS the gateway adds it.
struct Cookie<'a> {
    name: &'static str,
    value: &'a str,
    path: &'static str,
    lifetime: Duration,
}

impl Cookie<'_> {
    fn cleared(name: &'static str, path: &'static str) -> Self {
        Self {
            name,
            value: "",
            path,
            lifetime: Duration::ZERO,
        }
    }

    fn text(&self) -> String {
        // Scripts read the CSRF cookie; it is what they must send back.
        let hidden = if self.name == CSRF_COOKIE {
            ""
        } else {
            "; HttpOnly"
        };
        format!(
            "{}={}; Path={}; Max-Age={}; SameSite=Lax{hidden}",
            self.name,
            self.value,
            self.path,
            self.lifetime.as_secs()
        )
    }
}

fn set_cookie(answer: &mut Answer, cookie: &Cookie<'_>) {
    // Tokens are base64 and dots; were one not, the cookie would be missing and the login fail where it is seen.
    if let Ok(value) = HeaderValue::from_str(&cookie.text()) {
        answer.headers_mut().append(SET_COOKIE, value);
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|_| Fault::Unacceptable)
}

/// Everything that goes wrong here, in the envelope of IdentSphere.
#[derive(Debug)]
enum Fault {
    Account(Refusal),
    BadCode,
    Unauthenticated,
    Csrf,
    Unacceptable,
    TooLarge,
    NotFound,
    Broken,
}

impl Fault {
    fn answer(self) -> Answer {
        let (status, code, message, kind) = self.spelling();
        answer::json(
            status,
            &json!({ "error": { "code": code, "message": message, "type": kind } }),
        )
    }

    fn spelling(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        const AUTHENTICATION: &str = "authentication_error";
        const REQUEST: &str = "invalid_request_error";
        match self {
            Self::Account(Refusal::Invalid) => (
                StatusCode::UNAUTHORIZED,
                "invalid_credentials",
                "The e-mail address or the password is wrong.",
                AUTHENTICATION,
            ),
            Self::Account(Refusal::EmailTaken) => (
                StatusCode::CONFLICT,
                "email_taken",
                "The e-mail address has an account.",
                REQUEST,
            ),
            Self::Account(Refusal::TooManyCodes) => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "Too many wrong codes.",
                "rate_limit_error",
            ),
            Self::Account(Refusal::Full) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "full",
                "The demo holds no more.",
                "api_error",
            ),
            Self::BadCode => (
                StatusCode::UNAUTHORIZED,
                "invalid_code",
                "The code or its token is wrong.",
                AUTHENTICATION,
            ),
            Self::Unauthenticated => (
                StatusCode::UNAUTHORIZED,
                "authentication_required",
                "Log in first.",
                AUTHENTICATION,
            ),
            Self::Csrf => (
                StatusCode::FORBIDDEN,
                "csrf_failed",
                "X-CSRF-Token must repeat the cookie identsphere_csrf.",
                "permission_error",
            ),
            Self::Unacceptable => (
                StatusCode::BAD_REQUEST,
                "validation_failed",
                "The body is not what this path takes.",
                REQUEST,
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload_too_large",
                "The picture is larger than 5 MiB.",
                REQUEST,
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found",
                "Nothing is here.",
                REQUEST,
            ),
            Self::Broken => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong.",
                "api_error",
            ),
        }
    }
}

/// The `iss` of the access cookie; IdentSphere's default is not a URL.
pub(super) const TOKEN_ISSUER: &str = "IdentSphere";

const ACCESS_COOKIE: &str = "identsphere_at";
const REFRESH_COOKIE: &str = "identsphere_rt";
const CSRF_COOKIE: &str = "identsphere_csrf";
const MAX_AVATAR: usize = 5 * 1024 * 1024;
const REFRESH_PATH: &str = "/v1/auth";
