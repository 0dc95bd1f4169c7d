//! `compress` of a route.

use crate::config::{KeyPath, Problems, Route};
use crate::transform::compress::Compression;

pub(super) fn compile_compression(
    route: &Route,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Compression> {
    let mut types = Vec::new();
    for (index, text) in route.compress.iter().enumerate() {
        match media_type(text) {
            Ok(kind) => types.push(kind.into()),
            Err(why) => problems.push(&path.index(index), format!("`{text}`: {why}")),
        }
    }
    (types.len() == route.compress.len()).then(|| Compression {
        types: types.into(),
        private: route.compress_private,
    })
}

/// `text/*` as `text/`, `application/json` as it is.
fn media_type(text: &str) -> Result<String, &'static str> {
    let lower = text.to_ascii_lowercase();
    let (kind, subtype) = lower
        .split_once('/')
        .ok_or("no media type such as `text/*`")?;
    let is_token = |word: &str| {
        let mut bytes = word.bytes();
        !word.is_empty()
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    if !is_token(kind) || !(subtype == "*" || is_token(subtype)) {
        return Err("no media type such as `text/*` or `application/json`");
    }
    if lower == "text/event-stream" {
        // Listed by name it is meant; `text/*` is not about streams, but may have them.
        return Ok(lower);
    }
    let is_framed = subtype.starts_with("grpc") || subtype.starts_with("connect");
    if kind == "application" && is_framed {
        return Err("its messages are compressed one by one, by who sends them");
    }
    if ["image", "audio", "video"].contains(&kind) && subtype == "*" {
        return Err(
            "most of them are compressed already; list what is not, such as `image/svg+xml`",
        );
    }
    Ok(lower
        .strip_suffix('*')
        .map_or_else(|| lower.clone(), str::to_owned))
}
