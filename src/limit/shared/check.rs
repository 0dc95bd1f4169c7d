//! One request against the limits that replicas share: one question to the store for all of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::budget::{Settlement, Why};
use super::super::key::Key;
use super::super::timer::Timer;
use super::super::{Charges, KeyInputs, Limit, Limits, Ruling, Use};
use super::lease::Spent;
use super::settle::Held;
use super::{Ask, DECIDE, Decision, Shared, read};
use crate::config::OnStoreDown;
use crate::store::{Failure, Line, Operation};
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
    begun: Instant,
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
            begun: clock::now(),
        };
        let checked = checking.all(&self.shared).await;
        if checked.is_err() {
            checking.give_back();
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
                    Spent::Paid { more } => {
                        if more {
                            self.fetch_more(limit, shared, key);
                        }
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
            asked.push((used, shared, key, want));
        }
        // In a cluster the keys lie on several nodes, and each is asked for itself.
        let at_once = match asked.first() {
            Some((_, shared, ..)) if shared.store.is_cluster() => 1,
            _ => asked.len().max(1),
        };
        for group in asked.chunks(at_once) {
            self.group(group).await?;
        }
        Ok(())
    }

    async fn group(
        &mut self,
        group: &[(&'l Use<C>, &'l Shared, Key, u32)],
    ) -> Result<(), Rejection> {
        match self.ask(group).await {
            Ok(decisions) => {
                for ((used, shared, key, _), decision) in group.iter().zip(&decisions) {
                    if let Some(leases) = &shared.leases {
                        let credit = decision.charged.saturating_sub(used.cost.get());
                        let wait = if decision.why.is_some() {
                            decision.wait
                        } else {
                            0
                        };
                        let now = used.limit.now();
                        leases.answered(*key, credit, wait.saturating_mul(1_000), now);
                    }
                }
                let waits = decisions.iter().map(|decision| decision.wait);
                let longest = waits.max().unwrap_or_default();
                for ((used, _, key, _), decision) in group.iter().zip(&decisions) {
                    self.decided(used, *key, *decision, longest)?;
                }
                Ok(())
            }
            Err(_) => {
                for (used, shared, key, _) in group {
                    if let Some(leases) = &shared.leases {
                        leases.answered(*key, 0, 0, used.limit.now());
                    }
                }
                let mut alone = group.iter();
                alone.try_for_each(|(used, shared, key, _)| self.alone(used, shared, *key))
            }
        }
    }

    async fn ask(
        &mut self,
        group: &[(&Use<C>, &Shared, Key, u32)],
    ) -> Result<Vec<Decision>, Failure> {
        let line = self.line.as_ref().ok_or(Failure::Open)?;
        let keys: Vec<String> = group
            .iter()
            .map(|(_, shared, key, _)| shared.name_of(*key))
            .collect();
        let mut arguments = vec![0];
        for (used, shared, _, want) in group {
            let ask = Ask {
                terms: &shared.terms,
                enforced: used.limit.enforced,
                cost: used.cost.get(),
                want: *want,
            };
            ask.write(&mut arguments);
        }
        // All that is asked for one request waits no longer than the store may delay it.
        let left = self.charges.patience().saturating_sub(self.begun.elapsed());
        let answer = line
            .run(Operation::Decide, &DECIDE, &keys, &arguments, left)
            .await;
        self.charges.waited(self.begun.elapsed());
        self.begun = clock::now();
        read(&answer?, group.len()).ok_or(Failure::Error)
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
                    Ruling::Charged(_) => self.taken.push(Taken {
                        used,
                        key,
                        by: By::Share,
                    }),
                    Ruling::Held(key) => self.charges.hold(limit, key, cost),
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
        };
        ask.write(&mut arguments);
        let (limit, patience) = (Arc::clone(limit), shared.store.timeout());
        task::spawn("lease", async move {
            let answer = line.run(Operation::Lease, &DECIDE, &keys, &arguments, patience);
            let answer = answer.await.ok();
            let decision = answer.and_then(|answer| read(&answer, 1)?.first().copied());
            let (credit, wait) = decision.map_or((0, 0), |decision| {
                let is_refused = decision.why.is_some();
                (decision.charged, if is_refused { decision.wait } else { 0 })
            });
            if let Some(leases) = limit
                .shared
                .as_ref()
                .and_then(|shared| shared.leases.as_ref())
            {
                leases.answered(key, credit, wait.saturating_mul(1_000), limit.now());
            }
        });
    }

    /// Nothing is charged to anybody for a request that is refused.
    fn give_back(&mut self) {
        let elapsed = self.begun.elapsed();
        for Taken { used, key, by } in self.taken.drain(..) {
            let Use { limit, cost } = used;
            let (cost, Some(shared)) = (cost.get(), &limit.shared) else {
                continue;
            };
            if by != By::Nobody && by != By::Share {
                limit.counts.allowed.fetch_sub(1, Ordering::Relaxed);
            }
            match (by, &shared.leases, &self.line) {
                (By::Lease, Some(leases), _) => leases.give_back(key, cost),
                (By::Store, Some(leases), _) => leases.give_back(key, cost),
                // Held ones are given back by whoever drops them.
                (By::Store, None, Some(line)) if !limit.learns() => {
                    shared.settle(line, key, cost, elapsed, Settlement::Released);
                }
                (By::Share, ..) => limit.undo(self.inputs, cost.min(limit.least_share()), None),
                _ => {}
            }
        }
    }
}
