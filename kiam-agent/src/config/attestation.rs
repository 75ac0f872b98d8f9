//! How a connection's pod is known.

use crate::redirect::kubepods::KubepodsAt;
use kiam_common::flags::{self, Problems};

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
