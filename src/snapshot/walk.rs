//! Walks a described request through the pure stages, as `vestibule check` does for the `[[test]]` cases.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request, Version};

use super::{Listener, Policy, Snapshot};
use crate::authn::Issuer;
use crate::config::Test;
use crate::route::Head;
use crate::types::{ConnFacts, Protocol, Rejection, Scheme, address_text};

/// A request that nobody sent.
#[derive(Debug)]
pub struct Walk {
    pub(super) request: Request<()>,
    scheme: Scheme,
    client: IpAddr,
}

/// Where a request arrives.
#[derive(Debug)]
pub(super) struct Place<'s> {
    pub(super) listener: &'s Listener,
    pub(super) conn: ConnFacts,
}

impl Walk {
    /// Reads a test case.
    ///
    /// # Errors
    /// What is wrong with the case, in words.
    pub fn of(case: &Test) -> Result<Self, String> {
        let mut request = Request::builder()
            .version(Version::HTTP_2)
            .method(case.method.as_str())
            .uri(&case.url);
        for (name, value) in &case.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(())
            .map_err(|error| format!("bad case: {error}"))?;
        let scheme = match request.uri().scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err("bad case: the url needs http:// or https://".to_owned()),
        };
        let client = case.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Ok(Self {
            request,
            scheme,
            client,
        })
    }

    /// The name of the route that serves the request, or the reason code of the refusal, on the first listener of the
    /// request's scheme.
    #[must_use]
    pub fn through(&self, snapshot: &Snapshot) -> String {
        self.route(snapshot)
            .unwrap_or_else(|why| why.reason().code().to_owned())
    }

    /// Adds a header.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn send(&mut self, name: &str, value: &str) -> Result<(), String> {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("`{name}` is no header name"))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("the value of `{name}` cannot be sent"))?;
        self.request.headers_mut().append(name, value);
        Ok(())
    }

    /// The issuers that a token of the request may come from, if it finds a route.
    #[must_use]
    pub fn issuers(&self, snapshot: &Snapshot) -> Vec<Arc<Issuer>> {
        let found = self.find(snapshot);
        let policy = found.ok().map(|(policy, _)| policy);
        policy.map_or_else(Vec::new, |policy| {
            policy.authn.all_issuers().cloned().collect()
        })
    }

    /// Where the request arrives: on the first listener of its scheme.
    pub(super) fn place<'s>(&self, snapshot: &'s Snapshot) -> Result<Place<'s>, Rejection> {
        let wants_tls = self.scheme == Scheme::Https;
        let position = snapshot
            .listeners
            .iter()
            .position(|listener| listener.tls.is_some() == wants_tls);
        let position = position.unwrap_or(0);
        let listener = snapshot.listener(position)?;
        let peer = SocketAddr::new(self.client, 0);
        let conn = ConnFacts {
            listener: position,
            listener_name: Arc::clone(&listener.name),
            peer,
            peer_text: address_text(self.client),
            local: peer,
            scheme: self.scheme,
            protocol: Protocol::Http2,
            server_name: None,
            client_cert: None,
        };
        Ok(Place { listener, conn })
    }

    fn find<'s>(&self, snapshot: &'s Snapshot) -> Result<(&'s Arc<Policy>, Head), Rejection> {
        let place = self.place(snapshot)?;
        let head = Head::of(&self.request, &place.conn, &place.listener.caps)?;
        let (method, headers) = (self.request.method(), self.request.headers());
        let position = place.conn.listener;
        let policy = snapshot.policy_for(position, &head, method, headers)?;
        Ok((policy, head))
    }

    fn route(&self, snapshot: &Snapshot) -> Result<String, Rejection> {
        let (policy, head) = self.find(snapshot)?;
        policy.check_head(&head)?;
        Ok(policy.name.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use crate::telemetry::Metrics;

    const CONFIG: &str = r#"
        [listen.plain]
        bind = "127.0.0.1:0"
        [upstream.api]
        endpoints = ["http://127.0.0.1:1"]
        [[route]]
        name = "admin"
        host = "auth.example.com"
        path = "/admin/*"
        auth = "deny"
        [[route]]
        name = "rest"
        host = "auth.example.com"
        auth = "none"
        upstream = "api"
    "#;

    fn check(method: &str, url: &str, expected: &str) {
        let config = Arc::new(load::from_str("test", CONFIG).unwrap().config);
        let snapshot = Snapshot::compile(&config, None, &Metrics::new()).unwrap();
        let case = format!("method = \"{method}\"\nurl = \"{url}\"\nexpect = \"\"");
        let walk = Walk::of(&toml::from_str(&case).unwrap()).unwrap();
        assert_eq!(walk.through(&snapshot), expected, "{method} {url}");
    }

    #[test]
    fn a_case_names_the_route_or_the_reason() {
        check("GET", "http://auth.example.com/", "rest");
        check("GET", "http://AUTH.example.com:8080/x?y", "rest");
        check(
            "GET",
            "http://auth.example.com/docs/%2E%2e/admin",
            "route_closed",
        );
        check("GET", "http://auth.example.com/a%2fb", "bad_target");
        check("GET", "http://other.example.com/", "no_route");
        check("TRACE", "http://auth.example.com/", "method_refused");
    }
}
