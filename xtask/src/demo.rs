//! `cargo xtask demo`: installs missing tools, builds, and becomes `kiam-demo` as root.

use crate::{progress, root, setup, workspace};
use anyhow::{Context as _, bail};
use std::{os::unix::process::CommandExt as _, process::Command};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Exit after the tables, with code 0 only if every result is the expected one.
    #[arg(long)]
    once: bool,
    /// Format of the result on standard output.
    #[arg(long, value_parser = ["text", "json"], default_value = "text", requires_if("json", "once"))]
    output: String,
}

/// Replaces this process by the demo, so that Ctrl-C and the exit code are the demo's. Returns only on failure.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !root::is_possible() {
        bail!("network namespaces and eBPF need root: run this as root, or as a user who may use sudo");
    }
    setup::for_system()?;
    let mut cargo = Command::new("cargo");
    // With the features of the whole workspace, as the tests build them, so that each reuses the other's artifacts.
    cargo.args(["build", "--locked", "--workspace"]);
    cargo.args(["--bin", "kiam-agent", "--bin", "kiam-server", "--bin", "kiam-demo"]).current_dir(workspace::root());
    progress::step("building kiam-agent, kiam-server and kiam-demo", &mut cargo)?;

    let demo = workspace::target().join("debug/kiam-demo");
    let mut command = root::command(&demo);
    command.args(args.once.then_some("--once")).arg(format!("--output={}", args.output));
    Err(command.exec()).with_context(|| format!("starting {}", demo.display()))
}
