//! Who is held responsible for a request: the one reader of forwarding headers.
//!
//! A peer that is not listed in `trusted_proxies` is the client, whatever its headers claim. Behind a trusted peer the
//! list of addresses is walked from right to left: each proxy appends the address that it saw itself, so the last entry
//! comes from the peer that we trust, the one before it from the proxy that this entry names, and so on. The first
//! address that is not trusted is the client; everything left of it was written by that client and is not even read.
//! Walking from the left would believe whatever a client chose to send.
//!
//! What cannot be read on that way is refused, never skipped: a gap would let the client choose its own address, or
//! borrow the proxy's. Headers are only read here; who removes and rewrites them is `transform`.

mod forwarded;
mod node;

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

use crate::config::Listen;
use crate::types::{CidrSet, ConnFacts, Reason, Rejection, Scheme};

/// The address that a request is held against. IPv4-mapped addresses are the IPv4 address they carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientIp(IpAddr);

/// The client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub ip: ClientIp,
    /// The scheme that it used, towards us or towards the first trusted proxy.
    pub scheme: Scheme,
    /// Whether a trusted peer handed the request on.
    pub via_trusted: bool,
}

/// The peers of one listener whose forwarding headers are believed. Empty by default: nobody.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    proxies: CidrSet,
}

impl ClientIp {
    /// The address in canonical form.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// The address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0
    }

    /// What limits count: an IPv4 address, or the /64 that an IPv6 customer can roam in.
    #[must_use]
    pub fn group(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
        }
    }
}

impl Trust {
    /// The trust of a listener.
    #[must_use]
    pub fn compile(listen: &Listen) -> Self {
        Self {
            proxies: CidrSet::new(listen.trusted_proxies.iter().copied()),
        }
    }

    /// Whether `address` is a trusted proxy.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.proxies.contains(address)
    }

    /// The client of a request with these headers.
    ///
    /// # Errors
    /// [`Reason::BadForwarding`] when a trusted peer sends forwarding headers that are malformed or contradict each other.
    pub fn find(&self, conn: &ConnFacts, headers: &HeaderMap) -> Result<Client, Rejection> {
        let peer = conn.peer.ip();
        if !self.trusts(peer) {
            return Ok(Client {
                ip: ClientIp::new(peer),
                scheme: conn.scheme,
                via_trusted: false,
            });
        }
        let listed = self.find_listed(headers)?;
        let forwarded = self.find_forwarded(headers)?;
        let ip = agree(listed, forwarded.map(|hop| hop.address), "addresses differ")?;
        let named = agree(
            find_scheme(headers)?,
            forwarded.and_then(|hop| hop.scheme),
            "schemes differ",
        )?;
        Ok(Client {
            ip: ClientIp::new(ip.unwrap_or(peer)),
            scheme: named.unwrap_or(conn.scheme),
            via_trusted: true,
        })
    }

    /// The client by `X-Forwarded-For`; `None` if that lists nobody.
    fn find_listed(&self, headers: &HeaderMap) -> Result<Option<IpAddr>, Rejection> {
        let mut leftmost = None;
        for (count, element) in elements_from_the_right(headers, &X_FORWARDED_FOR).enumerate() {
            if count >= MAX_HOPS {
                return Err(bad("too many hops"));
            }
            let text = element.ok_or_else(|| bad("X-Forwarded-For is not ASCII"))?;
            let address = node::address(text).ok_or_else(|| bad("X-Forwarded-For is malformed"))?;
            if !self.trusts(address) {
                return Ok(Some(address));
            }
            leftmost = Some(address);
        }
        Ok(leftmost)
    }

    /// The client by `Forwarded`, with the scheme that its hop reports.
    fn find_forwarded(&self, headers: &HeaderMap) -> Result<Option<Hop>, Rejection> {
        let mut leftmost = None;
        let mut count = 0;
        for line in headers.get_all(FORWARDED).iter().rev() {
            let text = line.to_str().map_err(|_| bad("Forwarded is not ASCII"))?;
            let hops =
                forwarded::parse(text, MAX_HOPS).ok_or_else(|| bad("Forwarded is malformed"))?;
            for hop in hops.into_iter().rev() {
                count += 1;
                if count > MAX_HOPS {
                    return Err(bad("too many hops"));
                }
                let address = hop
                    .address
                    .ok_or_else(|| bad("Forwarded hides an address"))?;
                let found = Hop {
                    address,
                    scheme: hop.scheme,
                };
                if !self.trusts(address) {
                    return Ok(Some(found));
                }
                leftmost = Some(found);
            }
        }
        Ok(leftmost)
    }
}

/// The entry that was found to be the client's.
#[derive(Clone, Copy)]
struct Hop {
    address: IpAddr,
    scheme: Option<Scheme>,
}

/// The scheme by `X-Forwarded-Proto`: the last value, which is the one that the trusted peer answers for.
fn find_scheme(headers: &HeaderMap) -> Result<Option<Scheme>, Rejection> {
    let Some(element) = elements_from_the_right(headers, &X_FORWARDED_PROTO).next() else {
        return Ok(None);
    };
    match element.and_then(node::scheme) {
        Some(scheme) => Ok(Some(scheme)),
        None => Err(bad("X-Forwarded-Proto is malformed")),
    }
}

/// The elements of a list that may be spread over several lines, the last one first; `None` for a line that is not
/// ASCII. Empty elements count for nothing (RFC 9110 section 5.6.1.2).
fn elements_from_the_right<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = Option<&'a str>> {
    let lines = headers.get_all(name).into_iter().rev();
    lines.flat_map(|line| {
        let text = line.to_str().ok();
        let unreadable = text.is_none().then_some(None);
        let elements = text.unwrap_or_default().rsplit(',');
        let elements = elements.map(|element| element.trim_matches([' ', '\t']));
        let elements = elements.filter(|element| !element.is_empty()).map(Some);
        unreadable.into_iter().chain(elements)
    })
}

/// Two headers that say the same may both stand; of two that differ, one was not written by our proxy.
fn agree<T: PartialEq>(
    one: Option<T>,
    other: Option<T>,
    detail: &'static str,
) -> Result<Option<T>, Rejection> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => Err(bad(detail)),
        (one, other) => Ok(one.or(other)),
    }
}

fn bad(detail: &'static str) -> Rejection {
    Rejection::because(Reason::BadForwarding, detail)
}

/// Longer chains of proxies do not exist.
const MAX_HOPS: usize = 64;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

#[cfg(test)]
mod tests;
