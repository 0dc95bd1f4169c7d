//! The status that ends an answer, where the dialect puts it into the body: the trailers frame of gRPC-Web, the last
//! message of a Connect stream. Only watched, and only for those who must know how it ended.

use serde_json::Value;

use super::grpc_web::Decoder;
use crate::types::Dialect;

/// Reads the status off a body that passes in pieces. Keeps a few bytes, and of the closing frame up to 16 KiB.
#[derive(Clone, Debug)]
pub struct Closing {
    /// The flag of the frame that ends the answer.
    flag: u8,
    text: Option<Decoder>,
    prefix: [u8; PREFIX],
    prefix_seen: usize,
    /// Bytes of the message still to come.
    left: usize,
    closing: Vec<u8>,
    status: Option<u32>,
}

/// Flags and length.
const PREFIX: usize = 5;
/// A closing frame beyond this tells nothing.
const MOST: usize = 16 * 1024;
const TRAILERS: u8 = 0x80;
const END_STREAM: u8 = 0x02;

impl Closing {
    /// For an answer in `dialect`, if its status stands in the body.
    #[must_use]
    pub fn of(dialect: Dialect) -> Option<Self> {
        let (flag, text) = match dialect {
            Dialect::GrpcWeb => (TRAILERS, None),
            Dialect::GrpcWebText => (TRAILERS, Some(Decoder::default())),
            Dialect::ConnectStream | Dialect::ConnectStreamJson => (END_STREAM, None),
            Dialect::Http | Dialect::Grpc | Dialect::Connect => return None,
        };
        Some(Self {
            flag,
            text,
            prefix: [0; PREFIX],
            prefix_seen: 0,
            left: 0,
            closing: Vec::new(),
            status: None,
        })
    }

    /// Takes the next piece of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(decoder) = &mut self.text else {
            return self.frames(bytes);
        };
        let mut plain = Vec::new();
        // What is no base64 has no status, and whoever reads it will say so.
        if decoder.push(bytes, &mut plain).is_ok() {
            self.frames(&plain);
        }
    }

    /// The status, once it has passed: that of gRPC, into which Connect's is translated.
    #[must_use]
    pub fn status(&self) -> Option<u32> {
        self.status
    }

    fn frames(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let (message, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.message(message);
                bytes = rest;
                continue;
            }
            if let Some(place) = self.prefix.get_mut(self.prefix_seen) {
                *place = *first;
            }
            self.prefix_seen += 1;
            bytes = rest;
            if self.prefix_seen == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.prefix_seen = 0;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                if self.left == 0 {
                    self.message(&[]);
                }
            }
        }
    }

    fn message(&mut self, part: &[u8]) {
        self.left -= part.len();
        let [flag, length @ ..] = self.prefix;
        if flag != self.flag || u32::from_be_bytes(length) as usize > MOST {
            return;
        }
        self.closing.extend_from_slice(part);
        if self.left == 0 {
            self.status = match self.flag {
                TRAILERS => trailers_status(&self.closing),
                _ => connect_status(&self.closing),
            };
            self.closing.clear();
        }
    }
}

/// Trailers are a header block; names may be in any case.
fn trailers_status(block: &[u8]) -> Option<u32> {
    let mut lines = block.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        if !name.trim_ascii().eq_ignore_ascii_case(b"grpc-status") {
            return None;
        }
        let value = std::str::from_utf8(value.get(1..)?).ok()?;
        value.trim().parse().ok()
    })
}

/// `{}` is success, an `error` has a code by name.
fn connect_status(message: &[u8]) -> Option<u32> {
    let message: Value = serde_json::from_slice(message).ok()?;
    let Some(error) = message.get("error").filter(|error| !error.is_null()) else {
        return Some(0);
    };
    let code = error.get("code").and_then(Value::as_str);
    let known = (1..).zip(CODES).find(|(_, name)| code == Some(name));
    Some(known.map_or(UNKNOWN, |(status, _)| status))
}

const UNKNOWN: u32 = 2;

/// The codes of Connect, which are those of gRPC from 1.
const CODES: [&str; 16] = [
    "canceled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[flag][..], &length, message].concat()
    }

    /// The same status however the body is cut.
    fn check(dialect: Dialect, body: &[u8], expected: Option<u32>) {
        for size in 1..=body.len() {
            let mut closing = Closing::of(dialect).unwrap();
            body.chunks(size).for_each(|piece| closing.push(piece));
            assert_eq!(closing.status(), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn the_trailers_frame_of_grpc_web_is_read_in_both_codings() {
        for (block, expected) in [
            (&b"grpc-status: 16\r\ngrpc-message: no\r\n"[..], Some(16)),
            (b"Grpc-Message: x\r\nGrpc-Status:7", Some(7)),
            (b"grpc-status: 0\r\n", Some(0)),
            (b"x: grpc-status: 7\r\n", None),
            (b"", None),
        ] {
            let body = [frame(0, b"grpc-status: 5"), frame(0x80, block)].concat();
            check(Dialect::GrpcWeb, &body, expected);
            let text = [
                STANDARD.encode(frame(0, b"message")),
                STANDARD.encode(frame(0x80, block)),
            ];
            check(Dialect::GrpcWebText, text.concat().as_bytes(), expected);
        }
    }

    #[test]
    fn the_last_message_of_a_connect_stream_is_read() {
        for (message, expected) in [
            (&b"{}"[..], Some(0)),
            (br#"{"error":null}"#, Some(0)),
            (br#"{"error":{"code":"unauthenticated"}}"#, Some(16)),
            (br#"{"error":{"code":"permission_denied"}}"#, Some(7)),
            (br#"{"error":{"code":"canceled"}}"#, Some(1)),
            (br#"{"error":{}}"#, Some(2)),
            (b"?", None),
        ] {
            let body = [frame(0, b"{}"), frame(2, message)].concat();
            check(Dialect::ConnectStream, &body, expected);
        }
    }

    #[test]
    fn a_frame_that_is_too_large_or_unfinished_tells_nothing() {
        let long = [b"grpc-status: 0\r\nx: ".to_vec(), vec![b'a'; MOST]].concat();
        let mut closing = Closing::of(Dialect::GrpcWeb).unwrap();
        closing.push(&frame(0x80, &long));
        assert_eq!((closing.status(), closing.closing.capacity()), (None, 0));
        let whole = frame(0x80, b"grpc-status: 16");
        check(Dialect::GrpcWeb, &whole[..whole.len() - 1], None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(0x80), any::<u8>()], 0..64),
            size in 1..9usize,
        ) {
            for dialect in [Dialect::GrpcWeb, Dialect::GrpcWebText, Dialect::ConnectStream] {
                let (mut whole, mut cut) = (Closing::of(dialect).unwrap(), Closing::of(dialect).unwrap());
                whole.push(&bytes);
                bytes.chunks(size).for_each(|piece| cut.push(piece));
                if dialect != Dialect::GrpcWebText {
                    prop_assert_eq!(whole.status(), cut.status());
                }
            }
        }
    }
}
