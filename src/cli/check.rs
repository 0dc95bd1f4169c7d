//! `vestibule check`: everything that can be known without traffic.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use super::{complain, eprint_line, load, print_line};
use crate::config::{SharedLimit, Test};
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
    tell_sharing(&snapshot);
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

/// What several replicas would count together.
fn tell_sharing(snapshot: &Snapshot) {
    if snapshot.limits.is_empty() {
        return;
    }
    if snapshot.store.is_none() {
        print_line("limits are exact in each process; with several replicas, [store] shares them");
        return;
    }
    for (sharing, words) in [
        (SharedLimit::Exact, "decided by the store, exactly"),
        (SharedLimit::Fast, "leased from the store, within 5 %"),
        (SharedLimit::Off, "counted in each process, exactly"),
    ] {
        let limits = snapshot.limits.iter();
        let such = limits.filter(|(_, limit)| limit.sharing() == sharing);
        let names: Vec<&str> = such.map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            print_line(&format!("limits {words}: {}", names.join(", ")));
        }
    }
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
