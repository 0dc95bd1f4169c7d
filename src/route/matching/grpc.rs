//! gRPC: `pkg.Service` and `pkg.Service/Method` are paths by another name, for gRPC, gRPC-Web and Connect alike.

use super::path::PathPattern;

/// Reads a service or a method; the error says what is wrong with it.
pub(in crate::route) fn parse(text: &str) -> Result<PathPattern, String> {
    let (service, method) = match text.split_once('/') {
        Some((service, method)) => (service, Some(method)),
        None => (text, None),
    };
    if !service.split('.').all(is_identifier) || !method.is_none_or(is_identifier) {
        return Err(format!(
            "`{text}` is neither a gRPC service (`pkg.Service`) nor a method (`pkg.Service/Method`)"
        ));
    }
    match method {
        Some(_) => PathPattern::parse(&format!("/{text}")),
        None => PathPattern::prefix(&format!("/{service}")),
    }
}

/// An identifier of the protobuf language.
fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_prefixes_and_methods_are_exact() {
        let text = |grpc| parse(grpc).unwrap().to_string();
        assert_eq!(
            text("billing.v1.BillingService"),
            "/billing.v1.BillingService/*"
        );
        assert_eq!(
            text("billing.v1.BillingService/List"),
            "/billing.v1.BillingService/List"
        );
        assert_eq!(text("Greeter"), "/Greeter/*");
    }

    #[test]
    fn what_is_no_service_is_refused() {
        for text in [
            "", "/a.B/C", "a..B", "a.B/", "a.B/C/D", "a.B/*", "a.1B", "a-b.C", ".a", "a.",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
