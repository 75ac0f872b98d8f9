//! The demo: a node with three pods in namespaces of its own, the real binaries on it, and what each pod gets.
//!
//! Two processes. The `supervisor` holds the terminal and removes everything at the end, however that comes. The
//! stage, which it starts, is this program again: it makes the node (`cast`), plays the `scenes` on it, and lets
//! the reader `play`. `report` is what the scenes say; `screen` and `progress` show it.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a demo that cannot go on ends; what it has to say goes to its output"
)]

mod ask;
mod cast;
mod play;
mod progress;
mod report;
mod scenes;
mod screen;
mod supervisor;

use clap::{Parser, ValueEnum};
use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

/// Shows on one machine how pods get AWS credentials of their own, and none of the node's.
#[derive(Debug, Parser)]
#[command(name = "kiam-demo", version, max_term_width = 100)]
struct Args {
    /// End after the tables. The exit code is 0 only if everything came as expected.
    #[arg(long)]
    once: bool,
    /// How the result is written to standard output.
    #[arg(long, value_enum, default_value_t = Output::Text, requires_if("json", "once"))]
    output: Output,
    /// Be the stage; standard input is the lifeline.
    #[arg(long, hide = true)]
    stage: bool,
}

/// How the result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Tables for people.
    Text,
    /// One JSON document.
    Json,
}

/// Runs the demo. The exit code is 0 only if everything came as expected.
fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.stage { scenes::run(&args) } else { supervisor::run(&args) };
    match result {
        Ok(code) => code,
        Err(error) => {
            let mark = if std::io::stderr().is_terminal() { "\x1b[31m✗\x1b[0m" } else { "✗" };
            // Nobody reads standard error any more: the exit code still tells.
            drop(writeln!(std::io::stderr(), "{mark} {error:#}"));
            ExitCode::FAILURE
        }
    }
}
