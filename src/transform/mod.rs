//! Makes of a request what the upstream may see, and of its response what the client may see.
//!
//! First, before any other room reads the headers: [`IdentityNames::strip`] and [`strip_hop_by_hop`]. Last, when the
//! caller is known: the [`Plan`] of the route writes forwarding facts, identity and the operator's edits, in this order,
//! so that nothing a client sent can stand where we speak.
//!
//! Not here: who the client is (`client_ip`), who the caller is (`authn`), cross-origin headers (`cors`), the choice of
//! endpoint, protocol and upgrade (`upstream`).

pub mod assertion;
pub mod deadline;

mod closing;
mod compile;
mod compress;
mod cookies;
mod forwarded;
mod headers;
mod hop_by_hop;
mod identity;
mod identity_headers;
mod names;
mod rewrite;
mod security;
mod set_cookie;
mod trailers;

pub mod grpc_web;

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use http::Uri;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::client_ip::Client;
use crate::route::Head;
use crate::types::{ConnFacts, Dialect, Principal, Rejection, Request, Response, Scheme};

pub use assertion::Signer;
pub use closing::Closing;
pub use compress::Wish;
pub use hop_by_hop::strip_hop_by_hop;
pub use identity::IdentityNames;

/// What becomes of the requests and responses of one route.
#[derive(Clone, Debug)]
pub struct Plan {
    rewrite: rewrite::Rewrite,
    identity: identity_headers::IdentityHeaders,
    assertion: Option<assertion::Assertion>,
    strips_bearer: bool,
    request: headers::Edits,
    response: headers::Edits,
    cookies: set_cookie::Cookies,
    has_security_headers: bool,
    compression: compress::Compression,
    translates_grpc_web: bool,
}

/// What a [`Plan`] says to the upstream about a request.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Over which connection.
    pub conn: &'a ConnFacts,
    /// Who calls.
    pub principal: &'a Principal,
    /// From where.
    pub client: &'a Client,
    /// What was asked for; after [`Plan::rewrite`].
    pub head: &'a Head,
    /// Our name for the exchange.
    pub request_id: &'a HeaderValue,
    /// What the caller speaks.
    pub dialect: Dialect,
    /// What is left of the time that the caller gave the call, if it said so.
    pub time_left: Option<Duration>,
    /// Tells the time, where it is needed.
    pub wall: fn() -> SystemTime,
}

impl Plan {
    /// Strips the prefix and rewrites the path; `None` if the path stays as it is.
    ///
    /// # Errors
    /// `BadTarget` when the result is no absolute path that can be made canonical.
    pub fn rewrite(&self, head: &Head) -> Result<Option<Head>, Rejection> {
        self.rewrite.apply(head)
    }

    /// Makes the head what the upstream may see. Afterwards the URI is the path and query alone and there is exactly one
    /// `Host`, the authority of the canonical head.
    ///
    /// The headers must have been through [`IdentityNames::strip`] and [`strip_hop_by_hop`] already.
    ///
    /// # Errors
    /// `TokenClaims` when the caller's identity cannot be sent unchanged, or not in a header.
    pub fn request(&self, request: &mut Request, facts: &Facts<'_>) -> Result<(), Rejection> {
        let headers = request.headers_mut();
        forwarded::rewrite(headers, facts);
        cookies::join(headers)?;
        self.identity.write(headers, facts.principal)?;
        if let Some(assertion) = &self.assertion {
            assertion.write(headers, facts.principal, (facts.wall)())?;
        }
        if self.strips_bearer {
            headers.remove(AUTHORIZATION);
        }
        if let Some(left) = facts.time_left {
            deadline::write(headers, facts.dialect, left);
        }
        self.request.apply(headers);
        *request.uri_mut() = Uri::from(facts.head.path_and_query().clone());
        Ok(())
    }

    /// Ends what was meant for us alone in the headers of an upstream's response, and strengthens its cookies. A 101 is
    /// not for this function: its `Upgrade` would go.
    pub fn response(&self, headers: &mut HeaderMap, scheme: Scheme) {
        hop_by_hop::strip_response(headers);
        self.cookies.apply(headers, scheme == Scheme::Https);
    }

    /// Whether answers may be compressed.
    #[must_use]
    pub fn compresses(&self) -> bool {
        !self.compression.types.is_empty()
    }

    /// What the client says about compression; nothing on a route that compresses nothing.
    #[must_use]
    pub fn wish(&self, request: &Request, dialect: Dialect) -> Wish {
        self.compression.wish(request, dialect)
    }

    /// Compresses the body, where route, client and answer agree on that.
    pub fn compress(&self, response: &mut Response, wish: Wish) {
        self.compression.apply(response, wish);
    }

    /// Applies the route's edits to an answer, whoever gave it: refusals carry the same security headers. Those are for
    /// browsers, which show no answer of the gRPC family as a page.
    pub fn dress(&self, headers: &mut HeaderMap, scheme: Scheme, dialect: Dialect) {
        self.response.apply(headers);
        if self.has_security_headers && !dialect.is_grpc_family() {
            security::apply(headers, scheme == Scheme::Https);
        }
    }

    /// Makes the body what the upstream may see: gRPC-Web becomes gRPC where the route says so (with the head fields
    /// that go with it), and no trailer passes that a backend could take for a header. A body has one filter, so this is
    /// the only place that sets it.
    ///
    /// # Errors
    /// See [`grpc_web::request()`].
    pub fn request_body(&self, request: &mut Request, dialect: Dialect) -> Result<(), Rejection> {
        if self.translates_grpc_web && grpc_web::speaks(dialect) {
            *request = grpc_web::request(std::mem::take(request), dialect)?;
        } else {
            trailers::admit(request, dialect);
        }
        Ok(())
    }

    /// Makes the body of a response what the client may see; the other direction of [`Plan::request_body`]. `dialect` is
    /// what [`grpc_web::answers_in`] says.
    #[must_use]
    pub fn response_body(&self, response: Response, dialect: Dialect) -> Response {
        if self.translates_grpc_web {
            grpc_web::response(response, dialect)
        } else {
            response
        }
    }
}
