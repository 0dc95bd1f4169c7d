//! The length-prefixed frames of gRPC, watched as they pass: one byte of flags, four of length, then the message.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

/// Follows frames through bytes that are cut anywhere. Keeps no byte of a message: what bounds a frame is the bound of
/// the body.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// The length of the message, as far as the prefix has told it.
    length: u32,
    /// Bytes of the prefix seen so far; 0 while a message passes.
    prefix_seen: u8,
    /// Bytes of the message still to come.
    left: u32,
    /// Bytes of the unfinished frame seen so far, the prefix included.
    progress: usize,
}

/// Flags and length.
const PREFIX: u8 = 5;

/// The flag of a frame that holds trailers; gRPC itself has no such frame.
const TRAILERS: u8 = 0x80;

impl Frames {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When a frame has flags that gRPC does not know: a client's trailers, or no frame at all.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                bytes = self.pass_message(bytes);
                continue;
            }
            match self.prefix_seen {
                0 if *first > 1 => return Err("a frame has unknown flags"),
                0 => self.length = 0,
                _ => self.length = self.length << 8 | u32::from(*first),
            }
            bytes = rest;
            self.prefix_seen += 1;
            self.progress += 1;
            if self.prefix_seen == PREFIX {
                self.prefix_seen = 0;
                self.left = self.length;
                self.settle();
            }
        }
        Ok(())
    }

    /// Whether no frame is unfinished.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.progress == 0
    }

    /// How many bytes of an unfinished frame have passed.
    #[must_use]
    pub fn progress(&self) -> usize {
        self.progress
    }

    /// Lets bytes of the message pass; returns what follows it.
    fn pass_message<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let passing = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.left -= u32::try_from(passing).unwrap_or(self.left);
        self.progress = self.progress.saturating_add(passing);
        self.settle();
        bytes.get(passing..).unwrap_or_default()
    }

    fn settle(&mut self) {
        if self.left == 0 {
            self.progress = 0;
        }
    }
}

/// The frame in which gRPC-Web sends trailers: a header block of its own, lower case, without a blank line.
pub(super) fn trailer_frame(trailers: &HeaderMap) -> Option<Bytes> {
    let mut block = Vec::with_capacity(64);
    for (name, value) in trailers {
        block.extend_from_slice(name.as_str().as_bytes());
        block.extend_from_slice(b": ");
        block.extend_from_slice(value.as_bytes());
        block.extend_from_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(usize::from(PREFIX) + block.len());
    frame.put_u8(TRAILERS);
    frame.put_u32(u32::try_from(block.len()).ok()?);
    frame.put_slice(&block);
    Some(frame.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8], expected: Result<usize, ()>) {
        for size in 1..=bytes.len().max(1) {
            let mut frames = Frames::default();
            let answer = bytes.chunks(size).try_for_each(|piece| frames.push(piece));
            assert_eq!(
                answer.map(|()| frames.progress()).map_err(|_| ()),
                expected,
                "{bytes:?} in pieces of {size}"
            );
        }
    }

    #[test]
    fn whole_frames_end_at_a_boundary() {
        check(b"", Ok(0));
        check(b"\0\0\0\0\0", Ok(0));
        check(b"\x01\0\0\0\x02ab", Ok(0));
        check(b"\0\0\0\0\x01a\0\0\0\0\0\x01\0\0\0\x01b", Ok(0));
    }

    #[test]
    fn an_unfinished_frame_is_known() {
        check(b"\0", Ok(1));
        check(b"\0\0\0\0", Ok(4));
        check(b"\0\0\0\0\x02a", Ok(6));
        check(b"\0\0\0\0\x01a\x01", Ok(1));
        check(b"\0\xff\xff\xff\xffabc", Ok(8));
    }

    #[test]
    fn flags_beyond_compression_are_refused() {
        for flags in [2, 0x80, 0x81, 0xff] {
            check(&[flags], Err(()));
            check(&[0, 0, 0, 0, 0, flags, 0, 0, 0, 0], Err(()));
        }
    }

    #[test]
    fn trailers_become_a_header_block_in_a_flagged_frame() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.append("x-a", "1".parse().unwrap());
        trailers.append("x-a", "2".parse().unwrap());
        let block = b"grpc-status: 0\r\nx-a: 1\r\nx-a: 2\r\n";
        let frame = trailer_frame(&trailers).unwrap();
        assert_eq!(frame[..5], [0x80, 0, 0, 0, 32]);
        assert_eq!(&frame[5..], block);
    }

    proptest! {
        #[test]
        fn cuts_do_not_change_what_is_seen(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), 0..4u8, any::<u8>()], 0..64),
            size in 1..9usize,
        ) {
            let (mut whole, mut cut) = (Frames::default(), Frames::default());
            let one = whole.push(&bytes);
            let other = bytes.chunks(size).try_for_each(|piece| cut.push(piece));
            prop_assert_eq!(one, other);
            if one.is_ok() {
                prop_assert_eq!(whole.progress(), cut.progress());
            }
        }
    }
}
