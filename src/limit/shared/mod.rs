//! Limits that all replicas count together, in the store.
//!
//! *Exact*: one script decides on a request, by the store's clock, over all such limits of one place at once. *Fast*: a
//! replica leases a batch of a budget and spends it by itself; what is leased is charged, so that replicas together never
//! pass more than the budget allows, but for what lies in their leases. Where the store does not answer, a replica keeps
//! to its share of the budget, which is counted all along; or it refuses, or lets pass, as the limit says.
//!
//! Unlike in memory, a request whose outcome counts is charged when it is let through and given back when it did not
//! fail: a replica that dies meanwhile leaves a debt that pays itself off, not a place that is held for ever.

mod check;
mod lease;
mod settle;
mod together;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock};

use super::Limit;
use super::budget::{Left, Why};
use super::key::Key;
use super::timer::Timer;
use crate::config::{OnStoreDown, SharedLimit};
use crate::store::{Script, Store};

pub(super) use lease::Leases;
pub(super) use settle::Held;

/// How one limit is shared.
pub(super) struct Shared {
    pub(super) store: Arc<Store>,
    pub(super) down: OnStoreDown,
    pub(super) terms: Terms,
    /// In fast mode, what this replica may spend by itself.
    pub(super) leases: Option<Leases>,
    /// Decisions that were made without the store.
    pub(super) alone: AtomicU64,
    begin: String,
}

/// The budget as the script wants it.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// For each window the microseconds in which one more trickles in, and its depth.
    pub(super) windows: Vec<(u64, u32)>,
    /// Microseconds of a ban; 0 without.
    pub(super) ban: u64,
    /// Whether only failures are charged in the end.
    pub(super) learns: bool,
}

/// What the script says of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// What it was charged; 0 where it, or another one, refused.
    pub(super) charged: u32,
    /// Microseconds until the request would pass.
    pub(super) wait: u64,
    /// What stands in its way.
    pub(super) why: Option<Why>,
    /// The window with the least room, how many it has left, and microseconds as [`Left::full_in`]; zeros where nobody is
    /// told.
    left: (usize, u32, u64),
}

/// One key's part of a question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'t> {
    pub(super) terms: &'t Terms,
    pub(super) enforced: bool,
    pub(super) cost: u32,
    /// As much as this may be charged, where there is room.
    pub(super) want: u32,
    /// Whether the client is told what is left.
    pub(super) tells: bool,
}

static DECIDE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("decide.lua")));
static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("settle.lua")));

/// A bucket of a window that trickles faster than this cannot be told by the store's clock.
pub(super) const FASTEST: u64 = 1_000;

impl Shared {
    pub(super) fn new(
        name: &str,
        store: &Arc<Store>,
        down: OnStoreDown,
        terms: Terms,
        leases: Option<Leases>,
    ) -> Self {
        Self {
            begin: store.keys_of(&format!("limit:{name}")),
            store: Arc::clone(store),
            down,
            terms,
            leases,
            alone: AtomicU64::new(0),
        }
    }

    /// The name of a key in the store. A key is a code of what it stands for: nobody who reads it there can tell what that
    /// is, or choose one.
    fn name_of(&self, key: Key) -> String {
        format!("{}{:032x}", self.begin, key.bits())
    }
}

impl Decision {
    /// What is left of the budget that all share, if the client is told.
    fn left(&self) -> Option<Left> {
        let (window, count, micros) = self.left;
        (micros > 0).then(|| Left {
            window,
            count,
            full_in: micros.saturating_mul(1_000),
        })
    }
}

impl<C: Timer> Limit<C> {
    /// How replicas count it: `exact` or `fast` where they share it, `off` where each counts for itself.
    #[must_use]
    pub fn sharing(&self) -> SharedLimit {
        match &self.shared {
            None => SharedLimit::Off,
            Some(shared) if shared.leases.is_some() => SharedLimit::Fast,
            Some(_) => SharedLimit::Exact,
        }
    }

    /// Whether clients that pass are told what is left.
    fn tells(&self) -> bool {
        self.written.headers
    }
}

impl Ask<'_> {
    fn write(&self, arguments: &mut Vec<i64>) {
        let Terms {
            windows,
            ban,
            learns,
        } = self.terms;
        arguments.extend([
            i64::from(self.enforced),
            i64::from(self.cost),
            i64::from(self.want),
            signed(*ban),
            i64::from(*learns),
            i64::from(self.tells),
            signed(windows.len() as u64),
        ]);
        for (interval, depth) in windows {
            arguments.extend([signed(*interval), i64::from(*depth)]);
        }
    }
}

/// The decisions in the script's answer; `None` for an answer of another shape.
fn read(answer: &[i64], asked: usize) -> Option<Vec<Decision>> {
    let decisions = answer.chunks_exact(ANSWERED).map(|decision| {
        let [charged, wait, why, window, count, full_in] = decision else {
            return None;
        };
        Some(Decision {
            charged: u32::try_from(*charged).ok()?,
            wait: u64::try_from(*wait).ok()?,
            why: match why {
                0 => None,
                1 => Some(Why::Spent),
                2 => Some(Why::Pending),
                3 => Some(Why::BanBegun),
                4 => Some(Why::Banned),
                _ => return None,
            },
            left: (
                usize::try_from(*window).ok()?,
                u32::try_from(*count).ok()?,
                u64::try_from(*full_in).ok()?,
            ),
        })
    });
    let decisions: Option<Vec<Decision>> = decisions.collect();
    decisions.filter(|decisions| decisions.len() == asked && answer.len() == ANSWERED * asked)
}

/// Numbers that the script answers for each key.
const ANSWERED: usize = 6;

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("terms", &self.terms)
            .field("leases", &self.leases)
            .finish_non_exhaustive()
    }
}
