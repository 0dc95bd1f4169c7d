//! Vestibule: an edge reverse proxy and auth gateway for identity backends.

fn main() {}
