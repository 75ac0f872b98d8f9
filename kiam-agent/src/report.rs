//! The state of a node: the report that a running agent sends over its status socket ([`Report`]), and the inventory of
//! the kernel ([`Kernel`]). `kiam-agent status --output json` prints both; `docs/agent.md` promises the format.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Kind of an interface, as far as it matters for attribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InterfaceKind {
    /// The node's end of a veth pair: the sockets at the other end belong to this kernel.
    Veth,
    /// A bridge: connection records belong to its ports.
    Bridge,
    /// Any other, for instance that of a virtual machine: the sockets behind it belong to another kernel.
    Other,
}

/// An interface that leads to pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    /// The kernel's index, unique within the network namespace as long as the node runs.
    pub(crate) index: u32,
    /// Name of the interface.
    pub(crate) name: String,
    /// Time at which the agent saw it appear: milliseconds of `CLOCK_MONOTONIC`. `None` if it is older than the agent.
    pub(crate) first_seen_ms: Option<u64>,
    /// Index of the bridge that it is a port of; its connections arrive by the bridge.
    pub(crate) bridge: Option<u32>,
    /// Kind of the interface.
    pub(crate) kind: InterfaceKind,
}

/// State of an agent and its datapath.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Conditions for the agent to be ready.
    pub(crate) conditions: Vec<Condition>,
    /// Packets to IMDS by interface and reason. The interface is empty for the backstop, the guard and the hooks.
    pub(crate) packets: Vec<PacketCount>,
    /// Number of repairs by the name of the repaired part.
    pub(crate) repairs: BTreeMap<String, u64>,
    /// Warnings for the operator that do not affect readiness.
    pub(crate) notices: Vec<Notice>,
    /// Results of the last reachability probes.
    pub(crate) probes: Vec<ProbeResult>,
    /// Number of starts of the worker.
    pub(crate) worker_starts: u64,
    /// Number of connections that the parent answered because no worker ran.
    pub(crate) fallback_answers: u64,
}

/// One of the conditions for the agent to be ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Condition {
    /// Name: `listener`, `fence-ipv4`, …
    pub(crate) name: String,
    /// `None` if the condition is met, else the problem and what to do.
    pub(crate) problem: Option<String>,
}

/// A warning for the operator that does not affect readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// Subject: `foreign-program`, …
    pub(crate) about: String,
    /// The problem, and what to do.
    pub(crate) text: String,
}

/// Result of a reachability probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProbeResult {
    /// Address family.
    pub(crate) family: String,
    /// True if the listening socket has answered.
    pub(crate) answered: bool,
}

/// A packet counter of the datapath.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PacketCount {
    /// Name of the interface; empty for the backstop, the guard and the hooks.
    pub(crate) interface: String,
    /// Name of the `kiam_common::abi::Reason`.
    pub(crate) reason: String,
    /// Packets since the maps were created.
    pub(crate) packets: u64,
}

/// The report of an agent. The only facts about pods in it are counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Pods are served; the exit code of `kiam-agent health`.
    pub(crate) ready: bool,
    /// Version of the agent.
    pub(crate) version: String,
    /// Its datapath; `None` while another agent is active, or this one is starting.
    pub(crate) datapath: Option<DatapathReport>,
    /// State of the datapath and the worker; its fields are on the same level as these.
    #[serde(flatten)]
    pub(crate) status: Status,
}

/// The part of a [`Report`] that exec probes read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Health {
    /// Pods are served.
    pub(crate) ready: bool,
    /// Conditions for that.
    pub(crate) conditions: Vec<Condition>,
}

/// The datapath of the active agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DatapathReport {
    /// Number of this agent's claim.
    pub(crate) generation: u64,
    /// Choices of the agent, with reasons.
    pub(crate) choices: Vec<Choice>,
    /// The kubepods cgroup, if the programs use it.
    pub(crate) kubepods: Option<PathBuf>,
    /// The interfaces that lead to pods, the uplinks, and those that match `--host-interface` but cannot be used.
    pub(crate) interfaces: Vec<InterfaceReport>,
    /// The loaded programs, attached or not.
    pub(crate) programs: Vec<ProgramReport>,
}

/// Effect of a flag on this node, or a detected property of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    /// The flag, or, without `--`, the property of the kernel.
    pub(crate) what: String,
    /// Value of the flag; `None` for a property of the kernel.
    pub(crate) given: Option<String>,
    /// Value in use.
    pub(crate) in_use: String,
    /// Reason.
    pub(crate) why: String,
}

/// An interface that matters to the datapath.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InterfaceReport {
    /// The kernel's index.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// Kind: `veth`, `bridge`, `guest` (of a virtual machine or the like) or `other`.
    pub(crate) kind: String,
    /// Roles, one or two: `pod`, `port` (of a bridge that leads to pods), `uplink`, `probe` (the agent's own), `unfit`.
    pub(crate) roles: Vec<String>,
    /// Name of the bridge that it is a port of.
    pub(crate) bridge: Option<String>,
    /// Programs that the agent has attached to it.
    pub(crate) programs: Vec<String>,
    /// Reason why it has no program although `--host-interface` matches it.
    pub(crate) problem: Option<String>,
}

/// A loaded program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgramReport {
    /// Its name.
    pub(crate) name: String,
    /// The kernel's number, as `bpftool prog` shows it.
    pub(crate) id: u32,
}

/// Kiam's objects in the kernel, whether an agent runs or not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Kernel {
    /// Owner of the datapath, present or last.
    pub(crate) owner: Option<OwnerReport>,
    /// All pins.
    pub(crate) pins: Vec<PathBuf>,
    /// The attached programs.
    pub(crate) attached: Vec<Attached>,
    /// The fence of each address family that the kernel has.
    pub(crate) fence: Vec<FenceReport>,
    /// The pods that keep the node role.
    pub(crate) exempt: Vec<ExemptReport>,
}

/// A pod that keeps the node role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ExemptReport {
    /// Identifier of its cgroup.
    pub(crate) cgroup: u64,
    /// UID of the pod, if the cgroup exists.
    pub(crate) pod: Option<String>,
    /// Reason: `service-account` or `agent`.
    pub(crate) why: String,
}

/// The agent that claimed the datapath last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct OwnerReport {
    /// Number of its claim.
    pub(crate) generation: u64,
    /// Its `--run-dir`.
    pub(crate) run_dir: String,
}

/// An attached program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Attached {
    /// Its name.
    pub(crate) program: String,
    /// The kernel's number.
    pub(crate) id: u32,
    /// `tcx/ingress`, `tcx/egress`, `clsact/ingress`, `clsact/egress`, `netns/sk_lookup` or `cgroup`.
    pub(crate) hook: String,
    /// For hooks of interfaces: name of the interface, or its index if it no longer exists.
    pub(crate) interface: Option<String>,
    /// For all hooks but clsact: the kernel's number of the link.
    pub(crate) link: Option<u32>,
    /// Path of the link's pin.
    pub(crate) pin: Option<PathBuf>,
    /// For clsact: preference of the filter.
    pub(crate) preference: Option<u32>,
    /// For clsact: handle of the filter.
    pub(crate) handle: Option<u32>,
}

/// The fence of an address family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FenceReport {
    /// `IPv4` or `IPv6`.
    pub(crate) family: String,
    /// Preferences of its present rules: 5, 6 and 7 if it is complete.
    pub(crate) rules: Vec<u32>,
    /// Preferences of the rules that were added at boot and not by an agent.
    pub(crate) at_boot: Vec<u32>,
    /// Route for IMDS in its table: `local`, `blackhole`, or absent.
    pub(crate) verdict: Option<String>,
    /// Foreign rules with a higher priority, which may let pods' packets pass.
    pub(crate) ahead: Vec<String>,
}

impl FenceReport {
    /// Returns whether it keeps pods' packets on the node.
    pub(crate) const fn stands(&self) -> bool {
        self.rules.len() == FENCE_RULES && self.verdict.is_some()
    }
}

/// Number of rules of a complete fence.
const FENCE_RULES: usize = 3;

/// Creates a condition that is met if the result is `Ok`.
pub(crate) fn condition(name: &str, result: anyhow::Result<()>) -> Condition {
    Condition { name: name.to_owned(), problem: result.err().map(|error| format!("{error:#}")) }
}
