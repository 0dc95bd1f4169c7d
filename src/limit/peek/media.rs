//! What the head says about a body: its media type, its charset, its coding.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::config::LimitKey;

/// Media types that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    Form,
}

impl Media {
    pub(super) fn holds(self, part: &LimitKey) -> bool {
        match self {
            Self::Json => matches!(part, LimitKey::Json(_)),
            Self::Form => matches!(part, LimitKey::Form(_)),
        }
    }
}

/// The one media type, of one field, in UTF-8, uncompressed; otherwise what is wrong.
pub(super) fn of(headers: &HeaderMap) -> Result<Media, &'static str> {
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    let mut names = codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if !names.all(|name| name.trim_ascii().eq_ignore_ascii_case(b"identity")) {
        return Err("a compressed body");
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else {
        return Err("no content type, or two");
    };
    let text = value.to_str().map_err(|_| "a content type beyond ASCII")?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let media = if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        Media::Form
    } else if is_json(essence) {
        Media::Json
    } else {
        return Err("another content type");
    };
    if parts.all(|parameter| !is_charset(parameter) || is_utf8(parameter)) {
        Ok(media)
    } else {
        Err("another charset than UTF-8")
    }
}

/// Whether the body is messages of an RPC protocol: framed, or in binary.
pub(super) fn is_message(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else {
        return false;
    };
    let essence = value.to_str().unwrap_or_default();
    let essence = essence.split([';', ',']).next().unwrap_or_default().trim();
    let families = [
        "application/grpc",
        "application/connect+",
        "application/proto",
    ];
    families.iter().any(|family| {
        let head = essence.get(..family.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(family))
    })
}

fn is_json(essence: &str) -> bool {
    let essence = essence.to_ascii_lowercase();
    let is_framed =
        essence.starts_with("application/grpc") || essence.starts_with("application/connect");
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json") && !is_framed)
}

fn is_charset(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or_default();
    name.trim().eq_ignore_ascii_case("charset")
}

fn is_utf8(parameter: &str) -> bool {
    let value = parameter.split_once('=').map_or("", |(_, value)| value);
    let value = value.trim().trim_matches('"');
    value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
}
