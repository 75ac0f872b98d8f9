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
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    /// Part of the tests' names.
    tests: String,
    #[expect(dead_code, reason = "for whoever reads the file: an entry without a reason is refused")]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
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
        let named = plan.elsewhere.iter().map(|entry| &entry.tests).chain(plan.skip.iter().map(|entry| &entry.tests));
        for name in named.chain(&plan.quick) {
            if !tests.iter().any(|test| test.contains(name)) {
                bail!("{FILE}: no test's name contains {name}");
            }
        }
        for kernel in plan.skip.iter().flat_map(|skip| &skip.kernels) {
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

    /// The parts of names that do not run on this kernel.
    pub(super) fn left_out(&self, kernel: Kernel) -> impl Iterator<Item = &str> {
        let elsewhere = self.elsewhere.iter().map(|entry| entry.tests.as_str());
        elsewhere.chain(self.skips(kernel).map(|(tests, _)| tests))
    }

    /// What this kernel cannot do, and why.
    pub(super) fn skips(&self, kernel: Kernel) -> impl Iterator<Item = (&str, &str)> {
        let of_it = self.skip.iter().filter(move |skip| skip.kernels.iter().any(|name| name == kernel.name));
        of_it.map(|skip| (skip.tests.as_str(), skip.reason.as_str()))
    }
}
