//! `vestibule explain`: what becomes of a request, stage by stage; or why one was refused, by its decision id.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use super::{complain, fail, load, print_line};
use crate::config::{Config, Test};
use crate::process;
use crate::snapshot::{Snapshot, Verdict, Walk};
use crate::telemetry::Metrics;
use crate::types::task;

/// A request, or the id of a decision.
#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// Configuration file.
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "conf/vestibule.toml"
    )]
    config: PathBuf,
    /// Method of a request; or, alone, the decision id of a refusal of the running gateway.
    #[arg(value_name = "METHOD|ID")]
    what: String,
    /// URL of the request, with scheme and host.
    url: Option<String>,
    /// A header of the request; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A bearer token: sent along in the Authorization header, and judged by the keys of its issuer.
    #[arg(long)]
    token: Option<String>,
    /// Ask backends and issuers about a session or an opaque token, as the gateway would: they are shown the credential.
    #[arg(long)]
    live: bool,
    /// Address of the client.
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
}

pub(super) fn execute(arguments: &ExplainArguments) -> ExitCode {
    let loaded = match load(&arguments.config) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let runtime = match process::command_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let config = Arc::new(loaded.config);
    let Some(url) = &arguments.url else {
        return runtime.block_on(explain_decision(&config, &arguments.what));
    };
    let snapshot = match Snapshot::compile(&config, None, &Metrics::new()) {
        Ok(snapshot) => snapshot,
        Err(errors) => return complain(&loaded.sources.locate(errors)),
    };
    match walk(arguments, url) {
        Ok(walk) => runtime.block_on(explain_request(&snapshot, &walk, arguments.live)),
        Err(why) => fail(&why),
    }
}

fn walk(arguments: &ExplainArguments, url: &str) -> Result<Walk, String> {
    let mut walk = Walk::of(&Test {
        method: arguments.what.clone(),
        url: url.to_owned(),
        client: arguments.client,
        headers: std::collections::BTreeMap::new(),
        expect: String::new(),
    })?;
    for line in &arguments.headers {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("`{line}` is no header: write `name: value`"))?;
        walk.send(name.trim(), value.trim())?;
    }
    if let Some(token) = &arguments.token {
        walk.send("authorization", &format!("Bearer {token}"))?;
    }
    Ok(walk)
}

/// 0: the request would be forwarded or answered; 1: it is refused.
async fn explain_request(snapshot: &Snapshot, walk: &Walk, live: bool) -> ExitCode {
    for issuer in walk.issuers(snapshot) {
        issuer.refresh().await;
        // An unknown key is asked for once more, as a gateway does.
        drop(task::spawn("issuer", Arc::clone(&issuer).keep_fresh()));
    }
    let mut code = ExitCode::SUCCESS;
    for step in walk.explain(snapshot, live).await {
        let verdict = match step.verdict {
            Verdict::Passed => "ok".to_owned(),
            Verdict::Skipped => "-".to_owned(),
            Verdict::Answered => "answered".to_owned(),
            Verdict::Refused(reason) => {
                code = ExitCode::from(1);
                let status = reason.status().as_u16();
                format!("REFUSED {status} {}", reason.code())
            }
        };
        print_line(&format!("{:<14} {verdict:<9} {}", step.stage, step.detail));
    }
    code
}

async fn explain_decision(config: &Config, id: &str) -> ExitCode {
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_id {
        return fail("a decision id is letters and digits; for a request, say METHOD and URL");
    }
    let admin = config.admin.bind;
    let (status, body) = match process::ask(admin, &format!("/decisions/{id}")).await {
        Ok(answer) => answer,
        Err(why) => return fail(&format!("the gateway at {admin} cannot be asked: {why}")),
    };
    match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Object(decision)) if status.is_success() => {
            for (name, value) in decision.iter().filter(|(_, value)| !value.is_null()) {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                print_line(&format!("{name:<9} {value}"));
            }
            ExitCode::SUCCESS
        }
        _ => fail(&format!(
            "the gateway at {admin} does not know `{id}`: it keeps its last refusals only; the access log has them all"
        )),
    }
}
