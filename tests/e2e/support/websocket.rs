//! WebSockets by hand (RFC 6455): an origin that does what it is told, and clients over HTTP/1.1 and HTTP/2 (RFC 8441).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::client::{self, Via};
use super::origin::Gate;
use super::raw::{self, Dialogue, find};
use super::{eventually, pki, soon};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What a key must be answered with.
pub fn accept(key: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(context.finish())
}

/// What the origin does once it has read a head.
#[derive(Clone)]
pub enum Act {
    /// Switches, and sends back every message.
    Echo,
    /// Switches, sends these bytes, and reads.
    Say(Vec<u8>),
    /// Switches, sends these bytes, and ends the connection.
    SayAndEnd(Vec<u8>),
    /// Switches and sends for ever.
    Flood,
    /// Sends these bytes in place of a switch; `{accept}` stands for the right one.
    Answer(String),
}

/// One connection as the origin saw it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub head: String,
    /// Every byte behind the head.
    pub bytes: Vec<u8>,
    pub ended: bool,
}

impl Seen {
    pub fn field(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned());
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice: {}", self.head);
        value
    }
}

pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

pub async fn origin(act: Act) -> Origin {
    origin_behind(act, None).await
}

/// The origin acts when the gate opens.
pub async fn origin_behind(act: Act, gate: Option<Gate>) -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::<Mutex<Vec<Seen>>>::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (act, gate, log) = (act.clone(), gate.clone(), Arc::clone(&log));
            tokio::spawn(async move {
                let number = {
                    let mut log = log.lock();
                    log.push(Seen::default());
                    log.len() - 1
                };
                let _ = serve(stream, act, gate, &log, number).await;
                log.lock()[number].ended = true;
            });
        }
    });
    Origin { address, seen }
}

impl Origin {
    pub fn saw(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub fn only(&self) -> Seen {
        let mut seen = self.saw();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen.remove(0)
    }

    /// Waits until so many heads have come.
    pub async fn reached(&self, count: usize) {
        eventually(&format!("{count} heads at the origin"), async || {
            self.saw()
                .iter()
                .filter(|seen| !seen.head.is_empty())
                .count()
                >= count
        })
        .await;
    }

    /// Waits until every connection has ended.
    pub async fn ended(&self) {
        eventually("every connection to the origin ends", async || {
            self.saw().iter().all(|seen| seen.ended)
        })
        .await;
    }
}

async fn serve(
    mut stream: TcpStream,
    act: Act,
    gate: Option<Gate>,
    log: &Mutex<Vec<Seen>>,
    number: usize,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let end = loop {
        if let Some(end) = find(&buffer, b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    };
    {
        let mut log = log.lock();
        log[number].head = String::from_utf8(buffer[..end].to_vec()).unwrap();
        log[number].bytes = buffer[end..].to_vec();
    }
    if let Some(gate) = gate {
        // What comes meanwhile came too early.
        loop {
            let mut early = [0; 1024];
            tokio::select! {
                () = gate.opened() => break,
                count = stream.read(&mut early) => {
                    let count = count?;
                    log.lock()[number].bytes.extend(&early[..count]);
                    if count == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }
    let key = log.lock()[number]
        .field("sec-websocket-key")
        .unwrap_or_default();
    let switch = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {}\r\nsec-websocket-protocol: chat\r\n\r\n",
        accept(&key)
    );
    let first = match &act {
        Act::Echo | Act::Flood => switch.into_bytes(),
        Act::Say(bytes) | Act::SayAndEnd(bytes) => [switch.as_bytes(), bytes].concat(),
        Act::Answer(answer) => answer.replace("{accept}", &accept(&key)).into_bytes(),
    };
    stream.write_all(&first).await?;
    if matches!(act, Act::SayAndEnd(_)) {
        return Ok(());
    }
    let (mut reader, mut writer) = stream.split();
    if matches!(act, Act::Flood) {
        let frame = frame(BINARY, &[0; 8192], true, None);
        loop {
            writer.write_all(&frame).await?;
        }
    }
    let mut pending = BytesMut::from(&buffer[end..]);
    loop {
        if matches!(act, Act::Echo) {
            while let Some((first, payload)) = take_frame(&mut pending) {
                let opcode = first & 0x0f;
                let reply = if opcode == PING { 0x80 | PONG } else { first };
                let mut echoed = frame(reply & 0x0f, &payload, true, None);
                echoed[0] = reply;
                writer.write_all(&echoed).await?;
                if opcode == CLOSE {
                    return writer.shutdown().await;
                }
            }
        }
        let mut piece = [0; 16 << 10];
        let count = reader.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        log.lock()[number].bytes.extend(&piece[..count]);
        pending.extend_from_slice(&piece[..count]);
    }
}

/// One frame; masked as clients do it where `mask` says so.
pub fn frame(opcode: u8, payload: &[u8], fin: bool, mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = vec![opcode | if fin { 0x80 } else { 0 }];
    let bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        len @ 0..126 => frame.push(bit | u8::try_from(len).unwrap()),
        len @ 126..65_536 => {
            frame.push(bit | 126);
            frame.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            frame.push(bit | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    match mask {
        None => frame.extend(payload),
        Some(mask) => {
            frame.extend(mask);
            let masked = payload.iter().zip(mask.iter().cycle());
            frame.extend(masked.map(|(byte, mask)| byte ^ mask));
        }
    }
    frame
}

/// A frame as a client sends it.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(opcode, payload, true, Some([0x37, 0xfa, 0x21, 0x3d]))
}

/// Takes the first whole frame: its first byte and its payload, unmasked.
fn take_frame(buffer: &mut BytesMut) -> Option<(u8, Vec<u8>)> {
    let (first, second) = (*buffer.first()?, *buffer.get(1)?);
    let (mut at, mut len) = (2, u64::from(second & 0x7f));
    if len == 126 {
        len = u64::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().unwrap()));
        at = 4;
    } else if len == 127 {
        len = u64::from_be_bytes(buffer.get(2..10)?.try_into().unwrap());
        at = 10;
    }
    let mask: Option<[u8; 4]> = match second & 0x80 {
        0 => None,
        _ => Some(buffer.get(at..at + 4)?.try_into().unwrap()),
    };
    at += if mask.is_some() { 4 } else { 0 };
    let end = at + usize::try_from(len).unwrap();
    let mut payload = buffer.get(at..end)?.to_vec();
    if let Some(mask) = mask {
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
    }
    buffer.advance(end);
    Some((first, payload))
}

/// The head of a handshake, with further lines.
pub fn ask(path: &str, lines: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n{lines}\r\n",
        pki::HOST
    )
}

/// A WebSocket over HTTP/1.1, after the handshake.
pub struct Socket {
    dialogue: Dialogue,
    buffer: BytesMut,
    pub head: String,
}

/// Opens one, or fails the test.
pub async fn open(address: SocketAddr, via: Via, lines: &str) -> Socket {
    let mut dialogue = match via {
        Via::H1 => raw::open(address).await,
        Via::TlsH1 => raw::open_tls(address, &["http/1.1"]).await,
        Via::H2c | Via::TlsH2 => panic!("see `Stream`"),
    };
    dialogue.send(ask("/socket", lines)).await;
    let head = String::from_utf8(dialogue.until("\r\n\r\n").await).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    Socket {
        dialogue,
        buffer: BytesMut::new(),
        head,
    }
}

impl Socket {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.dialogue.send(bytes).await;
    }

    /// The next frame: its first byte and its payload; `None` at the end.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = take_frame(&mut self.buffer) {
                return Some(frame);
            }
            let more = self.dialogue.some().await;
            if more.is_empty() {
                assert!(self.buffer.is_empty(), "half a frame: {:?}", self.buffer);
                return None;
            }
            self.buffer.extend_from_slice(&more);
        }
    }

    /// Sends a message and expects it back.
    pub async fn echoes(&mut self, opcode: u8, payload: &[u8]) {
        self.send(masked(opcode, payload)).await;
        let (first, echoed) = self.next().await.expect("an echo");
        assert_eq!(first, 0x80 | opcode);
        assert!(echoed == payload, "{} bytes", echoed.len());
    }

    /// The close code that comes next, whatever messages come before it; then the end.
    pub async fn closed(&mut self) -> u16 {
        while let Some((first, payload)) = self.next().await {
            if first & 0x0f == CLOSE {
                assert!(self.next().await.is_none(), "something behind the close");
                return u16::from_be_bytes(payload[..2].try_into().unwrap());
            }
        }
        panic!("ended without a close frame");
    }

    /// Expects these bytes and then the end.
    pub async fn cut_within(&mut self, expected: &[u8]) {
        let rest = self.dialogue.until_closed().await;
        assert_eq!([&self.buffer[..], &rest].concat(), expected);
    }

    pub async fn finish(&mut self) {
        self.dialogue.finish().await;
    }
}

/// An HTTP/2 connection that can carry WebSockets.
pub struct Carrier {
    pub sender: h2::client::SendRequest<Bytes>,
}

/// With prior knowledge, or over TLS.
pub async fn carrier(address: SocketAddr, via: Via) -> Carrier {
    let sender = match via {
        Via::H2c => {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            handshake(stream).await
        }
        Via::TlsH2 => {
            let config = pki::SHARED.client(&["h2"], rustls::DEFAULT_VERSIONS);
            handshake(client::tls(address, config, pki::HOST).await.unwrap()).await
        }
        Via::H1 | Via::TlsH1 => panic!("see `open`"),
    };
    let mut sender = soon("a connection", sender.ready()).await.unwrap();
    // The settings of the other side come right after its preface.
    for _ in 0..50 {
        if sender.is_extended_connect_protocol_enabled() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        sender = sender.ready().await.unwrap();
    }
    Carrier { sender }
}

async fn handshake<S>(stream: S) -> h2::client::SendRequest<Bytes>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender
}

impl Carrier {
    /// Asks for a WebSocket; the answer, and what to send with.
    pub async fn ask(
        &self,
        scheme: &str,
        protocol: &'static str,
        fields: HeaderMap,
    ) -> (Response<h2::RecvStream>, h2::SendStream<Bytes>) {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::CONNECT;
        *request.uri_mut() = format!("{scheme}://{}/socket", pki::HOST).parse().unwrap();
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = fields;
        let protocol = h2::ext::Protocol::from_static(protocol);
        request.extensions_mut().insert(protocol);
        let mut sender = self.sender.clone().ready().await.unwrap();
        let (answer, stream) = sender.send_request(request, false).unwrap();
        (soon("an answer", answer).await.unwrap(), stream)
    }

    /// The same, for one that is agreed to.
    pub async fn open(&self, scheme: &str) -> Stream {
        self.open_with(scheme, version()).await
    }

    pub async fn open_with(&self, scheme: &str, fields: HeaderMap) -> Stream {
        let (answer, sender) = self.ask(scheme, "websocket", fields).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        let (head, receiver) = answer.into_parts();
        Stream {
            head: head.headers,
            sender,
            receiver,
            buffer: BytesMut::new(),
        }
    }
}

pub fn version() -> HeaderMap {
    client::fields(&[("sec-websocket-version", "13")])
}

/// A WebSocket over one stream of HTTP/2.
pub struct Stream {
    pub head: HeaderMap,
    pub sender: h2::SendStream<Bytes>,
    receiver: h2::RecvStream,
    buffer: BytesMut,
}

impl Stream {
    pub async fn send(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.sender.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|cx| self.sender.poll_capacity(cx));
            let Some(Ok(room)) = soon("room", room).await else {
                return;
            };
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.sender
                .send_data(Bytes::copy_from_slice(now), false)
                .unwrap();
            rest = later;
        }
    }

    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = take_frame(&mut self.buffer) {
                return Some(frame);
            }
            match soon("data", self.receiver.data()).await {
                Some(Ok(more)) => {
                    let _ = self.receiver.flow_control().release_capacity(more.len());
                    self.buffer.extend_from_slice(&more);
                }
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub async fn echoes(&mut self, opcode: u8, payload: &[u8]) {
        self.send(&masked(opcode, payload)).await;
        let (first, echoed) = self.next().await.expect("an echo");
        assert_eq!(first, 0x80 | opcode);
        assert!(echoed == payload, "{} bytes", echoed.len());
    }

    /// The close code, and then the orderly end of the stream.
    pub async fn closed_cleanly(&mut self) -> u16 {
        let code = self.closed().await;
        let end = soon("the end", self.receiver.data()).await;
        assert!(end.is_none(), "{end:?}");
        code
    }

    pub async fn closed(&mut self) -> u16 {
        while let Some((first, payload)) = self.next().await {
            if first & 0x0f == CLOSE {
                assert!(self.next().await.is_none(), "something behind the close");
                return u16::from_be_bytes(payload[..2].try_into().unwrap());
            }
        }
        panic!("ended without a close frame");
    }
}
