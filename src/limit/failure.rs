//! Which answers are failures, for limits that count those.

use std::str::FromStr;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use regex::bytes::Regex;

use super::budget::Settlement;
use crate::config::{self, KeyPath, Problems};

/// An answer, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// What the request wanted to do.
    pub method: &'a Method,
    /// Its HTTP status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: &'a HeaderMap,
    /// What is known of the gRPC status.
    pub grpc: Grpc,
}

/// What is known of a gRPC status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grpc {
    /// The answer is of another kind.
    None,
    /// It comes with the trailers.
    Awaited,
    /// It is there.
    Known(u32),
}

/// What a limit takes for a failure.
#[derive(Debug)]
pub(super) struct Failures {
    statuses: Box<[StatusCode]>,
    grpc_statuses: Box<[u32]>,
    headers: Box<[(HeaderName, Pattern)]>,
}

#[derive(Debug)]
enum Pattern {
    Any,
    Exactly(HeaderValue),
    Like(Regex),
}

impl Answer<'_> {
    /// Whether a good one says that somebody is who they claim to be. The page of a login form does not, whatever account
    /// the request for it names.
    pub(super) fn can_prove(&self) -> bool {
        !self.method.is_safe()
    }
}

impl Failures {
    pub(super) fn compile(
        written: &config::Failure,
        path: &KeyPath,
        problems: &mut Problems,
    ) -> Option<Self> {
        let mut fine = true;
        let mut complain = |path: &KeyPath, why: String| {
            problems.push(path, why);
            fine = false;
        };
        let mut statuses = Vec::new();
        for (index, status) in written.status.iter().enumerate() {
            match StatusCode::from_u16(*status) {
                Ok(status) => statuses.push(status),
                Err(_) => complain(
                    &path.key("status").index(index),
                    "a status is a number from 100 to 999".to_owned(),
                ),
            }
        }
        if written.grpc_status.contains(&0) {
            complain(&path.key("grpc_status"), "0 is success".to_owned());
        }
        let mut headers = Vec::new();
        for (name, value) in &written.headers {
            let path = path.key("headers").key(name);
            let named = HeaderName::from_str(name);
            match (named, Pattern::compile(value)) {
                (Ok(name), Ok(pattern)) => headers.push((name, pattern)),
                (Err(_), _) => complain(&path, format!("`{name}` is no header name")),
                (_, Err(why)) => complain(&path, why),
            }
        }
        fine.then(|| Self {
            statuses: statuses.into(),
            grpc_statuses: written.grpc_status.as_slice().into(),
            headers: headers.into(),
        })
    }

    /// What `answer` means to a limit whose keys are forgiven after a success if `forgives`; `None` until the trailers
    /// are there.
    pub(super) fn judge(&self, answer: &Answer<'_>, forgives: bool) -> Option<Settlement> {
        let failed = self.statuses.contains(&answer.status)
            || self.headers.iter().any(|(name, pattern)| {
                let mut values = answer.headers.get_all(name).iter();
                values.any(|value| pattern.matches(value))
            });
        if failed {
            return Some(Settlement::Failed);
        }
        let good = match answer.grpc {
            Grpc::Awaited => return None,
            Grpc::Known(status) if self.grpc_statuses.contains(&status) => {
                return Some(Settlement::Failed);
            }
            Grpc::Known(status) => status == 0,
            Grpc::None => answer.status.is_success() || answer.status.is_redirection(),
        };
        Some(if good && forgives {
            Settlement::Forgiven
        } else {
            Settlement::Released
        })
    }
}

impl Pattern {
    fn compile(written: &str) -> Result<Self, String> {
        if written == "*" {
            return Ok(Self::Any);
        }
        if let Some(pattern) = written.strip_prefix('~') {
            return Regex::new(pattern.trim_start())
                .map(Self::Like)
                .map_err(|error| format!("no regular expression: {error}"));
        }
        HeaderValue::from_str(written)
            .map(Self::Exactly)
            .map_err(|_| "no header value".to_owned())
    }

    fn matches(&self, value: &HeaderValue) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(expected) => value == expected,
            Self::Like(regex) => regex.is_match(value.as_bytes()),
        }
    }
}
