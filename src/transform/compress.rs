//! Compression of answers, on routes that list media types for it.
//!
//! What an attacker can have reflected beside a secret must not be compressed together with it (BREACH), so an answer
//! that is for one caller is left alone unless the route says otherwise: the request bore a credential, or the answer
//! sets a cookie or is private. Each piece that arrives leaves at once; nothing waits for a fuller buffer.

use std::collections::VecDeque;
use std::io::{self, Write};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, COOKIE, ETAG, HeaderMap, HeaderName, HeaderValue, RANGE,
    SET_COOKIE, VARY,
};
use http::{Method, StatusCode};
use http_body::{Body as _, Frame};

use crate::types::body::{Filter, Piece};
use crate::types::{Body, BodyError, Dialect, Request, Response};

/// What a route compresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Compression {
    /// Media types in lower case; `text/` stands for all of its kind. Empty: nothing is.
    pub(super) types: Box<[Box<str>]>,
    /// Answers that are for one caller, too.
    pub(super) private: bool,
}

/// What a request says about the compression of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Whether the answer may be compressed at all.
    may: bool,
    coding: Option<Coding>,
}

/// A content coding that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Compression {
    /// To be asked before the request is sent: it leaves its head behind.
    pub(super) fn wish(&self, request: &Request, dialect: Dialect) -> Wish {
        if self.types.is_empty() || dialect != Dialect::Http {
            return Wish::default();
        }
        let headers = request.headers();
        let is_private = headers.contains_key(AUTHORIZATION) || headers.contains_key(COOKIE);
        let may = request.method() != Method::HEAD
            && !headers.contains_key(RANGE)
            && (self.private || !is_private);
        Wish {
            may,
            coding: if may { accepted(headers) } else { None },
        }
    }

    pub(super) fn apply(&self, response: &mut Response, wish: Wish) {
        if !wish.may || !self.suits(response) {
            return;
        }
        let headers = response.headers_mut();
        // Said of the answer that is not compressed as well: a cache must not take it for that of another client.
        add_vary(headers);
        let Some(encoder) = wish.coding.and_then(Encoder::new) else {
            return;
        };
        headers.insert(CONTENT_ENCODING, encoder.coding.name());
        headers.remove(CONTENT_LENGTH);
        headers.remove(ACCEPT_RANGES);
        for digest in [&CONTENT_DIGEST, &REPR_DIGEST, &DIGEST, &CONTENT_MD5] {
            headers.remove(digest);
        }
        weaken(headers);
        let body = std::mem::take(response.body_mut());
        *response.body_mut() = body.filtered(Box::new(encoder));
    }

    fn suits(&self, response: &Response) -> bool {
        let headers = response.headers();
        let has = |name: &HeaderName| headers.contains_key(name);
        response.status() == StatusCode::OK
            && !has(&CONTENT_ENCODING)
            && !has(&CONTENT_RANGE)
            && self.takes(headers)
            && is_worth_it(response.body())
            && !forbids(headers, "no-transform")
            && (self.private || !is_for_one_caller(headers))
    }

    fn takes(&self, headers: &HeaderMap) -> bool {
        let Some(kind) = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
        else {
            return false;
        };
        let kind = kind.split(';').next().unwrap_or_default().trim();
        self.types.iter().any(|listed| {
            let start = kind.get(..listed.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(listed))
                && (listed.ends_with('/') || listed.len() == kind.len())
        })
    }
}

/// A packet holds the small ones whether they are compressed or not.
fn is_worth_it(body: &Body) -> bool {
    !body.is_empty() && body.size_hint().exact().is_none_or(|size| size >= WORTH_IT)
}

fn is_for_one_caller(headers: &HeaderMap) -> bool {
    headers.contains_key(SET_COOKIE) || forbids(headers, "private") || forbids(headers, "no-store")
}

fn forbids(headers: &HeaderMap, directive: &str) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|line| {
        let line = line.to_str().unwrap_or_default();
        line.split(',').any(|part| {
            let name = part.split('=').next().unwrap_or_default().trim();
            name.eq_ignore_ascii_case(directive)
        })
    })
}

/// The coding that the client likes best; among equals, what costs least for what it saves.
fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let mut best: Option<(u16, Coding)> = None;
    let ours = [Coding::Zstd, Coding::Brotli, Coding::Gzip];
    for coding in ours {
        let quality = quality_of(headers, coding);
        if quality > 0 && best.is_none_or(|(known, _)| quality > known) {
            best = Some((quality, coding));
        }
    }
    best.map(|(_, coding)| coding)
}

/// In thousandths. What is named stands above `*`.
fn quality_of(headers: &HeaderMap, coding: Coding) -> u16 {
    let (mut named, mut any) = (None, None);
    for line in headers.get_all(ACCEPT_ENCODING) {
        for item in line.to_str().unwrap_or_default().split(',') {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let quality = parts.find_map(quality).unwrap_or(1000);
            if coding
                .names()
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known))
            {
                named = Some(quality);
            } else if name == "*" {
                any = Some(quality);
            }
        }
    }
    named.or(any).unwrap_or(0)
}

/// `q=0.5`; a weight that is none counts as no.
fn quality(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let value: f32 = value.trim().parse().unwrap_or(0.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 0 and 1000"
    )]
    let thousandths = (value.clamp(0.0, 1.0) * 1000.0) as u16;
    Some(thousandths)
}

fn add_vary(headers: &mut HeaderMap) {
    let covers = |field: &str| field == "*" || field.eq_ignore_ascii_case("accept-encoding");
    let covered = headers.get_all(VARY).iter().any(|line| {
        let fields = line.to_str().unwrap_or_default();
        fields.split(',').any(|field| covers(field.trim()))
    });
    if !covered {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// The bytes are no longer those that a strong tag stands for.
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers
        .get(ETAG)
        .filter(|tag| tag.as_bytes().starts_with(b"\""))
    else {
        return;
    };
    match HeaderValue::try_from([b"W/", tag.as_bytes()].concat()) {
        Ok(weak) => headers.insert(ETAG, weak),
        Err(_) => headers.remove(ETAG),
    };
}

impl Coding {
    fn name(self) -> HeaderValue {
        HeaderValue::from_static(self.names()[0])
    }

    fn names(self) -> &'static [&'static str; 2] {
        match self {
            Self::Zstd => &["zstd", "zstd"],
            Self::Brotli => &["br", "br"],
            Self::Gzip => &["gzip", "x-gzip"],
        }
    }
}

/// Compresses a body piece by piece.
struct Encoder {
    coding: Coding,
    writer: Option<Writer>,
}

enum Writer {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
}

impl Encoder {
    /// With windows that keep thousands of streams within bounds.
    fn new(coding: Coding) -> Option<Self> {
        let writer = match coding {
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).ok()?;
                encoder.window_log(WINDOW).ok()?;
                Writer::Zstd(encoder)
            }
            Coding::Brotli => {
                let writer = brotli::CompressorWriter::new(Vec::new(), 4096, 4, WINDOW);
                Writer::Brotli(Box::new(writer))
            }
            Coding::Gzip => {
                let level = flate2::Compression::new(5);
                Writer::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
            }
        };
        Some(Self {
            coding,
            writer: Some(writer),
        })
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let Some(writer) = &mut self.writer else {
            return Ok(Vec::new());
        };
        Ok(match writer {
            Writer::Zstd(writer) => {
                writer.write_all(bytes)?;
                writer.flush()?;
                std::mem::take(writer.get_mut())
            }
            Writer::Brotli(writer) => {
                writer.write_all(bytes)?;
                writer.flush()?;
                std::mem::take(writer.get_mut())
            }
            Writer::Gzip(writer) => {
                writer.write_all(bytes)?;
                writer.flush()?;
                std::mem::take(writer.get_mut())
            }
        })
    }

    fn finish(&mut self) -> io::Result<Vec<u8>> {
        match self.writer.take() {
            None => Ok(Vec::new()),
            Some(Writer::Zstd(writer)) => writer.finish(),
            Some(Writer::Brotli(writer)) => Ok(writer.into_inner()),
            Some(Writer::Gzip(writer)) => writer.finish(),
        }
    }
}

impl Filter for Encoder {
    fn push(&mut self, piece: Piece, out: &mut VecDeque<Frame<Bytes>>) -> Result<(), BodyError> {
        let (encoded, trailers) = match piece {
            Piece::Data(bytes) => (Self::push(self, &bytes), None),
            Piece::Trailers(trailers) => (self.finish(), Some(trailers)),
            Piece::End => (self.finish(), None),
        };
        let encoded = encoded.map_err(|_| BodyError::Malformed("it cannot be compressed"))?;
        if !encoded.is_empty() {
            out.push_back(Frame::data(Bytes::from(encoded)));
        }
        out.extend(trailers.map(Frame::trailers));
        Ok(())
    }
}

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const DIGEST: HeaderName = HeaderName::from_static("digest");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Smaller bodies gain nothing.
const WORTH_IT: u64 = 1024;
/// 128 KiB of what has passed are kept for reference.
const WINDOW: u32 = 17;

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(method: &str, fields: &[(&'static str, &'static str)], private: bool) -> Wish {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method.parse().unwrap();
        for (name, value) in fields {
            request
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        compression(private).wish(&request, Dialect::Http)
    }

    fn compression(private: bool) -> Compression {
        Compression {
            types: ["text/".into(), "application/json".into()].into(),
            private,
        }
    }

    fn coding(accept: &'static str) -> Option<Coding> {
        wish("GET", &[("accept-encoding", accept)], false).coding
    }

    #[test]
    fn the_client_chooses_and_we_choose_among_equals() {
        assert_eq!(coding("gzip, deflate, br, zstd"), Some(Coding::Zstd));
        assert_eq!(coding("gzip, br"), Some(Coding::Brotli));
        assert_eq!(coding("gzip;q=1.0, br;q=0.5"), Some(Coding::Gzip));
        assert_eq!(coding("X-GZIP"), Some(Coding::Gzip));
        assert_eq!(coding("*"), Some(Coding::Zstd));
        assert_eq!(coding("zstd;q=0, *;q=0.1"), Some(Coding::Brotli));
        for none in ["", "identity", "deflate", "gzip;q=0", "br;q=x", "*;q=0.000"] {
            assert_eq!(coding(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_for_one_caller_is_left_alone() {
        let accepts = ("accept-encoding", "gzip");
        for credential in [("cookie", "a=1"), ("authorization", "Bearer x")] {
            assert!(!wish("GET", &[accepts, credential], false).may);
            assert!(wish("GET", &[accepts, credential], true).may);
        }
        assert!(!wish("HEAD", &[accepts], true).may);
        assert!(!wish("GET", &[accepts, ("range", "bytes=0-1")], true).may);
    }

    fn applied(fields: &[(&'static str, &'static str)], body: Body, private: bool) -> HeaderMap {
        let mut response = Response::new(body);
        for (name, value) in fields {
            response
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        let wish = Wish {
            may: true,
            coding: Some(Coding::Gzip),
        };
        compression(private).apply(&mut response, wish);
        response.into_parts().0.headers
    }

    fn is_compressed(fields: &[(&'static str, &'static str)], size: usize, private: bool) -> bool {
        let headers = applied(fields, Body::full(vec![b'x'; size]), private);
        headers
            .get(CONTENT_ENCODING)
            .is_some_and(|coding| coding == "gzip")
    }

    #[test]
    fn only_what_is_listed_large_and_public_is_compressed() {
        let page = ("content-type", "Text/HTML; charset=utf-8");
        assert!(is_compressed(&[page], 1024, false));
        assert!(!is_compressed(&[page], 1023, false));
        assert!(is_compressed(
            &[("content-type", "application/json")],
            2000,
            false
        ));
        for kind in ["application/jsonp", "image/png", "text", "application/grpc"] {
            assert!(
                !is_compressed(&[("content-type", kind)], 2000, false),
                "{kind}"
            );
        }
        assert!(!is_compressed(&[], 2000, false));
        for field in [
            ("set-cookie", "a=1"),
            ("cache-control", "max-age=1, Private"),
            ("cache-control", "no-store"),
        ] {
            assert!(!is_compressed(&[page, field], 2000, false), "{field:?}");
            assert!(is_compressed(&[page, field], 2000, true), "{field:?}");
        }
        for field in [
            ("content-encoding", "br"),
            ("content-range", "bytes 0-1/2"),
            ("cache-control", "no-transform"),
        ] {
            assert!(!is_compressed(&[page, field], 2000, true), "{field:?}");
        }
    }

    #[test]
    fn the_head_says_what_became_of_the_body() {
        let fields = [
            ("content-type", "text/css"),
            ("content-length", "2000"),
            ("etag", "\"v1\""),
            ("accept-ranges", "bytes"),
            ("repr-digest", "sha-256=:x:"),
            ("vary", "Origin"),
        ];
        let headers = applied(&fields, Body::full(vec![b'x'; 2000]), false);
        assert_eq!(headers[ETAG], "W/\"v1\"");
        for gone in ["content-length", "accept-ranges", "repr-digest"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        let vary: Vec<_> = headers.get_all(VARY).iter().collect();
        assert_eq!(vary, ["Origin", "Accept-Encoding"]);
    }

    #[test]
    fn every_piece_leaves_at_once_and_reads_back() {
        use std::io::Read as _;
        for coding in [Coding::Zstd, Coding::Brotli, Coding::Gzip] {
            let mut encoder = Encoder::new(coding).unwrap();
            let mut whole = Vec::new();
            let mut sizes = Vec::new();
            for piece in ["data: one\n\n", "data: two\n\n"] {
                let out = encoder.push(piece.as_bytes()).unwrap();
                sizes.push(out.len());
                whole.extend(out);
            }
            assert!(sizes.iter().all(|size| *size > 0), "{coding:?} {sizes:?}");
            whole.extend(encoder.finish().unwrap());
            let mut text = String::new();
            let read = match coding {
                Coding::Zstd => zstd::stream::read::Decoder::new(&whole[..])
                    .unwrap()
                    .read_to_string(&mut text),
                Coding::Brotli => {
                    brotli::Decompressor::new(&whole[..], 4096).read_to_string(&mut text)
                }
                Coding::Gzip => flate2::read::GzDecoder::new(&whole[..]).read_to_string(&mut text),
            };
            read.unwrap();
            assert_eq!(text, "data: one\n\ndata: two\n\n", "{coding:?}");
        }
    }
}
