//! Every reason for which a request can be refused is provoked by a test of this binary, or cannot be from outside.

use std::path::Path;

use vestibule::types::Reason;

/// Codes that nothing a test can do provokes, and why.
const UNPROVOKED: &[(&str, &str)] = &[(
    "internal",
    "a bug in the gateway: a panic, or a request that could not be made; the units of `server` have it",
)];

#[test]
fn every_reason_has_a_test_that_names_it() {
    let mut sources = String::new();
    read_all(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e"),
        &mut sources,
    );
    let spelt = |code: &str| [format!("\"{code}\""), format!("\"{code}\\\"")];
    let named = |code: &str| spelt(code).iter().any(|word| sources.contains(word));
    let mut missing = Vec::new();
    for reason in Reason::ALL {
        let code = reason.code();
        let excused = UNPROVOKED.iter().any(|(known, _)| *known == code);
        if !excused && !named(code) {
            missing.push(code);
        }
    }
    assert!(missing.is_empty(), "no test names {missing:?}");
    for (code, _) in UNPROVOKED {
        assert!(
            Reason::ALL.iter().any(|reason| reason.code() == *code),
            "{code} is no reason"
        );
    }
}

/// The text of every topic, those in folders included.
fn read_all(folder: &Path, sources: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, sources);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("refusals.rs")
        {
            sources.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}
