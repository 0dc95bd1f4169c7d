//! Another protocol on a client's connection: who may ask for one, what is said to the endpoint and to the client, and the
//! [`Tunnel`] that comes of it.
//!
//! Until both sides have agreed not a byte of the client is passed on, because none is read: what came early waits in the
//! connection, up to its bound. The endpoint is asked over a connection of its own, which is never lent again, whatever it
//! answers. A WebSocket over HTTP/2 (RFC 8441) is asked for as one over HTTP/1.1 (RFC 6455).

mod compile;
mod frames;
mod handshake;
mod tunnel;

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use crate::types::body::InFlight;
use crate::types::{Body, Reason, Rejection};

use handshake::Handshake;
pub use tunnel::{Direction, Ended, GOING_AWAY, Leave, Tunnel};

/// The protocols that a route lets through.
#[derive(Clone, Debug)]
pub struct Upgrades {
    /// In lower case.
    tokens: Box<[Box<str>]>,
    idle: Duration,
}

/// A client's request for another protocol.
#[derive(Debug)]
pub struct Asked {
    /// The protocol, in lower case.
    token: Box<str>,
    /// Whether it came as an extended CONNECT.
    extended: bool,
    client: OnUpgrade,
}

/// A request for another protocol that the route lets through.
#[derive(Debug)]
pub struct Admitted {
    asked: Asked,
    handshake: Option<Handshake>,
    idle: Duration,
}

/// An endpoint that has switched.
#[derive(Debug)]
pub(super) struct Switched {
    pub(super) upstream: OnUpgrade,
    /// Counts the tunnel as under way at the endpoint.
    pub(super) _permit: Option<InFlight>,
}

impl Asked {
    /// What `request` asks for, to be called before its head is read: an extended CONNECT becomes the GET that it stands
    /// for, so that routes and rules see one kind of WebSocket. Several protocols at once, and those that `Connection`
    /// does not name, are no request for any.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness.
    pub fn take(request: &mut Request<Body>) -> Result<Option<Self>, Rejection> {
        if *request.method() == Method::CONNECT {
            return Self::take_extended(request);
        }
        if request.version() != Version::HTTP_11 || !names_upgrade(request.headers()) {
            return Ok(None);
        }
        let token = sole(request.headers()).map(str::to_ascii_lowercase);
        Ok(token.map(|token| Self {
            token: token.into(),
            extended: false,
            client: hyper::upgrade::on(request),
        }))
    }

    fn take_extended(request: &mut Request<Body>) -> Result<Option<Self>, Rejection> {
        let protocol = request.extensions().get::<Protocol>();
        if protocol.is_none_or(|protocol| protocol.as_str() != WEBSOCKET) {
            return Ok(None);
        }
        handshake::ask(request.headers_mut())?;
        *request.method_mut() = Method::GET;
        Ok(Some(Self {
            token: WEBSOCKET.into(),
            extended: true,
            client: hyper::upgrade::on(request),
        }))
    }
}

impl Upgrades {
    /// Whether what was asked for is let through.
    #[must_use]
    pub fn list(&self, asked: &Asked) -> bool {
        self.tokens.contains(&asked.token)
    }

    /// Lets what was asked for through, if it is listed. What is not is an ordinary request, but for an extended CONNECT:
    /// that has no other meaning.
    ///
    /// # Errors
    /// `MethodRefused`, or `BadUpgrade` for one that is listed and malformed.
    pub fn admit(
        listed: Option<&Self>,
        asked: Option<Asked>,
        request: &Request<Body>,
    ) -> Result<Option<Admitted>, Rejection> {
        let Some(asked) = asked else { return Ok(None) };
        match listed.filter(|listed| listed.list(&asked)) {
            Some(listed) => asked.admitted(listed.idle, request).map(Some),
            None if asked.extended => Err(Rejection::because(Reason::MethodRefused, "CONNECT")),
            None => Ok(None),
        }
    }
}

impl Asked {
    /// What HTTP/1.1 says of a switch, in both directions.
    fn write(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, const { HeaderValue::from_static("upgrade") });
        // The token came in a header, in ASCII.
        if let Ok(token) = HeaderValue::from_str(&self.token) {
            headers.insert(UPGRADE, token);
        }
    }

    fn admitted(self, idle: Duration, request: &Request<Body>) -> Result<Admitted, Rejection> {
        if !request.body().is_empty() {
            return Err(bad("a request for another protocol with a body"));
        }
        let is_websocket = &*self.token == WEBSOCKET;
        let handshake = is_websocket
            .then(|| Handshake::of(request.method(), request.headers()))
            .transpose()
            .map_err(bad)?;
        Ok(Admitted {
            asked: self,
            handshake,
            idle,
        })
    }
}

impl Admitted {
    /// Asks the endpoint.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        self.asked.write(headers);
    }

    /// Judges a 101.
    pub(super) fn judge<B>(&self, response: &Response<B>) -> Result<(), &'static str> {
        let headers = response.headers();
        let agreed =
            sole(headers).is_some_and(|token| token.eq_ignore_ascii_case(&self.asked.token));
        if !agreed || !names_upgrade(headers) {
            return Err("it switched to another protocol than was asked for");
        }
        if headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING) {
            return Err("it switched protocols and announced a body");
        }
        match &self.handshake {
            Some(handshake) => handshake.judge(headers),
            None => Ok(()),
        }
    }

    /// Judges an answer that declines: an extended CONNECT has no success but the switch.
    pub(super) fn decline(&self, status: StatusCode) -> Result<(), Rejection> {
        if self.asked.extended && status.is_success() {
            let detail = format!("status {} in place of 101", status.as_u16());
            return Err(Rejection::because(Reason::UpgradeRefused, detail));
        }
        Ok(())
    }

    pub(super) fn tunnel(self, switched: Switched) -> Tunnel {
        Tunnel {
            is_websocket: self.handshake.is_some(),
            idle: self.idle,
            asked: self.asked,
            switched,
        }
    }
}

impl Tunnel {
    /// Tells the client, in the words of its own protocol, that the switch is done.
    pub fn agree(&self, response: &mut http::Response<Body>) {
        if self.asked.extended {
            *response.status_mut() = StatusCode::OK;
            handshake::forget(response.headers_mut());
        } else {
            self.asked.write(response.headers_mut());
        }
    }
}

/// The one protocol that `Upgrade` names.
fn sole(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(UPGRADE).iter();
    let sole = fields.next().filter(|_| fields.next().is_none())?;
    let token = sole.to_str().ok()?.trim_matches([' ', '\t']);
    let is_one = !token.is_empty() && !token.contains([',', ' ', '\t']);
    is_one.then_some(token)
}

/// Whether `Connection` says that `Upgrade` is meant.
fn names_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

fn bad(detail: &'static str) -> Rejection {
    Rejection::because(Reason::BadUpgrade, detail)
}

/// The protocol that is known here; of all others only bytes pass.
const WEBSOCKET: &str = "websocket";

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(lines: &[(&'static str, &str)]) -> Option<Asked> {
        let mut request = Request::new(Body::empty());
        for (name, value) in lines {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        Asked::take(&mut request).unwrap()
    }

    #[test]
    fn one_protocol_that_connection_names_is_asked_for() {
        let found = asked(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
        ]);
        assert_eq!(&*found.unwrap().token, "websocket");
        for lines in [
            &[("upgrade", "websocket")][..],
            &[("connection", "upgrade")],
            &[("connection", "close"), ("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("upgrade", "h2c"),
            ],
            &[("connection", "upgrade"), ("upgrade", "")],
        ] {
            assert!(asked(lines).is_none(), "{lines:?}");
        }
    }

    #[test]
    fn a_switch_must_be_to_what_was_asked_for_and_nothing_else() {
        let request = Request::new(Body::empty());
        let mine = asked(&[("connection", "upgrade"), ("upgrade", "echo")]).unwrap();
        let mine = mine.admitted(Duration::ZERO, &request).unwrap();
        let judge = |lines: &[(&'static str, &'static str)]| {
            let mut response = Response::new(());
            for (name, value) in lines {
                let value = HeaderValue::from_static(value);
                response.headers_mut().append(*name, value);
            }
            mine.judge(&response).is_ok()
        };
        let good = [("connection", "Upgrade"), ("upgrade", "Echo")];
        assert!(judge(&good));
        assert!(!judge(&good[..1]) && !judge(&good[1..]));
        assert!(!judge(&[("connection", "upgrade"), ("upgrade", "other")]));
        for framing in [("content-length", "0"), ("transfer-encoding", "chunked")] {
            assert!(!judge(&[good[0], good[1], framing]), "{framing:?}");
        }
    }
}
