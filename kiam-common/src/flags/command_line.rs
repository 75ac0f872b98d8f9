//! Parsing of a command line in kiam's forms.

use clap::Parser;
use std::ffi::OsString;

/// Exit code after a wrong command line (`EX_USAGE`, sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Parses a command line, the program's name first. Each of `switches` is accepted in all of kiam's forms:
/// `--json-log`, `--json-log=false` and `--no-json-log`.
///
/// # Errors
/// An unknown flag or a missing value, and also `--help` and `--version`: see [`exit_code`].
pub fn parse<C: Parser>(argv: impl IntoIterator<Item = OsString>, switches: &[&str]) -> Result<C, clap::Error> {
    C::try_parse_from(argv.into_iter().map(|argument| without_no(argument, switches)))
}

/// Returns the exit code after [`parse`] failed: 0 for `--help` and `--version`.
#[must_use]
pub fn exit_code(error: &clap::Error) -> u8 {
    if error.use_stderr() { EXIT_USAGE } else { 0 }
}

/// Turns `--no-json-log` into `--json-log=false`.
fn without_no(argument: OsString, switches: &[&str]) -> OsString {
    let switch = argument.to_str().and_then(|text| text.strip_prefix("--no-")).filter(|name| switches.contains(name));
    match switch {
        Some(name) => format!("--{name}=false").into(),
        None => argument,
    }
}
