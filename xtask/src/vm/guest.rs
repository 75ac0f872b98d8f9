//! Runs tests in one guest: makes its disk, starts it, and accepts its result only if it is complete.

use super::{
    Args,
    image::{self, CommandFile},
    kernel::Kernel,
    machine,
    machine::Machine,
    plan::Plan,
};
use crate::{outcome::Outcome, progress};
use anyhow::{Context as _, bail};
use std::{
    io::{Write as _, stdout},
    path::PathBuf,
    time::Duration,
};

/// The binaries under test.
pub(super) const BINARIES: [&str; 2] = ["kiam-agent", "kiam-server"];
/// Number of tests that run at the same time: one for each processor of a guest.
const THREADS: usize = 2;
/// Start of the line that the guest's init prints last. Without it the summary of the tests does not count.
const LAST_LINE: &str = "exit status ";

/// The tests, and all that they need in a guest.
pub(super) struct Tests {
    /// The test executable.
    pub(super) executable: PathBuf,
    /// Names of all its tests.
    pub(super) names: Vec<String>,
    /// Folder of the binaries under test.
    pub(super) binaries: PathBuf,
    pub(super) plan: Plan,
}

/// Runs the tests that the plan has for a kernel.
///
/// # Errors
/// The guest does not start, does not end in time, or ends without a result.
pub(super) fn run(kernel: Kernel, tests: &Tests, args: &Args) -> anyhow::Result<Outcome> {
    let fetched = kernel.fetch()?;
    let skips: Vec<_> = tests.plan.skips(kernel).collect();
    progress::say(&format!("\nLinux {}: {}", kernel.name, fetched.release()));
    for (tests, reason) in &skips {
        progress::say(&format!("  without {tests}: {reason}"));
    }
    for (tests, reason) in tests.plan.first(kernel) {
        progress::say(&format!("  in the kernel's first network namespace: {tests}: {reason}"));
    }
    let mut programs = vec![tests.executable.clone()];
    programs.extend(BINARIES.map(|binary| tests.binaries.join(binary)));

    let (disk, console) = (kernel.folder().join("disk.ext4"), kernel.folder().join("console.log"));
    image::make(&disk, &fetched, &programs, &tests.commands(kernel, args)?)?;
    let machine = Machine::start(&fetched.image, &disk, &console, Duration::from_secs(args.minutes * 60))?;
    let outcome =
        follow(&machine).with_context(|| format!("the end of the kernel's console:\n{}", machine::tail(&console)))?;
    Ok(Outcome { skipped: outcome.skipped + skips.len(), ..outcome })
}

impl Tests {
    /// Returns the commands that the guest runs, one after the other.
    fn commands(&self, kernel: Kernel, args: &Args) -> anyhow::Result<Vec<CommandFile>> {
        let name =
            self.executable.file_name().and_then(|name| name.to_str()).context("a test executable has a name")?;
        let wanted = if args.quick { self.plan.quick() } else { &args.filters };
        let is_wanted = |test: &str| wanted.is_empty() || wanted.iter().any(|part| test.contains(part.as_str()));
        let is_left_out = |test: &str| self.plan.left_out(kernel).any(|part| test.contains(part));
        let is_first = |test: &str| self.plan.first(kernel).any(|(part, _)| test.contains(part));

        let chosen = self.names.iter().filter(|test| is_wanted(test) && !is_left_out(test)).cloned();
        let (first, others): (Vec<String>, Vec<String>) = chosen.partition(|test| is_first(test));
        let start = |threads| [format!("/usr/bin/{name}"), format!("--test-threads={threads}"), "--exact".to_owned()];
        let lists = [("tests", THREADS, others), ("tests-first", 1, first)];
        // Without a name, the executable would run all tests.
        let lists = lists.into_iter().filter(|(_, _, tests)| !tests.is_empty());
        Ok(lists.map(|(file, threads, tests)| (file, start(threads).into_iter().chain(tests).collect())).collect())
    }
}

/// Shows the output of the tests as it comes, and returns their result.
fn follow(machine: &Machine) -> anyhow::Result<Outcome> {
    let mut result = GuestResult::default();
    while let Some(line) = machine.line()? {
        result.line(&line);
        writeln!(stdout(), "{line}")?;
    }
    result.outcome()
}

/// Summary and exit status, as read from a guest's output.
#[derive(Debug, Default)]
struct GuestResult {
    summary: Option<Outcome>,
    /// Exit status of the test executable, if that was the last line.
    status: Option<u8>,
}

impl GuestResult {
    fn line(&mut self, line: &str) {
        if let Some(summary) = Outcome::parse(line) {
            *self.summary.get_or_insert_default() += summary;
        }
        self.status = line.strip_prefix(LAST_LINE).and_then(|status| status.parse().ok());
    }

    /// Returns the result of the tests if summary and exit status are there and agree.
    fn outcome(&self) -> anyhow::Result<Outcome> {
        match (self.summary, self.status) {
            (Some(outcome), Some(status)) if (status == 0) == (outcome.failed == 0) => Ok(outcome),
            _ => bail!("the guest ended without a result: {self:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";
    const FAILED: &str =
        "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";

    fn outcome_of(lines: &[&str]) -> Option<Outcome> {
        let mut result = GuestResult::default();
        lines.iter().for_each(|line| result.line(line));
        result.outcome().ok()
    }

    #[test]
    fn summary_and_exit_status_must_agree() {
        assert_eq!(outcome_of(&[PASSED, "exit status 0"]), Some(Outcome { passed: 2, failed: 0, skipped: 0 }));
        assert_eq!(outcome_of(&[FAILED, "exit status 101"]), Some(Outcome { passed: 1, failed: 1, skipped: 0 }));
        let both = Outcome { passed: 3, failed: 1, skipped: 0 };
        assert_eq!(outcome_of(&[PASSED, FAILED, "exit status 101"]), Some(both), "two runs");
        assert_eq!(outcome_of(&[PASSED, "exit status 101"]), None);
        assert_eq!(outcome_of(&[FAILED, "exit status 0"]), None);
    }

    #[test]
    fn a_guest_that_ends_early_has_no_result() {
        assert_eq!(outcome_of(&[]), None);
        assert_eq!(outcome_of(&[PASSED]), None, "the summary, but no exit status");
        assert_eq!(outcome_of(&["exit status 0"]), None, "no tests");
        assert_eq!(outcome_of(&[PASSED, "exit status 0", "test layers::x ... FAILED"]), None);
    }
}
