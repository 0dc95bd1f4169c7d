//! What browsers are told to be careful about, on routes with `security_headers = true`, where nobody has said it: a
//! backend, or the operator by an edit, knows better.

use http::header::{
    CONTENT_SECURITY_POLICY, Entry, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

/// Two years, as is usual; this host alone, since others may not be ours.
const HSTS: &str = "max-age=63072000";

const ALWAYS: [(HeaderName, &str); 2] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "strict-origin-when-cross-origin"),
];

pub(super) fn apply(headers: &mut HeaderMap, is_https: bool) {
    for (name, value) in ALWAYS {
        set_absent(headers, name, value);
    }
    // The policy of a page on who may frame it stands above the older field, which must not contradict it.
    if !says_who_frames(headers) {
        set_absent(headers, X_FRAME_OPTIONS, "SAMEORIGIN");
    }
    // Browsers ignore it over http, where anybody could have written it.
    if is_https {
        set_absent(headers, STRICT_TRANSPORT_SECURITY, HSTS);
    }
}

fn set_absent(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    if let Entry::Vacant(vacant) = headers.entry(name) {
        vacant.insert(HeaderValue::from_static(value));
    }
}

fn says_who_frames(headers: &HeaderMap) -> bool {
    let policies = headers.get_all(CONTENT_SECURITY_POLICY).iter();
    let mut directives = policies.flat_map(|policy| policy.as_bytes().split(|byte| *byte == b';'));
    directives.any(|directive| {
        let name = directive.trim_ascii_start();
        let name = name.get(..FRAME_ANCESTORS.len()).unwrap_or_default();
        name.eq_ignore_ascii_case(FRAME_ANCESTORS)
    })
}

const FRAME_ANCESTORS: &[u8] = b"frame-ancestors";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: &[(&'static str, &'static str)], is_https: bool, expected: &[(&str, &str)]) {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        apply(&mut headers, is_https);
        let mut seen: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_is_absent_is_said() {
        let common = [
            ("referrer-policy", "strict-origin-when-cross-origin"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "SAMEORIGIN"),
        ];
        check(&[], false, &common);
        let mut over_tls = common.to_vec();
        over_tls.insert(1, ("strict-transport-security", "max-age=63072000"));
        check(&[], true, &over_tls);
    }

    #[test]
    fn what_the_backend_says_stands() {
        let said = [
            (
                "content-security-policy",
                "default-src 'self'; Frame-Ancestors https://a",
            ),
            ("referrer-policy", "no-referrer"),
            ("strict-transport-security", "max-age=0"),
            ("x-content-type-options", "sniff"),
        ];
        check(&said, true, &said);
        let framed = [
            ("content-security-policy", "default-src 'self'"),
            ("referrer-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ];
        check(&framed, false, &framed);
    }
}
