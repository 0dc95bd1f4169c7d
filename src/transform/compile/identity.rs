//! `identity_headers` of a route.

use http::header::HeaderName;

use super::{header_name, named_twice};
use crate::config::error::nearest;
use crate::config::{self, KeyPath, Problems};
use crate::transform::identity_headers::{IdentityHeaders, SOURCE_WORDS, Source};
use crate::transform::{forwarded, hop_by_hop};

pub(super) fn compile_identity(
    route: &config::Route,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<IdentityHeaders> {
    let Some(written) = &route.identity_headers else {
        return Some(IdentityHeaders::usual());
    };
    let compiled: Vec<_> = written
        .iter()
        .map(|(name, source)| {
            let path = path.key(name.as_str());
            let name = identity_name(name, &path, problems);
            let source = identity_source(source, &path, problems);
            name.zip(source)
        })
        .collect();
    let compiled: Vec<_> = compiled.into_iter().collect::<Option<_>>()?;
    (!named_twice(&compiled, path, problems)).then(|| IdentityHeaders::new(compiled))
}

fn identity_name(name: &str, path: &KeyPath, problems: &mut Problems) -> Option<HeaderName> {
    let parsed = header_name(name, path, problems)?;
    if parsed.as_str().contains('_') {
        let help = format!("write `{}`", parsed.as_str().replace('_', "-"));
        problems.push_with_help(
            path,
            "names of identity headers have no `_`: many backends take it for `-`",
            Some(help),
        );
        None
    } else if has_another_meaning(parsed.as_str()) {
        problems.push(
            path,
            format!(
                "`{parsed}` cannot be an identity header: it is stripped from every client's request, which breaks what it is for"
            ),
        );
        None
    } else {
        Some(parsed)
    }
}

/// Whether requests carry the header for another reason than to tell who calls.
fn has_another_meaning(name: &str) -> bool {
    hop_by_hop::is_hop_by_hop(name)
        || forwarded::is_written(name)
        || [
            "content-",
            "accept",
            "if-",
            "sec-",
            "grpc-",
            "connect-",
            "access-control-",
        ]
        .iter()
        .any(|start| name.starts_with(start))
        || matches!(
            name,
            "host"
                | "authorization"
                | "cookie"
                | "cache-control"
                | "date"
                | "dpop"
                | "origin"
                | "pragma"
                | "range"
                | "referer"
                | "traceparent"
                | "tracestate"
                | "user-agent"
                | "x-csrf-token"
                | "x-grpc-web"
        )
}

fn identity_source(text: &str, path: &KeyPath, problems: &mut Problems) -> Option<Source> {
    let source = Source::parse(text);
    if source.is_none() {
        let help = match nearest(text, SOURCE_WORDS) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("known are {} and claim:PATH", SOURCE_WORDS.join(", ")),
        };
        problems.push_with_help(
            path,
            format!("`{text}` is no source of an identity header"),
            Some(help),
        );
    }
    source
}
