//! Pods whose interface is a child of the node's uplink (macvlan, ipvlan; as Multus makes them): their packets pass
//! neither the fence nor the program. Under enforcement the guard recognises them by their cgroup.

use super::{Attacker, Control, host_network::HostPods, through_the_states, tunnels::has_link};
use anyhow::Result;
use kiam_tests::{
    node::{
        netns::Netns,
        topology::{NODE_MAC, UPLINK_INTERFACE, UPLINK_MAC, UPLINK_V4, UPLINK_V6},
    },
    system::{System, datapath_scenario},
};

/// Routes for packets built by the kernel, and for frames of the child's own.
const VOLLEY: [&str; 7] =
    ["tcp-v4", "tcp-v6", "udp-v4", "icmp-v6", "raw-syn-v4", "packet-syn-v4", "packet-qdisc-bypass"];
/// Number of these routes for a child without next hops: on Linux 5.10 the packets of the last one never leave it.
const LAYER_3: usize = 6;

fn child(kind: &str, next_hops: bool) {
    datapath_scenario(|system| {
        if !has_link(&system.topology.node, &format!("child0 link {UPLINK_INTERFACE} type {kind}"))? {
            return Ok(());
        }
        let netns = Netns::create("child")?;
        connect(system, &netns, next_hops)?;
        let pods = HostPods::enforced_on(system)?;
        let from = Attacker { netns: Some(&netns), ..pods.attacker() };
        let volley = if next_hops { &VOLLEY[..] } else { &VOLLEY[..LAYER_3] };
        through_the_states(system, volley, from, Control::Arrives)
    });
}

/// Moves the child into the pod's namespace, and routes packets for the IMDS to it.
fn connect(system: &System, netns: &Netns, next_hops: bool) -> Result<()> {
    system.topology.node.ip(&format!("link set child0 netns {} name eth0", netns.name()))?;
    let mut lines = vec![
        "link set eth0 up".to_owned(),
        "addr add 10.8.0.50/24 dev eth0".to_owned(),
        "addr add fd00:8::50/64 dev eth0 nodad".to_owned(),
    ];
    if next_hops {
        lines.extend([
            format!("neigh replace {UPLINK_V4} lladdr {UPLINK_MAC} dev eth0 nud permanent"),
            format!("neigh replace {UPLINK_V6} lladdr {UPLINK_MAC} dev eth0 nud permanent"),
        ]);
    } else {
        // Such a child has no neighbour entry. The uplink would report an error to itself for each answer.
        system.topology.uplink.ip_batch(&[
            format!("neigh replace 10.8.0.50 lladdr {NODE_MAC} dev eth0 nud permanent"),
            format!("neigh replace fd00:8::50 lladdr {NODE_MAC} dev eth0 nud permanent"),
        ])?;
    }
    lines.extend([format!("route add default via {UPLINK_V4}"), format!("route add ::/0 via {UPLINK_V6} dev eth0")]);
    netns.ip_batch(&lines)?;
    kiam_tests::node::topology::wait_until_it_carries(netns, "eth0")
}

#[test]
fn macvlan_bridge() {
    child("macvlan mode bridge", true);
}

#[test]
fn macvlan_private() {
    child("macvlan mode private", true);
}

#[test]
fn ipvlan_l2() {
    child("ipvlan mode l2", true);
}

/// The kernel routes the child's packets in the node's own namespace, as if the node had sent them.
#[test]
fn ipvlan_l3() {
    child("ipvlan mode l3", false);
}

#[test]
fn ipvlan_l3s() {
    child("ipvlan mode l3s", false);
}
