//! ZITADEL: the API server, which speaks everything on one port, and the login app, which is another server.

mod api;
mod instance;
mod login;
mod rpc;

pub use api::answer as api;
pub use instance::HOST;
pub use login::answer as login;
