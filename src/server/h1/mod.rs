//! HTTP/1 ahead of hyper's parser: what hyper would repair or overlook is refused here, in words (behaviour.md 2.2).
//!
//! `head` scans a head, `chunks` follows a chunked body, `gate` stands in the transport and lets through what they have
//! seen. Nothing here changes a byte or makes a request: hyper parses what passes, and the pipeline judges that again.

mod chunks;
mod gate;
mod head;

use crate::types::{Reason, Rejection};

pub use chunks::Chunks;
pub(super) use gate::{Gate, Given, STAND_IN_METHOD};
pub use head::{Framing, HeadBounds, HeadScan, Whole};

/// Why bytes are not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable reason.
    pub reason: Reason,
    /// What the log may know.
    pub detail: &'static str,
}

impl Refusal {
    fn new(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail }
    }

    /// The same as the pipeline knows it.
    #[must_use]
    pub fn into_rejection(self) -> Rejection {
        Rejection::because(self.reason, self.detail)
    }
}

/// `tchar` of RFC 9110 section 5.6.2: what methods and field names are made of.
fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES
        .get(usize::from(byte))
        .copied()
        .unwrap_or_default()
}

/// Whether whole lines hold nothing but what field lines may: visible bytes, spaces and tabs, bytes beyond ASCII, whose
/// meaning is the backend's, and line ends. Without an early end, so that it is done many bytes at a time.
fn is_text(lines: &[u8]) -> bool {
    let followers = lines.get(1..).unwrap_or_default();
    lines
        .iter()
        .zip(followers)
        .fold(true, |fine, (byte, next)| {
            let visible = (*byte >= 0x20) & (*byte != 0x7f);
            let line_end = (*byte == b'\n') | (*byte == b'\r') & (*next == b'\n');
            fine & (visible | (*byte == b'\t') | line_end)
        })
}

static TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        #[allow(
            clippy::indexing_slicing,
            reason = "a constant table, filled at compile time"
        )]
        {
            table[byte as usize] = byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
        }
        byte += 1;
    }
    table
};
