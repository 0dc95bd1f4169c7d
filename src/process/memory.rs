//! The memory ceiling: looks at the memory of the process, and says whether it is above `max_memory`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::pipeline::Shared;

/// Samples for ever. The pipeline refuses requests while the process is above its ceiling.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        let ceiling = shared.snapshot.load().config.max_memory;
        let before = shared.short_of_memory.load(Ordering::Relaxed);
        let now = ceiling.is_some_and(|ceiling| is_short(resident(), ceiling.0, before));
        if now == before {
            continue;
        }
        shared.short_of_memory.store(now, Ordering::Relaxed);
        if now {
            tracing::warn!("above max_memory: requests are refused");
        } else {
            tracing::info!("below max_memory again");
        }
    }
}

/// Once above, the process stays so until it is well below, so that it does not flutter.
fn is_short(resident: Option<u64>, ceiling: u64, before: bool) -> bool {
    let enough = if before {
        ceiling - ceiling / 16
    } else {
        ceiling
    };
    resident.is_some_and(|resident| resident > enough)
}

/// Bytes in RAM: the second field of `statm`, in pages (proc(5)).
fn resident() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

/// Often enough to act before a burst has filled what is left below a container's limit.
const EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_is_left_only_well_below_it() {
        assert!(!is_short(Some(1_600), 1_600, false));
        assert!(is_short(Some(1_601), 1_600, false));
        assert!(is_short(Some(1_501), 1_600, true));
        assert!(!is_short(Some(1_500), 1_600, true));
        assert!(!is_short(None, 1_600, true));
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident().is_none_or(|bytes| bytes > 1 << 20));
    }
}
