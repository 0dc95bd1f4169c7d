//! From `cors` of a route to rules. The only file of the room that reads file types.

use http::header::HeaderName;
use http::{HeaderValue, Method};

use super::origin::{self, Pattern};
use super::{Cors, Origins};
use crate::config::{self, KeyPath, Problems, Route};

/// The methods of a route that lists none.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What gRPC-Web, Connect and JSON clients send.
const HEADERS: &str = "content-type, authorization, x-grpc-web, x-user-agent, grpc-timeout, \
    connect-protocol-version, connect-timeout-ms, x-csrf-token, x-requested-with, accept-language, x-zitadel-orgid";

/// The part of them that gRPC-Web and Connect do not work without.
const HEADERS_OF_GRPC_WEB: &str = "content-type, authorization, x-grpc-web, x-user-agent, \
    grpc-timeout, connect-protocol-version, connect-timeout-ms";

/// Where gRPC-Web reads its verdict, and what a support desk asks for.
const EXPOSE: &str = "grpc-status, grpc-message, grpc-status-details-bin, x-request-id";

impl Cors {
    /// Compiles the rules; `path` is that of the `cors` table. Every mistake goes to `problems`; `None` if there was one.
    pub fn compile(
        cors: &config::Cors,
        route: &Route,
        path: &KeyPath,
        problems: &mut Problems,
    ) -> Option<Self> {
        let origins = compile_origins(cors, &path.key("origins"), problems);
        let methods = if cors.methods.is_empty() {
            &route.methods
        } else {
            &cors.methods
        };
        let methods = with_needs_of_grpc_web(cors, methods, "POST");
        let headers = with_needs_of_grpc_web(cors, &cors.headers, HEADERS_OF_GRPC_WEB);
        let expose = with_needs_of_grpc_web(cors, &cors.expose, EXPOSE);
        let list = |texts: &[String],
                    key: &str,
                    parse: fn(&str) -> Option<String>,
                    default,
                    problems: &mut Problems| {
            compile_list(
                texts,
                &path.key(key),
                parse,
                cors.credentials,
                default,
                problems,
            )
        };
        let methods = list(&methods, "methods", parse_method, METHODS, problems);
        let headers = list(&headers, "headers", parse_header, HEADERS, problems);
        let expose = list(&expose, "expose", parse_header, EXPOSE, problems);
        let (origins, patterns) = origins?;
        Some(Self {
            origins,
            patterns: patterns.into(),
            private_network: cors.private_network,
            credentials: cors.credentials,
            methods: methods?,
            headers: headers?,
            expose: expose?,
            max_age: HeaderValue::from(cors.max_age.0.as_secs()),
        })
    }
}

fn compile_origins(
    cors: &config::Cors,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<(Origins, Vec<Pattern>)> {
    if cors.origins.is_empty() {
        problems.push(
            path,
            "no origin is listed, so `cors` allows nobody; leave it out instead",
        );
        return None;
    }
    if cors.origins.iter().any(|origin| origin == "*") {
        return compile_any(cors, path, problems).map(|any| (any, Vec::new()));
    }
    let (mut listed, mut patterns) = (Vec::new(), Vec::new());
    for (position, text) in cors.origins.iter().enumerate() {
        if cors.credentials
            && let Some(why) = too_wide(text)
        {
            problems.push(&path.index(position), why);
            continue;
        }
        if let Some(pattern) = Pattern::parse(text) {
            match pattern {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => problems.push(&path.index(position), why),
            }
            continue;
        }
        let found = origin::parse(text).and_then(|origin| {
            origin
                .parse()
                .map_err(|_| format!("`{text}` is no header value"))
        });
        match found {
            Ok(origin) => listed.push(origin),
            Err(why) => problems.push(&path.index(position), why),
        }
    }
    let is_whole = listed.len() + patterns.len() == cors.origins.len();
    is_whole.then(|| (Origins::Listed(listed.into()), patterns))
}

/// Why pages of this origin must not act in the name of their visitors, if so.
fn too_wide(text: &str) -> Option<String> {
    if text == "null" {
        let why =
            "`null` together with `credentials`: every sandboxed frame has it, whoever wrote it";
        return Some(why.to_owned());
    }
    Pattern::parse(text).map(|_| {
        format!(
            "`{text}` together with `credentials` lets every host below act for its visitors; list the origins"
        )
    })
}

/// What is listed, and what gRPC-Web needs beside it. An empty list stands for a default that has all of it.
fn with_needs_of_grpc_web(cors: &config::Cors, listed: &[String], needs: &str) -> Vec<String> {
    let mut words = listed.to_vec();
    if cors.grpc_web && !words.is_empty() {
        for need in needs.split(',').map(str::trim) {
            if !words
                .iter()
                .any(|word| word == "*" || word.eq_ignore_ascii_case(need))
            {
                words.push(need.to_owned());
            }
        }
    }
    words
}

/// With credentials, every site on the web could act in the name of its visitors.
fn compile_any(cors: &config::Cors, path: &KeyPath, problems: &mut Problems) -> Option<Origins> {
    if cors.credentials {
        problems.push(path, "`*` together with `credentials` lets every site act for its visitors; list the origins");
        return None;
    }
    if cors.origins.len() > 1 {
        problems.push(path, "`*` stands alone: it allows every origin already");
        return None;
    }
    Some(Origins::Any)
}

/// One header value of all the words; `*` means every one, but only without credentials, where browsers read it so.
fn compile_list(
    texts: &[String],
    path: &KeyPath,
    parse: impl Fn(&str) -> Option<String>,
    credentials: bool,
    default: &'static str,
    problems: &mut Problems,
) -> Option<HeaderValue> {
    if texts.is_empty() {
        return Some(HeaderValue::from_static(default));
    }
    let mut words = Vec::new();
    for (position, text) in texts.iter().enumerate() {
        let path = path.index(position);
        match parse(text) {
            _ if text == "*" && credentials => {
                problems.push(
                    &path,
                    "browsers do not take `*` together with `credentials`; list the names",
                );
            }
            Some(word) => words.push(word),
            None => problems.push(&path, format!("`{text}` is no valid name")),
        }
    }
    if words.len() != texts.len() {
        return None;
    }
    words.join(", ").parse().ok()
}

fn parse_method(text: &str) -> Option<String> {
    let method = Method::from_bytes(text.as_bytes()).ok()?;
    let forbidden = [Method::CONNECT, Method::TRACE].contains(&method);
    (!forbidden).then(|| text.to_owned())
}

fn parse_header(text: &str) -> Option<String> {
    let name: HeaderName = text.parse().ok()?;
    Some(name.as_str().to_owned())
}
