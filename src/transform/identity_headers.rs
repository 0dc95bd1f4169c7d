//! Tells the upstream who the caller is.
//!
//! A value that the upstream could read as another one is never sent: control characters, space around a value that
//! parsers trim, a comma inside a role that would make two roles of one. Such a caller is refused, because a backend
//! that sees no identity may take the caller for somebody harmless.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::types::{Principal, Reason, Rejection};

/// The identity headers of one route, in the order of their names.
#[derive(Clone, Debug)]
pub(super) struct IdentityHeaders(Box<[(HeaderName, Source)]>);

/// Where the value of an identity header comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    User,
    Org,
    Roles,
    Email,
    Method,
    Claim(ClaimPath),
}

/// A claim by name, or by the names of the objects on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClaimPath {
    whole: Box<str>,
    steps: Box<[Box<str>]>,
}

/// Words that stand for a source; `claim:PATH` is the other form.
pub(super) const SOURCE_WORDS: [&str; 5] = ["user", "org", "roles", "email", "method"];

impl Source {
    /// Reads `user`, `org`, `roles`, `email`, `method` or `claim:PATH`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "user" => Some(Self::User),
            "org" => Some(Self::Org),
            "roles" => Some(Self::Roles),
            "email" => Some(Self::Email),
            "method" => Some(Self::Method),
            _ => ClaimPath::parse(text.strip_prefix("claim:")?).map(Self::Claim),
        }
    }

    fn value(&self, principal: &Principal) -> Result<Option<HeaderValue>, Unsendable> {
        let facts = &*principal.facts;
        match self {
            Self::User => scalar(&facts.user),
            Self::Org => facts.org.as_deref().map_or(Ok(None), scalar),
            Self::Email => facts.email.as_deref().map_or(Ok(None), scalar),
            Self::Roles => list(facts.roles.iter().map(|role| &**role)),
            Self::Method => Ok(Some(HeaderValue::from_static(principal.method.as_str()))),
            Self::Claim(path) => path.find(&facts.claims).map_or(Ok(None), claim),
        }
    }
}

impl ClaimPath {
    fn parse(text: &str) -> Option<Self> {
        let steps: Box<[Box<str>]> = text.split('.').map(Into::into).collect();
        (!text.is_empty()).then(|| Self {
            whole: text.into(),
            steps,
        })
    }

    /// A claim whose own name has dots (`https://example.com/role`) comes before a walk into objects.
    fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        if let Some(value) = claims.get(&*self.whole) {
            return Some(value);
        }
        let (last, way) = self.steps.split_last()?;
        way.iter()
            .try_fold(claims, |object, step| object.get(&**step)?.as_object())?
            .get(&**last)
    }
}

impl IdentityHeaders {
    /// `headers` as the route lists them.
    pub(super) fn new(headers: Vec<(HeaderName, Source)>) -> Self {
        Self(headers.into())
    }

    /// What a route sends that says nothing about it.
    pub(super) fn usual() -> Self {
        Self::new(
            [
                ("x-auth-user", Source::User),
                ("x-auth-org", Source::Org),
                ("x-auth-roles", Source::Roles),
                ("x-auth-email", Source::Email),
                ("x-auth-method", Source::Method),
            ]
            .map(|(name, source)| (HeaderName::from_static(name), source))
            .into(),
        )
    }

    /// Sets the headers of an authenticated caller; what the credential does not say is not sent. An anonymous caller
    /// has none at all.
    pub(super) fn write(
        &self,
        headers: &mut HeaderMap,
        principal: &Principal,
    ) -> Result<(), Rejection> {
        if !principal.is_authenticated() {
            return Ok(());
        }
        for (name, source) in &self.0 {
            let value = source
                .value(principal)
                .map_err(|why| refuse(name, source, &why))?;
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        Ok(())
    }
}

/// Why a value cannot be sent.
#[derive(Debug)]
struct Unsendable(&'static str);

fn refuse(name: &HeaderName, source: &Source, why: &Unsendable) -> Rejection {
    let what = match source {
        Source::User => "the user",
        Source::Org => "the organisation",
        Source::Roles => "a role",
        Source::Email => "the e-mail address",
        Source::Method => "the method",
        Source::Claim(path) => &path.whole,
    };
    Rejection::because(
        Reason::TokenClaims,
        format!("{what} cannot be sent as {name}: it holds {}", why.0),
    )
}

/// Strings, numbers, booleans and lists of them; objects have no text form and are not sent.
fn claim(value: &Value) -> Result<Option<HeaderValue>, Unsendable> {
    match value {
        Value::String(text) => scalar(text),
        Value::Bool(_) | Value::Number(_) => scalar(&value.to_string()),
        Value::Array(items) => {
            if items.iter().any(|item| item.is_object() || item.is_array()) {
                return Ok(None);
            }
            let texts: Vec<_> = items.iter().filter_map(text_of).collect();
            list(texts.iter().map(|text| &**text))
        }
        Value::Null | Value::Object(_) => Ok(None),
    }
}

fn text_of(item: &Value) -> Option<std::borrow::Cow<'_, str>> {
    match item {
        Value::String(text) => Some(text.into()),
        Value::Bool(_) | Value::Number(_) => Some(item.to_string().into()),
        _ => None,
    }
}

/// One value; an empty one is not sent.
fn scalar(text: &str) -> Result<Option<HeaderValue>, Unsendable> {
    if text.is_empty() {
        return Ok(None);
    }
    check(text)?;
    HeaderValue::from_str(text)
        .map(Some)
        .map_err(|_| Unsendable("a control character"))
}

/// Several values, joined by commas; empty ones are left out.
fn list<'a>(items: impl Iterator<Item = &'a str>) -> Result<Option<HeaderValue>, Unsendable> {
    let mut joined = String::new();
    for item in items.filter(|item| !item.is_empty()) {
        check(item)?;
        if item.contains(',') {
            return Err(Unsendable("a comma"));
        }
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(item);
    }
    if joined.is_empty() {
        return Ok(None);
    }
    HeaderValue::try_from(joined)
        .map(Some)
        .map_err(|_| Unsendable("a control character"))
}

/// Beyond what a header value may hold: no tab and no control character of any script, no space at either end.
fn check(text: &str) -> Result<(), Unsendable> {
    if text.chars().any(char::is_control) {
        Err(Unsendable("a control character"))
    } else if text.trim().len() != text.len() {
        Err(Unsendable("a space at its start or end"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::types::AuthMethod;
    use crate::types::principal::PrincipalFacts;

    fn principal(facts: PrincipalFacts) -> Principal {
        Principal {
            method: AuthMethod::Jwt,
            source: Arc::from("main"),
            facts: Arc::new(facts),
            beside: None,
        }
    }

    fn with_claims(claims: &Value) -> Principal {
        principal(PrincipalFacts {
            user: "u".to_owned(),
            claims: claims.as_object().unwrap().clone(),
            ..PrincipalFacts::default()
        })
    }

    fn with_roles(roles: &[&str]) -> Principal {
        principal(PrincipalFacts {
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..PrincipalFacts::default()
        })
    }

    fn check(source: &str, principal: &Principal, expected: Result<Option<&str>, ()>) {
        let name = HeaderName::from_static("x-test");
        let headers = IdentityHeaders::new(vec![(name, Source::parse(source).unwrap())]);
        let mut written = HeaderMap::new();
        let answer = headers.write(&mut written, principal);
        let value = written
            .get("x-test")
            .map(|value| std::str::from_utf8(value.as_bytes()).unwrap());
        match expected {
            Ok(expected) => {
                answer.unwrap();
                assert_eq!(value, expected, "{source} of {principal:?}");
            }
            Err(()) => {
                let why = answer.expect_err(source);
                assert_eq!(why.reason(), Reason::TokenClaims);
                assert!(why.detail().contains("x-test"), "{}", why.detail());
                assert_eq!(value, None);
            }
        }
    }

    #[test]
    fn an_anonymous_caller_has_no_identity_headers() {
        let mut headers = HeaderMap::new();
        IdentityHeaders::usual()
            .write(&mut headers, &Principal::anonymous())
            .unwrap();
        assert!(headers.is_empty());
    }

    #[test]
    fn the_usual_headers_say_what_the_credential_says_and_no_more() {
        let caller = principal(PrincipalFacts {
            user: "alice".to_owned(),
            email: Some("alice@example.com".to_owned()),
            roles: vec!["reader".to_owned(), "writer".to_owned()],
            ..PrincipalFacts::default()
        });
        let mut headers = HeaderMap::new();
        IdentityHeaders::usual()
            .write(&mut headers, &caller)
            .unwrap();
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                ("x-auth-email", "alice@example.com"),
                ("x-auth-method", "jwt"),
                ("x-auth-roles", "reader,writer"),
                ("x-auth-user", "alice"),
            ]
        );
    }

    #[test]
    fn a_claim_is_found_by_its_name_or_by_a_walk() {
        let caller = with_claims(&json!({
            "tenant": { "id": "t1", "deep": { "er": 7 } },
            "https://example.com/role": "boss",
            "urn:zitadel:iam:user:resourceowner:id": "4711",
        }));
        check("claim:tenant.id", &caller, Ok(Some("t1")));
        check("claim:tenant.deep.er", &caller, Ok(Some("7")));
        check("claim:https://example.com/role", &caller, Ok(Some("boss")));
        check(
            "claim:urn:zitadel:iam:user:resourceowner:id",
            &caller,
            Ok(Some("4711")),
        );
        check("claim:tenant.no", &caller, Ok(None));
        check("claim:tenant.id.no", &caller, Ok(None));
        check("claim:.", &caller, Ok(None));
    }

    #[test]
    fn scalars_and_lists_of_them_have_a_text_form() {
        let caller = with_claims(&json!({
            "text": "a, b", "yes": true, "number": -1.5, "nothing": null, "empty": "",
            "list": ["a", 1, false, "", null, "b"], "none": [],
            "object": { "a": 1 }, "objects": ["a", { "b": 1 }], "lists": [["a"]],
        }));
        check("claim:text", &caller, Ok(Some("a, b")));
        check("claim:yes", &caller, Ok(Some("true")));
        check("claim:number", &caller, Ok(Some("-1.5")));
        check("claim:list", &caller, Ok(Some("a,1,false,b")));
        for absent in ["nothing", "empty", "none", "object", "objects", "lists"] {
            check(&format!("claim:{absent}"), &caller, Ok(None));
        }
    }

    #[test]
    fn one_role_never_poses_as_two() {
        check("roles", &with_roles(&["a", "b c"]), Ok(Some("a,b c")));
        check("roles", &with_roles(&["a,admin"]), Err(()));
        check("roles", &with_roles(&["a", " admin"]), Err(()));
        let caller = with_claims(&json!({ "groups": ["a", "b,c"] }));
        check("claim:groups", &caller, Err(()));
    }

    #[test]
    fn a_value_that_would_be_read_as_another_refuses_the_caller() {
        for text in [
            "a\r\nx-auth-roles: admin",
            "a\nb",
            "a\0b",
            "a\tb",
            "a\u{7f}",
            "a\u{85}b",
            " a",
            "a ",
            "a\u{a0}",
        ] {
            let caller = principal(PrincipalFacts {
                user: text.to_owned(),
                ..PrincipalFacts::default()
            });
            check("user", &caller, Err(()));
            check("roles", &with_roles(&["fine", text]), Err(()));
            check("claim:c", &with_claims(&json!({ "c": text })), Err(()));
        }
    }

    #[test]
    fn text_of_any_script_is_sent_as_it_is() {
        let caller = principal(PrincipalFacts {
            user: "Zoë Müller 東".to_owned(),
            ..PrincipalFacts::default()
        });
        check("user", &caller, Ok(Some("Zoë Müller 東")));
    }

    #[test]
    fn a_source_is_a_known_word_or_a_claim() {
        for word in SOURCE_WORDS {
            assert!(Source::parse(word).is_some(), "{word}");
        }
        for word in ["", "users", "claim", "claim:", "Claim:x"] {
            assert!(Source::parse(word).is_none(), "{word}");
        }
    }
}
