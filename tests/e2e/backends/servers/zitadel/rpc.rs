//! gRPC, gRPC-Web and Connect, as ZITADEL's server tells them apart: by content type, version of HTTP, and version of
//! the service.

use http::Version;
use serde_json::json;

use crate::support::origin::{Reply, Seen};

const ADMIN_HEALTHZ: &str = "/zitadel.admin.v1.AdminService/Healthz";

/// `None`: none of the three; the REST gateway has its turn.
pub fn answer(seen: &Seen) -> Option<Reply> {
    let content_type = seen.header("content-type");
    let is_grpc = matches!(
        content_type,
        "application/grpc" | "application/grpc+proto" | "application/grpc+json"
    );
    if seen.method != "POST" {
        None
    } else if is_grpc && seen.version == Version::HTTP_2 {
        Some(grpc(seen, content_type))
    } else if content_type.starts_with("application/grpc-web") && seen.target.contains(".v1.") {
        Some(web(seen, content_type))
    } else if seen.target.contains("Service/") && seen.target.contains(".v2") {
        connect(content_type)
    } else {
        None
    }
}

/// The Go server has no JSON codec, and looks at tokens before it looks at bodies.
fn grpc(seen: &Seen, content_type: &str) -> Reply {
    let knows_codec = content_type != "application/grpc+json";
    match seen.target.as_str() {
        ADMIN_HEALTHZ if knows_codec => Reply::chunks([EMPTY_MESSAGE])
            .header("content-type", "application/grpc")
            .trailer("grpc-status", "0")
            .trailer("grpc-message", ""),
        ADMIN_HEALTHZ => status("13"),
        path if path.starts_with("/zitadel.") => status("16"),
        path if path.starts_with("/grpc.reflection.") => Reply::chunks([EMPTY_MESSAGE])
            .header("content-type", "application/grpc")
            .trailer("grpc-status", "0"),
        _ => status("12"),
    }
}

/// An answer without messages: the verdict stands in the head.
fn status(code: &str) -> Reply {
    Reply::empty(200)
        .header("content-type", "application/grpc")
        .header("grpc-status", code)
        .header("grpc-message", "no")
}

fn web(seen: &Seen, content_type: &str) -> Reply {
    let body = match (content_type, seen.target.as_str()) {
        ("application/grpc-web+json", _) => Vec::new(), // what comes back has no well-formed trailers
        (_, ADMIN_HEALTHZ) => [EMPTY_MESSAGE, b"\x80\0\0\0\x10grpc-status: 0\r\n"].concat(),
        _ => b"\x80\0\0\0\x11grpc-status: 16\r\n".to_vec(),
    };
    Reply::text(body)
        .header("content-type", content_type)
        .header("access-control-allow-origin", "*")
}

fn connect(content_type: &str) -> Option<Reply> {
    let unary = matches!(content_type, "application/json" | "application/proto");
    unary.then(|| {
        Reply::json(&json!({ "code": "unauthenticated", "message": "auth header missing" }))
            .status(401)
    })
}

const EMPTY_MESSAGE: &[u8] = &[0; 5];
