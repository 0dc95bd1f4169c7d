//! Which endpoint takes the next request. Pure: a turn, a standing and a load for each endpoint come in.

use crate::config::Balance;

/// How far an endpoint can be relied on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Nothing speaks against it.
    Good,
    /// It answered badly of late: only when there is nothing better.
    Doubtful,
    /// Not to be used.
    Out,
}

/// The endpoints that one request has been to. Positions beyond 63 are not remembered, which costs at worst a second
/// try of the same endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Visited(u64);

impl Visited {
    pub(super) fn add(&mut self, position: usize) {
        if position < 64 {
            self.0 |= 1 << position;
        }
    }

    pub(super) fn has(self, position: usize) -> bool {
        position < 64 && self.0 & (1 << position) != 0
    }
}

/// Chooses one of `count` endpoints, or none if all are out.
///
/// A good endpoint goes before a doubtful one, and an endpoint that this request has not been to before one it has.
/// Among equals `policy` decides; `turn` is a number that rises with every choice.
pub(super) fn choose(
    policy: Balance,
    turn: usize,
    count: usize,
    visited: Visited,
    standing: impl Fn(usize) -> Standing,
    load: impl Fn(usize) -> u32,
) -> Option<usize> {
    let rank = |position: usize| match standing(position) {
        Standing::Out => None,
        usable => Some((usable, visited.has(position))),
    };
    match count {
        0 => return None,
        1 => return rank(0).map(|_| 0),
        _ => {}
    }
    if policy == Balance::LeastRequest {
        let (one, other) = pair(turn, count);
        let best = Some((Standing::Good, false));
        match (rank(one) == best, rank(other) == best) {
            (true, true) if load(other) < load(one) => return Some(other),
            (true, _) => return Some(one),
            (false, true) => return Some(other),
            (false, false) => {}
        }
    }
    (0..count)
        .map(|step| (turn.wrapping_add(step)) % count)
        .filter_map(|position| Some((rank(position)?, position)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, position)| position)
}

/// Two different positions; over `count * (count - 1)` turns each ordered pair comes up once.
fn pair(turn: usize, count: usize) -> (usize, usize) {
    let one = turn % count;
    let distance = 1 + (turn / count) % (count - 1);
    (one, (one + distance) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(_: usize) -> Standing {
        Standing::Good
    }

    fn idle(_: usize) -> u32 {
        0
    }

    fn nowhere() -> Visited {
        Visited::default()
    }

    #[test]
    fn round_robin_gives_everyone_the_same() {
        let mut seen = [0; 3];
        for turn in 0..30 {
            let chosen = choose(Balance::RoundRobin, turn, 3, nowhere(), good, idle);
            seen[chosen.unwrap()] += 1;
        }
        assert_eq!(seen, [10, 10, 10]);
    }

    #[test]
    fn least_request_compares_every_pair() {
        let mut pairs = std::collections::HashSet::new();
        for turn in 0..12 {
            let (one, other) = pair(turn, 4);
            assert_ne!(one, other);
            pairs.insert((one, other));
        }
        assert_eq!(pairs.len(), 12);
    }

    #[test]
    fn the_busiest_endpoint_is_never_the_less_busy_of_two() {
        let load = |position| if position == 1 { 9 } else { 1 };
        for turn in 0..60 {
            let chosen = choose(Balance::LeastRequest, turn, 3, nowhere(), good, load);
            assert_ne!(chosen, Some(1));
        }
    }

    #[test]
    fn what_is_out_gets_nothing() {
        let standing = |position| {
            if position == 2 {
                Standing::Good
            } else {
                Standing::Out
            }
        };
        for policy in [Balance::LeastRequest, Balance::RoundRobin] {
            for turn in 0..20 {
                assert_eq!(choose(policy, turn, 4, nowhere(), standing, idle), Some(2));
            }
        }
        assert_eq!(
            choose(
                Balance::RoundRobin,
                0,
                4,
                nowhere(),
                |_| Standing::Out,
                idle
            ),
            None
        );
        assert_eq!(
            choose(Balance::RoundRobin, 0, 0, nowhere(), good, idle),
            None
        );
    }

    #[test]
    fn a_doubtful_endpoint_is_better_than_none() {
        let standing = |position| {
            if position == 0 {
                Standing::Out
            } else {
                Standing::Doubtful
            }
        };
        assert_eq!(
            choose(Balance::LeastRequest, 0, 2, nowhere(), standing, idle),
            Some(1)
        );
    }

    #[test]
    fn another_try_goes_to_another_endpoint_while_there_is_a_good_one() {
        let mut visited = nowhere();
        visited.add(0);
        for policy in [Balance::LeastRequest, Balance::RoundRobin] {
            for turn in 0..8 {
                assert_eq!(choose(policy, turn, 2, visited, good, idle), Some(1));
            }
        }
        visited.add(1);
        assert!(choose(Balance::LeastRequest, 0, 2, visited, good, idle).is_some());
    }

    #[test]
    fn a_lone_endpoint_is_tried_again() {
        let mut visited = nowhere();
        visited.add(0);
        assert_eq!(
            choose(Balance::LeastRequest, 7, 1, visited, good, idle),
            Some(0)
        );
    }
}
