//! Requests as they look on the wire, honest and forged, and where their answers have the verdict.

use http::{HeaderMap, StatusCode};

use crate::support::client::{self, Answer, Call};

/// Where a gRPC answer has its verdict: in the trailers, or in the head if there is nothing else.
pub fn grpc_status(answer: &Answer) -> Option<u32> {
    assert_eq!(answer.status, StatusCode::OK);
    [&answer.trailers, &answer.headers]
        .into_iter()
        .find_map(|fields| number(fields, "grpc-status"))
}

/// The verdict in the last frame of a gRPC-Web answer.
pub fn web_status(answer: &Answer) -> Option<u32> {
    assert_eq!(answer.status, StatusCode::OK);
    let mut rest = &answer.body[..];
    while let [flags, a, b, c, d, payload @ ..] = rest {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap();
        let (frame, behind) = payload.split_at(length);
        if *flags == 0x80 {
            assert!(behind.is_empty(), "bytes follow the trailers");
            let text = String::from_utf8_lossy(frame).into_owned();
            let status = text.split("\r\n").find_map(|line| {
                let (name, value) = line.split_once(':')?;
                (name == "grpc-status").then(|| value.trim().parse().unwrap())
            });
            return status;
        }
        rest = behind;
    }
    None
}

fn number(fields: &HeaderMap, name: &str) -> Option<u32> {
    fields.get(name)?.to_str().ok()?.parse().ok()
}

/// The flags and the length of an empty message.
pub const EMPTY_FRAME: &[u8] = &[0; 5];

/// `{}` in a frame.
pub const JSON_FRAME: &[u8] = b"\0\0\0\0\x02{}";

/// A native gRPC call.
pub fn grpc(path: &str) -> Call {
    grpc_as("application/grpc+proto", path, EMPTY_FRAME)
}

pub fn grpc_as(content_type: &str, path: &str, frame: &'static [u8]) -> Call {
    client::post(path, frame)
        .header("content-type", content_type)
        .header("te", "trailers")
}

/// A gRPC-Web call.
pub fn web(content_type: &str, path: &str, frame: &'static [u8]) -> Call {
    client::post(path, frame)
        .header("content-type", content_type)
        .header("x-grpc-web", "1")
}

pub fn json(path: &str, body: &str) -> Call {
    client::post(path, body.to_owned()).header("content-type", "application/json")
}

/// A header field for every way in which somebody has made a backend believe another origin.
pub const FORGED: &[(&str, &str)] = &[
    ("x-forwarded-host", "evil.invalid"),
    ("x-forwarded-proto", "gopher"),
    ("x-forwarded-port", "666"),
    ("x-forwarded-prefix", "/evil"),
    ("x-forwarded-server", "evil.invalid"),
    ("x-forwarded-for", "host=evil.invalid;proto=gopher"),
    ("forwarded", "for=192.0.2.9;host=evil.invalid;proto=gopher"),
    ("x-original-host", "evil.invalid"),
    ("x-zitadel-instance-host", "evil.invalid"),
    ("x-zitadel-public-host", "evil.invalid"),
    ("x-zitadel-forward-host", "evil.invalid"),
    ("x-zitadel-forwarded", "host=evil.invalid"),
    ("x.zitadel.public.host", "evil.invalid"),
    ("x_forwarded_host", "evil.invalid"),
    ("x-real-ip", "192.0.2.9"),
    ("x-tenant-id", "7"),
];

pub fn forge(call: Call) -> Call {
    FORGED
        .iter()
        .fold(call, |call, (name, value)| call.header(name, value))
}
