//! Scripts that the store runs in one piece: nobody sees half of what they do, whoever asks at the same time.

use std::time::Duration;

use aws_lc_rs::digest;
use redis::{Cmd, Value};

use super::line::Line;
use super::stats::Operation;
use super::{Failure, Store};
use crate::types::clock;

/// A script, known to the store by its hash once it has been brought along.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    /// A script in Lua.
    #[must_use]
    pub fn new(text: &'static str) -> Self {
        // The store's name for a script, not a signature.
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let hash = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
        Self {
            text,
            hash: hash.collect(),
        }
    }

    fn command(&self, brings_text: bool, keys: &[String], arguments: &[i64]) -> Cmd {
        let mut command = if brings_text {
            redis::cmd("EVAL")
        } else {
            redis::cmd("EVALSHA")
        };
        let script = if brings_text { self.text } else { &self.hash };
        command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
        command
    }
}

impl Line {
    /// Runs `script`, whose answer is a list of numbers. In a cluster all `keys` must be of one slot.
    ///
    /// # Errors
    /// When there is no answer within `patience`, or none that is such a list.
    pub async fn run(
        &self,
        operation: Operation,
        script: &Script,
        keys: &[String],
        arguments: &[i64],
        patience: Duration,
    ) -> Result<Vec<i64>, Failure> {
        let place = keys.first().map(String::as_bytes).unwrap_or_default();
        let begun = clock::now();
        let short = script.command(false, keys, arguments);
        let answer = match self.ask(operation, place, &short, patience).await {
            Err(Failure::NoScript) => {
                let left = patience.saturating_sub(begun.elapsed());
                let whole = script.command(true, keys, arguments);
                self.ask(operation, place, &whole, left).await?
            }
            answer => answer?,
        };
        numbers(&answer).ok_or(Failure::Error)
    }
}

impl Store {
    /// What the keys of `purpose` begin with.
    #[must_use]
    pub fn keys_of(&self, purpose: &str) -> String {
        format!("{}:{purpose}:", self.prefix)
    }
}

fn numbers(answer: &Value) -> Option<Vec<i64>> {
    let Value::Array(items) = answer else {
        return None;
    };
    let number = |item: &Value| match item {
        Value::Int(number) => Some(*number),
        _ => None,
    };
    items.iter().map(number).collect()
}
