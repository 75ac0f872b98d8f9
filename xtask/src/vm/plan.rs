//! The tests of the system tier that run in a guest: `tests/kernels.toml`.

use super::kernel::{self, Kernel};
use crate::workspace;
use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::fs;

const FILE: &str = "tests/kernels.toml";

/// Contents of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    /// Parts of the names of the tests that run for every change, because they cover most in little time.
    quick: Vec<String>,
    /// Tests that do not depend on the kernel.
    #[serde(default)]
    elsewhere: Vec<Elsewhere>,
    /// Tests that a kernel does not support.
    #[serde(default)]
    skip: Vec<Entry>,
    /// Tests that a kernel supports only in its first network namespace: that is their node, for one test at a time.
    #[serde(default)]
    first: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    /// Part of the names of the tests.
    tests: String,
    #[expect(dead_code, reason = "for readers of the file: an entry must have a reason")]
    reason: String,
}

/// Tests that run differently on some kernels.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Names of the kernels, as in `--kernel`.
    kernels: Vec<String>,
    /// Part of the names of the tests.
    tests: String,
    reason: String,
}

impl Plan {
    /// Reads the file, and checks that the tests that it names exist.
    ///
    /// # Errors
    /// The file does not parse, or names a test or kernel that does not exist.
    pub(super) fn read(tests: &[String]) -> anyhow::Result<Self> {
        let text = fs::read_to_string(workspace::root().join(FILE)).with_context(|| format!("reading {FILE}"))?;
        let plan: Self = toml::from_str(&text).with_context(|| format!("reading {FILE}"))?;
        let named = plan.elsewhere.iter().map(|entry| &entry.tests).chain(plan.entries().map(|entry| &entry.tests));
        for name in named.chain(&plan.quick) {
            if !tests.iter().any(|test| test.contains(name)) {
                bail!("{FILE}: no test has {name} in its name");
            }
        }
        for kernel in plan.entries().flat_map(|entry| &entry.kernels) {
            if !kernel::ALL.iter().any(|known| known.name == kernel) {
                bail!("{FILE}: there is no kernel {kernel}");
            }
        }
        Ok(plan)
    }

    /// Returns the parts of names that are quick.
    pub(super) fn quick(&self) -> &[String] {
        &self.quick
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.skip.iter().chain(&self.first)
    }

    /// Returns the parts of names that do not run on this kernel.
    pub(super) fn left_out(&self, kernel: Kernel) -> impl Iterator<Item = &str> {
        let elsewhere = self.elsewhere.iter().map(|entry| entry.tests.as_str());
        elsewhere.chain(self.skips(kernel).map(|(tests, _)| tests))
    }

    /// Returns the parts of names that this kernel does not support, each with the reason.
    pub(super) fn skips(&self, kernel: Kernel) -> impl Iterator<Item = (&str, &str)> {
        of_kernel(&self.skip, kernel)
    }

    /// Returns the parts of names that run in the first network namespace of this kernel, each with the reason.
    pub(super) fn first(&self, kernel: Kernel) -> impl Iterator<Item = (&str, &str)> {
        of_kernel(&self.first, kernel)
    }
}

fn of_kernel(entries: &[Entry], kernel: Kernel) -> impl Iterator<Item = (&str, &str)> {
    let of_kernel = entries.iter().filter(move |entry| entry.kernels.iter().any(|name| name == kernel.name));
    of_kernel.map(|entry| (entry.tests.as_str(), entry.reason.as_str()))
}
