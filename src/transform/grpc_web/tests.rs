//! Whole translations: a request or a response goes in, and what leaves is read as the other side would read it.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body::{Body as _, Frame};
use proptest::prelude::*;

use super::*;
use crate::types::Body;

/// A gRPC frame.
fn frame(flags: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flags];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

/// Every byte of a body that never waits.
fn bytes(body: Body) -> Result<Vec<u8>, BodyError> {
    let mut body = pin!(body);
    let mut cx = Context::from_waker(Waker::noop());
    let mut bytes = Vec::new();
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
        bytes.extend_from_slice(&frame?.into_data().expect("data"));
    }
    assert!(body.is_end_stream());
    Ok(bytes)
}

fn web_request(content_type: &str, body: impl Into<Bytes>) -> Request {
    http::Request::post("/pkg.Service/Method")
        .header(CONTENT_TYPE, content_type)
        .header(CONTENT_LENGTH, "77")
        .header("x-grpc-web", "1")
        .header("x-user-agent", "grpc-web-javascript/0.1")
        .header("accept", "application/grpc-web-text")
        .body(Body::full(body))
        .unwrap()
}

fn translate(request: Request) -> Result<Request, Rejection> {
    let dialect = Dialect::of(request.headers());
    super::request(request, dialect)
}

fn grpc_response(headers: &[(&str, &str)], body: Body) -> Response {
    let mut response = http::Response::new(body);
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// Feeds a response filter and returns each piece that leaves it, or why it refused.
fn answer(
    is_text: bool,
    pieces: impl IntoIterator<Item = Piece>,
) -> Result<Vec<Vec<u8>>, BodyError> {
    let mut filter = ResponseFilter::new(is_text, HeaderMap::new());
    let mut out = VecDeque::new();
    for piece in pieces {
        filter.push(piece, &mut out)?;
    }
    filter.push(Piece::End, &mut out)?;
    let data = |frame: Frame<Bytes>| frame.into_data().expect("data").to_vec();
    Ok(out.into_iter().map(data).collect())
}

fn trailers(lines: &[(&str, &str)]) -> Piece {
    let mut trailers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        trailers.append(name, value.parse().unwrap());
    }
    Piece::Trailers(trailers)
}

/// Reads text as a client does: every group of four for itself.
fn read_text(text: &[u8]) -> Vec<u8> {
    let groups = text.chunks(4).map(|group| STANDARD.decode(group).unwrap());
    groups.flatten().collect()
}

const UNKNOWN: &[u8] = b"grpc-status: 2\r\ngrpc-message: missing grpc-status\r\n";

#[test]
fn the_head_of_a_request_becomes_that_of_grpc() {
    let check = |sent: &str, expected: &str| {
        let request = translate(web_request(sent, "")).unwrap();
        let mut lines: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                ("accept", "application/grpc-web-text"),
                ("content-type", expected),
                ("te", "trailers"),
                ("x-user-agent", "grpc-web-javascript/0.1"),
            ],
            "{sent}"
        );
    };
    check("application/grpc-web", "application/grpc");
    check("application/grpc-web+proto", "application/grpc+proto");
    check("application/grpc-web+json", "application/grpc+json");
    check(
        "Application/GRPC-Web+proto ; charset=x",
        "application/grpc+proto",
    );
    check("application/grpc-web-text", "application/grpc");
    check("application/grpc-web-text+proto", "application/grpc+proto");
    check("application/grpc-web+thrift", "application/grpc+thrift");
}

#[test]
fn other_dialects_pass_untouched() {
    for content_type in [
        "application/json",
        "application/grpc+proto",
        "application/connect+json",
    ] {
        let request = translate(web_request(content_type, "any")).unwrap();
        assert_eq!(request.headers()[CONTENT_TYPE], content_type);
        assert_eq!(request.headers()["x-grpc-web"], "1");
        assert_eq!(bytes(request.into_body()).unwrap(), b"any");
    }
}

#[test]
fn what_is_no_grpc_web_call_is_refused() {
    let check = |change: fn(&mut Request), expected: Reason| {
        let mut request = web_request("application/grpc-web+proto", "");
        change(&mut request);
        let why = translate(request).expect_err("refused");
        assert_eq!(why.reason(), expected);
    };
    check(
        |request| *request.method_mut() = Method::GET,
        Reason::MethodRefused,
    );
    check(
        |request| {
            let gzip = HeaderValue::from_static("gzip");
            request.headers_mut().insert(CONTENT_ENCODING, gzip);
        },
        Reason::BadGrpcWeb,
    );
    check(
        |request| {
            let odd = HeaderValue::from_static("application/grpc-web+a b");
            request.headers_mut().insert(CONTENT_TYPE, odd);
        },
        Reason::BadGrpcWeb,
    );
}

#[test]
fn request_frames_reach_the_server() {
    let frames = [frame(0, b"one"), frame(1, b""), frame(0, &[7; 300])].concat();
    let binary = translate(web_request("application/grpc-web", frames.clone())).unwrap();
    assert_eq!(bytes(binary.into_body()).unwrap(), frames);
    let text = STANDARD.encode(&frames);
    let text = translate(web_request("application/grpc-web-text", text)).unwrap();
    assert_eq!(bytes(text.into_body()).unwrap(), frames);
}

#[test]
fn a_request_that_is_no_row_of_frames_breaks_off() {
    let check = |dialect, body: &[u8]| {
        for size in 1..=body.len() {
            let broken = decode(dialect, body.chunks(size));
            assert!(matches!(broken, Err(BodyError::Malformed(_))), "{body:?}");
        }
    };
    let cut_short = &frame(0, b"message")[..9];
    let trailing = [frame(0, b"a"), frame(0x80, b"grpc-status: 0\r\n")].concat();
    for body in [cut_short, &trailing, b"\0\0\0", b"{\"json\": true}"] {
        check(Dialect::GrpcWeb, body);
        check(Dialect::GrpcWebText, STANDARD.encode(body).as_bytes());
    }
    check(Dialect::GrpcWebText, &frame(0, b""));
    check(Dialect::GrpcWebText, b"AAAAAAA");
}

#[test]
fn a_clients_trailers_are_dropped() {
    let mut filter = RequestFilter::new(false);
    let mut out = VecDeque::new();
    filter
        .push(trailers(&[("x-auth-user", "admin")]), &mut out)
        .unwrap();
    filter.push(Piece::End, &mut out).unwrap();
    assert!(out.is_empty());
}

#[test]
fn trailers_become_the_last_frame() {
    let message = frame(0, b"hello");
    let pieces = || {
        [
            Piece::Data(message.clone().into()),
            trailers(&[("grpc-status", "0"), ("x-cost", "7")]),
        ]
    };
    let last = frame(0x80, b"grpc-status: 0\r\nx-cost: 7\r\n");
    assert_eq!(
        answer(false, pieces()).unwrap(),
        [message.clone(), last.clone()]
    );
    let text = answer(true, pieces()).unwrap();
    assert_eq!(text.len(), 2);
    assert_eq!(read_text(&text[0]), message);
    assert_eq!(read_text(&text[1]), last);
}

#[test]
fn a_whole_message_is_never_held_back() {
    // Ten bytes: one more than three groups. The next message begins in the same piece.
    let first = frame(0, b"hello");
    for extra in 0..5 {
        let second = frame(0, b"w");
        let piece = [&first[..], &second[..extra]].concat();
        let rest = second[extra..].to_vec();
        let pieces = [Piece::Data(piece.into()), Piece::Data(rest.into())];
        let text = answer(true, pieces).unwrap();
        let read = read_text(&text[0]);
        assert!(read.starts_with(&first), "{extra}: {read:?}");
        assert_eq!(
            read_text(&text.concat()),
            [first.clone(), second, frame(0x80, UNKNOWN)].concat()
        );
    }
}

#[test]
fn a_stream_without_a_status_has_status_unknown() {
    let none: [Piece; 0] = [];
    assert_eq!(answer(false, none).unwrap(), [frame(0x80, UNKNOWN)]);
    let odd = answer(false, [trailers(&[("x-cost", "7")])])
        .unwrap()
        .concat();
    assert!(odd.windows(14).any(|window| window == b"grpc-status: 2"));
    assert!(odd.windows(9).any(|window| window == b"x-cost: 7"));
}

#[test]
fn a_server_cannot_send_a_trailers_frame_or_half_a_message() {
    let ok = || trailers(&[("grpc-status", "0")]);
    for body in [
        frame(0x80, b"grpc-status: 0\r\n"),
        frame(0, b"ab")[..6].to_vec(),
    ] {
        let pieces = [Piece::Data(body.into()), ok()];
        assert!(matches!(answer(true, pieces), Err(BodyError::Malformed(_))));
    }
    let half = [Piece::Data(Bytes::from_static(b"\0"))];
    assert!(matches!(answer(false, half), Err(BodyError::Malformed(_))));
}

#[test]
fn the_head_of_a_response_becomes_that_of_grpc_web() {
    let check = |dialect, sent: &str, expected: &str| {
        let headers = [
            ("content-type", sent),
            ("content-length", "0"),
            ("trailer", "grpc-status"),
            ("x-meta", "1"),
        ];
        let response = super::response(grpc_response(&headers, Body::empty()), dialect);
        assert_eq!(response.headers()[CONTENT_TYPE], expected);
        assert_eq!(response.headers()["x-meta"], "1");
        assert_eq!(response.headers().len(), 2);
    };
    check(Dialect::GrpcWeb, "application/grpc", "application/grpc-web");
    check(
        Dialect::GrpcWeb,
        "application/grpc+proto; x=y",
        "application/grpc-web+proto",
    );
    check(
        Dialect::GrpcWebText,
        "application/grpc+json",
        "application/grpc-web-text+json",
    );
}

#[test]
fn a_response_of_headers_alone_ends_in_a_trailers_frame() {
    let headers = [
        ("content-type", "application/grpc"),
        ("grpc-status", "16"),
        ("grpc-message", "no token"),
        ("grpc-status-details-bin", "CBA"),
        ("x-meta", "1"),
    ];
    let last = frame(
        0x80,
        b"grpc-status: 16\r\ngrpc-message: no token\r\ngrpc-status-details-bin: CBA\r\n",
    );
    let binary = super::response(grpc_response(&headers, Body::empty()), Dialect::GrpcWeb);
    assert!(!binary.headers().contains_key("grpc-status"));
    assert!(!binary.headers().contains_key("grpc-message"));
    assert_eq!(binary.headers()["x-meta"], "1");
    assert_eq!(bytes(binary.into_body()).unwrap(), last);
    let text = super::response(grpc_response(&headers, Body::empty()), Dialect::GrpcWebText);
    assert_eq!(read_text(&bytes(text.into_body()).unwrap()), last);
}

#[test]
fn what_is_no_grpc_response_passes_untouched() {
    let headers = [
        ("content-type", "application/json"),
        ("content-length", "2"),
    ];
    let json = super::response(grpc_response(&headers, Body::full("{}")), Dialect::GrpcWeb);
    assert_eq!(json.headers()[CONTENT_LENGTH], "2");
    assert_eq!(bytes(json.into_body()).unwrap(), b"{}");

    let headers = [("content-type", "application/grpc"), ("grpc-status", "14")];
    let mut failed = grpc_response(&headers, Body::full("x"));
    *failed.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let failed = super::response(failed, Dialect::GrpcWebText);
    assert_eq!(failed.headers()["grpc-status"], "14");
    assert_eq!(bytes(failed.into_body()).unwrap(), b"x");

    let native = super::response(grpc_response(&headers, Body::empty()), Dialect::Grpc);
    assert_eq!(native.headers()[CONTENT_TYPE], "application/grpc");
}

#[test]
fn a_client_that_accepts_text_gets_text() {
    let mut headers = HeaderMap::new();
    assert_eq!(answers_in(&headers, Dialect::GrpcWeb), Dialect::GrpcWeb);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    assert_eq!(answers_in(&headers, Dialect::GrpcWeb), Dialect::GrpcWeb);
    let text = HeaderValue::from_static("application/grpc-web-text+proto");
    headers.insert(ACCEPT, text);
    assert_eq!(answers_in(&headers, Dialect::GrpcWeb), Dialect::GrpcWebText);
    assert_eq!(answers_in(&headers, Dialect::Grpc), Dialect::Grpc);
}

fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let message = (0..2u8, proptest::collection::vec(any::<u8>(), 0..24));
    let frames = message.prop_map(|(flags, message)| frame(flags, &message));
    proptest::collection::vec(frames, 0..5)
}

/// Cuts `bytes` at these places, in any order, beyond the end or twice.
pub(super) fn cut<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places.iter().map(|at| at % (bytes.len() + 1)).collect();
    places.push(bytes.len());
    places.sort_unstable();
    let mut from = 0;
    let pieces = places
        .iter()
        .map(|to| &bytes[std::mem::replace(&mut from, *to)..*to]);
    pieces.collect()
}

proptest! {
    #[test]
    fn any_cutting_of_a_request_reaches_the_server_alike(
        messages in messages(),
        places in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let frames = messages.concat();
        prop_assert_eq!(&decode(Dialect::GrpcWeb, cut(&frames, &places)).unwrap(), &frames);
        // A client may pad each message on its own.
        let text: String = messages.iter().map(|message| STANDARD.encode(message)).collect();
        let decoded = decode(Dialect::GrpcWebText, cut(text.as_bytes(), &places)).unwrap();
        prop_assert_eq!(&decoded, &frames);
    }

    #[test]
    fn no_bytes_make_the_framer_panic_or_differ_by_their_cutting(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        places in proptest::collection::vec(any::<usize>(), 0..8),
    ) {
        for dialect in [Dialect::GrpcWeb, Dialect::GrpcWebText] {
            let whole = decode(dialect, [&bytes[..]]);
            let pieces = decode(dialect, cut(&bytes, &places));
            prop_assert_eq!(whole.ok(), pieces.ok());
        }
    }

    #[test]
    fn any_cutting_of_a_response_reads_alike_at_the_client(
        messages in messages(),
        places in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let frames = messages.concat();
        let expected = [frames.clone(), frame(0x80, b"grpc-status: 0\r\n")].concat();
        for is_text in [false, true] {
            let pieces = cut(&frames, &places)
                .into_iter()
                .map(|piece| Piece::Data(Bytes::copy_from_slice(piece)));
            let out = answer(is_text, pieces.chain([trailers(&[("grpc-status", "0")])])).unwrap();
            let read = if is_text { read_text(&out.concat()) } else { out.concat() };
            prop_assert_eq!(&read, &expected);
        }
    }
}
