//! The caller's identity once more, signed: a JWT that an upstream can verify whoever handed it the request.
//!
//! It is good for a minute and kept with the facts it was made of, so that a caller's next requests cost no signature.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::config;
use crate::types::memo::Signed;
use crate::types::{Principal, Reason, Rejection};

/// The header of the assertion.
pub const X_VESTIBULE_ASSERTION: HeaderName = HeaderName::from_static("x-vestibule-assertion");

/// How long an assertion is good.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long of that is left, at least, for a request to reach its upstream.
const RESERVE: Duration = Duration::from_secs(15);
/// Largest assertion: what common servers take as one header field.
const MOST_BYTES: usize = 8 * 1024;

/// The key that signs assertions. Lives on across reloads that do not change it.
pub struct Signer {
    pub(super) config: config::Assertion,
    pub(super) pair: Ed25519KeyPair,
    pub(super) kid: Arc<str>,
    pub(super) public: Value,
    /// The key before this one: assertions that it signed may still be under way.
    pub(super) retired: Option<Value>,
    /// The header of every token, encoded.
    pub(super) header: String,
    /// A key that was made here and is to be written down, and where.
    pub(super) unsaved: Option<(PathBuf, Zeroizing<Vec<u8>>)>,
}

/// Signs for one upstream.
#[derive(Clone, Debug)]
pub(super) struct Assertion {
    signer: Arc<Signer>,
    audience: Arc<str>,
    /// Under which assertions for this audience are remembered.
    name: Arc<str>,
}

impl Signer {
    /// The key set by which upstreams verify assertions.
    #[must_use]
    pub fn key_set(&self) -> Bytes {
        let keys: Vec<_> = [Some(&self.public), self.retired.as_ref()]
            .into_iter()
            .flatten()
            .collect();
        json!({ "keys": keys }).to_string().into()
    }

    fn sign(&self, claims: &Map<String, Value>) -> String {
        let claims = Value::Object(claims.clone()).to_string();
        let mut token = self.header.clone();
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        token
    }
}

impl Assertion {
    pub(super) fn new(signer: Arc<Signer>, audience: &str) -> Self {
        Self {
            name: format!("{} {} {audience}", signer.kid, signer.config.issuer).into(),
            audience: audience.into(),
            signer,
        }
    }

    /// Tells an authenticated caller's identity; nothing is said of an anonymous one.
    pub(super) fn write(
        &self,
        headers: &mut HeaderMap,
        principal: &Principal,
        now: SystemTime,
    ) -> Result<(), Rejection> {
        if !principal.is_authenticated() {
            return Ok(());
        }
        let kept = &principal.facts.kept.assertions;
        let known = kept
            .find(&self.name)
            .filter(|signed| now < signed.until && now + LIFETIME > signed.until);
        let signed = match known {
            Some(signed) => signed,
            None => {
                let signed = self.make(principal, now)?;
                kept.keep(&self.name, signed.clone());
                signed
            }
        };
        headers.insert(X_VESTIBULE_ASSERTION, signed.value);
        Ok(())
    }

    fn make(&self, principal: &Principal, now: SystemTime) -> Result<Signed, Rejection> {
        let end = now + LIFETIME;
        // Never good for longer than the credential that it stands for; one within the leeway has a moment.
        let least = now + Duration::from_secs(1);
        let end = match principal.facts.expires_at {
            Some(expires) if expires < end => expires.max(least),
            _ => end,
        };
        let token = self.signer.sign(&self.claims(principal, now, end));
        let value = HeaderValue::try_from(token)
            .ok()
            .filter(|value| value.len() <= MOST_BYTES)
            .ok_or_else(|| {
                Rejection::because(
                    Reason::TokenClaims,
                    "the caller's assertion would be larger than 8 KiB",
                )
            })?;
        Ok(Signed {
            value,
            until: end.checked_sub(RESERVE).unwrap_or(now).max(now),
        })
    }

    fn claims(
        &self,
        principal: &Principal,
        now: SystemTime,
        end: SystemTime,
    ) -> Map<String, Value> {
        let facts = &principal.facts;
        let mut claims = Map::new();
        let mut say = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        say("iss", self.signer.config.issuer.as_str().into());
        say("aud", (&*self.audience).into());
        say("sub", facts.user.as_str().into());
        say("iat", unix_seconds(now).into());
        say("exp", unix_seconds(end).into());
        say("method", principal.method.as_str().into());
        say("source", (&*principal.source).into());
        say("roles", facts.roles.clone().into());
        if let Some(org) = &facts.org {
            say("org", org.as_str().into());
        }
        if let Some(email) = &facts.email {
            say("email", email.as_str().into());
        }
        if let Some(sid @ Value::String(_)) = facts.claims.get("sid") {
            say("sid", sid.clone());
        }
        claims
    }
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Problems};
    use crate::types::{AuthMethod, PrincipalFacts};

    fn signer() -> Arc<Signer> {
        let mut problems = Problems::default();
        let signer = Signer::compile(&Config::default(), None, &mut problems);
        assert!(problems.is_empty());
        signer.unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn alice(expires: Option<u64>) -> Principal {
        let claims = json!({ "sid": "s1", "secret": "x" });
        Principal {
            method: AuthMethod::Jwt,
            source: "main".into(),
            facts: Arc::new(PrincipalFacts {
                user: "alice".to_owned(),
                org: Some("acme".to_owned()),
                roles: vec!["reader".to_owned()],
                claims: claims.as_object().unwrap().clone(),
                expires_at: expires.map(at),
                ..PrincipalFacts::default()
            }),
            beside: None,
        }
    }

    fn sent(assertion: &Assertion, principal: &Principal, now: u64) -> Option<String> {
        let mut headers = HeaderMap::new();
        assertion.write(&mut headers, principal, at(now)).unwrap();
        let value = headers.get(X_VESTIBULE_ASSERTION)?;
        Some(value.to_str().unwrap().to_owned())
    }

    fn claims(token: &str) -> Value {
        let payload = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    }

    #[test]
    fn it_says_who_calls_for_whom_and_for_how_long_and_no_more() {
        let assertion = Assertion::new(signer(), "billing");
        let token = sent(&assertion, &alice(None), 1_000).unwrap();
        let expected = json!({
            "iss": "vestibule", "aud": "billing", "sub": "alice", "org": "acme", "roles": ["reader"],
            "iat": 1_000, "exp": 1_060, "method": "jwt", "source": "main", "sid": "s1",
        });
        assert_eq!(claims(&token), expected);
    }

    #[test]
    fn it_is_signed_by_the_published_key() {
        let signer = signer();
        let token = sent(
            &Assertion::new(Arc::clone(&signer), "a"),
            &alice(None),
            1_000,
        )
        .unwrap();
        let set: Value = serde_json::from_slice(&signer.key_set()).unwrap();
        let x = set["keys"][0]["x"].as_str().unwrap();
        let public = URL_SAFE_NO_PAD.decode(x).unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let key =
            aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, public);
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        key.verify(message.as_bytes(), &signature).unwrap();
        assert!(set["keys"][0].get("d").is_none());
    }

    #[test]
    fn it_is_made_once_and_sent_for_most_of_its_life() {
        let signer = signer();
        let (assertion, caller) = (Assertion::new(Arc::clone(&signer), "a"), alice(None));
        let first = sent(&assertion, &caller, 1_000);
        assert_eq!(sent(&assertion, &caller, 1_044), first);
        assert_ne!(sent(&assertion, &caller, 1_045), first);
        let elsewhere = sent(&Assertion::new(signer, "b"), &caller, 1_046).unwrap();
        assert_eq!(claims(&elsewhere)["aud"], "b");
        // A clock that was set back does not make one good for longer.
        assert_eq!(claims(&sent(&assertion, &caller, 500).unwrap())["exp"], 560);
    }

    #[test]
    fn it_ends_with_the_credential() {
        let assertion = Assertion::new(signer(), "a");
        let token = sent(&assertion, &alice(Some(1_030)), 1_000).unwrap();
        assert_eq!(claims(&token)["exp"], 1_030);
    }

    #[test]
    fn an_anonymous_caller_has_none() {
        let assertion = Assertion::new(signer(), "a");
        assert_eq!(sent(&assertion, &Principal::anonymous(), 1_000), None);
    }
}
