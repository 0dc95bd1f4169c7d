//! From `[[route]]` to a matcher. The only file of the room that reads file types.

use std::fmt;
use std::sync::Arc;

use super::head::HeadCaps;
use super::matching::header::HeaderMatch;
use super::matching::host::HostPattern;
use super::matching::method::{self, MethodSet};
use super::matching::path::PathPattern;
use super::matching::{Criteria, Listeners, grpc};
use crate::config::{Auth, EncodedSlash, KeyPath, Listen, OneOrMany, Problems, Route};

/// What one route matches. A route that lists several hosts or paths is matched by any pair of them.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) paths: Vec<PathPattern>,
    pub(super) criteria: Criteria,
}

impl RouteMatch {
    /// Compiles the matcher of `route`; `listeners` holds the listeners' names at the position of their id.
    ///
    /// Every mistake goes to `problems`; `None` if there was one.
    pub fn compile(
        route: &Route,
        path: &KeyPath,
        listeners: &[Arc<str>],
        problems: &mut Problems,
    ) -> Option<Self> {
        let hosts = compile_hosts(route, path, problems);
        let paths = compile_paths(route, path, problems);
        let methods = compile_methods(route, path, problems);
        let headers = compile_headers(route, path, problems);
        let listeners = compile_listeners(route, path, listeners, problems);
        Some(Self {
            hosts: hosts?,
            paths: paths?,
            criteria: Criteria {
                headers: headers?,
                methods: methods?,
                listeners: listeners?,
                closed: route.auth == Auth::Deny,
            },
        })
    }
}

impl HeadCaps {
    /// The caps of a listener.
    #[must_use]
    pub fn compile(listen: &Listen) -> Self {
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        Self {
            max_target: bytes(listen.max_target.0),
            max_fields: bytes(listen.max_fields.into()),
            max_head: bytes(listen.max_head.0),
        }
    }
}

fn compile_hosts(
    route: &Route,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Vec<HostPattern>> {
    match &route.host {
        None => Some(vec![HostPattern::Any]),
        Some(hosts) => each(hosts, &path.key("host"), problems, HostPattern::parse),
    }
}

fn compile_paths(
    route: &Route,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Vec<PathPattern>> {
    match (&route.path, &route.grpc) {
        (Some(_), Some(_)) => {
            problems.push(
                &path.key("grpc"),
                "`grpc` stands for `path`: a route has one of them",
            );
            None
        }
        (None, Some(names)) => each(names, &path.key("grpc"), problems, grpc::parse),
        (Some(patterns), None) => each(patterns, &path.key("path"), problems, |text| {
            let pattern = PathPattern::parse(text)?;
            if pattern.has_encoded_slash() && route.encoded_slash == EncodedSlash::Refuse {
                return Err(format!(
                    "`{text}` never matches without `encoded_slash = \"keep\"`"
                ));
            }
            Ok(pattern)
        }),
        (None, None) => PathPattern::parse("/*").ok().map(|any| vec![any]),
    }
}

/// A closed route that lists no methods is closed to all of them.
fn compile_methods(route: &Route, path: &KeyPath, problems: &mut Problems) -> Option<MethodSet> {
    if route.methods.is_empty() {
        return Some(if route.auth == Auth::Deny {
            MethodSet::every()
        } else {
            MethodSet::usual()
        });
    }
    let path = path.key("methods");
    let methods = collect(&route.methods, &path, true, problems, method::parse)?;
    Some(MethodSet::listed(methods))
}

fn compile_headers(
    route: &Route,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Box<[HeaderMatch]>> {
    let path = path.key("match_headers");
    let mut headers: Vec<HeaderMatch> = Vec::new();
    let mut sound = true;
    for (name, value) in &route.match_headers {
        match HeaderMatch::parse(name, value) {
            Ok(matcher) if headers.iter().any(|other| other.name() == matcher.name()) => {
                problems.push(&path.key(name), "the same header is named twice");
                sound = false;
            }
            Ok(matcher) => headers.push(matcher),
            Err(why) => {
                problems.push(&path.key(name), why);
                sound = false;
            }
        }
    }
    headers.sort_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
    sound.then(|| headers.into())
}

fn compile_listeners(
    route: &Route,
    path: &KeyPath,
    known: &[Arc<str>],
    problems: &mut Problems,
) -> Option<Listeners> {
    if route.listen.is_empty() {
        return Some(Listeners(None));
    }
    let path = path.key("listen");
    let mut ids = Vec::new();
    let mut sound = true;
    for (position, name) in route.listen.iter().enumerate() {
        match known.iter().position(|listener| **listener == **name) {
            Some(id) => ids.push(id),
            None => {
                let names = known.iter().map(AsRef::as_ref);
                problems.unknown_name(&path.index(position), "listener", name, names);
                sound = false;
            }
        }
    }
    ids.sort_unstable();
    ids.dedup();
    sound.then(|| Listeners(Some(ids.into())))
}

/// Reads one pattern or a list of them; an empty list would match nothing.
fn each<T>(
    texts: &OneOrMany<String>,
    path: &KeyPath,
    problems: &mut Problems,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    if texts.0.is_empty() {
        problems.push(path, "the list is empty, so the route matches nothing");
        return None;
    }
    collect(&texts.0, path, texts.0.len() > 1, problems, parse)
}

fn collect<T, E: fmt::Display>(
    texts: &[String],
    path: &KeyPath,
    is_list: bool,
    problems: &mut Problems,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Option<Vec<T>> {
    let mut found = Vec::with_capacity(texts.len());
    for (position, text) in texts.iter().enumerate() {
        match parse(text) {
            Ok(value) => found.push(value),
            Err(why) if is_list => problems.push(&path.index(position), why.to_string()),
            Err(why) => problems.push(path, why.to_string()),
        }
    }
    (found.len() == texts.len()).then_some(found)
}
