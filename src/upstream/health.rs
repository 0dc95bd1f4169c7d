//! Whether an endpoint says that it is well: counts, which are pure, and the loop that asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, StatusCode, Uri};
use parking_lot::Mutex;

use super::endpoint::Endpoint;
use super::fetch;

/// Most bytes of an answer that are read; they are not looked at.
const MAX_ANSWER: usize = 64 * 1024;

/// What to ask, compiled.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) path: Uri,
    pub(super) host: Option<HeaderValue>,
    /// Empty: every 2xx.
    pub(super) statuses: Vec<StatusCode>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) unhealthy_after: u32,
    pub(super) healthy_after: u32,
}

/// What is known of an endpoint's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody asked yet, or nobody asks.
    Unknown = 0,
    Healthy = 1,
    Unhealthy = 2,
}

/// The results of the checks of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: AtomicU8,
    streak: Mutex<Streak>,
}

#[derive(Debug, Default)]
struct Streak {
    well: bool,
    length: u32,
}

impl Health {
    pub(super) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            1 => State::Healthy,
            2 => State::Unhealthy,
            _ => State::Unknown,
        }
    }

    /// Takes a result in; the new state if it changed. The first result counts at once.
    pub(super) fn learn(&self, well: bool, check: &Check) -> Option<State> {
        let mut streak = self.streak.lock();
        if streak.well == well {
            streak.length = streak.length.saturating_add(1);
        } else {
            *streak = Streak { well, length: 1 };
        }
        let (state, needed) = if well {
            (State::Healthy, check.healthy_after)
        } else {
            (State::Unhealthy, check.unhealthy_after)
        };
        let now = self.state();
        if state == now || (now != State::Unknown && streak.length < needed) {
            return None;
        }
        self.state.store(state as u8, Ordering::Relaxed);
        Some(state)
    }
}

/// Asks `endpoint` for ever. Every question has a connection of its own: that the way there is open is part of it.
pub(super) async fn keep_asking(endpoint: Arc<Endpoint>, check: Arc<Check>, cluster: Arc<str>) {
    let mut beat = tokio::time::interval(check.interval);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let answer = ask(&endpoint, &check).await;
        if answer.is_ok() {
            endpoint.reachable();
        }
        let changed = endpoint.health().learn(answer.is_ok(), &check);
        match (changed, answer) {
            (Some(State::Healthy), _) => {
                tracing::info!(
                    cluster = &*cluster,
                    endpoint = &**endpoint.label(),
                    "healthy"
                );
            }
            (Some(State::Unhealthy), Err(why)) => {
                tracing::warn!(
                    cluster = &*cluster,
                    endpoint = &**endpoint.label(),
                    why,
                    "unhealthy"
                );
            }
            _ => {}
        }
    }
}

async fn ask(endpoint: &Endpoint, check: &Check) -> Result<(), String> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = check.path.clone();
    let host = check.host.as_ref().unwrap_or(endpoint.host());
    request.headers_mut().insert(HOST, host.clone());
    let answer = fetch::once(endpoint.target(), request, check.timeout, MAX_ANSWER)
        .await
        .map_err(|error| error.to_string())?;
    let status = answer.status();
    let well = if check.statuses.is_empty() {
        status.is_success()
    } else {
        check.statuses.contains(&status)
    };
    if well {
        Ok(())
    } else {
        Err(format!("it answered {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unhealthy_after: u32, healthy_after: u32) -> Check {
        Check {
            path: Uri::from_static("/"),
            host: None,
            statuses: Vec::new(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            unhealthy_after,
            healthy_after,
        }
    }

    #[test]
    fn the_first_answer_counts_at_once() {
        let health = Health::default();
        assert_eq!(health.state(), State::Unknown);
        assert_eq!(health.learn(false, &check(3, 3)), Some(State::Unhealthy));
        let health = Health::default();
        assert_eq!(health.learn(true, &check(3, 3)), Some(State::Healthy));
    }

    #[test]
    fn only_answers_in_a_row_change_the_state() {
        let health = Health::default();
        let check = check(2, 3);
        health.learn(true, &check);
        for well in [false, true, false, true] {
            assert_eq!(health.learn(well, &check), None);
        }
        assert_eq!(health.learn(false, &check), None);
        assert_eq!(health.learn(false, &check), Some(State::Unhealthy));
        assert_eq!(health.learn(true, &check), None);
        assert_eq!(health.learn(true, &check), None);
        assert_eq!(health.learn(true, &check), Some(State::Healthy));
        assert_eq!(health.learn(true, &check), None);
    }
}
