//! What one key may still do: every window must have room, and a key that found one empty may be banned for a while.
//!
//! The state of a key is a handful of words that the store keeps: for each window the time at which its bucket is full
//! again, then the end of a ban where there are bans, then the requests under way where failures are counted. A request
//! of such a limit holds its place from the decision until its answer is known, so that guesses made at once cannot
//! pass together what one after another could not; only failures are charged in the end.

use super::rate::Window;

/// Most windows of one limit.
pub(super) const MOST_WINDOWS: usize = 4;

/// What the windows of a limit allow.
#[derive(Debug)]
pub(super) struct Budget {
    windows: Box<[Window]>,
    ban: Option<u64>,
    learns: bool,
}

/// How many words a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Words that are points in time, at the front.
    pub(super) times: usize,
    /// All words.
    pub(super) words: usize,
}

/// Whether one more may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may.
    Allowed,
    /// Not before this many nanoseconds have passed.
    Wait(u64, Why),
}

/// How much more may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// The window with the least room.
    pub(super) window: usize,
    /// How many more it lets through now.
    pub(super) count: u32,
    /// Nanoseconds until it is full again; until it lets one through, where it lets none through now.
    pub(super) full_in: u64,
}

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// A window has no room.
    Spent,
    /// No room while requests under way may still turn out to have failed.
    Pending,
    /// This refusal began a ban.
    BanBegun,
    /// A ban is in force.
    Banned,
    /// Too many different accounts, networks or the like under one key.
    Spread,
}

/// What became of a request that holds its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settlement {
    /// It failed, and is charged.
    Failed,
    /// It neither failed nor succeeded, or that is nobody's fault: its place is given back.
    Released,
    /// It succeeded, and what the key owes for earlier failures is forgiven.
    Forgiven,
}

struct Parts<'w> {
    full_at: &'w mut [u64],
    banned_until: Option<&'w mut u64>,
    pending: Option<&'w mut u64>,
}

impl Budget {
    pub(super) fn new(windows: Vec<Window>, ban: Option<u64>, learns: bool) -> Self {
        debug_assert!(windows.len() <= MOST_WINDOWS);
        Self {
            windows: windows.into(),
            ban,
            learns,
        }
    }

    /// The same with other windows.
    pub(super) fn with_windows(self, windows: Vec<Window>) -> Self {
        Self::new(windows, self.ban, self.learns)
    }

    /// Whether only failures are charged.
    pub(super) fn learns(&self) -> bool {
        self.learns
    }

    /// The most that one request can cost.
    pub(super) fn least_depth(&self) -> u32 {
        self.windows.iter().map(Window::depth).min().unwrap_or(1)
    }

    pub(super) fn layout(&self) -> Layout {
        let times = self.windows.len() + usize::from(self.ban.is_some());
        Layout {
            times,
            words: times + usize::from(self.learns),
        }
    }

    /// How long each of the times of a key can lie ahead, in nanoseconds.
    pub(super) fn spans(&self) -> Vec<u64> {
        let fills = self.windows.iter().map(Window::fill);
        fills.chain(self.ban).collect()
    }

    /// Charges `cost` to all windows, or to none.
    pub(super) fn take(&self, words: &mut [u64], now: u64, cost: u32) -> Verdict {
        let Some(mut parts) = self.parts(words) else {
            return Verdict::Wait(SECOND, Why::Spent); // a key without its words: never let it through
        };
        let pending = parts.pending();
        let mut after = [0; MOST_WINDOWS];
        let mut wait = 0;
        for ((window, full_at), after) in self
            .windows
            .iter()
            .zip(&*parts.full_at)
            .zip(after.iter_mut())
        {
            match window.take(full_at.saturating_sub(now), pending.saturating_add(cost)) {
                Ok(debt) => *after = now.saturating_add(debt),
                Err(short) => wait = wait.max(short),
            }
        }
        let banned = parts.banned_for(now);
        if banned > 0 {
            return Verdict::Wait(wait.max(banned), Why::Banned);
        }
        if wait > 0 {
            return self.refuse(&mut parts, now, cost, wait, pending);
        }
        match parts.pending {
            Some(pending) => *pending = pending.saturating_add(u64::from(cost)),
            None => parts.full_at.copy_from_slice(
                after.get(..self.windows.len()).unwrap_or_default(), // as long as the windows are many
            ),
        }
        Verdict::Allowed
    }

    /// Requests under way are no proof of guilt: a ban begins only where what was charged leaves no room by itself.
    fn refuse(
        &self,
        parts: &mut Parts<'_>,
        now: u64,
        cost: u32,
        wait: u64,
        pending: u32,
    ) -> Verdict {
        if pending > 0 && self.wait(parts.full_at, now, cost) == 0 {
            return Verdict::Wait(wait, Why::Pending);
        }
        match (self.ban, &mut parts.banned_until) {
            (Some(ban), Some(until)) => {
                **until = now.saturating_add(ban);
                Verdict::Wait(wait.max(ban), Why::BanBegun)
            }
            _ => Verdict::Wait(wait, Why::Spent),
        }
    }

    /// How long until `cost` more fit, charging nothing.
    pub(super) fn peek(&self, words: &mut [u64], now: u64, cost: u32) -> u64 {
        let Some(parts) = self.parts(words) else {
            return SECOND;
        };
        let cost = parts.pending().saturating_add(cost);
        self.wait(parts.full_at, now, cost)
            .max(parts.banned_for(now))
    }

    /// What is left of the window with the least room.
    pub(super) fn left(&self, words: &mut [u64], now: u64) -> Option<Left> {
        let parts = self.parts(words)?;
        let (pending, banned) = (parts.pending(), parts.banned_for(now));
        let windows = self.windows.iter().zip(&*parts.full_at).enumerate();
        let lefts = windows.map(|(position, (window, full_at))| {
            let debt = full_at.saturating_sub(now);
            let room = window.room(debt).saturating_sub(pending);
            let count = if banned > 0 { 0 } else { room };
            let full_in = match count {
                0 => window
                    .take(debt, pending.saturating_add(1))
                    .err()
                    .unwrap_or(0),
                _ => debt,
            };
            Left {
                window: position,
                count,
                full_in: full_in.max(banned),
            }
        });
        lefts.min_by_key(|left| (left.count, u64::MAX - left.full_in))
    }

    fn wait(&self, full_at: &[u64], now: u64, cost: u32) -> u64 {
        let windows = self.windows.iter().zip(full_at);
        let waits = windows
            .filter_map(|(window, full_at)| window.take(full_at.saturating_sub(now), cost).err());
        waits.max().unwrap_or(0)
    }

    /// Gives back what was charged at most `passed` ago, because something else refused the request. What trickled in meanwhile
    /// is not given twice.
    pub(super) fn undo(&self, words: &mut [u64], cost: u32, passed: u64) {
        let Some(parts) = self.parts(words) else {
            return;
        };
        for (window, full_at) in self.windows.iter().zip(parts.full_at) {
            *full_at = full_at.saturating_sub(window.price(cost).saturating_sub(passed));
        }
    }

    /// Ends the wait for the outcome of a request.
    pub(super) fn settle(&self, words: &mut [u64], now: u64, cost: u32, outcome: Settlement) {
        let Some(parts) = self.parts(words) else {
            return;
        };
        if let Some(pending) = parts.pending {
            *pending = pending.saturating_sub(u64::from(cost));
        }
        match outcome {
            Settlement::Released => {}
            Settlement::Failed => {
                for (window, full_at) in self.windows.iter().zip(parts.full_at) {
                    *full_at = (*full_at).max(now).saturating_add(window.price(cost));
                }
            }
            Settlement::Forgiven => {
                parts.full_at.fill(0);
                if let Some(until) = parts.banned_until {
                    *until = 0;
                }
            }
        }
    }

    fn parts<'w>(&self, words: &'w mut [u64]) -> Option<Parts<'w>> {
        let (full_at, rest) = words.split_at_mut_checked(self.windows.len())?;
        let (banned_until, rest) = match self.ban {
            Some(_) => rest
                .split_first_mut()
                .map(|(until, rest)| (Some(until), rest))?,
            None => (None, rest),
        };
        let pending = match self.learns {
            true => Some(rest.first_mut()?),
            false => None,
        };
        Some(Parts {
            full_at,
            banned_until,
            pending,
        })
    }
}

impl Parts<'_> {
    fn pending(&self) -> u32 {
        let pending = self.pending.as_deref().copied().unwrap_or(0);
        u32::try_from(pending).unwrap_or(u32::MAX)
    }

    fn banned_for(&self, now: u64) -> u64 {
        let until = self.banned_until.as_deref().copied().unwrap_or(0);
        until.saturating_sub(now)
    }
}

impl Layout {
    /// When a key owes nothing any more; never while requests of it are under way.
    pub(super) fn clear_at(self, words: &[u64]) -> u64 {
        let (times, rest) = words.split_at_checked(self.times).unwrap_or((words, &[]));
        match rest.first() {
            Some(pending) if *pending > 0 => u64::MAX,
            _ => times.iter().copied().max().unwrap_or(0),
        }
    }
}

const SECOND: u64 = 1_000_000_000;
