//! `cargo xtask ci`: everything that must hold before a change lands, with the minutes that each step took.

use crate::{leftovers, progress, workspace};
use anyhow::bail;
use comfy_table::{Table, presets};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// A step: its name, and the command behind it.
struct Step {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    environment: Option<(&'static str, &'static str)>,
}

/// The checks that cargo-deny can do without its advisory database, which is not in the registry.
const STEPS: [Step; 9] = [
    Step { name: "formatting", program: "cargo", arguments: &["fmt", "--all", "--check"], environment: None },
    Step { name: "tests", program: "cargo", arguments: &["xtask", "test", "--strict"], environment: None },
    Step { name: "demo", program: "cargo", arguments: &["xtask", "demo", "--once"], environment: None },
    Step {
        name: "other kernels",
        program: "cargo",
        arguments: &["xtask", "vm", "--kernel", "6.1,newest", "--quick"],
        environment: None,
    },
    Step { name: "mutations", program: "cargo", arguments: &["xtask", "test", "--mutate"], environment: None },
    Step { name: "generated code", program: "cargo", arguments: &["xtask", "codegen", "--check"], environment: None },
    Step {
        name: "clippy",
        program: "cargo",
        arguments: &["clippy", "--locked", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
        environment: None,
    },
    Step {
        name: "documentation",
        program: "cargo",
        arguments: &["doc", "--locked", "--quiet", "--workspace", "--no-deps", "--document-private-items"],
        // Private items are documented along, so links to them lead somewhere.
        environment: Some(("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")),
    },
    Step {
        name: "dependencies",
        program: "cargo",
        arguments: &["deny", "--locked", "check", "bans", "licenses", "sources"],
        environment: None,
    },
];

/// The version of cargo-deny that deny.toml is written for.
const CARGO_DENY: &str = "cargo-deny@0.20.2";

pub(crate) fn run() -> anyhow::Result<()> {
    let mut took = vec![timed("cargo-deny itself", install_deny)];
    for step in &STEPS {
        progress::say(&format!("\n== {}: {} {}", step.name, step.program, step.arguments.join(" ")));
        took.push(timed(step.name, || execute(step)));
    }
    took.push(timed("nothing left behind", leftovers::expect_none));
    progress::say(&format!("\n{}", table(&took)));
    let failed: Vec<&str> = took.iter().filter(|step| step.problem.is_some()).map(|step| step.name).collect();
    for step in &took {
        if let Some(problem) = &step.problem {
            progress::say(&format!("{}: {problem:#}", step.name));
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

struct Took {
    name: &'static str,
    time: Duration,
    problem: Option<anyhow::Error>,
}

fn timed(name: &'static str, step: impl FnOnce() -> anyhow::Result<()>) -> Took {
    let started = Instant::now();
    let problem = step().err();
    Took { name, time: started.elapsed(), problem }
}

fn execute(step: &Step) -> anyhow::Result<()> {
    let mut command = Command::new(step.program);
    command.args(step.arguments).envs(step.environment).current_dir(workspace::root());
    let status = command.status()?;
    if status.success() { Ok(()) } else { bail!("{status}") }
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

fn table(took: &[Took]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["step", "minutes", ""]);
    for step in took {
        let verdict = if step.problem.is_none() { "ok" } else { "FAILED" };
        table.add_row([step.name.to_owned(), minutes(step.time), verdict.to_owned()]);
    }
    table.add_row(["all".to_owned(), minutes(took.iter().map(|step| step.time).sum()), String::new()]);
    table
}

fn minutes(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() / 60.0)
}
