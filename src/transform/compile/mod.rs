//! From the words of the configuration to a [`Plan`] and to [`IdentityNames`].

mod assertion;
mod compress;
mod cookies;
mod edits;
mod identity;
mod rewrite;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use http::header::HeaderName;

use self::compress::compile_compression;
use self::cookies::compile_cookies;
use self::edits::{compile_edits, refused_in_request, refused_in_response};
use self::identity::compile_identity;
use self::rewrite::compile_rewrite;
use super::{IdentityNames, Plan};
use crate::config::{self, Config, KeyPath, Problems};

impl IdentityNames {
    /// The built-in names and those that any route writes. Malformed names are reported by [`Plan::compile`].
    #[must_use]
    pub fn compile(config: &Config) -> Self {
        let written = config
            .route
            .iter()
            .filter_map(|route| route.identity_headers.as_ref());
        Self::new(written.flat_map(BTreeMap::keys).map(String::as_str))
    }
}

impl Plan {
    /// Compiles one route; `None` if something is wrong with it, which `problems` then tells.
    pub fn compile(route: &config::Route, path: &KeyPath, problems: &mut Problems) -> Option<Self> {
        let rewrite = compile_rewrite(route, path, problems);
        let identity = compile_identity(route, &path.key("identity_headers"), problems);
        let edits = path.key("headers");
        let refused = |name: &_| refused_in_request(name, route.identity_headers.as_ref());
        let edit = &route.headers.request;
        let request = compile_edits(edit, &edits.key("request"), &refused, problems);
        let edit = &route.headers.response;
        let response = compile_edits(edit, &edits.key("response"), &refused_in_response, problems);
        let compression = compile_compression(route, &path.key("compress"), problems);
        let cookies = compile_cookies(&route.cookies, &path.key("cookies"), problems);
        Some(Self {
            rewrite: rewrite?,
            identity: identity?,
            assertion: None,
            strips_bearer: route.bearer == config::Bearer::Strip,
            request: request?,
            response: response?,
            cookies: cookies?,
            has_security_headers: route.security_headers,
            compression: compression?,
            translates_grpc_web: route.grpc_web == config::GrpcWeb::Translate,
        })
    }
}

fn header_name(name: &str, path: &KeyPath, problems: &mut Problems) -> Option<HeaderName> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    if parsed.is_none() {
        problems.push(path, format!("`{name}` is no header name"));
    }
    parsed
}

/// Reports a header that a table names in two spellings; TOML itself refuses the same spelling twice.
fn named_twice<T>(headers: &[(HeaderName, T)], path: &KeyPath, problems: &mut Problems) -> bool {
    let twice = headers.iter().enumerate().find_map(|(index, (name, _))| {
        let mut earlier = headers.iter().take(index);
        earlier.any(|(other, _)| other == name).then_some(name)
    });
    if let Some(name) = twice {
        problems.push(path, format!("`{name}` is named twice; case plays no part"));
    }
    twice.is_some()
}
