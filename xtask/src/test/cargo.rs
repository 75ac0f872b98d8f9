//! Builds the tests with cargo, runs their executables, and counts the results.

use crate::{outcome::Outcome, root, workspace};
use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The built tests.
pub(crate) struct Tests(Vec<Test>);

struct Test {
    name: String,
    /// False for the unit tests of a crate.
    is_tier: bool,
    executable: PathBuf,
}

/// The fields of cargo's JSON messages that matter here. Messages about other things lack them.
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

/// Builds the binaries and all tests, with the compiler's output shown.
pub(crate) fn build() -> anyhow::Result<Tests> {
    build_tests(&[])
}

/// Builds the binaries and the tests of one tier.
pub(crate) fn build_tier(tier: &str) -> anyhow::Result<Tests> {
    build_tests(&["--test", tier])
}

fn build_tests(which: &[&str]) -> anyhow::Result<Tests> {
    compile(&["build", "--workspace", "--bins"])?;
    let output = Command::new("cargo")
        .args(["test", "--locked", "--quiet", "--workspace", "--no-run", "--message-format=json-render-diagnostics"])
        .args(which)
        .current_dir(workspace::root())
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("the tests do not compile: see the errors above");
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

    /// Returns the command that runs a tier as root.
    pub(crate) fn command(&self, tier: &str) -> anyhow::Result<Command> {
        let mut command = root::command(self.path(tier)?);
        command.current_dir(workspace::root().join("tests"));
        Ok(command)
    }

    /// Returns the path of a tier's executable.
    pub(crate) fn path(&self, tier: &str) -> anyhow::Result<&Path> {
        let test = self.0.iter().find(|test| test.is_tier && test.name == tier);
        Ok(&test.with_context(|| format!("tests/Cargo.toml has no test {tier}"))?.executable)
    }
}

/// Runs a test executable, and shows its output as it comes.
fn execute(command: &mut Command, name: &str) -> anyhow::Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting the tests of {name}"))?;
    let mut outcome = None;
    let stdout = child.stdout.take().context("no output to read")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        outcome = Outcome::parse(&line).or(outcome);
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
