//! Any sequence of requests, answers and pauses is decided as buckets on paper would decide it.

use super::*;
use crate::config::Count;
use crate::limit::budget::Settlement;

/// Credit in nanoseconds that trickles in and is capped, for each window; then who is banned and what is under way.
struct Paper {
    /// Interval and depth.
    windows: Vec<(u64, u64)>,
    ban: Option<u64>,
    learns: bool,
    keys: HashMap<usize, Account>,
}

#[derive(Clone)]
struct Account {
    credit: Vec<u64>,
    since: u64,
    banned_until: u64,
    pending: u64,
}

impl Paper {
    fn account(&mut self, key: usize, now: u64) -> &mut Account {
        let full: Vec<u64> = self
            .windows
            .iter()
            .map(|(one, depth)| one * depth)
            .collect();
        let account = self.keys.entry(key).or_insert_with(|| Account {
            credit: full.clone(),
            since: now,
            banned_until: 0,
            pending: 0,
        });
        for (credit, full) in account.credit.iter_mut().zip(full) {
            *credit = (*credit + (now - account.since)).min(full);
        }
        account.since = now;
        account
    }

    /// The wait; `None` when let in.
    fn ask(&mut self, key: usize, now: u64, cost: u64) -> Option<u64> {
        let (windows, ban, learns) = (self.windows.clone(), self.ban, self.learns);
        let account = self.account(key, now);
        let short = |account: &Account, count: u64| {
            let windows = windows.iter().zip(&account.credit);
            let short = windows.map(|((one, _), credit)| (one * count).saturating_sub(*credit));
            short.max().unwrap()
        };
        let wait = short(account, account.pending + cost);
        if account.banned_until > now {
            return Some(wait.max(account.banned_until - now));
        }
        if wait > 0 {
            if let Some(ban) = ban
                && (account.pending == 0 || short(account, cost) > 0)
            {
                account.banned_until = now + ban;
                return Some(wait.max(ban));
            }
            return Some(wait);
        }
        if learns {
            account.pending += cost;
        } else {
            for ((one, _), credit) in windows.iter().zip(&mut account.credit) {
                *credit -= one * cost;
            }
        }
        None
    }

    fn answer(&mut self, key: usize, now: u64, cost: u64, outcome: Settlement) {
        let windows = self.windows.clone();
        let account = self.account(key, now);
        account.pending -= cost;
        for ((one, depth), credit) in windows.iter().zip(&mut account.credit) {
            match outcome {
                Settlement::Failed => *credit -= one * cost,
                Settlement::Forgiven => *credit = one * depth,
                Settlement::Released => {}
            }
        }
        if outcome == Settlement::Forgiven {
            account.banned_until = 0;
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pause(u64),
    Ask { client: usize, cost: u32 },
    Answer { which: usize, outcome: Settlement },
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![
        4 => Just(Settlement::Failed),
        1 => Just(Settlement::Released),
        1 => Just(Settlement::Forgiven),
    ];
    let step = prop_oneof![
        3 => (0..20_000_000_000u64).prop_map(Step::Pause),
        6 => (0..3usize, 1..3u32).prop_map(|(client, cost)| Step::Ask { client, cost }),
        4 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::Answer { which, outcome }),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 1..200)
}

fn any_limit() -> impl Strategy<Value = config::Limit> {
    let windows = prop::collection::vec((2..20u32, 1..100u64), 1..=4);
    (windows, any::<bool>(), prop::option::of(1..200u64)).prop_map(|(windows, learns, ban)| {
        let rates = windows.into_iter().map(|(count, seconds)| Rate {
            count,
            per: Duration::from_secs(seconds),
        });
        config::Limit {
            rate: Some(OneOrMany(rates.collect())),
            count: if learns { Count::Failures } else { Count::All },
            ban: ban.map(Span::seconds),
            ..written(1, MINUTE, None, &[LimitKey::Ip])
        }
    })
}

fn on_paper(written: &config::Limit) -> Paper {
    let OneOrMany(rates) = written.rate.clone().unwrap();
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap();
    let window = |rate: &Rate| {
        let count = u64::from(rate.count);
        (nanos(rate.per).div_ceil(count), count)
    };
    Paper {
        windows: rates.iter().map(window).collect(),
        ban: written.ban.map(|ban| nanos(ban.0)),
        learns: written.count == Count::Failures,
        keys: HashMap::new(),
    }
}

proptest! {
    #[test]
    fn any_sequence_is_decided_as_on_paper(written in any_limit(), steps in steps()) {
        let (limit, clock) = limit(&written);
        let mut paper = on_paper(&written);
        let clients = [from("192.0.2.1"), from("192.0.2.2"), from("2001:db8::1")];
        let mut open: Vec<(usize, u32, Charges<FakeRelativeClock>)> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Pause(nanos) => {
                    clock.advance(Duration::from_nanos(nanos));
                    now += nanos;
                }
                Step::Sweep => limit.sweep(),
                Step::Ask { client, cost } => {
                    let expected = paper.ask(client, now, u64::from(cost));
                    match clients[client].ask(&used(&limit, cost)) {
                        Ok(charges) => {
                            prop_assert_eq!(expected, None);
                            if paper.learns {
                                open.push((client, cost, charges));
                            }
                        }
                        Err(why) => {
                            let wait = expected.map(Duration::from_nanos);
                            prop_assert_eq!(why.wait(), wait);
                        }
                    }
                }
                Step::Answer { which, outcome } => {
                    if open.is_empty() {
                        continue;
                    }
                    let (client, cost, mut charges) = open.swap_remove(which % open.len());
                    charges.settle_all(outcome);
                    paper.answer(client, now, u64::from(cost), outcome);
                }
            }
        }
    }

    #[test]
    fn no_stretch_of_time_sees_more_than_any_window_allows(written in any_limit(), steps in steps()) {
        let (limit, clock) = limit(&written);
        let windows = on_paper(&written).windows;
        let client = from("192.0.2.1");
        let (mut now, mut charged) = (0u64, Vec::new());
        let mut open: Vec<Charges<FakeRelativeClock>> = Vec::new();
        for step in steps {
            match step {
                Step::Pause(nanos) => {
                    clock.advance(Duration::from_nanos(nanos));
                    now += nanos;
                }
                Step::Sweep => limit.sweep(),
                Step::Ask { .. } => match client.ask(&used(&limit, 1)) {
                    Ok(charges) if limit.learns() => open.push(charges),
                    Ok(_) => charged.push(now),
                    Err(_) => {}
                },
                Step::Answer { which, outcome } if !open.is_empty() => {
                    let mut charges = open.swap_remove(which % open.len());
                    let failed = outcome == Settlement::Failed;
                    charges.settle_all(if failed { outcome } else { Settlement::Released });
                    charged.extend(failed.then_some(now));
                }
                Step::Answer { .. } => {}
            }
        }
        for (first, start) in charged.iter().enumerate() {
            for (last, end) in charged.iter().enumerate().skip(first) {
                for (interval, depth) in &windows {
                    let allowed = depth + (end - start) / interval;
                    prop_assert!((last - first + 1) as u64 <= allowed);
                }
            }
        }
    }

    #[test]
    fn one_who_waits_as_told_is_let_in_whatever_the_limit(
        written in any_limit(),
        tries in prop::collection::vec((1..3u32, any::<bool>()), 1..60),
    ) {
        let (limit, clock) = limit(&written);
        let client = from("192.0.2.1");
        for (cost, fails) in tries {
            let asked = || client.ask(&used(&limit, cost));
            let answer = match asked() {
                Ok(charges) => Ok(charges),
                Err(why) => {
                    clock.advance(why.wait().unwrap());
                    asked()
                }
            };
            prop_assert!(answer.is_ok());
            let outcome = if fails { Settlement::Failed } else { Settlement::Released };
            answer.unwrap().settle_all(outcome);
        }
    }

    #[test]
    fn windows_decide_as_governor_alone_would(
        count in 1..50u32,
        per in 1..100_000u64,
        burst in 1..20u32,
        steps in prop::collection::vec((0..40_000u64, 1..4u32), 1..300),
    ) {
        let per = Duration::from_millis(per);
        let (limit, clock) = limit(&written(count, per, Some(burst), &[LimitKey::Ip]));
        let one = Duration::from_nanos(u64::try_from(per.as_nanos()).unwrap().div_ceil(count.into()));
        let quota = governor::Quota::with_period(one).unwrap();
        let quota = quota.allow_burst(burst.try_into().unwrap());
        let governor = governor::RateLimiter::direct_with_clock(quota, clock.clone());
        let client = from("192.0.2.1");
        for (advance, cost) in steps {
            clock.advance(Duration::from_micros(advance));
            if cost > burst {
                continue; // refused when the configuration is compiled
            }
            let theirs = governor.check_n(cost.try_into().unwrap()).unwrap();
            let ours = client.ask(&used(&limit, cost));
            prop_assert_eq!(ours.is_ok(), theirs.is_ok());
        }
    }
}
