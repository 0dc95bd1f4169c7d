//! Which route a request takes: the canonical head, and the table that finds the most specific route for it.
//!
//! What is matched is what is forwarded: the path is canonical before anything looks at it, and the query takes no part.
//! What a route demands and where it leads is not known here; `Table` carries it as a payload.
//!
//! # Precedence
//!
//! Order in the file plays no part. Of all routes that take a request, the first by this order wins:
//!
//! 1. host: exact, then `*.example.com` (one label), then any;
//! 2. path: exact (a gRPC method is one); then the longer text that the pattern requires at the front of a path, where a
//!    gRPC service is a prefix, a regex comes before a prefix of equal length, and of two regexes with equal fronts the
//!    longer one comes first; any path comes last;
//! 3. more header matchers;
//! 4. methods listed before not listed;
//! 5. listeners listed before not listed;
//! 6. a closed route (`auth = "deny"`), so that a conflict fails closed; then the spelling.
//!
//! The text at the front is a prefix up to its last slash and a regex up to its first special character: `/v2/*` gives
//! way to `~ ^/v2/users/[^/]+/password$`, and `~ ^/.*` to `/admin/*`.
//!
//! A pair that only the last step separates is a conflict, which [`Table::shadowed`] reports. A route whose host and
//! path fit but whose method does not is passed over; 405 is the answer only if no other route takes the request.
//! A closed route without a list of methods is closed to all of them, unknown ones included. It is also tried among the
//! routes of every narrower host that its own covers, by its path, after those that say the same of the path: what is
//! closed for all stays closed where some route names the host.

mod compile;
mod fields;
mod head;
mod host;
mod matching;
pub mod path;
mod prefix;
mod table;

pub use compile::RouteMatch;
pub use head::{Head, HeadCaps};
pub use table::{Pattern, Table};

#[cfg(test)]
mod tests;
