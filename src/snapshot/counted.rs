//! What limits count a request by, put together from the rooms that know.

use std::borrow::Cow;

use http::HeaderMap;

use crate::authn::extract;
use crate::client_ip::Client;
use crate::limit::{Credentials, KeyInputs, Peeked, Shown};
use crate::route::Head;
use crate::types::{Rejection, Request};

/// Who asks for what, as it is known before routing.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'h> {
    /// Who is held responsible.
    pub client: &'h Client,
    /// What is asked for.
    pub head: &'h Head,
}

impl<'h> Sight<'h> {
    /// What limits count by before authentication, and before routing.
    #[must_use]
    pub fn keys(self, request: &'h Request, peeked: &'h Peeked) -> KeyInputs<'h> {
        KeyInputs {
            ip: self.client.ip,
            route: "",
            method: request.method(),
            path: self.head.path(),
            headers: request.headers(),
            credentials: &Extracted,
            peeked,
            principal: None,
        }
    }
}

/// Limits count by credentials; `authn` alone reads them.
#[derive(Debug)]
struct Extracted;

impl Credentials for Extracted {
    fn cookie<'h>(&self, headers: &'h HeaderMap, name: &str) -> Shown<'h> {
        shown(extract::cookie_named(headers, name).map(|found| found.map(Cow::Borrowed)))
    }

    fn basic_user<'h>(&self, headers: &'h HeaderMap) -> Shown<'h> {
        shown(extract::basic_user(headers).map(|found| found.map(Cow::Owned)))
    }
}

fn shown<'h>(found: Result<Option<Cow<'h, str>>, Rejection>) -> Shown<'h> {
    match found {
        Ok(Some(text)) => Shown::Text(text),
        Ok(None) => Shown::Absent,
        Err(_) => Shown::Unclear,
    }
}
