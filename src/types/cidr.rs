//! Sets of IP networks.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of networks; IPv4-mapped IPv6 addresses are judged as the IPv4 address they carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CidrSet {
    networks: Box<[IpNet]>,
}

impl CidrSet {
    /// Builds the set; host bits are ignored (`10.1.2.3/8` is `10.0.0.0/8`).
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            networks: networks.into_iter().map(|net| net.trunc()).collect(),
        }
    }

    /// Whether `address` lies in one of the networks. An empty set contains nothing.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|net| net.contains(&address))
    }

    /// Whether no network was listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(networks: &[&str], address: &str, expected: bool) {
        let set = CidrSet::new(networks.iter().map(|net| net.parse().unwrap()));
        assert_eq!(
            set.contains(address.parse().unwrap()),
            expected,
            "{address} in {networks:?}"
        );
    }

    #[test]
    fn mapped_addresses_count_as_the_ipv4_address_they_carry() {
        check(&["10.0.0.0/8"], "::ffff:10.1.2.3", true);
        check(&["::/0"], "::ffff:10.1.2.3", false);
    }

    #[test]
    fn an_empty_set_contains_nothing() {
        check(&[], "127.0.0.1", false);
    }

    #[test]
    fn host_bits_are_ignored() {
        check(&["10.1.2.3/8"], "10.200.0.1", true);
        check(&["2001:db8::1/32"], "2001:db8:ffff::", true);
        check(&["2001:db8::1/32"], "2001:db9::", false);
    }
}
