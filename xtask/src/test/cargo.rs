//! Building the tests with cargo, running their executables, and counting what they say.

use crate::{root, workspace};
use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    ops::AddAssign,
    path::PathBuf,
    process::{Command, Stdio},
};

/// What came of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Outcome {
    /// A test that ran nothing has not passed.
    pub(crate) fn without_skips(self) -> Self {
        Self { failed: self.failed + self.skipped, skipped: 0, ..self }
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The built tests.
pub(crate) struct Tests(Vec<Test>);

struct Test {
    name: String,
    /// A tier of its own, rather than the unit tests of a crate.
    is_tier: bool,
    executable: PathBuf,
}

/// One line of cargo's JSON messages; others have none of this.
#[derive(Deserialize)]
struct Artifact {
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    profile: Profile,
    #[serde(default)]
    target: Target,
}

#[derive(Deserialize, Default)]
struct Profile {
    test: bool,
}

#[derive(Deserialize, Default)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Builds the binaries and all tests; what the compiler says is shown.
pub(crate) fn build() -> anyhow::Result<Tests> {
    compile(&["build", "--workspace", "--bins"])?;
    let output = Command::new("cargo")
        .args(["test", "--locked", "--quiet", "--workspace", "--no-run", "--message-format=json-render-diagnostics"])
        .current_dir(workspace::root())
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("the tests do not compile");
    }
    let messages = output.stdout.lines().map_while(Result::ok);
    let artifacts = messages.filter_map(|line| serde_json::from_str::<Artifact>(&line).ok());
    let tests = artifacts.filter(|artifact| artifact.profile.test).filter_map(|artifact| {
        Some(Test {
            name: artifact.target.name,
            is_tier: artifact.target.kind.iter().any(|kind| kind == "test"),
            executable: artifact.executable?,
        })
    });
    Ok(Tests(tests.collect()))
}

fn compile(arguments: &[&str]) -> anyhow::Result<()> {
    let status =
        Command::new("cargo").args(arguments).args(["--locked", "--quiet"]).current_dir(workspace::root()).status();
    if !status.context("starting cargo")?.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

impl Tests {
    /// Runs the unit tests of all crates.
    pub(crate) fn run_units(&self, only: Option<&str>) -> anyhow::Result<Outcome> {
        let mut total = Outcome::default();
        for test in self.0.iter().filter(|test| !test.is_tier) {
            let mut command = Command::new(&test.executable);
            total += execute(command.args(only), &test.name)?;
        }
        Ok(total)
    }

    /// Runs the tests of a tier.
    pub(crate) fn run_as_root(&self, tier: &str, only: Option<&str>, threads: usize) -> anyhow::Result<Outcome> {
        let mut command = self.command(tier)?;
        command.arg(format!("--test-threads={threads}")).args(only);
        execute(&mut command, tier)
    }

    /// The executable of a tier, to be run as root.
    pub(crate) fn command(&self, tier: &str) -> anyhow::Result<Command> {
        let test = self.0.iter().find(|test| test.is_tier && test.name == tier);
        let test = test.with_context(|| format!("tests/Cargo.toml has no test {tier}"))?;
        let mut command = root::command(&test.executable);
        command.current_dir(workspace::root().join("tests"));
        Ok(command)
    }
}

/// Runs a test executable; what it prints is shown as it comes.
fn execute(command: &mut Command, name: &str) -> anyhow::Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting the tests of {name}"))?;
    let mut outcome = None;
    let stdout = child.stdout.take().context("no output to read")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        outcome = parse(&line).or(outcome);
        writeln!(std::io::stdout(), "{line}")?;
    }
    let status = child.wait()?;
    match outcome {
        Some(outcome) if status.success() == (outcome.failed == 0) => Ok(outcome),
        _ => {
            writeln!(std::io::stdout(), "the tests of {name} ended early: {status}")?;
            Ok(Outcome { failed: 1, ..outcome.unwrap_or_default() })
        }
    }
}

/// `test result: ok. 5 passed; 0 failed; 0 ignored; …`
fn parse(line: &str) -> Option<Outcome> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count =
        |what: &str| counts.split("; ").find_map(|count| count.strip_suffix(what)?.trim().parse::<usize>().ok());
    Some(Outcome { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_test_harness_prints() {
        let line = "test result: FAILED. 25 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s";
        assert_eq!(parse(line), Some(Outcome { passed: 25, failed: 2, skipped: 1 }));
        assert_eq!(parse("test tests::x ... ok"), None);
    }
}
