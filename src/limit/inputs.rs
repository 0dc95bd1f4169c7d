//! What a key can be made of.

use std::borrow::Cow;
use std::fmt::Debug;

use http::{HeaderMap, Method};

use super::peek::Peeked;
use crate::client_ip::ClientIp;
use crate::types::Principal;

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct KeyInputs<'a> {
    /// The client.
    pub ip: ClientIp,
    /// The route's name; empty before routing.
    pub route: &'a str,
    /// The request's method.
    pub method: &'a Method,
    /// The canonical path.
    pub path: &'a str,
    /// The request's header fields.
    pub headers: &'a HeaderMap,
    /// Who reads credentials out of them; it is not this room.
    pub credentials: &'static dyn Credentials,
    /// What was read of the body.
    pub peeked: &'a Peeked,
    /// The caller; `None` before authentication.
    pub principal: Option<&'a Principal>,
}

impl KeyInputs<'_> {
    /// The same, as it was seen before routing.
    #[must_use]
    pub fn before_routing(self) -> Self {
        Self {
            route: "",
            principal: None,
            ..self
        }
    }
}

/// Reads what a client shows about itself, without believing it.
pub trait Credentials: Debug + Sync {
    /// The value of a cookie.
    fn cookie<'h>(&self, headers: &'h HeaderMap, name: &str) -> Shown<'h>;
    /// The user of HTTP Basic, form-decoded as OAuth asks.
    fn basic_user<'h>(&self, headers: &'h HeaderMap) -> Shown<'h>;
}

/// What a client shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown<'h> {
    /// Nothing.
    Absent,
    /// This.
    Text(Cow<'h, str>),
    /// What readers could read differently.
    Unclear,
}

/// Who shows nothing.
#[derive(Debug)]
struct Nobody;

impl Credentials for Nobody {
    fn cookie<'h>(&self, _: &'h HeaderMap, _: &str) -> Shown<'h> {
        Shown::Absent
    }

    fn basic_user<'h>(&self, _: &'h HeaderMap) -> Shown<'h> {
        Shown::Absent
    }
}

impl<'a> KeyInputs<'a> {
    /// A GET of `/` from there, without more.
    #[must_use]
    pub fn of(ip: ClientIp, headers: &'a HeaderMap, peeked: &'a Peeked) -> Self {
        Self {
            ip,
            route: "",
            method: &Method::GET,
            path: "/",
            headers,
            credentials: &Nobody,
            peeked,
            principal: None,
        }
    }
}
