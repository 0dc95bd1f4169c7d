//! Follows a chunked body (RFC 9112 section 7.1), strictly: where it ends, and whether two readers could disagree about
//! that. hyper decodes it; what is refused here never reaches hyper.

use super::{Refusal, is_token_byte};
use crate::types::Reason;

/// A chunked body under way.
#[derive(Debug, Default)]
pub struct Chunks {
    at: At,
    size: u64,
    digits: u8,
    /// Bytes of extensions, over all chunks.
    extensions: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    /// White space after the size; only an extension may follow.
    Gap,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the first byte of a trailer line, or of the line that ends the body.
    Line,
    Name,
    Value,
    ValueLf,
    EndLf,
    Done,
}

impl Chunks {
    /// Follows `bytes`; says how many of them belong to the body, and whether that is all of it.
    ///
    /// # Errors
    /// The rule that the body breaks.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<(usize, bool), Refusal> {
        let mut read = 0;
        while self.at != At::Done {
            if self.at == At::Data {
                let left = bytes.len() - read;
                let data = usize::try_from(self.size).map_or(left, |size| size.min(left));
                read += data;
                self.size -= data as u64;
                if self.size > 0 {
                    break;
                }
                self.at = At::DataCr;
            }
            let Some(byte) = bytes.get(read) else {
                break;
            };
            self.at = self.step(*byte)?;
            read += 1;
        }
        Ok((read, self.at == At::Done))
    }

    fn step(&mut self, byte: u8) -> Result<At, Refusal> {
        match (self.at, byte) {
            (At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.take_digit(byte),
            (At::Size | At::Gap, b';') if self.digits > 0 => self.take_extension(),
            (At::Size | At::Gap, b' ' | b'\t') if self.digits > 0 => {
                self.take_extension().map(|_| At::Gap)
            }
            (At::Size, b'\r') if self.digits > 0 => Ok(At::SizeLf),
            (At::Extension, b'\r') => Ok(At::SizeLf),
            (At::Extension, b'\t' | 0x20..=0x7e | 0x80..) => self.take_extension(),
            (At::SizeLf, b'\n') => Ok(self.begin_data()),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(At::Size),
            (At::Line, b'\r') => Ok(At::EndLf),
            (At::Line | At::Name, _) if is_token_byte(byte) => self.take_trailer(At::Name),
            (At::Name, b':') => self.take_trailer(At::Value),
            (At::Value, b'\r') => Ok(At::ValueLf),
            (At::Value, b'\t' | 0x20..=0x7e | 0x80..) => self.take_trailer(At::Value),
            (At::ValueLf, b'\n') => Ok(At::Line),
            (At::EndLf, b'\n') => Ok(At::Done),
            (At::Size | At::Gap | At::SizeLf, _) => Err(bad("a chunk size is malformed")),
            (At::Extension, _) => Err(bad("a chunk extension is malformed")),
            (At::Line | At::Name | At::Value | At::ValueLf | At::EndLf, _) => {
                Err(bad("a trailer is malformed"))
            }
            _ => Err(bad("a chunk is longer than its size")),
        }
    }

    fn take_digit(&mut self, byte: u8) -> Result<At, Refusal> {
        let digit = char::from(byte).to_digit(16).unwrap_or(0);
        // Sixteen digits fill a u64; more could only be leading zeros, which nobody honest sends.
        if self.digits == 16 {
            return Err(bad("a chunk size is too large"));
        }
        self.digits += 1;
        self.size = self.size << 4 | u64::from(digit);
        Ok(At::Size)
    }

    fn take_extension(&mut self) -> Result<At, Refusal> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS {
            return Err(bad("the chunk extensions are too long"));
        }
        Ok(At::Extension)
    }

    fn take_trailer(&mut self, next: At) -> Result<At, Refusal> {
        self.trailers += 1;
        if self.trailers > MAX_TRAILERS {
            return Err(bad("the trailers are too long"));
        }
        Ok(next)
    }

    fn begin_data(&mut self) -> At {
        self.digits = 0;
        if self.size == 0 { At::Line } else { At::Data }
    }
}

fn bad(detail: &'static str) -> Refusal {
    Refusal::new(Reason::BadFraming, detail)
}

const MAX_EXTENSIONS: usize = 16 << 10;
const MAX_TRAILERS: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(body: &str) {
        let wire = format!("{body}GET");
        let followed = Chunks::default().follow(wire.as_bytes());
        assert_eq!(followed, Ok((body.len(), true)), "{body:?}");
    }

    fn refused(body: &str) {
        let why = Chunks::default().follow(body.as_bytes()).unwrap_err();
        assert_eq!(why.reason, Reason::BadFraming, "{body:?}");
    }

    #[test]
    fn bodies_end_where_they_say() {
        ends("0\r\n\r\n");
        ends("5\r\nhello\r\n0\r\n\r\n");
        ends("A\r\n0\r\n\r\n0\r\n\r\n\r\n000\r\n\r\n");
        ends("5;a=\"b\"\r\nhello\r\n0 ;x\r\n\r\n");
        ends("1\r\n\0\r\n0\r\nX: y\r\ngrpc-status:0\r\n\r\n");
        ends("0\r\nX:\r\n\r\n");
    }

    #[test]
    fn an_unfinished_body_is_followed_further() {
        let mut chunks = Chunks::default();
        assert_eq!(chunks.follow(b"ffffffffffffffff\r\nabc"), Ok((21, false)));
        assert_eq!(chunks.follow(b"def"), Ok((3, false)));
    }

    #[test]
    fn odd_sizes_are_refused() {
        for body in [
            "\r\n",
            " 5\r\n",
            "\t5\r\n",
            "+5\r\n",
            "-1\r\n",
            "0x5\r\n",
            "0_2e\r\n",
            "5 \r\n",
            "5 5\r\n",
            "5\n",
            "5\r\r",
            "5\rx",
            ";x\r\n",
            "g\r\n",
            "10000000000000000\r\n",
            "00000000000000001\r\n",
        ] {
            refused(body);
        }
    }

    #[test]
    fn odd_ends_of_chunks_and_trailers_are_refused() {
        for body in [
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhelloX",
            "5\r\nhello\rX",
            "5;a\n",
            "5;a\0\r\n",
            "5;a\rb",
            "0\r\n\n",
            "0\r\nX: y\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\nX: y\r\n z\r\n\r\n",
            "0\r\n:y\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\nX: \0\r\n\r\n",
            "0\r\n\rX",
        ] {
            refused(body);
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let chunk = format!("1;{}\r\nx\r\n", "e".repeat(1000));
        refused(&chunk.repeat(17));
        refused(&format!("0\r\nX: {}", "y".repeat(17 << 10)));
    }

    proptest! {
        #[test]
        fn any_cut_reads_the_same(body in "([0-9a-f]{1,2}(;x)?\r\n[a-f\r\n]{0,12}\r\n|0\r\n|X: y\r\n|\r\n){0,6}", size in 1_usize..9) {
            let whole = Chunks::default().follow(body.as_bytes());
            let mut chunks = Chunks::default();
            let mut pieces = Ok((0, false));
            for piece in body.as_bytes().chunks(size) {
                pieces = match (pieces, chunks.follow(piece)) {
                    (Ok((read, false)), Ok((more, done))) => Ok((read + more, done)),
                    (Ok((read, true)), _) => Ok((read, true)),
                    (_, Err(why)) => Err(why),
                    (Err(why), _) => Err(why),
                };
                if pieces.is_err() {
                    break;
                }
            }
            prop_assert_eq!(pieces, whole);
        }
    }
}
