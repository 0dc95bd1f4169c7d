//! Lets no trailer pass that a backend could take for a header: gRPC keeps `grpc-*`, everybody else keeps none.

use std::collections::VecDeque;

use bytes::Bytes;
use http::Version;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::Frame;

use super::names::remove_where;
use crate::types::body::{Filter, Piece};
use crate::types::{BodyError, Dialect, Request};

/// Filters the trailers of a request whose body can have some. Clients of this world send none, so nothing is lost.
pub(super) fn admit(request: &mut Request, dialect: Dialect) {
    if may_have_trailers(request) {
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = body.filtered(Box::new(Trailers {
            keeps_grpc: dialect == Dialect::Grpc,
        }));
    }
}

/// HTTP/1.1 has trailers in chunked bodies only; HTTP/2 has them whatever the length.
fn may_have_trailers(request: &Request) -> bool {
    let sized =
        || request.version() < Version::HTTP_2 && request.headers().contains_key(CONTENT_LENGTH);
    !request.body().is_empty() && !sized()
}

struct Trailers {
    keeps_grpc: bool,
}

impl Filter for Trailers {
    fn push(&mut self, piece: Piece, out: &mut VecDeque<Frame<Bytes>>) -> Result<(), BodyError> {
        match piece {
            Piece::Data(bytes) => out.push_back(Frame::data(bytes)),
            Piece::Trailers(mut trailers) if self.keeps_grpc => {
                keep_grpc(&mut trailers);
                if !trailers.is_empty() {
                    out.push_back(Frame::trailers(trailers));
                }
            }
            Piece::Trailers(_) | Piece::End => {}
        }
        Ok(())
    }

    // A length that an HTTP/2 client announced is announced to HTTP/1.1 backends too: not all of them take chunks.
    fn keeps_data(&self) -> bool {
        true
    }
}

fn keep_grpc(trailers: &mut HeaderMap) {
    remove_where(trailers, |name| !name.as_str().starts_with("grpc-"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Body;

    fn check(keeps_grpc: bool, expected: &[&str]) {
        let mut trailers = HeaderMap::new();
        for name in ["x-auth-user", "content-length", "grpc-status", "grpc-x"] {
            trailers.insert(name, "1".parse().unwrap());
        }
        let mut out = VecDeque::new();
        let mut filter = Trailers { keeps_grpc };
        filter
            .push(Piece::Data(Bytes::from_static(b"x")), &mut out)
            .unwrap();
        filter.push(Piece::Trailers(trailers), &mut out).unwrap();
        filter.push(Piece::End, &mut out).unwrap();
        assert_eq!(out.pop_front().unwrap().into_data().unwrap(), "x");
        let left = out
            .pop_front()
            .map(|frame| frame.into_trailers().unwrap())
            .unwrap_or_default();
        let mut names: Vec<_> = left.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, expected);
        assert!(out.is_empty());
    }

    #[test]
    fn identity_does_not_travel_in_trailers() {
        check(false, &[]);
        check(true, &["grpc-status", "grpc-x"]);
    }

    #[test]
    fn a_body_that_cannot_have_trailers_is_left_alone() {
        let sized = http::Request::post("/")
            .header(CONTENT_LENGTH, "1")
            .body(Body::full("x"))
            .unwrap();
        check_filtered(sized, false);
        let empty = http::Request::get("/").body(Body::empty()).unwrap();
        check_filtered(empty, false);
        let h2 = http::Request::post("/")
            .version(Version::HTTP_2)
            .header(CONTENT_LENGTH, "1")
            .body(Body::full("x"))
            .unwrap();
        check_filtered(h2, true);
    }

    fn check_filtered(mut request: Request, filtered: bool) {
        admit(&mut request, Dialect::Http);
        assert!(format!("{request:?}").contains(&format!("filtered: {filtered}")));
    }
}
