//! Fields of a form body, and of the query beside it.

use std::borrow::Cow;

use super::{Content, TWICE, Wanted, folds_to};

/// What the wanted fields hold.
///
/// # Errors
/// What makes the whole body unreadable.
pub(super) fn read(body: &[u8], wanted: &[Wanted]) -> Result<Vec<Content>, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "no UTF-8")?;
    // A backend that does not care for the content type would read this as JSON.
    if text.trim_start().starts_with(['{', '[', '"']) {
        return Err("JSON in a form");
    }
    let mut contents = vec![Content::Absent; wanted.len()];
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name)?;
        let value = decode(value)?;
        for (wanted, content) in wanted.iter().zip(&mut contents) {
            note(wanted, content, &name, &value);
        }
    }
    Ok(contents)
}

/// Backends that merge both take from the query what the body leaves out, or the other way round. A field in both
/// places, or in the wrong one, is unreadable.
pub(super) fn look_in_query(query: &str, wanted: &[Wanted], contents: &mut [Content]) {
    for pair in query.split('&') {
        let name = pair.split('=').next().unwrap_or_default();
        let name = decode(name).unwrap_or(Cow::Borrowed(name));
        for (wanted, content) in wanted.iter().zip(&mut *contents) {
            if is_named(wanted, &name) {
                *content = Content::Unreadable("a field in the query");
            }
        }
    }
}

fn note(wanted: &Wanted, content: &mut Content, name: &str, value: &str) {
    if !is_named(wanted, name) {
        return;
    }
    *content = if *content != Content::Absent {
        Content::Unreadable(TWICE)
    } else if name.contains('[') {
        Content::Unreadable("a list of values")
    } else {
        Content::Text(value.to_owned())
    };
}

/// `email[]`, `email[0]` and `email[x]` are lists to some backends, and the field itself to others.
fn is_named(wanted: &Wanted, name: &str) -> bool {
    let name = name.split('[').next().unwrap_or_default();
    folds_to(name, wanted.name())
}

/// Percent and plus. A stray percent sign is an error to some backends and itself to others, and so is what decodes to
/// no UTF-8.
fn decode(text: &str) -> Result<Cow<'_, str>, &'static str> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = rest.next().and_then(hex).zip(rest.next().and_then(hex));
                let (high, low) = digits.ok_or("a stray percent sign")?;
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| "no UTF-8")
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}
