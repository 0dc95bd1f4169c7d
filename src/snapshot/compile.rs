//! `Config` to `Snapshot`: every room compiles its part, every mistake is collected.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderValue;

use super::Snapshot;
use super::policy::{Action, Answer, AuthCounters, Policy};
use super::{Listener, ListenerLimits};
use crate::authn::{Authn, Authorities, Logout, Revokes};
use crate::authz;
use crate::client_ip::Trust;
use crate::config::{self, Auth, Config, ConfigError, KeyPath, Problems, StreamAuth};
use crate::cors::{Cors, Csrf};
use crate::limit::{Limit, Limits, PeekPlan, Use};
use crate::route::{HeadCaps, RouteMatch, Table};
use crate::store::Store;
use crate::telemetry::{Metrics, log};
use crate::tls;
use crate::transform::{IdentityNames, Plan, Signer};
use crate::types::Envelope;
use crate::upstream::{Cluster, Upgrades};

impl Snapshot {
    /// Compiles `config`. Live state is carried over from `previous` where its configuration is unchanged.
    ///
    /// # Errors
    /// Every mistake there is, not the first one alone.
    pub fn compile(
        config: &Arc<Config>,
        previous: Option<&Self>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut problems = Problems::default();
        let snapshot = Compiler {
            config,
            previous,
            metrics,
            problems: &mut problems,
        }
        .run();
        if problems.is_empty() {
            Ok(snapshot)
        } else {
            Err(problems.into_errors())
        }
    }
}

struct Compiler<'a> {
    config: &'a Arc<Config>,
    previous: Option<&'a Snapshot>,
    metrics: &'a Arc<Metrics>,
    problems: &'a mut Problems,
}

fn envelope(errors: config::Errors) -> Envelope {
    match errors {
        config::Errors::Problem => Envelope::Problem,
        config::Errors::IdentSphere => Envelope::IdentSphere,
        config::Errors::OAuth => Envelope::OAuth,
    }
}

impl Compiler<'_> {
    fn run(mut self) -> Snapshot {
        self.demand_something_to_serve();
        self.demand_room();
        self.keep_what_cannot_change();
        let store = self.store();
        let limits = self.limits(store.as_ref());
        let clusters = self.clusters();
        let mut authorities = Authorities::compile(
            self.config,
            &clusters,
            self.previous.map(|previous| &previous.authorities),
            self.problems,
        );
        if let Some(store) = &store {
            authorities = authorities.with_relay(Arc::clone(store) as _);
        }
        let listeners = self.listeners(&limits);
        let signer = self.signer();
        let shared = Parts {
            listeners: &listeners,
            limits: &limits,
            clusters: &clusters,
            authorities: &authorities,
            signer: signer.as_ref(),
        };
        let routes = self.routes(&shared);
        Snapshot {
            generation: self.previous.map_or(1, |previous| previous.generation + 1),
            identity: IdentityNames::compile(self.config),
            max_in_flight: self.config.max_in_flight,
            max_tunnels: self.config.max_tunnels,
            unrouted: self.metrics.route("", ""),
            config: Arc::clone(self.config),
            listeners,
            routes: Table::new(routes),
            clusters,
            authorities,
            limits,
            store,
            signer,
        }
    }

    fn store(&mut self) -> Option<Arc<Store>> {
        let previous = self.previous.and_then(|previous| previous.store.as_ref());
        Store::compile(&self.config.store, previous, self.problems)
    }

    fn signer(&mut self) -> Option<Arc<Signer>> {
        let previous = self.previous.and_then(|previous| previous.signer.as_ref());
        Signer::is_needed(self.config)
            .then(|| Signer::compile(self.config, previous, self.problems))
            .flatten()
    }

    fn demand_something_to_serve(&mut self) {
        let level = KeyPath::root().key("log").key("level");
        log::check_level(&self.config.log.level, &level, self.problems);
        if self.config.listen.is_empty() {
            self.problems.push_with_help(
                &KeyPath::root(),
                "there is no listener",
                Some("add `[listen.public]` with `bind = [\"[::]:443\"]`".to_owned()),
            );
        }
    }

    /// A ceiling below what the gateway needs for itself would refuse everything.
    fn demand_room(&mut self) {
        if let Some(most) = self.config.max_memory
            && most.0 < LEAST_MEMORY
        {
            self.problems.push_with_help(
                &KeyPath::root().key("max_memory"),
                format!("`{most}` is less than the gateway needs for itself"),
                Some(
                    "write 32MiB or more; three quarters of the container's limit are a good start"
                        .to_owned(),
                ),
            );
        }
    }

    /// Sockets and threads are made once; a reload that would change them is refused, not half obeyed.
    fn keep_what_cannot_change(&mut self) {
        let Some(previous) = self.previous else {
            return;
        };
        let (before, now) = (&previous.config, self.config);
        let restart = "needs a restart; the running configuration stays in force";
        if before.workers != now.workers {
            self.problems.push(
                &KeyPath::root().key("workers"),
                format!("changing `workers` {restart}"),
            );
        }
        if before.admin != now.admin {
            self.problems.push(
                &KeyPath::root().key("admin"),
                format!("changing `[admin]` {restart}"),
            );
        }
        if before.log != now.log {
            self.problems.push(
                &KeyPath::root().key("log"),
                format!("changing `[log]` {restart}"),
            );
        }
        if before.store != now.store {
            self.problems.push(
                &KeyPath::root().key("store"),
                format!("changing `[store]` {restart}"),
            );
        }
        let path = KeyPath::root().key("listen");
        for name in before
            .listen
            .keys()
            .filter(|name| !now.listen.contains_key(*name))
        {
            self.problems
                .push(&path, format!("removing the listener `{name}` {restart}"));
        }
        for (name, listen) in &now.listen {
            match before.listen.get(name) {
                None => self
                    .problems
                    .push(&path.key(name), format!("adding a listener {restart}")),
                Some(old) if old.bind != listen.bind => {
                    self.problems.push(
                        &path.key(name).key("bind"),
                        format!("changing `bind` {restart}"),
                    );
                }
                Some(old) if old.tls.is_some() != listen.tls.is_some() => {
                    let message = format!("switching TLS on or off {restart}");
                    self.problems.push(&path.key(name).key("tls"), message);
                }
                Some(_) => {}
            }
        }
    }

    fn limits(&mut self, store: Option<&Arc<Store>>) -> BTreeMap<String, Arc<Limit>> {
        let path = KeyPath::root().key("limit");
        let mut limits = BTreeMap::new();
        for (name, limit) in &self.config.limit {
            let previous = self.previous.and_then(|previous| previous.limits.get(name));
            let compiled = Limit::compile(
                name,
                limit,
                &self.config.network,
                &path.key(name),
                previous,
                store,
                self.problems,
            );
            limits.extend(compiled.map(|limit| (name.clone(), limit)));
        }
        limits
    }

    fn clusters(&mut self) -> BTreeMap<String, Arc<Cluster>> {
        let path = KeyPath::root().key("upstream");
        let mut clusters = BTreeMap::new();
        for (name, upstream) in &self.config.upstream {
            let previous = self
                .previous
                .and_then(|previous| previous.clusters.get(name));
            let compiled =
                Cluster::compile(name, upstream, &path.key(name), previous, self.problems);
            clusters.extend(compiled.map(|cluster| (name.clone(), cluster)));
        }
        clusters
    }

    fn listeners(&mut self, limits: &BTreeMap<String, Arc<Limit>>) -> Box<[Listener]> {
        let everywhere = KeyPath::root().key("limits");
        let everywhere = self.limits_before_routing(&self.config.limits, &everywhere, limits);
        let path = KeyPath::root().key("listen");
        let mut listeners = Vec::new();
        for (name, listen) in &self.config.listen {
            let own = path.key(name).key("limits");
            let own = self.limits_before_routing(&listen.limits, &own, limits);
            let limits = everywhere.iter().cloned().chain(own).collect();
            let limits = Limits::new(limits);
            listeners.extend(self.listener(name, listen, &path.key(name), limits));
        }
        listeners.into()
    }

    fn listener(
        &mut self,
        name: &str,
        listen: &config::Listen,
        path: &KeyPath,
        limits: Limits,
    ) -> Option<Listener> {
        if listen.bind.0.is_empty() {
            self.problems
                .push(&path.key("bind"), "a listener needs an address");
        }
        if listen.redirect_https && listen.tls.is_some() {
            self.problems.push(
                &path.key("redirect_https"),
                "this listener speaks https already",
            );
        }
        if listen.protocols.is_empty() {
            self.problems.push(
                &path.key("protocols"),
                "a listener speaks `h1`, `h2`, or both",
            );
        }
        let tls = match &listen.tls {
            Some(tls) => {
                let previous = self.previous.and_then(|previous| previous.tls_of(name));
                let termination =
                    tls::Termination::compile(tls, &path.key("tls"), previous, self.problems)?;
                Some(termination.offering(&listen.protocols))
            }
            None => None,
        };
        Some(Listener {
            name: Arc::from(name),
            trust: Trust::compile(listen),
            caps: HeadCaps::compile(listen),
            conn: Arc::new(ListenerLimits::compile(listen, self.takes_websockets(name))),
            body_patience: (listen.body_timeout.0, listen.body_min_rate.0),
            metrics: self.metrics.listener(name),
            tls,
            limits,
            errors: envelope(listen.errors),
            redirect_https: listen.redirect_https,
            unrouted: self.metrics.route(name, ""),
        })
    }

    fn takes_websockets(&self, listener: &str) -> bool {
        let mut routes = self.config.route.iter();
        routes.any(|route| {
            let here = route.listen.is_empty() || route.listen.iter().any(|name| name == listener);
            let mut tokens = route.upgrade.iter();
            here && tokens.any(|token| token.eq_ignore_ascii_case("websocket"))
        })
    }

    /// Nobody is known before routing, so no limit there can count callers.
    fn limits_before_routing(
        &mut self,
        uses: &[config::LimitUse],
        path: &KeyPath,
        limits: &BTreeMap<String, Arc<Limit>>,
    ) -> Vec<Use> {
        let named = self.named_limits(uses, path, limits);
        for (index, used) in uses.iter().enumerate() {
            let Some(limit) = limits.get(&used.name) else {
                continue;
            };
            let what = if limit.needs_principal() {
                "callers, who are not known"
            } else if limit.needs_body() {
                "by the body, which is not read"
            } else {
                continue;
            };
            let why = format!("`{}` counts {what} before routing", used.name);
            self.problems.push(&path.index(index), why);
        }
        named
    }

    fn named_limits(
        &mut self,
        uses: &[config::LimitUse],
        path: &KeyPath,
        limits: &BTreeMap<String, Arc<Limit>>,
    ) -> Vec<Use> {
        let mut found = Vec::new();
        for (index, config::LimitUse { name, cost }) in uses.iter().enumerate() {
            match limits.get(name) {
                Some(limit) if cost.get() > limit.most_cost() => {
                    let most = limit.most_cost();
                    let why = format!("`{name}` never holds more than {most}");
                    self.problems.push(&path.index(index).key("cost"), why);
                }
                Some(limit) => found.push(Use {
                    limit: Arc::clone(limit),
                    cost: *cost,
                }),
                // A limit that is defined and wrong has been reported where it is defined.
                None if self.config.limit.contains_key(name) => {}
                None => self.problems.unknown_name(
                    &path.index(index),
                    "limit",
                    name,
                    self.config.limit.keys().map(String::as_str),
                ),
            }
        }
        found
    }

    fn routes(&mut self, parts: &Parts<'_>) -> Vec<(RouteMatch, Arc<Policy>)> {
        let names: Vec<Arc<str>> = self
            .config
            .listen
            .keys()
            .map(|name| Arc::from(&**name))
            .collect();
        let mut taken = HashSet::new();
        let mut routes = Vec::new();
        for (index, route) in self.config.route.iter().enumerate() {
            let path = KeyPath::root().key("route").index(index);
            let name = route_name(route, index);
            if !taken.insert(name.clone()) {
                self.problems.push(
                    &path.key("name"),
                    format!("there are two routes named `{name}`"),
                );
            }
            let matching = RouteMatch::compile(route, &path, &names, self.problems);
            let policy = self.policy(&name, route, &path, parts);
            routes.extend(matching.zip(policy.map(Arc::new)));
        }
        routes
    }

    fn policy(
        &mut self,
        name: &str,
        route: &config::Route,
        path: &KeyPath,
        parts: &Parts<'_>,
    ) -> Option<Policy> {
        // Each part is compiled before any is found missing, so that all mistakes are told.
        let authn = Authn::compile(
            &route.auth,
            &path.key("auth"),
            parts.authorities,
            self.problems,
        );
        let authz = authz::Rules::compile(route, path, self.problems);
        let transform = Plan::compile(route, path, self.problems)
            .and_then(|plan| self.asserting(plan, route, path, parts));
        let cors = match &route.cors {
            Some(cors) => Some(Cors::compile(cors, route, &path.key("cors"), self.problems)),
            None => None,
        };
        let guard = cors.as_ref().and_then(Option::as_ref);
        let csrf = Csrf::compile(route, guard, path, self.problems);
        let action = self.action(route, path, parts);
        let upstream = route.upstream.as_ref();
        let upstream = upstream.and_then(|name| self.config.upstream.get(name));
        let upgrades = Upgrades::compile(route, upstream, path, self.problems);
        let revokes = self.revokes(route, path, parts);
        let limits = self.named_limits(&route.limits, &path.key("limits"), parts.limits);
        let peek = PeekPlan::of(limits.iter().map(|used| &*used.limit), route.grpc.is_some());
        let (late, early): (Vec<_>, Vec<_>) = limits
            .into_iter()
            .partition(|used| used.limit.needs_principal());
        let (in_body, early): (Vec<_>, Vec<_>) =
            early.into_iter().partition(|used| used.limit.needs_body());
        Some(Policy {
            name: Arc::from(name),
            authn: authn?,
            authz: authz?,
            cors: match cors {
                Some(cors) => Some(cors?),
                None => None,
            },
            csrf: csrf?,
            transform: transform?,
            action: action?,
            revokes: revokes?,
            upgrades: upgrades?,
            tunnel_metrics: (!route.upgrade.is_empty()).then(|| self.metrics.tunnels(name)),
            binds_streams: route.stream_auth == StreamAuth::Bound,
            stream_recheck: self.stream_recheck(route, path),
            timeout: route.timeout.0,
            errors: route.errors.map(envelope),
            peek,
            buffer: self.buffer(route, path),
            early_limits: Limits::new(early),
            body_limits: Limits::new(in_body),
            late_limits: Limits::new(late),
            max_body: route.max_body.0,
            encoded_slash: route.encoded_slash,
            auth_metrics: self.auth_metrics(&route.auth),
            upstream_metrics: route
                .upstream
                .as_ref()
                .map(|name| self.metrics.upstream(name)),
            closed: route.auth == Auth::Deny,
            metrics: parts
                .listeners
                .iter()
                .map(|listener| self.metrics.route(&listener.name, name))
                .collect(),
        })
    }

    /// Each request of the route may hold as much, so it must stay small.
    fn buffer(&mut self, route: &config::Route, path: &KeyPath) -> u64 {
        let buffer = route.buffer.map_or(0, |buffer| buffer.0);
        if buffer > MOST_BUFFERED {
            self.problems.push(
                &path.key("buffer"),
                "at most 16MiB of a request are held; leave larger ones to the stream",
            );
        }
        buffer
    }

    /// Every stream of the route asks so often.
    fn stream_recheck(&mut self, route: &config::Route, path: &KeyPath) -> Duration {
        let recheck = route.stream_recheck.0;
        if !RECHECK.contains(&recheck) {
            let path = path.key("stream_recheck");
            self.problems.push(&path, "not between 1s and 1d");
        }
        recheck
    }

    fn asserting(
        &mut self,
        plan: Plan,
        route: &config::Route,
        path: &KeyPath,
        parts: &Parts<'_>,
    ) -> Option<Plan> {
        if !route.assertion {
            return Some(plan);
        }
        let Some(upstream) = &route.upstream else {
            self.problems.push(
                &path.key("assertion"),
                "a route without `upstream` has nobody to tell",
            );
            return None;
        };
        // A signer that is missing has been complained about.
        let signer = parts.signer?;
        Some(plan.asserting(Arc::clone(signer), upstream))
    }

    fn auth_metrics(&self, auth: &Auth) -> AuthCounters {
        let Auth::Rules(rules) = auth else {
            return AuthCounters::new(Vec::new());
        };
        let handle = |name: &String| (Arc::from(name.as_str()), self.metrics.auth(name));
        AuthCounters::new(rules.vouchers().map(handle).collect())
    }

    fn action(
        &mut self,
        route: &config::Route,
        path: &KeyPath,
        parts: &Parts<'_>,
    ) -> Option<Action> {
        let given = [
            route.upstream.is_some(),
            route.redirect.is_some(),
            route.respond.is_some(),
            route.publish.is_some(),
            route.backchannel_logout.is_some(),
        ];
        let given = given.into_iter().filter(|given| *given).count();
        if route.auth == Auth::Deny {
            if given > 0 {
                self.problems.push(
                    path,
                    "a closed route has no upstream, redirect, respond, publish or backchannel_logout",
                );
            }
            return Some(Action::Answer(Answer::text(
                StatusCode::NOT_FOUND,
                HeaderValue::from_static("text/plain"),
                String::new(),
            )));
        }
        if given != 1 {
            self.problems.push(
                path,
                "a route needs exactly one of `upstream`, `redirect`, `respond`, `publish`, `backchannel_logout`",
            );
            return None;
        }
        if let Some(name) = &route.upstream {
            return self.forward(name, &path.key("upstream"), parts);
        }
        if let Some(redirect) = &route.redirect {
            return self.redirect(redirect, &path.key("redirect"));
        }
        if let Some(config::Publish::Jwks) = route.publish {
            return Some(Action::Answer(Answer::key_set(parts.signer?.key_set())));
        }
        if let Some(logout) = &route.backchannel_logout {
            let path = path.key("backchannel_logout");
            if route.auth != Auth::None {
                let why = "needs `auth = \"none\"`: the logout token is the credential";
                self.problems.push(&path, why);
            }
            let logout = Logout::compile(logout, &path, parts.authorities, self.problems);
            return logout.map(Action::Logout);
        }
        route
            .respond
            .as_ref()
            .and_then(|respond| self.respond(respond, &path.key("respond")))
    }

    /// `None` for a mistake, `Some(None)` where nothing ends.
    fn revokes(
        &mut self,
        route: &config::Route,
        path: &KeyPath,
        parts: &Parts<'_>,
    ) -> Option<Option<Revokes>> {
        let Some(revokes) = &route.revokes else {
            return Some(None);
        };
        let path = path.key("revokes");
        if route.upstream.is_none() {
            let why = "needs an `upstream`: its answer tells whether the login has ended";
            self.problems.push(&path, why);
        }
        Revokes::compile(revokes, &path, parts.authorities, self.problems).map(Some)
    }

    fn forward(&mut self, name: &str, path: &KeyPath, parts: &Parts<'_>) -> Option<Action> {
        let cluster = parts.clusters.get(name);
        if cluster.is_none() && !self.config.upstream.contains_key(name) {
            let known = self.config.upstream.keys().map(String::as_str);
            self.problems.unknown_name(path, "upstream", name, known);
        }
        cluster.map(|cluster| Action::Forward(Arc::clone(cluster)))
    }

    fn redirect(&mut self, redirect: &config::Redirect, path: &KeyPath) -> Option<Action> {
        let status = StatusCode::from_u16(redirect.status)
            .ok()
            .filter(|status| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308));
        if status.is_none() {
            self.problems.push(
                &path.key("status"),
                "a redirect is 301, 302, 303, 307 or 308",
            );
        }
        let absolute = redirect.to.starts_with("https://") || redirect.to.starts_with("http://");
        let local = redirect.to.starts_with('/') && !redirect.to.starts_with("//");
        let to = HeaderValue::from_str(&redirect.to)
            .ok()
            .filter(|_| absolute || local);
        if to.is_none() {
            self.problems.push(
                &path.key("to"),
                "a redirect leads to a path or to an http(s) URL",
            );
        }
        Some(Action::Answer(Answer::redirect(to?, status?)))
    }

    fn respond(&mut self, respond: &config::Respond, path: &KeyPath) -> Option<Action> {
        let status = StatusCode::from_u16(respond.status)
            .ok()
            .filter(|status| !status.is_informational());
        if status.is_none() {
            self.problems
                .push(&path.key("status"), "a status is a number from 200 to 999");
        }
        let content_type = HeaderValue::from_str(&respond.content_type).ok();
        if content_type.is_none() {
            self.problems
                .push(&path.key("content_type"), "this is no content type");
        }
        Some(Action::Answer(Answer::text(
            status?,
            content_type?,
            respond.body.clone(),
        )))
    }
}

/// A gateway with a handful of connections stays below this.
const LEAST_MEMORY: u64 = 32 << 20;

/// More often, and streams would burden whoever vouches; more seldom, and it would mean nothing.
const RECHECK: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);

/// The most that a route may hold of each request.
const MOST_BUFFERED: u64 = 16 << 20;

/// What a policy is put together from.
struct Parts<'a> {
    listeners: &'a [Listener],
    limits: &'a BTreeMap<String, Arc<Limit>>,
    clusters: &'a BTreeMap<String, Arc<Cluster>>,
    authorities: &'a Authorities,
    signer: Option<&'a Arc<Signer>>,
}

/// The name of a route: its own, or one made from what it matches, or from its position.
fn route_name(route: &config::Route, index: usize) -> String {
    if let Some(name) = &route.name {
        return name.clone();
    }
    let first = |many: &Option<config::OneOrMany<String>>| {
        many.as_ref().and_then(|many| many.0.first().cloned())
    };
    let host = first(&route.host).unwrap_or_default();
    match first(&route.grpc).or_else(|| first(&route.path)) {
        Some(path) => format!("{host}{path}"),
        None if host.is_empty() => format!("route-{index}"),
        None => host,
    }
}
