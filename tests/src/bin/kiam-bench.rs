//! `kiam-bench`: what `cargo xtask bench` runs as root.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

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

fn main() -> anyhow::Result<()> {
    match Args::parse().what {
        None => kiam_tests::bench::run(),
        Some(What::Datapath { folder }) => kiam_tests::bench::datapath::run(&folder),
        Some(What::Programs) => kiam_tests::bench::datapath::run_programs(),
    }
}
