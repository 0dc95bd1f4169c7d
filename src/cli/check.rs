//! `vestibule check`: everything that can be known without traffic.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use super::{complain, eprint_line, load, print_line};
use crate::config::{Auth, Config, Route, Test};
use crate::snapshot::{Snapshot, Walk};
use crate::telemetry::Metrics;

pub(super) fn execute(path: &Path) -> ExitCode {
    let loaded = match load(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let config = Arc::new(loaded.config);
    let snapshot = match Snapshot::compile(&config, None, &Metrics::new()) {
        Ok(snapshot) => snapshot,
        Err(errors) => return complain(&loaded.sources.locate(errors)),
    };
    list_routes(&snapshot);
    warn_of_open_doors(&config);
    for (listener, warning) in snapshot.certificate_warnings() {
        eprint_line(&format!("warning: listener `{listener}`: {warning}"));
    }
    let failed = config
        .test
        .iter()
        .filter(|case| !passes(&snapshot, case))
        .count();
    if failed > 0 {
        eprint_line(&format!(
            "{failed} of {} test cases failed",
            config.test.len()
        ));
        return ExitCode::from(1);
    }
    print_line(&format!(
        "{}: fine ({} routes, {} test cases)",
        path.display(),
        config.route.len(),
        config.test.len()
    ));
    ExitCode::SUCCESS
}

/// Routes in the order in which they are tried; what is public stands out, what can never match is named.
fn list_routes(snapshot: &Snapshot) {
    print_line("routes, most specific first:");
    for (pattern, policy) in snapshot.routes.iter() {
        let access = if policy.is_closed() {
            "closed"
        } else if policy.authn.wants_credential() {
            "credential"
        } else if policy.authz.is_restricted() {
            "network"
        } else {
            "PUBLIC"
        };
        let upstream = policy.upstream_name().unwrap_or("-");
        print_line(&format!(
            "  {access:<10} {pattern}  [{}] -> {upstream}",
            policy.name
        ));
    }
    for (winner, loser) in snapshot.routes.shadowed() {
        eprint_line(&format!(
            "warning: route `{}` is never reached: `{}` wins",
            loser.name, winner.name
        ));
    }
}

/// A closed route without a host loses to every route that names one: hosts are compared first.
fn warn_of_open_doors(config: &Config) {
    let named = config
        .route
        .iter()
        .any(|route| route.auth != Auth::Deny && route.host.is_some());
    let open = |route: &&Route| route.auth == Auth::Deny && route.host.is_none();
    for route in config.route.iter().filter(open).filter(|_| named) {
        let name = route.name.as_deref().unwrap_or("(unnamed)");
        eprint_line(&format!(
            "warning: the closed route `{name}` names no host, so routes that name one win over it"
        ));
    }
}

fn passes(snapshot: &Snapshot, case: &Test) -> bool {
    let outcome = match Walk::of(case) {
        Ok(walk) => walk.through(snapshot),
        Err(why) => why,
    };
    if outcome != case.expect {
        eprint_line(&format!(
            "test failed: {} {}: expected `{}`, got `{outcome}`",
            case.method, case.url, case.expect
        ));
    }
    outcome == case.expect
}
