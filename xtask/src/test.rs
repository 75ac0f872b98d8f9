//! `cargo xtask test`: runs every tier that this machine can run, and prints one line with the result.

pub(crate) mod cargo;
mod mutate;
mod rounds;
mod skips;
mod tiers;

use crate::{ebpf, outcome::Outcome, progress, setup};
use anyhow::bail;
use cargo::Tests;
use rounds::Load;
use tiers::Tier;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Count a skipped tier as failed, unless tests/skips.toml allows it.
    #[arg(long)]
    strict: bool,
    /// Run only these tiers.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TIER")]
    tier: Vec<Tier>,
    /// Run only tests with this text in their name.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Run the mutations instead: take out each layer of tests/mutations.toml, and expect its test to fail.
    #[arg(long, conflicts_with_all = ["repeat", "busy"])]
    mutate: bool,
    /// Run everything this many times, and print a table of the results.
    #[arg(long, value_name = "ROUNDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Run this many busy loops next to the tests.
    #[arg(long, value_name = "LOOPS", default_value_t = 0)]
    busy: usize,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.mutate {
        return mutate::run(args.only.as_deref());
    }
    let tiers = if args.tier.is_empty() { Tier::ALL.to_vec() } else { args.tier.clone() };
    for skipped in install(&tiers) {
        progress::say(&skipped);
    }
    if args.strict {
        skips::print()?;
    }
    let tests = cargo::build()?;
    let _load = Load::start(args.busy);
    let total = rounds::run(args.repeat, || run_tiers(&tiers, &tests, args));
    progress::say(&format!("\n{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped));
    if total.failed > 0 {
        bail!("{} failed", total.failed);
    }
    if total.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

fn run_tiers(tiers: &[Tier], tests: &Tests, args: &Args) -> anyhow::Result<Outcome> {
    let mut total = Outcome::default();
    for &tier in tiers {
        total += match tier.obstacle() {
            Some(obstacle) => skip(tier, &obstacle, args.strict)?,
            None => {
                progress::say(&format!("\n{}: {}", tier.name(), tier.about()));
                let outcome = tier.run(tests, args.only.as_deref())?;
                if args.strict { outcome.without_skips() } else { outcome }
            }
        };
    }
    Ok(total)
}

/// Installs the tools of the tiers, and returns the problems: a tier that lacks a tool is skipped later.
fn install(tiers: &[Tier]) -> Vec<String> {
    let mut problems = Vec::new();
    if tiers.iter().any(|tier| tier.needs_root()) {
        problems.extend(setup::for_system().err());
    } else {
        // The agent embeds the object.
        problems.extend(ebpf::ensure(&ebpf::Args { install: true }).err());
    }
    if tiers.contains(&Tier::Acceptance) {
        problems.extend(setup::for_cluster().err());
    }
    problems.iter().map(|problem| format!("{problem:#}")).collect()
}

fn skip(tier: Tier, obstacle: &tiers::Obstacle, strict: bool) -> anyhow::Result<Outcome> {
    progress::say(&format!("\nSKIP {}: {}", tier.name(), obstacle.reason));
    let skipped = Outcome { skipped: 1, ..Outcome::default() };
    if !strict {
        return Ok(skipped);
    }
    match skips::allowed(tier.name(), obstacle.need)? {
        Some(reason) => {
            progress::say(&format!("  allowed by tests/skips.toml: {reason}"));
            Ok(skipped)
        }
        None => {
            progress::say("  not allowed by tests/skips.toml: a failure under --strict");
            Ok(Outcome { failed: 1, ..Outcome::default() })
        }
    }
}
