//! By which means pods' connections are caught, and whose.

use kiam_common::flags::Problems;

/// The means of the redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RedirectMode {
    /// A TC program on each interface that pods are behind.
    pub(crate) tc: bool,
    /// Hooks on the kubepods cgroup.
    pub(crate) cgroup: bool,
    /// It was left to the agent.
    pub(crate) auto: bool,
}

impl RedirectMode {
    /// Why `auto` chose this.
    pub(crate) const fn why(self) -> &'static str {
        if self.cgroup {
            "tc, and cgroup because --host-network-pods=enforce needs it"
        } else {
            "tc alone: with --host-network-pods=ignore the cgroup hooks would have nothing to do"
        }
    }
}

/// What becomes of pods on the node's own network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostNetworkPods {
    /// They are the node's processes, and keep its role.
    Ignore,
    /// They are pods like others.
    Enforce,
}

/// Reads `--redirect` and `--host-network-pods`, which must go together.
pub(super) fn parse(
    redirect: &str,
    host_network_pods: &str,
    problems: &mut Problems,
) -> Option<(RedirectMode, HostNetworkPods)> {
    let pods = problems.value("--host-network-pods", host_network_pods, |text| match text {
        "ignore" => Ok(HostNetworkPods::Ignore),
        "enforce" => Ok(HostNetworkPods::Enforce),
        _ => Err("neither ignore nor enforce"),
    });
    let enforce = pods == Some(HostNetworkPods::Enforce);
    let mode = problems.value("--redirect", redirect, |text| match text {
        "auto" => Ok(RedirectMode { tc: true, cgroup: enforce, auto: true }),
        "tc" if enforce => Err("only cgroup hooks see hostNetwork pods: --host-network-pods=enforce needs tc,cgroup"),
        "tc" => Ok(RedirectMode { tc: true, cgroup: false, auto: false }),
        "cgroup" => Ok(RedirectMode { tc: false, cgroup: true, auto: false }),
        "tc,cgroup" | "cgroup,tc" => Ok(RedirectMode { tc: true, cgroup: true, auto: false }),
        _ => Err("not one of auto, tc, cgroup, tc,cgroup"),
    });
    mode.zip(pods)
}
