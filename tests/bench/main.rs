//! `kiam-bench`: the program that `cargo xtask bench` runs as root.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a benchmark that cannot continue ends; its results go to standard output"
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

/// Core of the server side: the agent, the server behind it, and the yardstick.
const SERVING: usize = 0;
/// Core of the client.
const ASKING: usize = 1;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Cost of the redirect per connection
    Datapath {
        /// Folder of the plot
        folder: PathBuf,
    },
    /// Time that one run of each program takes
    Programs,
}

fn main() -> Result<()> {
    match Args::parse().what {
        None => request::run(),
        Some(What::Datapath { folder }) => datapath::run(&folder),
        Some(What::Programs) => datapath::run_programs(),
    }
}

/// Binds the calling thread, and the threads it starts, to a core.
fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("bind to core {core}; the benchmark needs two cores"))
}
