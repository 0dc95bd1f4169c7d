//! The login app: Next.js over HTTP/1.1, whose forms post to the page they are on.

use crate::support::origin::{Reply, Seen};

const BASE: &str = "/ui/v2/login";

pub fn answer(seen: &Seen) -> Reply {
    let path = seen.target.split('?').next().unwrap_or_default();
    match (seen.method.as_str(), path.strip_prefix(BASE)) {
        ("GET", Some("/healthy" | "/ready")) => Reply::text("{}"),
        ("GET", Some("/")) => Reply::empty(308).header("location", BASE), // Next.js has no slash at the end
        ("GET" | "HEAD", Some(_)) => page(),
        ("POST", Some(_)) if seen.has("next-action") => server_action(seen),
        _ => Reply::text("404").status(404),
    }
}

fn page() -> Reply {
    Reply::text("<html>sign in</html>")
        .header("content-type", "text/html; charset=utf-8")
        .header("content-security-policy", "default-src 'self'")
        .header("x-frame-options", "deny")
}

/// Next.js refuses an action whose Origin is not the host that it was forwarded for.
fn server_action(seen: &Seen) -> Reply {
    let forwarded = seen.all("x-forwarded-host");
    let host = forwarded.first().map_or(&*seen.authority, |host| *host);
    let origin = seen.header("origin");
    if origin.split_once("://").map(|(_, host)| host) != Some(host) {
        return Reply::text("Invalid Server Actions request.").status(500);
    }
    Reply::text("1:{}")
        .header("content-type", "text/x-component")
        .header(
            "set-cookie",
            "sessions=%5B%5D; Path=/; HttpOnly; Secure; SameSite=Lax",
        )
}
