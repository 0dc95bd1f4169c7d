//! The event log: what the gateway has to say of itself, as JSON lines on standard error.

use std::io;

use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_subscriber::EnvFilter;

use super::Guard;
use crate::config::error::nearest;
use crate::config::{self, KeyPath, Problems};

/// Events that may wait for standard error.
const QUEUE: usize = 4_096;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Notes what is wrong with `log.level`.
pub fn check_level(level: &str, path: &KeyPath, problems: &mut Problems) {
    if let Err(error) = EnvFilter::try_new(level) {
        problems.push(path, format!("`{level}` is no filter of events: {error}"));
        return;
    }
    // A lone word that is no level names a target, and a filter of that target alone silences everything else.
    for word in level.split(',').map(str::trim) {
        if word.is_empty() || word.contains(['=', '[', ':']) {
            continue;
        }
        if !LEVELS.contains(&word.to_ascii_lowercase().as_str()) && word.parse::<u8>().is_err() {
            let help = nearest(word, LEVELS).map(|level| format!("did you mean `{level}`?"));
            let help = help.or_else(|| Some(format!("write `{word}=info`")));
            problems.push_with_help(path, format!("`{word}` is no level"), help);
        }
    }
}

/// Starts the event log for the whole process, once; panics are reported through it. It ends with the guard.
///
/// # Errors
///
/// When the filter is malformed (see [`check_level`]) or an event log runs already.
pub fn start(log: &config::Log) -> io::Result<Guard> {
    let filter = EnvFilter::try_new(&log.level).map_err(io::Error::other)?;
    let (queue, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .lossy(true)
        .thread_name("event-log")
        .finish(io::stderr());
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(queue)
        .try_init()
        .map_err(io::Error::other)?;
    report_panics();
    Ok(Guard::new(worker))
}

/// A panic ends one request; its report must not wait for a standard error that nobody reads.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = text.unwrap_or("(no message)");
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(message, place, "panic");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(level: &str, expected: Option<&str>) {
        let mut problems = Problems::default();
        check_level(
            level,
            &KeyPath::root().key("log").key("level"),
            &mut problems,
        );
        let found: Vec<_> = problems
            .into_errors()
            .iter()
            .map(ToString::to_string)
            .collect();
        match expected {
            None => assert!(found.is_empty(), "{found:?}"),
            Some(part) => {
                assert_eq!(found.len(), 1, "{found:?}");
                assert!(
                    found[0].starts_with("log.level: ") && found[0].contains(part),
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn levels_and_targets_with_levels_are_filters() {
        check("info", None);
        check("WARN", None);
        check("off", None);
        check("info,vestibule=debug", None);
        check("warn,vestibule::upstream=trace,h2=off", None);
    }

    #[test]
    fn a_misspelt_level_is_a_problem_and_not_silence() {
        check("inof", Some("did you mean `info`?"));
        check("info,vestibule", Some("write `vestibule=info`"));
        check("vestibule=loud", Some("is no filter"));
    }
}
