//! `cargo xtask test --mutate`: takes out each layer, one at a time, in a copy of the sources, and expects the layer's
//! test to fail for the right reason: a packet in a place where there may be no packet, rather than an unserved pod.
//!
//! The copy has its own target folder, so that a mutant never replaces the real programs, even if this process is killed.
//! For cargo the copy is the same workspace: in a shared folder mutants would count as fresh.

use super::cargo;
use crate::{ebpf, progress, setup, workspace};
use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const FILE: &str = "tests/mutations.toml";

#[derive(Deserialize)]
struct Mutations {
    mutation: Vec<Mutation>,
}

/// An edit that takes out a layer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    /// Name of the layer.
    name: String,
    /// Replacements in the sources.
    edit: Vec<Edit>,
    /// Test of the system tier that must fail.
    test: String,
    /// Text that the test must print: one of the harness's messages about a leak.
    red: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: String,
    find: String,
    replace: String,
}

pub(super) fn run(only: Option<&str>) -> anyhow::Result<()> {
    setup::for_system()?;
    let tests = cargo::build()?;
    let text = fs::read_to_string(workspace::root().join(FILE)).with_context(|| format!("reading {FILE}"))?;
    let Mutations { mutation: mutations } = toml::from_str(&text).with_context(|| format!("reading {FILE}"))?;
    let chosen: Vec<&Mutation> =
        mutations.iter().filter(|mutation| only.is_none_or(|only| mutation.name.contains(only))).collect();
    let wrong = not_red(&chosen, &tests)?;
    progress::say(&format!("\n{} passed, {} failed, 0 skipped", chosen.len() - wrong.len(), wrong.len()));
    if !wrong.is_empty() {
        bail!("no test failed for the right reason: {}", wrong.join(", "));
    }
    if chosen.is_empty() { bail!("no mutation ran") } else { Ok(()) }
}

/// Returns the names of the mutations without a test that fails for the right reason.
fn not_red<'a>(mutations: &[&'a Mutation], tests: &cargo::Tests) -> anyhow::Result<Vec<&'a str>> {
    let mut wrong = Vec::new();
    for mutation in mutations {
        if !is_red(mutation, tests)? {
            wrong.push(mutation.name.as_str());
        }
    }
    Ok(wrong)
}

fn is_red(mutation: &Mutation, tests: &cargo::Tests) -> anyhow::Result<bool> {
    let binaries = build(mutation).with_context(|| format!("building without {}", mutation.name))?;
    let problem = check(mutation, tests, &binaries)?;
    match &problem {
        None => progress::say(&format!("✓ without {}: {} prints «{}»", mutation.name, mutation.test, mutation.red)),
        Some(problem) => progress::say(&format!("✗ without {}: {problem}", mutation.name)),
    }
    Ok(problem.is_none())
}

/// Returns the reason why the test does not count as failed under the mutation, if there is one.
fn check(mutation: &Mutation, tests: &cargo::Tests, binaries: &Path) -> anyhow::Result<Option<String>> {
    let mut command = tests.command("system")?;
    command.env("KIAM_BIN_DIR", binaries).args(["--exact", &mutation.test, "--nocapture", "--test-threads=1"]);
    let output = command.output().context("starting the system tier")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if text.contains("running 0 tests") {
        return Ok(Some(format!("there is no test {}", mutation.test)));
    }
    if output.status.success() {
        return Ok(Some(format!("{} still passes", mutation.test)));
    }
    if !text.contains(&mutation.red) {
        return Ok(Some(format!("{} fails, but does not print «{}»:\n{text}", mutation.test, mutation.red)));
    }
    Ok(None)
}

/// Builds the mutated binaries from a copy of the sources, and returns their folder.
fn build(mutation: &Mutation) -> anyhow::Result<PathBuf> {
    let (copy, target) = (workspace::target().join("mutants/source"), workspace::target().join("mutants/target"));
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    workspace::copy_sources(&copy)?;
    for Edit { file, find, replace } in &mutation.edit {
        let path = copy.join(file);
        let source = fs::read_to_string(&path).with_context(|| format!("reading {file}"))?;
        if source.matches(find.as_str()).count() != 1 {
            bail!("{file} does not contain this text exactly once; update {FILE}:\n{find}");
        }
        fs::write(&path, source.replace(find.as_str(), replace))?;
    }
    ebpf::build_in(&copy, &target)?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--locked", "--workspace", "--bin", "kiam-agent", "--bin", "kiam-server"]);
    // The agent must embed the object of the copy, even if the environment names another one.
    cargo.env("CARGO_TARGET_DIR", &target).env_remove(ebpf::OVERRIDE).current_dir(&copy);
    progress::step(&format!("building without {}", mutation.name), &mut cargo)?;
    Ok(target.join("debug"))
}
