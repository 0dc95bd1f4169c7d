//! The gate between the socket and hyper: bytes pass once the scan has seen them, and heads pass whole.
//!
//! A head that came in one piece, as nearly all do, passes where it lies. One that is cut is held back until it has
//! ended, so that hyper never sees half a head and whatever is wrong with it can still be answered. A refused head is
//! replaced by a stand-in that the client cannot send: hyper takes it for a request, which puts the refusal in its place
//! behind the answers to earlier requests, and the pipeline counts and logs it. Nothing passes after that.
//!
//! A body that breaks its framing cannot be replaced; it ends in a read error, which fails the request it belongs to.

use std::sync::Arc;

use tokio::io::ReadBuf;

use super::{Chunks, Framing, HeadBounds, HeadScan, Refusal, Whole};
use crate::server::activity::{Activity, Switch};
use crate::types::Reason;

/// Follows the messages of one connection.
#[derive(Debug)]
pub(in crate::server) struct Gate {
    activity: Arc<Activity>,
    bounds: HeadBounds,
    at: At,
    /// Whether the message under way asks for another protocol.
    upgrade: bool,
    /// What has been read and was not handed over.
    held: Vec<u8>,
    /// How much of `held` may be handed over, and how much of that was.
    ready: usize,
    given: usize,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum At {
    Head(HeadScan),
    Length(u64),
    Chunked(Chunks),
    /// Behind a request for another protocol: only its answer tells what the next byte is.
    Undecided,
    /// Another protocol.
    Tunnel,
    /// Nothing: a head was refused. What is left of the stand-in follows, and then no more.
    Refused(&'static [u8]),
    /// Nothing: the framing of a body is broken.
    Broken,
}

/// What hyper is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Given {
    /// Bytes.
    Bytes,
    /// Nothing, until more has been read.
    Nothing,
    /// Nothing, until the exchange under way has been answered.
    Later,
    /// An error.
    Error,
}

/// The method of the stand-in for a refused head. The scan lets no client send it.
pub(in crate::server) const STAND_IN_METHOD: &str = "-";
const STAND_IN: &[u8] = b"- / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";

/// Bytes that are kept of what follows a request for another protocol, before that is answered.
const MAX_EARLY: usize = 16 << 10;

impl Gate {
    pub(in crate::server) fn new(activity: Arc<Activity>, bounds: HeadBounds) -> Self {
        Self {
            activity,
            bounds,
            at: At::Head(HeadScan::default()),
            upgrade: false,
            held: Vec::new(),
            ready: 0,
            given: 0,
        }
    }

    /// Hands over what may be, if anything is held.
    pub(in crate::server) fn give(&mut self, buf: &mut ReadBuf<'_>) -> Given {
        self.look_around();
        if self.given < self.ready {
            let waiting = self.held.get(self.given..self.ready).unwrap_or_default();
            self.given += fill(buf, waiting);
            if self.given == self.ready {
                self.forget_given();
            }
            return Given::Bytes;
        }
        match &mut self.at {
            At::Refused(stand_in) if !stand_in.is_empty() => {
                let given = fill(buf, stand_in);
                *stand_in = stand_in.get(given..).unwrap_or_default();
                Given::Bytes
            }
            At::Refused(_) => Given::Later,
            At::Undecided if self.held.len() >= MAX_EARLY => Given::Later,
            At::Broken => {
                // Asked for it, so that the request which it belongs to is under way: its answer is the last one.
                self.activity.set_closing();
                Given::Error
            }
            _ => Given::Nothing,
        }
    }

    /// Whether what is read next must be given to [`Gate::take`].
    pub(in crate::server) fn holds(&self) -> bool {
        !self.held.is_empty() || matches!(self.at, At::Undecided)
    }

    /// Looks at bytes that lie before hyper already; says how many of them it may see. The others are held.
    pub(in crate::server) fn inspect(&mut self, bytes: &[u8]) -> usize {
        let passed = self.advance(bytes);
        if !self.is_shut() {
            let rest = bytes.get(passed..).unwrap_or_default();
            self.held.extend_from_slice(rest);
        }
        self.note_head();
        passed
    }

    /// Takes bytes behind those that are held.
    pub(in crate::server) fn take(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        self.advance_held();
    }

    fn advance_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.ready += self.advance(held.get(self.ready..).unwrap_or_default());
        self.held = held;
        if self.is_shut() {
            self.held.truncate(self.ready);
        }
        self.note_head();
    }

    /// Follows `bytes`; says how many of them may pass.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        loop {
            let rest = bytes.get(passed..).unwrap_or_default();
            if rest.is_empty() {
                return passed;
            }
            match &mut self.at {
                At::Head(scan) => match scan.read(rest, &self.bounds) {
                    Ok(Some(whole)) => {
                        passed += whole.len;
                        self.end_head(&whole);
                    }
                    Ok(None) => return passed,
                    Err(why) => {
                        self.refuse(why);
                        return passed;
                    }
                },
                At::Length(left) => {
                    let len =
                        usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    passed += len;
                    *left -= len as u64;
                    if *left == 0 {
                        self.end_body();
                    }
                }
                At::Chunked(chunks) => match chunks.follow(rest) {
                    Ok((len, ended)) => {
                        passed += len;
                        if ended {
                            self.end_body();
                        }
                    }
                    Err(why) => {
                        tracing::debug!(detail = why.detail, "a request body is malformed");
                        self.at = At::Broken;
                        return passed;
                    }
                },
                At::Tunnel => return bytes.len(),
                At::Undecided | At::Refused(_) | At::Broken => return passed,
            }
        }
    }

    fn end_head(&mut self, whole: &Whole) {
        self.upgrade = whole.upgrade;
        if whole.upgrade {
            self.activity.set_switch(Switch::Asked);
        }
        match whole.framing {
            Framing::Length(0) => self.end_body(),
            Framing::Length(length) => self.at = At::Length(length),
            Framing::Chunked => self.at = At::Chunked(Chunks::default()),
        }
    }

    fn end_body(&mut self) {
        self.at = if self.upgrade {
            At::Undecided
        } else {
            At::Head(HeadScan::default())
        };
    }

    fn refuse(&mut self, why: Refusal) {
        self.activity.refuse(why);
        self.at = At::Refused(STAND_IN);
    }

    /// Learns what others have decided since.
    fn look_around(&mut self) {
        match (&self.at, self.activity.switch()) {
            (At::Undecided, Switch::Done) => self.at = At::Tunnel,
            (At::Undecided, Switch::Declined) => self.at = At::Head(HeadScan::default()),
            (At::Head(_), _) if self.activity.overdue() && !self.held.is_empty() => {
                self.refuse(Refusal::new(Reason::HeadTimeout, ""));
            }
            _ => return,
        }
        self.upgrade = false;
        self.advance_held();
    }

    fn forget_given(&mut self) {
        self.held.drain(..self.given);
        (self.given, self.ready) = (0, 0);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }

    /// Whether nothing more will pass.
    fn is_shut(&self) -> bool {
        matches!(self.at, At::Refused(_) | At::Broken)
    }

    /// Half a head is a head that the client owes; bytes behind a request for another protocol came too early.
    fn note_head(&self) {
        let waits = self.held.len() > self.ready;
        self.activity
            .set_head(waits && matches!(self.at, At::Head(_)));
        if waits && matches!(self.at, At::Undecided) {
            self.activity.set_early();
        }
    }
}

/// Copies as much as `buf` has room for; says how much that was.
fn fill(buf: &mut ReadBuf<'_>, bytes: &[u8]) -> usize {
    let len = bytes.len().min(buf.remaining());
    buf.put_slice(bytes.get(..len).unwrap_or_default());
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock;

    const BOUNDS: HeadBounds = HeadBounds {
        max_head: 32 << 10,
        max_fields: 100,
        max_target: 8 << 10,
    };
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const BAD: &[u8] = b"GET / HTTP/1.1\r\nHost : a\r\n\r\n";
    const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n";

    fn gate() -> Gate {
        Gate::new(Activity::new(clock::now(), u32::MAX), BOUNDS)
    }

    /// Feeds `bytes` as the transport does; what came out, and how the last attempt to get more ended.
    fn feed(gate: &mut Gate, bytes: &[u8], room: usize) -> (Vec<u8>, Given) {
        let mut seen = Vec::new();
        if gate.holds() {
            gate.take(bytes);
        } else {
            let passed = gate.inspect(bytes);
            seen.extend(&bytes[..passed]);
        }
        let last = drain(gate, room, &mut seen);
        (seen, last)
    }

    fn drain(gate: &mut Gate, room: usize, seen: &mut Vec<u8>) -> Given {
        loop {
            let mut space = vec![0; room];
            let mut buf = ReadBuf::new(&mut space);
            match gate.give(&mut buf) {
                Given::Bytes => seen.extend(buf.filled()),
                other => return other,
            }
        }
    }

    #[test]
    fn whole_messages_pass_where_they_lie() {
        let wire = [
            GET,
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\n\r\0x",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            GET,
        ]
        .concat();
        let mut gate = gate();
        assert_eq!(gate.inspect(&wire), wire.len());
        assert!(!gate.holds() && gate.held.capacity() == 0);
    }

    #[test]
    fn any_cut_comes_out_the_same_and_heads_come_out_whole() {
        let wire = [
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n",
            GET,
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nGET",
            GET,
        ]
        .concat();
        for size in 1..wire.len() {
            let mut gate = gate();
            let mut seen = Vec::new();
            for piece in wire.chunks(size) {
                let (more, last) = feed(&mut gate, piece, 7);
                assert!(!more.starts_with(b"GET ") || more.len() >= GET.len());
                assert_eq!(last, Given::Nothing);
                seen.extend(more);
            }
            assert_eq!(seen, wire, "cut by {size}");
        }
    }

    #[test]
    fn a_refused_head_is_replaced_behind_what_was_good() {
        let wire = [GET, BAD, GET].concat();
        let expected = [GET, STAND_IN].concat();
        for size in 1..=wire.len() {
            let mut gate = gate();
            let mut seen = Vec::new();
            for piece in wire.chunks(size) {
                seen.extend(feed(&mut gate, piece, 5).0);
            }
            assert_eq!(seen, expected, "cut by {size}");
            assert_eq!(
                gate.activity.refusal().unwrap().reason,
                Reason::BadField,
                "cut by {size}"
            );
            assert_eq!(drain(&mut gate, 9, &mut seen), Given::Later);
        }
    }

    #[test]
    fn a_client_cannot_send_the_stand_in() {
        let mut gate = gate();
        let (seen, _) = feed(&mut gate, STAND_IN, 99);
        assert_eq!(seen, STAND_IN);
        assert_eq!(gate.activity.refusal().unwrap().reason, Reason::BadFraming);
    }

    #[test]
    fn a_broken_chunk_is_an_error_behind_what_was_good() {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut gate = gate();
        let wire = [head, &b"1\r\nx\n0\r\n\r\n"[..], GET].concat();
        assert_eq!(feed(&mut gate, &wire, 99), (head.to_vec(), Given::Error));
        assert_eq!(feed(&mut gate, GET, 99), (Vec::new(), Given::Error));
    }

    #[test]
    fn half_a_head_is_owed_until_it_is_whole_or_overdue() {
        let mut gate = gate();
        assert_eq!(feed(&mut gate, &GET[..9], 99), (Vec::new(), Given::Nothing));
        assert!(gate.activity.head());
        gate.take(&GET[9..]);
        assert!(!gate.activity.head());

        let mut gate = self::gate();
        feed(&mut gate, &[GET, &GET[..9]].concat(), 99);
        gate.activity.set_overdue();
        let mut seen = Vec::new();
        assert_eq!(drain(&mut gate, 99, &mut seen), Given::Later);
        assert_eq!(seen, STAND_IN);
        assert_eq!(gate.activity.refusal().unwrap().reason, Reason::HeadTimeout);
        assert!(!gate.activity.head());
    }

    #[test]
    fn what_follows_an_upgrade_is_held_until_it_is_answered() {
        for (answer, expected) in [(Switch::Done, &b"\0raw"[..]), (Switch::Declined, STAND_IN)] {
            let mut gate = gate();
            let (seen, last) = feed(&mut gate, &[ASK, b"\0raw"].concat(), 99);
            assert_eq!((&seen[..], last), (ASK, Given::Nothing));
            assert!(gate.activity.early());
            gate.activity.set_switch(answer);
            let mut seen = Vec::new();
            drain(&mut gate, 99, &mut seen);
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_tunnel_passes_everything() {
        let mut gate = gate();
        feed(&mut gate, ASK, 99);
        gate.activity.set_switch(Switch::Done);
        let mut seen = Vec::new();
        drain(&mut gate, 99, &mut seen);
        assert_eq!(feed(&mut gate, BAD, 99).0, BAD);
    }

    #[test]
    fn early_bytes_are_bounded() {
        let mut gate = gate();
        feed(&mut gate, ASK, 99);
        assert_eq!(feed(&mut gate, &[0; MAX_EARLY], 99).1, Given::Later);
        assert!(gate.activity.early());
    }
}
