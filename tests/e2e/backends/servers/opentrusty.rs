//! OpenTrusty: both planes on one HTTP/1.1 port, a key that is as old as the process, no CORS, no Cache-Control.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::origin::{self, Origin, Reply, Seen};

pub const ISSUER: &str = "https://auth.example.com";

/// An administrator, and somebody who is none.
pub const ADMIN: &str = r#"{"email":"root@example.com","password":"right"}"#;
pub const USER: &str = r#"{"email":"ada@example.com","password":"right"}"#;
pub const WRONG: &str = r#"{"email":"ada@example.com","password":"guess"}"#;

pub async fn start() -> Origin {
    let keys = one_fresh_key();
    origin::http()
        .otherwise(move |seen| answer(seen, &keys))
        .run()
        .await
}

fn answer(seen: &Seen, keys: &Value) -> Reply {
    let path = seen.target.split('?').next().unwrap_or_default();
    match (seen.method.as_str(), path) {
        ("GET", "/health") => Reply::json(&json!({ "status": "pass" })),
        ("GET", "/.well-known/openid-configuration") => Reply::json(&json!({
            "issuer": ISSUER,
            "authorization_endpoint": format!("{ISSUER}/oauth2/authorize"),
            "token_endpoint": format!("{ISSUER}/oauth2/token"),
            "jwks_uri": format!("{ISSUER}/jwks.json"),
        })),
        ("GET", "/jwks.json") => Reply::json(keys),
        ("POST", "/api/v1/auth/login") => login(seen),
        ("POST", "/api/v1/auth/register") => error(403, "registration is disabled"),
        ("GET" | "POST", "/login" | "/consent") => {
            Reply::text("<form></form>").header("content-type", "text/html")
        }
        ("GET", "/oauth2/authorize") => Reply::empty(302).header("location", "/login"),
        ("POST", "/oauth2/token") => error(401, "invalid_client"),
        ("POST", "/oauth2/revoke") => Reply::empty(200),
        (_, path) if path.starts_with("/api/v1/") => signed_in(seen),
        _ => Reply::text("404 page not found").status(404),
    }
}

/// X-CSRF-Token must be there, whatever it says; the right password of somebody who is no administrator is a 403.
fn login(seen: &Seen) -> Reply {
    if seen.has("x-tenant-id") {
        return error(400, "X-Tenant-ID is not allowed");
    }
    if !seen.has("x-csrf-token") {
        return error(403, "missing CSRF token");
    }
    let body = seen.text();
    if body == ADMIN {
        Reply::json(&json!({ "user_id": "root" })).header(
            "set-cookie",
            "opentrusty_session=s3cret; Path=/; HttpOnly; Secure; SameSite=Lax",
        )
    } else if body == USER {
        error(403, "not an administrator")
    } else {
        error(401, "invalid credentials")
    }
}

fn signed_in(seen: &Seen) -> Reply {
    if seen.header("cookie") == "opentrusty_session=s3cret" {
        Reply::json(&json!({ "tenants": [] }))
    } else {
        error(401, "unauthorized")
    }
}

fn error(status: u16, why: &str) -> Reply {
    Reply::json(&json!({ "error": why })).status(status)
}

fn one_fresh_key() -> Value {
    let mut modulus = [0; 256];
    aws_lc_rs::rand::fill(&mut modulus).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &modulus);
    let kid = URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16]);
    let n = URL_SAFE_NO_PAD.encode(modulus);
    json!({ "keys": [{ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": "AQAB" }] })
}
