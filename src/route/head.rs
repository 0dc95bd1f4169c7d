//! The canonical head: the one host, path and query by which a request is matched, limited, logged and forwarded.

use std::borrow::Cow;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Uri, Version};

use super::fields;
use super::host::HostPort;
use super::path;
use crate::types::{ConnFacts, Reason, Rejection, Scheme};

/// The largest head that a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadCaps {
    /// Bytes of path and query.
    pub max_target: usize,
    /// Header fields.
    pub max_fields: usize,
    /// Bytes of all header fields: name, value and 32 for each.
    pub max_head: usize,
}

/// A request's head in canonical form. Cheap to clone: the texts are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    authority: HeaderValue,
    host_len: usize,
    port: Option<u16>,
    target: PathAndQuery,
    encoded_slash: bool,
}

impl Head {
    /// Reads the head of `request` and refuses what is malformed, ambiguous or too large.
    ///
    /// A fragment cannot be seen here: [`http::Uri`] drops it while parsing.
    ///
    /// # Errors
    /// A [`Rejection`] that says which rule of behaviour 2.2 or 2.5 was broken.
    pub fn of<B>(
        request: &Request<B>,
        conn: &ConnFacts,
        caps: &HeadCaps,
    ) -> Result<Self, Rejection> {
        refuse_method(request.method())?;
        refuse_version(request.version())?;
        let host = fields::inspect(request.headers(), request.version(), caps)?;
        let target = target_of(request.uri(), caps)?;
        let Place {
            authority,
            host_len,
            port,
        } = place_of(request, host)?;
        let (target, encoded_slash) = canonical_target(target)?;
        let head = Self {
            authority,
            host_len,
            port,
            target,
            encoded_slash,
        };
        head.check_server_name(conn)?;
        Ok(head)
    }

    /// The host: lower case, without port and trailing dot; an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let text = self.authority.to_str().unwrap_or_default();
        text.get(..self.host_len).unwrap_or_default()
    }

    /// The port, if one was sent.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The host with the port, if one was sent: what goes upstream.
    #[must_use]
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// The canonical path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// The query as it was sent.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }

    /// The canonical path with the query.
    #[must_use]
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.target
    }

    /// Whether the path came with a `%2F`. Refused by the pipeline unless the route says `encoded_slash = "keep"`.
    #[must_use]
    pub fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }

    /// The same head with another path, made canonical again; the query stays.
    ///
    /// # Errors
    /// [`Reason::BadTarget`] when `path` has no canonical form.
    pub fn with_path(&self, path: &str) -> Result<Self, Rejection> {
        let found = path::canonical(path).map_err(bad_path)?;
        Ok(Self {
            target: join(&found.path, self.query())?,
            encoded_slash: found.encoded_slash,
            authority: self.authority.clone(),
            host_len: self.host_len,
            port: self.port,
        })
    }

    /// A certificate was chosen (and a client judged) for the server name of the handshake: a request for another host
    /// on that connection would borrow its policy.
    fn check_server_name(&self, conn: &ConnFacts) -> Result<(), Rejection> {
        let Some(name) = conn.server_name.as_deref() else {
            return Ok(());
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if conn.scheme == Scheme::Https && !name.eq_ignore_ascii_case(self.host()) {
            return Err(Rejection::new(Reason::Misdirected));
        }
        Ok(())
    }
}

/// CONNECT would open a tunnel, TRACE would echo credentials; no route can ask for them. `get` is no method, yet some
/// backends take it for GET, which a rule about methods would not.
fn refuse_method(method: &Method) -> Result<(), Rejection> {
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(Rejection::new(Reason::MethodRefused));
    }
    let name = method.as_str();
    let misspelt = |known: &&str| *known != name && known.eq_ignore_ascii_case(name);
    if name.bytes().any(|byte| byte.is_ascii_lowercase()) && METHODS.iter().any(misspelt) {
        return Err(Rejection::new(Reason::BadMethod));
    }
    Ok(())
}

/// The methods that everybody knows.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE",
];

fn refuse_version(version: Version) -> Result<(), Rejection> {
    match version {
        Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2 => Ok(()),
        _ => Err(Rejection::because(Reason::BadFraming, "HTTP version")),
    }
}

/// The target in origin form. `OPTIONS *` is refused too: nothing behind us is addressed by it.
fn target_of<'a>(uri: &'a Uri, caps: &HeadCaps) -> Result<&'a PathAndQuery, Rejection> {
    if let Some(scheme) = uri.scheme_str() {
        let known = ["http", "https"];
        if !known.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(bad_target("the scheme is neither http nor https"));
        }
    }
    let target = uri
        .path_and_query()
        .ok_or_else(|| bad_target("the target is an authority"))?;
    if target.as_str().len() > caps.max_target {
        return Err(Rejection::new(Reason::TargetTooLong));
    }
    if !target.as_str().starts_with('/') {
        return Err(bad_target("the target does not start with a slash"));
    }
    Ok(target)
}

fn canonical_target(target: &PathAndQuery) -> Result<(PathAndQuery, bool), Rejection> {
    let query = target.query();
    if query.is_some_and(|query| !query.bytes().all(is_query_byte)) {
        return Err(bad_target("a byte is not allowed in a query"));
    }
    let found = path::canonical(target.path()).map_err(bad_path)?;
    let canonical = match &found.path {
        Cow::Borrowed(_) => target.clone(),
        Cow::Owned(path) => join(path, query)?,
    };
    Ok((canonical, found.encoded_slash))
}

/// Printable ASCII without the backslash, which some backends read as a slash, and without what would end the query.
fn is_query_byte(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && !matches!(byte, b'\\' | b'#')
}

fn join(path: &str, query: Option<&str>) -> Result<PathAndQuery, Rejection> {
    let mut text = String::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
    text.push_str(path);
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::from_maybe_shared(Bytes::from(text))
        .map_err(|_| bad_target("the target is no target"))
}

/// The authority that the request names.
struct Place {
    authority: HeaderValue,
    host_len: usize,
    port: Option<u16>,
}

///
/// HTTP/1 must send exactly one Host header, HTTP/2 an `:authority` or a Host header; where both or an absolute form are
/// there, they must agree: whoever reads only one of them must come to the same place.
fn place_of<B>(request: &Request<B>, host: Option<&HeaderValue>) -> Result<Place, Rejection> {
    let named = request.uri().authority();
    if host.is_none() && (named.is_none() || request.version() != Version::HTTP_2) {
        return Err(bad_host("no host"));
    }
    let from_header = host.map(parse_header).transpose()?;
    let from_target = match named {
        Some(named) => Some(HostPort::parse(named.as_str()).ok_or_else(malformed_host)?),
        None => None,
    };
    let found = match (&from_header, &from_target) {
        (Some(header), Some(target)) if header != target => {
            return Err(bad_host("the Host header differs from the authority"));
        }
        (_, Some(found)) | (Some(found), None) => found,
        (None, None) => return Err(bad_host("no host")),
    };
    // The field as it was sent, if that is how we would spell it: a reference more, and no copy.
    let authority = match host {
        Some(sent) if found.is_spelt(sent.as_bytes()) => sent.clone(),
        _ => found.to_value().ok_or_else(malformed_host)?,
    };
    Ok(Place {
        authority,
        host_len: found.host.len(),
        port: found.port,
    })
}

fn parse_header(value: &HeaderValue) -> Result<HostPort<'_>, Rejection> {
    let text = value.to_str().ok();
    text.and_then(HostPort::parse).ok_or_else(malformed_host)
}

fn malformed_host() -> Rejection {
    bad_host("the host is malformed")
}

fn bad_host(detail: &'static str) -> Rejection {
    Rejection::because(Reason::BadHost, detail)
}

fn bad_target(detail: &'static str) -> Rejection {
    Rejection::because(Reason::BadTarget, detail)
}

fn bad_path(why: path::BadPath) -> Rejection {
    bad_target(why.reason())
}
