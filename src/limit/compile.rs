//! `[limit.NAME]` made into a [`Limit`].

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::budget::{Budget, MOST_WINDOWS};
use super::failure::Failures;
use super::fields::Fields;
use super::key::{Addresses, KeyPlan, KeySecret, Networks};
use super::rate::{LONGEST_FILL, Window};
use super::seats::Seats;
use super::shared::{FASTEST, Leases, Shared, Terms};
use super::spread::Spread;
use super::store::Store as Keys;
use super::tarpit::Tarpit;
use super::timer::{Monotonic, Timer};
use super::{Buckets, Counts, Exempt, Limit};
use crate::config::{
    self, Count, KeyPath, LimitKey, LimitMode, OneOrMany, Problems, Rate, SharedLimit,
};
use crate::store::Store;
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
        store: Option<&Arc<Store>>,
        problems: &mut Problems,
    ) -> Option<Arc<Self>> {
        let addresses = compile_addresses(written, networks, path, problems)?;
        if let Some(same) = previous
            .filter(|limit| limit.is_written(name, written) && *limit.key.addresses() == addresses)
        {
            return Some(Arc::clone(same));
        }
        Self::with_timer(name, written, addresses, path, Monotonic, store, problems).map(Arc::new)
    }
}

impl<C: Timer> Limit<C> {
    pub(super) fn with_timer(
        name: &str,
        written: &config::Limit,
        addresses: Addresses,
        path: &KeyPath,
        timer: C,
        store: Option<&Arc<Store>>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let key = compile_key(written, path, problems);
        let sharing = compile_sharing(written, path, store, problems);
        let max_keys = compile_max_keys(written.max_keys, &path.key("max_keys"), problems);
        let budget = compile_budget(written, path, problems);
        let failures = compile_failures(written, path, problems);
        let seats = compile_seats(written, path, problems);
        let spread = compile_spread(written, &addresses, path, problems);
        let tarpit = compile_tarpit(written, path, problems);
        let exempt = compile_exempt(&written.allow, &path.key("allow"), problems);
        demand_a_bound(written, path, problems);
        let (max_keys, sharing) = (max_keys?, sharing?);
        let shared = sharing.map(|(store, is_fast)| {
            let terms = terms(written);
            let depth = terms.windows.iter().map(|(_, depth)| *depth).min();
            let leases =
                is_fast.then(|| Leases::of(depth.unwrap_or(1), store.replicas(), max_keys));
            let down = written.on_store_down.unwrap_or(store.on_failure());
            Shared::new(name, store, down, terms, leases)
        });
        let secret = match &shared {
            Some(shared) => KeySecret::shared(shared.store.secret_for("limits").expose(), name),
            None => KeySecret::draw(),
        };
        let budget = budget.map(|budget| match &shared {
            Some(shared) => budget.map(|whole| share(written, shared.store.replicas(), whole)),
            None => budget,
        });
        Some(Self {
            name: Arc::from(name),
            written: written.clone(),
            key: KeyPlan::new(key?, addresses, secret),
            shared,
            budget: budget?.map(|budget| Buckets {
                store: Keys::new(budget.layout(), &budget.spans(), max_keys),
                budget,
            }),
            failures: failures?,
            spread: spread?,
            seats: seats?,
            tarpit: tarpit?,
            exempt: exempt?,
            enforced: written.mode == LimitMode::Enforce,
            fields: Fields::new(name, written.rate.as_ref().map_or(&[], |rates| &rates.0)),
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
    if all_parts(written).any(reads_body) && !(1..=MOST_PEEK).contains(&written.peek.0) {
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
    let wanted = all_parts(written).any(|part| *part == LimitKey::Network);
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

/// The parts of the key, and what is counted under it.
fn all_parts(written: &config::Limit) -> impl Iterator<Item = &LimitKey> {
    let distinct = written.distinct.as_ref();
    written
        .key
        .iter()
        .chain(distinct.map(|distinct| &distinct.of))
}

/// `None` for a mistake, `Some(None)` where nothing is counted.
fn compile_spread(
    written: &config::Limit,
    addresses: &Addresses,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Option<Spread>> {
    let Some(distinct) = &written.distinct else {
        return Some(None);
    };
    let path = path.key("distinct");
    let mut fine = true;
    if written.key.contains(&distinct.of) {
        problems.push(&path.key("of"), "a key has one value of what it is made of");
        fine = false;
    }
    if let LimitKey::Header(name) = &distinct.of
        && let Some(instead) = better_than(name)
    {
        let why = format!("`{name}` cannot be counted");
        problems.push_with_help(&path.key("of"), why, Some(format!("use {instead}")));
        fine = false;
    }
    if distinct.above == 0 {
        problems.push(&path.key("above"), "at least one must have room");
        fine = false;
    }
    if distinct.per.0.is_zero() || distinct.per.0 > LONGEST_FILL {
        let days = LONGEST_FILL.as_secs() / 86_400;
        problems.push(
            &path.key("per"),
            format!("a window lasts for up to {days} days"),
        );
        fine = false;
    }
    let per = u64::try_from(distinct.per.0.as_nanos()).ok()?;
    let of = KeyPlan::new(
        std::slice::from_ref(&distinct.of),
        addresses.clone(),
        KeySecret::draw(),
    );
    let learns = written.count == Count::Failures;
    fine.then(|| Some(Spread::new(of, distinct.above, per, learns)))
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
            (
                "count",
                written.count == Count::Failures && written.distinct.is_none(),
            ),
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

/// `None` for a mistake, `Some(None)` where this process counts by itself, else the store and whether batches of the budget
/// are leased.
fn compile_sharing<'s>(
    written: &config::Limit,
    path: &KeyPath,
    store: Option<&'s Arc<Store>>,
    problems: &mut Problems,
) -> Option<Option<(&'s Arc<Store>, bool)>> {
    let path = path.key("shared");
    let is_wanted = !matches!(written.shared, None | Some(SharedLimit::Off));
    if written.distinct.is_some() {
        // The sketches are this process's: a limit is shared whole or not at all.
        if is_wanted {
            problems.push(
                &path,
                "`distinct` is counted here; share a limit of its own",
            );
            return None;
        }
        return Some(None);
    }
    let Some(OneOrMany(rates)) = &written.rate else {
        if is_wanted {
            problems.push(&path, "means nothing without a `rate`");
            return None;
        }
        return Some(None);
    };
    let Some(store) = store else {
        if is_wanted {
            problems.push(&path, "there is no `[store]` with servers");
            return None;
        }
        return Some(None);
    };
    let is_strict = written.count == Count::Failures || written.ban.is_some();
    let is_small = depths(written).min().is_some_and(|depth| depth < SMALL);
    let too_fast = rates.iter().any(|rate| interval(rate) < FASTEST);
    let is_fast = match written.shared {
        Some(SharedLimit::Off) => return Some(None),
        Some(SharedLimit::Exact) => false,
        Some(SharedLimit::Fast) if is_strict => {
            let why = "failures and bans are not leased: every replica must know of them at once";
            problems.push(&path, why);
            return None;
        }
        Some(SharedLimit::Fast) => true,
        None => !is_strict && !is_small,
    };
    if too_fast {
        let why = "a million in a second are the most that replicas can share";
        problems.push(&path, why);
        return None;
    }
    Some(Some((store, is_fast)))
}

/// A budget below this is decided on exactly unless written otherwise: a batch would be nearly all of it.
const SMALL: u32 = 100;

/// Nanoseconds in which one more trickles in.
fn interval(rate: &Rate) -> u64 {
    let count = u128::from(rate.count.max(1));
    u64::try_from(rate.per.as_nanos().div_ceil(count)).unwrap_or(u64::MAX)
}

fn depths(written: &config::Limit) -> impl Iterator<Item = u32> {
    let rates = written.rate.iter().flat_map(|OneOrMany(rates)| rates);
    rates.enumerate().map(|(index, rate)| {
        let burst = written.burst.filter(|_| index == 0);
        burst.unwrap_or(rate.count)
    })
}

/// The budget as the store counts it, in microseconds. Rounded up: never more than the rate.
fn terms(written: &config::Limit) -> Terms {
    let rates = written.rate.iter().flat_map(|OneOrMany(rates)| rates);
    let intervals = rates.map(|rate| interval(rate).div_ceil(1_000));
    let ban = written.ban.map_or(0, |ban| ban.0.as_micros());
    Terms {
        windows: intervals.zip(depths(written)).collect(),
        ban: u64::try_from(ban).unwrap_or(u64::MAX),
        learns: written.count == Count::Failures,
    }
}

/// The share of one of so many replicas: a part of each bucket, that fills in the same time. Where that is nothing, one.
fn share(written: &config::Limit, replicas: u16, whole: Budget) -> Budget {
    let rates = written.rate.iter().flat_map(|OneOrMany(rates)| rates);
    let windows = rates.zip(depths(written)).map(|(rate, depth)| {
        let part = (depth + u32::from(replicas) / 2) / u32::from(replicas);
        let part = NonZeroU32::new(part).unwrap_or(NonZeroU32::MIN);
        let per = rate.per.checked_mul(u32::from(replicas))?;
        Window::new(NonZeroU32::new(rate.count)?, per, part)
    });
    let windows: Option<Vec<Window>> = windows.collect();
    match windows {
        Some(windows) => whole.with_windows(windows),
        // So slow that a share of it would be no rate: better too much of it than a limit that is none.
        None => whole,
    }
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

/// `None` for a mistake, `Some(None)` where answers go out at once.
fn compile_tarpit(
    written: &config::Limit,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Option<Tarpit>> {
    let Some(time) = written.tarpit else {
        return Some(None);
    };
    let path = path.key("tarpit");
    if time.0.is_zero() || time.0 > LONGEST_TARPIT {
        let seconds = LONGEST_TARPIT.as_secs();
        problems.push(
            &path,
            format!("an answer is held back for up to {seconds} s"),
        );
        return None;
    }
    if written.rate.is_none() && written.distinct.is_none() {
        problems.push(&path, "means nothing without a `rate` or `distinct`");
        return None;
    }
    Some(Some(Tarpit::new(time.0, written.tarpit_slots)))
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
    if written.rate.is_none() && written.concurrency.is_none() && written.distinct.is_none() {
        problems.push_with_help(
            path,
            "this limits nothing",
            Some("give it a `rate` such as \"10/m\", `concurrency` or `distinct`".to_owned()),
        );
    }
}

/// Most of a body that is read ahead: it stands in memory meanwhile, before anybody knows who sends it.
const MOST_PEEK: u64 = 1024 * 1024;
/// Proxies and load balancers in front give up after a minute.
const LONGEST_TARPIT: Duration = Duration::from_secs(60);
