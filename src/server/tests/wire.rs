//! HTTP/2, by hand.

use super::*;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const PRIORITY: u8 = 2;
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// GET of `path`, in static and literal fields without indexing.
pub(super) fn request(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x01, 6];
    block.extend(b"a.test");
    block.extend([0x04, u8::try_from(path.len()).unwrap()]);
    block.extend(path.as_bytes());
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

pub(super) async fn h2(running: &Running) -> TcpStream {
    let mut stream = running.connect().await;
    send(
        &mut stream,
        &[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat(),
    )
    .await;
    stream
}

#[derive(Debug)]
pub(super) struct Seen {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

pub(super) async fn next(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let read = async {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await.ok()?;
        let len = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        stream.read_exact(&mut payload).await.ok()?;
        Some(Seen {
            kind: header[3],
            flags: header[4],
            stream: u32::from_be_bytes([header[5], header[6], header[7], header[8]]),
            payload,
        })
    };
    timeout(PATIENCE, read)
        .await
        .expect("the connection is still open, and silent")
}

/// The next frame of this kind.
pub(super) async fn until(stream: &mut (impl AsyncRead + Unpin), kind: u8) -> Seen {
    loop {
        let seen = next(stream).await.expect("the connection was closed");
        if seen.kind == kind {
            return seen;
        }
    }
}

pub(super) async fn h2_exchange(stream: &mut TcpStream, id: u32, path: &str) -> Vec<u8> {
    send(stream, &request(id, path)).await;
    body(stream).await
}

/// The rest of the body of the one stream that is open.
pub(super) async fn body(stream: &mut TcpStream) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let data = until(stream, DATA).await;
        body.extend(data.payload);
        if data.flags & END_STREAM != 0 {
            return body;
        }
    }
}

/// The error code of the last GOAWAY before the end.
pub(super) async fn farewell(stream: &mut (impl AsyncRead + Unpin)) -> Option<u8> {
    let mut code = None;
    while let Some(seen) = next(stream).await {
        if seen.kind == GOAWAY {
            code = Some(seen.payload[7]);
        }
    }
    code
}
