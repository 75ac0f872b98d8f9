//! Packets to the node itself that say they come from M: what a process of the node answers, or its kernel, goes to the
//! real metadata service.

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

/// To a process that answers, to nobody, and to the kernel.
const VOLLEY: [&str; 10] = [
    "from-m-tcp-v4",
    "from-m-tcp-v6",
    "from-m-tcp-closed-v4",
    "from-m-tcp-closed-v6",
    "from-m-udp-v4",
    "from-m-udp-v6",
    "from-m-udp-closed-v4",
    "from-m-udp-closed-v6",
    "from-m-ping-v4",
    "from-m-ping-v6",
];
/// TCP flags (RFC 9293).
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

/// A process of the node that answers, over TCP and UDP.
fn answering(system: &System) -> Result<Daemon> {
    let mut answer = system.topology.node.command(system.python.interpreter());
    let daemon = Daemon::spawn("answer", answer.arg(script("answer.py")), &system.folder().join("answer.log"))?;
    wait_for_lines(&daemon, "ready", 1)?;
    Ok(daemon)
}

#[test]
fn a_source_that_is_m() {
    datapath_scenario(|system| {
        let _node_process = answering(system)?;
        let pod = system.topology.add_pod(1)?;
        through_the_states(system, &VOLLEY, Attacker::behind_veth(&pod), Control::Arrives)
    });
}

#[test]
fn a_source_that_is_m_on_a_bridge_with_the_uplink_in_it() {
    datapath_scenario(|system| {
        let _node_process = answering(system)?;
        let pod = pod_beside_uplink(system)?;
        // Looking the node up would hold the packets back for a while.
        pod.ip_batch(
            &[NODE_V4.to_string(), NODE_V6.to_string()]
                .map(|node| format!("neigh replace {node} lladdr {NODE_MAC} dev eth0 nud permanent")),
        )?;
        system.agent_flags.push("--host-interface=veth+".to_owned());
        through_the_states(system, &VOLLEY, Attacker::behind_veth(&pod), Control::Arrives)
    });
}

/// What the real service sends comes from M, too: to the node, by an interface that the program is on.
fn expect_node_is_answered(add_pod: impl FnOnce(&System) -> Result<PodNetwork>, pattern: &str) {
    datapath_scenario(|system| {
        let _pod = add_pod(system)?;
        system.agent_flags.push(format!("--host-interface={pattern}"));
        system.spawn_agent()?.wait_armed()?;
        let node = &system.topology.node;
        for m in BOTH {
            let answer = Pod::new(node).get(m, ROLES)?;
            ensure!(answer.text() == NODE_ROLE, "a process of the node gets {answer:?} from {m}");
        }
        system.canary.forget_closed(node, node)
    });
}

#[test]
fn the_real_service_answers_a_node_whose_uplink_is_matched() {
    expect_node_is_answered(|system| system.topology.add_pod(1), "!eth1");
}

#[test]
fn the_real_service_answers_a_node_whose_uplink_is_in_the_pods_bridge() {
    expect_node_is_answered(pod_beside_uplink, "veth+");
}

/// Where the program does not judge the packet, the node's answers get there, and nothing else does: no packet of the
/// pod's, nothing that opens a connection, nothing to the service's port.
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
        ensure!(!arrived.is_empty(), "{route} is closed: say so where it is said to be open");
        ensure!(arrived.iter().all(is_answer), "{route}: {arrived:?}");
    }
    system.canary.forget_closed(&system.topology.node, &system.topology.node)
}

/// Its packets come by no interface that pods are behind.
#[test]
fn a_source_that_is_m_of_a_pod_on_the_nodes_network() {
    datapath_scenario(|system| {
        let _node_process = answering(system)?;
        let pods = HostPods::enforced_on(system)?;
        try_controls(system, &VOLLEY, pods.attacker(), Control::Arrives)?;
        system.spawn_agent()?.wait_armed()?;
        expect_answers_alone(system, pods.attacker())
    });
}

/// The fence judges by destination alone, and an address of the node's own comes before any rule.
#[test]
fn a_source_that_is_m_on_a_veth_made_while_the_agent_is_dead() {
    datapath_scenario(|system| {
        let _node_process = answering(system)?;
        system.spawn_agent()?.wait_armed()?;
        system.agent()?.kill_both()?;
        let new = system.topology.add_pod(2)?;
        expect_answers_alone(system, Attacker::behind_veth(&new))
    });
}
