//! When certificates end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::types::clock;

/// The end of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAfter {
    /// Its first name, or the file if it has none.
    pub name: Arc<str>,
    /// Seconds since the Unix epoch; 0 for a date before it.
    pub unix_seconds: u64,
}

impl NotAfter {
    /// What an operator should hear about it at `now`, if anything.
    #[must_use]
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        let left = self.unix_seconds.checked_sub(clock::unix_seconds(now));
        match left {
            None | Some(0) => Some(format!("the certificate of `{}` has expired", self.name)),
            Some(left) if left < SOON.as_secs() => Some(format!(
                "the certificate of `{}` expires in {} h",
                self.name,
                left / 3600
            )),
            Some(_) => None,
        }
    }
}

const SOON: Duration = Duration::from_secs(7 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_week_and_what_comes_after_are_told() {
        let end = NotAfter {
            name: Arc::from("a.test"),
            unix_seconds: 30 * 86_400,
        };
        let on = |day: u64| end.warning(SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400));
        assert_eq!(on(20), None);
        assert!(on(29).unwrap().contains("24 h"));
        assert!(on(30).unwrap().contains("has expired"));
        assert!(on(31).unwrap().contains("has expired"));
    }
}
