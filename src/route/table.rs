//! The table of routes: finds the most specific route of a request without allocating, whatever the number of routes.
//!
//! Hosts are found by hash (the name, then the name without its first label, then any). Within a host, exact paths are
//! found by hash, prefixes by binary search, and expressions are tried in order, most of them only as far as their
//! literal front.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::{HeaderMap, Method};

use super::compile::RouteMatch;
use super::head::Head;
use super::matching::host::HostPattern;
use super::matching::path::{PathPattern, PathRegex};
use super::matching::{Criteria, Verdict};
use super::prefix::PrefixTree;
use crate::types::{Reason, Rejection};

/// Routes, each with what it leads to.
#[derive(Debug)]
pub struct Table<P> {
    payloads: Vec<P>,
    /// Every pair of host and path, in precedence order.
    patterns: Vec<Pattern>,
    exact_hosts: HashMap<Box<str>, Paths, RandomState>,
    wildcard_hosts: HashMap<Box<str>, Paths, RandomState>,
    any_host: Paths,
}

/// One host and one path of one route.
#[derive(Clone, Debug)]
pub struct Pattern {
    host: HostPattern,
    path: PathPattern,
    criteria: Arc<Criteria>,
    rule: usize,
    /// A closed path of a wider host, which holds on this one too.
    inherited: bool,
}

impl<P> Table<P> {
    /// Builds the table. The order of `rules` plays no part, but between two that match by the same words: there the
    /// earlier one wins, and [`Table::shadowed`] names the pair.
    #[must_use]
    pub fn new(rules: Vec<(RouteMatch, P)>) -> Self {
        let mut patterns = Vec::new();
        let mut payloads = Vec::with_capacity(rules.len());
        for (rule, (matcher, payload)) in rules.into_iter().enumerate() {
            payloads.push(payload);
            expand(matcher, rule, &mut patterns);
        }
        close_on_covered_hosts(&mut patterns);
        patterns.sort_by(Pattern::precedence);
        let mut table = Self {
            payloads,
            patterns: Vec::new(),
            exact_hosts: HashMap::default(),
            wildcard_hosts: HashMap::default(),
            any_host: Paths::default(),
        };
        for pattern in &patterns {
            table.paths_of(&pattern.host).add(pattern);
        }
        for paths in table
            .exact_hosts
            .values_mut()
            .chain(table.wildcard_hosts.values_mut())
        {
            paths.prefixes.link();
        }
        table.any_host.prefixes.link();
        patterns.retain(|pattern| !pattern.inherited);
        table.patterns = patterns;
        table
    }

    /// The most specific route that takes the request.
    ///
    /// # Errors
    /// [`Reason::MethodRefused`] when a route takes everything but the method, else [`Reason::NoRoute`].
    pub fn find(
        &self,
        listener: usize,
        head: &Head,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<&P, Rejection> {
        let mut search = Search {
            listener,
            path: head.path(),
            method,
            headers,
            other_method: false,
        };
        let host = head.host();
        let parent = host.split_once('.').map(|(_, parent)| parent);
        let candidates = [
            self.exact_hosts.get(host),
            parent.and_then(|parent| self.wildcard_hosts.get(parent)),
            Some(&self.any_host),
        ];
        for paths in candidates.into_iter().flatten() {
            if let Some(payload) = paths
                .find(&mut search)
                .and_then(|rule| self.payloads.get(rule))
            {
                return Ok(payload);
            }
        }
        Err(Rejection::new(if search.other_method {
            Reason::MethodRefused
        } else {
            Reason::NoRoute
        }))
    }

    /// Every pair of host and path in precedence order, each with what it leads to.
    pub fn iter(&self) -> impl Iterator<Item = (&Pattern, &P)> {
        self.patterns
            .iter()
            .filter_map(|pattern| Some((pattern, self.payloads.get(pattern.rule)?)))
    }

    /// Conflicts between routes: (the one that wins, the one that loses). The second is never reached on some of its
    /// hosts and paths, or only its spelling decides which of the two takes a request that both match.
    #[must_use]
    pub fn shadowed(&self) -> Vec<(&P, &P)> {
        let mut places: BTreeMap<String, Vec<&Pattern>> = BTreeMap::new();
        for pattern in &self.patterns {
            let place = format!("{} {}", pattern.host, pattern.path);
            places.entry(place).or_default().push(pattern);
        }
        let mut pairs = BTreeSet::new();
        for mut rivals in places.values().map(|patterns| patterns.iter()) {
            while let Some(winner) = rivals.next() {
                let losers = rivals.clone().filter(|loser| winner.conflicts_with(loser));
                pairs.extend(losers.map(|loser| (winner.rule, loser.rule)));
            }
        }
        let payload = |rule| self.payloads.get(rule);
        pairs
            .into_iter()
            .filter_map(|(winner, loser)| payload(winner).zip(payload(loser)))
            .collect()
    }

    fn paths_of(&mut self, host: &HostPattern) -> &mut Paths {
        match host {
            HostPattern::Exact(name) => self.exact_hosts.entry(name.clone()).or_default(),
            HostPattern::Wildcard(name) => self.wildcard_hosts.entry(name.clone()).or_default(),
            HostPattern::Any => &mut self.any_host,
        }
    }
}

fn expand(matcher: RouteMatch, rule: usize, patterns: &mut Vec<Pattern>) {
    let criteria = Arc::new(matcher.criteria);
    for host in &matcher.hosts {
        for path in &matcher.paths {
            patterns.push(Pattern {
                host: host.clone(),
                path: path.clone(),
                criteria: Arc::clone(&criteria),
                rule,
                inherited: false,
            });
        }
    }
}

/// What is closed on a host is closed on every host that it covers: a door that was shut for all must not stand open
/// wherever some route names the host.
fn close_on_covered_hosts(patterns: &mut Vec<Pattern>) {
    let hosts: HashSet<HostPattern> = patterns
        .iter()
        .map(|pattern| pattern.host.clone())
        .collect();
    let closed = patterns.iter().filter(|pattern| pattern.criteria.closed);
    let inherited: Vec<Pattern> = closed
        .flat_map(|pattern| {
            let covered = hosts.iter().filter(|host| pattern.host.covers(host));
            covered.map(|host| Pattern {
                host: host.clone(),
                inherited: true,
                ..pattern.clone()
            })
        })
        .collect();
    patterns.extend(inherited);
}

impl Pattern {
    /// The precedence of the room's documentation; what is left undecided, the spelling decides.
    fn precedence(&self, other: &Self) -> Ordering {
        let host = self.host.precedence(&other.host);
        let path = || self.path.specificity(&other.path);
        let criteria = || self.criteria.precedence(&other.criteria);
        let spelling = || self.path.precedence(&other.path);
        let wording = || self.criteria.to_string().cmp(&other.criteria.to_string());
        host.then_with(path)
            .then_with(|| self.inherited.cmp(&other.inherited))
            .then_with(criteria)
            .then_with(spelling)
            .then_with(wording)
    }

    fn conflicts_with(&self, loser: &Self) -> bool {
        let (winner, loser_criteria) = (&self.criteria, &loser.criteria);
        self.rule != loser.rule
            && (winner.cover(loser_criteria)
                || winner.ties_with(loser_criteria) && winner.overlap(loser_criteria))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.host, self.path, self.criteria)
    }
}

/// What a request is held against.
struct Search<'a> {
    listener: usize,
    path: &'a str,
    method: &'a Method,
    headers: &'a HeaderMap,
    /// Whether some route took everything but the method.
    other_method: bool,
}

/// The end of the walk: what is left to ask, and the route.
#[derive(Clone, Debug)]
struct Leaf {
    criteria: Arc<Criteria>,
    rule: usize,
}

impl Search<'_> {
    fn first_of(&mut self, leaves: &[Leaf]) -> Option<usize> {
        leaves.iter().find_map(|leaf| self.judge(leaf, |_| true))
    }

    /// The route of `leaf`, if it takes the request; `matches` is asked last, and only if its answer counts.
    fn judge(&mut self, leaf: &Leaf, matches: impl Fn(&str) -> bool) -> Option<usize> {
        let verdict = leaf
            .criteria
            .judge(self.listener, self.method, self.headers);
        match verdict {
            Verdict::Met => matches(self.path).then_some(leaf.rule),
            Verdict::OtherMethod => {
                self.other_method = self.other_method || matches(self.path);
                None
            }
            Verdict::Unmet => None,
        }
    }
}

/// The paths of one host.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, Vec<Leaf>, RandomState>,
    /// In precedence order.
    regexes: Vec<(PathRegex, Leaf)>,
    prefixes: PrefixTree<Vec<Leaf>>,
}

impl Paths {
    /// Patterns come in precedence order, so that every list is in precedence order too.
    fn add(&mut self, pattern: &Pattern) {
        let leaf = Leaf {
            criteria: Arc::clone(&pattern.criteria),
            rule: pattern.rule,
        };
        match &pattern.path {
            PathPattern::Exact(path) => self.exact.entry(path.clone()).or_default().push(leaf),
            PathPattern::Regex(regex) => self.regexes.push((regex.clone(), leaf)),
            PathPattern::Prefix(prefix) => self.prefixes.entry(prefix).push(leaf),
        }
    }

    fn find(&self, search: &mut Search<'_>) -> Option<usize> {
        let exact = self.exact.get(search.path);
        if let Some(rule) = exact.and_then(|leaves| search.first_of(leaves)) {
            return Some(rule);
        }
        let path = search.path;
        let mut prefixes = self.prefixes.matching(path).peekable();
        for (regex, leaf) in &self.regexes {
            let longer = |(prefix, _): &(&str, _)| prefix.len() > regex.front().len();
            while let Some((_, leaves)) = prefixes.next_if(longer) {
                if let Some(rule) = search.first_of(leaves) {
                    return Some(rule);
                }
            }
            if let Some(rule) = search.judge(leaf, |path| regex.matches(path)) {
                return Some(rule);
            }
        }
        prefixes.find_map(|(_, leaves)| search.first_of(leaves))
    }
}
