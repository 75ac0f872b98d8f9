//! `--redirect` and `--host-network-pods`.

use kiam_common::flags::Problems;

/// Redirection of pods' connections to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RedirectMode {
    /// True to use a TC program on each interface with pods behind it.
    pub(crate) tc: bool,
    /// True to use hooks on the kubepods cgroup.
    pub(crate) cgroup: bool,
    /// True if the agent chose the mode.
    pub(crate) auto: bool,
}

impl RedirectMode {
    /// Returns the reason for the choice of `auto`.
    pub(crate) const fn why(self) -> &'static str {
        if self.cgroup {
            "tc, and cgroup because --host-network-pods=enforce needs it"
        } else {
            "tc alone: with --host-network-pods=ignore the cgroup hooks would have nothing to do"
        }
    }
}

/// Treatment of pods on the node's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostNetworkPods {
    /// They count as processes of the node and keep the node role.
    Ignore,
    /// They get only the role in their annotation.
    Enforce,
}

/// Parses `--redirect` and `--host-network-pods`, which must be compatible.
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
        "tc" if enforce => {
            Err("only cgroup hooks can redirect hostNetwork pods: --host-network-pods=enforce needs tc,cgroup")
        }
        "tc" => Ok(RedirectMode { tc: true, cgroup: false, auto: false }),
        "cgroup" => Ok(RedirectMode { tc: false, cgroup: true, auto: false }),
        "tc,cgroup" | "cgroup,tc" => Ok(RedirectMode { tc: true, cgroup: true, auto: false }),
        _ => Err("not one of auto, tc, cgroup, tc,cgroup"),
    });
    mode.zip(pods)
}
