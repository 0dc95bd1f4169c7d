//! The command line: one file a command. The only room that prints.

mod check;
mod demo;
mod explain;
mod run;
pub mod schema;
pub mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::ConfigError;
use crate::config::load::{self, Loaded};

/// Edge reverse proxy and auth gateway for identity backends.
#[derive(Debug, Parser)]
#[command(
    name = "vestibule",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve.
    Run(ConfigFile),
    /// Find every mistake in a configuration; list its public routes; run its test cases.
    Check(ConfigFile),
    /// Print the effective configuration, defaults written out.
    Show(ConfigFile),
    /// Tell what becomes of a request, stage by stage; or why one was refused, by its decision id.
    Explain(explain::ExplainArguments),
    /// Print the JSON Schema of the configuration.
    Schema,
    /// Serve in front of an embedded identity backend, and show that it works.
    Demo(demo::DemoArguments),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// Configuration file.
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "conf/vestibule.toml"
    )]
    config: PathBuf,
}

/// Runs the command line of this process. 0: fine; 1: the answer is no; 2: the command line itself is wrong.
#[must_use]
pub fn execute() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(file) => run::execute(&file.config),
        Command::Check(file) => check::execute(&file.config),
        Command::Show(file) => show(&file.config),
        Command::Explain(arguments) => explain::execute(&arguments),
        Command::Schema => {
            print_text(&schema::render());
            ExitCode::SUCCESS
        }
        Command::Demo(arguments) => demo::execute(&arguments),
    }
}

fn show(path: &std::path::Path) -> ExitCode {
    match load(path) {
        Ok(loaded) => {
            print_text(&show::render(&loaded.config));
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

/// Reads a configuration, or prints what is wrong with it.
fn load(path: &std::path::Path) -> Result<Loaded, ExitCode> {
    load::from_file(path).map_err(|errors| complain(&errors))
}

/// Prints every error, one a line, and how many there are.
fn complain(errors: &[ConfigError]) -> ExitCode {
    for error in errors {
        eprint_line(&format!("error: {error}"));
    }
    let plural = if errors.len() == 1 { "" } else { "s" };
    eprint_line(&format!(
        "{} error{plural}; nothing was changed",
        errors.len()
    ));
    ExitCode::from(1)
}

/// Prints one clear line, and says no.
fn fail(why: &str) -> ExitCode {
    eprint_line(&format!("error: {why}"));
    ExitCode::from(1)
}

#[allow(clippy::print_stdout, reason = "the command line prints")]
fn print_line(line: &str) {
    anstream::println!("{line}");
}

#[allow(clippy::print_stdout, reason = "the command line prints")]
fn print_text(text: &str) {
    anstream::print!("{text}");
}

#[allow(clippy::print_stderr, reason = "the command line prints")]
fn eprint_line(line: &str) {
    anstream::eprintln!("{line}");
}
