//! Label values come from closed sets: nothing that a client sends becomes one as it is.

use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;

use crate::types::Reason;

/// The methods that have a label of their own, and the one for all others.
pub(super) const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "OTHER",
];

/// The place of a method in [`METHODS`].
pub(super) fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::PATCH => 4,
        Method::DELETE => 5,
        Method::OPTIONS => 6,
        Method::CONNECT => 7,
        Method::TRACE => 8,
        _ => 9,
    }
}

/// Statuses that are counted without a lock, in order. Others are counted too, more slowly.
pub(super) const STATUSES: [u16; 34] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409,
    412, 413, 414, 415, 421, 422, 429, 431, 499, 500, 501, 502, 503, 504, 505,
];

/// The place of a status in [`STATUSES`].
pub(super) fn status_index(status: u16) -> Option<usize> {
    STATUSES.binary_search(&status).ok()
}

/// One count for each reason of refusal.
#[derive(Debug)]
pub(super) struct ReasonCounts(Box<[AtomicU64]>);

impl ReasonCounts {
    pub(super) fn new() -> Self {
        Self(Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }

    /// `Reason::ALL` lists the variants in their order, so that a reason's number is its place.
    pub(super) fn count(&self, reason: Reason) {
        if let Some(cell) = self.0.get(reason as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        let counts = self.0.iter().map(|cell| cell.load(Ordering::Relaxed));
        Reason::ALL.iter().copied().zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_a_label_and_unknown_ones_share_one() {
        for method in [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
            Method::CONNECT,
            Method::TRACE,
        ] {
            assert_eq!(METHODS[method_index(&method)], method.as_str());
        }
        for odd in ["PROPFIND", "get", "X"] {
            assert_eq!(METHODS[method_index(&odd.parse().unwrap())], "OTHER");
        }
    }

    #[test]
    fn statuses_are_in_order() {
        assert!(STATUSES.is_sorted());
        assert_eq!(status_index(200), Some(1));
        assert_eq!(status_index(418), None);
    }

    #[test]
    fn every_reason_answered_with_has_a_quick_status() {
        for reason in Reason::ALL {
            let status = reason.status().as_u16();
            assert!(status == 417 || status_index(status).is_some(), "{status}");
        }
    }

    #[test]
    fn each_reason_is_counted_in_its_own_place() {
        for reason in Reason::ALL {
            let counts = ReasonCounts::new();
            counts.count(*reason);
            let found: Vec<_> = counts.each().filter(|(_, count)| *count > 0).collect();
            assert_eq!(found, [(*reason, 1)]);
        }
    }
}
