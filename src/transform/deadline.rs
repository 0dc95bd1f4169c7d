//! How long a caller is willing to wait, in the words of its dialect: `grpc-timeout` of gRPC and gRPC-Web,
//! `connect-timeout-ms` of Connect. It covers the whole call, so it is read at the start, and the upstream is told what is
//! left of it.
//!
//! Not here: the clock, and what becomes of a call whose time is over.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as _, Frame};

use super::grpc_web::{Decoder, Frames};
use crate::types::expiry::LastWords;
use crate::types::{Dialect, Reason, Rejection, Response};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const CONNECT_TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");

/// The gRPC specification: a number of at most eight digits, and a unit.
const GRPC_DIGITS: usize = 8;
/// The Connect specification: a number of at most ten digits.
const CONNECT_DIGITS: usize = 10;
/// The largest number of eight digits.
const MOST: u128 = 99_999_999;

/// The time that the caller gives the call, if it says so.
///
/// # Errors
/// `BadTimeout` for what the specification of the dialect has no meaning for, and for two of them. Whoever guesses here
/// lets a call live on that its caller takes for dead.
pub fn asked(headers: &HeaderMap, dialect: Dialect) -> Result<Option<Duration>, Rejection> {
    let Some(name) = field(dialect) else {
        return Ok(None);
    };
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let parsed = match values.next() {
        Some(_) => None,
        None if name == GRPC_TIMEOUT => parse_grpc(value.as_bytes()),
        None => parse_number(value.as_bytes(), CONNECT_DIGITS).map(Duration::from_millis),
    };
    match parsed {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Rejection::because(
            Reason::BadTimeout,
            if name == GRPC_TIMEOUT {
                "grpc-timeout is not one number of at most eight digits with a unit"
            } else {
                "connect-timeout-ms is not one number of at most ten digits"
            },
        )),
    }
}

/// Tells the upstream what is left. Rounded down, so that it gives up no later than we do.
pub(super) fn write(headers: &mut HeaderMap, dialect: Dialect, left: Duration) {
    let Some(name) = field(dialect) else {
        return;
    };
    let text = if name == GRPC_TIMEOUT {
        format_grpc(left)
    } else {
        left.as_millis().to_string()
    };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

fn field(dialect: Dialect) -> Option<HeaderName> {
    match dialect {
        Dialect::Http => None,
        Dialect::Grpc | Dialect::GrpcWeb | Dialect::GrpcWebText => Some(GRPC_TIMEOUT),
        Dialect::Connect | Dialect::ConnectStream | Dialect::ConnectStreamJson => {
            Some(CONNECT_TIMEOUT)
        }
    }
}

fn parse_grpc(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    let number = parse_number(digits, GRPC_DIGITS)?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

fn parse_number(digits: &[u8], most: usize) -> Option<u64> {
    let fits = (1..=most).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| fits)?;
    digits.parse().ok()
}

/// In the finest unit that eight digits have room for.
fn format_grpc(left: Duration) -> String {
    let seconds = u128::from(left.as_secs());
    let units = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (seconds, 'S'),
        (seconds / 60, 'M'),
    ];
    let fitting = units.into_iter().find(|(number, _)| *number <= MOST);
    let (number, unit) = fitting.unwrap_or(((seconds / 3600).min(MOST), 'H'));
    format!("{number}{unit}")
}

/// What a stream says when its time is over: the words of the caller's dialect, where `response` is one that can take
/// them. A length that was announced leaves no room, and HTTP/1.1 has none for trailers that were not.
#[must_use]
pub fn last_words(
    response: &Response,
    dialect: Dialect,
    has_trailers: bool,
    decision: &HeaderValue,
) -> Option<Box<dyn LastWords>> {
    let headers = response.headers();
    let is_open =
        !headers.contains_key(CONTENT_LENGTH) && response.body().size_hint().exact().is_none();
    // A unary answer of Connect names a media type of its own, and has no words either.
    if !is_open || Dialect::of(headers) != dialect {
        return None;
    }
    let place = match dialect {
        Dialect::Http | Dialect::Connect => return None,
        Dialect::Grpc if has_trailers => Place::Anywhere,
        Dialect::Grpc => return None,
        Dialect::GrpcWeb | Dialect::ConnectStream | Dialect::ConnectStreamJson => {
            Place::Between(Frames::default())
        }
        Dialect::GrpcWebText => Place::BetweenText(Decoder::default(), Frames::default()),
    };
    Some(Box::new(Ending {
        dialect,
        decision: decision.clone(),
        place,
    }))
}

struct Ending {
    dialect: Dialect,
    decision: HeaderValue,
    place: Place,
}

/// Where a stream can be ended in words.
enum Place {
    Anywhere,
    /// Between two messages: inside of one, the words would be taken for its bytes.
    Between(Frames),
    BetweenText(Decoder, Frames),
    /// Nowhere any more: it has been ended, or it is not what it says it is.
    Nowhere,
}

impl LastWords for Ending {
    fn hear(&mut self, frame: &Frame<Bytes>) {
        let Some(bytes) = frame.data_ref() else {
            return;
        };
        let understood = match &mut self.place {
            Place::Anywhere | Place::Nowhere => return,
            Place::Between(frames) => frames.push(bytes),
            Place::BetweenText(decoder, frames) => {
                let mut decoded = Vec::new();
                let read = decoder.push(bytes, &mut decoded);
                read.and_then(|()| frames.push(&decoded))
            }
        };
        if understood.is_err() {
            self.place = Place::Nowhere;
        }
    }

    fn speak(&mut self, reason: Reason) -> Option<Frame<Bytes>> {
        let has_room = match &self.place {
            Place::Anywhere => true,
            Place::Between(frames) => frames.at_boundary(),
            Place::BetweenText(decoder, frames) => decoder.end().is_ok() && frames.at_boundary(),
            Place::Nowhere => false,
        };
        if !has_room {
            return None;
        }
        let decision = self.decision.to_str().unwrap_or("-");
        Rejection::new(reason).last_frame(self.dialect, decision)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Body;

    fn check(dialect: Dialect, fields: &[(&'static str, &str)], expected: Result<Option<u64>, ()>) {
        let fields = fields.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        });
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        let told = asked(&headers, dialect);
        if let Err(why) = &told {
            assert_eq!(why.reason(), Reason::BadTimeout);
        }
        let told = told.map_err(|_| ());
        let expected = expected.map(|nanos| nanos.map(Duration::from_nanos));
        assert_eq!(told, expected, "{headers:?}");
    }

    #[test]
    fn a_timeout_is_eight_digits_and_a_unit() {
        let grpc = |text: &str, expected| check(Dialect::Grpc, &[("grpc-timeout", text)], expected);
        grpc("1n", Ok(Some(1)));
        grpc("7u", Ok(Some(7_000)));
        grpc("00000020m", Ok(Some(20_000_000)));
        grpc("1S", Ok(Some(1_000_000_000)));
        grpc("2M", Ok(Some(120_000_000_000)));
        grpc("1H", Ok(Some(3_600_000_000_000)));
        grpc("0m", Ok(Some(0)));
        for text in [
            "",
            "1",
            "S",
            "123456789n",
            "1s",
            "-1S",
            "+1S",
            "1.5S",
            "1 S",
            "1SS",
            "0x1S",
        ] {
            grpc(text, Err(()));
        }
        let twice = [("grpc-timeout", "1S"), ("grpc-timeout", "2S")];
        check(Dialect::GrpcWeb, &twice, Err(()));
        check(Dialect::GrpcWebText, &[], Ok(None));
    }

    #[test]
    fn connect_counts_milliseconds() {
        let connect = |text: &str, expected| {
            check(Dialect::Connect, &[("connect-timeout-ms", text)], expected)
        };
        connect("1500", Ok(Some(1_500_000_000)));
        connect("9999999999", Ok(Some(9_999_999_999_000_000)));
        for text in ["", "10000000000", "1m", "-1", "1.5"] {
            connect(text, Err(()));
        }
        // The words of one dialect mean nothing in another.
        check(Dialect::Connect, &[("grpc-timeout", "x")], Ok(None));
        check(Dialect::Grpc, &[("connect-timeout-ms", "x")], Ok(None));
        check(Dialect::Http, &[("grpc-timeout", "1S")], Ok(None));
    }

    #[test]
    fn what_is_left_is_told_in_the_finest_unit_that_fits() {
        let text = |left: Duration| format_grpc(left);
        assert_eq!(text(Duration::from_nanos(99_999_999)), "99999999n");
        assert_eq!(text(Duration::from_nanos(100_000_999)), "100000u");
        assert_eq!(text(Duration::from_millis(99_999)), "99999000u");
        assert_eq!(text(Duration::from_secs(100)), "100000m");
        assert_eq!(text(Duration::from_secs(100_000)), "100000S");
        assert_eq!(text(Duration::from_secs(100_000_000)), "1666666M");
        assert_eq!(text(Duration::MAX), "99999999H");
    }

    proptest! {
        #[test]
        fn what_is_told_is_never_more_than_what_is_left(nanos in any::<u64>()) {
            let left = Duration::from_nanos(nanos);
            let told = parse_grpc(format_grpc(left).as_bytes()).unwrap();
            prop_assert!(told <= left);
            prop_assert!(left - told <= left / 10_000 || nanos < 100_000);
        }
    }

    fn spoken(content_type: &str, dialect: Dialect, passed: &[u8]) -> Option<Vec<u8>> {
        let incoming = Body::full("x").filtered(Box::new(Opaque));
        let mut response = Response::new(incoming);
        let content_type = HeaderValue::from_str(content_type).unwrap();
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, content_type);
        let mut words = last_words(&response, dialect, true, &HeaderValue::from_static("d"))?;
        for piece in passed.chunks(3) {
            words.hear(&Frame::data(Bytes::copy_from_slice(piece)));
        }
        let frame = words.speak(Reason::DeadlineExceeded)?;
        match frame.into_data() {
            Ok(data) => Some(data.to_vec()),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap();
                Some(trailers["grpc-status"].as_bytes().to_vec())
            }
        }
    }

    /// Makes the length of a body unknown.
    struct Opaque;

    impl crate::types::body::Filter for Opaque {
        fn push(
            &mut self,
            _: crate::types::body::Piece,
            _: &mut std::collections::VecDeque<Frame<Bytes>>,
        ) -> Result<(), crate::types::BodyError> {
            Ok(())
        }
    }

    #[test]
    fn a_stream_is_ended_in_its_own_words_and_only_between_messages() {
        let whole = b"\0\0\0\0\x02hi";
        let grpc = spoken("application/grpc", Dialect::Grpc, &whole[..6]);
        assert_eq!(grpc.unwrap(), b"4");
        let web = |passed| spoken("application/grpc-web+proto", Dialect::GrpcWeb, passed);
        let block = web(whole).unwrap();
        assert!(block.starts_with(b"\x80\0\0\0"));
        assert!(block[5..].starts_with(b"grpc-status: 4\r\n"));
        assert_eq!(web(&whole[..6]), None);
        // Its own trailers have passed.
        assert_eq!(web(b"\x80\0\0\0\0"), None);
        let text = |passed| spoken("application/grpc-web-text", Dialect::GrpcWebText, passed);
        assert!(text(b"AAAAAAJoaQ==").unwrap().starts_with(b"gAAAA"));
        assert_eq!(text(b"AAAAAAJoaQ="), None);
        assert_eq!(text(b"AAAAAAJo"), None);
        let connect = |passed| {
            spoken(
                "application/connect+json",
                Dialect::ConnectStreamJson,
                passed,
            )
        };
        assert!(connect(whole).unwrap().starts_with(b"\x02\0\0\0"));
        assert_eq!(connect(b"\0\0\0"), None);
        assert_eq!(spoken("text/html", Dialect::Grpc, b""), None);
        assert_eq!(spoken("application/json", Dialect::Connect, b""), None);
    }
}
