//! Servers shaped like the backends: their paths, their protocols, their failure answers. Each is a function from a
//! request to a reply; `support::origin` serves it and keeps what arrived. IdentSphere's shape is the demo backend's.

pub mod app;
pub mod opentrusty;
pub mod zitadel;
