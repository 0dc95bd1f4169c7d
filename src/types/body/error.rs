//! Why a body ends before its end.

use std::fmt;
use std::io;

use super::Failure;

/// Why a body ended before its end.
#[derive(Debug)]
pub enum BodyError {
    /// More bytes than the route allows.
    TooLarge,
    /// No progress within the deadline.
    Stalled,
    /// The bytes are not what the dialect promised.
    Malformed(&'static str),
    /// The connection that feeds the body failed.
    Connection(hyper::Error),
    /// Its time was over; see [`Body::expire`](super::Body::expire).
    Expired(h2::Error),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the body is larger than the route allows"),
            Self::Stalled => f.write_str("the body made no progress in time"),
            Self::Malformed(what) => write!(f, "the body is malformed: {what}"),
            Self::Connection(_) => f.write_str("the connection that feeds the body failed"),
            Self::Expired(_) => f.write_str("the time of the call is over"),
        }
    }
}

impl BodyError {
    /// The way in which the body failed. A connection that delivers nonsense has not failed: its bytes are malformed.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::TooLarge => Failure::TooLarge,
            Self::Stalled => Failure::Stalled,
            Self::Malformed(_) => Failure::Malformed,
            Self::Connection(error) if is_nonsense(error) => Failure::Malformed,
            Self::Connection(_) => Failure::Connection,
            Self::Expired(_) => Failure::Expired,
        }
    }
}

/// Whether bytes came that cannot be read as a body, such as a chunk size that is none.
fn is_nonsense(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        )
    })
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection(error) => Some(error),
            // HTTP/2 looks here for the code of its reset.
            Self::Expired(error) => Some(error),
            _ => None,
        }
    }
}
