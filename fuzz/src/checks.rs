//! What must hold for any bytes, beside that nothing panics. A function a target; each fails by panicking.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use http::header::{CONTENT_TYPE, COOKIE, FORWARDED, HeaderMap, HeaderName, HeaderValue};
use vestibule::authn::extract::{self, Credential, Wanted};
use vestibule::authn::jwt::{Shape, json};
use vestibule::client_ip::Trust;
use vestibule::config::{KeyPath, LimitKey, Problems, load};
use vestibule::limit::{Field, Limit, PeekPlan};
use vestibule::route::path as canoniser;
use vestibule::server::h1::{Chunks, Framing, HeadBounds, HeadScan};
use vestibule::transform::grpc_web as translation;
use vestibule::types::conn_facts::address_text;
use vestibule::types::{ConnFacts, Dialect, Protocol, Scheme};

/// The path canoniser: whatever it accepts has one spelling, and no second reading.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(found) = canoniser::canonical(text) else {
        return;
    };
    let path = &*found.path;
    let again = canoniser::canonical(path).expect("a canonical path has a canonical form");
    assert_eq!(again.path, path, "not the last spelling");
    assert!(path.starts_with('/') && !path.contains("//"));
    let allowed = |byte: u8| matches!(byte, 0x21..=0x7e) && !b"\\#?\"<>`{|}^".contains(&byte);
    assert!(path.bytes().all(allowed), "raw bytes in {path:?}");
    let decoded = percent_decoded(path);
    assert!(!decoded.contains(&0) && !decoded.contains(&b'\\'));
    let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
    // A kept `%2F` is told, and nothing else makes a slash.
    assert!(slashes(&decoded) == slashes(path.as_bytes()) || found.encoded_slash);
    if !found.encoded_slash {
        let dots = |segment: &[u8]| segment == b"." || segment == b"..";
        assert!(!decoded.split(|byte| *byte == b'/').any(dots), "{path:?}");
        // What a reader would decode a second time.
        assert_eq!(percent_decoded_bytes(&decoded), decoded, "{path:?}");
    }
}

/// Forwarding headers: whatever a client wrote, the address that our own proxy appended is the client.
pub fn forwarded(bytes: &[u8]) {
    let conn = conn("10.0.0.1");
    let seen: IpAddr = "203.0.113.9".parse().unwrap();
    for (name, ours) in [
        (HeaderName::from_static("x-forwarded-for"), "203.0.113.9"),
        (FORWARDED, "for=203.0.113.9"),
    ] {
        let Ok(written) = HeaderValue::from_bytes(bytes) else {
            return;
        };
        let mut headers = HeaderMap::new();
        headers.append(&name, written.clone());
        // On its own it may be anything: refused, or an address.
        let _ = TRUST.find(&conn, &headers);

        // In the same line, and in a line of its own.
        let joined = [bytes, b", ", ours.as_bytes()].concat();
        let mut apart = headers.clone();
        apart.append(&name, HeaderValue::from_static(ours));
        let mut in_line = HeaderMap::new();
        in_line.append(&name, HeaderValue::from_bytes(&joined).unwrap());
        for headers in [in_line, apart] {
            if let Ok(client) = TRUST.find(&conn, &headers) {
                assert_eq!(client.ip.address(), seen, "{headers:?}");
            }
            // To whom nobody is trusted, nothing is said.
            let peer = TRUST.find(&self::conn("192.0.2.1"), &headers).unwrap();
            assert_eq!(peer.ip.address(), "192.0.2.1".parse::<IpAddr>().unwrap());
        }
    }
}

/// gRPC-Web bodies: any cut reads the same, nothing is invented, no trailers frame gets through.
pub fn grpc_web(bytes: &[u8]) {
    for dialect in [Dialect::GrpcWeb, Dialect::GrpcWebText] {
        let whole = translation::decode(dialect, [bytes]).ok();
        for size in [1, 3, 7] {
            let pieces = translation::decode(dialect, bytes.chunks(size)).ok();
            assert_eq!(pieces, whole, "in pieces of {size}");
        }
        let Some(decoded) = whole else {
            continue;
        };
        assert!(decoded.len() <= bytes.len());
        let mut rest = &decoded[..];
        while let [flags, a, b, c, d, after @ ..] = rest {
            assert_eq!(flags & 0x80, 0, "a trailers frame towards the backend");
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            rest = after.get(length..).expect("a message is whole");
        }
        assert!(rest.is_empty(), "half a frame header");
    }
}

/// The scan ahead of hyper: any cut reads the same, and what it lets through the parser behind it reads alike.
pub fn head(bytes: &[u8]) {
    const BOUNDS: HeadBounds = HeadBounds {
        max_head: 2_000,
        max_fields: 20,
        max_target: 500,
    };
    let whole = HeadScan::default().read(bytes, &BOUNDS);
    let mut scan = HeadScan::default();
    let mut found = Ok(None);
    for end in 1..=bytes.len() {
        found = scan.read(&bytes[..end], &BOUNDS);
        if found != Ok(None) {
            break;
        }
    }
    match (&found, &whole) {
        (Ok(found), Ok(whole)) => assert_eq!(found, whole),
        // Of two faults, another one may be met first.
        (Err(_), Err(_)) => {}
        _ => panic!("{found:?} in pieces, {whole:?} as a whole"),
    }
    let Ok(Some(whole)) = whole else {
        return;
    };
    agrees(&bytes[..whole.len], whole.framing);
    if whole.framing == Framing::Chunked {
        chunks(&bytes[whole.len..]);
    }
}

/// The parser that hyper uses reads the same head.
fn agrees(head: &[u8], framing: Framing) {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    let end = request.parse(head).expect("the parser takes it as well");
    assert_eq!(end, httparse::Status::Complete(head.len()));
    let values = |name: &str| -> Vec<&[u8]> {
        let named = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
        request
            .headers
            .iter()
            .filter(named)
            .map(|field| field.value)
            .collect()
    };
    assert_eq!(values("host").len(), 1);
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    match framing {
        Framing::Chunked => {
            assert!(lengths.is_empty());
            assert!(codings.len() == 1 && codings[0].trim_ascii().eq_ignore_ascii_case(b"chunked"));
        }
        Framing::Length(length) => {
            assert!(codings.is_empty() && lengths.len() <= 1);
            let said = lengths
                .first()
                .map_or("0", |value| std::str::from_utf8(value).unwrap());
            assert_eq!(said.trim().parse(), Ok(length));
        }
    }
    let target = request.path.unwrap();
    assert!(!target.contains('#') && !target.contains('\\') && target.is_ascii());
    for field in request.headers.iter() {
        assert!(!field.value.iter().any(|byte| b"\r\n\0".contains(byte)));
    }
}

fn chunks(body: &[u8]) {
    let whole = Chunks::default().follow(body);
    let mut chunks = Chunks::default();
    let mut read = 0;
    let mut done = false;
    for byte in body {
        match chunks.follow(std::slice::from_ref(byte)) {
            Ok((1, ended)) => {
                read += 1;
                done = ended;
            }
            Ok((_, ended)) => done = ended,
            Err(why) => return assert_eq!(Err(why), whole),
        }
        if done {
            break;
        }
    }
    assert_eq!(whole, Ok((read, done)));
}

/// Tokens before any key is touched: what is taken apart is what was sent.
pub fn token(bytes: &[u8]) {
    if let (Ok(object), Ok(text)) = (json::object(bytes), std::str::from_utf8(bytes)) {
        let brackets = text.matches(['{', '[']).count();
        assert!(brackets >= 1 && object.len() <= text.matches(':').count());
    }
    let Ok(token) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(shape) = Shape::parse(token) else {
        return;
    };
    // One spelling only: encoded again, each part is what was sent.
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    assert_eq!(shape.jws.message, [parts[0], ".", parts[1]].concat());
    assert_eq!(base64url(&shape.jws.signature), parts[2]);
    let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    assert!(token.bytes().all(alphabet));
}

/// The session cookie: found only where every reader finds it, and only once.
pub fn cookie(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(COOKIE, value);
        }
    }
    let names: [Box<str>; 2] = ["session".into(), "__Host-id".into()];
    let wanted = Wanted {
        bearer: true,
        headers: &[],
        cookies: &names,
    };
    let found = extract::find(&headers, wanted);
    let Ok(Some(Credential::Cookie { position, value })) = found else {
        assert!(
            !matches!(found, Ok(Some(_))),
            "another credential than a cookie"
        );
        return;
    };
    // The simplest of readers.
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(names[position].as_bytes())?
            .strip_prefix(b"=")
    });
    assert!(values.all(|read| read == value.as_bytes()));
    assert!(!value.is_empty() && !value.contains([' ', '"', ',', ';', '\\']));
}

/// Bodies read ahead: no account that another reader finds is overlooked, or named otherwise.
pub fn peek(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    let [json, nested, form] = &*PARTS;
    let mut read = |media: &'static str| {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        PEEK.read(&headers, None, bytes)
    };

    let peeked = read("application/json");
    let tree: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    for (part, pointer) in [(json, "/email"), (nested, "/checks/user/loginName")] {
        let found = tree.as_ref().and_then(|tree| tree.pointer(pointer));
        match (peeked.find(part), found) {
            (Field::Text(text), Some(found)) => assert_eq!(found.as_str(), Some(text)),
            (Field::Absent, Some(found)) => assert!(is_blank(found.as_str()), "overlooked"),
            // In another spelling; or another reader refuses the whole.
            (Field::Text(_) | Field::Absent, None) | (Field::Unreadable(_), _) => {}
            (Field::Opaque, _) => panic!("no route of gRPC"),
        }
    }

    let peeked = read("application/x-www-form-urlencoded");
    let pairs = bytes.split(|byte| *byte == b'&').map(|pair| {
        let plain: Vec<u8> = pair
            .iter()
            .map(|byte| if *byte == b'+' { b' ' } else { *byte })
            .collect();
        let equals = plain
            .iter()
            .position(|byte| *byte == b'=')
            .unwrap_or(plain.len());
        let (name, value) = plain.split_at(equals);
        (
            percent_decoded_bytes(name),
            percent_decoded_bytes(value.get(1..).unwrap_or_default()),
        )
    });
    let values: Vec<Vec<u8>> = pairs
        .filter(|(name, _)| name == b"email")
        .map(|(_, value)| value)
        .collect();
    match peeked.find(form) {
        Field::Text(text) => assert!(values.iter().all(|value| value == text.as_bytes())),
        Field::Absent => {
            let value = values.first().map(|value| String::from_utf8_lossy(value));
            assert!(
                values.len() < 2 && value.is_none_or(|value| is_blank(Some(&value))),
                "overlooked"
            );
        }
        Field::Unreadable(_) => {}
        Field::Opaque => panic!("no route of gRPC"),
    }
}

fn is_blank(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.trim().is_empty())
}

static PARTS: LazyLock<[LimitKey; 3]> = LazyLock::new(|| {
    ["json:email", "json:checks.user.loginName", "form:email"]
        .map(|part| part.parse().expect("a part"))
});

static PEEK: LazyLock<PeekPlan> = LazyLock::new(|| {
    let text = "[limit.x]\nrate = \"1/s\"\nkey = [\"json:email\", \"json:checks.user.loginName\", \"form:email\"]\n";
    let loaded = load::from_str("peek.toml", text).expect("a configuration");
    let (limit, mut problems) = (&loaded.config.limit["x"], Problems::default());
    let compiled = Limit::compile(
        "x",
        limit,
        &BTreeMap::new(),
        &KeyPath::root(),
        None,
        None,
        &mut problems,
    );
    let limit: Arc<Limit> = compiled.expect("a limit");
    PeekPlan::of(std::iter::once(&*limit), false).expect("it reads bodies")
});

/// Configurations: every mistake has its place, and what is accepted can be written out and read again.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // Files of this machine are nobody's input.
    if text.contains("include") || text.contains("\\u") || text.contains("\\U") {
        return;
    }
    match load::from_str("fuzz.toml", text) {
        Ok(loaded) => {
            let written = vestibule::cli::show::render(&loaded.config);
            let again = load::from_str("again.toml", &written);
            let again = again.unwrap_or_else(|why| panic!("{why:?}\n{written}"));
            assert_eq!(again.config, loaded.config, "{written}");
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a word");
            for mistake in mistakes {
                assert!(!mistake.to_string().is_empty());
            }
        }
    }
}

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let text = "[listen.a]\nbind = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"10.0.0.0/8\"]\n";
    let loaded = load::from_str("trust.toml", text).expect("a configuration");
    Trust::compile(&loaded.config.listen["a"])
});

fn conn(peer: &str) -> ConnFacts {
    let peer: IpAddr = peer.parse().unwrap();
    ConnFacts {
        listener: 0,
        listener_name: "a".into(),
        peer: (peer, 1234).into(),
        peer_text: address_text(peer),
        local: ([127, 0, 0, 1], 80).into(),
        scheme: Scheme::Http,
        protocol: Protocol::Http1,
        server_name: None,
        client_cert: None,
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    percent_decoded_bytes(text.as_bytes())
}

fn percent_decoded_bytes(mut rest: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(rest.len());
    while let [byte, after @ ..] = rest {
        let escape = (*byte == b'%').then(|| after.get(..2)).flatten();
        let value = escape
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(value.unwrap_or(*byte));
        rest = if value.is_some() { &after[2..] } else { after };
    }
    decoded
}

/// By hand, so that the reader under test is not judged by its own library.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(
                ALPHABET[(bits >> (18 - 6 * place) & 63) as usize],
            ));
        }
    }
    text
}
