//! The rules of the house as tests over the source tree: who may import whom, what pure rooms may touch, which words are
//! banned. No network, no processes.

#![allow(clippy::unwrap_used, reason = "a broken tree fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may name whom, floors from the top. `types` may be named by everybody and stands in no list.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &["process", "demo", "snapshot", "config", "telemetry", "tls"],
    ),
    (
        "process",
        &[
            "server",
            "pipeline",
            "exchange",
            "snapshot",
            "store",
            "config",
            "telemetry",
            "tls",
        ],
    ),
    ("demo", &["process", "config", "tls"]),
    (
        "server",
        &["pipeline", "exchange", "snapshot", "config", "tls"],
    ),
    (
        "pipeline",
        &[
            "exchange",
            "snapshot",
            "client_ip",
            "route",
            "limit",
            "cors",
            "authn",
            "authz",
            "transform",
            "upstream",
            "store",
            "telemetry",
        ],
    ),
    (
        "exchange",
        &[
            "snapshot",
            "client_ip",
            "route",
            "limit",
            "telemetry",
            "transform",
            "upstream",
        ],
    ),
    (
        "snapshot",
        &[
            "client_ip",
            "route",
            "limit",
            "cors",
            "authn",
            "authz",
            "transform",
            "upstream",
            "store",
            "tls",
            "telemetry",
            "config",
        ],
    ),
    ("tls", &["config"]),
    ("client_ip", &["config"]),
    ("route", &["config"]),
    ("cors", &["config"]),
    ("limit", &["config", "client_ip", "store"]),
    ("authn", &["config", "upstream", "store"]),
    ("authz", &["config", "client_ip"]),
    ("transform", &["config", "client_ip", "route"]),
    ("upstream", &["config", "authz", "tls"]),
    ("store", &["config", "tls"]),
    ("telemetry", &["config"]),
    ("config", &[]),
    ("types", &[]),
];

/// Rooms (or files) that decide without sockets, tasks or clocks of their own.
const PURE: &[&str] = &[
    "src/route",
    "src/client_ip",
    "src/cors",
    "src/limit/budget.rs",
    "src/limit/charges.rs",
    "src/limit/compile.rs",
    "src/limit/debts.rs",
    "src/limit/failure.rs",
    "src/limit/fields.rs",
    "src/limit/inputs.rs",
    "src/limit/key",
    "src/limit/mod.rs",
    "src/limit/peek",
    "src/limit/rate.rs",
    "src/limit/shared/lease.rs",
    "src/limit/spread",
    "src/limit/store.rs",
    "src/limit/uses.rs",
    "src/authz",
    "src/transform",
    "src/authn/extract",
    "src/authn/jwt",
    "src/authn/jwks/refetch.rs",
    "src/authn/jwks/plan.rs",
    "src/upstream/balance.rs",
    "src/upstream/outlier.rs",
    "src/upstream/retry.rs",
];

const IMPURE_WORDS: &[&str] = &[
    "tokio::",
    "clock::now",
    "clock::wall",
    "TcpStream",
    "std::net::Tcp",
];

/// Too vague to be the name of a file, a type or a function.
const VAGUE: &[&str] = &[
    "manager", "helper", "helpers", "util", "utils", "common", "misc", "globals",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), ending, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no {ending} under {folder}");
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

/// `src/route/head.rs` is in the room `route`; `src/pipeline.rs` is one of its own.
fn room(path: &Path) -> String {
    let relative = relative(path);
    let inside = relative.trim_start_matches("src/");
    inside
        .split('/')
        .next()
        .unwrap_or(inside)
        .trim_end_matches(".rs")
        .to_owned()
}

/// The source without line comments and without the tests at its end.
fn production(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_test(path: &Path) -> bool {
    let relative = relative(path);
    relative.ends_with("/tests.rs") || relative.contains("/tests/")
}

#[test]
fn imports_only_go_down() {
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in files("src", ".rs").iter().filter(|path| !is_test(path)) {
        let room = room(path);
        if room == "lib" {
            continue;
        }
        let Some(may) = allowed.get(room.as_str()) else {
            wrong.push(format!(
                "{}: the room `{room}` stands in no layer",
                relative(path)
            ));
            continue;
        };
        for named in production(path).split("crate::").skip(1) {
            let word: String = named
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if allowed.contains_key(word.as_str())
                && word != room
                && word != "types"
                && !may.contains(&word.as_str())
            {
                wrong.push(format!(
                    "{}: `{room}` must not import `{word}`",
                    relative(path)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn layers_have_no_circles() {
    let position = |room: &str| LAYERS.iter().position(|(name, _)| *name == room).unwrap();
    let floors: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    fn reaches(floors: &BTreeMap<&str, &[&str]>, from: &str, to: &str, depth: usize) -> bool {
        depth > 0
            && floors[from]
                .iter()
                .any(|next| *next == to || reaches(floors, next, to, depth - 1))
    }
    for (room, may) in LAYERS {
        for below in *may {
            assert!(position(below) < LAYERS.len(), "{below}");
            assert!(
                !reaches(&floors, below, room, LAYERS.len()),
                "{room} and {below} form a circle"
            );
        }
    }
}

#[test]
fn pure_rooms_touch_no_socket_task_or_clock() {
    let mut wrong = Vec::new();
    for path in files("src", ".rs").iter().filter(|path| !is_test(path)) {
        let name = relative(path);
        if !PURE.iter().any(|pure| name.starts_with(pure)) {
            continue;
        }
        let code = production(path);
        for word in IMPURE_WORDS.iter().filter(|word| code.contains(**word)) {
            wrong.push(format!("{name}: a pure room names `{word}`"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_authn_reads_credentials_and_only_client_ip_reads_forwarding_headers() {
    let readers: &[(&str, &[&str])] = &[
        ("get(AUTHORIZATION)", &["src/authn", "src/demo"]),
        ("get_all(AUTHORIZATION)", &["src/authn", "src/demo"]),
        // HTTP/2 splits the field; joining it reads no credential.
        (
            "get_all(COOKIE)",
            &["src/authn", "src/demo", "src/transform/cookies.rs"],
        ),
        ("get(COOKIE)", &["src/authn", "src/demo"]),
        ("get(\"x-forwarded", &["src/client_ip", "src/demo"]),
        ("get_all(\"x-forwarded", &["src/client_ip", "src/demo"]),
    ];
    for path in files("src", ".rs").iter().filter(|path| !is_test(path)) {
        let (name, code) = (relative(path), production(path));
        for (what, who) in readers {
            let may = who.iter().any(|room| name.starts_with(room));
            assert!(may || !code.contains(what), "{name} calls {what}");
        }
    }
}

#[test]
fn only_the_command_line_prints_and_nobody_parks_work() {
    for path in files("src", ".rs")
        .into_iter()
        .filter(|path| !is_test(path))
    {
        let (name, code) = (relative(&path), production(&path));
        for word in ["todo!(", "unimplemented!(", "FIXME", "XXX", "dbg!("] {
            assert!(!code.contains(word), "{name} holds {word}");
        }
        if !name.starts_with("src/cli") {
            for word in [" println!(", " eprintln!(", " print!(", " eprint!("] {
                assert!(!code.contains(word), "{name} prints with {word}");
            }
        }
    }
}

#[test]
fn vague_words_name_nothing() {
    for path in files("src", ".rs") {
        let name = relative(&path);
        for segment in name.trim_end_matches(".rs").split('/') {
            assert!(!VAGUE.contains(&segment), "{name} has a vague name");
        }
        let code = production(&path);
        for opening in ["struct ", "enum ", "trait ", "fn ", "mod "] {
            for named in code.split(opening).skip(1) {
                let word: String = named
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                let lower = word.to_lowercase();
                let vague = VAGUE
                    .iter()
                    .any(|vague| lower == *vague || lower.ends_with(&format!("_{vague}")));
                assert!(!vague, "{name} defines `{word}`");
            }
        }
    }
}

#[test]
fn every_configuration_compiles() {
    use std::sync::Arc;
    use vestibule::config::load;
    use vestibule::snapshot::Snapshot;
    use vestibule::telemetry::Metrics;

    for path in files("conf", ".toml") {
        let loaded = load::from_file(&path)
            .unwrap_or_else(|errors| panic!("{}: {errors:#?}", relative(&path)));
        // Certificates and secrets belong to the deployment: an example names places where they will be.
        let absent = [
            "certificate",
            "secret",
            "environment variable",
            "no such file",
            "No such file",
        ];
        if let Err(errors) = Snapshot::compile(&Arc::new(loaded.config), None, &Metrics::new()) {
            let real: Vec<String> = errors
                .iter()
                .map(ToString::to_string)
                .filter(|error| !absent.iter().any(|word| error.contains(word)))
                .collect();
            assert!(real.is_empty(), "{}: {real:#?}", relative(&path));
        }
    }
}
