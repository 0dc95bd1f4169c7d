//! What the claims of a token must hold, and between which moments it is good.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::authn::refused;
use crate::types::{Reason, Rejection, claim_at};

/// What an issuer's tokens must say.
#[derive(Debug)]
pub struct Terms {
    /// Accepted audiences. Empty: the issuer's tokens name none, and one that does is not for us.
    pub audiences: Box<[String]>,
    /// Claims that must exist and not be null.
    pub required: Box<[String]>,
    /// Demanded `typ`, as [`super::shape::media_type`] spells it.
    pub typ: Option<String>,
    /// Clock difference that is forgiven.
    pub leeway: Duration,
}

/// Between which moments a token is good, in seconds since the epoch. Kept with a verified token and asked again at
/// every use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    expires: f64,
    not_before: f64,
    issued: f64,
}

/// `iss`, if it is a string; nothing else can choose an issuer.
#[must_use]
pub fn issuer(claims: &Map<String, Value>) -> Option<&str> {
    claims.get("iss").and_then(Value::as_str)
}

impl Window {
    /// Reads `exp`, `nbf` and `iat`.
    ///
    /// # Errors
    /// [`Reason::TokenClaims`] when `exp` is missing, or one of them is no number that could be a time.
    pub fn of(claims: &Map<String, Value>) -> Result<Self, Rejection> {
        Ok(Self {
            expires: seconds(claims, "exp")?
                .ok_or_else(|| refused(Reason::TokenClaims, "`exp` is missing"))?,
            not_before: seconds(claims, "nbf")?.unwrap_or(f64::NEG_INFINITY),
            issued: seconds(claims, "iat")?.unwrap_or(f64::NEG_INFINITY),
        })
    }

    /// The same of an answer about a token, which need not tell when it ends.
    ///
    /// # Errors
    /// [`Reason::TokenClaims`] when one of them is no number that could be a time.
    pub fn of_answer(claims: &Map<String, Value>) -> Result<Self, Rejection> {
        Ok(Self {
            expires: seconds(claims, "exp")?.unwrap_or(f64::INFINITY),
            not_before: seconds(claims, "nbf")?.unwrap_or(f64::NEG_INFINITY),
            issued: seconds(claims, "iat")?.unwrap_or(f64::NEG_INFINITY),
        })
    }

    /// Whether the token is good at `wall`.
    ///
    /// # Errors
    /// [`Reason::TokenExpired`] or [`Reason::TokenNotYetValid`].
    pub fn check(&self, wall: SystemTime, leeway: Duration) -> Result<(), Rejection> {
        let (now, leeway) = (unix(wall), leeway.as_secs_f64());
        if now >= self.expires + leeway {
            return Err(refused(Reason::TokenExpired, "`exp` has passed"));
        }
        if now + leeway < self.not_before {
            return Err(refused(Reason::TokenNotYetValid, "`nbf` is to come"));
        }
        if now + leeway < self.issued {
            return Err(refused(Reason::TokenNotYetValid, "`iat` is to come"));
        }
        Ok(())
    }

    /// Whether the token was issued before `moment`, in seconds since the epoch. One that does not say when it was
    /// issued was issued before everything.
    #[must_use]
    pub fn issued_before(&self, moment: f64) -> bool {
        self.issued < moment
    }

    /// When the token was issued, in seconds since the epoch; before everything where it does not say.
    #[must_use]
    pub fn issued(&self) -> f64 {
        self.issued
    }

    /// When the token was issued, if it says so.
    #[must_use]
    pub fn issued_at(&self) -> Option<SystemTime> {
        let since = Duration::try_from_secs_f64(self.issued).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(since)
    }

    /// For the log, of a token that is refused by when it was issued.
    #[must_use]
    pub fn why_revoked(&self) -> &'static str {
        if self.issued.is_finite() {
            "revoked, or issued before a logout"
        } else {
            "without `iat`, it counts as issued before a logout"
        }
    }

    /// How long the token lives from its issue to its end, if it says both.
    #[must_use]
    pub fn life(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.expires - self.issued).ok()
    }

    /// How long it is still good at `wall`; `None` when it does not say.
    #[must_use]
    pub fn left(&self, wall: SystemTime) -> Option<Duration> {
        if self.expires.is_infinite() {
            return None;
        }
        Some(Duration::try_from_secs_f64(self.expires - unix(wall)).unwrap_or_default())
    }

    /// `exp` as a moment, if the system's clock can hold it.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        let since = Duration::try_from_secs_f64(self.expires).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(since)
    }
}

impl Terms {
    /// Checks the type that the header states.
    ///
    /// Without a demanded type, one that says it is something else than an access token (`logout+jwt`, `dpop+jwt`,
    /// `secevent+jwt`) is refused all the same (RFC 8725 section 3.11).
    ///
    /// # Errors
    /// [`Reason::TokenType`].
    pub fn check_type(&self, typ: Option<&str>) -> Result<(), Rejection> {
        let fits = match (&self.typ, typ) {
            (Some(demanded), stated) => stated == Some(demanded.as_str()),
            (None, Some(stated)) => !stated.ends_with("+jwt") || stated == "at+jwt",
            (None, None) => true,
        };
        if fits {
            return Ok(());
        }
        Err(refused(Reason::TokenType, "`typ` is not the one demanded"))
    }

    /// Checks what the claims say of everything but issuer and time.
    ///
    /// # Errors
    /// [`Reason::TokenAudience`], [`Reason::TokenType`] or [`Reason::TokenClaims`].
    pub fn check(&self, claims: &Map<String, Value>) -> Result<(), Rejection> {
        self.check_audience(claims.get("aud"))?;
        // Not every issuer says so in `typ`.
        if names_logout(claims) {
            return Err(refused(
                Reason::TokenType,
                "a logout token is no credential",
            ));
        }
        match claims.get("sub") {
            Some(Value::String(sub)) if !sub.is_empty() => {}
            _ => {
                return Err(refused(
                    Reason::TokenClaims,
                    "`sub` is missing, empty or no string",
                ));
            }
        }
        self.check_required(claims)
    }

    /// Checks what an answer about a token says of it. What it does not say, the issuer has judged: an answer may be as
    /// short as `{"active":true}`.
    ///
    /// # Errors
    /// [`Reason::TokenAudience`], [`Reason::TokenType`] or [`Reason::TokenClaims`].
    pub fn check_answer(&self, claims: &Map<String, Value>) -> Result<(), Rejection> {
        let audience = claims.get("aud").filter(|aud| !aud.is_null());
        if !self.audiences.is_empty() && audience.is_some() {
            self.check_audience(audience)?;
        }
        // Refresh tokens are active too, and a token that is bound to a key is not for whoever merely bears it.
        let says = |name: &str, words: &[&str]| match claims.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::String(said)) => words.iter().any(|word| said.eq_ignore_ascii_case(word)),
            Some(_) => false,
        };
        if !says("token_type", &["bearer", "access_token"])
            || !says("token_use", &["access", "access_token"])
        {
            return Err(refused(
                Reason::TokenType,
                "the issuer says that it is no bearer access token",
            ));
        }
        self.check_required(claims)
    }

    fn check_required(&self, claims: &Map<String, Value>) -> Result<(), Rejection> {
        let missing = self
            .required
            .iter()
            .find(|path| claim_at(claims, path).is_none_or(Value::is_null));
        match missing {
            Some(path) => Err(refused(
                Reason::TokenClaims,
                format!("`{path}` is required and missing"),
            )),
            None => Ok(()),
        }
    }

    fn check_audience(&self, aud: Option<&Value>) -> Result<(), Rejection> {
        check_audience(&self.audiences, aud)
    }
}

/// The event that makes a token one of logout (OpenID Connect Back-Channel Logout 1.0).
pub const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Whether the token tells of a logout.
#[must_use]
pub fn names_logout(claims: &Map<String, Value>) -> bool {
    let events = claims.get("events").and_then(Value::as_object);
    events.is_some_and(|events| events.contains_key(LOGOUT_EVENT))
}

/// Checks that `aud` names one of `accepted`; or nobody, where nobody is accepted.
///
/// # Errors
/// [`Reason::TokenAudience`].
pub fn check_audience(accepted: &[String], aud: Option<&Value>) -> Result<(), Rejection> {
    let malformed = || {
        refused(
            Reason::TokenAudience,
            "`aud` is no string and no list of strings",
        )
    };
    let accepts = |audience: &str| accepted.iter().any(|known| known == audience);
    let fits = match aud {
        None if accepted.is_empty() => true,
        None => return Err(refused(Reason::TokenAudience, "`aud` is missing")),
        Some(Value::String(one)) => accepts(one),
        Some(Value::Array(many)) => {
            let mut fits = false;
            for one in many {
                fits |= accepts(one.as_str().ok_or_else(malformed)?);
            }
            fits
        }
        Some(_) => return Err(malformed()),
    };
    if fits {
        return Ok(());
    }
    Err(refused(Reason::TokenAudience, "`aud` names somebody else"))
}

fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, Rejection> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => time(value).map(Some).ok_or_else(|| {
            refused(
                Reason::TokenClaims,
                format!("`{name}` is no number that could be a time"),
            )
        }),
    }
}

/// An integer or a finite float within ±2^53: beyond that, parsers no longer agree which number it is.
fn time(value: &Value) -> Option<f64> {
    const BOUND: i64 = 1 << 53;
    let Value::Number(number) = value else {
        return None;
    };
    if !number.is_f64() {
        // Judged as an integer first: 2^53 + 1 would round into the bounds.
        number
            .as_i64()
            .filter(|whole| (-BOUND..=BOUND).contains(whole))?;
    }
    number
        .as_f64()
        .filter(|float| float.abs() <= 9_007_199_254_740_992.0)
}

fn unix(wall: SystemTime) -> f64 {
    match wall.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}
