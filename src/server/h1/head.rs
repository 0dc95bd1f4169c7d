//! The scan of one request head: line by line, strict, without a copy. It says where the head ends and how its body is
//! framed, or why the head is refused.
//!
//! Only what decides about framing and spelling is judged; hosts, paths and the rest are `route`'s, which sees every
//! request, whatever its protocol.

use memchr::memchr;

use super::{Refusal, is_text, is_token_byte};
use crate::types::Reason;

/// The largest head that is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadBounds {
    /// Bytes of all header lines.
    pub max_head: usize,
    /// Header lines.
    pub max_fields: usize,
    /// Bytes of the request target.
    pub max_target: usize,
}

/// A head that is under way. It is fed with all bytes of the head so far, and goes on where it stopped.
#[derive(Debug, Default)]
pub struct HeadScan {
    /// Where the line under way begins.
    line: usize,
    /// Up to where no line end was found.
    searched: usize,
    /// Where the header lines begin; 0 before the request line has been read.
    fields_at: usize,
    fields: usize,
    blank: bool,
    is_http_10: bool,
    host: bool,
    upgrade: bool,
    length: Option<u64>,
    chunked: bool,
}

/// A head that ended, and that hyper may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its bytes, the empty line included.
    pub len: usize,
    /// What follows it.
    pub framing: Framing,
    /// Whether the client asks for another protocol: what follows the body may not be HTTP.
    pub upgrade: bool,
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By a count of bytes; 0 for no body.
    Length(u64),
    /// By chunks.
    Chunked,
}

impl HeadScan {
    /// Reads `bytes`, which begin with the head and may go on behind it. `None`: the head has not ended yet.
    ///
    /// # Errors
    /// The rule that the head breaks.
    pub fn read(&mut self, bytes: &[u8], bounds: &HeadBounds) -> Result<Option<Whole>, Refusal> {
        if let (0, Some(first)) = (self.searched, bytes.first()) {
            refuse_noise(*first)?;
        }
        loop {
            let unread = bytes.get(self.searched..).unwrap_or_default();
            let Some(at) = memchr(b'\n', unread) else {
                self.searched = bytes.len();
                self.check_size(bounds)?;
                return Ok(None);
            };
            let end = self.searched + at;
            let line = bytes.get(self.line..end).unwrap_or_default();
            let line = line
                .strip_suffix(b"\r")
                .ok_or_else(|| framing("a bare LF ends a line"))?;
            self.searched = end + 1;
            self.line = self.searched;
            self.check_size(bounds)?;
            if self.fields_at == 0 {
                self.take_request_line(line, bounds)?;
            } else if line.is_empty() {
                // Without the CR of the empty line.
                let fields = bytes.get(self.fields_at..end - 1).unwrap_or_default();
                return self.end(fields).map(Some);
            } else {
                self.take_field(line, bounds)?;
            }
        }
    }

    fn check_size(&self, bounds: &HeadBounds) -> Result<(), Refusal> {
        if self.fields_at == 0 {
            if self.searched > bounds.max_target.saturating_add(REQUEST_LINE_REST) {
                return Err(Refusal::new(Reason::TargetTooLong, ""));
            }
        } else if self.searched - self.fields_at > bounds.max_head {
            return Err(Refusal::new(Reason::HeadTooLarge, ""));
        }
        Ok(())
    }

    fn take_request_line(&mut self, line: &[u8], bounds: &HeadBounds) -> Result<(), Refusal> {
        // RFC 9112 section 2.2: clients that end a body with a line end too many are forgiven one.
        if line.is_empty() && !self.blank {
            self.blank = true;
            return Ok(());
        }
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let method = parts.next().unwrap_or_default();
        if method.is_empty() || !method.iter().copied().all(is_token_byte) {
            return Err(framing("the method is malformed"));
        }
        if method == super::STAND_IN_METHOD.as_bytes() {
            return Err(framing("the method is none"));
        }
        let target = parts.next().unwrap_or_default();
        let version = parts.next().ok_or_else(|| framing("no HTTP version"))?;
        self.is_http_10 = is_http_10(version)?;
        if method == b"CONNECT" {
            return Err(Refusal::new(Reason::MethodRefused, "CONNECT"));
        }
        if target.len() > bounds.max_target {
            return Err(Refusal::new(Reason::TargetTooLong, ""));
        }
        judge_target(target, method)?;
        self.fields_at = self.line;
        Ok(())
    }

    fn take_field(&mut self, line: &[u8], bounds: &HeadBounds) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > bounds.max_fields {
            return Err(Refusal::new(Reason::TooManyFields, ""));
        }
        let name_len = line
            .iter()
            .position(|byte| !is_token_byte(*byte))
            .unwrap_or(line.len());
        let (name, rest) = line.split_at_checked(name_len).unwrap_or_default();
        let Some((b':', value)) = rest.split_first() else {
            return Err(odd_name(line, rest));
        };
        if name.is_empty() {
            return Err(field("a field has no name"));
        }
        // Length and first letter tell most names apart.
        match (name.len(), name.first()) {
            (4, Some(b'h' | b'H')) if name.eq_ignore_ascii_case(b"host") => self.take_host(),
            (7, Some(b'u' | b'U')) if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            (14, Some(b'c' | b'C')) if name.eq_ignore_ascii_case(b"content-length") => {
                self.take_length(trim(value))
            }
            (17, Some(b't' | b'T')) if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.take_coding(trim(value))
            }
            _ => Ok(()),
        }
    }

    fn take_host(&mut self) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.host, true) {
            return Err(Refusal::new(Reason::BadHost, "two Host headers"));
        }
        Ok(())
    }

    fn take_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(framing("two Content-Length headers"));
        }
        let length = decimal(value).ok_or_else(|| framing("Content-Length is not a number"))?;
        self.length = Some(length);
        Ok(())
    }

    fn take_coding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.chunked, true) {
            return Err(framing("two Transfer-Encoding headers"));
        }
        if self.is_http_10 {
            return Err(framing("Transfer-Encoding in HTTP/1.0"));
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            return Ok(());
        }
        Err(odd_coding(value))
    }

    fn end(&self, fields: &[u8]) -> Result<Whole, Refusal> {
        if !is_text(fields) {
            return Err(field("a control byte in a field"));
        }
        if !self.host {
            return Err(Refusal::new(Reason::BadHost, "no host"));
        }
        let framing = match (self.chunked, self.length) {
            (true, Some(_)) => {
                return Err(framing("both Content-Length and Transfer-Encoding"));
            }
            (true, None) => Framing::Chunked,
            (false, length) => Framing::Length(length.unwrap_or(0)),
        };
        Ok(Whole {
            len: self.searched,
            framing,
            // hyper switches in HTTP/1.1 alone.
            upgrade: self.upgrade && !self.is_http_10,
        })
    }
}

/// No request begins with such a byte, so that there is nothing to wait for: a TLS handshake on a cleartext port, a
/// binary protocol, a leading space.
fn refuse_noise(first: u8) -> Result<(), Refusal> {
    if is_token_byte(first) || matches!(first, b'\r' | b'\n') {
        return Ok(());
    }
    Err(framing("no request begins like this"))
}

fn is_http_10(version: &[u8]) -> Result<bool, Refusal> {
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            Err(Refusal::new(Reason::BadVersion, ""))
        }
        _ => Err(framing("the HTTP version is malformed")),
    }
}

/// Origin form, absolute form with http or https, or `*` for OPTIONS; and no byte that somebody could read as the end of
/// the path.
fn judge_target(target: &[u8], method: &[u8]) -> Result<(), Refusal> {
    let fine = target
        .iter()
        .fold(true, |fine, byte| fine & is_target_byte(*byte));
    if !fine {
        return Err(bad_target("a byte is not allowed in a target"));
    }
    match target {
        [b'/', ..] => Ok(()),
        b"*" if method == b"OPTIONS" => Ok(()),
        _ => judge_absolute(target),
    }
}

fn judge_absolute(target: &[u8]) -> Result<(), Refusal> {
    let after = |scheme: &[u8]| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = after(b"http://")
        .or_else(|| after(b"https://"))
        .ok_or_else(|| bad_target("neither a path nor an http URL"))?;
    let authority = rest
        .split(|byte| matches!(byte, b'/' | b'?'))
        .next()
        .unwrap_or_default();
    let plain = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
    };
    if authority.is_empty() || !authority.iter().all(plain) {
        return Err(Refusal::new(
            Reason::BadHost,
            "the authority of the target is malformed",
        ));
    }
    Ok(())
}

/// Visible ASCII but the fragment's `#`, the backslash, and what no URI holds; hyper would refuse the latter wordlessly.
fn is_target_byte(byte: u8) -> bool {
    (byte > 0x20)
        & (byte < 0x7f)
        & (byte != b'#')
        & (byte != b'\\')
        & (byte != b'<')
        & (byte != b'>')
        & (byte != b'`')
}

/// A line that is no `name: value`.
fn odd_name(line: &[u8], rest: &[u8]) -> Refusal {
    match (line.first(), rest.first()) {
        (Some(b' ' | b'\t'), _) => framing("a line is folded"),
        (_, Some(b' ' | b'\t')) => field("a space before the colon"),
        (_, None) => field("a line without a colon"),
        _ => field("a field name is malformed"),
    }
}

/// A coding that we do not know is honest and unsupported; everything else is an attempt to be read in two ways.
fn odd_coding(value: &[u8]) -> Refusal {
    let mut last_is_chunked = false;
    for coding in value.split(|byte| *byte == b',').map(trim) {
        let is_token = !coding.is_empty() && coding.iter().copied().all(is_token_byte);
        if last_is_chunked || !is_token {
            return framing("Transfer-Encoding is malformed");
        }
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
    }
    Refusal::new(Reason::UnsupportedCoding, "")
}

/// Digits and nothing else; `None` also for what many a reader cannot hold (an `i64`), so that none takes it for less.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    });
    number.filter(|number| i64::try_from(*number).is_ok())
}

/// Without the spaces and tabs around it.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn framing(detail: &'static str) -> Refusal {
    Refusal::new(Reason::BadFraming, detail)
}

fn field(detail: &'static str) -> Refusal {
    Refusal::new(Reason::BadField, detail)
}

fn bad_target(detail: &'static str) -> Refusal {
    Refusal::new(Reason::BadTarget, detail)
}

/// What stands beside the target in a request line: a method of sensible length, the version, spaces, line ends.
const REQUEST_LINE_REST: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: HeadBounds = HeadBounds {
        max_head: 400,
        max_fields: 5,
        max_target: 50,
    };

    fn scan(head: &[u8]) -> Result<Option<Whole>, Refusal> {
        HeadScan::default().read(head, &BOUNDS)
    }

    fn passes(head: &str, framing: Framing) {
        let whole = scan(head.as_bytes())
            .unwrap_or_else(|why| panic!("{head:?}: {why:?}"))
            .unwrap_or_else(|| panic!("{head:?}: unfinished"));
        assert_eq!((whole.len, whole.framing), (head.len(), framing), "{head}");
    }

    /// With a Host, so that nothing else is missing.
    fn refused(request_line: &str, fields: &str, reason: Reason) {
        let head = format!("{request_line}\r\n{fields}Host: a.test\r\n\r\n");
        refused_whole(head.as_bytes(), reason);
    }

    fn refused_whole(head: &[u8], reason: Reason) {
        match scan(head) {
            Err(why) => assert_eq!(why.reason, reason, "{}", String::from_utf8_lossy(head)),
            other => panic!("{}: {other:?}", String::from_utf8_lossy(head)),
        }
    }

    fn field_refused(fields: &str, reason: Reason) {
        refused("POST / HTTP/1.1", fields, reason);
    }

    #[test]
    fn usual_heads_pass_and_say_how_their_body_is_framed() {
        let none = Framing::Length(0);
        passes("GET / HTTP/1.1\r\nHost: a\r\n\r\n", none);
        passes("\r\nGET / HTTP/1.0\r\nhost:a\r\n\r\n", none);
        passes("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", none);
        passes("GET http://a:80/b?c HTTP/1.1\r\nHost: a\r\n\r\n", none);
        passes("GET HTTPS://[::1]?c HTTP/1.1\r\nHost: a\r\n\r\n", none);
        passes("G!T /\"{|}^[] HTTP/1.1\r\nHost: a\r\n\r\n", none);
        passes(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-LENGTH: \t42 \r\n\r\n",
            Framing::Length(42),
        );
        passes(
            "POST / HTTP/1.1\r\nTransfer-Encoding:Chunked\r\nHost: a\r\n\r\n",
            Framing::Chunked,
        );
        passes("GET / HTTP/1.1\r\nHost: a\r\nX: \u{e9} \t\r\n\r\n", none);
        passes("GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", none);
    }

    #[test]
    fn what_follows_the_head_is_left_alone() {
        let wire = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nG ET\n";
        assert_eq!(scan(wire).unwrap().unwrap().len, wire.len() - 5);
    }

    #[test]
    fn an_upgrade_is_noticed_in_http_1_1_alone() {
        for (version, upgrade) in [("1.1", true), ("1.0", false)] {
            let head = format!("GET / HTTP/{version}\r\nHost: a\r\nUpgrade: x\r\n\r\n");
            assert_eq!(scan(head.as_bytes()).unwrap().unwrap().upgrade, upgrade);
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let bad = Reason::BadFraming;
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: ,chunked\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
            "Transfer-Encoding: chunked\tx\r\n",
            "Content-Length:\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: 1_0\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: 9223372036854775808\r\n",
        ] {
            field_refused(fields, bad);
        }
        refused("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n", bad);
    }

    #[test]
    fn an_unknown_coding_is_unsupported() {
        for coding in ["gzip", "identity", "xchunked", "gzip, chunked"] {
            field_refused(
                &format!("Transfer-Encoding: {coding}\r\n"),
                Reason::UnsupportedCoding,
            );
        }
    }

    #[test]
    fn lines_that_end_or_begin_oddly_are_refused() {
        let bad = Reason::BadFraming;
        refused_whole(b"GET / HTTP/1.1\nHost: a\r\n\r\n", bad);
        refused_whole(b"GET / HTTP/1.1\r\nHost: a\n\r\n", bad);
        refused_whole(b"GET / HTTP/1.1\r\nHost: a\r\n\n", bad);
        refused_whole(b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", bad);
        refused_whole(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", bad);
        refused_whole(b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", bad);
        refused_whole(b"\r\n GET / HTTP/1.1\r\nHost: a\r\n\r\n", bad);
        field_refused("X: a\r\n folded\r\n", bad);
        field_refused("X: a\r\n\tfolded\r\n", bad);
        field_refused(" X: a\r\n", bad);
    }

    #[test]
    fn odd_fields_are_refused() {
        for fields in [
            "X : a\r\n",
            "X\t: a\r\n",
            "X\r\n",
            ": a\r\n",
            "X Y: a\r\n",
            "X\u{e9}: a\r\n",
            "X(: a\r\n",
            "X: a\0b\r\n",
            "X: a\rb\r\n",
            "X: a\r\r\n",
            "X: a\u{7f}\r\n",
            "X: a\u{b}\r\n",
            "\0: a\r\n",
        ] {
            field_refused(fields, Reason::BadField);
        }
    }

    #[test]
    fn a_head_has_exactly_one_host() {
        field_refused("Host: a.test\r\n", Reason::BadHost);
        refused_whole(b"GET / HTTP/1.1\r\n\r\n", Reason::BadHost);
        refused_whole(b"GET / HTTP/1.0\r\n\r\n", Reason::BadHost);
    }

    #[test]
    fn odd_targets_are_refused() {
        for target in [
            "!", "a", "*", "?x", "//a@b\\c", "/a#b", "/\\a", "/a\tb", "/\u{e9}", "/a\u{7f}",
            "/a\0", "ftp://a/", "http:/a", "/<a>", "",
        ] {
            refused(&format!("GET {target} HTTP/1.1"), "", Reason::BadTarget);
        }
        for target in [
            "http://",
            "http:///a",
            "http://u@a/",
            "http://a%41/",
            "https://?a",
        ] {
            refused(&format!("GET {target} HTTP/1.1"), "", Reason::BadHost);
        }
        refused("CONNECT a:443 HTTP/1.1", "", Reason::MethodRefused);
    }

    #[test]
    fn odd_request_lines_are_refused() {
        for line in [
            "GET /",
            "GET",
            "GET / ",
            "GET  / HTTP/1.1 ",
            "GET / HTTP/1.1 ",
            "GET /  HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/11",
            "GET / HTTP/1.1x",
            "G(T / HTTP/1.1",
            "- / HTTP/1.1",
        ] {
            refused(line, "", Reason::BadFraming);
        }
        for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0"] {
            refused(&format!("GET / {version}"), "", Reason::BadVersion);
        }
    }

    #[test]
    fn noise_is_refused_at_its_first_byte() {
        refused_whole(b"\x16", Reason::BadFraming);
        refused_whole(b"\0", Reason::BadFraming);
    }

    #[test]
    fn heads_beyond_their_bounds_are_refused_without_waiting_for_their_end() {
        let target = "/".repeat(51);
        refused(&format!("GET {target} HTTP/1.1"), "", Reason::TargetTooLong);
        refused_whole("GET /".repeat(70).as_bytes(), Reason::TargetTooLong);
        let head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(400));
        refused_whole(head.as_bytes(), Reason::HeadTooLarge);
        field_refused(&"X: y\r\n".repeat(6), Reason::TooManyFields);
    }

    const ODD_HEAD: &str = "(GET|POST|-) (/|/a|http://a/) HTTP/1.[01]\r\n(Host: a\r\n|X: y\r\n|Content-Length: [0-9]{1,3}\r\n|Transfer-Encoding: chunked\r\n| z\r\n|Upgrade: x\r\n|a\n){0,4}\r\n.{0,10}";

    proptest! {
        #[test]
        fn any_cut_reads_the_same(head in ODD_HEAD, cuts in prop::collection::vec(1_usize..20, 0..9)) {
            let bytes = head.as_bytes();
            let mut scan = HeadScan::default();
            let mut end = 0;
            let mut found = Ok(None);
            for cut in cuts.into_iter().chain([bytes.len()]) {
                end = (end + cut).min(bytes.len());
                found = scan.read(&bytes[..end], &BOUNDS);
                if found != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(found, HeadScan::default().read(bytes, &BOUNDS));
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = scan(&bytes);
        }
    }
}
