//! `kiam-bench`: what `cargo xtask bench` runs as root.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on ends; what it has measured goes to its output"
)]

mod datapath;
mod load;
mod request;
mod yardstick;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use std::path::PathBuf;

/// The core of everything that serves: the agent, the server behind it, and the yardstick.
const SERVING: usize = 0;
/// The core of the client.
const ASKING: usize = 1;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// What the redirect costs a connection.
    Datapath {
        /// Where the plot goes.
        folder: PathBuf,
    },
    /// What one run of each program takes.
    Programs,
}

fn main() -> Result<()> {
    match Args::parse().what {
        None => request::run(),
        Some(What::Datapath { folder }) => datapath::run(&folder),
        Some(What::Programs) => datapath::run_programs(),
    }
}

/// Binds the calling thread, and what it starts, to a core.
fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("binding to core {core}: two cores are needed"))
}
