//! Changes the path on its way to the upstream: a prefix is cut off, then a regex replaces.
//!
//! Both read the canonical path and what they make is made canonical again; the pipeline then holds it against the
//! closed routes once more.

use std::borrow::Cow;

use regex::Regex;

use crate::route::Head;
use crate::types::Rejection;

/// The path changes of one route.
#[derive(Clone, Debug, Default)]
pub(super) struct Rewrite {
    /// `/pub`: whole segments, without a slash at the end.
    pub(super) strip_prefix: Option<Box<str>>,
    /// The pattern, and what stands for its first match.
    pub(super) replace: Option<(Regex, Box<str>)>,
}

impl Rewrite {
    /// The head with its new path; `None` if nothing changes.
    pub(super) fn apply(&self, head: &Head) -> Result<Option<Head>, Rejection> {
        let old = head.path();
        let stripped = self
            .strip_prefix
            .as_deref()
            .and_then(|prefix| strip_prefix(old, prefix))
            .unwrap_or(old);
        let new = match &self.replace {
            Some((from, to)) => from.replace(stripped, &**to),
            None => Cow::Borrowed(stripped),
        };
        if *new == *old {
            return Ok(None);
        }
        head.with_path(&new).map(Some)
    }
}

/// `/pub/x` without `/pub` is `/x`, `/pub` itself is `/`; `/public` does not begin with the segment `/pub`.
fn strip_prefix<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    if rest.is_empty() {
        Some("/")
    } else {
        rest.starts_with('/').then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prefix: Option<&str>, replace: Option<(&str, &str)>, path: &str, expected: &str) {
        let rewrite = Rewrite {
            strip_prefix: prefix.map(Into::into),
            replace: replace.map(|(from, to)| (Regex::new(from).unwrap(), to.into())),
        };
        let head = crate::transform::tests::head(&format!("http://a.example{path}?q=1"));
        let new = rewrite.apply(&head).unwrap();
        let target = new.as_ref().unwrap_or(&head).path_and_query().as_str();
        assert_eq!(target, format!("{expected}?q=1"));
        assert_eq!(new.is_none(), path == expected, "{path}");
    }

    #[test]
    fn a_prefix_is_cut_off_by_segments() {
        check(Some("/pub"), None, "/pub/x", "/x");
        check(Some("/pub"), None, "/pub/", "/");
        check(Some("/pub"), None, "/pub", "/");
        check(Some("/pub"), None, "/public", "/public");
        check(Some("/pub"), None, "/other", "/other");
        check(Some("/pub"), None, "/pub/pub/x", "/pub/x");
        check(Some("/a/b"), None, "/a/b/c", "/c");
    }

    #[test]
    fn the_regex_sees_what_is_left_after_the_prefix() {
        let rule = Some(("^/r/(.*)$", "/$1"));
        check(None, rule, "/r/x/y", "/x/y");
        check(None, rule, "/s/x", "/s/x");
        check(Some("/pub"), rule, "/pub/r/x", "/x");
        check(Some("/pub"), rule, "/pub/x", "/x");
    }

    #[test]
    fn a_result_that_is_no_absolute_path_is_refused() {
        let rewrite = Rewrite {
            strip_prefix: None,
            replace: Some((Regex::new("^/").unwrap(), "".into())),
        };
        let head = crate::transform::tests::head("http://a.example/x");
        let why = rewrite.apply(&head).expect_err("a relative path");
        assert_eq!(why.reason(), crate::types::Reason::BadTarget);
    }
}
