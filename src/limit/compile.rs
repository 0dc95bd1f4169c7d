//! `[limit.NAME]` made into a [`Limit`].

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::HeaderName;

use super::Limit;
use super::key::KeyPlan;
use super::rate::{Budget, LONGEST_FILL, Rate};
use super::timer::{Monotonic, Timer};
use crate::config::{self, KeyPath, LimitKey, Problems};

impl Limit {
    /// Compiles one limit. `previous`, the limit of that name in the snapshot in force, goes on with its buckets when it
    /// was written alike.
    pub fn compile(
        name: &str,
        written: &config::Limit,
        path: &KeyPath,
        previous: Option<&Arc<Self>>,
        problems: &mut Problems,
    ) -> Option<Arc<Self>> {
        if let Some(same) = previous.filter(|limit| limit.is_written(name, written)) {
            return Some(Arc::clone(same));
        }
        Self::with_timer(name, written, path, Monotonic, problems).map(Arc::new)
    }
}

impl<C: Timer> Limit<C> {
    pub(super) fn with_timer(
        name: &str,
        written: &config::Limit,
        path: &KeyPath,
        timer: C,
        problems: &mut Problems,
    ) -> Option<Self> {
        let key = compile_key(&written.key, &path.key("key"), problems);
        let max_keys = compile_max_keys(written.max_keys, &path.key("max_keys"), problems);
        let budget = compile_budget(written, path, problems);
        Some(Self {
            name: Arc::from(name),
            written: written.clone(),
            key: key?,
            rate: Rate::new(budget?, max_keys?, timer),
            allowed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    fn is_written(&self, name: &str, written: &config::Limit) -> bool {
        &*self.name == name && self.written == *written
    }
}

fn compile_key(parts: &[LimitKey], path: &KeyPath, problems: &mut Problems) -> Option<KeyPlan> {
    let mut fine = true;
    if parts.is_empty() {
        problems.push_with_help(
            path,
            "a limit needs at least one key",
            Some("leave `key` out to count by address".to_owned()),
        );
        fine = false;
    }
    for (position, part) in parts.iter().enumerate() {
        let LimitKey::Header(name) = part else {
            continue;
        };
        if let Some(instead) = better_than(name) {
            problems.push_with_help(
                &path.index(position),
                format!(
                    "`{name}` cannot be counted by: whoever sends it chooses it anew each time"
                ),
                Some(format!("use `{instead}`")),
            );
            fine = false;
        }
    }
    fine.then(|| KeyPlan::new(parts))
}

/// Headers that only `authn` and `client_ip` read, and the key that stands for what is true in them.
fn better_than(name: &HeaderName) -> Option<&'static str> {
    match name.as_str() {
        "authorization" | "proxy-authorization" | "cookie" => Some("principal"),
        "forwarded" | "x-real-ip" | "true-client-ip" | "cf-connecting-ip" => Some("ip"),
        name if name.starts_with("x-forwarded-") => Some("ip"),
        _ => None,
    }
}

fn compile_max_keys(written: u32, path: &KeyPath, problems: &mut Problems) -> Option<usize> {
    if written == 0 {
        problems.push(path, "at least one key must be kept");
        return None;
    }
    usize::try_from(written).ok()
}

fn compile_budget(
    written: &config::Limit,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Budget> {
    let Some(count) = NonZeroU32::new(written.rate.count) else {
        problems.push(&path.key("rate"), "a rate lets at least one through");
        return None;
    };
    let Some(burst) = written.burst.map_or(Some(count), NonZeroU32::new) else {
        problems.push(
            &path.key("burst"),
            "a bucket of depth 0 lets nothing through",
        );
        return None;
    };
    let budget = Budget::new(count, written.rate.per, burst);
    if budget.is_none() {
        let key = if written.burst.is_some() {
            "burst"
        } else {
            "rate"
        };
        problems.push(
            &path.key(key),
            format!(
                "an empty bucket must be full again within {} days",
                LONGEST_FILL.as_secs() / 86_400
            ),
        );
    }
    budget
}
