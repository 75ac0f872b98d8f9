//! The column «a pod on the node's network under enforcement».

use super::{Attacker, Control, through_the_states};
use anyhow::Result;
use kiam_tests::{
    node::cgroups::{Driver, Kubepods, PodCgroup, Qos},
    system::{System, datapath_scenario},
};

/// UIDs of the two pods.
const UIDS: [&str; 2] = ["11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"];

/// The node's control groups, with two pods on its network.
#[derive(Debug)]
pub(super) struct HostPods {
    // Dropped in this order: a group with a process in it cannot be removed.
    pub(super) pod: PodCgroup,
    pub(super) other: PodCgroup,
    pub(super) kubepods: Kubepods,
}

impl HostPods {
    /// Makes them, and sets the flags that make the next agent enforce.
    pub(super) fn enforced_on(system: &mut System) -> Result<Self> {
        let kubepods = Kubepods::create(Driver::Systemd)?;
        let node = &system.topology.node;
        let (pod, other) =
            (kubepods.add_pod(node, UIDS[0], Qos::Burstable)?, kubepods.add_pod(node, UIDS[1], Qos::Guaranteed)?);
        system.agent_flags.push("--host-network-pods=enforce".to_owned());
        system.agent_flags.push(format!("--kubepods-cgroup={}", kubepods.path().display()));
        Ok(Self { pod, other, kubepods })
    }

    /// Returns an attacker in the first pod.
    pub(super) fn attacker(&self) -> Attacker<'_> {
        Attacker::on_node(&self.pod)
    }
}

/// Runs one cell of the column.
pub(super) fn host_network(route: &str, control: Control) {
    datapath_scenario(|system| {
        let pods = HostPods::enforced_on(system)?;
        through_the_states(system, &[route], pods.attacker(), control)
    });
}
