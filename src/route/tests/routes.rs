//! Heads in, routes and refusals out.

use std::sync::Arc;

use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::heads;
use crate::config::{KeyPath, Problems, Route};
use crate::route::{RouteMatch, Table};
use crate::types::Reason;

const LISTENERS: [&str; 3] = ["admin", "internal", "public"];

/// Compiles routes written as TOML; `auth` is none unless written.
fn compile(toml: &str) -> Result<(Route, RouteMatch), Vec<String>> {
    let auth = if toml.contains("auth") {
        ""
    } else {
        "auth = \"none\"\n"
    };
    let route: Route = toml::from_str(&format!("{auth}{toml}")).unwrap();
    let listeners: Vec<Arc<str>> = LISTENERS.map(Arc::from).to_vec();
    let mut problems = Problems::default();
    let found = RouteMatch::compile(&route, &KeyPath::root(), &listeners, &mut problems);
    let errors: Vec<_> = problems
        .into_errors()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found.is_none(), !errors.is_empty(), "{toml}");
    found.map(|found| (route, found)).ok_or(errors)
}

fn table(routes: &[&'static str]) -> Table<&'static str> {
    let rule = |toml: &&'static str| (compile(toml).unwrap().1, *toml);
    Table::new(routes.iter().map(rule).collect())
}

struct Ask {
    listener: usize,
    method: Method,
    headers: HeaderMap,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            listener: 2,
            method: Method::GET,
            headers: HeaderMap::new(),
        }
    }
}

impl Ask {
    fn method(method: &str) -> Self {
        Self {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            ..Self::default()
        }
    }

    fn header(name: &'static str, value: &'static str) -> Self {
        let mut ask = Self::default();
        ask.headers.insert(name, value.parse().unwrap());
        ask
    }

    fn of<'a, P>(&self, table: &'a Table<P>, host: &str, path: &str) -> Result<&'a P, Reason> {
        let head = heads::at(host, path).unwrap();
        table
            .find(self.listener, &head, &self.method, &self.headers)
            .map_err(|why| why.reason())
    }
}

/// Both routes take the request; the first must win, in whatever order the file has them.
fn check(winner: &'static str, loser: &'static str, path: &str, ask: &Ask) {
    for routes in [[winner, loser], [loser, winner]] {
        let found = found(&routes, ask, "a.example.com", path);
        assert_eq!(found, Ok(winner), "{routes:?}");
    }
    assert_eq!(
        found(&[loser], ask, "a.example.com", path),
        Ok(loser),
        "takes it alone"
    );
    assert_eq!(conflicts(&[winner, loser]), [], "{winner} {loser}");
}

#[test]
fn the_host_decides_first() {
    let ask = Ask::default();
    check(
        "host = 'a.example.com'",
        "host = '*.example.com'\npath = '/x'",
        "/x",
        &ask,
    );
    check("host = '*.example.com'", "path = '/x'", "/x", &ask);
    check(
        "host = ['b', 'A.Example.com.']",
        "host = '*'\npath = '/x'",
        "/x",
        &ask,
    );
}

#[test]
fn then_the_path() {
    let ask = Ask::default();
    check("path = '/a/b'", "path = '/a/b/*'", "/a/b", &ask);
    check("path = '/a/b/*'", "path = '/a/*'", "/a/b", &ask);
    check("path = '/a/*'", "path = '/*'", "/a/b", &ask);
    check("path = '/a/*'", "path = '~ ^/.*$'", "/a/b", &ask);
    check("path = '~ ^/a'", "", "/a/b", &ask);
    check("path = '~ ^/x|/a'", "path = '/*'", "/a/b", &ask);
    check("path = '~ ^/a/(b|c)$'", "path = '/a/*'", "/a/b", &ask);
    check("path = '~ ^/a/[a-z]$'", "path = '~ ^/a/.$'", "/a/b", &ask);
    check("path = '/p.S/M'", "grpc = 'p.S'", "/p.S/M", &ask);
    check("grpc = 'p.S/M'", "grpc = 'p.S'", "/p.S/M", &ask);
    check("grpc = 'p.S'", "path = '/*'", "/p.S/M", &ask);
}

#[test]
fn then_headers_methods_and_listeners() {
    let x = Ask::header("x-a", "1");
    check(
        "match_headers = { x-a = '1' }",
        "methods = ['GET']",
        "/",
        &x,
    );
    check(
        "match_headers = { X-A = '*' }",
        "listen = ['public']",
        "/",
        &x,
    );
    check("path = '/a'", "match_headers = { x-a = '1' }", "/a", &x);
    check("methods = ['GET']", "listen = ['public']", "/", &x);
    check("listen = ['public', 'admin']", "", "/", &x);
}

fn found(
    routes: &[&'static str],
    ask: &Ask,
    host: &str,
    path: &str,
) -> Result<&'static str, Reason> {
    ask.of(&table(routes), host, path).copied()
}

/// (winner, loser) of every reported conflict.
fn conflicts(routes: &[&'static str]) -> Vec<(&'static str, &'static str)> {
    let table = table(routes);
    let pairs = table.shadowed().into_iter();
    pairs.map(|(winner, loser)| (*winner, *loser)).collect()
}

#[test]
fn a_wildcard_stands_for_one_label() {
    let routes = ["host = '*.example.com'"];
    let at = |host| found(&routes, &Ask::default(), host, "/").ok();
    assert!(at("a.example.com").is_some() && at("A.EXAMPLE.COM.:99").is_some());
    for host in [
        "example.com",
        "a.b.example.com",
        "aexample.com",
        "a.example.com.evil",
        "com",
    ] {
        assert_eq!(at(host), None, "{host}");
    }
}

#[test]
fn a_prefix_ends_at_a_slash() {
    let routes = ["path = '/admin/*'"];
    for path in [
        "/admin",
        "/admin/",
        "/admin/x",
        "/%61dmin/x",
        "/x/../admin",
        "/admin?x=1",
    ] {
        assert!(found(&routes, &Ask::default(), "a", path).is_ok(), "{path}");
    }
    for path in [
        "/administrator",
        "/admin-x",
        "/admi",
        "/",
        "/x/admin/",
        "/Admin",
        "/x?/admin/",
    ] {
        assert_eq!(
            found(&routes, &Ask::default(), "a", path),
            Err(Reason::NoRoute),
            "{path}"
        );
    }
}

#[test]
fn the_next_host_is_asked_when_the_first_has_no_such_path() {
    let routes = [
        "host = 'a.b'\npath = '/x'",
        "host = '*.b'\npath = '/y'",
        "path = '/z'",
    ];
    for (path, expected) in [("/x", 0), ("/y", 1), ("/z", 2)] {
        assert_eq!(
            found(&routes, &Ask::default(), "a.b", path),
            Ok(routes[expected])
        );
    }
    assert_eq!(
        found(&routes, &Ask::default(), "a.b", "/w"),
        Err(Reason::NoRoute)
    );
}

#[test]
fn a_method_is_refused_only_when_nothing_else_is_in_the_way() {
    let routes = [
        "path = '/x'\nmethods = ['POST']",
        "path = '/x/*'\nmethods = ['PUT']",
        "path = '~ ^/r$'\nmethods = ['PUT']",
    ];
    assert_eq!(
        found(&routes, &Ask::method("POST"), "a", "/x"),
        Ok(routes[0])
    );
    assert_eq!(
        found(&routes, &Ask::method("PUT"), "a", "/x"),
        Ok(routes[1])
    );
    assert_eq!(
        found(&routes, &Ask::method("GET"), "a", "/x"),
        Err(Reason::MethodRefused)
    );
    assert_eq!(
        found(&routes, &Ask::method("GET"), "a", "/r"),
        Err(Reason::MethodRefused)
    );
    assert_eq!(
        found(&routes, &Ask::method("GET"), "a", "/y"),
        Err(Reason::NoRoute)
    );
    let elsewhere = [
        "methods = ['POST']\nlisten = ['admin']",
        "methods = ['POST']\nmatch_headers = { x-a = '1' }",
    ];
    assert_eq!(
        found(&elsewhere, &Ask::default(), "a", "/"),
        Err(Reason::NoRoute)
    );
}

#[test]
fn unknown_methods_pass_only_where_listed() {
    let routes = ["path = '/usual'", "path = '/dav'\nmethods = ['PROPFIND']"];
    assert_eq!(
        found(&routes, &Ask::method("PROPFIND"), "a", "/dav"),
        Ok(routes[1])
    );
    assert_eq!(
        found(&routes, &Ask::method("propfind"), "a", "/dav"),
        Err(Reason::MethodRefused)
    );
    assert_eq!(
        found(&routes, &Ask::method("PROPFIND"), "a", "/usual"),
        Err(Reason::MethodRefused)
    );
    assert_eq!(
        found(&routes, &Ask::method("get"), "a", "/usual"),
        Err(Reason::MethodRefused)
    );
}

#[test]
fn a_closed_route_cannot_be_walked_around_by_an_odd_method() {
    let routes = [
        "path = '/debug/*'\nauth = 'deny'",
        "methods = ['GET', 'PROPFIND']",
    ];
    assert_eq!(
        found(&routes, &Ask::method("PROPFIND"), "a", "/debug/x"),
        Ok(routes[0])
    );
    assert_eq!(
        found(&routes, &Ask::method("PROPFIND"), "a", "/other"),
        Ok(routes[1])
    );
}

#[test]
fn a_path_that_is_closed_on_a_wider_host_is_closed_on_the_hosts_that_routes_name() {
    let routes = [
        "path = '/debug/*'\nauth = 'deny'",
        "host = '*.example.com'\npath = '/metrics'\nauth = 'deny'",
        "host = ['id.example.com', '*.example.com']",
        "host = 'id.example.com'\npath = '/debug/health'",
        "host = 'ops.example.com'\npath = '/debug/*'\nmethods = ['GET']",
    ];
    let get = |host, path| found(&routes, &Ask::default(), host, path);
    for host in ["id.example.com", "other.example.com", "elsewhere"] {
        assert_eq!(get(host, "/debug/x"), Ok(routes[0]), "{host}");
    }
    assert_eq!(get("id.example.com", "/metrics"), Ok(routes[1]));
    assert_eq!(get("id.example.com", "/other"), Ok(routes[2]));
    // Whoever says more of the path, or the same of it for a narrower host, meant the exception.
    assert_eq!(get("id.example.com", "/debug/health"), Ok(routes[3]));
    assert_eq!(get("ops.example.com", "/debug/x"), Ok(routes[4]));
    assert_eq!(
        found(&routes, &Ask::method("POST"), "ops.example.com", "/debug/x"),
        Ok(routes[0])
    );
}

#[test]
fn listeners_see_their_own_routes_only() {
    let routes = [
        "listen = ['admin']\npath = '/x'",
        "listen = ['internal', 'public']\npath = '/y'",
    ];
    let at = |listener, path| {
        let ask = Ask {
            listener,
            ..Ask::default()
        };
        found(&routes, &ask, "a", path).is_ok()
    };
    assert!(at(0, "/x") && at(1, "/y") && at(2, "/y"));
    assert!(!at(1, "/x") && !at(2, "/x") && !at(0, "/y") && !at(7, "/y"));
}

#[test]
fn conflicts_are_reported_with_their_winner() {
    assert_eq!(
        conflicts(&["path = '/a'", "path = ['/b', '/a']"]),
        [("path = '/a'", "path = ['/b', '/a']")]
    );
    assert_eq!(conflicts(&["grpc = 'p.S'", "path = '/p.S/*'"]).len(), 1);
    assert_eq!(
        conflicts(&["methods = ['GET', 'POST']", "methods = ['POST', 'PUT']"]).len(),
        1,
        "either may take POST"
    );
    assert_eq!(
        conflicts(&[
            "match_headers = { x-a = '1' }",
            "match_headers = { x-b = '1' }"
        ])
        .len(),
        1
    );
    assert_eq!(
        conflicts(&["listen = ['public']", "listen = ['public', 'admin']"]).len(),
        1
    );
    assert_eq!(
        conflicts(&[
            "methods = ['GET']",
            "methods = ['GET']\nlisten = ['public']"
        ])
        .len(),
        0,
        "the second takes its listener from the first"
    );
    let all = "methods = ['GET','HEAD','POST','PUT','PATCH','DELETE','OPTIONS']";
    assert_eq!(
        conflicts(&["path = '/*'", all]),
        [(all, "path = '/*'")],
        "listed methods leave nothing over"
    );
    for distinct in [
        ["path = '/a'", "path = '/b'"],
        ["methods = ['GET']", "methods = ['POST']"],
        [
            "match_headers = { x-a = '1' }",
            "match_headers = { x-a = '2' }",
        ],
        ["listen = ['public']", "listen = ['admin']"],
        ["host = 'a'", "host = 'b'"],
        ["path = '/a'\nmethods = ['GET']", "path = '/a'"],
    ] {
        assert_eq!(conflicts(&distinct), [], "{distinct:?}");
    }
}

#[test]
fn a_conflict_fails_closed() {
    let routes = ["path = '/a'", "path = '/a'\nauth = 'deny'"];
    assert_eq!(found(&routes, &Ask::default(), "a", "/a"), Ok(routes[1]));
    assert_eq!(conflicts(&routes), [(routes[1], routes[0])]);
}

#[test]
fn routes_are_listed_in_precedence_order() {
    let table = table(&[
        "",
        "path = ['/b', '/a']\nhost = 'h'",
        "methods = ['POST']\nhost = '*.h'\nmatch_headers = { x-a = '1' }",
    ]);
    let lines: Vec<_> = table
        .iter()
        .map(|(pattern, _)| pattern.to_string())
        .collect();
    assert_eq!(lines, ["h /a *", "h /b *", "*.h /* POST x-a:1", "* /* *"]);
}

fn refuse(toml: &str, expected: &str) {
    let errors = compile(toml).map(|_| ()).unwrap_err();
    assert!(
        errors.iter().any(|error| error.contains(expected)),
        "{toml}: {errors:?}"
    );
}

#[test]
fn mistakes_are_named_with_their_key() {
    refuse(
        "path = '/a'\ngrpc = 'p.S'",
        "grpc: `grpc` stands for `path`",
    );
    refuse(
        "path = ['/a', '/b/../c']",
        "path[1]: `/b/../c` never matches: its canonical spelling is `/c`",
    );
    refuse(
        "path = '/%61'",
        "path: `/%61` never matches: its canonical spelling is `/a`",
    );
    refuse("path = '/a%2Fb'", "encoded_slash");
    refuse("path = []", "path: the list is empty");
    refuse("host = 'a:443'", "host: `a:443` has a port");
    refuse(
        "methods = ['GET', 'post']",
        "methods[1]: methods are case-sensitive: write `POST`",
    );
    refuse(
        "methods = ['CONNECT']",
        "methods[0]: CONNECT is never served",
    );
    refuse("match_headers = { cookie = '*' }", "match_headers.cookie");
    refuse(
        "match_headers = { x-a = '1', X-A = '2' }",
        "the same header is named twice",
    );
    refuse(
        "listen = ['publik']",
        "listen[0]: there is no listener named `publik` (did you mean `public`?)",
    );
    refuse("grpc = 'p.S/'", "grpc: `p.S/` is neither");
    compile("path = '/a%2Fb'\nencoded_slash = 'keep'").unwrap();
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let errors = compile("path = 'a'\nhost = ''\nlisten = ['x']\nmethods = ['get']")
        .map(|_| ())
        .unwrap_err();
    assert_eq!(errors.len(), 4, "{errors:?}");
}

#[test]
fn a_thousand_hosts_are_told_apart() {
    let rule = |number: usize| {
        let toml = format!("host = 'h{number}.example.com'\npath = ['/a/*', '/b']");
        (compile(&toml).unwrap().1, number)
    };
    let table = Table::new((0..1000).map(rule).collect());
    for number in [0, 1, 499, 999] {
        let host = format!("H{number}.Example.com");
        assert_eq!(Ask::default().of(&table, &host, "/a/x"), Ok(&number));
    }
    assert_eq!(
        Ask::default().of(&table, "h1000.example.com", "/b"),
        Err(Reason::NoRoute)
    );
    assert_eq!(table.shadowed(), []);
}

proptest! {
    #[test]
    fn escaping_a_byte_never_changes_the_route(
        path in "(/(admin|v1|[a-z.~_-]{1,4})){1,4}",
        at in any::<prop::sample::Index>(),
        upper in any::<bool>(),
    ) {
        let routes = ["path = '/admin/*'", "path = '/v1/admin/*'", "path = '/v1/*'", "path = '/v1/users'"];
        let at = 1 + at.index(path.len() - 1); // the first slash makes it a target
        let byte = path.as_bytes()[at];
        let escape = if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
        let spelt = format!("{}{escape}{}", &path[..at], &path[at + 1..]);
        let table = table(&routes);
        let plain = Ask::default().of(&table, "a", &path);
        match heads::at("a", &spelt) {
            Ok(head) if !head.has_encoded_slash() => {
                prop_assert_eq!(Ask::default().of(&table, "a", &spelt), plain);
            }
            _ => prop_assert_eq!(byte, b'/'),
        }
    }
}
