//! What a client is told about a limit, in the fields of draft-ietf-httpapi-ratelimit-headers-10: the quotas as they
//! are written, and what is left. A limit is told by its name and never by its key.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::budget::Left;
use crate::config::Rate;
use crate::types::rejection::Budget;

/// The fields of one limit.
#[derive(Debug)]
pub(super) struct Fields {
    policy: HeaderValue,
    /// The name of each window, as a string of RFC 9651.
    names: Box<[Arc<str>]>,
}

impl Fields {
    /// `None` for a limit without windows, or with a name that no such string can hold.
    pub(super) fn new(name: &str, rates: &[Rate]) -> Option<Self> {
        let printable = name.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
        if rates.is_empty() || !printable {
            return None;
        }
        let name = name.replace('\\', "\\\\").replace('"', "\\\"");
        let names = (1..=rates.len()).map(|number| match number {
            1 => format!("\"{name}\"").into(),
            number => format!("\"{name}-{number}\"").into(),
        });
        let names: Box<[Arc<str>]> = names.collect();
        let mut policy = String::new();
        for (name, rate) in names.iter().zip(rates) {
            let comma = if policy.is_empty() { "" } else { ", " };
            let window = rate.per.as_secs();
            let _ = write!(policy, "{comma}{name};q={};w={window}", rate.count);
        }
        Some(Self {
            policy: HeaderValue::try_from(policy).ok()?,
            names,
        })
    }

    /// What a refused client is told: nothing is left of that window, for that long.
    pub(super) fn refused(&self, window: usize, wait: Duration) -> Option<Budget> {
        self.budget(window, 0, wait)
    }

    /// Whether there is more than one window to tell of.
    pub(super) fn are_many(&self) -> bool {
        self.names.len() > 1
    }

    /// What a client is told that passed.
    pub(super) fn passed(&self, left: Left) -> Option<Budget> {
        self.budget(left.window, left.count, Duration::from_nanos(left.full_in))
    }

    fn budget(&self, window: usize, count: u32, time: Duration) -> Option<Budget> {
        Some(Budget {
            policy: self.policy.clone(),
            window: Arc::clone(self.names.get(window)?),
            count,
            time,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(written: &[&str]) -> Vec<Rate> {
        written.iter().map(|rate| rate.parse().unwrap()).collect()
    }

    #[test]
    fn quotas_are_told_as_they_are_written() {
        let policy = |rates_of: &[&str]| Fields::new("login", &rates(rates_of)).unwrap().policy;
        assert_eq!(policy(&["10/m"]), r#""login";q=10;w=60"#);
        assert_eq!(
            policy(&["5/m", "20/h"]),
            r#""login";q=5;w=60, "login-2";q=20;w=3600"#
        );
    }

    #[test]
    fn what_is_left_is_told_with_the_time_rounded_up() {
        let fields = Fields::new("a \"b\"", &rates(&["10/m"])).unwrap();
        let refused = fields.refused(0, Duration::from_millis(41_001)).unwrap();
        assert_eq!(refused.left().unwrap(), r#""a \"b\"";r=0;t=42"#);
        let left = Left {
            window: 0,
            count: 7,
            full_in: 18_000_000_000,
        };
        let passed = fields.passed(left).unwrap();
        assert_eq!(passed.left().unwrap(), r#""a \"b\"";r=7;t=18"#);
    }

    #[test]
    fn a_name_that_no_field_can_hold_is_not_told() {
        assert!(Fields::new("zähler", &rates(&["1/s"])).is_none());
        assert!(Fields::new("login", &[]).is_none());
    }
}
