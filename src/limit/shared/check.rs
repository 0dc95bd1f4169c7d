//! One request against the limits that replicas share: one question to the store for all of them, or, where they lie on
//! several nodes of a cluster, one for each at the same time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::budget::{Left, Settlement, Why};
use super::super::key::Key;
use super::super::timer::Timer;
use super::super::{Charges, KeyInputs, Limit, Limits, Ruling, Use};
use super::lease::Spent;
use super::settle::Held;
use super::together::all_at_once;
use super::{Ask, DECIDE, Decision, Shared, read};
use crate::config::OnStoreDown;
use crate::store::{Failure, Line, Operation};
use crate::types::rejection::Budget;
use crate::types::{Reason, Rejection, clock, task};

/// What one limit has taken for the request so far, to be given back should another one refuse it.
struct Taken<'l, C: Timer> {
    used: &'l Use<C>,
    key: Key,
    by: By,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The store.
    Store,
    /// A lease.
    Lease,
    /// The share of this replica.
    Share,
    /// Nobody: it is only observed, or passes as it is.
    Nobody,
}

/// The requests of one check.
struct Checking<'l, 'i, C: Timer> {
    inputs: &'i KeyInputs<'i>,
    charges: &'i mut Charges<C>,
    line: Option<Arc<Line>>,
    taken: Vec<Taken<'l, C>>,
    /// What the client is told, if nothing refuses it.
    told: Vec<Budget>,
    begun: Instant,
}

/// What the store is asked about one limit.
struct Asked<'l, C: Timer> {
    used: &'l Use<C>,
    shared: &'l Shared,
    key: Key,
    want: u32,
}

impl<C: Timer> Limits<C> {
    /// Charges the limits that are shared: all, or, if one refuses, none.
    pub(in crate::limit) async fn charge_shared(
        &self,
        inputs: &KeyInputs<'_>,
        charges: &mut Charges<C>,
    ) -> Result<(), Rejection> {
        let line = charges.line().cloned();
        let mut checking = Checking {
            inputs,
            charges,
            line,
            taken: Vec::with_capacity(self.shared.len()),
            told: Vec::new(),
            begun: clock::now(),
        };
        let checked = checking.all(&self.shared).await;
        match checked {
            Ok(()) => checking.tell(),
            Err(_) => checking.give_back(),
        }
        checked
    }
}

impl<'l, C: Timer> Checking<'l, '_, C> {
    async fn all(&mut self, uses: &'l [Use<C>]) -> Result<(), Rejection> {
        let mut asked = Vec::with_capacity(uses.len());
        for used in uses {
            let (limit, cost) = (&used.limit, used.cost.get());
            let Some(shared) = &limit.shared else {
                continue;
            };
            if limit.exempts(self.inputs) {
                limit.counts.exempt.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if limit.key.unreadable(self.inputs).is_some() {
                limit.counts.unreadable.fetch_add(1, Ordering::Relaxed);
            }
            let key = limit.key.of(self.inputs);
            let want = match &shared.leases {
                None => cost,
                Some(leases) => match leases.spend(key, cost, limit.now()) {
                    Spent::Paid { more, left } => {
                        if more {
                            self.fetch_more(limit, shared, key);
                        }
                        self.note(limit, left);
                        self.passed(used, key, By::Lease);
                        continue;
                    }
                    Spent::Empty(wait) => {
                        self.over(used, key, wait / 1_000, Why::Spent)?;
                        continue;
                    }
                    Spent::Ask(want) => want,
                },
            };
            asked.push(Asked {
                used,
                shared,
                key,
                want,
            });
        }
        self.settle_with_store(&asked).await
    }

    /// A script decides on all limits of one place at once. In a cluster the keys lie on several nodes: each has a script
    /// of its own, and they are asked together, so that a request waits for the slowest of them and not for their sum.
    async fn settle_with_store(&mut self, asked: &[Asked<'l, C>]) -> Result<(), Rejection> {
        let Some(first) = asked.first() else {
            return Ok(());
        };
        let at_once = match first.shared.store.is_cluster() {
            true => 1,
            false => asked.len(),
        };
        // All that is asked for one request waits no longer than the store may delay it.
        let left = self.charges.patience().saturating_sub(self.begun.elapsed());
        let line = self.line.as_deref();
        let answers = match asked.chunks(at_once) {
            one if one.len() == 1 => vec![ask(line, asked, left).await],
            many => all_at_once(many.map(|group| ask(line, group, left))).await,
        };
        self.charges.waited(self.begun.elapsed());
        self.begun = clock::now();
        let decisions = answers.iter().flatten().flatten();
        let longest = decisions.map(|decision| decision.wait).max();
        let mut refused = None;
        for (group, answer) in asked.chunks(at_once).zip(answers) {
            let outcome = match answer {
                Ok(decisions) => self.answered(group, &decisions, longest.unwrap_or_default()),
                Err(_) => self.unanswered(group, refused.is_some()),
            };
            // What others have charged is still to be noted, or it could not be given back.
            refused = refused.or(outcome.err());
        }
        refused.map_or(Ok(()), Err)
    }

    fn answered(
        &mut self,
        group: &[Asked<'l, C>],
        decisions: &[Decision],
        longest: u64,
    ) -> Result<(), Rejection> {
        for (asked, decision) in group.iter().zip(decisions) {
            let (Use { limit, cost }, leases) = (asked.used, &asked.shared.leases);
            if let Some(leases) = leases {
                leases.answered(asked.key, cost.get(), decision, limit.now());
            }
            // What is leased here is still to be spent.
            let leased = decision.charged.saturating_sub(cost.get());
            let left = decision.left().map(|left| Left {
                count: left.count.saturating_add(leased),
                ..left
            });
            self.note(limit, left);
        }
        let mut each = group.iter().zip(decisions);
        each.try_for_each(|(asked, decision)| {
            self.decided(asked.used, asked.key, *decision, longest)
        })
    }

    /// `moot`: another limit has refused already, so that nobody need decide.
    fn unanswered(&mut self, group: &[Asked<'l, C>], moot: bool) -> Result<(), Rejection> {
        for Asked {
            used, shared, key, ..
        } in group
        {
            if let Some(leases) = &shared.leases {
                leases.unanswered(*key);
            }
            if !moot {
                self.alone(used, shared, *key)?;
            }
        }
        Ok(())
    }

    /// `longest`: whoever waits so long is let in by all of them.
    fn decided(
        &mut self,
        used: &'l Use<C>,
        key: Key,
        decision: Decision,
        longest: u64,
    ) -> Result<(), Rejection> {
        match decision.why {
            Some(why) => self.over(used, key, longest, why),
            // Another one of them refuses.
            None if decision.charged == 0 => Ok(()),
            None => {
                self.passed(used, key, By::Store);
                Ok(())
            }
        }
    }

    fn passed(&mut self, used: &'l Use<C>, key: Key, by: By) {
        let Use { limit, cost } = used;
        limit.counts.allowed.fetch_add(1, Ordering::Relaxed);
        if let (By::Store, true, Some(line)) = (by, limit.learns(), &self.line) {
            self.charges
                .hold_shared(limit, key, cost.get(), Held::new(line));
        }
        limit.shadow(key, cost.get());
        self.taken.push(Taken { used, key, by });
    }

    /// One too many; `wait` in microseconds.
    fn over(&mut self, used: &'l Use<C>, key: Key, wait: u64, why: Why) -> Result<(), Rejection> {
        let limit = &used.limit;
        limit.counts.refused.fetch_add(1, Ordering::Relaxed);
        if why == Why::BanBegun {
            limit.counts.bans.fetch_add(1, Ordering::Relaxed);
        }
        if limit.enforced {
            return Err(limit.refusal(Duration::from_micros(wait), why, self.inputs));
        }
        self.charges.observe(&limit.name);
        self.taken.push(Taken {
            used,
            key,
            by: By::Nobody,
        });
        Ok(())
    }

    /// Decides without the store, as the limit says.
    fn alone(&mut self, used: &'l Use<C>, shared: &Shared, key: Key) -> Result<(), Rejection> {
        let limit = &used.limit;
        shared.alone.fetch_add(1, Ordering::Relaxed);
        match shared.down {
            OnStoreDown::Allow => {
                limit.counts.allowed.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            OnStoreDown::Deny if limit.enforced => {
                limit.counts.refused.fetch_add(1, Ordering::Relaxed);
                let why = Rejection::because(Reason::StoreUnavailable, "on_store_down is deny");
                let why = why.policy(&limit.name);
                Err(why.retry_after(Duration::from_secs(1)))
            }
            OnStoreDown::Deny => {
                limit.counts.refused.fetch_add(1, Ordering::Relaxed);
                self.charges.observe(&limit.name);
                Ok(())
            }
            OnStoreDown::Local => {
                let cost = used.cost.get().min(limit.least_share());
                match limit.rule(self.inputs, cost) {
                    Ruling::Exempt => {}
                    Ruling::Charged(_) => {
                        self.told.extend(limit.tell(self.inputs));
                        self.taken.push(Taken {
                            used,
                            key,
                            by: By::Share,
                        });
                    }
                    Ruling::Held(place) => {
                        self.told.extend(limit.tell(self.inputs));
                        self.charges.hold(limit, place, cost);
                    }
                    Ruling::Refused(..) if !limit.enforced => self.charges.observe(&limit.name),
                    Ruling::Refused(wait, why) => {
                        return Err(limit.refusal(wait, why, self.inputs));
                    }
                }
                Ok(())
            }
        }
    }

    /// Asks for another batch in the background.
    fn fetch_more(&self, limit: &Arc<Limit<C>>, shared: &Shared, key: Key) {
        let (Some(line), Some(leases)) = (self.line.clone(), &shared.leases) else {
            return;
        };
        let keys = [shared.name_of(key)];
        let mut arguments = vec![0];
        let batch = leases.batch();
        let ask = Ask {
            terms: &shared.terms,
            enforced: true,
            cost: 1,
            want: batch,
            tells: limit.tells(),
        };
        ask.write(&mut arguments);
        let (limit, patience) = (Arc::clone(limit), shared.store.timeout());
        task::spawn("lease", async move {
            let answer = line.run(Operation::Lease, &DECIDE, &keys, &arguments, patience);
            let answer = answer.await.ok();
            let decision = answer.and_then(|answer| read(&answer, 1)?.first().copied());
            let shared = limit.shared.as_ref();
            let Some(leases) = shared.and_then(|shared| shared.leases.as_ref()) else {
                return;
            };
            match decision {
                Some(decision) => leases.answered(key, 0, &decision, limit.now()),
                None => leases.unanswered(key),
            }
        });
    }

    /// Keeps what a limit has left for the client, where it says so.
    fn note(&mut self, limit: &Limit<C>, left: Option<Left>) {
        if limit.tells() {
            let fields = limit.fields.as_ref().zip(left);
            self.told
                .extend(fields.and_then(|(fields, left)| fields.passed(left)));
        }
    }

    fn tell(&mut self) {
        for budget in self.told.drain(..) {
            self.charges.tell(Some(budget));
        }
    }

    /// Nothing is charged to anybody for a request that is refused.
    fn give_back(&mut self) {
        let elapsed = self.begun.elapsed();
        for Taken { used, key, by } in self.taken.drain(..) {
            let Use { limit, cost } = used;
            let (cost, Some(shared)) = (cost.get(), &limit.shared) else {
                continue;
            };
            if by != By::Nobody {
                // The share of this replica as well, which was charged all along.
                limit.undo(self.inputs, cost.min(limit.least_share()), None);
            }
            match (by, &shared.leases, &self.line) {
                (By::Lease | By::Store, Some(leases), _) => leases.give_back(key, cost),
                // Held ones are given back by whoever drops them.
                (By::Store, None, Some(line)) if !limit.learns() => {
                    shared.settle(line, key, cost, elapsed, Settlement::Released);
                }
                _ => {}
            }
        }
    }
}

/// One script over all limits of a group.
async fn ask<C: Timer>(
    line: Option<&Line>,
    group: &[Asked<'_, C>],
    patience: Duration,
) -> Result<Vec<Decision>, Failure> {
    let line = line.ok_or(Failure::Open)?;
    let names = group.iter().map(|asked| asked.shared.name_of(asked.key));
    let keys: Vec<String> = names.collect();
    let mut arguments = vec![0];
    for Asked {
        used, shared, want, ..
    } in group
    {
        let ask = Ask {
            terms: &shared.terms,
            enforced: used.limit.enforced,
            cost: used.cost.get(),
            want: *want,
            tells: used.limit.tells(),
        };
        ask.write(&mut arguments);
    }
    let answer = line.run(Operation::Decide, &DECIDE, &keys, &arguments, patience);
    read(&answer.await?, group.len()).ok_or(Failure::Error)
}
