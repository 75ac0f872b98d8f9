//! What there is to tell of a node: what a running agent says of itself, over its probe socket ([`Report`]), and what
//! anybody finds in the kernel who looks ([`Kernel`]). Both are part of what `kiam-agent status --output json` prints, whose
//! shape `docs/agent.md` promises.

use crate::handoff::Status;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// An agent, as it tells of itself. There is nothing of a pod in it but what counters count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Pods are served; `kiam-agent health` says the same.
    pub(crate) ready: bool,
    /// Its version.
    pub(crate) version: String,
    /// Its datapath; `None` while another agent serves the node, or this one is just starting.
    pub(crate) datapath: Option<Datapath>,
    /// How that is, and the worker; its fields stand beside these.
    #[serde(flatten)]
    pub(crate) status: Status,
}

/// The datapath that an agent keeps up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Datapath {
    /// The number of this agent's claim.
    pub(crate) generation: u64,
    /// What was chosen, and why.
    pub(crate) choices: Vec<Choice>,
    /// Below which cgroup pods are, where programs know it.
    pub(crate) kubepods: Option<PathBuf>,
    /// The interfaces that pods are behind, those that lead out, and those that are matched in vain.
    pub(crate) interfaces: Vec<InterfaceReport>,
    /// The programs that are loaded, attached or not.
    pub(crate) programs: Vec<ProgramReport>,
}

/// What a flag came to on this node, or what was found out about the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    /// The flag; or, without `--`, what of the kernel.
    pub(crate) what: String,
    /// What was asked for; `None` where nobody is asked.
    pub(crate) given: Option<String>,
    /// What is in use.
    pub(crate) in_use: String,
    /// Why that.
    pub(crate) why: String,
}

/// An interface that matters here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InterfaceReport {
    /// The kernel's index.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// What it is: `veth`, `bridge`, `guest` (a virtual machine's, or the like) or `other`.
    pub(crate) kind: String,
    /// What it is to us, one or two: `pod`, `port` (of a bridge that pods are behind), `uplink`, `probe` (our own), `unfit`.
    pub(crate) roles: Vec<String>,
    /// The bridge that it is a port of.
    pub(crate) bridge: Option<String>,
    /// The programs that the agent has put on it.
    pub(crate) programs: Vec<String>,
    /// Why there is none although `--host-interface` matches it.
    pub(crate) problem: Option<String>,
}

/// A loaded program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgramReport {
    /// Its name.
    pub(crate) name: String,
    /// The kernel's number of it, as `bpftool prog` shows it.
    pub(crate) id: u32,
}

/// What of kiam's is in the kernel, with an agent or without one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Kernel {
    /// Whose the datapath is, or was last.
    pub(crate) owner: Option<OwnerReport>,
    /// Everything that is pinned.
    pub(crate) pins: Vec<PathBuf>,
    /// The programs that are attached.
    pub(crate) attached: Vec<Attached>,
    /// The fence, of each family that the kernel has.
    pub(crate) fence: Vec<FenceReport>,
    /// The pods that keep the node's role.
    pub(crate) exempt: Vec<ExemptReport>,
}

/// A pod that keeps the node's role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ExemptReport {
    /// The identifier of its cgroup.
    pub(crate) cgroup: u64,
    /// Its UID, if there is such a cgroup.
    pub(crate) pod: Option<String>,
    /// Why it is exempt: `service-account`, or `agent`.
    pub(crate) why: String,
}

/// The agent that claimed the datapath last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct OwnerReport {
    /// The number of its claim.
    pub(crate) generation: u64,
    /// Its `--run-dir`.
    pub(crate) run_dir: String,
}

/// An attached program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Attached {
    /// Its name.
    pub(crate) program: String,
    /// The kernel's number of it.
    pub(crate) id: u32,
    /// `tcx/ingress`, `tcx/egress`, `clsact/ingress`, `clsact/egress`, `netns/sk_lookup` or `cgroup`.
    pub(crate) hook: String,
    /// The interface that it is on; its index, if it has gone. Of the hooks of interfaces.
    pub(crate) interface: Option<String>,
    /// The kernel's number of the link; of all hooks but clsact.
    pub(crate) link: Option<u32>,
    /// Where the link is pinned.
    pub(crate) pin: Option<PathBuf>,
    /// The filter's preference; of clsact.
    pub(crate) preference: Option<u32>,
    /// The filter's handle; of clsact.
    pub(crate) handle: Option<u32>,
}

/// The fence of a family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FenceReport {
    /// `IPv4` or `IPv6`.
    pub(crate) family: String,
    /// The preferences of those of its rules that stand: 5, 6 and 7 when it is whole.
    pub(crate) rules: Vec<u32>,
    /// Those of them that were set when the node booted, and not by an agent.
    pub(crate) at_boot: Vec<u32>,
    /// What packets to M meet in its table: `local`, `blackhole`, or nothing.
    pub(crate) verdict: Option<String>,
    /// The rules of others that come before it, and may let pods' packets by.
    pub(crate) ahead: Vec<String>,
}

impl FenceReport {
    /// Whether it keeps pods' packets in.
    pub(crate) const fn stands(&self) -> bool {
        self.rules.len() == FENCE_RULES && self.verdict.is_some()
    }
}

/// The rules of a fence that is whole.
const FENCE_RULES: usize = 3;
