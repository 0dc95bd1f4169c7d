//! What replicas share, on real stores: one server, a cluster, sentinels; and what holds while the store fails.

mod answers;
mod limits;
mod logouts;
mod topologies;

/// Expands to a module with a test for each kind of server.
macro_rules! on_each {
    ($(#[doc = $doc:literal])* async fn $name:ident($kind:ident) $body:block) => {
        mod $name {
            use super::*;
            use crate::support::redis::Kind;

            $(#[doc = $doc])*
            async fn feature($kind: Kind) $body

            #[tokio::test]
            async fn redis() {
                feature(Kind::Redis).await;
            }

            #[tokio::test]
            async fn valkey() {
                feature(Kind::Valkey).await;
            }
        }
    };
}
use on_each;
