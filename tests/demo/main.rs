//! The demo: a node with three pods in network namespaces of its own, the real binaries on it, and what each pod gets.
//!
//! It consists of two processes. The `supervisor` holds the terminal and removes everything at the end, even after a
//! crash. It starts this program again as the stage, which makes the node (`cast`), plays the `scenes` on it, and lets
//! the reader `play`. `report` holds the results of the scenes; `screen` and `progress` display them.

mod cast;
mod play;
mod progress;
mod report;
mod requests;
mod scenes;
mod screen;
mod supervisor;

use clap::{Parser, ValueEnum};
use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

/// Shows on one machine how pods get AWS credentials of their own, and never the node's.
#[derive(Debug, Parser)]
#[command(name = "kiam-demo", version, max_term_width = 100)]
struct Args {
    /// End after the tables. The exit code is 0 only if every result is as expected
    #[arg(long)]
    once: bool,
    /// Format of the result on standard output
    #[arg(long, value_enum, default_value_t = Output::Text, requires_if("json", "once"))]
    output: Output,
    /// Run as the stage; the end of standard input ends it.
    #[arg(long, hide = true)]
    stage: bool,
}

/// Format of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Tables for a terminal
    Text,
    /// One JSON document
    Json,
}

/// Runs the demo. The exit code is 0 only if every result is as expected.
fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.stage { scenes::run(&args) } else { supervisor::run(&args) };
    match result {
        Ok(code) => code,
        Err(error) => {
            let mark = if std::io::stderr().is_terminal() { "\x1b[31m✗\x1b[0m" } else { "✗" };
            // Standard error may be closed; the exit code still reports the failure.
            drop(writeln!(std::io::stderr(), "{mark} {error:#}"));
            ExitCode::FAILURE
        }
    }
}
