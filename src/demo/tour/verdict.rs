//! Whether an answer is the expected one, and how it is told.

use std::collections::BTreeMap;

use super::Bag;
use super::step::{Expect, Step};
use crate::demo::client::Answer;
use crate::demo::client::rpc::{self, Call, Wire};
use crate::demo::grpc::HelloReply;
use crate::demo::keys::Signing;

/// What came back, in a line, and whether it should have.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) came: String,
    pub(super) right: bool,
}

impl Verdict {
    pub(super) fn wrong(came: impl Into<String>) -> Self {
        Self {
            came: came.into(),
            right: false,
        }
    }
}

/// Judges the last answer of a step; `statuses` are those of all its answers, this one included.
pub(super) fn judge(step: &Step, statuses: &[u16], answer: Answer, bag: &mut Bag) -> Verdict {
    let ok = answer.status == http::StatusCode::OK;
    match step.expect {
        Expect::Ready | Expect::LoggedOut => told(&answer, ok),
        Expect::Health => told(&answer, ok && answer.at("/status") == "pass"),
        Expect::Refused(reason) => {
            let right = answer.status == reason.status() && answer.text().contains(reason.code());
            told(&answer, right)
        }
        Expect::Known(name, value) => {
            let known = answer.at(&format!("/identity/{name}")) == value;
            told(&answer, ok && known)
        }
        Expect::Token(signing) => token(signing, &answer, bag),
        Expect::LoggedIn => login(&answer, bag),
        Expect::Greeting(wire) => greeting(wire, answer),
        Expect::Limited => limited(statuses, &answer),
        Expect::Guessed => guessed(statuses, &answer),
        Expect::Counted => counted(&answer),
    }
}

fn told(answer: &Answer, right: bool) -> Verdict {
    Verdict {
        came: format!("{} {}", answer.status.as_u16(), excerpt(answer)),
        right,
    }
}

/// One line of the body.
fn excerpt(answer: &Answer) -> String {
    let text = answer.text();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_EXCERPT) {
        Some((end, _)) => format!("{} ...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

fn token(signing: Signing, answer: &Answer, bag: &mut Bag) -> Verdict {
    let token = answer.at("/access_token");
    let Some(token) = token.as_str() else {
        return told(answer, false);
    };
    token.clone_into(&mut bag.token);
    let algorithm = jsonwebtoken::decode_header(token).map_or_else(
        |error| error.to_string(),
        |header| format!("{:?}", header.alg),
    );
    Verdict {
        came: format!(
            "{} with a token of {} characters, {algorithm}, good for {} seconds",
            answer.status.as_u16(),
            token.len(),
            answer.at("/expires_in"),
        ),
        right: algorithm == signing.as_str(),
    }
}

fn login(answer: &Answer, bag: &mut Bag) -> Verdict {
    let cookies = (
        answer.cookie("identsphere_at"),
        answer.cookie("identsphere_csrf"),
    );
    let (Some(session), Some(csrf)) = cookies else {
        return told(answer, false);
    };
    session.clone_into(&mut bag.session);
    csrf.clone_into(&mut bag.csrf);
    let names: Vec<&str> = answer
        .headers
        .get_all(http::header::SET_COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok()?.split('=').next())
        .collect();
    Verdict {
        came: format!(
            "{} with the cookies {}",
            answer.status.as_u16(),
            names.join(", ")
        ),
        right: true,
    }
}

fn greeting(wire: Wire, answer: Answer) -> Verdict {
    let told = told(&answer, false);
    let call: Call<HelloReply> = match rpc::understand(wire, answer) {
        Ok(call) => call,
        Err(error) => return Verdict::wrong(format!("{} ({error})", told.came)),
    };
    let where_from = match wire {
        Wire::Grpc => "in the trailers",
        Wire::Web | Wire::WebText => "in the last frame",
    };
    let status = call.trailers.get("grpc-status").map(|value| value.to_str());
    let Some((reply, Ok("0"))) = call.messages.first().zip(status) else {
        let status = call
            .status
            .map_or("none".to_owned(), |status| status.to_string());
        return Verdict::wrong(format!(
            "{}, grpc-status {status} {}",
            call.http.as_u16(),
            call.message
        ));
    };
    Verdict {
        came: format!(
            "{} `{}` for {}, and grpc-status 0 {where_from}",
            call.http.as_u16(),
            reply.message,
            reply.user
        ),
        right: reply.message == "Hello, Ada!" && reply.user == crate::demo::oidc::CLIENT_ID,
    }
}

fn limited(statuses: &[u16], answer: &Answer) -> Verdict {
    let passed = statuses.iter().filter(|status| **status == 200).count();
    let wait = answer.header("retry-after");
    let refused = answer.status == http::StatusCode::TOO_MANY_REQUESTS;
    Verdict {
        came: format!(
            "{passed} times 200, then {}, retry-after: {wait}",
            answer.status.as_u16()
        ),
        right: refused
            && statuses.first() == Some(&200)
            && wait.parse::<u64>().is_ok_and(|seconds| seconds > 0),
    }
}

fn guessed(statuses: &[u16], answer: &Answer) -> Verdict {
    let wrong = statuses.iter().filter(|status| **status == 401).count();
    let quota = answer.header("ratelimit");
    Verdict {
        came: format!(
            "{wrong} times 401, then {}, retry-after: {}, ratelimit: {quota}",
            answer.status.as_u16(),
            answer.header("retry-after"),
        ),
        right: answer.status == http::StatusCode::TOO_MANY_REQUESTS
            && wrong > 0
            && statuses.len() == wrong + 1
            && quota.starts_with("\"account\";r=0"),
    }
}

fn counted(answer: &Answer) -> Verdict {
    let counts = requests_by_status(&answer.text());
    if counts.is_empty() {
        return told(answer, false);
    }
    let listed: Vec<String> = counts
        .iter()
        .map(|(status, count)| format!("{status}: {count}"))
        .collect();
    let right = ["200", "401", "429"]
        .into_iter()
        .all(|status| counts.get(status).is_some_and(|count| *count > 0.0));
    Verdict {
        came: format!("{REQUESTS} by status: {}", listed.join(", ")),
        right,
    }
}

/// Sums the samples of the request counter by their label `status`.
fn requests_by_status(metrics: &str) -> BTreeMap<String, f64> {
    let mut counts = BTreeMap::new();
    for line in metrics.lines() {
        let Some(labels) = line.strip_prefix(REQUESTS) else {
            continue;
        };
        let status = labels
            .split_once("status=\"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .map(|(status, _)| status.to_owned());
        let count = line
            .rsplit(' ')
            .next()
            .and_then(|count| count.parse::<f64>().ok());
        if let (Some(status), Some(count)) = (status, count) {
            *counts.entry(status).or_default() += count;
        }
    }
    counts
}

const REQUESTS: &str = "vestibule_requests_total";

/// Most characters of a body that are shown.
const MAX_EXCERPT: usize = 300;
