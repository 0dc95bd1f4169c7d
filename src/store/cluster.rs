//! A cluster: which node holds a key, and what to do where the map is out of date.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{Cmd, RedisError, Value};

use super::connect::{Node, question};
use crate::config::StoreServer;

/// Which of the nodes holds which slot.
pub(super) struct Map {
    /// The masters.
    pub(super) nodes: Vec<StoreServer>,
    /// For each slot the position of its node.
    slots: Box<[u16]>,
}

/// Connections to every master.
pub(super) struct Nodes {
    map: Map,
    connections: Vec<Node>,
    /// Whether some node said that slots have moved.
    stale: AtomicBool,
    /// Of a node that is not in the map.
    strange: AtomicU32,
}

/// A cluster has so many slots.
const SLOTS: usize = 16_384;

/// Keys tried until every node has one. A node with so few slots that none of them falls on it is not tried.
const PROBES: u32 = 512;

impl Map {
    /// Reads the answer to `CLUSTER SLOTS` of `seed`; `None` where a slot has no node.
    pub(super) fn read(answer: &Value, seed: &StoreServer) -> Option<Self> {
        let Value::Array(ranges) = answer else {
            return None;
        };
        let mut nodes: Vec<StoreServer> = Vec::new();
        let mut slots = vec![u16::MAX; SLOTS];
        for range in ranges {
            let (first, last, node) = read_range(range, seed)?;
            let position = nodes.iter().position(|known| *known == node);
            let position = position.unwrap_or_else(|| {
                nodes.push(node);
                nodes.len() - 1
            });
            slots
                .get_mut(first..=last)?
                .fill(u16::try_from(position).ok()?);
        }
        let complete = !slots.contains(&u16::MAX);
        complete.then(|| Self {
            nodes,
            slots: slots.into(),
        })
    }

    fn node_of(&self, key: &[u8]) -> usize {
        let node = self.slots.get(slot(key)).copied();
        usize::from(node.unwrap_or_default())
    }
}

/// First slot, last slot, master: `[0, 5460, ["10.0.0.1", 6379, id, ...], replicas...]`.
fn read_range(range: &Value, seed: &StoreServer) -> Option<(usize, usize, StoreServer)> {
    let Value::Array(range) = range else {
        return None;
    };
    let (Value::Int(first), Value::Int(last), Value::Array(master)) =
        (range.first()?, range.get(1)?, range.get(2)?)
    else {
        return None;
    };
    let host = match master.first()? {
        Value::BulkString(host) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
        // A node that does not know its own address is reached at the one where it was asked.
        _ => seed.host.clone(),
    };
    let Value::Int(port) = master.get(1)? else {
        return None;
    };
    let node = StoreServer {
        tls: seed.tls,
        host,
        port: u16::try_from(*port).ok()?,
    };
    Some((
        usize::try_from(*first).ok()?,
        usize::try_from(*last).ok()?,
        node,
    ))
}

impl Nodes {
    pub(super) fn new(map: Map, connections: Vec<Node>) -> Self {
        Self {
            map,
            connections,
            stale: AtomicBool::new(false),
            strange: AtomicU32::new(0),
        }
    }

    /// Asks the node of `key`, and the one that it names where the slot has moved or is on the move.
    pub(super) async fn ask(&self, key: &[u8], command: &Cmd) -> Result<Value, RedisError> {
        let asked = self.map.node_of(key);
        let first = question(self.node(asked)?, command).await;
        let Err(error) = first else { return first };
        let Some((code, elsewhere)) = self.redirection(&error, asked) else {
            return Err(error);
        };
        let mut elsewhere = self.node(elsewhere)?;
        if code == Redirection::Moved {
            self.stale.store(true, Ordering::Relaxed);
            return question(elsewhere, command).await;
        }
        let mut both = redis::pipe();
        both.cmd("ASKING").ignore().add_command(command.clone());
        let answers = elsewhere.req_packed_commands(&both, 1, 1).await?;
        answers
            .into_iter()
            .next()
            .ok_or_else(|| no_node("no answer"))?
            .extract_error()
    }

    /// For every node a key that it holds, to try it with.
    pub(super) fn probes(&self, prefix: &str) -> Vec<String> {
        let mut probes = vec![None; self.connections.len()];
        for count in 0..PROBES {
            let key = format!("{prefix}:probe:{count}");
            let node = self.map.node_of(key.as_bytes());
            if let Some(free @ None) = probes.get_mut(node) {
                *free = Some(key);
            }
        }
        probes.into_iter().flatten().collect()
    }

    /// Whether the map should be read anew.
    pub(super) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }

    fn node(&self, position: usize) -> Result<MultiplexedConnection, RedisError> {
        let node = self.connections.get(position);
        let server = node.map(|node| node.server.clone());
        server.ok_or_else(|| no_node("no node holds the slot"))
    }

    /// How often the node of `key` has failed since its last answer.
    pub(super) fn failures(&self, key: &[u8]) -> &AtomicU32 {
        let node = self.connections.get(self.map.node_of(key));
        node.map_or(&self.strange, |node| &node.failures)
    }

    /// The node that an error names, if it is one that we know. One that we do not know makes the map stale.
    fn redirection(&self, error: &RedisError, asked: usize) -> Option<(Redirection, usize)> {
        let code = match error.code()? {
            "MOVED" => Redirection::Moved,
            "ASK" => Redirection::Ask,
            _ => return None,
        };
        let (address, _) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        let host = match host {
            // It does not know its own address: where it was asked.
            "" => self.map.nodes.get(asked)?.host.as_str(),
            host => host,
        };
        let known = self
            .map
            .nodes
            .iter()
            .position(|node| node.port == port && node.host == host);
        if known.is_none() {
            self.stale.store(true, Ordering::Relaxed);
        }
        known.map(|node| (code, node))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Redirection {
    Moved,
    Ask,
}

fn no_node(why: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::ClusterConnectionNotFound, why))
}

/// The slot of a key: of what stands between its first braces, if there is something.
fn slot(key: &[u8]) -> usize {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    usize::from(crc16(tag.unwrap_or(key))) % SLOTS
}

/// CRC-16/XMODEM, as the cluster specification wants it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> StoreServer {
        "redis://10.0.0.9:7000".parse().unwrap()
    }

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let host = Value::BulkString(host.as_bytes().to_vec());
        let master = Value::Array(vec![host, Value::Int(port)]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master])
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(
            slot(b"foo{}{bar}"),
            usize::from(crc16(b"foo{}{bar}")) % SLOTS
        );
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    }

    #[test]
    fn a_map_names_each_node_once_and_covers_every_slot() {
        let answer = Value::Array(vec![
            range(0, 8_000, "10.0.0.1", 7_000),
            range(8_001, 8_001, "10.0.0.2", 7_000),
            range(8_002, 16_383, "10.0.0.1", 7_000),
        ]);
        let map = Map::read(&answer, &seed()).unwrap();
        assert_eq!(map.nodes.len(), 2);
        assert_eq!(map.slots[8_001], 1);
        assert_eq!(map.slots[16_383], 0);
    }

    #[test]
    fn a_map_with_a_hole_or_beyond_the_slots_is_none() {
        for ranges in [
            vec![],
            vec![range(0, 16_382, "10.0.0.1", 7_000)],
            vec![range(0, 16_384, "10.0.0.1", 7_000)],
            vec![range(-1, 16_383, "10.0.0.1", 7_000)],
            vec![range(9, 3, "10.0.0.1", 7_000)],
        ] {
            assert!(Map::read(&Value::Array(ranges), &seed()).is_none());
        }
        assert!(Map::read(&Value::Nil, &seed()).is_none());
    }

    #[test]
    fn a_node_without_an_address_is_where_it_was_asked() {
        let answer = Value::Array(vec![range(0, 16_383, "", 7_001)]);
        let map = Map::read(&answer, &seed()).unwrap();
        assert_eq!(map.nodes[0].to_string(), "redis://10.0.0.9:7001");
    }
}
