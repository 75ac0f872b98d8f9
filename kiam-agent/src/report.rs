//! What there is to tell of a node: what a running agent says of itself, over its probe socket ([`Report`]), and what
//! anybody finds in the kernel who looks ([`Kernel`]). Both are part of what `kiam-agent status --output json` prints, whose
//! shape `docs/agent.md` promises.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// What an interface is, as far as it matters for whose connections come by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InterfaceKind {
    /// The node's end of a pair: the kernel knows the sockets at the other end.
    Veth,
    /// A bridge: what is known of a connection is known at its ports.
    Bridge,
    /// Anything else, a virtual machine's for instance: the sockets behind it are another kernel's.
    Other,
}

/// An interface that pods are behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    /// The kernel's index, unique within the network namespace as long as it runs.
    pub(crate) index: u32,
    /// The interface's name.
    pub(crate) name: String,
    /// When the agent saw it appear: milliseconds of `CLOCK_MONOTONIC`. `None`: it was there before the agent.
    pub(crate) first_seen_ms: Option<u64>,
    /// Index of the bridge that it is a port of: connections come in by the bridge then.
    pub(crate) bridge: Option<u32>,
    /// What it is.
    pub(crate) kind: InterfaceKind,
}

/// How the datapath is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    /// What must hold for the agent to be ready.
    pub(crate) conditions: Vec<Condition>,
    /// Packets to M, by interface and reason; the interface is empty for those that the backstop dropped.
    pub(crate) packets: Vec<PacketCount>,
    /// How often something was found missing and set up again, by what it was.
    pub(crate) repairs: BTreeMap<String, u64>,
    /// What the node's owner should know although pods are served.
    pub(crate) notices: Vec<Notice>,
    /// What became of the last probes through the datapath.
    pub(crate) probes: Vec<ProbeResult>,
    /// How often the worker was started.
    pub(crate) worker_starts: u64,
    /// Connections answered by the parent because no worker ran.
    pub(crate) fallback_answers: u64,
}

/// One of the things that must hold for the agent to be ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Condition {
    /// What it is about: `listener`, `fence-ipv4`, …
    pub(crate) name: String,
    /// `None` when it holds, else what is wrong and what to do.
    pub(crate) problem: Option<String>,
}

/// Something that the node's owner should know, and that keeps nobody from being served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// What it is about: `foreign-program`, …
    pub(crate) about: String,
    /// What it is, and what to do.
    pub(crate) text: String,
}

/// What became of a probe through the datapath.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProbeResult {
    /// The address family.
    pub(crate) family: String,
    /// The listening socket has answered it.
    pub(crate) answered: bool,
}

/// A counter of the datapath.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PacketCount {
    /// The interface's name, empty for the backstop.
    pub(crate) interface: String,
    /// `kiam_common::abi::Reason::name`.
    pub(crate) reason: String,
    /// Packets since the maps were made.
    pub(crate) packets: u64,
}

/// An agent, as it tells of itself. There is nothing of a pod in it but what counters count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Pods are served; `kiam-agent health` says the same.
    pub(crate) ready: bool,
    /// Its version.
    pub(crate) version: String,
    /// Its datapath; `None` while another agent serves the node, or this one is just starting.
    pub(crate) datapath: Option<DatapathReport>,
    /// How that is, and the worker; its fields stand beside these.
    #[serde(flatten)]
    pub(crate) status: Status,
}

/// The part of a [`Report`] that exec probes read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Health {
    /// Pods are served.
    pub(crate) ready: bool,
    /// What must hold for that.
    pub(crate) conditions: Vec<Condition>,
}

/// The datapath that an agent keeps up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DatapathReport {
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

pub(crate) fn condition(name: &str, result: anyhow::Result<()>) -> Condition {
    Condition { name: name.to_owned(), problem: result.err().map(|error| format!("{error:#}")) }
}
