//! `[limit.NAME]` made into a [`Limit`].

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use http::HeaderName;

use super::budget::{Budget, MOST_WINDOWS};
use super::failure::Failures;
use super::key::{Addresses, KeyPlan, KeySecret, Networks};
use super::rate::{LONGEST_FILL, Window};
use super::seats::Seats;
use super::store::Store;
use super::timer::{Monotonic, Timer};
use super::{Buckets, Counts, Exempt, Limit};
use crate::config::{self, Count, KeyPath, LimitKey, LimitMode, OneOrMany, Problems, Rate};
use crate::types::CidrSet;

impl Limit {
    /// Compiles one limit. `previous`, the limit of that name in the snapshot in force, goes on with its buckets when it
    /// was written alike.
    pub fn compile(
        name: &str,
        written: &config::Limit,
        networks: &BTreeMap<String, config::Network>,
        path: &KeyPath,
        previous: Option<&Arc<Self>>,
        problems: &mut Problems,
    ) -> Option<Arc<Self>> {
        let addresses = compile_addresses(written, networks, path, problems)?;
        if let Some(same) = previous
            .filter(|limit| limit.is_written(name, written) && *limit.key.addresses() == addresses)
        {
            return Some(Arc::clone(same));
        }
        Self::with_timer(name, written, addresses, path, Monotonic, problems).map(Arc::new)
    }
}

impl<C: Timer> Limit<C> {
    pub(super) fn with_timer(
        name: &str,
        written: &config::Limit,
        addresses: Addresses,
        path: &KeyPath,
        timer: C,
        problems: &mut Problems,
    ) -> Option<Self> {
        let key = compile_key(written, path, problems);
        let max_keys = compile_max_keys(written.max_keys, &path.key("max_keys"), problems);
        let budget = compile_budget(written, path, problems);
        let failures = compile_failures(written, path, problems);
        let seats = compile_seats(written, path, problems);
        let exempt = compile_exempt(&written.allow, &path.key("allow"), problems);
        demand_a_bound(written, path, problems);
        let max_keys = max_keys?;
        Some(Self {
            name: Arc::from(name),
            written: written.clone(),
            key: KeyPlan::new(key?, addresses, KeySecret::draw()),
            budget: budget?.map(|budget| Buckets {
                store: Store::new(budget.layout(), &budget.spans(), max_keys),
                budget,
            }),
            failures: failures?,
            seats: seats?,
            exempt: exempt?,
            enforced: written.mode == LimitMode::Enforce,
            timer,
            counts: Counts::default(),
        })
    }

    fn is_written(&self, name: &str, written: &config::Limit) -> bool {
        &*self.name == name && self.written == *written
    }
}

/// The parts of the key, checked.
fn compile_key<'w>(
    written: &'w config::Limit,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<&'w [LimitKey]> {
    let key = path.key("key");
    let mut fine = true;
    if written.key.is_empty() {
        problems.push_with_help(
            &key,
            "a limit needs at least one key",
            Some("leave `key` out to count by address".to_owned()),
        );
        fine = false;
    }
    for (position, part) in written.key.iter().enumerate() {
        let LimitKey::Header(name) = part else {
            continue;
        };
        if let Some(instead) = better_than(name) {
            problems.push_with_help(
                &key.index(position),
                format!(
                    "`{name}` cannot be counted by: whoever sends it chooses it anew each time"
                ),
                Some(format!("use {instead}")),
            );
            fine = false;
        }
    }
    let reads_body = |part: &LimitKey| matches!(part, LimitKey::Json(_) | LimitKey::Form(_));
    if written.key.iter().any(reads_body) && !(1..=MOST_PEEK).contains(&written.peek.0) {
        problems.push(&path.key("peek"), "between 1B and 1MiB can be read ahead");
        fine = false;
    }
    fine.then_some(&*written.key)
}

/// How addresses are told apart.
pub(super) fn compile_addresses(
    written: &config::Limit,
    networks: &BTreeMap<String, config::Network>,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Addresses> {
    let mut fine = true;
    for (key, prefix, most) in [
        ("ipv4_prefix", written.ipv4_prefix, 32),
        ("ipv6_prefix", written.ipv6_prefix, 128),
    ] {
        if prefix == 0 || prefix > most {
            problems.push(&path.key(key), format!("a prefix has 1 to {most} bits"));
            fine = false;
        }
    }
    let wanted = written.key.contains(&LimitKey::Network);
    for (index, name) in written.networks.iter().enumerate() {
        if !networks.contains_key(name) {
            let known = networks.keys().map(String::as_str);
            problems.unknown_name(&path.key("networks").index(index), "network", name, known);
            fine = false;
        }
    }
    if wanted && networks.is_empty() {
        problems.push_with_help(
            &path.key("key"),
            "`network` tells named networks apart, and there are none",
            Some("add `[network.office]` with `cidrs = [\"192.0.2.0/24\"]`".to_owned()),
        );
        fine = false;
    }
    let listed = |name: &String| written.networks.is_empty() || written.networks.contains(name);
    let named = networks.iter().filter(|(name, _)| wanted && listed(name));
    let named = named.flat_map(|(name, network)| {
        let cidrs = network.cidrs.iter();
        cidrs.map(move |cidr| (name.as_str(), *cidr))
    });
    match Networks::new(named) {
        Ok(networks) => {
            fine.then(|| Addresses::new(written.ipv4_prefix, written.ipv6_prefix, networks))
        }
        Err(twice) => {
            let message = format!("`{twice}` stands in two of the networks that are told apart");
            problems.push(&path.key("key"), message);
            None
        }
    }
}

/// Headers that only `authn` and `client_ip` read, and the key that stands for what is true in them.
fn better_than(name: &HeaderName) -> Option<&'static str> {
    match name.as_str() {
        "authorization" | "proxy-authorization" => Some("`principal` or `basic:client_id`"),
        "cookie" => Some("`principal` or `cookie:NAME`"),
        "forwarded" | "x-real-ip" | "true-client-ip" | "cf-connecting-ip" => Some("`ip`"),
        name if name.starts_with("x-forwarded-") => Some("`ip`"),
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

/// `None` for a mistake, `Some(None)` where no rate is written.
fn compile_budget(
    written: &config::Limit,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Option<Budget>> {
    let Some(OneOrMany(rates)) = &written.rate else {
        for (key, is_written) in [
            ("burst", written.burst.is_some()),
            ("ban", written.ban.is_some()),
            ("count", written.count == Count::Failures),
        ] {
            if is_written {
                problems.push(&path.key(key), "means nothing without a `rate`");
            }
        }
        return Some(None);
    };
    if rates.is_empty() || rates.len() > MOST_WINDOWS {
        let why = format!("a limit has one to {MOST_WINDOWS} windows");
        problems.push(&path.key("rate"), why);
        return None;
    }
    let mut windows = Vec::new();
    for (index, rate) in rates.iter().enumerate() {
        let burst = written.burst.filter(|_| index == 0);
        windows.push(compile_window(rate, burst, path, problems)?);
    }
    let ban = match written.ban {
        Some(ban) if ban.0.is_zero() || ban.0 > LONGEST_FILL => {
            let days = LONGEST_FILL.as_secs() / 86_400;
            let why = format!("a ban lasts for up to {days} days");
            problems.push(&path.key("ban"), why);
            return None;
        }
        Some(ban) => Some(u64::try_from(ban.0.as_nanos()).ok()?),
        None => None,
    };
    let learns = written.count == Count::Failures;
    Some(Some(Budget::new(windows, ban, learns)))
}

fn compile_window(
    rate: &Rate,
    burst: Option<u32>,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Window> {
    let Some(count) = NonZeroU32::new(rate.count) else {
        problems.push(&path.key("rate"), "a rate lets at least one through");
        return None;
    };
    let Some(depth) = burst.map_or(Some(count), NonZeroU32::new) else {
        problems.push(
            &path.key("burst"),
            "a bucket of depth 0 lets nothing through",
        );
        return None;
    };
    let window = Window::new(count, rate.per, depth);
    if window.is_none() {
        let key = if burst.is_some() { "burst" } else { "rate" };
        let days = LONGEST_FILL.as_secs() / 86_400;
        let why = format!("an empty bucket must be full again within {days} days");
        problems.push(&path.key(key), why);
    }
    window
}

/// `None` for a mistake, `Some(None)` where every request counts.
fn compile_failures(
    written: &config::Limit,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Option<Failures>> {
    let path = path.key("failure");
    if written.count == Count::All {
        if written.failure != config::Failure::default() {
            problems.push_with_help(
                &path,
                "failures are not what this limit counts",
                Some("write `count = \"failures\"` beside it".to_owned()),
            );
        }
        return Some(None);
    }
    Failures::compile(&written.failure, &path, problems).map(Some)
}

/// `None` for a mistake, `Some(None)` without a bound.
fn compile_seats(
    written: &config::Limit,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Option<Arc<Seats>>> {
    let Some(most) = written.concurrency else {
        if written.queue.is_some() {
            problems.push(&path.key("queue"), "means nothing without `concurrency`");
        }
        return Some(None);
    };
    if most == 0 {
        let why = "at least one request must be allowed at a time";
        problems.push(&path.key("concurrency"), why);
        return None;
    }
    let queue = written.queue.unwrap_or(most);
    Some(Some(Seats::new(most, queue, written.queue_timeout.0)))
}

fn compile_exempt(
    written: &config::Exempt,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Exempt> {
    let mut principals = Vec::new();
    for (index, principal) in written.principals.iter().enumerate() {
        match principal.split_once('/') {
            Some((source, user)) if !source.is_empty() && !user.is_empty() => {
                principals.push((Box::from(source), Box::from(user)));
            }
            _ => problems.push_with_help(
                &path.key("principals").index(index),
                format!("`{principal}` does not say who vouches for the caller"),
                Some("write SOURCE/USER, with the name of an issuer or session".to_owned()),
            ),
        }
    }
    (principals.len() == written.principals.len()).then(|| Exempt {
        networks: CidrSet::new(written.networks.iter().copied()),
        principals: principals.into(),
    })
}

fn demand_a_bound(written: &config::Limit, path: &KeyPath, problems: &mut Problems) {
    if written.rate.is_none() && written.concurrency.is_none() {
        problems.push_with_help(
            path,
            "this limits nothing",
            Some("give it a `rate` such as \"10/m\", or `concurrency`".to_owned()),
        );
    }
}

/// Most of a body that is read ahead: it stands in memory meanwhile, before anybody knows who sends it.
const MOST_PEEK: u64 = 1024 * 1024;
