//! What replicas share, on real stores: one server, a cluster, sentinels; and what holds while the store fails.

mod limits;
mod logouts;
mod topologies;
