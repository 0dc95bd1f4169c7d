//! The pages against the code: every configuration that they print compiles, their tables hold exactly what the code
//! has, their links lead somewhere. No network, no processes.

#![allow(
    clippy::unwrap_used,
    reason = "a page that is not as it should be fails the test"
)]
#![allow(
    clippy::panic,
    reason = "a page that is not as it should be fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use vestibule::config::{self, Config, load};
use vestibule::server::Event;
use vestibule::snapshot::{Snapshot, Walk};
use vestibule::telemetry::metrics::{
    CertificateSample, ConfirmationSample, EndpointSample, IssuerSample, LimitSample, Samples,
    StoreSample, UpstreamSample,
};
use vestibule::telemetry::{AccessLog, Metrics, Outcome, Record};
use vestibule::tls::dev;
use vestibule::types::rejection::Blame;
use vestibule::types::{AuthMethod, Dialect, Protocol, Reason};

/// What a snippet may take for granted; what it defines itself stands.
const AT_HAND: &str = r#"
[listen.public]
bind = "127.0.0.1:8080"

[upstream.api]
endpoints = ["http://127.0.0.1:3000"]

[issuer.main]
url = "https://auth.example.com"
audiences = ["app"]

[session.browser]
cookie = "session"
probe = { upstream = "api", path = "/session" }
"#;

/// The folder that snippets name; the test puts its own in the place of it.
const HOME: &str = "/etc/vestibule";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// README.md, the pages under docs/, and those in the other folders.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ]
    .map(str::to_owned)
    .into();
    pages.push("certs/README.md".to_owned());
    pages.push("benches/load/README.md".to_owned());
    let docs = fs::read_dir(root().join("docs")).unwrap();
    pages.extend(docs.map(|page| format!("docs/{}", page.unwrap().file_name().to_string_lossy())));
    pages.sort();
    pages
}

/// The fenced blocks of `language`, each with the line on which it begins.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, bool, String)> = None;
    for (line, content) in text.lines().enumerate() {
        match (&mut open, content.strip_prefix("```")) {
            (None, Some(word)) => open = Some((line + 2, word == language, String::new())),
            (None, None) => {}
            (Some(_), Some(_)) => {
                found.extend(
                    open.take()
                        .filter(|(_, wanted, _)| *wanted)
                        .map(|(line, _, text)| (line, text)),
                );
            }
            (Some((_, _, text)), None) => {
                text.push_str(content);
                text.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a fence is left open");
    found
}

/// The rows of every table whose header begins with `first` and then `second`, cell by cell.
fn rows(text: &str, first: &str, second: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let Some(row) = line.strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
            inside = false;
            continue;
        };
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
        if cells.starts_with(&[first.to_owned(), second.to_owned()]) {
            inside = true;
        } else if inside && !cells.iter().all(|cell| cell.chars().all(|one| one == '-')) {
            found.push(cells);
        }
    }
    assert!(!found.is_empty(), "no table | {first} | {second} |");
    found
}

/// The word of a cell that is nothing but code.
fn code(cell: &str) -> &str {
    let word = cell
        .strip_prefix('`')
        .and_then(|rest| rest.strip_suffix('`'));
    word.filter(|word| !word.contains('`'))
        .unwrap_or_else(|| panic!("`{cell}` is not one word of code"))
}

/// Everything that snippets refer to under [`HOME`].
fn furnish(home: &Path) {
    let made = dev::ensure(&home.join("certs"), &["auth.example.com"]).unwrap();
    fs::copy(made.ca, home.join("internal-ca.pem")).unwrap();
    for name in ["secrets/jwt", "store/password", "store/key"] {
        let secret = home.join(name);
        fs::create_dir_all(secret.parent().unwrap()).unwrap();
        fs::write(&secret, "correct horse battery staple, and then some more").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// The snippet, with what it takes for granted.
fn completed(snippet: &str) -> Result<String, toml::de::Error> {
    let mut whole: toml::Table = snippet.parse()?;
    let at_hand: toml::Table = AT_HAND.parse()?;
    for (kind, named) in at_hand {
        let known = whole
            .entry(kind)
            .or_insert_with(|| toml::Table::new().into());
        for (name, value) in named.as_table().unwrap() {
            known
                .as_table_mut()
                .unwrap()
                .entry(name)
                .or_insert_with(|| value.clone());
        }
    }
    whole.entry("route").or_insert_with(|| {
        vec![toml::toml! { auth = "none"
        upstream = "api" }]
        .into()
    });
    Ok(toml::to_string(&whole).unwrap())
}

/// What is wrong with a whole configuration, its own test cases included; nothing, if all is well.
fn mistakes(name: &str, text: &str) -> Vec<String> {
    let compiled = load::from_str(name, text).and_then(|loaded| {
        let config = Arc::new(loaded.config);
        let snapshot = Snapshot::compile(&config, None, &Metrics::new());
        snapshot
            .map(|snapshot| (config, snapshot))
            .map_err(|errors| loaded.sources.locate(errors))
    });
    match compiled {
        Ok((config, snapshot)) => failed_cases(&config, &snapshot),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn failed_cases(config: &Config, snapshot: &Snapshot) -> Vec<String> {
    let cases = config.test.iter();
    let outcomes = cases.map(|case| {
        let outcome = Walk::of(case).map_or_else(|why| why, |walk| walk.through(snapshot));
        (case, outcome)
    });
    outcomes
        .filter(|(case, outcome)| *outcome != case.expect)
        .map(|(case, outcome)| {
            let (method, url, expected) = (&case.method, &case.url, &case.expect);
            format!("{method} {url}: expected `{expected}`, got `{outcome}`")
        })
        .collect()
}

#[test]
fn every_configuration_on_the_pages_compiles() {
    let home = tempfile::tempdir().unwrap();
    furnish(home.path());
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        for (line, snippet) in blocks(&read(&page), "toml") {
            let snippet = snippet.replace(HOME, &home.path().display().to_string());
            let found = match completed(&snippet) {
                Ok(text) => mistakes(&page, &text),
                Err(error) => vec![error.to_string()],
            };
            wrong.extend(
                found
                    .iter()
                    .map(|why| format!("{page}, the snippet at line {line}: {why}")),
            );
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(count > 15, "only {count} snippets");
}

#[test]
fn the_ten_lines_of_the_readme_are_ten_and_a_whole_configuration() {
    let home = tempfile::tempdir().unwrap();
    furnish(home.path());
    let snippets = blocks(&read("README.md"), "toml");
    let [(_, snippet)] = snippets.as_slice() else {
        panic!("README.md has one configuration");
    };
    let lines = snippet.lines().filter(|line| !line.is_empty()).count();
    assert!(lines <= 10, "{lines} lines");
    let text = snippet.replace(HOME, &home.path().display().to_string());
    assert_eq!(mistakes("README.md", &text), [""; 0]);
}

#[test]
fn every_test_case_of_a_shipped_configuration_holds() {
    let home = tempfile::tempdir().unwrap();
    furnish(home.path());
    let mut wrong = Vec::new();
    for file in shipped_configurations(&root().join("conf")) {
        let name = file.display().to_string();
        let mut text = fs::read_to_string(&file).unwrap();
        for elsewhere in [HOME, "/run/vestibule", "certs/dev"] {
            let here = home.path().join(if elsewhere == "certs/dev" {
                "certs"
            } else {
                ""
            });
            text = text.replace(elsewhere, here.display().to_string().trim_end_matches('/'));
        }
        wrong.extend(mistakes(&name, &text));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn shipped_configurations(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(shipped_configurations(&path));
        } else if path.extension().is_some_and(|ending| ending == "toml") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_page_of_reasons_has_every_reason_as_it_is_and_no_other() {
    let blame = |blame: Blame| match blame {
        Blame::Client => "client",
        Blame::Policy => "policy",
        Blame::Upstream => "upstream",
        Blame::Gateway => "gateway",
    };
    let expected: Vec<[String; 4]> = Reason::ALL
        .iter()
        .map(|reason| {
            [
                reason.code().to_owned(),
                reason.status().as_u16().to_string(),
                grpc(*reason),
                blame(reason.blame()).to_owned(),
            ]
        })
        .collect();
    let page = rows(&read("docs/reasons.md"), "code", "HTTP");
    let written: Vec<[String; 4]> = page
        .iter()
        .map(|row| {
            let [reason, status, grpc, blame, meaning, remedy] = row.as_slice() else {
                panic!("{row:?} has not six cells");
            };
            assert!(
                !meaning.is_empty() && !remedy.is_empty(),
                "{reason} is not explained"
            );
            [
                code(reason).to_owned(),
                status.clone(),
                grpc.clone(),
                blame.clone(),
            ]
        })
        .collect();
    assert_eq!(written, expected);
}

/// Number and name of the gRPC status of a reason.
fn grpc(reason: Reason) -> String {
    let name = match reason.grpc_status() {
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        16 => "UNAUTHENTICATED",
        status => panic!("name the gRPC status {status}"),
    };
    format!("{} {name}", reason.grpc_status())
}

#[test]
fn the_page_of_reasons_has_the_codes_of_connect_as_they_are() {
    let expected: BTreeSet<[String; 3]> = Reason::ALL
        .iter()
        .map(|reason| {
            let (code, status) = reason.connect();
            let status = status.as_u16().to_string();
            [grpc(*reason), code.to_owned(), status]
        })
        .collect();
    let page = rows(&read("docs/reasons.md"), "gRPC status", "code of Connect");
    let written: BTreeSet<[String; 3]> = page
        .iter()
        .map(|row| {
            let [status, connect, http] = row.as_slice() else {
                panic!("{row:?} has not three cells");
            };
            [status.clone(), code(connect).to_owned(), http.clone()]
        })
        .collect();
    assert_eq!(written, expected);
}

/// A family as its type, with the names of its labels.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

#[test]
fn the_page_of_metrics_has_every_family_as_it_is_and_no_other() {
    let written: Families = rows(&read("docs/metrics.md"), "family", "type")
        .into_iter()
        .map(|row| {
            let [family, kind, labels, meaning] = row.as_slice() else {
                panic!("{row:?} has not four cells");
            };
            assert!(!meaning.is_empty(), "{family} is not explained");
            let labels = labels
                .split_whitespace()
                .map(|label| code(label).to_owned())
                .collect();
            (code(family).to_owned(), (kind.clone(), labels))
        })
        .collect();
    let rendered = rendered();
    let on_page = written
        .iter()
        .filter(|(family, facts)| rendered.get(*family) != Some(*facts));
    let in_code = rendered
        .iter()
        .filter(|(family, facts)| written.get(*family) != Some(*facts));
    let (on_page, in_code): (Vec<_>, Vec<_>) = (on_page.collect(), in_code.collect());
    assert!(
        on_page.is_empty() && in_code.is_empty(),
        "docs/metrics.md says {on_page:?}, the gateway {in_code:?}"
    );
}

#[test]
fn the_page_of_metrics_has_every_word_for_a_connection_that_was_refused() {
    let elsewhere = [
        Event::Accepted,
        Event::HandshakeFailed,
        Event::HandshakeTimeout,
        Event::Panicked,
    ];
    let expected: BTreeSet<&str> = Event::ALL
        .iter()
        .filter(|event| !elsewhere.contains(event))
        .map(|event| event.as_str())
        .collect();
    let page = rows(&read("docs/metrics.md"), "reason", "when");
    let written: BTreeSet<&str> = page
        .iter()
        .filter_map(|row| row.first())
        .map(|cell| code(cell))
        .collect();
    assert_eq!(written, expected);
}

#[test]
fn pages_and_alerts_name_metrics_that_exist() {
    let families = rendered();
    let mut sources = pages();
    sources.extend(
        [
            "conf/prometheus/alerts.yml",
            "conf/prometheus/alerts_test.yml",
        ]
        .map(str::to_owned),
    );
    for source in sources {
        for word in words_from(&read(&source), "vestibule_") {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| word.strip_suffix(end));
            let exists = families.contains_key(&word)
                || family.is_some_and(|family| families.contains_key(family));
            // A family of families, such as `vestibule_upstream_*`, or the library in a test's name.
            let is_start =
                families.keys().any(|family| family.starts_with(&word)) && word.ends_with('_');
            assert!(exists || is_start, "{source}: there is no metric `{word}`");
        }
    }
}

/// The identifiers in `text` that begin with `start`.
fn words_from(text: &str, start: &str) -> Vec<String> {
    text.match_indices(start)
        .map(|(at, _)| {
            let rest = text.get(at..).unwrap_or_default();
            rest.chars()
                .take_while(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || *one == '_')
                .collect()
        })
        .collect()
}

/// Everything that the gateway can render, with everything there is to count.
fn rendered() -> Families {
    let metrics = Metrics::new();
    let route = metrics.route("public", "login");
    route.observe(&Method::GET, StatusCode::OK, Duration::from_millis(1));
    route.lapsed("expired");
    let auth = metrics.auth("main");
    auth.accepted();
    let listener = metrics.listener("public");
    listener.refused("per_ip_cap");
    let upstream = metrics.upstream("api");
    let tunnels = metrics.tunnels("chat");
    tunnels.ended("idle");
    let mut families = families(&metrics.render(&samples()));
    drop((route, auth, listener, upstream, tunnels)); // they are rendered as long as somebody holds them
    for (kind, labels) in families.values_mut() {
        if kind == "histogram" {
            labels.remove("le");
        }
    }
    families
}

fn samples() -> Samples {
    Samples {
        store: Some(StoreSample {
            up: true,
            lines: 1,
            open: 0,
            operations: vec![("decide", "ok", 1)],
            latency: vec![(0.001, 1), (f64::INFINITY, 1)],
            latency_sum: 0.001,
            messages: vec![("sent", 1)],
        }),
        upstreams: vec![UpstreamSample {
            upstream: "api".into(),
            endpoints: vec![EndpointSample {
                endpoint: "http://10.0.0.5:3000".into(),
                healthy: true,
                in_flight: 1,
                requests: vec![("sent", 1)],
            }],
            connects: vec![("ok", 1)],
            retries: 1,
        }],
        issuers: vec![IssuerSample {
            issuer: "main".into(),
            keys: 1,
            age: Some(Duration::from_secs(1)),
            fetches: vec![("ok", 1)],
            vanished_key_tokens: 1,
            cached_tokens: 1,
            cache: vec![("hit", 1)],
            revocations: 1,
            revoked: 1,
        }],
        confirmations: vec![ConfirmationSample {
            source: "browser".into(),
            kind: "probe",
            outcomes: vec![("confirmed", 1)],
        }],
        limits: vec![LimitSample {
            limit: "login".into(),
            keys: 1,
            decisions: vec![("allowed", 1)],
            unreadable: 1,
            spread: 1,
            highest_spread: 1,
            failures: 1,
            bans: 1,
            evictions: vec![("clear", 1)],
            waiting: 1,
            held: 1,
            tarpit: vec![("held", 1)],
            alone: Some(1),
        }],
        certificates: vec![CertificateSample {
            listener: "public".into(),
            name: "auth.example.com".into(),
            not_after: SystemTime::UNIX_EPOCH,
        }],
        ..Samples::default()
    }
}

/// Reads Prometheus' text format.
fn families(text: &str) -> Families {
    let mut families = Families::new();
    for line in text.lines() {
        if let Some((family, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            families.insert(family.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((series, labels)) = line.split_once('{') {
            let parts = ["", "_bucket", "_sum", "_count"];
            let mut names = parts.iter().filter_map(|part| series.strip_suffix(part));
            let name = names.find(|name| families.contains_key(*name));
            let family = name.and_then(|name| families.get_mut(name));
            let (_, known) = family.unwrap_or_else(|| panic!("{series} has no type"));
            let labels = labels.split_once('}').map_or(labels, |(labels, _)| labels);
            known.extend(
                labels
                    .split("\",")
                    .filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())),
            );
        }
    }
    families
}

#[test]
fn the_page_of_operations_has_every_field_of_the_access_log_and_no_other() {
    let page = rows(&read("docs/operations.md"), "field", "meaning");
    let written: BTreeSet<String> = page
        .iter()
        .filter_map(|row| row.first())
        .map(|cell| code(cell).to_owned())
        .collect();
    assert_eq!(written, logged_fields());
}

/// The fields of a line of which everything is known.
fn logged_fields() -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let log = config::Log {
        access: config::AccessLog::File(file.clone()),
        ..config::Log::default()
    };
    let (log, guard) = AccessLog::start(&log).unwrap();
    log.write(&Record {
        time: SystemTime::UNIX_EPOCH,
        request_id: "id",
        listener: "public",
        client: Some("192.0.2.1".parse().unwrap()),
        peer: "192.0.2.1:4711".parse().unwrap(),
        protocol: Protocol::Http2,
        tls: true,
        method: &Method::POST,
        host: Some("auth.example.com"),
        path: Some("/login"),
        query: true,
        route: Some("login"),
        dialect: Dialect::Grpc,
        status: Some(StatusCode::OK),
        grpc_status: Some(8),
        reason: Some(Reason::RateLimited),
        detail: "the bucket is empty",
        policy: Some("login"),
        limit: Some("login"),
        limit_observed: Some("api"),
        user: Some("ada"),
        auth_method: Some(AuthMethod::Jwt),
        auth_source: Some("main"),
        upstream: Some("api"),
        endpoint: Some("h2c://10.0.0.5:8080"),
        attempts: 1,
        bytes_in: 1,
        bytes_out: 1,
        duration: Duration::from_millis(1),
        first_byte: Some(Duration::from_millis(1)),
        outcome: Outcome::Complete,
        ended: Some("idle"),
        user_agent: Some(b"curl/8"),
    });
    drop(guard); // writes what is queued
    let line: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    line.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = read(&page);
        let folder = root().join(&page).parent().unwrap().to_owned();
        for link in links(&text) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                root().join(&page)
            } else {
                folder.join(path)
            };
            if !target.exists() {
                wrong.push(format!("{page}: {link} does not exist"));
            } else if !anchor.is_empty() {
                let headings = fs::read_to_string(&target).unwrap();
                if !headings
                    .lines()
                    .filter_map(heading)
                    .any(|heading| heading == anchor)
                {
                    wrong.push(format!("{page}: {link} has no such heading"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The targets of Markdown links within the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
        .filter(|link| !link.contains("://"))
}

/// The anchor that a heading makes.
fn heading(line: &str) -> Option<String> {
    let text = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let kept = text
        .chars()
        .filter(|one| one.is_alphanumeric() || matches!(one, ' ' | '-' | '_'));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}
