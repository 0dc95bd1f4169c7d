//! Counts connections: of a listener, and of each address (IPv6: each /64). What was counted is given back on drop.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The connections of one listener, counted over all workers.
#[derive(Debug, Default)]
pub(super) struct Caps {
    total: AtomicU32,
    freed: Notify,
    by_ip: ByIp,
}

/// A counted connection.
#[derive(Debug)]
pub(super) struct Seat {
    caps: Arc<Caps>,
    ip: Option<IpAddr>,
}

/// Which cap is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Total,
    PerIp,
}

impl Caps {
    pub(super) fn total(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// Counts a connection; without `ip` it does not count against the cap per address.
    pub(super) fn enter(
        self: &Arc<Self>,
        ip: Option<IpAddr>,
        max: u32,
        max_per_ip: u32,
    ) -> Result<Seat, Full> {
        let ip = ip.map(group);
        if let Some(ip) = ip
            && !self.by_ip.enter(ip, max_per_ip)
        {
            return Err(Full::PerIp);
        }
        let counted = self
            .total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |total| {
                (total < max).then_some(total + 1)
            });
        if counted.is_err() {
            if let Some(ip) = ip {
                self.by_ip.leave(ip);
            }
            return Err(Full::Total);
        }
        Ok(Seat {
            caps: Arc::clone(self),
            ip,
        })
    }

    /// Waits until fewer than `max` connections are open.
    pub(super) async fn room(&self, max: u32) {
        loop {
            // Made before the look, so that what is freed between the look and the wait is not missed.
            let freed = self.freed.notified();
            if self.total() < max {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(ip) = self.ip {
            self.caps.by_ip.leave(ip);
        }
        self.caps.total.fetch_sub(1, Ordering::Relaxed);
        self.caps.freed.notify_waiters();
    }
}

/// One subscriber usually holds a whole /64.
fn group(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}

const SHARDS: usize = 16;

/// Connections by address; an address without connections holds no entry.
#[derive(Debug, Default)]
struct ByIp {
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, u32, RandomState>>; SHARDS],
}

impl ByIp {
    fn enter(&self, ip: IpAddr, max: u32) -> bool {
        let Some(shard) = self.shard(ip) else {
            return false;
        };
        let mut counts = shard.lock();
        match counts.get_mut(&ip) {
            Some(count) if *count >= max => false,
            Some(count) => {
                *count += 1;
                true
            }
            None if max == 0 => false,
            None => {
                counts.insert(ip, 1);
                true
            }
        }
    }

    fn leave(&self, ip: IpAddr) {
        let Some(shard) = self.shard(ip) else {
            return;
        };
        let mut counts = shard.lock();
        if let Some(count) = counts.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&ip);
                // An attack from many addresses must not leave its tables behind.
                if counts.is_empty() && counts.capacity() > 1024 {
                    counts.shrink_to_fit();
                }
            }
        }
    }

    fn shard(&self, ip: IpAddr) -> Option<&Mutex<HashMap<IpAddr, u32, RandomState>>> {
        let hash = usize::try_from(self.hasher.hash_one(ip) >> 48).unwrap_or(0);
        self.shards.get(hash % SHARDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn addresses(caps: &Caps) -> usize {
        caps.by_ip
            .shards
            .iter()
            .map(|shard| shard.lock().len())
            .sum()
    }

    #[test]
    fn an_address_may_not_exceed_its_cap_and_gets_its_places_back() {
        let caps = Arc::new(Caps::default());
        let first = caps.enter(ip("192.0.2.1"), 10, 1).unwrap();
        assert_eq!(caps.enter(ip("192.0.2.1"), 10, 1).unwrap_err(), Full::PerIp);
        assert!(caps.enter(ip("192.0.2.2"), 10, 1).is_ok());
        drop(first);
        assert!(caps.enter(ip("192.0.2.1"), 10, 1).is_ok());
        assert_eq!((caps.total(), addresses(&caps)), (0, 0));
    }

    #[test]
    fn ipv6_counts_by_64_and_mapped_addresses_as_ipv4() {
        let caps = Arc::new(Caps::default());
        let _one = caps.enter(ip("2001:db8::1"), 10, 1).unwrap();
        assert!(caps.enter(ip("2001:db8::ffff"), 10, 1).is_err());
        assert!(caps.enter(ip("2001:db8:0:1::1"), 10, 1).is_ok());
        let _two = caps.enter(ip("192.0.2.1"), 10, 1).unwrap();
        assert!(caps.enter(ip("::ffff:192.0.2.1"), 10, 1).is_err());
    }

    #[test]
    fn a_trusted_proxy_counts_against_the_total_only() {
        let caps = Arc::new(Caps::default());
        let _seats = [
            caps.enter(None, 2, 1).unwrap(),
            caps.enter(None, 2, 1).unwrap(),
        ];
        assert_eq!(caps.enter(None, 2, 1).unwrap_err(), Full::Total);
    }

    #[test]
    fn a_connection_refused_by_the_total_does_not_count_for_its_address() {
        let caps = Arc::new(Caps::default());
        let _seat = caps.enter(ip("192.0.2.1"), 1, 9).unwrap();
        assert_eq!(caps.enter(ip("192.0.2.2"), 1, 9).unwrap_err(), Full::Total);
        assert_eq!(addresses(&caps), 1);
    }

    #[tokio::test]
    async fn room_is_there_once_a_connection_has_ended() {
        let caps = Arc::new(Caps::default());
        let seat = caps.enter(None, 1, 1).unwrap();
        let (_, ()) = tokio::join!(caps.room(1), async { drop(seat) });
        assert_eq!(caps.total(), 0);
    }
}
