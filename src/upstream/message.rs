//! What a message must look like to leave for an endpoint, and what an answer must look like to be passed on.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;

use crate::config::EndpointScheme;
use crate::types::Body;

/// Makes `request` fit for an endpoint. May be called again for another endpoint of another protocol.
pub(super) fn prepare(
    request: &mut Request<Body>,
    scheme: EndpointScheme,
    host: &HeaderValue,
) -> Result<(), &'static str> {
    // Nothing that our server side attached may act on the client side.
    request.extensions_mut().clear();
    request.headers_mut().remove(EXPECT);
    if scheme.is_h2() {
        prepare_h2(request, scheme, host)
    } else {
        prepare_h1(request, host);
        Ok(())
    }
}

fn prepare_h2(
    request: &mut Request<Body>,
    scheme: EndpointScheme,
    host: &HeaderValue,
) -> Result<(), &'static str> {
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(HOST);
    request.headers_mut().remove(TRANSFER_ENCODING);
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if scheme.is_tls() {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    });
    parts.authority =
        Some(Authority::try_from(host.as_bytes()).map_err(|_| "the host is no authority")?);
    parts.path_and_query = Some(path_and_query(request));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| "the target is malformed")?;
    Ok(())
}

fn prepare_h1(request: &mut Request<Body>, host: &HeaderValue) {
    *request.version_mut() = Version::HTTP_11;
    if request.uri().scheme().is_some() {
        *request.uri_mut() = Uri::from(path_and_query(request));
    }
    let unframed = Framing::of(request.body());
    let method = request.method().clone();
    let headers = request.headers_mut();
    if headers.get(HOST) != Some(host) || headers.get_all(HOST).iter().nth(1).is_some() {
        headers.insert(HOST, host.clone());
    }
    headers.remove(TE);
    frame(headers, &method, unframed);
}

fn path_and_query<B>(request: &Request<B>) -> PathAndQuery {
    request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// How the end of a body is told.
#[derive(Clone, Copy)]
enum Framing {
    Empty,
    Length(u64),
    Chunked,
}

impl Framing {
    fn of(body: &Body) -> Self {
        match body.size_hint().exact() {
            _ if body.is_empty() => Self::Empty,
            Some(length) => Self::Length(length),
            None => Self::Chunked,
        }
    }
}

/// Exactly one framing field leaves, and it says what the body is, whatever was said before.
fn frame(headers: &mut HeaderMap, method: &Method, framing: Framing) {
    match framing {
        Framing::Empty => {
            headers.remove(TRANSFER_ENCODING);
            // Without it, some servers answer 411 to methods that usually have a body.
            if matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
                headers.insert(CONTENT_LENGTH, const { HeaderValue::from_static("0") });
            } else {
                headers.remove(CONTENT_LENGTH);
            }
        }
        Framing::Length(length) => {
            headers.remove(TRANSFER_ENCODING);
            if sole_length(headers) != Some(length) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        Framing::Chunked => {
            headers.remove(CONTENT_LENGTH);
            // Said here, for hyper would drop the body of a GET of unknown length.
            headers.insert(
                TRANSFER_ENCODING,
                const { HeaderValue::from_static("chunked") },
            );
        }
    }
}

/// The length that the one Content-Length field states.
fn sole_length(headers: &HeaderMap) -> Option<u64> {
    let mut fields = headers.get_all(CONTENT_LENGTH).iter();
    let field = fields.next()?;
    if fields.next().is_some() || !field.as_bytes().iter().all(u8::is_ascii_digit) {
        return None;
    }
    field.to_str().ok()?.parse().ok()
}

/// Judges the head of an answer, and leaves it in a form that cannot mislead the next parser.
pub(super) fn judge<B>(response: &mut Response<B>, asked: &Method) -> Result<(), &'static str> {
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("it switched protocols unasked");
    }
    if status.is_informational() {
        return Err("an interim answer came in place of the final one");
    }
    let version = response.version();
    // A server that answers in HTTP/1.0 must not decide what we speak to our client.
    *response.version_mut() = Version::HTTP_11;
    // A reason phrase of the endpoint's own making is in there.
    response.extensions_mut().clear();
    let headers = response.headers_mut();
    if headers.contains_key(TRANSFER_ENCODING) {
        judge_coding(headers, version)?;
    }
    if headers.contains_key(CONTENT_LENGTH) {
        judge_length(headers)?;
        if status == StatusCode::NO_CONTENT {
            headers.remove(CONTENT_LENGTH);
        }
    }
    debug_assert!(asked != Method::CONNECT, "no route forwards CONNECT");
    Ok(())
}

fn judge_coding(headers: &HeaderMap, version: Version) -> Result<(), &'static str> {
    if version != Version::HTTP_11 {
        return Err("a transfer coding in a protocol that has none");
    }
    if headers.contains_key(CONTENT_LENGTH) {
        return Err("both Content-Length and Transfer-Encoding");
    }
    let mut fields = headers.get_all(TRANSFER_ENCODING).iter();
    let sole = fields.next().filter(|_| fields.next().is_none());
    match sole {
        Some(coding) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err("a transfer coding other than chunked"),
    }
}

fn judge_length(headers: &mut HeaderMap) -> Result<(), &'static str> {
    if sole_length(headers).is_some() {
        return Ok(());
    }
    let mut fields = headers.get_all(CONTENT_LENGTH).iter();
    let first = fields.next().cloned();
    let same = fields.all(|field| Some(field) == first.as_ref());
    if let Some(first) = first.filter(|_| same) {
        headers.insert(CONTENT_LENGTH, first);
    }
    sole_length(headers)
        .map(|_| ())
        .ok_or("Content-Length is no length, or several")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_static("/a?b=c");
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_static("public.example"));
        request
    }

    fn host() -> HeaderValue {
        HeaderValue::from_static("public.example")
    }

    fn framing(request: &Request<Body>) -> (Option<&str>, Option<&str>) {
        let text = |name| {
            request
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        (text(CONTENT_LENGTH), text(TRANSFER_ENCODING))
    }

    fn answer(status: u16, fields: &[(&'static str, &'static str)]) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            response
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        response
    }

    #[test]
    fn a_bodiless_get_has_no_framing_and_a_bodiless_post_says_so() {
        let mut get = request(Method::GET, Body::empty());
        prepare(&mut get, EndpointScheme::Http, &host()).unwrap();
        assert_eq!(framing(&get), (None, None));
        let mut post = request(Method::POST, Body::empty());
        prepare(&mut post, EndpointScheme::Http, &host()).unwrap();
        assert_eq!(framing(&post), (Some("0"), None));
    }

    #[test]
    fn the_length_of_the_body_wins_over_what_the_field_says() {
        let mut post = request(Method::POST, Body::full("hello"));
        post.headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from_static("50"));
        post.headers_mut()
            .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        prepare(&mut post, EndpointScheme::Http, &host()).unwrap();
        assert_eq!(framing(&post), (Some("5"), None));
    }

    #[test]
    fn a_request_can_be_made_over_for_the_other_protocol_and_back() {
        let mut post = request(Method::POST, Body::full("hello"));
        prepare(&mut post, EndpointScheme::H2c, &host()).unwrap();
        assert_eq!(post.uri(), "http://public.example/a?b=c");
        assert_eq!(post.version(), Version::HTTP_2);
        assert!(!post.headers().contains_key(HOST));
        prepare(&mut post, EndpointScheme::Http, &host()).unwrap();
        assert_eq!(post.uri(), "/a?b=c");
        assert_eq!(post.version(), Version::HTTP_11);
        assert_eq!(post.headers().get(HOST), Some(&host()));
    }

    #[test]
    fn te_is_for_http_2_only() {
        let mut get = request(Method::GET, Body::empty());
        get.headers_mut()
            .insert(TE, HeaderValue::from_static("trailers"));
        prepare(&mut get, EndpointScheme::H2c, &host()).unwrap();
        assert!(get.headers().contains_key(TE));
        prepare(&mut get, EndpointScheme::Http, &host()).unwrap();
        assert!(!get.headers().contains_key(TE));
    }

    #[test]
    fn answers_that_could_be_read_in_two_ways_are_malformed() {
        for (status, fields) in [
            (101, &[][..]),
            (
                200,
                &[("content-length", "5"), ("transfer-encoding", "chunked")][..],
            ),
            (200, &[("content-length", "5"), ("content-length", "6")][..]),
            (200, &[("content-length", "+5")][..]),
            (200, &[("content-length", "5, 5")][..]),
            (200, &[("transfer-encoding", "gzip, chunked")][..]),
            (
                200,
                &[
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ][..],
            ),
            (200, &[("transfer-encoding", "identity")][..]),
        ] {
            let mut response = answer(status, fields);
            assert!(judge(&mut response, &Method::GET).is_err(), "{fields:?}");
        }
    }

    #[test]
    fn an_answer_leaves_with_one_length_and_our_version() {
        let mut response = answer(200, &[("content-length", "5"), ("content-length", "5")]);
        *response.version_mut() = Version::HTTP_10;
        judge(&mut response, &Method::GET).unwrap();
        let lengths: Vec<_> = response.headers().get_all(CONTENT_LENGTH).iter().collect();
        assert_eq!(lengths, ["5"]);
        assert_eq!(response.version(), Version::HTTP_11);
    }

    #[test]
    fn the_length_of_what_head_did_not_send_stays() {
        let mut response = answer(200, &[("content-length", "5000")]);
        judge(&mut response, &Method::HEAD).unwrap();
        assert!(response.headers().contains_key(CONTENT_LENGTH));
    }
}
