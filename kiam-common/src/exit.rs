//! The end of a process: its last message and its exit code. 0: success, 1: failure, 64: wrong command line.

use crate::flags::{EXIT_USAGE, Problems, exit_code};
use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// Prints what clap refused, or the help that was requested.
#[must_use]
pub fn unparsed(error: &clap::Error) -> ExitCode {
    // With standard output and error closed, the exit code is all that is left.
    drop(error.print());
    ExitCode::from(exit_code(error))
}

/// Prints each problem of a command line.
#[must_use]
pub fn misused(program: &str, problems: &Problems) -> ExitCode {
    print(program, &format!("{problems}\nsee {program} --help"));
    ExitCode::from(EXIT_USAGE)
}

/// Prints the error that ended the process.
#[must_use]
pub fn failed(program: &str, error: &str) -> ExitCode {
    print(program, error);
    ExitCode::FAILURE
}

/// Prints lines to the log if that shows them, so that JSON stays JSON, else to standard error.
fn print(program: &str, text: &str) {
    for line in text.lines() {
        if tracing::enabled!(tracing::Level::ERROR) {
            tracing::error!("{line}");
        } else {
            drop(writeln!(io::stderr(), "{program}: {line}"));
        }
    }
}
