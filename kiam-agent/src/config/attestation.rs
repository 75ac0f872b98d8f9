//! `--attestation` and `--kubepods-cgroup`.

use kiam_common::flags::{self, Problems};
use std::path::PathBuf;

/// Evidence for the pod of a connection. Pods on the node's network are identified by their cgroups in every mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attestation {
    /// The cgroup only.
    Require,
    /// The cgroup where the kernel can report it, else the address.
    Prefer,
    /// The address only.
    Off,
}

/// The location of the kubelet's cgroup for pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KubepodsAt {
    /// At the root of the v2 hierarchy, wherever that is mounted.
    Auto,
    /// At this path.
    Path(PathBuf),
}

/// Parses `--attestation` and `--kubepods-cgroup`.
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
