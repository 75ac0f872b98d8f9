//! `cargo xtask demo`: installs what is missing, builds, and becomes `kiam-demo` as root.

use crate::{progress, root, setup, workspace};
use anyhow::{Context as _, bail};
use std::{os::unix::process::CommandExt as _, process::Command};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// End after the tables; exit code 0 only if everything came as it should.
    #[arg(long)]
    once: bool,
    /// How the result is written to standard output.
    #[arg(long, value_parser = ["text", "json"], default_value = "text", requires_if("json", "once"))]
    output: String,
}

/// Does not return when all goes well: this process becomes the demo, so that Ctrl-C and the exit code are its own.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !root::is_possible() {
        bail!("network namespaces and eBPF need root: run this as root, or as a user whom sudo lets");
    }
    setup::for_system()?;
    let mut cargo = Command::new("cargo");
    // The whole workspace's features, as in the tests: what one has built the other uses.
    cargo.args(["build", "--locked", "--workspace"]);
    cargo.args(["--bin", "kiam-agent", "--bin", "kiam-server", "--bin", "kiam-demo"]).current_dir(workspace::root());
    progress::step("building kiam-agent, kiam-server and the demo", &mut cargo)?;

    let demo = workspace::target().join("debug/kiam-demo");
    let mut command = root::command(&demo);
    command.args(args.once.then_some("--once")).arg(format!("--output={}", args.output));
    Err(command.exec()).with_context(|| format!("starting {}", demo.display()))
}
