//! Takes an issuer's word that somebody has logged out (OpenID Connect Back-Channel Logout 1.0).
//!
//! A logout token is judged like any token of the issuer, and must be one: it names the event, has no `nonce`, and is
//! good once. What it ends is refused from then on, cached or not, until the last token issued before it has expired.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::answers::{login_fingerprint, user_fingerprint};
use super::cache::fingerprint;
use super::issuer::Issuer;
use super::jwt::{Shape, Window, claims, shape};
use super::revoke::{Ended, Revocation};
use crate::types::rejection::Blame;
use crate::types::{Reason, Rejection};

/// The endpoint of one issuer.
pub struct Logout {
    pub(super) issuer: Arc<Issuer>,
    /// Accepted audiences; empty: those of the issuer.
    pub(super) audiences: Box<[String]>,
}

/// Longest `sub`, `sid` and `jti`.
const MOST_NAME: usize = 1_024;

impl Logout {
    /// The issuer.
    #[must_use]
    pub fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// Largest body that can hold a logout token.
    #[must_use]
    pub fn most_body(&self) -> usize {
        // Every character may be written as three.
        self.issuer
            .max_token
            .saturating_mul(3)
            .saturating_add(1_024)
    }

    /// Judges a request and says what it ends.
    ///
    /// # Errors
    /// [`Reason::LogoutRefused`] when it is not acceptable, 503 when its signature cannot be judged now.
    pub async fn receive(
        &self,
        method: &Method,
        headers: &HeaderMap,
        body: &[u8],
        wall: SystemTime,
    ) -> Result<Vec<Revocation>, Rejection> {
        if method != Method::POST {
            return Err(Rejection::new(Reason::MethodRefused));
        }
        let token = token_of(headers, body)?;
        self.judge(&token, wall).await.map_err(as_logout)
    }

    async fn judge(&self, token: &str, wall: SystemTime) -> Result<Vec<Revocation>, Rejection> {
        shape::check_size(token, self.issuer.max_token)?;
        let shape = Shape::parse(token)?;
        let issuer = &self.issuer;
        if claims::issuer(&shape.claims) != Some(issuer.url()) {
            return Err(refused("`iss` is another issuer"));
        }
        issuer.check_algorithm(&shape.jws)?;
        // Explicit typing is only recommended to issuers; a type of something else is never right.
        if !matches!(
            shape.jws.header.typ.as_deref(),
            None | Some("jwt" | "logout+jwt")
        ) {
            return Err(refused("`typ` is that of another token"));
        }
        let window = Window::of(&shape.claims)?;
        window.check(wall, issuer.terms.leeway)?;
        let issued = window
            .issued_at()
            .ok_or_else(|| refused("`iat` is missing"))?;
        issuer.check_signature(&shape.jws, wall).await?;
        self.check_audience(&shape.claims)?;
        let whom = Whom::of(&shape.claims)?;
        self.check_replay(&shape.claims, &window, wall)?;
        Ok(self.revocations(&whom, issued, wall))
    }

    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), Rejection> {
        let accepted = if self.audiences.is_empty() {
            &self.issuer.terms.audiences
        } else {
            &self.audiences
        };
        claims::check_audience(accepted, claims.get("aud"))
    }

    fn check_replay(
        &self,
        claims: &Map<String, Value>,
        window: &Window,
        wall: SystemTime,
    ) -> Result<(), Rejection> {
        let jti = name(claims, "jti")?.ok_or_else(|| refused("`jti` is missing"))?;
        let leeway = self.issuer.terms.leeway;
        let lasts = window.left(wall).unwrap_or_default() + leeway;
        let print = fingerprint(&[b"logout", jti.as_bytes()]);
        if self.issuer.revoked.is_first(print, lasts) {
            return Ok(());
        }
        Err(refused("`jti` was seen before"))
    }

    /// What was issued up to the second of the logout: whoever logs in again gets a later one.
    fn revocations(
        &self,
        whom: &Whom<'_>,
        issued: SystemTime,
        wall: SystemTime,
    ) -> Vec<Revocation> {
        let before = issued + Duration::from_secs(1);
        let user = whom.sub.map(user_fingerprint);
        let ended = match (whom.sid.map(login_fingerprint), user) {
            // A token that does not tell its login may be of this one.
            (Some(login), Some(user)) => vec![
                Ended::Login(login, before),
                Ended::UserWithoutLogin(user, before),
            ],
            (Some(login), None) => vec![Ended::Login(login, before)],
            (None, Some(user)) => vec![Ended::User(user, before)],
            (None, None) => Vec::new(),
        };
        let until = self.issuer.cut_off_until(wall);
        let revocation = |what| Revocation {
            source: Arc::clone(self.issuer.name()),
            what,
            until,
        };
        ended.into_iter().map(revocation).collect()
    }
}

/// Who has logged out.
struct Whom<'c> {
    sub: Option<&'c str>,
    sid: Option<&'c str>,
}

impl<'c> Whom<'c> {
    fn of(claims: &'c Map<String, Value>) -> Result<Self, Rejection> {
        let event = claims
            .get("events")
            .and_then(Value::as_object)
            .and_then(|events| events.get(claims::LOGOUT_EVENT));
        if !event.is_some_and(Value::is_object) {
            return Err(refused("`events` does not name the logout"));
        }
        // An ID token with the same claims would have one.
        if claims.contains_key("nonce") {
            return Err(refused("`nonce` is present"));
        }
        let whom = Self {
            sub: name(claims, "sub")?,
            sid: name(claims, "sid")?,
        };
        if whom.sub.is_none() && whom.sid.is_none() {
            return Err(refused("neither `sub` nor `sid`"));
        }
        Ok(whom)
    }
}

fn name<'c>(
    claims: &'c Map<String, Value>,
    claim: &'static str,
) -> Result<Option<&'c str>, Rejection> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(name)) if (1..=MOST_NAME).contains(&name.len()) => Ok(Some(name)),
        Some(_) => Err(refused(format!(
            "`{claim}` is empty, too long or no string"
        ))),
    }
}

/// The one `logout_token` of a form.
fn token_of(headers: &HeaderMap, body: &[u8]) -> Result<String, Rejection> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or("");
    if !kind
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    {
        return Err(refused("the body is no form"));
    }
    let text = std::str::from_utf8(body).map_err(|_| refused("the body is no form"))?;
    let mut tokens = text.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name == "logout_token").then_some(value)
    });
    let (Some(token), None) = (tokens.next(), tokens.next()) else {
        return Err(refused("not exactly one `logout_token`"));
    };
    // A token holds no plus sign, so one can only be a mistake, which the reader of tokens finds.
    percent_decode_str(token)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| refused("the token is no text"))
}

/// An issuer that sends a bad logout token has made a bad request, whatever is wrong with the token.
fn as_logout(why: Rejection) -> Rejection {
    if why.reason().blame() != Blame::Client || why.reason() == Reason::LogoutRefused {
        return why;
    }
    refused(format!("{}: {}", why.reason().code(), why.detail()))
}

fn refused(detail: impl Into<std::borrow::Cow<'static, str>>) -> Rejection {
    Rejection::because(Reason::LogoutRefused, detail)
}

impl fmt::Debug for Logout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logout")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}
