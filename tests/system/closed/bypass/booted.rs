//! After a reboot, before the agent: nothing is there but what `deploy/boot/kiam-fence.service` sets.

use super::{Attacker, Control, expect_closed, host_network::HostPods, try_controls};
use crate::closed::boot::boot;
use kiam_tests::{node::topology::PodNetwork, system::datapath_scenario};

/// By each kind of socket, with whatever it can say of its source.
const VOLLEY: [&str; 10] = [
    "tcp-v4",
    "tcp-v6",
    "udp-v4",
    "udp-v6",
    "icmp-v4",
    "icmp-v6",
    "raw-fragment-later",
    "packet-syn-v4",
    "packet-syn-v6",
    "source-other",
];

/// A pod in its own network namespace, also one whose interface is made by then.
#[test]
fn after_a_reboot_before_the_agent() {
    datapath_scenario(|system| {
        let pod = system.topology.add_pod(1)?;
        try_controls(system, &VOLLEY, Attacker::behind_veth(&pod), Control::Arrives)?;
        system.canary.forget_closed(&system.topology.node, &pod)?;
        boot(&system.topology.node)?;
        let closed = |pod: &PodNetwork| expect_closed(system, &VOLLEY, Attacker::behind_veth(pod), "before the agent");
        closed(&pod)?;
        closed(&system.topology.add_pod(2)?)
    });
}

/// A pod on the node's network: rules cannot tell it from the node's own processes. The agent closes it.
/// After a reboot and before the agent starts, a hostNetwork pod reaches the IMDS.
#[test]
fn host_network_pod_is_open_before_the_agent_starts() {
    datapath_scenario(|system| {
        let pods = HostPods::enforced_on(system)?;
        boot(&system.topology.node)?;
        try_controls(system, &VOLLEY, pods.attacker(), Control::Arrives)?;
        system.canary.forget_closed(&system.topology.node, &system.topology.node)?;
        system.spawn_agent()?.wait_armed()?;
        expect_closed(system, &VOLLEY, pods.attacker(), "while the agent serves")
    });
}
