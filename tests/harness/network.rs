//! Namespaces, the path of a packet from a pod to the canary, and the count by sender.

use kiam_tests::{
    clients::{BOTH, Connection, IMDS4, Pod, ROLES, Reply, VAIN},
    fakes::canary::{ACCESS_KEY_ID, Canary, NODE_ROLE},
    leaks,
    node::{
        netns::Netns,
        topology::{Sender, Topology},
    },
};
use std::{net::SocketAddr, path::Path};

#[test]
fn a_namespace_is_gone_when_dropped() {
    let netns = Netns::create("gone").unwrap();
    let path = netns.path().to_owned();
    assert!(path.exists());
    drop(netns);
    assert!(!path.exists());
}

/// With nothing in the way, a pod reaches the canary and its packets are counted.
#[test]
fn unhindered_pod_reaches_the_canary() {
    let topology = Topology::create().unwrap();
    let canary = Canary::start(&topology.uplink).unwrap();
    let pod = topology.add_pod(1).unwrap();
    for imds in BOTH {
        let answer = Pod::new(&pod).get(imds, &format!("{ROLES}{NODE_ROLE}")).unwrap();
        assert_eq!(answer.json().unwrap()["AccessKeyId"], ACCESS_KEY_ID);
        assert_eq!(Pod::new(&pod).token(imds).unwrap(), "canary-token");
        canary.settle(&topology.node).unwrap();
        let packets = canary.packets_from(pod.address_like(imds));
        assert!(packets.len() >= 6, "two connections have at least six packets: {packets:?}");
        assert!(packets.iter().all(|packet| packet.port == Some(80)), "{packets:?}");
    }
    assert_eq!(canary.requests().len(), 4);
    let leak = canary.expect_none_from_pods(&topology.node).unwrap_err().to_string();
    assert!(leak.starts_with(leaks::CANARY), "{leak}");
}

#[test]
fn the_control_forgets_what_it_caused() {
    let topology = Topology::create().unwrap();
    let canary = Canary::start(&topology.uplink).unwrap();
    let pod = topology.add_pod(1).unwrap();
    canary.control_reaches(&topology, &pod).unwrap();
    canary.expect_none_from_pods(&topology.node).unwrap();
}

#[test]
fn the_nodes_packets_are_not_the_pods() {
    let topology = Topology::create().unwrap();
    let canary = Canary::start(&topology.uplink).unwrap();
    for imds in BOTH {
        assert_eq!(Pod::new(&topology.node).get(imds, ROLES).unwrap().text(), NODE_ROLE);
    }
    canary.expect_none_from_pods(&topology.node).unwrap();
    assert!(!canary.packets_of(Sender::Node).is_empty());
}

/// A single packet of a pod is a leak, even without a connection.
#[test]
fn single_packet_of_a_pod_is_a_leak() {
    let topology = Topology::create().unwrap();
    let canary = Canary::start(&topology.uplink).unwrap();
    let pod = topology.add_pod(1).unwrap();
    Pod::new(&pod)
        .run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            Ok(socket.send_to(b"x", SocketAddr::new(IMDS4, 53))?)
        })
        .unwrap();
    canary.settle(&topology.node).unwrap();
    assert_eq!(canary.packets_from(pod.v4.into()).len(), 1);
    assert!(canary.expect_none_from_pods(&topology.node).is_err());
}

#[test]
fn two_topologies_are_isolated() {
    let (one, two) = (Topology::create().unwrap(), Topology::create().unwrap());
    let (canary_one, canary_two) = (Canary::start(&one.uplink).unwrap(), Canary::start(&two.uplink).unwrap());
    let pod = one.add_pod(1).unwrap();
    Pod::new(&pod).get(IMDS4, ROLES).unwrap();
    canary_one.settle(&one.node).unwrap();
    canary_two.expect_none_from_pods(&two.node).unwrap();
    assert_eq!(canary_one.requests().len(), 1);
}

#[test]
fn there_is_no_route_to_this_machine() {
    let topology = Topology::create().unwrap();
    let pod = topology.add_pod(1).unwrap();
    let ours = kiam_tests::node::owner::Owner::this().unwrap().prefix();
    for netns in [&topology.uplink, &topology.node, &pod] {
        for link in netns.ip("-o link show").unwrap().lines().filter(|link| !link.contains(": lo:")) {
            // The output names the namespace of the other end of a veth.
            assert!(link.contains(&format!("link-netns {ours}-")), "{link}");
        }
    }
}

#[test]
fn replies_distinguish_refused_silent_closed() {
    let topology = Topology::create().unwrap();
    let pod = topology.add_pod(1).unwrap();
    let attempt = || Pod::new(&pod).attempt(IMDS4, ROLES, VAIN).unwrap();
    // Without a canary, the IMDS is an address of the uplink without a listener.
    assert_eq!(attempt(), Reply::Refused);
    topology.node.ip("route replace blackhole 169.254.169.254/32").unwrap();
    assert_eq!(attempt(), Reply::Silent);
}

#[test]
fn a_connection_keeps_its_source_port() {
    let topology = Topology::create().unwrap();
    let _canary = Canary::start(&topology.uplink).unwrap();
    let pod = topology.add_pod(1).unwrap();
    let port = Pod::new(&pod)
        .run(|| {
            let mut connection = Connection::finish(Connection::begin(IMDS4, Some(20_000))?, VAIN)?;
            connection.send("GET", ROLES, &[])?;
            assert_eq!(connection.answer()?.status, 200);
            connection.send("GET", ROLES, &[])?;
            assert_eq!(connection.answer()?.status, 200);
            connection.source_port()
        })
        .unwrap();
    assert_eq!(port, 20_000);
}

#[test]
fn leftovers_of_a_dead_run_are_reaped() {
    // The owner is an impossible process: pids end at 2^22 (proc_sys_kernel(5), pid_max).
    let name = "kiam-4194305-1-0-dead";
    let status = std::process::Command::new("ip").args(["netns", "add", name]).status().unwrap();
    assert!(status.success());
    let folder = Path::new(kiam_tests::node::owner::ROOT).join(name);
    std::fs::create_dir_all(folder.join("below")).unwrap();
    kiam_tests::node::leftovers::reap().unwrap();
    assert!(!Path::new("/run/netns").join(name).exists());
    assert!(!folder.exists());
}
