//! The keys of an issuer: what a key set may hold, how it is kept fresh, and what happens when it cannot be.
//!
//! `key` and `set` judge the bytes of a key set, `plan` and `refetch` decide when it is fetched; all four are pure.
//! `store` shares the set in force among the workers, `fetch` asks the network, on the admin runtime alone, `shelf` keeps
//! the last good set on disk, and `radar` follows the keys through rotations.

pub mod fetch;
pub mod key;
pub mod plan;
pub mod radar;
pub mod refetch;
pub mod set;
pub mod shelf;
pub mod store;

#[cfg(test)]
mod tests;

pub use fetch::Remote;
pub use radar::Radar;
pub use set::{KeySet, KeySetError, Miss};
pub use shelf::Shelf;
pub use store::Store;
