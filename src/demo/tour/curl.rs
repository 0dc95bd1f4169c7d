//! A step as a command line for a shell.

use std::fmt::Write;

use super::step::{self, Credential, Door, Expect, Payload, Step, Tries};
use super::{FORGED_END, Place};
use crate::demo::client::rpc::{self, Wire};
use crate::demo::oidc::{CLIENT_ID, CLIENT_SECRET};

/// The line that repeats `step`. Lines share a shell: the token is kept in `$TOKEN`, cookies in a file.
pub(super) fn line(place: &Place, step: &Step) -> String {
    let mut line = String::from("curl -s");
    for part in [
        shown(step),
        door(place, step.door),
        payload(step),
        credential(step),
    ] {
        if !part.is_empty() {
            line.push(' ');
            line.push_str(&part);
        }
    }
    line.push(' ');
    line.push_str(&step.url(place));
    around(step, line)
}

/// How much of the answer is shown: the head too, where it says something.
fn shown(step: &Step) -> String {
    match step.expect {
        Expect::Token(_) => String::new(),
        Expect::Counted => String::new(),
        Expect::Greeting(_) => "-i -o -".to_owned(),
        Expect::Limited | Expect::Guessed => {
            r"-o /dev/null -w '%{http_code} %header{retry-after}\n'".to_owned()
        }
        Expect::LoggedIn => format!("-i -c {COOKIES}"),
        _ => "-i".to_owned(),
    }
}

fn door(place: &Place, door: Door) -> String {
    let trust = format!("--cacert {}", quoted(&place.root_file));
    match door {
        Door::TlsHttp1 => format!("{trust} --http1.1"),
        Door::TlsHttp2 => format!("{trust} --http2"),
        Door::H2c => "--http2-prior-knowledge".to_owned(),
        Door::Admin => String::new(),
    }
}

fn payload(step: &Step) -> String {
    let content_type = step.payload.content_type().unwrap_or_default();
    match step.payload {
        Payload::None if step.method == "POST" => "-X POST".to_owned(),
        Payload::None => String::new(),
        // What curl assumes.
        Payload::TokenForm(_) => format!("-d {}", quoted(&step.payload.text())),
        Payload::Json(text) => {
            format!("-H 'content-type: {content_type}' -d {}", quoted(text))
        }
        Payload::Hello(Wire::Grpc) => {
            format!("-H 'content-type: {content_type}' -H 'te: trailers' --data-binary @-")
        }
        Payload::Hello(Wire::Web) => {
            format!("-H 'content-type: {content_type}' -H 'x-grpc-web: 1' --data-binary @-")
        }
        Payload::Hello(Wire::WebText) => {
            let body = rpc::body(Wire::WebText, &step::hello());
            let text = String::from_utf8_lossy(&body);
            format!(
                "-H 'content-type: {content_type}' -H 'x-grpc-web: 1' -d {}",
                quoted(&text)
            )
        }
    }
}

fn credential(step: &Step) -> String {
    match step.credential {
        Credential::None => String::new(),
        Credential::Client => format!("-u {CLIENT_ID}:{CLIENT_SECRET}"),
        Credential::Token => r#"-H "authorization: Bearer $TOKEN""#.to_owned(),
        Credential::Forged => {
            let cut = "?".repeat(FORGED_END.len());
            format!(r#"-H "authorization: Bearer ${{TOKEN%{cut}}}{FORGED_END}""#)
        }
        Credential::Cookies => format!("-b {COOKIES}"),
        Credential::CookiesAndCsrf => format!(
            r#"-b {COOKIES} -H "x-csrf-token: $(awk '/identsphere_csrf/ {{ print $7 }}' {COOKIES})""#
        ),
    }
}

/// What stands before, after, or around the command.
fn around(step: &Step, line: String) -> String {
    match (step.expect, step.payload, step.tries) {
        (Expect::Token(_), _, _) => {
            format!(r#"TOKEN=$({line} | sed 's/.*"access_token":"\([^"]*\)".*/\1/')"#)
        }
        (Expect::Counted, _, _) => format!("{line} | grep ^vestibule_requests_total"),
        (_, Payload::Hello(wire @ (Wire::Grpc | Wire::Web)), _) => {
            let body = rpc::body(wire, &step::hello());
            format!("printf '{}' | {line}", printf(&body))
        }
        (_, _, Tries::Burst) => format!("for i in $(seq 8); do {line}; done"),
        _ => line,
    }
}

/// Bytes as every `printf` understands them.
fn printf(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphabetic() {
            text.push(char::from(*byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(text, "\\{byte:03o}");
        }
        text
    })
}

/// One word for the shell, whatever is in it.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@%+,=".contains(&byte));
    if plain {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

const COOKIES: &str = "demo.cookies";
