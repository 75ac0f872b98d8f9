//! `cargo xtask bench`: the release build beside a bare hyper, in one run.

use crate::{release, root, setup, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// What the redirect costs a connection, beside nothing in the way and an iptables DNAT; about ten minutes.
    Datapath,
    /// What one run of each eBPF program takes, a part of `datapath`; less than a minute.
    Programs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::for_system()?;
    let release = release::build(&["kiam-agent", "kiam-server", "kiam-bench"])?;
    let mut bench = root::command(release.join("kiam-bench"));
    match args.what {
        None => {}
        Some(What::Datapath) => drop(bench.arg("datapath").arg(workspace::target())),
        Some(What::Programs) => drop(bench.arg("programs")),
    }
    let status = bench.env("KIAM_BIN_DIR", &release).status()?;
    if status.success() { Ok(()) } else { anyhow::bail!("the benchmark failed ({status})") }
}
