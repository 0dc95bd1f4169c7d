//! `upgrade` of a route, ready to use.

use super::Upgrades;
use crate::config::{KeyPath, Problems, Route, Upstream};

impl Upgrades {
    /// Compiles what `route`, which stands at `path` and leads to `upstream`, lets through; `Some(None)` for nothing,
    /// `None` where it is wrong.
    pub fn compile(
        route: &Route,
        upstream: Option<&Upstream>,
        path: &KeyPath,
        problems: &mut Problems,
    ) -> Option<Option<Self>> {
        if route.upgrade.is_empty() {
            return Some(None);
        }
        let path = path.key("upgrade");
        let mut tokens = Vec::new();
        for (position, token) in route.upgrade.iter().enumerate() {
            match judge(token) {
                Ok(()) => tokens.push(token.to_ascii_lowercase().into()),
                Err(why) => problems.push(&path.index(position), why),
            }
        }
        if route.upstream.is_none() {
            problems.push(
                &path,
                "a route without `upstream` leads nowhere to switch to",
            );
        }
        let speaks_h2 = |upstream: &Upstream| {
            let mut endpoints = upstream.endpoints.iter();
            endpoints.any(|endpoint| endpoint.scheme.is_h2())
        };
        if upstream.is_some_and(speaks_h2) {
            let why = "needs endpoints with http:// or https://: HTTP/2 has no `Upgrade`";
            problems.push(&path, why);
        }
        (tokens.len() == route.upgrade.len()).then(|| {
            Some(Self {
                tokens: tokens.into(),
                idle: route.upgrade_idle_timeout.0,
            })
        })
    }
}

/// Other versions of HTTP would carry requests past every rule of the gateway.
fn judge(token: &str) -> Result<(), String> {
    let is_token = !token.is_empty()
        && token
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte));
    if !is_token {
        return Err(format!("`{token}` is no protocol"));
    }
    let lower = token.to_ascii_lowercase();
    if ["h2", "h2c", "h3"].contains(&lower.as_str())
        || lower.starts_with("http/")
        || lower.starts_with("tls/")
    {
        return Err(format!("`{token}` is never let through"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(upgrade: &str, endpoint: &str, mistakes: usize) {
        let route = format!("auth = \"none\"\nupstream = \"api\"\nupgrade = {upgrade}");
        let route: Route = toml::from_str(&route).unwrap();
        let upstream: Upstream = toml::from_str(&format!("endpoints = [\"{endpoint}\"]")).unwrap();
        let mut problems = Problems::default();
        let _ = Upgrades::compile(&route, Some(&upstream), &KeyPath::root(), &mut problems);
        let errors = problems.into_errors();
        assert_eq!(errors.len(), mistakes, "{upgrade}: {errors:?}");
    }

    #[test]
    fn only_protocols_that_carry_no_requests_are_let_through() {
        check("[]", "h2c://a:80", 0);
        check("[\"WebSocket\", \"x/1\"]", "https://a", 0);
        check(
            "[\"h2c\", \"HTTP/2.0\", \"TLS/1.0\", \"\", \"a b\"]",
            "http://a",
            5,
        );
        check("[\"websocket\"]", "h2c://a:80", 1);
    }
}
