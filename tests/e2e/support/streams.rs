//! An h2c origin whose streams the test serves by hand: when it reads, what it grants, how a stream ends.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::soon;

/// The origin, and the streams that were opened to it.
pub struct ByHand {
    pub address: SocketAddr,
    opened: mpsc::UnboundedReceiver<Stream>,
}

/// One request, unread and unanswered.
pub struct Stream {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
}

pub async fn by_hand() -> ByHand {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (opening, opened) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, opening.clone()));
        }
    });
    ByHand { address, opened }
}

async fn serve(stream: TcpStream, opening: mpsc::UnboundedSender<Stream>) {
    stream.set_nodelay(true).unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let _ = opening.send(Stream { request, respond });
    }
}

impl ByHand {
    pub async fn next(&mut self) -> Stream {
        soon("a stream", self.opened.recv()).await.unwrap()
    }

    /// Whether nothing was opened that the test has not taken.
    pub fn is_quiet(&mut self) -> bool {
        self.opened.try_recv().is_err()
    }
}

impl Stream {
    /// Sends the head of an answer of gRPC.
    pub fn answer(&mut self) -> SendStream<Bytes> {
        let mut response = Response::new(());
        let kind = "application/grpc".parse().unwrap();
        response.headers_mut().insert("content-type", kind);
        self.respond.send_response(response, false).unwrap()
    }

    /// How the caller resets the stream.
    pub async fn reset(&mut self) -> Reason {
        let reset = std::future::poll_fn(|cx| self.respond.poll_reset(cx));
        soon("a reset", reset).await.unwrap()
    }
}

/// How the caller resets a stream whose answer is under way.
pub async fn reset(answer: &mut SendStream<Bytes>) -> Reason {
    let reset = std::future::poll_fn(|cx| answer.poll_reset(cx));
    soon("a reset", reset).await.unwrap()
}
