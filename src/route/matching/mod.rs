//! The matchers, one a file. Each reads its words from the configuration and knows how specific it is.

pub(super) mod grpc;
pub(super) mod header;
pub(super) mod host;
pub(super) mod method;
pub(super) mod path;

use std::cmp::{Ordering, Reverse};
use std::fmt;

use http::{HeaderMap, Method};

use header::HeaderMatch;
use method::MethodSet;

/// What a route asks for beside host and path.
#[derive(Clone, Debug)]
pub(super) struct Criteria {
    /// Sorted by name.
    pub(super) headers: Box<[HeaderMatch]>,
    pub(super) methods: MethodSet,
    pub(super) listeners: Listeners,
    /// `auth = "deny"`: wins a tie, so that a conflict fails closed.
    pub(super) closed: bool,
}

/// Whether the criteria are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Met,
    /// Everything is met but the method.
    OtherMethod,
    Unmet,
}

impl Criteria {
    pub(super) fn judge(&self, listener: usize, method: &Method, headers: &HeaderMap) -> Verdict {
        if !self.listeners.contain(listener) {
            return Verdict::Unmet;
        }
        if !self.headers.iter().all(|matcher| matcher.matches(headers)) {
            return Verdict::Unmet;
        }
        if self.methods.contains(method) {
            Verdict::Met
        } else {
            Verdict::OtherMethod
        }
    }

    /// The more specific first: more headers, listed methods, listed listeners; then the closed one.
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }

    fn rank(&self) -> (Reverse<usize>, bool, bool, bool) {
        (
            Reverse(self.headers.len()),
            !self.methods.is_listed(),
            !self.listeners.is_listed(),
            !self.closed,
        )
    }

    /// Whether every request that meets `other` meets these too.
    pub(super) fn cover(&self, other: &Self) -> bool {
        self.listeners.cover(&other.listeners)
            && self.methods.cover(&other.methods)
            && self
                .headers
                .iter()
                .all(|one| one.is_implied_by(&other.headers))
    }

    /// Whether some request can meet both.
    pub(super) fn overlap(&self, other: &Self) -> bool {
        self.listeners.overlap(&other.listeners)
            && self.methods.overlap(&other.methods)
            && !self
                .headers
                .iter()
                .any(|one| one.contradicts(&other.headers))
    }

    /// Whether neither is more specific than the other, so that only the spelling decides between them.
    pub(super) fn ties_with(&self, other: &Self) -> bool {
        let (headers, methods, listeners, _) = self.rank();
        let theirs = other.rank();
        (headers, methods, listeners) == (theirs.0, theirs.1, theirs.2)
    }
}

impl fmt::Display for Criteria {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.methods)?;
        for header in &self.headers {
            write!(f, " {header}")?;
        }
        if let Some(listeners) = &self.listeners.0 {
            write!(f, " listeners {listeners:?}")?;
        }
        Ok(())
    }
}

/// The listeners that serve a route, by id; `None` is every one.
#[derive(Clone, Debug)]
pub(super) struct Listeners(pub(super) Option<Box<[usize]>>);

impl Listeners {
    fn contain(&self, listener: usize) -> bool {
        self.0
            .as_ref()
            .is_none_or(|listed| listed.contains(&listener))
    }

    fn is_listed(&self) -> bool {
        self.0.is_some()
    }

    fn cover(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(theirs)) => theirs.iter().all(|listener| ours.contains(listener)),
        }
    }

    fn overlap(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(ours), Some(theirs)) => theirs.iter().any(|listener| ours.contains(listener)),
            _ => true,
        }
    }
}
