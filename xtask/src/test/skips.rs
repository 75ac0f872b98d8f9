//! The skips that `--strict` allows: needs that a class of machines cannot meet.

use crate::{progress, workspace};
use anyhow::Context as _;
use serde::Deserialize;
use std::fs;

const FILE: &str = "tests/skips.toml";

#[derive(Deserialize)]
struct Skips {
    #[serde(default)]
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
    tier: String,
    need: String,
    reason: String,
}

/// Prints the list.
pub(super) fn print() -> anyhow::Result<()> {
    progress::say(&format!("{FILE} allows these skips:"));
    for Skip { tier, need, reason } in read()? {
        progress::say(&format!("  {tier}, if {need} is missing: {reason}"));
    }
    Ok(())
}

/// Returns the reason why the tier may be skipped if `need` is missing; `None` if it may not.
pub(super) fn allowed(tier: &str, need: &str) -> anyhow::Result<Option<String>> {
    Ok(read()?.into_iter().find(|skip| skip.tier == tier && skip.need == need).map(|skip| skip.reason))
}

fn read() -> anyhow::Result<Vec<Skip>> {
    let text = fs::read_to_string(workspace::root().join(FILE)).with_context(|| format!("reading {FILE}"))?;
    let skips: Skips = toml::from_str(&text).with_context(|| format!("reading {FILE}"))?;
    Ok(skips.skip)
}
