//! Origins as browsers serialise them: scheme, host, and the port if it is not the scheme's own.

use http::Uri;

/// Reads an origin of the configuration; the error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<String, String> {
    if text == "null" {
        return Ok(text.to_owned());
    }
    if text.contains('*') {
        return Err(format!(
            "`{text}`: origins are listed one by one, or `*` alone allows all"
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
