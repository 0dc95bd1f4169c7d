//! The demo backend as an OpenID provider: discovery, key set, client credentials.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap, PRAGMA, WWW_AUTHENTICATE};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use super::answer::{self, Answer, With};
use super::backend::Site;
use super::keys::{ACCESS_TOKEN_TYPE, Signing, random_id};
use crate::types::clock;

/// The one client of the token endpoint.
pub const CLIENT_ID: &str = "demo-client";

/// Its secret. Public, and worth nothing.
pub const CLIENT_SECRET: &str = "demo-secret-worth-nothing";

/// How long an access token is good, in seconds.
pub const TOKEN_LIFETIME: u64 = 900;

/// Organisation of the client.
const ORG: &str = "acme";

/// Scopes that the client may ask for.
const SCOPES: [&str; 2] = ["read", "write"];

/// The `Authorization` of the one client.
#[must_use]
pub fn basic_authorization() -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"))
    )
}

pub(super) fn discovery(site: &Site) -> Answer {
    let issuer = site.issuer();
    let algorithms = Signing::ALL.map(Signing::as_str);
    answer::json(
        StatusCode::OK,
        &json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/oauth/keys"),
            "token_endpoint": format!("{issuer}/oauth/token"),
            "response_types_supported": ["code", "token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "scopes_supported": SCOPES,
            "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "org", "roles", "scope"],
        }),
    )
    .cached()
}

pub(super) fn keys(site: &Site) -> Answer {
    match serde_json::to_value(site.keys.published()) {
        Ok(published) => answer::json(StatusCode::OK, &published).cached(),
        Err(error) => answer::failed(&error),
    }
}

/// The claims of a good access token.
pub(super) fn claims(site: &Site, scope: &str, now: SystemTime) -> Map<String, Value> {
    let now = clock::unix_seconds(now);
    let roles: &[&str] = if scope.split(' ').any(|word| word == "write") {
        &["reader", "writer"]
    } else {
        &["reader"]
    };
    let claims = json!({
        "iss": site.issuer(),
        "sub": CLIENT_ID,
        "client_id": CLIENT_ID,
        "aud": [site.audience()],
        "exp": now + TOKEN_LIFETIME,
        "iat": now,
        "nbf": now,
        "jti": random_id(),
        "org": ORG,
        "roles": roles,
        "scope": scope,
    });
    match claims {
        Value::Object(claims) => claims,
        _ => Map::new(),
    }
}

/// RFC 6749 section 4.4, with one more parameter: `alg` picks the key.
pub(super) fn token(site: &Site, headers: &HeaderMap, body: &Bytes) -> Answer {
    match grant(site, headers, body) {
        Ok(answer) => answer.not_stored().with(PRAGMA, "no-cache"),
        Err(refusal) => refusal.answer().not_stored(),
    }
}

fn grant(site: &Site, headers: &HeaderMap, body: &Bytes) -> Result<Answer, Refusal> {
    let form = Form::parse(body).ok_or(Refusal::Request)?;
    authenticate(headers, &form)?;
    if form.one("grant_type")? != Some("client_credentials") {
        return Err(Refusal::GrantType);
    }
    let scope = form.one("scope")?.unwrap_or("read");
    if !scope.split(' ').all(|word| SCOPES.contains(&word)) {
        return Err(Refusal::Scope);
    }
    let signing = match form.one("alg")? {
        None => Signing::Rs256,
        Some(name) => Signing::from_name(name).ok_or(Refusal::Request)?,
    };
    let claims = claims(site, scope, clock::wall());
    let answer = match site.keys.sign(signing, ACCESS_TOKEN_TYPE, &claims) {
        Ok(token) => answer::json(
            StatusCode::OK,
            &json!({
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": TOKEN_LIFETIME,
                "scope": scope,
            }),
        ),
        Err(error) => answer::failed(&error),
    };
    Ok(answer)
}

/// By Basic or by the form, never by both at once.
fn authenticate(headers: &HeaderMap, form: &Form) -> Result<(), Refusal> {
    let basic = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Basic "));
    let (id, secret) = match (basic, form.one("client_secret")?) {
        (Some(_), Some(_)) => return Err(Refusal::Request),
        (Some(basic), None) => basic_credentials(basic).ok_or(Refusal::Client)?,
        (None, Some(secret)) => {
            let id = form.one("client_id")?.ok_or(Refusal::Client)?;
            (id.to_owned(), secret.to_owned())
        }
        (None, None) => return Err(Refusal::Client),
    };
    let good = id.as_bytes().ct_eq(CLIENT_ID.as_bytes())
        & secret.as_bytes().ct_eq(CLIENT_SECRET.as_bytes());
    if bool::from(good) {
        Ok(())
    } else {
        Err(Refusal::Client)
    }
}

/// RFC 6749 section 2.3.1: both halves are form-encoded before they are joined.
fn basic_credentials(encoded: &str) -> Option<(String, String)> {
    let joined = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = joined.split_once(':')?;
    Some((form_decoded(id)?, form_decoded(secret)?))
}

/// A body of `application/x-www-form-urlencoded`.
struct Form(Vec<(String, String)>);

impl Form {
    fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        text.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((form_decoded(name)?, form_decoded(value)?))
            })
            .collect::<Option<Vec<_>>>()
            .map(Self)
    }

    /// A parameter that is sent twice makes the request invalid (RFC 6749 section 3.2).
    fn one(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self
            .0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Refusal::Request),
            (value, None) => Ok(value),
        }
    }
}

fn form_decoded(text: &str) -> Option<String> {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8()
        .ok()
        .map(|decoded| decoded.into_owned())
}

/// RFC 6749 section 5.2.
#[derive(Clone, Copy)]
enum Refusal {
    Client,
    Request,
    GrantType,
    Scope,
}

impl Refusal {
    fn answer(self) -> Answer {
        let (status, error) = match self {
            Self::Client => (StatusCode::UNAUTHORIZED, "invalid_client"),
            Self::Request => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::GrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
            Self::Scope => (StatusCode::BAD_REQUEST, "invalid_scope"),
        };
        let answer = answer::json(status, &json!({ "error": error }));
        match self {
            Self::Client => answer.with(WWW_AUTHENTICATE, "Basic realm=\"demo\""),
            _ => answer,
        }
    }
}
