//! The deadlines of one connection: one timer for all of them, moved lazily.
//!
//! Whatever a client leaves unfinished lands in one of these: no first request, half a head, nothing to do, bytes it does
//! not take, too long a life. A slow request body is bounded by `types::body`, the TLS handshake by `connection`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::activity::Activity;
use super::{Event, Stage};
use crate::snapshot::ListenerLimits;
use crate::types::{Protocol, clock};

/// Watches one connection.
pub(super) struct Watch {
    activity: Arc<Activity>,
    limits: Arc<ListenerLimits>,
    protocol: Protocol,
    seen: Look,
    head_since: Option<Instant>,
    blocked_since: Option<Instant>,
    ending: Option<Ending>,
    armed: bool,
}

/// What must happen to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing, until then at the latest.
    Wait(Instant),
    /// It is ended as its protocol ends connections.
    Finish,
    /// The head that is under way is refused: the transport has been told, and is to be asked for bytes.
    Refuse,
    /// It is dropped.
    Drop(Event),
}

/// Everything that deadlines depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    open: bool,
    first: bool,
    head: bool,
    /// The count of writes while bytes wait for the socket.
    blocked: Option<u64>,
    worn: bool,
    draining: bool,
}

impl Look {
    /// Whether a deadline may have come nearer since `before`. That an exchange began or ended brings none: while one is
    /// under way, the next look is due no later than the patience that begins with its end (see [`Watch::nearest`]).
    fn brings_nearer(self, before: Self) -> bool {
        let without_exchanges = |look: Self| (look.head, look.blocked, look.worn, look.draining);
        without_exchanges(self) != without_exchanges(before)
    }
}

#[derive(Clone, Copy, Debug)]
struct Ending {
    why: Event,
    since: Instant,
    grace: Duration,
}

impl Watch {
    pub(super) fn new(
        activity: Arc<Activity>,
        limits: Arc<ListenerLimits>,
        protocol: Protocol,
    ) -> Self {
        Self {
            activity,
            limits,
            protocol,
            seen: Look::default(),
            head_since: None,
            blocked_since: None,
            ending: None,
            armed: false,
        }
    }

    /// Why the connection was told to finish, if it was.
    pub(super) fn ending(&self) -> Option<Event> {
        self.ending.map(|ending| ending.why)
    }

    /// To be called after every poll of the connection, with its one timer. Ready when something must happen.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stage: Stage,
        mut timer: Pin<&mut Sleep>,
    ) -> Poll<Verdict> {
        let look = self.look(stage);
        if self.armed && !look.brings_nearer(self.seen) && !timer.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            match self.assess(look, clock::now()) {
                Verdict::Wait(until) => {
                    if !self.armed || timer.is_elapsed() || until < timer.deadline().into_std() {
                        timer.as_mut().reset(until.into());
                    }
                    self.armed = true;
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                verdict => {
                    self.armed = false;
                    return Poll::Ready(verdict);
                }
            }
        }
    }

    fn look(&self, stage: Stage) -> Look {
        let activity = &self.activity;
        let open = activity.open_now() > 0;
        Look {
            open,
            first: activity.served() == 0,
            // A pipelined head is not owed before the answer that it waits for.
            head: activity.head() && !(open && self.protocol == Protocol::Http1),
            blocked: activity.blocked().then(|| activity.writes()),
            worn: activity.worn(),
            draining: stage > Stage::Serving,
        }
    }

    /// The judgement, on what is seen at `now`.
    fn assess(&mut self, look: Look, now: Instant) -> Verdict {
        self.follow(look, now);
        if let Some(since) = self.blocked_since
            && now >= since + self.limits.write_timeout
        {
            return Verdict::Drop(Event::WriteStalled);
        }
        if let Some(since) = self.head_since
            && now >= since + self.limits.head_timeout
        {
            return self.end_head(now);
        }
        if let Some(ending) = self.ending
            && !look.open
            && now >= self.grace_ends(ending)
        {
            return Verdict::Drop(ending.why);
        }
        if self.ending.is_none()
            && let Some(why) = self.why_end(look, now)
        {
            return self.end(why, look, now);
        }
        Verdict::Wait(self.nearest(look, now))
    }

    /// Stamps the states that have just begun.
    fn follow(&mut self, look: Look, now: Instant) {
        if look.head {
            let since = if look.first {
                self.activity.started()
            } else {
                now
            };
            self.head_since.get_or_insert(since);
        } else {
            self.head_since = None;
        }
        if look.blocked.is_none() {
            self.blocked_since = None;
        } else if self.blocked_since.is_none() || look.blocked != self.seen.blocked {
            self.blocked_since = Some(now);
        }
        self.seen = look;
    }

    fn why_end(&self, look: Look, now: Instant) -> Option<Event> {
        if look.draining {
            return Some(Event::Drained);
        }
        if look.worn || now >= self.activity.started() + self.limits.max_connection_age {
            return Some(Event::Retired);
        }
        let (since, patience, why) = self.rest(look)?;
        (now >= since + patience).then_some(why)
    }

    /// The wait for the next request: since when, how long, and what it is called when it was too long.
    fn rest(&self, look: Look) -> Option<(Instant, Duration, Event)> {
        if look.open || look.head {
            None
        } else if look.first {
            let patience = self.limits.head_timeout;
            Some((self.activity.started(), patience, Event::HeadTimeout))
        } else {
            let patience = self.limits.idle_timeout;
            Some((self.activity.idle_since(), patience, Event::IdleTimeout))
        }
    }

    /// An HTTP/1 client is told; in h2 a header block stands in everybody's way.
    fn end_head(&mut self, now: Instant) -> Verdict {
        if self.protocol == Protocol::Http2 || self.activity.overdue() {
            return Verdict::Drop(Event::HeadTimeout);
        }
        self.activity.set_overdue();
        self.ending = Some(Ending {
            why: Event::HeadTimeout,
            since: now,
            grace: SILENT_GRACE,
        });
        Verdict::Refuse
    }

    fn end(&mut self, why: Event, look: Look, now: Instant) -> Verdict {
        let silent = matches!(why, Event::HeadTimeout | Event::IdleTimeout);
        if silent && look.first && self.protocol == Protocol::Http1 {
            return Verdict::Drop(why);
        }
        let grace = if silent {
            SILENT_GRACE.min(self.limits.idle_timeout)
        } else {
            self.limits.write_timeout
        };
        self.activity.set_closing();
        self.ending = Some(Ending {
            why,
            since: now,
            grace,
        });
        // A client that has just connected is still answered, with `Connection: close`; hyper would close in its face.
        if look.first && self.protocol == Protocol::Http1 {
            return Verdict::Wait(self.nearest(look, now));
        }
        Verdict::Finish
    }

    fn grace_ends(&self, ending: Ending) -> Instant {
        ending.since.max(self.activity.idle_since()) + ending.grace
    }

    /// When the next look is due. While exchanges are under way they may end without this task being woken; a look every
    /// `idle_timeout` is early enough for the deadline that begins with their end.
    fn nearest(&self, look: Look, now: Instant) -> Instant {
        let limits = &self.limits;
        let candidates = [
            self.blocked_since.map(|since| since + limits.write_timeout),
            self.head_since.map(|since| since + limits.head_timeout),
            match self.ending {
                Some(ending) if !look.open => Some(self.grace_ends(ending)),
                Some(ending) => Some(now + ending.grace.max(LEAST_WAIT)),
                None => Some(self.activity.started() + limits.max_connection_age),
            },
            match self.rest(look) {
                Some((since, patience, _)) if self.ending.is_none() => Some(since + patience),
                _ => None,
            },
        ];
        let at_last = now + limits.idle_timeout.max(LEAST_WAIT);
        candidates.into_iter().flatten().fold(at_last, Instant::min)
    }
}

/// How long an h2 client that asked for nothing has to take leave.
const SILENT_GRACE: Duration = Duration::from_secs(1);
/// Keeps a timeout of zero from spinning.
const LEAST_WAIT: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> ListenerLimits {
        ListenerLimits {
            only: None,
            handshake_timeout: 10 * SECOND,
            head_timeout: 10 * SECOND,
            idle_timeout: 60 * SECOND,
            write_timeout: 30 * SECOND,
            max_connections: 10,
            max_connections_per_ip: 10,
            max_requests_per_connection: 3,
            max_connection_age: 3600 * SECOND,
            max_head: 32 << 10,
            max_fields: 100,
            max_target: 8 << 10,
            max_streams: 100,
            max_control_frames: 100,
            max_resets: 200,
            websockets: false,
        }
    }

    struct Bench {
        watch: Watch,
        start: Instant,
        stage: Stage,
    }

    impl Bench {
        fn new(protocol: Protocol) -> Self {
            let start = clock::now();
            let activity = Activity::new(start, limits().max_requests_per_connection);
            Self {
                watch: Watch::new(activity, Arc::new(limits()), protocol),
                start,
                stage: Stage::Serving,
            }
        }

        fn activity(&self) -> &Arc<Activity> {
            &self.watch.activity
        }

        fn at(&mut self, seconds: u32) -> Verdict {
            let look = self.watch.look(self.stage);
            self.watch.assess(look, self.start + seconds * SECOND)
        }

        fn waits(&mut self, at: u32, until: u32) {
            let until = self.start + until * SECOND;
            match self.at(at) {
                Verdict::Wait(next) => assert!(
                    next <= until + SECOND && until <= next + SECOND,
                    "{:?} off",
                    next.saturating_duration_since(until)
                ),
                verdict => panic!("{verdict:?}"),
            }
        }
    }

    #[test]
    fn a_silent_connection_is_dropped_at_the_head_deadline() {
        let mut bench = Bench::new(Protocol::Http1);
        bench.waits(0, 10);
        assert_eq!(bench.at(10), Verdict::Drop(Event::HeadTimeout));
    }

    #[test]
    fn a_silent_h2_connection_may_take_leave_for_a_second() {
        let mut bench = Bench::new(Protocol::Http2);
        bench.waits(9, 10);
        assert_eq!(bench.at(10), Verdict::Finish);
        bench.waits(10, 11);
        assert_eq!(bench.at(11), Verdict::Drop(Event::HeadTimeout));
    }

    #[test]
    fn the_head_deadline_runs_from_its_first_byte() {
        let mut bench = Bench::new(Protocol::Http1);
        drop(bench.activity().open());
        bench.waits(5, 60);
        bench.activity().set_head(true);
        bench.waits(20, 30);
        bench.waits(29, 30);
        assert_eq!(bench.at(30), Verdict::Refuse);
        bench.activity().set_head(false);
        bench.waits(30, 31);
        assert_eq!(bench.at(31), Verdict::Drop(Event::HeadTimeout));
    }

    #[test]
    fn the_deadline_of_the_first_head_runs_from_the_start() {
        let mut bench = Bench::new(Protocol::Http1);
        bench.waits(0, 10);
        bench.activity().set_head(true);
        bench.waits(5, 10);
        assert_eq!(bench.at(10), Verdict::Refuse);
        // Nobody made anything of it.
        assert_eq!(bench.at(11), Verdict::Drop(Event::HeadTimeout));
    }

    #[test]
    fn a_pipelined_head_is_owed_from_the_answer_before_it() {
        let mut bench = Bench::new(Protocol::Http1);
        let open = bench.activity().open();
        bench.activity().set_head(true);
        bench.waits(100, 160);
        drop(open);
        bench.waits(100, 110);
        assert_eq!(bench.at(110), Verdict::Refuse);
    }

    #[test]
    fn an_unfinished_header_block_ends_an_h2_connection() {
        let mut bench = Bench::new(Protocol::Http2);
        let _open = bench.activity().open();
        bench.activity().set_head(true);
        bench.waits(5, 15);
        assert_eq!(bench.at(15), Verdict::Drop(Event::HeadTimeout));
    }

    #[test]
    fn an_idle_connection_is_ended_and_then_dropped() {
        let mut bench = Bench::new(Protocol::Http2);
        drop(bench.activity().open());
        bench.waits(1, 60);
        assert_eq!(bench.at(60), Verdict::Finish);
        assert_eq!(bench.at(62), Verdict::Drop(Event::IdleTimeout));
    }

    #[test]
    fn a_connection_with_an_open_exchange_is_looked_at_again_but_left_alone() {
        let mut bench = Bench::new(Protocol::Http2);
        let _open = bench.activity().open();
        bench.waits(0, 60);
        bench.waits(600, 660);
    }

    #[test]
    fn a_client_that_takes_nothing_is_dropped_and_each_byte_taken_counts() {
        let mut bench = Bench::new(Protocol::Http1);
        let _open = bench.activity().open();
        bench.activity().set_blocked(true);
        bench.waits(0, 30);
        bench.activity().wrote();
        bench.activity().set_blocked(true);
        bench.waits(20, 50);
        assert_eq!(bench.at(50), Verdict::Drop(Event::WriteStalled));
    }

    #[test]
    fn a_connection_retires_after_its_requests_or_its_age() {
        let mut bench = Bench::new(Protocol::Http1);
        for _ in 0..3 {
            drop(bench.activity().open());
        }
        assert_eq!(bench.at(1), Verdict::Finish);
        assert!(bench.activity().closing());

        let mut bench = Bench::new(Protocol::Http2);
        let open = bench.activity().open();
        assert_eq!(bench.at(3600), Verdict::Finish);
        bench.waits(3601, 3631);
        drop(open);
        assert_eq!(bench.at(3630), Verdict::Drop(Event::Retired));
    }

    #[test]
    fn a_draining_gateway_still_answers_who_has_just_connected() {
        let mut bench = Bench::new(Protocol::Http1);
        bench.stage = Stage::Draining;
        assert!(matches!(bench.at(0), Verdict::Wait(_)));
        assert!(bench.activity().closing());

        let mut bench = Bench::new(Protocol::Http1);
        drop(bench.activity().open());
        bench.stage = Stage::Draining;
        assert_eq!(bench.at(0), Verdict::Finish);
    }
}
