//! Strips what a client says about who it is. Who the caller is comes from authentication, or from nowhere.

use std::fmt;

use http::header::{HeaderMap, HeaderName};

use super::names::{folded, folds_to, folds_to_start, remove_where};

/// Every header name that a backend could take for the caller's identity, whatever its spelling.
///
/// That is the built-in list below and the names that any route of the configuration writes. Names that hold `_` are
/// stripped as well: no header of ours or of a standard has one, and to many backends `x_user_id` is `x-user-id`.
#[derive(Clone)]
pub struct IdentityNames {
    /// Names that routes write, folded.
    configured: Box<[Box<str>]>,
    /// A bit for each ASCII character that one of the names begins with.
    initials: u128,
}

/// Whole families.
const PREFIXES: [&str; 3] = ["x-auth-", "x-user-", "x-vestibule-"];

/// What other proxies use for the same purpose.
const NAMES: [&str; 8] = [
    "remote-user",
    "x-remote-user",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
    "x-authenticated-user",
];

/// Of the family `x-user-` by its name alone: the user agent of gRPC-Web clients, which browsers do not let set the
/// real one.
const USER_AGENT: &str = "x-user-agent";

impl IdentityNames {
    /// The built-in names and `configured`.
    pub(super) fn new<'a>(configured: impl IntoIterator<Item = &'a str>) -> Self {
        let mut configured: Vec<_> = configured
            .into_iter()
            .filter(|name| !name.is_empty() && !is_built_in(name))
            .map(folded)
            .collect();
        configured.sort_unstable();
        configured.dedup();
        let known = PREFIXES.iter().chain(&NAMES).copied();
        let initials = known
            .chain(configured.iter().map(|name| &**name))
            .fold(0, |bits, name| bits | initial(name));
        Self {
            configured: configured.into(),
            initials,
        }
    }

    /// Removes them all. To be called before anything reads the headers.
    pub fn strip(&self, headers: &mut HeaderMap) {
        remove_where(headers, |name| self.strips(name));
    }

    fn strips(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        name.contains('_') || (self.initials & initial(name) != 0 && self.is_identity(name))
    }

    fn is_identity(&self, name: &str) -> bool {
        is_built_in(name) || self.configured.iter().any(|own| folds_to(name, own))
    }
}

/// Whether `name` means identity without any configuration.
pub(super) fn is_built_in(name: &str) -> bool {
    (PREFIXES.iter().any(|start| folds_to_start(name, start)) && name != USER_AGENT)
        || NAMES.iter().any(|known| folds_to(name, known))
}

/// The bit of the first character; a sign counts as `-`, as everywhere.
fn initial(name: &str) -> u128 {
    match name.as_bytes().first() {
        Some(byte) if byte.is_ascii_alphanumeric() => 1 << byte.to_ascii_lowercase(),
        Some(_) => 1 << b'-',
        None => 0,
    }
}

impl fmt::Debug for IdentityNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.configured).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(configured: &[&str], name: &str, stripped: bool) {
        let mut headers = HeaderMap::new();
        let parsed = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(parsed.clone(), "one".parse().unwrap());
        headers.append(parsed, "two".parse().unwrap());
        headers.append("accept", "*/*".parse().unwrap());
        IdentityNames::new(configured.iter().copied()).strip(&mut headers);
        assert_eq!(headers.len() == 1, stripped, "{name}");
        assert!(headers.contains_key("accept"));
    }

    #[test]
    fn every_spelling_of_a_built_in_name_is_stripped() {
        for name in [
            "x-auth-user",
            "X-AUTH-USER",
            "x_auth_user",
            "x-auth_user",
            "x.auth.user",
            "x-auth.roles",
            "x-auth-",
            "x-auth-whatever-comes",
            "x-user-id",
            "X_User-Id",
            "x~user+id",
            "x-user.agent",
            "x-user-agents",
            "x_user_agent",
            "x-vestibule-route",
            "remote-user",
            "Remote_User",
            "x-remote.user",
            "x-forwarded-user",
            "x-forwarded-email",
            "x-forwarded.groups",
            "x-forwarded-preferred-username",
            "x-forwarded-access-token",
            "x-authenticated-user",
        ] {
            check(&[], name, true);
        }
    }

    #[test]
    fn names_that_a_route_writes_are_stripped_in_every_spelling() {
        for name in ["tenant-id", "Tenant.Id", "TENANT_ID", "tenant~id"] {
            check(&["Tenant-Id"], name, true);
        }
        check(&["tenant-id"], "tenant-ids", false);
        check(&["tenant-id"], "tenantid", false);
        check(&["x-user-agent"], "x-user-agent", true);
    }

    #[test]
    fn any_name_with_an_underscore_is_stripped() {
        check(&[], "content_length", true);
        check(&[], "x_", true);
    }

    #[test]
    fn what_backends_need_stays() {
        for name in [
            "x-user-agent",
            "x-zitadel-orgid",
            "x-zitadel-login-client",
            "x-grpc-web",
            "grpc-timeout",
            "connect-protocol-version",
            "connect-timeout-ms",
            "x-csrf-token",
            "dpop",
            "authorization",
            "cookie",
            "traceparent",
            "x-users",
            "x-author",
            "x-request-id",
            "range",
            "referer",
        ] {
            check(&["tenant-id"], name, false);
        }
    }

    /// Every way to spell `name` that a backend might fold to it.
    fn spellings(name: &'static str) -> impl Strategy<Value = String> {
        let bytes = name.bytes().map(|byte| {
            let choices = if byte == b'-' {
                b"-_.~^+!#$%&'*`|".to_vec()
            } else {
                vec![byte, byte.to_ascii_uppercase()]
            };
            proptest::sample::select(choices).prop_map(char::from)
        });
        bytes
            .collect::<Vec<_>>()
            .prop_map(|characters| characters.into_iter().collect())
    }

    proptest! {
        #[test]
        fn no_spelling_at_all_gets_through(
            name in prop_oneof![
                spellings("x-auth-user"),
                spellings("x-user-id"),
                spellings("remote-user"),
                spellings("x-forwarded-groups"),
                spellings("tenant-id"),
            ],
        ) {
            check(&["tenant-id"], &name, true);
        }
    }
}
