//! Follows the frames of one direction of a WebSocket (RFC 6455 section 5.2), as far as it takes to know where one ends:
//! only there may a close frame of our own stand. Not a byte is changed.

/// Where in the frames the last byte was.
#[derive(Debug, Default)]
pub(super) struct Frames {
    at: At,
    /// Whether the frame under way is a close frame.
    closing: bool,
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Between two frames.
    #[default]
    Boundary,
    /// Before the byte that holds the mask bit and the short length.
    Length,
    /// So many bytes of the long length, and what came of it so far.
    LongLength {
        left: u8,
        length: u64,
        masked: bool,
    },
    /// So many bytes of the mask, then so many of the payload.
    Mask {
        left: u8,
        length: u64,
    },
    Payload(u64),
    /// What came is no frame: no byte is known to be the last of one any more.
    Lost,
}

impl Frames {
    /// Follows `bytes` up to the first end of a frame, or to their own end; how many were followed.
    pub(super) fn step(&mut self, bytes: &[u8]) -> usize {
        let mut read = 0;
        while let Some(byte) = bytes.get(read) {
            if let At::Payload(left) = self.at {
                let here = bytes.len() - read;
                let taken = usize::try_from(left).map_or(here, |left| left.min(here));
                read += taken;
                self.at = payload(left - taken as u64);
            } else {
                read += 1;
                self.at = self.head(*byte);
            }
            if self.at == At::Boundary {
                self.closed |= self.closing;
                return read;
            }
        }
        read
    }

    /// Follows all of `bytes`.
    pub(super) fn follow(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let read = self.step(rest);
            rest = rest.get(read..).unwrap_or_default();
        }
    }

    /// Whether the next byte begins a frame.
    pub(super) fn at_boundary(&self) -> bool {
        self.at == At::Boundary
    }

    /// Whether a close frame has passed: nothing may follow it.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    fn head(&mut self, byte: u8) -> At {
        match self.at {
            At::Boundary => {
                self.closing = byte & 0x0f == CLOSE;
                At::Length
            }
            At::Length => {
                let masked = byte & 0x80 != 0;
                let long = |left| At::LongLength {
                    left,
                    length: 0,
                    masked,
                };
                match byte & 0x7f {
                    126 => long(2),
                    127 => long(8),
                    short => mask_of(u64::from(short), masked),
                }
            }
            At::LongLength {
                left,
                length,
                masked,
            } => {
                let length = length << 8 | u64::from(byte);
                match left {
                    // The highest bit must not be set.
                    1 if length > u64::MAX >> 1 => At::Lost,
                    1 => mask_of(length, masked),
                    _ => At::LongLength {
                        left: left - 1,
                        length,
                        masked,
                    },
                }
            }
            At::Mask { left: 1, length } => payload(length),
            At::Mask { left, length } => At::Mask {
                left: left - 1,
                length,
            },
            At::Payload(_) | At::Lost => At::Lost,
        }
    }
}

/// A close frame as a server sends it.
pub(super) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    // A control frame holds 125 bytes at most.
    let reason = reason.as_bytes().get(..123).unwrap_or(reason.as_bytes());
    let len = u8::try_from(2 + reason.len()).unwrap_or(125);
    let mut frame = vec![0x80 | CLOSE, len];
    frame.extend(code.to_be_bytes());
    frame.extend(reason);
    frame
}

fn mask_of(length: u64, masked: bool) -> At {
    if masked {
        At::Mask { left: 4, length }
    } else {
        payload(length)
    }
}

fn payload(left: u64) -> At {
    if left == 0 {
        At::Boundary
    } else {
        At::Payload(left)
    }
}

/// The opcode of a close frame.
const CLOSE: u8 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let mask = if masked { 0x80 } else { 0 };
        match length {
            0..126 => frame.push(mask | u8::try_from(length).unwrap()),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0xff; if masked { 4 } else { 0 } + length]);
        frame
    }

    #[test]
    fn a_frame_ends_with_its_last_byte_and_nowhere_else() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            for masked in [false, true] {
                let whole = frame(2, length, masked);
                let mut frames = Frames::default();
                frames.follow(&whole[..whole.len() - 1]);
                assert!(!frames.at_boundary(), "{length} {masked}");
                frames.follow(&whole[whole.len() - 1..]);
                assert!(
                    frames.at_boundary() && !frames.closed(),
                    "{length} {masked}"
                );
            }
        }
    }

    #[test]
    fn a_step_stops_at_the_first_end() {
        let (one, two) = (frame(1, 300, false), frame(2, 5, false));
        let both = [one.clone(), two.clone()].concat();
        let mut frames = Frames::default();
        assert_eq!(frames.step(&both), one.len());
        assert_eq!(frames.step(&both[one.len()..]), two.len());
        assert_eq!(frames.step(&[]), 0);
    }

    #[test]
    fn a_close_frame_is_noticed_when_it_is_whole() {
        let close = close_frame(4401, "token_expired");
        assert_eq!(close[..4], [0x88, 15, 0x11, 0x31]);
        let mut frames = Frames::default();
        frames.follow(&close[..3]);
        assert!(!frames.closed());
        frames.follow(&close[3..]);
        assert!(frames.closed() && frames.at_boundary());
        assert_eq!(close_frame(1001, &"x".repeat(300)).len(), 127);
    }

    #[test]
    fn what_is_no_frame_has_no_end() {
        let mut frames = Frames::default();
        frames.follow(&[0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 1]);
        frames.follow(&[0; 64]);
        assert!(!frames.at_boundary());
    }

    proptest! {
        #[test]
        fn any_cut_reads_the_same(lengths in prop::collection::vec((0_usize..200, any::<bool>()), 1..6), size in 1_usize..50) {
            let wire: Vec<u8> = lengths.iter().flat_map(|(length, masked)| frame(2, *length, *masked)).collect();
            let mut frames = Frames::default();
            for piece in wire.chunks(size) {
                frames.follow(piece);
            }
            prop_assert!(frames.at_boundary());
        }
    }
}
