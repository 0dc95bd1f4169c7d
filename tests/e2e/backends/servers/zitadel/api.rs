//! The API server: REST, OpenID Connect, SAML, the console, and the probes that share the public port.

use serde_json::json;

use super::{instance, rpc};
use crate::support::origin::{Reply, Seen};

pub fn answer(seen: &Seen) -> Reply {
    let path = seen.target.split('?').next().unwrap_or_default();
    if let Some(reply) = probe(path) {
        return reply;
    }
    if let Some(reply) = rpc::answer(seen) {
        return reply;
    }
    let Some(origin) = instance::origin(seen) else {
        return Reply::text("unable to set instance: not found (QUERY-n0wng)").status(404);
    };
    with_cors(seen, public(seen, path, &origin))
}

/// Matched by bare prefix, before everything else, whatever the host.
fn probe(path: &str) -> Option<Reply> {
    match path {
        "/debug/healthz" => Some(Reply::text("ok")),
        "/debug/ready" => Some(Reply::text("\"ok\"")),
        path if path.starts_with("/debug") => Some(Reply::text("# TYPE secrets gauge\n")),
        path if path.starts_with("/system/v1") => Some(Reply::json(&json!({ "instances": [] }))),
        _ => None,
    }
}

fn public(seen: &Seen, path: &str, origin: &str) -> Reply {
    match (seen.method.as_str(), path) {
        ("GET", "/.well-known/openid-configuration") => discovery(origin),
        ("GET", "/oauth/v2/keys") => keys(),
        ("GET", "/saml/v2/metadata") => Reply::text(format!(
            r#"<EntityDescriptor entityID="{origin}/saml/v2/metadata"/>"#
        ))
        .header("content-type", "text/xml"),
        ("GET", "/ui/console/assets/environment.json") => {
            Reply::json(&json!({ "api": origin, "issuer": origin, "clientid": "271" }))
        }
        ("GET", path) if path.starts_with("/ui/console") => html("<app-root></app-root>"),
        ("GET", "/ui/login/" | "/ui/login/login") => html("<form></form>").header(
            "set-cookie",
            "__Host-zitadel.useragent=x; Path=/; HttpOnly; Secure; SameSite=Lax",
        ),
        // The page again, whether the password was right or not.
        ("POST", path) if path.starts_with("/ui/login/") => html("<form></form>"),
        ("POST", path) if path.starts_with("/idps/") => html("back from the provider"),
        ("GET", "/admin/v1/healthz" | "/management/v1/healthz" | "/auth/v1/healthz") => {
            Reply::json(&json!({}))
        }
        ("POST", "/oauth/v2/introspect") => Reply::json(&json!({ "active": false })),
        ("POST", "/oauth/v2/token") => {
            Reply::json(&json!({ "error": "invalid_client" })).status(401)
        }
        (_, path) if is_rest(path) => Reply::json(&json!({
            "code": 16,
            "message": "auth header missing",
            "details": [],
        }))
        .status(401),
        // Also what gRPC finds that came over HTTP/1.1.
        _ => Reply::json(&json!({ "code": 5, "message": "Not Found", "details": [] })).status(404),
    }
}

fn discovery(origin: &str) -> Reply {
    Reply::json(&json!({
        "issuer": origin,
        "authorization_endpoint": format!("{origin}/oauth/v2/authorize"),
        "token_endpoint": format!("{origin}/oauth/v2/token"),
        "jwks_uri": format!("{origin}/oauth/v2/keys"),
        "end_session_endpoint": format!("{origin}/oidc/v1/end_session"),
    }))
}

fn keys() -> Reply {
    Reply::json(&json!({
        "keys": [{ "use": "sig", "kty": "RSA", "kid": "271", "alg": "RS256", "n": "AQAB", "e": "AQAB" }],
    }))
    .header("cache-control", "max-age=300, must-revalidate")
}

fn is_rest(path: &str) -> bool {
    [
        "/v2/",
        "/v2beta/",
        "/admin/v1/",
        "/management/v1/",
        "/auth/v1/",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix))
}

/// ZITADEL answers CORS itself, for every origin.
fn with_cors(seen: &Seen, reply: Reply) -> Reply {
    match seen.header("origin") {
        "" => reply,
        origin => reply
            .header("access-control-allow-origin", origin)
            .header("access-control-allow-credentials", "true")
            .header("vary", "Origin"),
    }
}

fn html(body: &'static str) -> Reply {
    Reply::text(body).header("content-type", "text/html; charset=utf-8")
}
