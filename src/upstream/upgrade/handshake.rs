//! The opening handshake of a WebSocket (RFC 6455 section 4): the client's key, and the proof that the endpoint has read it.

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::types::{Reason, Rejection};

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Handshake {
    /// What the endpoint must say.
    accept: String,
}

impl Handshake {
    /// The handshake that the request begins.
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Result<Self, &'static str> {
        if *method != Method::GET {
            return Err("a WebSocket is asked for with GET");
        }
        if the_one(headers, &SEC_WEBSOCKET_VERSION).is_none() {
            return Err("a WebSocket without one Sec-WebSocket-Version");
        }
        let key = the_one(headers, &SEC_WEBSOCKET_KEY);
        let key = key.filter(|key| {
            STANDARD
                .decode(key.as_bytes())
                .is_ok_and(|key| key.len() == 16)
        });
        let key = key.ok_or("Sec-WebSocket-Key is not 16 bytes in base64")?;
        Ok(Self {
            accept: accept(key.as_bytes()),
        })
    }

    /// Whether the endpoint has read the key.
    pub(super) fn judge(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let said = the_one(headers, &SEC_WEBSOCKET_ACCEPT);
        if said.is_some_and(|said| said.as_bytes() == self.accept.as_bytes()) {
            Ok(())
        } else {
            Err("it switched to WebSocket without reading the key")
        }
    }
}

/// Begins a handshake for a client that began none: over HTTP/2 there is no key.
pub(super) fn ask(headers: &mut HeaderMap) -> Result<(), Rejection> {
    let mut key = [0; 16];
    rand::fill(&mut key).map_err(|_| Rejection::because(Reason::Internal, "no randomness"))?;
    let key = HeaderValue::try_from(STANDARD.encode(key));
    let key = key.map_err(|_| Rejection::because(Reason::Internal, "base64 is no field value"))?;
    headers.insert(SEC_WEBSOCKET_KEY, key);
    Ok(())
}

/// Takes out of an answer what only the endpoint and we have to do with.
pub(super) fn forget(headers: &mut HeaderMap) {
    headers.remove(SEC_WEBSOCKET_ACCEPT);
}

/// SHA-1 is what the protocol prescribes; nothing but attention is proven by it.
fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    STANDARD.encode(context.finish())
}

fn the_one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut fields = headers.get_all(name).into_iter();
    fields.next().filter(|_| fields.next().is_none())
}

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|&(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");

    #[test]
    fn the_example_of_the_standard_holds() {
        let handshake = Handshake::of(&Method::GET, &headers(&[KEY, VERSION])).unwrap();
        let said = |value| headers(&[("sec-websocket-accept", value)]);
        assert!(
            handshake
                .judge(&said("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
                .is_ok()
        );
        assert!(
            handshake
                .judge(&said("s3pPLMBiTxaQ9kYGzzhZRbK+xOO="))
                .is_err()
        );
        assert!(handshake.judge(&headers(&[])).is_err());
    }

    #[test]
    fn a_handshake_that_is_none_is_refused() {
        for lines in [
            &[KEY][..],
            &[VERSION],
            &[("sec-websocket-key", "c2hvcnQ="), VERSION],
            &[("sec-websocket-key", "not base64 at all!"), VERSION],
        ] {
            assert!(
                Handshake::of(&Method::GET, &headers(lines)).is_err(),
                "{lines:?}"
            );
        }
        let mut twice = headers(&[KEY, VERSION]);
        twice.append(SEC_WEBSOCKET_KEY, HeaderValue::from_static(KEY.1));
        assert!(Handshake::of(&Method::GET, &twice).is_err());
        assert!(Handshake::of(&Method::POST, &headers(&[KEY, VERSION])).is_err());
    }

    #[test]
    fn a_key_of_our_own_begins_a_handshake() {
        let mut asked = headers(&[("sec-websocket-key", "forged"), VERSION]);
        ask(&mut asked).unwrap();
        assert!(Handshake::of(&Method::GET, &asked).is_ok());
    }
}
