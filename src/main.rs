//! Vestibule: an edge reverse proxy and auth gateway for identity backends.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request makes some thirty short-lived allocations: this allocator spends the least on them, gives memory back once a
/// flood is over, and is the same whatever libc the binary is linked to.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    vestibule::cli::execute()
}
