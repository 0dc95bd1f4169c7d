//! Which named set of networks a client is in: the longest prefix wins.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// Named networks by the length of their prefixes, the longest first: a look-up costs as many steps as there are
/// lengths, however many networks there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::limit) struct Networks {
    v4: Lengths,
    v6: Lengths,
}

type Lengths = Vec<(u8, HashMap<IpNet, Arc<str>>)>;

impl Networks {
    /// `Err` is a network that stands in two sets, so that it could not be said whose it is.
    pub(in crate::limit) fn new<'a>(
        named: impl IntoIterator<Item = (&'a str, IpNet)>,
    ) -> Result<Self, IpNet> {
        let mut sorted: BTreeMap<(u8, IpNet), Arc<str>> = BTreeMap::new();
        for (name, network) in named {
            let network = network.trunc();
            let before = sorted.insert((network.prefix_len(), network), Arc::from(name));
            if before.is_some_and(|before| *before != *name) {
                return Err(network);
            }
        }
        let mut networks = Self::default();
        for ((length, network), name) in sorted.into_iter().rev() {
            let lengths = match network {
                IpNet::V4(_) => &mut networks.v4,
                IpNet::V6(_) => &mut networks.v6,
            };
            match lengths.last_mut() {
                Some((last, known)) if *last == length => {
                    known.insert(network, name);
                }
                _ => lengths.push((length, HashMap::from([(network, name)]))),
            }
        }
        Ok(networks)
    }

    /// The set that `address`, in canonical form, is in.
    pub(super) fn find(&self, address: IpAddr) -> Option<&str> {
        let lengths = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        lengths.iter().find_map(|(length, known)| {
            let network = IpNet::new(address, *length).ok()?.trunc();
            known.get(&network).map(|name| &**name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(named: &[(&'static str, &str)]) -> Result<Networks, IpNet> {
        Networks::new(
            named
                .iter()
                .map(|(name, net)| (*name, net.parse().unwrap())),
        )
    }

    #[test]
    fn the_longest_prefix_wins() {
        let networks = networks(&[
            ("all", "0.0.0.0/0"),
            ("office", "10.0.0.0/8"),
            ("lab", "10.1.2.3/16"),
            ("host", "10.1.2.3/32"),
            ("six", "2001:db8::/32"),
        ])
        .unwrap();
        for (address, expected) in [
            ("192.0.2.1", Some("all")),
            ("10.9.9.9", Some("office")),
            ("10.1.9.9", Some("lab")),
            ("10.1.2.3", Some("host")),
            ("2001:db8:ffff::1", Some("six")),
            ("2001:db9::1", None),
        ] {
            assert_eq!(
                networks.find(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn a_network_has_one_name() {
        let twice = [("a", "10.0.0.0/8"), ("b", "10.1.1.1/8")];
        assert_eq!(networks(&twice), Err("10.0.0.0/8".parse().unwrap()));
        assert!(networks(&[("a", "10.0.0.0/8"), ("a", "10.1.1.1/8")]).is_ok());
    }
}
