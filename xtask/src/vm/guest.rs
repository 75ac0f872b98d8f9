//! One guest: a disk is made for it, the tests run in it, and what it says is believed only when it is complete.

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
/// How many tests run at the same time, as on the machine itself.
const THREADS: usize = 2;
/// The guest's last word, by its init: without it the tests' own summary is not believed.
const LAST_WORD: &str = "exit status ";

/// What runs in guests.
pub(super) struct Tests {
    /// The test executable.
    pub(super) executable: PathBuf,
    /// The names of all of its tests.
    pub(super) names: Vec<String>,
    /// The folder of the binaries under test.
    pub(super) binaries: PathBuf,
    pub(super) plan: Plan,
}

/// Runs what is planned for a kernel.
///
/// # Errors
/// It cannot be started, does not end in time, or ends without a result.
pub(super) fn run(kernel: Kernel, tests: &Tests, args: &Args) -> anyhow::Result<Outcome> {
    let fetched = kernel.fetch()?;
    let skips: Vec<_> = tests.plan.skips(kernel).collect();
    progress::say(&format!("\nLinux {}: {}", kernel.name, fetched.release()));
    for (tests, reason) in &skips {
        progress::say(&format!("  without {tests}: {reason}"));
    }
    for (tests, reason) in tests.plan.first(kernel) {
        progress::say(&format!("  with the kernel's first network namespace for {tests}: {reason}"));
    }
    let mut programs = vec![tests.executable.clone()];
    programs.extend(BINARIES.map(|binary| tests.binaries.join(binary)));

    let (disk, console) = (kernel.folder().join("disk.ext4"), kernel.folder().join("console.log"));
    image::make(&disk, &fetched, &programs, &tests.commands(kernel, args)?)?;
    let machine = Machine::start(&fetched.image, &disk, &console, Duration::from_secs(args.minutes * 60))?;
    let outcome = follow(&machine).with_context(|| format!("the kernel's last words:\n{}", machine::tail(&console)))?;
    Ok(Outcome { skipped: outcome.skipped + skips.len(), ..outcome })
}

impl Tests {
    /// What the guest starts, one after the other.
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
        // Without a name it would run them all.
        let lists = lists.into_iter().filter(|(_, _, tests)| !tests.is_empty());
        Ok(lists.map(|(file, threads, tests)| (file, start(threads).into_iter().chain(tests).collect())).collect())
    }
}

/// Shows what the tests say, as they say it.
fn follow(machine: &Machine) -> anyhow::Result<Outcome> {
    let mut heard = Heard::default();
    while let Some(line) = machine.line()? {
        heard.line(&line);
        writeln!(stdout(), "{line}")?;
    }
    heard.outcome()
}

/// What was heard of a guest.
#[derive(Debug, Default)]
struct Heard {
    summary: Option<Outcome>,
    /// Of the test executable, when it was the last word.
    status: Option<u8>,
}

impl Heard {
    fn line(&mut self, line: &str) {
        if let Some(summary) = Outcome::parse(line) {
            *self.summary.get_or_insert_default() += summary;
        }
        self.status = line.strip_prefix(LAST_WORD).and_then(|status| status.parse().ok());
    }

    /// What came of the tests, when summary and exit status are there and say the same.
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
        let mut heard = Heard::default();
        lines.iter().for_each(|line| heard.line(line));
        heard.outcome().ok()
    }

    #[test]
    fn a_result_is_a_summary_and_an_exit_status_that_agree() {
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
        assert_eq!(outcome_of(&[PASSED]), None, "the tests' last words, but not the guest's");
        assert_eq!(outcome_of(&["exit status 0"]), None, "no tests");
        assert_eq!(outcome_of(&[PASSED, "exit status 0", "test layers::x ... FAILED"]), None);
    }
}
