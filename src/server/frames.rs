//! Reads along with an h2 client's frames, without touching them: whether a header block is unfinished, how often the
//! client sends what costs it nothing and us an answer, and how much it lets us send. h2 bounds none of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;

use super::activity::Activity;
use crate::snapshot::ListenerLimits;
use crate::types::clock;

/// The frames that a client sends on one connection.
#[derive(Debug)]
pub(super) struct Frames {
    activity: Arc<Activity>,
    preface_left: usize,
    header: [u8; HEADER],
    header_len: usize,
    payload_left: usize,
    /// The last bytes of a payload that is read along, see [`Frames::read`].
    entry: [u8; ENTRY],
    entry_len: usize,
    ends_block: bool,
    /// Bytes of the header block under way.
    block: usize,
    last_stream: u32,
    /// What was read and must wait for the next round.
    held: Vec<u8>,
    given: usize,
    controls: Window,
    resets: Window,
    hasty: Window,
    youth: Youth,
}

/// Which streams were opened a moment ago: all beyond `after`.
#[derive(Debug)]
struct Youth {
    after: u32,
    /// The last stream when `since` was, from which on streams will no longer be young.
    mark: u32,
    since: Instant,
}

/// Counts over a fixed window of time.
#[derive(Debug)]
struct Window {
    max: u64,
    count: u64,
    since: Instant,
    /// Pieces answered when the window began: each may cost the client one more frame, see [`Frames::control`].
    pieces: u64,
}

impl Frames {
    pub(super) fn new(activity: Arc<Activity>, limits: &ListenerLimits) -> Self {
        let since = activity.started();
        let window = |max: u32| Window {
            max: u64::from(max),
            count: 0,
            since,
            pieces: 0,
        };
        Self {
            activity,
            preface_left: PREFACE,
            header: [0; HEADER],
            header_len: 0,
            payload_left: 0,
            entry: [0; ENTRY],
            entry_len: 0,
            ends_block: false,
            block: 0,
            last_stream: 0,
            held: Vec::new(),
            given: 0,
            controls: window(limits.max_control_frames),
            resets: window(limits.max_resets),
            hasty: window(limits.max_resets / HASTY_SHARE),
            youth: Youth {
                after: 0,
                mark: 0,
                since,
            },
        }
    }

    /// The highest stream that the client has opened.
    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Whether as many requests have come in this round as h2 may have before they are handled.
    pub(super) fn sated(&self) -> bool {
        self.activity.heads_of_round() >= HEADS_A_ROUND
    }

    /// Hands over what was held; whether there was anything.
    pub(super) fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let held = std::mem::take(&mut self.held);
        let rest = held.get(self.given..).unwrap_or_default();
        let room = rest.get(..buf.remaining()).unwrap_or(rest);
        let passed = self.pass(room);
        buf.put_slice(room.get(..passed).unwrap_or_default());
        self.given += passed;
        if self.given < held.len() {
            self.held = held;
        } else {
            self.given = 0;
        }
        passed > 0
    }

    /// Looks at bytes that lie before h2 already; says how many of them it may see. The others are held.
    pub(super) fn inspect(&mut self, bytes: &[u8]) -> usize {
        let passed = self.pass(bytes);
        let rest = bytes.get(passed..).unwrap_or_default();
        self.held.extend_from_slice(rest);
        passed
    }

    /// Takes the next bytes of the connection, cut anywhere, up to the last head of the round; says how many that were.
    ///
    /// h2 decodes all that it can read before a single request is handled, and a header list is many times larger
    /// decoded than it was on the wire. So it reads a few at a time.
    fn pass(&mut self, all: &[u8]) -> usize {
        let mut bytes = all;
        skip(&mut self.preface_left, &mut bytes);
        while !bytes.is_empty() && !self.sated() {
            if self.payload_left > 0 {
                let before = bytes;
                skip(&mut self.payload_left, &mut bytes);
                let payload = before.get(..before.len() - bytes.len());
                self.read(payload.unwrap_or_default());
                self.end_frame();
                continue;
            }
            let Some((first, rest)) = bytes.split_first() else {
                break;
            };
            bytes = rest;
            if let Some(slot) = self.header.get_mut(self.header_len) {
                *slot = *first;
            }
            self.header_len += 1;
            if self.header_len == HEADER {
                self.header_len = 0;
                self.begin_frame();
                self.end_frame();
            }
        }
        all.len() - bytes.len()
    }

    fn begin_frame(&mut self) {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = self.header;
        self.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
        self.ends_block = false;
        self.entry_len = 0;
        match kind {
            HEADERS | CONTINUATION => {
                self.youth.pass(self.last_stream, clock::now());
                self.last_stream = self.last_stream.max(stream);
                self.activity.set_head(true);
                self.block = self.block.saturating_add(self.payload_left);
                self.ends_block = flags & END_HEADERS != 0;
            }
            RST_STREAM => self.reset(stream),
            SETTINGS | PING if flags & ACK == 0 => self.control(),
            _ => {}
        }
    }

    /// What the client says of its windows: the entries of its SETTINGS, and its WINDOW_UPDATEs for the connection.
    fn read(&mut self, payload: &[u8]) {
        let [_, _, _, kind, flags, stream @ ..] = self.header;
        let whole = match kind {
            SETTINGS if flags & ACK == 0 => ENTRY,
            WINDOW_UPDATE if stream == [0; 4] => INCREMENT,
            _ => return,
        };
        for byte in payload {
            if let Some(slot) = self.entry.get_mut(self.entry_len) {
                *slot = *byte;
            }
            self.entry_len += 1;
            if self.entry_len == whole {
                self.entry_len = 0;
                self.take_entry(kind);
            }
        }
    }

    fn take_entry(&self, kind: u8) {
        let [a, b, c, d, e, f] = self.entry;
        if kind == WINDOW_UPDATE {
            self.activity
                .widen(u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff);
        } else if u16::from_be_bytes([a, b]) == INITIAL_WINDOW_SIZE {
            self.activity
                .set_stream_window(u32::from_be_bytes([c, d, e, f]));
        }
    }

    fn end_frame(&mut self) {
        if self.payload_left > 0 {
            return;
        }
        if self.ends_block {
            self.ends_block = false;
            self.activity.set_head(false);
            // A byte of it may mean a whole field.
            let weight = std::mem::take(&mut self.block) / BYTES_A_HEAD;
            self.activity
                .count_heads(1 + u32::try_from(weight).unwrap_or(u32::MAX - 1));
        }
    }

    /// Who leaves a page resets all that it has asked for; who resets what it has just asked for wants us to do work
    /// for nothing.
    fn reset(&mut self, stream: u32) {
        let now = clock::now();
        self.youth.pass(self.last_stream, now);
        let hasty = stream > self.youth.after && self.hasty.count(0, now);
        if self.resets.count(0, now) || hasty {
            self.activity.set_flooded();
        }
    }

    /// Honest gRPC clients measure the bandwidth with a PING for what they have received, so that what we have sent is
    /// added to the allowance.
    fn control(&mut self) {
        if self.controls.count(self.activity.pieces(), clock::now()) {
            self.activity.set_flooded();
        }
    }
}

impl Window {
    /// Counts one; true if that is one too many.
    fn count(&mut self, pieces: u64, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= ListenerLimits::FLOOD_WINDOW {
            self.since = now;
            self.count = 0;
            self.pieces = pieces;
        }
        self.count += 1;
        self.count > self.max.saturating_add(pieces.saturating_sub(self.pieces))
    }
}

impl Youth {
    /// It is `now`, and `last` is the last stream.
    fn pass(&mut self, last: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed >= 2 * YOUNG {
            self.after = last;
        } else if passed >= YOUNG {
            self.after = self.mark;
        } else {
            return;
        }
        self.mark = last;
        self.since = now;
    }
}

fn skip(left: &mut usize, bytes: &mut &[u8]) {
    let len = (*left).min(bytes.len());
    *left -= len;
    *bytes = bytes.get(len..).unwrap_or_default();
}

/// GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 sections 6.8 and 7).
pub(super) fn goaway(last_stream: u32) -> [u8; 17] {
    let [s0, s1, s2, s3] = last_stream.to_be_bytes();
    [0, 0, 8, 7, 0, 0, 0, 0, 0, s0, s1, s2, s3, 0, 0, 0, 11]
}

/// How long a stream is young; up to twice as long, as the mark is moved.
const YOUNG: Duration = Duration::from_millis(100);
/// Of `max_resets`, what may hit young streams.
const HASTY_SHARE: u32 = 4;
/// Requests that h2 decodes before the first of them is handled.
const HEADS_A_ROUND: u32 = 16;
/// A larger head counts for as many as it has of these: what it costs to decode is bounded by its bytes.
const BYTES_A_HEAD: usize = 256;
const PREFACE: usize = 24;
const HEADER: usize = 9;
/// Bytes of one setting.
const ENTRY: usize = 6;
/// Bytes of a window increment.
const INCREMENT: usize = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(max: u32) -> Frames {
        let activity = Activity::new(clock::now(), u32::MAX);
        let limits = ListenerLimits {
            max_control_frames: max,
            max_resets: max,
            ..super::super::tests::limits()
        };
        let mut frames = Frames::new(activity, &limits);
        frames.inspect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frames
    }

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(payload.len()).unwrap();
        [&[0, 0, len, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    #[test]
    fn a_header_block_is_unfinished_until_its_last_byte() {
        let mut frames = frames(9);
        let wire = [
            frame(HEADERS, 0, 3, b"abc"),
            frame(CONTINUATION, END_HEADERS, 3, b"de"),
        ]
        .concat();
        for (position, byte) in wire.iter().enumerate() {
            frames.inspect(std::slice::from_ref(byte));
            let unfinished = (8..wire.len() - 1).contains(&position);
            assert_eq!(frames.activity.head(), unfinished, "after byte {position}");
        }
        assert_eq!(frames.last_stream(), 3);
    }

    #[test]
    fn any_cut_reads_the_same() {
        let wire = [
            frame(SETTINGS, 0, 0, b""),
            frame(HEADERS, END_HEADERS, 5, b""),
            frame(0, 1, 5, b"data"),
            frame(PING, 0, 0, b"12345678"),
            frame(PING, ACK, 0, b"12345678"),
            frame(RST_STREAM, 0, 5, b"1234"),
        ]
        .concat();
        for size in 1..=wire.len() {
            let mut frames = frames(9);
            wire.chunks(size).for_each(|chunk| {
                frames.inspect(chunk);
            });
            let seen = (
                frames.controls.count,
                frames.resets.count,
                frames.last_stream,
            );
            assert_eq!(seen, (2, 1, 5), "cut by {size}");
            assert!(!frames.activity.head());
        }
    }

    #[test]
    fn heads_beyond_the_round_wait_for_the_next() {
        let most = usize::try_from(HEADS_A_ROUND).unwrap();
        let head = frame(HEADERS, END_HEADERS, 1, b"abc");
        let wire = head.repeat(2 * most + 3);
        let mut frames = frames(99);
        let mut seen = frames.inspect(&wire);
        for _ in 0..2 {
            assert_eq!(seen % (most * head.len()), 0);
            assert!(frames.sated());
            frames.activity.begin_round();
            let mut given = 0;
            loop {
                let mut room = [0; 50];
                let mut buf = ReadBuf::new(&mut room);
                if !frames.give(&mut buf) {
                    break;
                }
                let part = buf.filled();
                assert_eq!(part, &wire[seen + given..seen + given + part.len()]);
                given += part.len();
            }
            seen += given;
        }
        assert_eq!(seen, wire.len());
        assert!(!frames.sated() && frames.held.is_empty());
    }

    #[test]
    fn a_large_head_counts_for_many() {
        // However it is cut.
        let mut wire = frame(HEADERS, 0, 1, &[0xbe; 200]);
        for _ in 0..13 {
            wire.extend(frame(CONTINUATION, 0, 1, &[0xbe; 200]));
        }
        wire.extend(frame(CONTINUATION, END_HEADERS, 1, &[0xbe; 200]));
        let mut frames = frames(99);
        assert_eq!(frames.inspect(&wire.repeat(3)), 2 * wire.len());
        assert!(frames.sated());
    }

    #[test]
    fn the_windows_are_what_the_client_says_however_it_is_cut() {
        let wire = [
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9, 0, 4, 0, 0, 0, 10]),
            frame(WINDOW_UPDATE, 0, 0, &[0x80, 0, 0, 5]),
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 7]),
            frame(SETTINGS, ACK, 0, b""),
        ]
        .concat();
        for size in 1..=wire.len() {
            let mut frames = frames(9);
            wire.chunks(size).for_each(|chunk| {
                frames.inspect(chunk);
            });
            let activity = &frames.activity;
            assert!(activity.covers(0, 10) && !activity.covers(1, 10));
            activity.set_stream_window(u32::MAX);
            assert!(activity.covers(0, 65_540) && !activity.covers(0, 65_541));
            activity.spend(65_541);
            assert!(!activity.covers(0, 1));
        }
    }

    #[test]
    fn pings_beyond_the_cap_are_a_flood_unless_we_sent_data() {
        let ping = frame(PING, 0, 0, b"12345678");
        let mut few = frames(2);
        for _ in 0..2 {
            few.inspect(&ping);
        }
        assert!(!few.activity.flooded());
        few.activity.answered(100);
        few.inspect(&ping);
        assert!(!few.activity.flooded());
        few.inspect(&ping);
        assert!(few.activity.flooded());
    }

    #[test]
    fn a_new_window_forgets() {
        let start = clock::now();
        let mut window = Window {
            max: 1,
            count: 0,
            since: start,
            pieces: 0,
        };
        assert!(!window.count(0, start));
        assert!(window.count(0, start + Duration::from_secs(9)));
        assert!(!window.count(50, start + Duration::from_secs(10)));
        assert!(window.count(50, start + Duration::from_secs(10)));
    }

    #[test]
    fn resets_beyond_the_cap_are_a_flood_and_hasty_ones_sooner() {
        for (aged, allowed) in [(Duration::ZERO, 2), (2 * YOUNG, 8)] {
            let mut frames = frames(8);
            let open = |stream| frame(HEADERS, END_HEADERS, stream, b"");
            (0..10).for_each(|number| {
                frames.inspect(&open(2 * number + 1));
            });
            frames.youth.since -= aged;
            for number in 0..allowed {
                frames.inspect(&frame(RST_STREAM, 0, 2 * number + 1, b"1234"));
                assert!(!frames.activity.flooded(), "after {number}");
            }
            frames.inspect(&frame(RST_STREAM, 0, 2 * allowed + 1, b"1234"));
            assert!(frames.activity.flooded());
        }
    }

    #[test]
    fn streams_grow_old() {
        let start = clock::now();
        let mut youth = Youth {
            after: 0,
            mark: 0,
            since: start,
        };
        youth.pass(1, start + YOUNG / 2);
        assert_eq!(youth.after, 0);
        youth.pass(3, start + YOUNG);
        assert_eq!((youth.after, youth.mark), (0, 3));
        youth.pass(9, start + 2 * YOUNG);
        assert_eq!((youth.after, youth.mark), (3, 9));
        youth.pass(11, start + 9 * YOUNG);
        assert_eq!((youth.after, youth.mark), (11, 11));
    }
}
