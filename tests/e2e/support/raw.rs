//! Bytes on sockets: what no well-behaved client or server would send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{client, pki, soon};

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A conversation in bytes.
pub struct Dialogue {
    stream: Box<dyn Stream>,
}

pub async fn open(address: SocketAddr) -> Dialogue {
    let stream = soon("connect", TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    Dialogue {
        stream: Box::new(stream),
    }
}

/// Over TLS, offering `alpn`.
pub async fn open_tls(address: SocketAddr, alpn: &[&str]) -> Dialogue {
    let config = pki::SHARED.client(alpn, rustls::DEFAULT_VERSIONS);
    let stream = client::tls(address, config, pki::HOST).await.unwrap();
    Dialogue {
        stream: Box::new(stream),
    }
}

impl Dialogue {
    /// Sends; the other side may have hung up already, which shows when reading.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
        self
    }

    /// Everything until the other side ends the connection.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset after the last byte is an end as well.
        let _ = soon("the connection ends", self.stream.read_to_end(&mut bytes)).await;
        bytes
    }

    /// Reads until `end` was read.
    pub async fn until(&mut self, end: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            match soon(&format!("{end:?} is read"), self.stream.read_u8()).await {
                Ok(byte) => bytes.push(byte),
                Err(_) => panic!("ended after {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
        bytes
    }

    /// What comes next; empty at the end.
    pub async fn some(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 16 << 10];
        let read = soon("something is read", self.stream.read(&mut bytes)).await;
        bytes.truncate(read.unwrap_or(0));
        bytes
    }

    /// Reads one answer with a Content-Length: head, then body.
    pub async fn answer(&mut self) -> String {
        let head = String::from_utf8(self.until("\r\n\r\n").await).unwrap();
        let length = head
            .lines()
            .filter_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")
                    .map(str::to_owned)
            })
            .find_map(|value| value.trim().parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        soon("the body", self.stream.read_exact(&mut body))
            .await
            .unwrap();
        head + &String::from_utf8_lossy(&body)
    }

    /// Reads what is there; whether the other side has ended the connection.
    pub async fn ended(&mut self) -> bool {
        let mut bytes = [0; 1024];
        let pause = std::time::Duration::from_millis(20);
        match tokio::time::timeout(pause, self.stream.read(&mut bytes)).await {
            Ok(read) => read.unwrap_or(0) == 0,
            Err(_) => false,
        }
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) -> &mut Self {
        let _ = self.stream.shutdown().await;
        self
    }
}

/// The status codes of all answers in `bytes`, informational ones left out. Bodies are skipped by their framing.
pub fn statuses(bytes: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    let mut rest = bytes;
    while let Some(end) = find(rest, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 4..];
        let status: u16 = head
            .get(9..12)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        if (100..200).contains(&status) {
            continue;
        }
        statuses.push(status);
        let field = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
        };
        if let Some(length) = field("content-length").and_then(|value| value.parse::<usize>().ok())
        {
            rest = rest.get(length..).unwrap_or_default();
        } else if field("transfer-encoding").is_some() {
            rest = find(rest, b"0\r\n\r\n").map_or(&[], |end| &rest[end + 5..]);
        }
    }
    statuses
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// One request as an origin that believes nothing read it.
#[derive(Clone, Debug)]
pub struct Bytes {
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    pub connection: usize,
    /// Whether the body ended as it should.
    pub whole: bool,
}

impl Bytes {
    pub fn head_text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    pub fn fields(&self, name: &str) -> Vec<String> {
        self.head_text()
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }
}

/// A strict HTTP/1.1 origin that keeps what it received, byte by byte, and answers `200 ok`.
pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Bytes>>>,
    faults: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

pub async fn recorder() -> Recorder {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::<Mutex<Vec<Bytes>>>::default();
    let faults = Arc::<Mutex<Vec<String>>>::default();
    let (log, wrong) = (Arc::clone(&seen), Arc::clone(&faults));
    let accepting = tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(record(
                stream,
                connection,
                Arc::clone(&log),
                Arc::clone(&wrong),
            ));
        }
    });
    Recorder {
        address,
        seen,
        faults,
        accepting,
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Recorder {
    pub fn saw(&self) -> Vec<Bytes> {
        self.seen.lock().clone()
    }

    /// What broke the rules of RFC 9112; empty for a gateway in order.
    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().clone()
    }
}

async fn record(
    mut stream: TcpStream,
    connection: usize,
    seen: Arc<Mutex<Vec<Bytes>>>,
    faults: Arc<Mutex<Vec<String>>>,
) {
    let mut buffer = Vec::new();
    loop {
        while find(&buffer, b"\r\n\r\n").is_none() {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                if !buffer.is_empty() {
                    faults.lock().push(format!(
                        "half a head: {:?}",
                        String::from_utf8_lossy(&buffer)
                    ));
                }
                return;
            }
        }
        let end = find(&buffer, b"\r\n\r\n").unwrap() + 4;
        let mut request = Bytes {
            head: buffer.drain(..end).collect(),
            body: Vec::new(),
            connection,
            whole: false,
        };
        faults.lock().extend(judge(&request));
        match read_body(&mut stream, &mut buffer, &mut request).await {
            Ok(whole) => request.whole = whole,
            Err(fault) => faults.lock().push(fault),
        }
        let whole = request.whole;
        seen.lock().push(request);
        if !whole
            || stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .is_err()
        {
            return;
        }
    }
}

/// Points 2 and 3 of the framing invariant.
fn judge(request: &Bytes) -> Vec<String> {
    let mut faults = Vec::new();
    let head = &request.head;
    let bare = |byte: u8, partner: u8, before: bool| {
        head.iter().enumerate().any(|(at, &found)| {
            let beside = if before {
                at.checked_sub(1).and_then(|at| head.get(at))
            } else {
                head.get(at + 1)
            };
            found == byte && beside != Some(&partner)
        })
    };
    if head.contains(&0) {
        faults.push("NUL".to_owned());
    }
    if bare(b'\n', b'\r', true) || bare(b'\r', b'\n', false) {
        faults.push("a bare CR or LF".to_owned());
    }
    if find(head, b"\r\n ").is_some() || find(head, b"\r\n\t").is_some() {
        faults.push("obs-fold".to_owned());
    }
    let lengths = request.fields("content-length");
    let codings = request.fields("transfer-encoding");
    if lengths.len() + codings.len() > 1 {
        faults.push(format!("framed twice: {lengths:?} {codings:?}"));
    }
    if codings.iter().any(|coding| coding != "chunked") {
        faults.push(format!("{codings:?}"));
    }
    if !faults.is_empty() {
        faults.push(request.head_text());
    }
    faults
}

async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    request: &mut Bytes,
) -> Result<bool, String> {
    if request.fields("transfer-encoding").is_empty() {
        let lengths = request.fields("content-length");
        let length = lengths
            .first()
            .and_then(|value| value.parse().ok())
            .unwrap_or(0);
        while buffer.len() < length {
            if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                return Ok(false);
            }
        }
        request.body = buffer.drain(..length).collect();
        return Ok(true);
    }
    loop {
        let Some(line) = find(buffer, b"\r\n") else {
            if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                return Ok(false);
            }
            continue;
        };
        let text = String::from_utf8_lossy(&buffer[..line]).into_owned();
        let size = usize::from_str_radix(&text, 16).map_err(|_| format!("chunk size {text:?}"))?;
        // The last chunk is followed by trailers, of which the gateway sends none here, and an empty line.
        while buffer.len() < line + 2 + size + 2 {
            if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                return Ok(false);
            }
        }
        request.body.extend(&buffer[line + 2..line + 2 + size]);
        buffer.drain(..line + 2 + size + 2);
        if size == 0 {
            return Ok(true);
        }
    }
}

/// An origin that reads a head, says `answer` whatever was asked, and ends the connection or keeps it.
pub async fn hostile(answer: impl Into<Vec<u8>>, then_close: bool) -> SocketAddr {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                loop {
                    while find(&buffer, b"\r\n\r\n").is_none() {
                        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    buffer.clear();
                    if stream.write_all(&answer).await.is_err() || then_close {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A port that nobody listens on.
pub async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A socket that nobody should connect to.
pub struct Canary {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Canary {
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub async fn silent_counting() -> Canary {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let _ = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    Canary {
        address,
        connections,
    }
}

/// A socket that accepts and says nothing.
pub async fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            kept.push(listener.accept().await.unwrap());
        }
    });
    address
}

// === HTTP/2, by hand ===

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HEADERS with the whole block, and no body behind them.
pub fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(1, 4 | 1, stream, block)
}

/// Fields as HPACK literals, never indexed nor compressed: exactly the bytes that are given.
pub fn h2_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let text = |text: &str| {
        let len = u8::try_from(text.len()).unwrap();
        assert!(len < 127);
        let mut literal = vec![len];
        literal.extend(text.as_bytes());
        literal
    };
    for (name, value) in fields {
        block.push(0);
        block.extend(text(name));
        block.extend(text(value));
    }
    block
}

/// An HTTP/2 connection in frames.
pub struct H2 {
    stream: TcpStream,
}

/// With prior knowledge and empty SETTINGS.
pub async fn h2(address: SocketAddr) -> H2 {
    let stream = soon("connect", TcpStream::connect(address)).await.unwrap();
    let mut h2 = H2 { stream };
    h2.send([PREFACE, &frame(4, 0, 0, &[])].concat()).await;
    h2
}

/// Kind, flags, stream and payload.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl H2 {
    /// Sends; whether the other side still listens.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        let read = async {
            let mut header = [0; 9];
            self.stream.read_exact(&mut header).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = header;
            let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Frame {
                kind,
                flags,
                stream: u32::from_be_bytes(stream),
                payload,
            })
        };
        soon("a frame", read).await
    }

    /// The status of the answer on `stream`; `None` if it was reset, or the connection ended.
    pub async fn status(&mut self, stream: u32) -> Option<String> {
        loop {
            let frame = self.next().await?;
            match frame.kind {
                1 if frame.stream == stream => return status_of(&frame.payload),
                3 if frame.stream == stream => return None,
                _ => {}
            }
        }
    }

    /// Everything until the connection ends; the code of the last GOAWAY, and how many frames there were.
    pub async fn until_closed(&mut self) -> (Option<u8>, usize) {
        let (mut code, mut count) = (None, 0);
        while let Some(frame) = self.next().await {
            count += 1;
            if frame.kind == 7 {
                code = frame.payload.get(7).copied();
            }
        }
        (code, count)
    }

    pub fn into_split(
        self,
    ) -> (
        tokio::net::tcp::OwnedReadHalf,
        tokio::net::tcp::OwnedWriteHalf,
    ) {
        self.stream.into_split()
    }
}

/// As much of HPACK as the first field of an answer takes: `:status`.
fn status_of(block: &[u8]) -> Option<String> {
    let known = ["200", "204", "206", "304", "400", "404", "500"];
    match block {
        [first @ 0x88..=0x8e, ..] => Some(known[usize::from(*first - 0x88)].to_owned()),
        // A literal under the name of entry 8, indexed or not, its digits by Huffman's code or plain.
        [0x48 | 0x08 | 0x18, length, rest @ ..] => {
            let digits = rest.get(..usize::from(*length & 0x7f))?;
            if length & 0x80 == 0 {
                return Some(String::from_utf8_lossy(digits).into_owned());
            }
            Some(huffman_digits(digits))
        }
        _ => panic!("{block:x?}"),
    }
}

/// Digits in the code of RFC 7541 appendix B: 0 to 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1))
        .collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number << 1 | bit);
    let (mut at, mut text) = (0, String::new());
    while text.len() < 3 {
        let five = number(&bits[at..at + 5]);
        if five <= 2 {
            text.push(char::from(b'0' + five));
            at += 5;
        } else {
            let six = number(&bits[at..at + 6]);
            text.push(char::from(b'3' + (six - 0b01_1001)));
            at += 6;
        }
    }
    text
}
