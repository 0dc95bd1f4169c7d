//! Header edits that the operator wrote: remove, then set, then set where absent.

use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};

/// The edits of one direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Edits {
    pub(super) remove: Box<[HeaderName]>,
    pub(super) set: Box<[(HeaderName, HeaderValue)]>,
    pub(super) default: Box<[(HeaderName, HeaderValue)]>,
}

impl Edits {
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.default {
            if let Entry::Vacant(vacant) = headers.entry(name) {
                vacant.insert(value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    }

    #[test]
    fn remove_comes_before_set_and_set_before_default() {
        let edits = Edits {
            remove: [HeaderName::from_static("a"), HeaderName::from_static("d")].into(),
            set: [pair("b", "set")].into(),
            default: [
                pair("a", "default"),
                pair("b", "default"),
                pair("c", "default"),
            ]
            .into(),
        };
        let mut headers: HeaderMap = [
            pair("a", "sent"),
            pair("b", "sent"),
            pair("c", "sent"),
            pair("d", "sent"),
        ]
        .into_iter()
        .collect();
        headers.append("b", HeaderValue::from_static("sent twice"));
        edits.apply(&mut headers);
        let expected: HeaderMap = [pair("a", "default"), pair("b", "set"), pair("c", "sent")]
            .into_iter()
            .collect();
        assert_eq!(headers, expected);
    }
}
