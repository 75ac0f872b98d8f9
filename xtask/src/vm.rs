//! `cargo xtask vm`: runs the system tier on other kernels, in QEMU.

mod guest;
mod image;
mod kernel;
mod machine;
mod plan;
mod private_apt;

use crate::{outcome::Outcome, progress, release, setup, test::cargo, workspace};
use anyhow::{Context as _, bail, ensure};
use clap::builder::PossibleValuesParser;
use comfy_table::{Table, presets};
use guest::Tests;
use kernel::Kernel;
use plan::Plan;
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// The tier that runs in guests, since it depends on the kernel.
const TIER: &str = "system";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Debian cloud kernels to run on.
    #[arg(long, required = true, value_delimiter = ',', value_parser = names())]
    kernel: Vec<String>,
    /// Run only tests with one of these texts in their names.
    filters: Vec<String>,
    /// Run only the quick tests of tests/kernels.toml.
    #[arg(long, conflicts_with = "filters")]
    quick: bool,
    /// Time limit of each guest, in minutes.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(kernel::ALL.iter().map(|kernel| kernel.name).chain(["all"]))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::for_vm()?;
    let executable = cargo::build_tier(TIER)?.path(TIER)?.to_owned();
    let binaries = binaries(args)?;
    let names = tests_in(&executable)?;
    let tests = Tests { plan: Plan::read(&names)?, executable, names, binaries };
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["kernel", "passed", "failed", "skipped", "minutes"]);
    let mut failed = Vec::new();
    for kernel in kernel::ALL.into_iter().filter(|kernel| wanted(&args.kernel, *kernel)) {
        let started = Instant::now();
        let outcome = guest::run(kernel, &tests, args).unwrap_or_else(|error| {
            progress::say(&format!("{}: {error:#}", kernel.name));
            Outcome { failed: 1, ..Outcome::default() }
        });
        if outcome.failed > 0 || outcome.passed == 0 {
            failed.push(kernel.name);
        }
        let counts = [outcome.passed, outcome.failed, outcome.skipped].map(|count| count.to_string());
        let minutes = format!("{:.1}", started.elapsed().as_secs_f64() / 60.0);
        table.add_row([kernel.name.to_owned()].into_iter().chain(counts).chain([minutes]));
    }
    progress::say(&format!("\n{table}"));
    if failed.is_empty() { Ok(()) } else { bail!("failed on Linux {}", failed.join(", ")) }
}

/// Returns the folder of the binaries under test. The quick tests use the debug build of all other tests: to build
/// optimised binaries takes longer than these would save.
fn binaries(args: &Args) -> anyhow::Result<PathBuf> {
    if args.quick { Ok(workspace::target().join("debug")) } else { release::build(&guest::BINARIES) }
}

fn wanted(names: &[String], kernel: Kernel) -> bool {
    names.iter().any(|name| name == kernel.name || name == "all")
}

/// Returns the names of the tests in a test executable.
fn tests_in(executable: &Path) -> anyhow::Result<Vec<String>> {
    let output =
        Command::new(executable).args(["--list", "--format", "terse"]).output().context("listing the tests")?;
    ensure!(output.status.success(), "{} --list: {}", executable.display(), output.status);
    let listed = String::from_utf8(output.stdout)?;
    Ok(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}
