//! Header names as a lax server reads them.
//!
//! CGI and its heirs turn `-` into `_`; some fold `.` too, some every sign. `x.user-id` and `x_user_id` are then one
//! name to the backend, so they are one name here: every byte that is neither letter nor digit counts as `-`.

use http::header::{HeaderMap, HeaderName};
use smallvec::SmallVec;

/// The byte as it counts in a comparison of names.
const fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte.to_ascii_lowercase()
    } else {
        b'-'
    }
}

/// The spelling in which every name that folds alike is the same text.
pub(super) fn folded(name: &str) -> Box<str> {
    name.bytes().map(|byte| char::from(fold(byte))).collect()
}

/// Whether `name` folds to `folded`, which is folded already.
pub(super) fn folds_to(name: &str, folded: &str) -> bool {
    name.len() == folded.len() && folds_to_start(name, folded)
}

/// Whether the start of `name` folds to `start`, which is folded already.
pub(super) fn folds_to_start(name: &str, start: &str) -> bool {
    name.len() >= start.len()
        && name
            .bytes()
            .zip(start.bytes())
            .all(|(byte, expected)| fold(byte) == expected)
}

/// Removes every header whose name `unwanted` says yes to. Allocates nothing unless many are removed.
pub(super) fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    // Nearly always there is nothing to remove.
    let mut names = headers.keys();
    let Some(first) = names.find(|name| unwanted(name)) else {
        return;
    };
    let mut removed = SmallVec::<[HeaderName; 4]>::new();
    removed.push(first.clone());
    removed.extend(names.filter(|name| unwanted(name)).cloned());
    for name in removed {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_counts_as_a_hyphen() {
        for spelling in [
            "x-user-id",
            "X-User-Id",
            "x_user_id",
            "x.user-id",
            "x^user~id",
        ] {
            assert!(folds_to(spelling, "x-user-id"), "{spelling}");
            assert!(folds_to_start(spelling, "x-user-"), "{spelling}");
            assert_eq!(&*folded(spelling), "x-user-id");
        }
        assert!(!folds_to("xuser-id", "x-user-id"));
        assert!(!folds_to("x-user-idx", "x-user-id"));
        assert!(!folds_to_start("x-use", "x-user-"));
    }
}
