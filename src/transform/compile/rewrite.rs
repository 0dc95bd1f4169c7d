//! `strip_prefix` and `rewrite` of a route.

use regex::{Regex, RegexBuilder};

use crate::config::{self, KeyPath, Problems};
use crate::transform::rewrite::Rewrite;

/// Bytes that a compiled regex may take.
const REGEX_SIZE: usize = 1 << 20;

pub(super) fn compile_rewrite(
    route: &config::Route,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Rewrite> {
    let strip_prefix = (route.strip_prefix.as_ref())
        .map(|prefix| canonical_prefix(prefix, &path.key("strip_prefix"), problems));
    let replace = (route.rewrite.as_ref())
        .map(|rewrite| compile_replace(rewrite, &path.key("rewrite"), problems));
    Some(Rewrite {
        strip_prefix: transpose(strip_prefix)?,
        replace: transpose(replace)?,
    })
}

/// `None` if something is there and wrong.
fn transpose<T>(written: Option<Option<T>>) -> Option<Option<T>> {
    match written {
        None => Some(None),
        Some(compiled) => compiled.map(Some),
    }
}

fn canonical_prefix(prefix: &str, path: &KeyPath, problems: &mut Problems) -> Option<Box<str>> {
    let why = match prefix.strip_prefix('/') {
        None => "it must begin with `/`",
        Some("") => "there is nothing to strip",
        Some(rest) => match rest.split('/').find_map(why_not_canonical) {
            None => return Some(prefix.into()),
            Some(why) => why,
        },
    };
    problems.push(
        path,
        format!("`{prefix}` is no prefix of a canonical path: {why}"),
    );
    None
}

/// What keeps a segment from ever being in a canonical path.
fn why_not_canonical(segment: &str) -> Option<&'static str> {
    match segment {
        "" => return Some("it ends in a slash, or has two in a row"),
        "." | ".." => return Some("dot segments are resolved"),
        "*" => return Some("it takes no wildcard; a prefix is one already"),
        _ => {}
    }
    if segment.contains(['?', '#', '\\']) || !segment.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(
            "it holds a character that a path cannot have; other scripts are written as %XX",
        );
    }
    segment
        .split('%')
        .skip(1)
        .find_map(|escaped| match escape(escaped) {
            None => Some("escapes are `%` and two upper-case hex digits"),
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                Some("it escapes a character that needs none")
            }
            Some(0 | b'/' | b'\\' | b'%') => Some("it holds an escape that paths may not have"),
            Some(_) => None,
        })
}

/// The byte that the two digits at the start of `text` stand for.
fn escape(text: &str) -> Option<u8> {
    let digits = text.get(..2)?;
    let canonical = (digits.bytes()).all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
    canonical.then(|| u8::from_str_radix(digits, 16).ok())?
}

fn compile_replace(
    rewrite: &config::Rewrite,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<(Regex, Box<str>)> {
    let to = &rewrite.to;
    let is_path = to.bytes().all(|byte| byte.is_ascii_graphic()) && !to.contains(['?', '#', '\\']);
    if !is_path {
        problems.push(
            &path.key("to"),
            "it holds a character that a path cannot have; the query passes as it is",
        );
    }
    let from = RegexBuilder::new(&rewrite.from)
        .size_limit(REGEX_SIZE)
        .dfa_size_limit(REGEX_SIZE)
        .build()
        .map_err(|why| problems.push(&path.key("from"), one_line(&why)))
        .ok()?;
    let unknown = references(to).find(|name| !has_group(&from, name));
    if let Some(name) = unknown {
        problems.push_with_help(
            &path.key("to"),
            format!("`from` has no group `{name}`"),
            Some("`${1}x` is group 1 and an x, `$$` is a dollar sign".to_owned()),
        );
    }
    (is_path && unknown.is_none()).then(|| (from, to.as_str().into()))
}

/// The last line of a regex error says what is wrong; those above it draw where.
fn one_line(why: &regex::Error) -> String {
    let text = why.to_string();
    let last = text.lines().last().unwrap_or_default();
    format!(
        "the regex does not compile: {}",
        last.trim_start_matches("error: ")
    )
}

fn has_group(regex: &Regex, name: &str) -> bool {
    match name.parse::<usize>() {
        Ok(index) => index < regex.captures_len(),
        Err(_) => regex.capture_names().flatten().any(|known| known == name),
    }
}

/// The groups that a replacement names, found as the regex crate finds them.
fn references(to: &str) -> impl Iterator<Item = &str> {
    let mut rest = to;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once('$')?;
            if let Some(escaped) = after.strip_prefix('$') {
                rest = escaped;
                continue;
            }
            let braced = after
                .strip_prefix('{')
                .and_then(|text| text.split_once('}'));
            if let Some((name, further)) = braced {
                rest = further;
                return Some(name);
            }
            let end = after
                .find(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_')
                .unwrap_or(after.len());
            let (name, further) = after.split_at(end);
            rest = further;
            if !name.is_empty() {
                return Some(name);
            }
        }
    })
}
