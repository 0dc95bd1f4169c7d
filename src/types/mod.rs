//! Words that cross walls: what one room hands to another. Imports nothing of the house but itself.

pub mod body;
pub mod cidr;
pub mod client_cert;
pub mod clock;
pub mod conn_facts;
pub mod dialect;
pub mod drain;
pub mod expiry;
pub mod memo;
pub mod outbox;
pub mod principal;
pub mod rejection;
pub mod task;

pub use body::{Body, BodyError};
pub use cidr::CidrSet;
pub use conn_facts::{ConnFacts, Protocol, Scheme, address_text};
pub use dialect::Dialect;
pub use principal::{AuthMethod, Principal, PrincipalFacts, claim_at};
pub use rejection::{Envelope, Reason, Rejection};

/// A request on its way through the pipeline.
pub type Request = http::Request<Body>;

/// A response on its way back; the exchange wraps it before it reaches the connection.
pub type Response = http::Response<Body>;
