//! `cargo xtask check` and `cargo xtask ci`: the conditions for a change, with the minutes that each step takes.

use crate::{ebpf, leftovers, progress, workspace};
use anyhow::bail;
use comfy_table::{Table, presets};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// A command that must succeed.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    environment: Option<(&'static str, &'static str)>,
}

/// The quick half: minutes, without root. The cheapest first.
const QUICK: [Step; 7] = [
    Step { name: "formatting", arguments: &["fmt", "--all", "--check"], environment: None },
    Step { name: "generated code", arguments: &["xtask", "codegen", "--check"], environment: None },
    Step { name: "tidy", arguments: &["xtask", "tidy"], environment: None },
    Step {
        name: "clippy",
        arguments: &["clippy", "--locked", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
        environment: None,
    },
    Step {
        name: "documentation",
        arguments: &["doc", "--locked", "--quiet", "--workspace", "--no-deps", "--document-private-items"],
        // Private items are documented, too, so links to them resolve.
        environment: Some(("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")),
    },
    // cargo-deny's other check needs the advisory database, which is not in the registry.
    Step {
        name: "dependencies",
        arguments: &["deny", "--locked", "check", "bans", "licenses", "sources"],
        environment: None,
    },
    Step {
        name: "unit tests",
        arguments: &["test", "--locked", "--quiet", "--workspace", "--lib", "--bins"],
        environment: None,
    },
];

/// The slow half: it needs root, and most of an hour.
const SLOW: [Step; 4] = [
    Step { name: "tests", arguments: &["xtask", "test", "--strict"], environment: None },
    Step { name: "demo", arguments: &["xtask", "demo", "--once"], environment: None },
    Step { name: "other kernels", arguments: &["xtask", "vm", "--kernel", "6.1,newest", "--quick"], environment: None },
    Step { name: "mutations", arguments: &["xtask", "test", "--mutate"], environment: None },
];

/// The version of cargo-deny that deny.toml is written for.
const CARGO_DENY: &str = "cargo-deny@0.20.2";

/// Runs the quick half.
///
/// # Errors
/// A step fails: all steps have run, and each problem is in the output.
pub(crate) fn check() -> anyhow::Result<()> {
    conclude(&quick_half(ebpf::Args { install: false }))
}

/// Runs the quick half, and the slow one if nothing has failed.
///
/// # Errors
/// A step fails: all steps of that half have run, and each problem is in the output.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut results = quick_half(ebpf::Args { install: true });
    if results.iter().any(StepResult::failed) {
        progress::say("\nThe quick half has failed; the slow half does not start.");
        return conclude(&results);
    }
    results.extend(SLOW.iter().map(execute));
    results.push(timed("nothing left behind", leftovers::expect_none));
    conclude(&results)
}

fn quick_half(object: ebpf::Args) -> Vec<StepResult> {
    let mut results = vec![
        // Clippy, rustdoc and the unit tests compile the agent, which embeds it.
        timed("eBPF object", || ebpf::ensure(&object)),
        timed("cargo-deny itself", install_deny),
    ];
    results.extend(QUICK.iter().map(execute));
    results
}

struct StepResult {
    name: &'static str,
    time: Duration,
    problem: Option<anyhow::Error>,
}

impl StepResult {
    fn failed(&self) -> bool {
        self.problem.is_some()
    }
}

fn timed(name: &'static str, step: impl FnOnce() -> anyhow::Result<()>) -> StepResult {
    let started = Instant::now();
    let problem = step().err();
    StepResult { name, time: started.elapsed(), problem }
}

fn execute(step: &Step) -> StepResult {
    progress::say(&format!("\n== {}: cargo {}", step.name, step.arguments.join(" ")));
    timed(step.name, || {
        let mut command = Command::new("cargo");
        command.args(step.arguments).envs(step.environment).current_dir(workspace::root());
        let status = command.status()?;
        if status.success() { Ok(()) } else { bail!("{status}") }
    })
}

fn install_deny() -> anyhow::Result<()> {
    let present = Command::new("cargo").args(["deny", "--version"]).output();
    let version = CARGO_DENY.replace('@', " ");
    if present.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == version) {
        return Ok(());
    }
    let mut cargo = Command::new("cargo");
    progress::step("installing cargo-deny", cargo.args(["install", "--locked", "--force", CARGO_DENY]))
}

/// Prints the results, and fails if a step has.
fn conclude(results: &[StepResult]) -> anyhow::Result<()> {
    progress::say(&format!("\n{}", table(results)));
    for result in results {
        if let Some(problem) = &result.problem {
            progress::say(&format!("{}: {problem:#}", result.name));
        }
    }
    let failed: Vec<&str> = results.iter().filter(|result| result.failed()).map(|result| result.name).collect();
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

fn table(results: &[StepResult]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["step", "minutes", ""]);
    for result in results {
        let verdict = if result.failed() { "FAILED" } else { "ok" };
        table.add_row([result.name.to_owned(), minutes(result.time), verdict.to_owned()]);
    }
    table.add_row(["all".to_owned(), minutes(results.iter().map(|result| result.time).sum()), String::new()]);
    table
}

fn minutes(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() / 60.0)
}
