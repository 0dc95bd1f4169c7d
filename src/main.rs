//! Vestibule: an edge reverse proxy and auth gateway for identity backends.

use std::process::ExitCode;

fn main() -> ExitCode {
    vestibule::cli::execute()
}
