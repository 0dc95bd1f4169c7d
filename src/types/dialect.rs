//! How a caller spells requests, and therefore how a refusal must be spelt for it.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use http::{Method, Request, Uri};

const CONNECT_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");

/// The protocol family of one request, read off its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Plain HTTP: REST, pages, JSON.
    Http,
    /// Native gRPC (`application/grpc`, `+proto`, `+json`).
    Grpc,
    /// gRPC-Web in binary frames (`application/grpc-web`, `+proto`).
    GrpcWeb,
    /// gRPC-Web in base64 (`application/grpc-web-text`).
    GrpcWebText,
    /// Connect, unary: plain HTTP bodies with a `connect-protocol-version` header.
    Connect,
    /// Connect, streaming, with binary messages (`application/connect+proto`).
    ConnectStream,
    /// Connect, streaming, with JSON messages (`application/connect+json`).
    ConnectStreamJson,
}

impl Dialect {
    /// Reads the dialect from the request headers. Parameters of the content type play no part.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let essence = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map_or("", |value| value.split(';').next().unwrap_or("").trim_end());
        if !essence
            .as_bytes()
            .first()
            .is_some_and(|byte| byte.eq_ignore_ascii_case(&b'a'))
        {
            return Self::of_unary_connect(headers);
        }
        if is_family(essence, "application/grpc-web-text") {
            Self::GrpcWebText
        } else if is_family(essence, "application/grpc-web") {
            Self::GrpcWeb
        } else if is_family(essence, "application/grpc") {
            Self::Grpc
        } else if essence.eq_ignore_ascii_case("application/connect+json") {
            Self::ConnectStreamJson
        } else if is_family(essence, "application/connect") {
            Self::ConnectStream
        } else if essence.eq_ignore_ascii_case("application/proto") {
            Self::Connect // the media type is Connect's own
        } else {
            Self::of_unary_connect(headers)
        }
    }

    /// Reads the dialect of a request. A unary call of Connect that changes nothing may be a GET, which has neither a
    /// content type nor a version header: it says in its query what it is.
    #[must_use]
    pub fn of_request<B>(request: &Request<B>) -> Self {
        match Self::of(request.headers()) {
            Self::Http if request.method() == Method::GET && is_connect_get(request.uri()) => {
                Self::Connect
            }
            dialect => dialect,
        }
    }

    fn of_unary_connect(headers: &HeaderMap) -> Self {
        if headers.contains_key(CONNECT_VERSION) {
            Self::Connect
        } else {
            Self::Http
        }
    }

    /// Whether the answer's verdict travels as `grpc-status`.
    #[must_use]
    pub fn is_grpc_family(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb | Self::GrpcWebText)
    }

    /// The name used in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc-web",
            Self::GrpcWebText => "grpc-web-text",
            Self::Connect => "connect",
            Self::ConnectStream | Self::ConnectStreamJson => "connect-stream",
        }
    }
}

fn is_connect_get(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.contains("connect=v1") && query.split('&').any(|pair| pair == "connect=v1")
}

/// `application/grpc` and `application/grpc+proto` are of the family `application/grpc`; `application/grpcx` is not.
fn is_family(essence: &str, family: &str) -> bool {
    let (Some(head), Some(rest)) = (essence.get(..family.len()), essence.get(family.len()..))
    else {
        return false;
    };
    head.eq_ignore_ascii_case(family) && (rest.is_empty() || rest.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content_type: &str, expected: Dialect) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        assert_eq!(Dialect::of(&headers), expected, "{content_type}");
    }

    #[test]
    fn the_content_type_tells_the_dialect() {
        check("application/grpc", Dialect::Grpc);
        check("application/grpc+proto", Dialect::Grpc);
        check("Application/GRPC+json", Dialect::Grpc);
        check("application/grpc-web+proto", Dialect::GrpcWeb);
        check("application/grpc-web-text", Dialect::GrpcWebText);
        check(
            "application/grpc-web-text+proto; charset=x",
            Dialect::GrpcWebText,
        );
        check("application/connect+proto", Dialect::ConnectStream);
        check("Application/Connect+JSON", Dialect::ConnectStreamJson);
        check("application/proto", Dialect::Connect);
        check("application/grpcx", Dialect::Http);
        check("application/json", Dialect::Http);
        check("text/html", Dialect::Http);
        check("", Dialect::Http);
    }

    #[test]
    fn a_connect_get_is_known_by_its_query() {
        let check = |method: &str, target: &str, expected| {
            let request = Request::builder().method(method).uri(target);
            let request = request.body(()).unwrap();
            assert_eq!(Dialect::of_request(&request), expected, "{method} {target}");
        };
        let target = "/s.S/M?message=e30&encoding=json&connect=v1";
        check("GET", target, Dialect::Connect);
        check("POST", target, Dialect::Http);
        check("GET", "/s.S/M?xconnect=v1", Dialect::Http);
        check("GET", "/s.S/M?connect=v10", Dialect::Http);
        check("GET", "/s.S/M", Dialect::Http);
    }

    #[test]
    fn unary_connect_is_known_by_its_version_header() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        headers.insert("connect-protocol-version", "1".parse().unwrap());
        assert_eq!(Dialect::of(&headers), Dialect::Connect);
    }
}
