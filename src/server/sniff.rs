//! Tells HTTP/2 with prior knowledge from HTTP/1 on a cleartext connection. TLS never comes here: ALPN has decided.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use crate::types::Protocol;

/// The bytes that had to be read to decide; whoever serves the connection reads them first.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    bytes: [u8; LONGEST],
    start: usize,
    end: usize,
}

impl Prefix {
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Moves as many bytes into `buf` as it has room for.
    pub(super) fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let len = (self.end - self.start).min(buf.remaining());
        if let Some(bytes) = self.bytes.get(self.start..self.start + len) {
            buf.put_slice(bytes);
            self.start += len;
        }
    }
}

/// Reads just as much as the decision takes.
pub(super) async fn sniff(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Protocol, Prefix)> {
    let mut prefix = Prefix::default();
    loop {
        let read = match prefix.bytes.get_mut(prefix.end..) {
            Some(room) => stream.read(room).await?,
            None => 0,
        };
        prefix.end += read;
        let protocol = judge(prefix.bytes.get(..prefix.end).unwrap_or_default());
        match protocol {
            Some(protocol) => return Ok((protocol, prefix)),
            None if read == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    }
}

/// `None`: more bytes are needed. No HTTP/1 request begins with this line, so the rest of the preface is left to h2,
/// which answers a bad one as its protocol demands.
fn judge(bytes: &[u8]) -> Option<Protocol> {
    let common = bytes.len().min(UNAMBIGUOUS.len());
    if bytes.get(..common) != UNAMBIGUOUS.get(..common) {
        Some(Protocol::Http1)
    } else if common == UNAMBIGUOUS.len() {
        Some(Protocol::Http2)
    } else {
        None
    }
}

const UNAMBIGUOUS: &[u8] = b"PRI * HTTP/2.0\r\n";
const LONGEST: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Option<Protocol>) {
        assert_eq!(judge(bytes), expected, "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn the_first_difference_decides() {
        check(b"", None);
        check(b"P", None);
        check(b"PRI * HTTP/2.0\r", None);
        check(b"PRI * HTTP/2.0\r\n", Some(Protocol::Http2));
        check(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Some(Protocol::Http2));
        check(b"POST / HTTP/1.1\r\n", Some(Protocol::Http1));
        check(b"PRI * HTTP/1.1\r\n", Some(Protocol::Http1));
        check(b"\x16\x03\x01", Some(Protocol::Http1));
    }

    #[tokio::test]
    async fn no_byte_is_lost() {
        let mut wire: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let (protocol, mut prefix) = sniff(&mut wire).await.unwrap();
        let mut first = [0; 5];
        let mut rest = [0; 64];
        let mut buf = ReadBuf::new(&mut first);
        prefix.take(&mut buf);
        let mut rest = ReadBuf::new(&mut rest);
        prefix.take(&mut rest);
        let seen = [buf.filled(), rest.filled(), wire].concat();
        assert_eq!(protocol, Protocol::Http1);
        assert_eq!(seen, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert!(prefix.is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_ends_undecided_is_an_error() {
        let mut wire: &[u8] = b"PRI * H";
        assert!(sniff(&mut wire).await.is_err());
    }
}
