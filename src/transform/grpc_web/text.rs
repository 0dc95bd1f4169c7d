//! Base64 in streams: the text mode of gRPC-Web. Either side may pad whenever it flushes, so padding ends a segment and
//! not the body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Characters of base64 that stand for three bytes.
const GROUP: usize = 4;

/// Decodes text that is cut anywhere.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// Characters of an unfinished group; the first `held` count.
    carry: [u8; GROUP],
    held: usize,
}

impl Decoder {
    /// Appends the bytes of every group that `text` completes to `out`.
    ///
    /// # Errors
    /// When the text is not canonical base64. `out` is then of no use.
    pub fn push(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        let text = self.complete_group(text, out)?;
        let (groups, rest) = text.split_at(text.len() - text.len() % GROUP);
        out.reserve(groups.len() / GROUP * 3);
        decode_segments(groups, out)?;
        self.hold(rest);
        Ok(())
    }

    /// The end of the text.
    ///
    /// # Errors
    /// When a group is unfinished.
    pub fn end(&self) -> Result<(), &'static str> {
        if self.held == 0 {
            Ok(())
        } else {
            Err("the base64 text ends inside a group")
        }
    }

    /// Fills the held group up from the start of `text`; returns the text after it.
    fn complete_group<'a>(
        &mut self,
        text: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<&'a [u8], &'static str> {
        if self.held == 0 {
            return Ok(text);
        }
        let (filling, rest) = text.split_at(text.len().min(GROUP - self.held));
        self.hold(filling);
        if self.held == GROUP {
            self.held = 0;
            decode_segments(&self.carry, out)?;
        }
        Ok(rest)
    }

    fn hold(&mut self, text: &[u8]) {
        for (place, character) in self.carry.iter_mut().skip(self.held).zip(text) {
            *place = *character;
        }
        self.held += text.len();
    }
}

/// Decodes whole groups; one with padding may stand anywhere.
fn decode_segments(mut groups: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    while !groups.is_empty() {
        let end = groups
            .iter()
            .position(|character| *character == b'=')
            .map_or(groups.len(), |padding| (padding / GROUP + 1) * GROUP);
        let (segment, rest) = groups.split_at(end);
        STANDARD
            .decode_vec(segment, out)
            .map_err(|_| "the text is not base64")?;
        groups = rest;
    }
    Ok(())
}

/// Encodes bytes that arrive in pieces, and pads only where it is told to.
#[derive(Clone, Debug, Default)]
pub(super) struct Encoder {
    /// Bytes that make no group yet.
    carry: [u8; 2],
    held: usize,
}

impl Encoder {
    /// How many bytes wait for a group to be full.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Appends the text of every group that `bytes` completes to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut String) {
        let Some(bytes) = self.complete_group(bytes, out) else {
            return;
        };
        let (groups, rest) = bytes.split_at(bytes.len() - bytes.len() % 3);
        STANDARD.encode_string(groups, out);
        self.hold(rest);
    }

    /// Appends what is held, with padding.
    pub(super) fn flush(&mut self, out: &mut String) {
        if let Some(held) = self.carry.get(..self.held) {
            STANDARD.encode_string(held, out);
        }
        self.held = 0;
    }

    /// Fills the held group up; returns the bytes after it, or `None` if there were too few.
    fn complete_group<'a>(&mut self, bytes: &'a [u8], out: &mut String) -> Option<&'a [u8]> {
        let (group, rest) = match (self.held, self.carry, bytes) {
            (0, _, _) => return Some(bytes),
            (1, [first, _], [second, third, rest @ ..]) => ([first, *second, *third], rest),
            (2, [first, second], [third, rest @ ..]) => ([first, second, *third], rest),
            _ => {
                self.hold(bytes);
                return None;
            }
        };
        self.held = 0;
        STANDARD.encode_string(group, out);
        Some(rest)
    }

    fn hold(&mut self, bytes: &[u8]) {
        for (place, byte) in self.carry.iter_mut().skip(self.held).zip(bytes) {
            *place = *byte;
        }
        self.held += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::cut;
    use super::*;

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, &'static str> {
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for piece in pieces {
            decoder.push(piece, &mut out)?;
        }
        decoder.end().map(|()| out)
    }

    fn check(text: &str, expected: Option<&[u8]>) {
        for size in 1..=text.len().max(1) {
            let decoded = decode(text.as_bytes().chunks(size));
            assert_eq!(decoded.ok().as_deref(), expected, "{text} by {size}");
        }
    }

    #[test]
    fn segments_with_their_own_padding_are_one_stream() {
        check("", Some(b""));
        check("YWJj", Some(b"abc"));
        check("YQ==", Some(b"a"));
        check("YQ==YmM=ZGVm", Some(b"abcdef"));
        check("AAAAAAA=", Some(b"\0\0\0\0\0"));
    }

    #[test]
    fn what_is_not_canonical_base64_is_refused() {
        // `YR==` and `YWK=` have bits beyond their last byte.
        for text in [
            "YWJ",
            "YQ=",
            "YQ",
            "Y",
            "=",
            "====",
            "Y===",
            "YQ=a",
            "=YWJ",
            "YWJj=",
            "YR==",
            "YWK=YQ==",
            "YW Jj",
            "YWJj\n",
            "YW-_",
            "YWJ\u{fe}",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn padding_comes_only_with_a_flush() {
        let mut encoder = Encoder::default();
        let mut out = String::new();
        encoder.push(b"a", &mut out);
        assert_eq!((&*out, encoder.held()), ("", 1));
        encoder.push(b"b", &mut out);
        assert_eq!((&*out, encoder.held()), ("", 2));
        encoder.push(b"cd", &mut out);
        assert_eq!((&*out, encoder.held()), ("YWJj", 1));
        encoder.flush(&mut out);
        encoder.flush(&mut out);
        assert_eq!((&*out, encoder.held()), ("YWJjZA==", 0));
    }

    proptest! {
        #[test]
        fn any_cutting_decodes_to_the_same_bytes(
            segments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..6),
            places in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            let text: String = segments.iter().map(|bytes| STANDARD.encode(bytes)).collect();
            let decoded = decode(cut(text.as_bytes(), &places));
            prop_assert_eq!(decoded, Ok(segments.concat()));
        }

        #[test]
        fn any_cutting_of_any_text_has_the_same_outcome(
            text in "[A-D=]{0,24}",
            places in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            let whole = decode([text.as_bytes()]);
            let pieces = decode(cut(text.as_bytes(), &places));
            prop_assert_eq!(whole.ok(), pieces.ok());
        }

        #[test]
        fn any_cutting_encodes_to_the_same_text(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            places in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut encoder = Encoder::default();
            let mut out = String::new();
            for piece in cut(&bytes, &places) {
                encoder.push(piece, &mut out);
            }
            encoder.flush(&mut out);
            prop_assert_eq!(out, STANDARD.encode(&bytes));
        }
    }
}
