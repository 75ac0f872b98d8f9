//! Other routes of a process on the node's network: another interface than the uplink, or a namespace of its own.

use super::{
    Attacker, Control, expect_closed, host_network::HostPods, networks::pod_beside_uplink, through_the_states,
};
use anyhow::Result;
use kiam_tests::{
    node::{netns::Netns, topology::UPLINK_INTERFACE},
    system::{System, datapath_scenario},
};

/// Routes for each network: packets that the kernel routes, and packets that it does not.
const VOLLEY: [&str; 5] = ["tcp-v4", "tcp-v6", "udp-v4", "raw-syn-v6", "packet-syn-v4"];
/// MAC address of the first pod's end of its veth.
const POD_MAC: &str = "02:00:00:00:09:01";

/// A neighbour pod forwards the packets that it receives.
#[test]
fn a_neighbour_as_next_hop() {
    datapath_scenario(|system| {
        let neighbour = system.topology.add_pod(1)?;
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            neighbour.sysctl(key, "1")?;
        }
        let pods = HostPods::enforced_on(system)?;
        let from = Attacker { interface: "cali1", next_hop: POD_MAC, ..pods.attacker() };
        through_the_states(system, &["source-other"], from, Control::Arrives)
    });
}

/// The bridge has the node's address, and the uplink is one of its ports.
#[test]
fn a_bridge_with_the_uplink_in_it() {
    datapath_scenario(|system| {
        let _beside = pod_beside_uplink(system)?;
        let pods = HostPods::enforced_on(system)?;
        let by_bridge = Attacker { interface: "br0", ..pods.attacker() };
        super::try_controls(system, &["packet-syn-v4"], pods.attacker(), Control::Arrives)?;
        through_the_states(system, &VOLLEY, by_bridge, Control::Arrives)?;
        let by_port = Attacker { interface: UPLINK_INTERFACE, ..pods.attacker() };
        expect_closed(system, &["packet-syn-v4", "packet-qdisc-bypass"], by_port, "by the port itself")
    });
}

#[test]
fn a_namespace_behind_the_pod() {
    datapath_scenario(|system| {
        let pods = HostPods::enforced_on(system)?;
        let inner = namespace_behind_node(system)?;
        let from = Attacker { netns: Some(&inner), ..pods.attacker() };
        through_the_states(system, &VOLLEY[..4], from, Control::Arrives)
    });
}

/// Makes a namespace as a pod with CAP_NET_ADMIN can: behind no interface of the agent's pattern, with routes through
/// the node.
fn namespace_behind_node(system: &System) -> Result<Netns> {
    let (node, inner) = (&system.topology.node, Netns::create("inner")?);
    inner.ip_batch(&[
        format!("link add eth0 type veth peer name inner0 netns {}", node.name()),
        "addr add 10.9.0.77/32 dev eth0".to_owned(),
        "addr add fd00:9::77/128 dev eth0 nodad".to_owned(),
        "link set eth0 up".to_owned(),
        "route add 10.9.0.254 dev eth0 scope link".to_owned(),
        "route add default via 10.9.0.254".to_owned(),
        "route add fd00:9::fffe dev eth0".to_owned(),
        "route add ::/0 via fd00:9::fffe dev eth0".to_owned(),
    ])?;
    node.ip_batch(&[
        "addr add 10.9.0.254/32 dev inner0".to_owned(),
        "addr add fd00:9::fffe/128 dev inner0 nodad".to_owned(),
        "link set inner0 up".to_owned(),
        "route add 10.9.0.77/32 dev inner0".to_owned(),
        "route add fd00:9::77/128 dev inner0".to_owned(),
    ])?;
    kiam_tests::node::topology::wait_until_it_carries(&inner, "eth0")?;
    Ok(inner)
}
