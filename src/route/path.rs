//! The path canoniser: one spelling of a path, which routing, limits, logs and the upstream all share.
//!
//! Order: validate bytes, decode escapes of unreserved characters, upper-case the remaining escapes, resolve dot
//! segments, merge slashes. What two readers could understand differently is refused instead of repaired. A kept
//! `%2F` is only reported: whether it may pass is the route's to say.
//!
//! Bytes that RFC 3986 wants escaped but clients send raw (`|`, `[`, `{` and their kind) are escaped, so that the two
//! spellings cannot be told apart by a rule. Leaves the query alone.

use std::borrow::Cow;
use std::fmt;

use smallvec::SmallVec;

/// A path in its canonical spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical<'a> {
    /// The path; borrowed when it was canonical already.
    pub path: Cow<'a, str>,
    /// Whether a `%2F` was in it, even if in a segment that `..` took away.
    pub encoded_slash: bool,
}

/// Why a path has no canonical spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPath(&'static str);

impl BadPath {
    /// The reason, for logs and configuration errors.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadPath {}

/// The canonical spelling of `path`. Allocates only when that differs from what was given.
///
/// # Errors
/// [`BadPath`] when the path does not start with `/`, or holds anything of the list in behaviour 2.5.
pub fn canonical(path: &str) -> Result<Canonical<'_>, BadPath> {
    if !path.starts_with('/') {
        return Err(BadPath("the path does not start with a slash"));
    }
    if is_plain(path) {
        return Ok(Canonical {
            path: Cow::Borrowed(path),
            encoded_slash: false,
        });
    }
    let Unescaped {
        text,
        encoded_slash,
        non_ascii,
    } = unescape(path)?;
    refuse_double_encoding(&text)?;
    if non_ascii {
        refuse_bad_utf8(&text)?;
    }
    let mut text = resolve_dots(&text, encoded_slash)?;
    merge_slashes(&mut text);
    let path = if text.as_slice() == path.as_bytes() {
        Cow::Borrowed(path)
    } else {
        let text = String::from_utf8(text.to_vec());
        Cow::Owned(text.map_err(|_| BadPath("the path is not text"))?)
    };
    Ok(Canonical {
        path,
        encoded_slash,
    })
}

/// Long enough for the paths that people write; longer ones move to the heap.
type Buffer = SmallVec<[u8; 256]>;

/// Whether nothing in the path needs a second look: no escape, no doubled slash, no segment that starts with a dot.
fn is_plain(path: &str) -> bool {
    let mut after_slash = false;
    for byte in path.bytes() {
        if class(byte) != Class::Plain || (after_slash && matches!(byte, b'/' | b'.')) {
            return false;
        }
        after_slash = byte == b'/';
    }
    true
}

struct Unescaped {
    text: Buffer,
    encoded_slash: bool,
    non_ascii: bool,
}

/// Validates every byte, decodes escapes of unreserved characters and upper-cases the others.
fn unescape(path: &str) -> Result<Unescaped, BadPath> {
    let mut out = Unescaped {
        text: Buffer::new(),
        encoded_slash: false,
        non_ascii: false,
    };
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match class(byte) {
            Class::Plain => out.text.push(byte),
            Class::Escaped => push_escape(&mut out.text, byte),
            Class::Percent => {
                let value = hex(bytes.next()).zip(hex(bytes.next()));
                let (high, low) = value.ok_or(BadPath("an escape is malformed"))?;
                out.take_escape(high << 4 | low)?;
            }
            Class::Refused => return Err(BadPath("a byte is not allowed in a path")),
        }
    }
    Ok(out)
}

impl Unescaped {
    /// One escape that stood for `value`.
    fn take_escape(&mut self, value: u8) -> Result<(), BadPath> {
        match value {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                self.text.push(value);
                return Ok(());
            }
            b'/' => self.encoded_slash = true,
            b'\\' => return Err(BadPath("a backslash is escaped")),
            0..=0x1f | 0x7f => return Err(BadPath("a control byte is escaped")),
            0x80.. => self.non_ascii = true,
            _ => {}
        }
        push_escape(&mut self.text, value);
        Ok(())
    }
}

/// `%25` before two hex digits would be an escape for whoever decodes a second time. Looked for after decoding, since
/// `%25%32%66` hides one.
fn refuse_double_encoding(text: &[u8]) -> Result<(), BadPath> {
    let double = text.windows(5).any(|window| {
        matches!(window, [b'%', b'2', b'5', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
    });
    if double {
        return Err(BadPath("the path is encoded twice"));
    }
    Ok(())
}

/// Overlong and otherwise malformed UTF-8 reads differently in every decoder.
fn refuse_bad_utf8(text: &[u8]) -> Result<(), BadPath> {
    let mut decoded = Buffer::new();
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
        } else if let Some((high, low)) = hex(bytes.next()).zip(hex(bytes.next())) {
            decoded.push(high << 4 | low);
        }
    }
    match std::str::from_utf8(&decoded) {
        Ok(_) => Ok(()),
        Err(_) => Err(BadPath("the escapes are not UTF-8")),
    }
}

/// RFC 3986 section 5.2.4; `..` at the root stays at the root.
fn resolve_dots(text: &[u8], encoded_slash: bool) -> Result<Buffer, BadPath> {
    let mut out = Buffer::new();
    let mut ends_in_dots = false;
    for segment in text.split(|byte| *byte == b'/').skip(1) {
        ends_in_dots = true;
        match segment {
            b"." => {}
            b".." => {
                let parent = out.iter().rposition(|byte| *byte == b'/');
                out.truncate(parent.unwrap_or(0));
            }
            _ => {
                refuse_hidden_dots(segment, encoded_slash)?;
                out.push(b'/');
                out.extend_from_slice(segment);
                ends_in_dots = false;
            }
        }
    }
    if ends_in_dots {
        out.push(b'/');
    }
    Ok(out)
}

/// `..;x` is a dot segment for servers that cut path parameters, `..%2Fx` for those that decode before they resolve.
fn refuse_hidden_dots(segment: &[u8], encoded_slash: bool) -> Result<(), BadPath> {
    if !segment.contains(&b'.') {
        return Ok(());
    }
    let text = std::str::from_utf8(segment).map_err(|_| BadPath("the path is not text"))?;
    for piece in text.split("%2F") {
        let rest = piece.strip_prefix("..").or_else(|| piece.strip_prefix('.'));
        let hidden = rest.is_some_and(|rest| {
            rest.starts_with(';') || rest.starts_with("%3B") || (encoded_slash && rest.is_empty())
        });
        if hidden {
            return Err(BadPath("a dot segment is disguised"));
        }
    }
    Ok(())
}

fn merge_slashes(text: &mut Buffer) {
    text.dedup_by(|next, previous| *next == b'/' && *previous == b'/');
}

fn push_escape(text: &mut Buffer, byte: u8) {
    let digit = |nibble: u8| {
        char::from_digit(u32::from(nibble), 16)
            .map_or(b'0', |digit| digit.to_ascii_uppercase() as u8)
    };
    text.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0x0f)]);
}

fn hex(digit: Option<u8>) -> Option<u8> {
    let value = char::from(digit?).to_digit(16)?;
    u8::try_from(value).ok()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `pchar` of RFC 3986 without escapes, and the slash.
    Plain,
    Percent,
    /// Not allowed raw by RFC 3986, yet sent raw by clients.
    Escaped,
    /// Controls, space, non-ASCII, backslash, and what would end the path: `?` and `#`.
    Refused,
}

fn class(byte: u8) -> Class {
    CLASSES
        .get(usize::from(byte))
        .copied()
        .unwrap_or(Class::Refused)
}

static CLASSES: [Class; 256] = {
    let mut classes = [Class::Refused; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        #[allow(
            clippy::indexing_slicing,
            reason = "a constant table, filled at compile time"
        )]
        {
            classes[byte as usize] = match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Plain,
                b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => {
                    Class::Plain
                }
                b':' | b'@' | b'/' => Class::Plain,
                b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                    Class::Escaped
                }
                b'%' => Class::Percent,
                _ => Class::Refused,
            };
        }
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(path: &str, expected: &str) {
        let found = canonical(path).unwrap_or_else(|why| panic!("{path}: {why}"));
        assert_eq!(found.path, expected, "{path}");
    }

    fn refuse(path: &str) {
        assert!(canonical(path).is_err(), "{path}");
    }

    #[test]
    fn dot_segments_are_resolved_and_slashes_merged() {
        check("/a/./b/../c", "/a/c");
        check("/docs/%2E%2e/admin", "/admin");
        check("//api///v1/", "/api/v1/");
        check("/a/..", "/");
        check("/a/b/..", "/a/");
        check("/a/.", "/a/");
        check("/.", "/");
        check("/../../x", "/x");
        check("/..", "/");
        check("//", "/");
        check("/a//../b", "/a/b"); // dots before slashes, as the order says
    }

    #[test]
    fn names_that_merely_start_with_a_dot_stay() {
        check("/.well-known/jwks.json", "/.well-known/jwks.json");
        check("/a/...", "/a/...");
        check("/a/..b/.c", "/a/..b/.c");
        check("/a;v=1/b", "/a;v=1/b");
        check("/a/.b;v=1", "/a/.b;v=1");
    }

    #[test]
    fn escapes_of_unreserved_characters_are_decoded_and_others_upper_cased() {
        check("/%61dmin", "/admin");
        check("/%7Euser", "/~user");
        check("/a%20b%3a", "/a%20b%3A");
        check("/caf%c3%a9", "/caf%C3%A9");
        check("/100%25", "/100%25");
        check("/100%25x", "/100%25x");
        check("/100%251", "/100%251");
    }

    #[test]
    fn bytes_that_should_have_been_escaped_are() {
        check("/a|b", "/a%7Cb");
        check("/{id}/[x]", "/%7Bid%7D/%5Bx%5D");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for path in [
            "/a%5cb",
            "/a%5Cb",
            "/a\\b",
            "/a%00",
            "/a%0d%0a",
            "/a%7f", // bytes
            "/a%252fb",
            "/a%2541",
            "/a%25%32%66b",
            "/a%25%2566", // encoded twice
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%2%66",
            "/a%+1", // malformed
            "/app/..;v=1/admin",
            "/app/.;/admin",
            "/app/..%3bx",
            "/%2e%2e;/x", // parameters
            "/a/..%2fb",
            "/a%2f..%2fb",
            "/a%2F..",
            "/a%2f.",
            "/a/.%2Fb", // dots beside a kept slash
            "/a#b",
            "/a?b",
            "/é",
            "/a b",
            "/a\tb",
            "/a\u{0}",
            "/\u{7f}", // raw bytes
            "/%c0%af",
            "/%c0%ae",
            "/%e0%80%af",
            "/%ff",
            "/%c3",
            "/%ed%a0%80", // UTF-8
            "",
            "a",
            "*",
            "?x",
            "!", // no path at all
        ] {
            refuse(path);
        }
    }

    #[test]
    fn a_kept_slash_is_reported_and_never_a_separator() {
        let found = canonical("/files/x%2fy").unwrap();
        assert_eq!(
            (found.path.as_ref(), found.encoded_slash),
            ("/files/x%2Fy", true)
        );
        assert!(!canonical("/files/x/y%20").unwrap().encoded_slash);
        let removed = canonical("/a%2fb/..").unwrap();
        assert_eq!((removed.path.as_ref(), removed.encoded_slash), ("/", true));
    }

    #[test]
    fn a_canonical_path_is_borrowed() {
        for path in ["/", "/v1/users", "/.well-known/x", "/a%20b%C3%A9", "/x%2Fy"] {
            assert!(
                matches!(canonical(path).unwrap().path, Cow::Borrowed(_)),
                "{path}"
            );
        }
    }

    #[test]
    fn paths_longer_than_the_buffer_are_judged_alike() {
        let long = "/abcdefghi".repeat(100);
        check(&format!("{long}/%61/../b//c"), &format!("{long}/b/c"));
    }

    /// Mostly made of what the canoniser has to decide about.
    const ODD_PATH: &str = r"(/|\.{1,2}|;|%2[eE]|%2[fF]|%25|%3[bB]|%[2-7][0-9a-fA-F]|%[cC]3%[abAB]9|[!-\x22$&->@-\[\]-~]|[a-z]){0,16}";

    proptest! {
        #[test]
        fn canonicalising_is_idempotent(path in ODD_PATH) {
            let path = format!("/{path}");
            if let Ok(once) = canonical(&path) {
                let twice = canonical(&once.path).unwrap();
                prop_assert_eq!(&once.path, &twice.path);
                prop_assert!(once.encoded_slash || !twice.encoded_slash);
                prop_assert!(matches!(twice.path, Cow::Borrowed(_)));
            }
        }

        #[test]
        fn any_text_is_judged_without_a_panic(path in any::<String>()) {
            let _ = canonical(&path);
        }

        #[test]
        fn a_canonical_path_holds_nothing_ambiguous(path in ODD_PATH) {
            let path = format!("/{path}");
            if let Ok(found) = canonical(&path) {
                let text = found.path.as_ref();
                let slashed = format!("{text}/");
                prop_assert!(text.starts_with('/'));
                for part in ["//", "/./", "/../", "/..;", "/.;"] {
                    prop_assert!(!text.contains(part), "{} in {}", part, text);
                }
                prop_assert!(!slashed.contains("/../") && !slashed.contains("/./"), "{}", text);
                prop_assert!(!has_odd_escape(text), "{}", text);
            }
        }
    }

    /// A lower-case escape, or one of an unreserved character.
    fn has_odd_escape(text: &str) -> bool {
        text.split('%').skip(1).any(|rest| {
            let digits = &rest[..2];
            let value = char::from(u8::from_str_radix(digits, 16).unwrap());
            digits.bytes().any(|digit| digit.is_ascii_lowercase())
                || value.is_ascii_alphanumeric()
                || "-._~".contains(value)
        })
    }
}
