//! What is known of a client's certificate once the handshake has verified it.

use std::net::IpAddr;

/// A certificate that a listener's authority vouches for. Nothing of an unverified one may become this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCert {
    /// The names that it was issued for.
    pub names: Box<[San]>,
    /// The SHA-256 of its DER form.
    pub fingerprint: [u8; 32],
}

/// A subject alternative name. The kinds never equal each other, whatever their letters: a certificate for the e-mail
/// address of one is not one for the host of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum San {
    /// A host, in lower case.
    Dns(Box<str>),
    /// A URI, such as a SPIFFE id; compared letter by letter.
    Uri(Box<str>),
    /// An e-mail address; compared letter by letter.
    Email(Box<str>),
    /// An address.
    Ip(IpAddr),
}

impl San {
    /// The name that an operator writes so: `edge.internal`, `spiffe://prod/edge`, `ops@example.com`, `10.0.0.7`.
    #[must_use]
    pub fn written(text: &str) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Ip(address.to_canonical()));
        }
        if text.contains("://") || text.starts_with("urn:") {
            return Some(Self::Uri(text.into()));
        }
        if text.contains('@') {
            return Some(Self::Email(text.into()));
        }
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let is_name = text.bytes().all(is_host);
        is_name.then(|| Self::Dns(text.to_ascii_lowercase().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_writes_is_of_one_kind() {
        let check = |text: &str, expected: Option<San>| {
            assert_eq!(San::written(text), expected, "{text}");
        };
        check("Edge.Internal", Some(San::Dns("edge.internal".into())));
        check(
            "spiffe://prod/Edge",
            Some(San::Uri("spiffe://prod/Edge".into())),
        );
        check("urn:uuid:1", Some(San::Uri("urn:uuid:1".into())));
        check(
            "ops@example.com",
            Some(San::Email("ops@example.com".into())),
        );
        check("10.0.0.7", Some(San::Ip("10.0.0.7".parse().unwrap())));
        check(
            "::ffff:10.0.0.7",
            Some(San::Ip("10.0.0.7".parse().unwrap())),
        );
        check("::1", Some(San::Ip("::1".parse().unwrap())));
        for odd in ["", "*.example.com", "a b", "a\u{e4}", "a\0", "CN=edge"] {
            check(odd, None);
        }
    }
}
