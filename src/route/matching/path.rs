//! Paths: `/exact`, `/prefix/*`, `~ ^/regex$`. All of them see the canonical path, and only that.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use regex::{Regex, RegexBuilder};

use super::super::path::canonical;

/// What a route says about the path.
#[derive(Clone, Debug)]
pub(in crate::route) enum PathPattern {
    /// This path.
    Exact(Box<str>),
    /// Paths that, with a slash after them, start with this text; it ends in a slash itself. Empty: every path.
    Prefix(Box<str>),
    /// A regular expression.
    Regex(PathRegex),
}

/// A regular expression on the path, held at its front.
#[derive(Clone, Debug)]
pub(in crate::route) struct PathRegex {
    /// As written, without the `~`.
    text: Box<str>,
    /// What every match starts with.
    front: Box<str>,
    regex: Regex,
}

impl PathPattern {
    /// Reads a pattern; the error says what is wrong with it.
    pub(in crate::route) fn parse(text: &str) -> Result<Self, String> {
        if let Some(regex) = text.strip_prefix('~') {
            return PathRegex::parse(regex.trim()).map(Self::Regex);
        }
        if text == "/*" {
            return Ok(Self::Prefix("".into()));
        }
        match text.strip_suffix("/*") {
            Some(front) => Self::prefix(front),
            None => check_literal(text).map(|()| Self::Exact(text.into())),
        }
    }

    /// `front` and everything below it.
    pub(in crate::route) fn prefix(front: &str) -> Result<Self, String> {
        check_literal(front)?;
        if front.ends_with('/') {
            return Err(format!("`{front}/*` holds an empty segment"));
        }
        Ok(Self::Prefix(format!("{front}/").into()))
    }

    /// Whether it holds a `%2F`, so that it matches nothing on a route that refuses those.
    pub(in crate::route) fn has_encoded_slash(&self) -> bool {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text.contains("%2F"),
            Self::Regex(_) => false,
        }
    }

    /// The more specific first: exact; then by the length of what every match starts with, a regex before the prefix of
    /// the same length and the longer regex before the shorter; the spelling decides what is left.
    ///
    /// A regex whose front lies below a prefix is narrower than that prefix, and one whose front lies above it is wider:
    /// the longer front is the more specific one, whatever the kind.
    pub(in crate::route) fn precedence(&self, other: &Self) -> Ordering {
        self.rank()
            .cmp(&other.rank())
            .then_with(|| self.text().cmp(other.text()))
    }

    /// The part of [`PathPattern::precedence`] that is more than spelling.
    fn rank(&self) -> (bool, Reverse<usize>, bool, Reverse<usize>) {
        match self {
            Self::Exact(_) => (false, Reverse(0), false, Reverse(0)),
            Self::Regex(regex) => (
                true,
                Reverse(regex.front.len()),
                false,
                Reverse(regex.text.len()),
            ),
            Self::Prefix(text) => (true, Reverse(text.len()), true, Reverse(0)),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
            Self::Regex(regex) => &regex.text,
        }
    }

    /// Which of two patterns is more specific, spelling left aside.
    pub(in crate::route) fn specificity(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PathRegex {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with("^/") {
            return Err(format!(
                "`~ {text}` does not start with `^/`: paths are matched from their front"
            ));
        }
        // Alone first: `)|(` would close the group below. The group keeps every branch of a `|` at the front.
        let regex = compile(text)
            .and_then(|_| compile(&format!(r"\A(?:{text})")))
            .map_err(|why| format!("`~ {text}` is no regular expression: {why}"))?;
        Ok(Self {
            text: text.into(),
            front: literal_front(text).into(),
            regex,
        })
    }

    pub(in crate::route) fn front(&self) -> &str {
        &self.front
    }

    pub(in crate::route) fn matches(&self, path: &str) -> bool {
        path.starts_with(&*self.front) && self.regex.is_match(path)
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .size_limit(REGEX_SIZE)
        .dfa_size_limit(REGEX_SIZE)
        .build()
}

/// Bytes that a compiled expression, and its cache, may take.
const REGEX_SIZE: usize = 1 << 20;

/// The text that every match of `^...` starts with. May be shorter than it could be, never longer.
fn literal_front(regex: &str) -> String {
    let mut front = String::new();
    let mut previous = 0;
    let mut characters = regex.chars().skip(1).peekable();
    while let Some(character) = characters.next() {
        let literal = match character {
            // `\<` and `\>` are word boundaries, letters are classes.
            '\\' => characters
                .next_if(|escaped| escaped.is_ascii_punctuation() && !"<>".contains(*escaped)),
            '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' | '|' => {
                if matches!(character, '+' | '*' | '?' | '{') {
                    front.truncate(previous); // the last character may be absent: `a?`, `a+*`
                }
                break;
            }
            _ => Some(character),
        };
        let Some(literal) = literal else { break };
        previous = front.len();
        front.push(literal);
    }
    if regex.contains('|') && has_branch_outside_groups(regex) {
        front.clear();
    }
    front
}

/// Whether a `|` may stand outside of every group. Errs towards yes.
fn has_branch_outside_groups(regex: &str) -> bool {
    let mut depth = 0_u32;
    let mut characters = regex.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '[' | '#' => return true, // brackets in a class, or in a comment, would need a parser
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

/// Literal patterns must be spelt canonically: any other spelling would never match.
fn check_literal(text: &str) -> Result<(), String> {
    let found = canonical(text).map_err(|why| format!("`{text}` is no path pattern: {why}"))?;
    if found.path != text {
        return Err(format!(
            "`{text}` never matches: its canonical spelling is `{}`",
            found.path
        ));
    }
    if text.contains('*') {
        return Err(format!(
            "`{text}`: `*` may stand alone in the last segment only; use `~ ^/regex$` for more"
        ));
    }
    Ok(())
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) if text.is_empty() => f.write_str("/*"),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Regex(regex) => write!(f, "~ {}", regex.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_written_as_they_are_read() {
        for text in [
            "/",
            "/a",
            "/a/",
            "/a/*",
            "/*",
            "~ ^/x/[0-9]+$",
            "/a%20b/*",
            "/a;v=1",
        ] {
            assert_eq!(PathPattern::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn patterns_that_can_never_match_are_refused() {
        for text in [
            "",
            "a",
            "*",
            "/a//b",
            "/a/../b",
            "/%61",
            "/a%2fb",
            "/a?x=1",
            "/a#b",
            "/a*",
            "/*/a",
            "/a/*/b",
            "//*",
            "/a//*",
            "/a\\b",
            "~ a",
            "~ /a",
            "~ ^/(",
            "~ ^/a)|(?:/b",
            "~",
            "/[id]",
        ] {
            assert!(PathPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn expressions_too_large_are_refused() {
        assert!(PathPattern::parse(r"~ ^/(\w{500}){500}$").is_err());
    }

    #[test]
    fn every_branch_of_an_expression_is_held_at_the_front() {
        let PathPattern::Regex(regex) = PathPattern::parse("~ ^/a|/b$").unwrap() else {
            panic!("a regex")
        };
        assert!(regex.matches("/a") && regex.matches("/b") && !regex.matches("/x/b"));
    }

    fn front(regex: &str, expected: &str) {
        assert_eq!(literal_front(regex), expected, "{regex}");
    }

    #[test]
    fn the_front_of_an_expression_is_never_longer_than_what_must_match() {
        front("^/v2/users/[^/]+/password$", "/v2/users/");
        front(r"^/\.well-known/.*", "/.well-known/");
        front(r"^/\d+", "/");
        front("^/ab*", "/a");
        front("^/ab?c", "/a");
        front("^/ab{0,2}", "/a");
        front("^/ab+", "/a"); // `+*` may follow
        front("^/a(b|c)", "/a");
        front("^/a|/b", "");
        front("^/a[|]", ""); // shorter than it could be
        front("^/exact$", "/exact");
        front(r"^/a\.*", "/a");
        front(r"^/a\<b", "/a");
    }

    proptest! {
        #[test]
        fn a_front_never_hides_a_match(
            tail in prop::collection::vec(
                prop::sample::select(vec![
                    "a", "b", "/", ".", "*", "+", "?", "|", "(", ")", "[ab]", "[^a]", "[|]", "{1}", "{0,1}", "$", "^", r"\.",
                    r"\b", r"\<", r"\|", "(?i)", "(?:", "(?x) #(", "\n",
                ]),
                0..8,
            ),
            path in "/[ab./]{0,5}",
        ) {
            let text = format!("^/{}", tail.concat());
            if let Ok(regex) = PathRegex::parse(&text) {
                let plain = Regex::new(&format!(r"\A(?:{text})")).unwrap();
                prop_assert_eq!(regex.matches(&path), plain.is_match(&path), "{} {}", text, path);
            }
        }
    }

    fn check_order(patterns: &[&str]) {
        let patterns: Vec<_> = patterns
            .iter()
            .map(|text| PathPattern::parse(text).unwrap())
            .collect();
        assert!(
            patterns.is_sorted_by(|a, b| a.specificity(b).is_lt()),
            "{patterns:?}"
        );
    }

    #[test]
    fn the_longer_front_is_more_specific() {
        check_order(&["/a/b", "/a/b/c/*", "/a/*", "/*"]);
        check_order(&["~ ^/v2/users/[^/]+/password$", "/v2/*", "/*"]);
        check_order(&["/admin/*", "~ ^/.*$"]);
        check_order(&["~ ^/a/[0-9]+/x$", "~ ^/a/[0-9]+", "/a/*"]);
        check_order(&["/a", "~ ^/a$"]);
        check_order(&["~ ^/(a|b)", "/*"]);
        check_order(&["~ ^/a|/b", "/*"]);
    }
}
