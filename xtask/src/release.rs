//! Builds optimised binaries, for benchmarks and for emulated processors.

use crate::{progress, workspace};
use std::{path::PathBuf, process::Command};

/// Builds binaries and returns their folder.
///
/// # Errors
/// They do not compile.
pub(crate) fn build(binaries: &[&str]) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--locked", "--release", "--workspace"]).current_dir(workspace::root());
    cargo.args(binaries.iter().flat_map(|binary| ["--bin", binary]));
    progress::step("building for release", &mut cargo)?;
    Ok(workspace::target().join("release"))
}
