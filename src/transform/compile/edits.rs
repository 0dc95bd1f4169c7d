//! `headers` of a route.

use std::collections::BTreeMap;

use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue, SET_COOKIE};

use super::{header_name, named_twice};
use crate::config::{self, KeyPath, Problems};
use crate::transform::headers::Edits;
use crate::transform::{hop_by_hop, identity};

/// Tells why a header cannot be edited, if so.
type Refused<'a> = &'a dyn Fn(&HeaderName) -> Option<&'static str>;

pub(super) fn compile_edits(
    edit: &config::Edit,
    path: &KeyPath,
    refused: Refused<'_>,
    problems: &mut Problems,
) -> Option<Edits> {
    let remove = path.key("remove");
    let remove: Vec<_> = (edit.remove.iter().enumerate())
        .map(|(index, name)| editable(name, &remove.index(index), refused, problems))
        .collect();
    let set = compile_values(&edit.set, &path.key("set"), refused, problems);
    let default = compile_values(&edit.default, &path.key("default"), refused, problems);
    Some(Edits {
        remove: remove.into_iter().collect::<Option<_>>()?,
        set: set?,
        default: default?,
    })
}

fn compile_values(
    table: &BTreeMap<String, String>,
    path: &KeyPath,
    refused: Refused<'_>,
    problems: &mut Problems,
) -> Option<Box<[(HeaderName, HeaderValue)]>> {
    let compiled: Vec<_> = table
        .iter()
        .map(|(name, value)| {
            let path = path.key(name.as_str());
            let name = editable(name, &path, refused, problems);
            let value = header_value(value, &path, problems);
            name.zip(value).map(mark_sensitive)
        })
        .collect();
    let compiled: Vec<_> = compiled.into_iter().collect::<Option<_>>()?;
    (!named_twice(&compiled, path, problems)).then(|| compiled.into())
}

fn editable(
    name: &str,
    path: &KeyPath,
    refused: Refused<'_>,
    problems: &mut Problems,
) -> Option<HeaderName> {
    let name = header_name(name, path, problems)?;
    match refused(&name) {
        Some(why) => {
            problems.push(path, format!("`{name}` cannot be edited: {why}"));
            None
        }
        None => Some(name),
    }
}

pub(super) fn refused_in_request(
    name: &HeaderName,
    identity_headers: Option<&BTreeMap<String, String>>,
) -> Option<&'static str> {
    let own = || {
        identity_headers.is_some_and(|written| {
            (written.keys()).any(|own| own.eq_ignore_ascii_case(name.as_str()))
        })
    };
    if identity::is_built_in(name.as_str()) || own() {
        Some("it tells who the caller is; see `identity_headers`")
    } else if name == "host" {
        Some("the upstream is told the host that was asked for")
    } else {
        refused_in_response(name)
    }
}

pub(super) fn refused_in_response(name: &HeaderName) -> Option<&'static str> {
    let frames = name == "content-length" || hop_by_hop::is_hop_by_hop(name.as_str());
    frames.then_some("it belongs to the connection, which the gateway frames itself")
}

/// The value is not repeated in the message: operators do write secrets here.
fn header_value(value: &str, path: &KeyPath, problems: &mut Problems) -> Option<HeaderValue> {
    if value.trim() != value {
        problems.push(
            path,
            "the header value has a space at its start or end, which receivers cut off",
        );
        return None;
    }
    let parsed = HeaderValue::from_str(value).ok();
    if parsed.is_none() {
        problems.push(path, "the header value holds a control character");
    }
    parsed
}

/// Keeps credentials out of `Debug` and out of the tables of header compression.
fn mark_sensitive((name, mut value): (HeaderName, HeaderValue)) -> (HeaderName, HeaderValue) {
    value.set_sensitive([AUTHORIZATION, COOKIE, SET_COOKIE].contains(&name));
    (name, value)
}
