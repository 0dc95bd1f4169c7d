//! End to end: config, origin, gateway, client; what the client saw, and what the origin saw.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_futures,
    clippy::needless_pass_by_value,
    clippy::wildcard_imports,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a test fails where it breaks, and nobody but a test uses it"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside world: they spawn and look at the clock themselves"
)]
#![allow(
    dead_code,
    reason = "builders are whole, whichever of their words today's topics use"
)]

mod support;

// Builders among themselves: an origin and a client without a gateway.
mod builders;

// One honest request, whole: heads, bodies, trailers, streaming, in flight.
mod life;
// Identity, hop-by-hop and forwarding headers; trusted proxies; edits.
mod headers;
// Canonical paths, hosts and methods; caps of heads.
mod head;
// Which route a request finds, and refusals in every dialect.
mod routing;
// Bearer tokens: algorithms, forgeries, issuers that fail.
mod jwt;
// Limits that count failures, bans, and how many at once.
mod guesses;
// Attacks on logins, with bystanders.
mod drills;
// Bursts, keys, addresses, and every way around a limit that does not work.
mod limits;
// Accounts, networks and clients as keys: what is read of a body, and that it passes on untouched.
mod limit_keys;
// Refusals that are held back.
mod tarpit;
// Logins that live in a cookie.
mod session;
// Key sets over time: conditions, restarts, rotations, outages beside each other; tokens in other places.
mod keys;
// Opaque tokens, and whom the gateway asks about them.
mod introspection;
// Credentials that end before their time.
mod logout;
// Roles, scopes, claims, networks.
mod authz;
// Rules in CEL, levels of authentication, several credentials at once.
mod rules;
// Pages of other sites and the session cookie.
mod csrf;
// The gateway's signed word on who calls.
mod assertion;
// Why was this refused?
mod explain;
// Security headers and cookies.
mod browsers;
// Compression of answers.
mod compress;
// Cross-origin rules.
mod cors;
// The three identity backends: the shipped examples in front of servers of their shape.
mod backends;
// Programs that others wrote, installed by tests/peers/install.
mod peers;
// What replicas share, on real stores: limits, logouts, and stores that fail.
mod store;
// Native gRPC: unary, streaming, trailers-only, cancellation, refusals.
mod grpc;
// How long callers are willing to wait.
mod deadline;
// gRPC, byte for byte: metadata, large messages, flow control, cancellation, routing.
mod grpc_streams;
// Connect, passed on and refused.
mod connect;
// gRPC-Web, translated and passed on.
mod grpc_web;
// The corpora of the fuzz targets.
mod corpora;
// Bytes that two readers could take apart in two ways, from clients and from origins.
mod smuggling;
// The same for byte strings that nobody thought of.
mod mutations;
// Heads and frames that nobody honest sends, from clients and from backends.
mod oddities;
// The door: refusals before a request exists, memory and descriptors that run out.
mod hardening;
// WebSockets and other protocols that a connection switches to.
mod upgrade;
// Answers that last: events, downloads, and credentials that end meanwhile.
mod streams;
// Request bodies that last: credentials and patience that end meanwhile.
mod uploads;
// Who is told to go on with a body, and who is not.
mod expect;
// Abuse of HTTP/2 against the real binary: memory, and a witness.
mod h2_abuse;
// Configurations that take over, or do not, while requests pass.
mod reload;
// The graceful stop of the real binary, and its signals.
mod drain;
// Paths on their way to the backend.
mod rewrite;
// Answers that the gateway gives itself.
mod redirect;
// Request bodies that are taken in before they are sent.
mod buffer;
// Bounds on time and size, of clients and of backends.
mod timeouts;
// Versions of HTTP.
mod protocols;
// Certificates by name, ALPN, versions.
mod tls;
// Metrics, reasons, access log.
mod telemetry;
// Probes, status, reload, and who may not ask.
mod admin;
// The commands of the binary and their exit codes.
mod cli;
// Every reason code has a test.
mod refusals;
