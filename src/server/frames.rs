//! Reads along with an h2 client's frames, without touching them: whether a header block is unfinished, how often the
//! client sends what costs it nothing and us an answer, and how much it lets us send. h2 bounds none of it.

use std::sync::Arc;
use std::time::Instant;

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
    last_stream: u32,
    controls: Window,
    resets: Window,
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
            last_stream: 0,
            controls: window(limits.max_control_frames),
            resets: window(limits.max_resets),
        }
    }

    /// The highest stream that the client has opened.
    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Takes the next bytes of the connection, cut anywhere.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        skip(&mut self.preface_left, &mut bytes);
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let before = bytes;
                skip(&mut self.payload_left, &mut bytes);
                let payload = before.get(..before.len() - bytes.len());
                self.read(payload.unwrap_or_default());
                self.end_frame();
                continue;
            }
            let Some((first, rest)) = bytes.split_first() else {
                return;
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
    }

    fn begin_frame(&mut self) {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = self.header;
        self.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.ends_block = false;
        self.entry_len = 0;
        match kind {
            HEADERS | CONTINUATION => {
                let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
                self.last_stream = self.last_stream.max(stream);
                self.activity.set_head(true);
                self.ends_block = flags & END_HEADERS != 0;
            }
            RST_STREAM => self.reset(),
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
        if self.payload_left == 0 && self.ends_block {
            self.ends_block = false;
            self.activity.set_head(false);
        }
    }

    fn reset(&mut self) {
        if self.resets.count(0, clock::now()) {
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
    use std::time::Duration;

    fn frames(max: u32) -> Frames {
        let activity = Activity::new(clock::now(), u32::MAX);
        let limits = ListenerLimits {
            max_control_frames: max,
            max_resets: max,
            ..super::super::tests::limits()
        };
        let mut frames = Frames::new(activity, &limits);
        frames.pass(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
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
            frames.pass(std::slice::from_ref(byte));
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
            wire.chunks(size).for_each(|chunk| frames.pass(chunk));
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
            wire.chunks(size).for_each(|chunk| frames.pass(chunk));
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
        (0..2).for_each(|_| few.pass(&ping));
        assert!(!few.activity.flooded());
        few.activity.answered(100);
        few.pass(&ping);
        assert!(!few.activity.flooded());
        few.pass(&ping);
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
    fn resets_beyond_the_cap_are_a_flood() {
        let mut frames = frames(1);
        frames.pass(&frame(RST_STREAM, 0, 1, b"1234"));
        assert!(!frames.activity.flooded());
        frames.pass(&frame(RST_STREAM, 0, 3, b"1234"));
        assert!(frames.activity.flooded());
    }
}
