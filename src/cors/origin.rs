//! Origins as browsers serialise them: scheme, host, and the port if it is not the scheme's own.

use http::Uri;

/// Reads an origin of the configuration; the error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<String, String> {
    if text == "null" {
        return Ok(text.to_owned());
    }
    if text.contains('*') {
        return Err(format!(
            "`{text}`: `*` stands for one label (`https://*.example.com`), or alone for every origin"
        ));
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(|| no_origin(text))?;
    let scheme = scheme.to_ascii_lowercase();
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !is_scheme {
        return Err(no_origin(text));
    }
    let authority = rest.to_ascii_lowercase();
    let is_bare = !authority.is_empty() && !authority.contains(['/', '?', '#', '@', '\\', ',']);
    if !is_bare {
        return Err(no_origin(text));
    }
    let uri: Uri = authority.parse().map_err(|_| no_origin(text))?;
    let host = uri.host().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| no_origin(text))?;
    let port = match authority.strip_prefix(host) {
        Some("") => None,
        Some(port) => Some(
            port.strip_prefix(':')
                .and_then(port_of)
                .ok_or_else(|| no_origin(text))?,
        ),
        None => return Err(no_origin(text)),
    };
    let own_port = match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    Ok(match port.filter(|port| Some(*port) != own_port) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

/// An origin with `*` for its first label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Up to the label, as browsers serialise it.
    before: Box<str>,
    /// From the dot behind it.
    after: Box<str>,
}

impl Pattern {
    /// Reads `https://*.example.com`; `None` if that is no pattern. Below a single label there are whole registries.
    pub(super) fn parse(text: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = text.split_once("://*.")?;
        let origin = match parse(&format!("{scheme}://{rest}")) {
            Ok(origin) => origin,
            Err(why) => return Some(Err(why)),
        };
        let (scheme, rest) = origin.split_once("://")?;
        let host = rest.split(':').next().unwrap_or_default();
        let is_domain = host.contains('.')
            && !host.starts_with('.')
            && !host.contains("..")
            && host.bytes().any(|byte| byte.is_ascii_alphabetic());
        Some(if is_domain {
            Ok(Self {
                before: format!("{scheme}://").into(),
                after: format!(".{rest}").into(),
            })
        } else {
            Err(format!(
                "`{text}`: what follows `*.` must be a domain of at least two labels"
            ))
        })
    }

    /// Whether `origin` is the pattern with one label in its place.
    pub(super) fn fits(&self, origin: &[u8]) -> bool {
        let rest = origin.strip_prefix(self.before.as_bytes());
        let label = rest.and_then(|rest| rest.strip_suffix(self.after.as_bytes()));
        label.is_some_and(|label| {
            (1..=63).contains(&label.len())
                && label
                    .iter()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
        })
    }
}

fn port_of(digits: &str) -> Option<u16> {
    let all_digits = digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|port| all_digits && *port != 0)
}

fn no_origin(text: &str) -> String {
    format!(
        "`{text}` is no origin such as `https://app.example.com`: a scheme, a host and perhaps a port, without a path"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(parse(text).ok().as_deref(), expected, "{text}");
    }

    #[test]
    fn origins_are_spelt_as_browsers_spell_them() {
        check("https://app.example.com", Some("https://app.example.com"));
        check(
            "HTTPS://App.Example.com:443",
            Some("https://app.example.com"),
        );
        check("http://localhost:3000", Some("http://localhost:3000"));
        check("http://a:80", Some("http://a"));
        check("https://a:80", Some("https://a:80"));
        check("http://[::1]:3000", Some("http://[::1]:3000"));
        check("capacitor://localhost", Some("capacitor://localhost"));
        check("null", Some("null"));
    }

    #[test]
    fn a_pattern_stands_for_one_label() {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        let fits = |text: &str, origin: &str| pattern(text).unwrap().fits(origin.as_bytes());
        let apps = "https://*.Example.com";
        for origin in ["https://a.example.com", "https://a-1.example.com"] {
            assert!(fits(apps, origin), "{origin}");
        }
        for origin in [
            "https://example.com",
            "https://.example.com",
            "https://a.b.example.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://evil.com/.example.com",
            "https://evil.com?.example.com",
            "https://aexample.com",
            "https://a.example.com.evil.com",
            "https://A.example.com",
            "null",
            "",
        ] {
            assert!(!fits(apps, origin), "{origin}");
        }
        assert!(fits("http://*.a.test:8080", "http://x.a.test:8080"));
        assert!(fits("https://*.a.test:443", "https://x.a.test"));
        for text in [
            "https://*.com",
            "https://*.",
            "https://*.*.a.com",
            "https://*.10.0.0.1",
            "https://*..com",
        ] {
            assert!(pattern(text).is_err(), "{text}");
        }
        assert!(Pattern::parse("https://a.*.com").is_none());
        assert!(Pattern::parse("*://a.com").is_none());
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for text in [
            "",
            "app.example.com",
            "https://",
            "https://a/",
            "https://a/b",
            "https://*.a",
            "*://a",
            "https://u@a",
            "https://a:",
            "https://a:0",
            "https://a:x",
            "https://a:99999",
            "https://a b",
            "https://a,https://b",
            "://a",
            "https://:80",
            "https://é",
        ] {
            check(text, None);
        }
    }
}
