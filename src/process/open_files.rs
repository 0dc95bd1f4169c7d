//! File descriptors: asks for all that the system grants, and says how many connections they are good for.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::Config;

/// How many client connections the process may hold, whatever its listeners allow. Each may need a second descriptor, for
/// its upstream connection: without one, clients that are connected already would be turned away together with those
/// that are not.
pub(super) fn most_connections(config: &Config) -> usize {
    let files = raise().unwrap_or(u64::MAX);
    let most = connections(files);
    let wanted = config.listen.values().map(|listen| listen.max_connections);
    let wanted: u64 = wanted.map(u64::from).sum();
    if most < wanted {
        tracing::warn!(
            descriptors = files,
            connections = most,
            max_connections = wanted,
            "the limit of file descriptors is below what max_connections allows; raise it (LimitNOFILE, ulimit -n)"
        );
    }
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// Raises the soft limit to the hard one, as far as the system lets us. The limit in force; `None`: there is none.
fn raise() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.current,
        Err(_) => before,
    }
}

fn connections(files: u64) -> u64 {
    (files.saturating_sub(OURS) / 2).max(1)
}

/// Sockets of listeners and workers, logs, the admin listener, health checks, key sets.
const OURS: u64 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_has_a_second_descriptor_to_spare() {
        assert_eq!(connections(1024), 464);
        assert_eq!(connections(64), 1);
        assert!(connections(u64::MAX) > 1 << 62);
    }
}
