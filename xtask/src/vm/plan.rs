//! What of the system tier runs in a guest: `tests/kernels.toml`.

use super::kernel::{self, Kernel};
use crate::workspace;
use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::fs;

const FILE: &str = "tests/kernels.toml";

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    /// Parts of the names of the tests that say most in little time, for every change.
    quick: Vec<String>,
    /// What says nothing about a kernel.
    #[serde(default)]
    elsewhere: Vec<Elsewhere>,
    /// What a kernel cannot do.
    #[serde(default)]
    skip: Vec<Entry>,
    /// What a kernel can do in its first network namespace alone: those tests have it for their node, one at a time.
    #[serde(default)]
    first: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    /// Part of the tests' names.
    tests: String,
    #[expect(dead_code, reason = "for whoever reads the file: an entry without a reason is refused")]
    reason: String,
}

/// Tests that are others on some kernels than on the rest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// As `--kernel` takes them.
    kernels: Vec<String>,
    /// Part of the tests' names.
    tests: String,
    reason: String,
}

impl Plan {
    /// Reads the file and holds it against the tests that there are.
    ///
    /// # Errors
    /// It does not parse, or an entry is about no test or no kernel.
    pub(super) fn read(tests: &[String]) -> anyhow::Result<Self> {
        let text = fs::read_to_string(workspace::root().join(FILE)).with_context(|| format!("reading {FILE}"))?;
        let plan: Self = toml::from_str(&text).with_context(|| format!("reading {FILE}"))?;
        let named = plan.elsewhere.iter().map(|entry| &entry.tests).chain(plan.entries().map(|entry| &entry.tests));
        for name in named.chain(&plan.quick) {
            if !tests.iter().any(|test| test.contains(name)) {
                bail!("{FILE}: no test's name contains {name}");
            }
        }
        for kernel in plan.entries().flat_map(|entry| &entry.kernels) {
            if !kernel::ALL.iter().any(|known| known.name == kernel) {
                bail!("{FILE}: there is no kernel {kernel}");
            }
        }
        Ok(plan)
    }

    /// The parts of names that run when it is to be quick.
    pub(super) fn quick(&self) -> &[String] {
        &self.quick
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.skip.iter().chain(&self.first)
    }

    /// The parts of names that do not run on this kernel.
    pub(super) fn left_out(&self, kernel: Kernel) -> impl Iterator<Item = &str> {
        let elsewhere = self.elsewhere.iter().map(|entry| entry.tests.as_str());
        elsewhere.chain(self.skips(kernel).map(|(tests, _)| tests))
    }

    /// What this kernel cannot do, and why.
    pub(super) fn skips(&self, kernel: Kernel) -> impl Iterator<Item = (&str, &str)> {
        of_kernel(&self.skip, kernel)
    }

    /// The parts of names that run in the first network namespace of this kernel, and why.
    pub(super) fn first(&self, kernel: Kernel) -> impl Iterator<Item = (&str, &str)> {
        of_kernel(&self.first, kernel)
    }
}

fn of_kernel(entries: &[Entry], kernel: Kernel) -> impl Iterator<Item = (&str, &str)> {
    let of_it = entries.iter().filter(move |entry| entry.kernels.iter().any(|name| name == kernel.name));
    of_it.map(|entry| (entry.tests.as_str(), entry.reason.as_str()))
}
