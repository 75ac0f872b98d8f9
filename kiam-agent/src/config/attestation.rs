//! How a connection's pod is known.

use kiam_common::flags::{self, Problems};
use std::path::PathBuf;

/// How a connection's pod is known. Pods on the node's network are known by their cgroups alone, whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attestation {
    /// By its cgroup, always.
    Require,
    /// By its cgroup where the kernel can tell it, else by its address.
    Prefer,
    /// By its address.
    Off,
}

/// Where to look for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KubepodsAt {
    /// At the root of the v2 hierarchy, wherever that is mounted.
    Auto,
    /// Here.
    Path(PathBuf),
}

/// What is to be attested, and where pods' cgroups are.
pub(super) fn parse(mode: &str, kubepods: &str, problems: &mut Problems) -> Option<(Attestation, KubepodsAt)> {
    let mode = problems.value("--attestation", mode, |text| match text {
        "require" => Ok(Attestation::Require),
        "prefer" => Ok(Attestation::Prefer),
        "off" => Ok(Attestation::Off),
        _ => Err("not one of require, prefer, off"),
    });
    let kubepods = problems.value("--kubepods-cgroup", kubepods, |text| match text {
        "auto" => Ok(KubepodsAt::Auto),
        _ => flags::absolute_path(text).map(KubepodsAt::Path),
    });
    mode.zip(kubepods)
}
