//! `cargo xtask test --mutate`: takes each layer out, one at a time, in a copy of the sources, and sees the test that
//! guards it go red for the right reason: a packet where none may be, not «nobody is served».
//!
//! The copy has a target folder of its own, so that no mutant is ever where the real programs are, however this ends. To
//! cargo the copy is the same workspace: in a shared folder the mutants would count as fresh.

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

/// A layer taken out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    /// What is taken out.
    name: String,
    /// How.
    edit: Vec<Edit>,
    /// The test of the system tier that must go red.
    test: String,
    /// What it must say: one of the harness's words for a leak.
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
        bail!("not seen red for the right reason: {}", wrong.join(", "));
    }
    if chosen.is_empty() { bail!("no mutation ran") } else { Ok(()) }
}

/// The names of those whose test does not go red for the right reason.
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
        None => progress::say(&format!("✓ without {}: {} says «{}»", mutation.name, mutation.test, mutation.red)),
        Some(problem) => progress::say(&format!("✗ without {}: {problem}", mutation.name)),
    }
    Ok(problem.is_none())
}

/// What is wrong with the test's behaviour under the mutation, if anything.
fn check(mutation: &Mutation, tests: &cargo::Tests, binaries: &Path) -> anyhow::Result<Option<String>> {
    let mut command = tests.command("system")?;
    command.env("KIAM_BIN_DIR", binaries).args(["--exact", &mutation.test, "--nocapture", "--test-threads=1"]);
    let output = command.output().context("starting the system tier")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if text.contains("running 0 tests") {
        return Ok(Some(format!("there is no test {}", mutation.test)));
    }
    if output.status.success() {
        return Ok(Some(format!("{} stays green", mutation.test)));
    }
    if !text.contains(&mutation.red) {
        return Ok(Some(format!("{} fails, but does not say «{}»:\n{text}", mutation.test, mutation.red)));
    }
    Ok(None)
}

/// Builds the mutated binaries out of a copy of the sources; returns the folder they are in.
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
            bail!("{file} does not hold this exactly once, so {FILE} is out of date:\n{find}");
        }
        fs::write(&path, source.replace(find.as_str(), replace))?;
    }
    ebpf::build_in(&copy, &target)?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--locked", "--workspace", "--bin", "kiam-agent", "--bin", "kiam-server"]);
    // The object of the copy, also where the environment names another one.
    cargo.env("CARGO_TARGET_DIR", &target).env_remove(ebpf::OVERRIDE).current_dir(&copy);
    progress::step(&format!("building without {}", mutation.name), &mut cargo)?;
    Ok(target.join("debug"))
}
