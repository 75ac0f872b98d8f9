//! After a reboot, before the agent starts: only the rules of `deploy/boot/kiam-fence.service` are present.

use super::{Attacker, Control, expect_closed, host_network::HostPods, try_controls};
use crate::closed::boot::boot;
use kiam_tests::{node::topology::PodNetwork, system::datapath_scenario};

/// Routes by each kind of socket, with any source address that it allows.
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

/// A pod in its own network namespace is closed, also one whose interface is made at that time.
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

/// After a reboot and before the agent starts, a hostNetwork pod reaches the IMDS: rules cannot distinguish it from the
/// node's own processes. The agent closes it.
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
