//! `cargo xtask bench`: builds for release and starts `kiam-bench` as root.

use crate::{release, root, setup, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    subject: Option<Subject>,
}

#[derive(clap::Subcommand)]
enum Subject {
    /// Cost of the redirect per connection, compared with no redirect and with an iptables DNAT; about ten minutes.
    /// Draws a plot.
    Datapath,
    /// Time that one run of each eBPF program takes, a part of `datapath`; less than a minute.
    Programs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::for_system()?;
    let release = release::build(&["kiam-agent", "kiam-server", "kiam-bench"])?;
    let mut bench = root::command(release.join("kiam-bench"));
    match args.subject {
        None => {}
        Some(Subject::Datapath) => drop(bench.arg("datapath").arg(workspace::target())),
        Some(Subject::Programs) => drop(bench.arg("programs")),
    }
    let status = bench.env("KIAM_BIN_DIR", &release).status()?;
    if status.success() { Ok(()) } else { anyhow::bail!("the benchmark failed ({status})") }
}
