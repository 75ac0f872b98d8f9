//! What a class of machine cannot do: the skips that `--strict` lets pass.

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

/// Shows the list.
pub(super) fn print() -> anyhow::Result<()> {
    progress::say(&format!("what {FILE} lets be skipped:"));
    for Skip { tier, need, reason } in read()? {
        progress::say(&format!("  {tier}, where {need} is missing: {reason}"));
    }
    Ok(())
}

/// Why the tier may be skipped for want of `need`, if it may.
pub(super) fn allowed(tier: &str, need: &str) -> anyhow::Result<Option<String>> {
    Ok(read()?.into_iter().find(|skip| skip.tier == tier && skip.need == need).map(|skip| skip.reason))
}

fn read() -> anyhow::Result<Vec<Skip>> {
    let text = fs::read_to_string(workspace::root().join(FILE)).with_context(|| format!("reading {FILE}"))?;
    let skips: Skips = toml::from_str(&text).with_context(|| format!("reading {FILE}"))?;
    Ok(skips.skip)
}
