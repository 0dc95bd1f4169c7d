//! An application that has no login of its own: it believes what the edge says of the caller.

use serde_json::json;

use crate::support::origin::{Reply, Seen};

pub fn answer(seen: &Seen) -> Reply {
    Reply::json(&json!({
        "path": seen.target,
        "user": seen.header("x-auth-user"),
        "org": seen.header("x-auth-org"),
        "roles": seen.header("x-auth-roles"),
        "email": seen.header("x-auth-email"),
    }))
}
