//! Packets to the node itself with the IMDS address as their source: the answer of a process of the node, or of its
//! kernel, goes to the real IMDS.

use super::{
    Attacker, Control, attack, everything,
    host_network::HostPods,
    networks::{pod_beside_uplink, wait_for_lines},
    script, through_the_states, try_controls,
};
use anyhow::{Result, ensure};
use kiam_tests::{
    clients::{BOTH, Pod, ROLES},
    fakes::canary::{NODE_ROLE, Packet},
    node::{
        process::Daemon,
        topology::{NODE_MAC, NODE_V4, NODE_V6, PodNetwork, Sender},
    },
    system::{System, datapath_scenario},
};

/// Packets to a process that answers, to a port without a listener, and to the kernel.
const VOLLEY: [&str; 10] = [
    "from-imds-tcp-v4",
    "from-imds-tcp-v6",
    "from-imds-tcp-closed-v4",
    "from-imds-tcp-closed-v6",
    "from-imds-udp-v4",
    "from-imds-udp-v6",
    "from-imds-udp-closed-v4",
    "from-imds-udp-closed-v6",
    "from-imds-ping-v4",
    "from-imds-ping-v6",
];
/// TCP flags (RFC 9293).
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

/// Starts a process of the node that answers, over TCP and UDP.
fn answering(system: &System) -> Result<Daemon> {
    let mut answer = system.topology.node.command(system.python.interpreter());
    let daemon = Daemon::spawn("answer", answer.arg(script("answer.py")), &system.folder().join("answer.log"))?;
    wait_for_lines(&daemon, "ready", 1)?;
    Ok(daemon)
}

#[test]
fn imds_as_source() {
    datapath_scenario(|system| {
        let _node_process = answering(system)?;
        let pod = system.topology.add_pod(1)?;
        through_the_states(system, &VOLLEY, Attacker::behind_veth(&pod), Control::Arrives)
    });
}

/// A pod sends with the IMDS address as its source, on a bridge that has the uplink as a port.
#[test]
fn imds_as_source_on_a_bridge_with_the_uplink() {
    datapath_scenario(|system| {
        let _node_process = answering(system)?;
        let pod = pod_beside_uplink(system)?;
        // Resolving the node's address would delay the packets.
        pod.ip_batch(
            &[NODE_V4.to_string(), NODE_V6.to_string()]
                .map(|node| format!("neigh replace {node} lladdr {NODE_MAC} dev eth0 nud permanent")),
        )?;
        system.agent_flags.push("--host-interface=veth+".to_owned());
        through_the_states(system, &VOLLEY, Attacker::behind_veth(&pod), Control::Arrives)
    });
}

/// Asserts that the node gets answers of the real IMDS, which also have its address as their source, by an interface
/// that the program is attached to.
fn expect_node_is_answered(add_pod: impl FnOnce(&System) -> Result<PodNetwork>, pattern: &str) {
    datapath_scenario(|system| {
        let _pod = add_pod(system)?;
        system.agent_flags.push(format!("--host-interface={pattern}"));
        system.spawn_agent()?.wait_armed()?;
        let node = &system.topology.node;
        for imds in BOTH {
            let answer = Pod::new(node).get(imds, ROLES)?;
            ensure!(answer.text() == NODE_ROLE, "a process of the node gets {answer:?} from {imds}");
        }
        system.canary.forget_closed(node, node)
    });
}

/// The real IMDS still answers the node if `--host-interface` matches the uplink.
#[test]
fn real_imds_answers_with_the_uplink_matched() {
    expect_node_is_answered(|system| system.topology.add_pod(1), "!eth1");
}

/// The real IMDS still answers the node if the uplink is a port of the pods' bridge.
#[test]
fn real_imds_answers_with_the_uplink_in_the_bridge() {
    expect_node_is_answered(pod_beside_uplink, "veth+");
}

/// Asserts that only the node's answers arrive, where the program does not judge the packet: no packet of the pod, none
/// that opens a connection, none to the port of the IMDS.
fn expect_answers_alone(system: &System, from: Attacker<'_>) -> Result<()> {
    let is_answer = |packet: &Packet| {
        let opens = packet.flags.is_some_and(|flags| flags & (ACK | RST) == 0);
        Sender::of(packet.source) == Sender::Node && packet.port != Some(80) && !opens
    };
    for route in VOLLEY {
        system.canary.forget();
        attack(system, from, route)?;
        system.canary.settle(&system.topology.node)?;
        let arrived = everything(system);
        ensure!(!arrived.is_empty(), "{route} is closed: remove it from the list of open states");
        ensure!(arrived.iter().all(is_answer), "{route}: {arrived:?}");
    }
    system.canary.forget_closed(&system.topology.node, &system.topology.node)
}

/// A hostNetwork pod sends with the IMDS address as its source. Its packets arrive by no interface of pods.
#[test]
fn imds_as_source_in_a_host_network_pod() {
    datapath_scenario(|system| {
        let _node_process = answering(system)?;
        let pods = HostPods::enforced_on(system)?;
        try_controls(system, &VOLLEY, pods.attacker(), Control::Arrives)?;
        system.spawn_agent()?.wait_armed()?;
        expect_answers_alone(system, pods.attacker())
    });
}

/// A pod sends with the IMDS address as its source, on a veth made while the agent is dead. The fence judges by the
/// destination only, and the node's own addresses precede any rule.
#[test]
fn imds_as_source_on_a_veth_made_without_an_agent() {
    datapath_scenario(|system| {
        let _node_process = answering(system)?;
        system.spawn_agent()?.wait_armed()?;
        system.agent()?.kill_both()?;
        let new = system.topology.add_pod(2)?;
        expect_answers_alone(system, Attacker::behind_veth(&new))
    });
}
