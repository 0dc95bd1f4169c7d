//! Sockets: what happens between us and an endpoint.

mod bodies;
mod compile;
mod failures;
mod hostile;
mod pooling;
mod probes;
mod support;
