//! The tiers of the tests, from the cheapest, with the needs of each.

use super::cargo::Tests;
use crate::{outcome::Outcome, root, setup, workspace};
use std::{fs, path::Path, process::Command};

/// A group of tests with the same needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tier {
    /// Functions and modules, in their crates.
    Unit,
    /// The parts of the test harness.
    Harness,
    /// The real binaries in network namespaces.
    System,
    /// A real one-node Kubernetes.
    Acceptance,
}

/// An unmet need of a tier.
pub(crate) struct Obstacle {
    /// Name of the need, as in tests/skips.toml.
    pub(crate) need: &'static str,
    /// Explanation for the user.
    pub(crate) reason: String,
}

impl Tier {
    /// All tiers, in the order in which they run.
    pub(crate) const ALL: [Self; 4] = [Self::Unit, Self::Harness, Self::System, Self::Acceptance];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Harness => "harness",
            Self::System => "system",
            Self::Acceptance => "acceptance",
        }
    }

    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Unit => "functions and modules",
            Self::Harness => "the fakes and namespaces that the other tiers use",
            Self::System => "the real binaries and the real eBPF programs in network namespaces",
            Self::Acceptance => "the manifests as shipped on a real one-node Kubernetes",
        }
    }

    pub(crate) fn needs_root(self) -> bool {
        self != Self::Unit
    }

    /// Returns the first need that this machine does not meet.
    pub(crate) fn obstacle(self) -> Option<Obstacle> {
        if self == Self::Unit {
            return None;
        }
        let mut needs: Vec<(&'static str, bool, &str)> = vec![
            ("root", root::is_possible(), "needs root, directly or through sudo"),
            ("bpf", has_bpf(), "needs a kernel with BTF (CONFIG_DEBUG_INFO_BTF) and bpffs"),
            ("iproute2", setup::has("ip"), "needs iproute2"),
        ];
        if self == Self::Acceptance {
            needs.push(("go", has_go(), "needs Go 1.26 in PATH to build Kubernetes"));
            needs.push(("containerd", setup::has("containerd") && setup::has("runc"), "needs containerd and runc"));
        }
        let unmet = needs.into_iter().find(|(_, met, _)| !met);
        unmet.map(|(need, _, reason)| Obstacle { need, reason: reason.to_owned() })
    }

    /// Runs the tier.
    pub(crate) fn run(self, tests: &Tests, only: Option<&str>) -> anyhow::Result<Outcome> {
        match self {
            Self::Unit => tests.run_units(only),
            // Each test has a node of its own; they wait most of the time, so three at a time fill two cores.
            Self::Harness | Self::System => tests.run_as_root(self.name(), only, 3),
            Self::Acceptance => tests.run_as_root(self.name(), only, 1),
        }
    }
}

fn has_bpf() -> bool {
    let known =
        fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.lines().any(|line| line.ends_with("\tbpf")));
    known && Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// Returns true if there is a Go that can read the module of Kubernetes. Debian 12's own is too old.
fn has_go() -> bool {
    let module = workspace::root().join("tests/fixtures/cluster/kube");
    let go = Command::new("go").args(["list", "-m"]).current_dir(module).output();
    go.is_ok_and(|output| output.status.success())
}
