//! Pods that cannot be served by their interface or their address. With `--redirect=cgroup` they are served, as long as
//! they reach the node's address.

use super::{expect_nothing_at_the_canary, roles::expect_served};
use anyhow::Result;
use kiam_tests::{
    fakes::kube_api::{NamespaceObject, PodObject},
    node::{
        cgroups::{Driver, Kubepods, Qos},
        netns::Netns,
        topology::{
            HOST_SIDE_MAC, NODE_MAC, UPLINK_INTERFACE, UPLINK_MAC, UPLINK_V4, UPLINK_V6, wait_until_it_carries,
        },
    },
    system::{System, scenario},
};
use std::net::{Ipv4Addr, Ipv6Addr};

const POD_V4: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 50);
const POD_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, 0x50);
const POD_MAC: &str = "02:00:00:00:08:50";

/// Asserts that a pod with [`POD_V4`] and [`POD_V6`], on a network that `connect` makes, has its role.
fn expect_pod_served(connect: fn(&System, &Netns) -> Result<()>) {
    scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let network = Netns::create("elsewhere")?;
        connect(system, &network)?;
        wait_until_it_carries(&network, "eth0")?;
        system.kube.put_namespace(&NamespaceObject::permitting("open", ".*"));
        let object = PodObject::running("open", "reader", Some("reader"), POD_V4, POD_V6);
        let pod = kubepods.add_pod(&system.topology.node, &object.uid, Qos::Burstable)?;
        system.kube.put_pod(&object);
        system.agent_flags =
            vec!["--redirect=cgroup".to_owned(), format!("--kubepods-cgroup={}", kubepods.path().display())];
        system.start()?;
        expect_served(system, &pod, &network, "reader")?;
        expect_nothing_at_the_canary(system)
    });
}

/// Configures the pod's end, with the next hop of all its packets.
fn address(network: &Netns, gateway: (Ipv4Addr, Ipv6Addr), mac: &str) -> Result<()> {
    let (v4, v6) = gateway;
    network.ip_batch(&[
        format!("addr add {POD_V4}/32 dev eth0"),
        format!("addr add {POD_V6}/128 dev eth0 nodad"),
        "link set eth0 up".to_owned(),
        format!("neigh replace {v4} lladdr {mac} dev eth0 nud permanent"),
        format!("neigh replace {v6} lladdr {mac} dev eth0 nud permanent"),
        format!("route add {v4}/32 dev eth0"),
        format!("route add {v6}/128 dev eth0"),
        format!("route add default via {v4} dev eth0"),
        format!("route add ::/0 via {v6} dev eth0"),
    ])
}

/// Sets the return routes: from the node to the router, and from there to the pod.
fn route_back(system: &System, next_hop_mac: &str, interface: &str) -> Result<()> {
    system.topology.node.ip_batch(&[
        format!("route add {POD_V4}/32 via {UPLINK_V4}"),
        format!("route add {POD_V6}/128 via {UPLINK_V6}"),
    ])?;
    system.topology.uplink.ip_batch(&[
        format!("route add {POD_V4}/32 dev {interface}"),
        format!("route add {POD_V6}/128 dev {interface}"),
        format!("neigh replace {POD_V4} lladdr {next_hop_mac} dev {interface} nud permanent"),
        format!("neigh replace {POD_V6} lladdr {next_hop_mac} dev {interface} nud permanent"),
    ])
}

/// A pod as Multus makes it, which reaches the node through the router only.
#[test]
fn a_pod_with_a_macvlan_of_the_uplink() {
    expect_pod_served(|system, network| {
        let node = &system.topology.node;
        node.ip(&format!("link add child0 address {POD_MAC} link {UPLINK_INTERFACE} type macvlan mode private"))?;
        node.ip(&format!("link set child0 netns {} name eth0", network.name()))?;
        address(network, (UPLINK_V4, UPLINK_V6), UPLINK_MAC)?;
        route_back(system, POD_MAC, "eth0")
    });
}

/// Interface of such a pod, as the VPC CNI names it.
const VLAN: &str = "vlan0123456789a";
/// Next hops behind the uplink that only such pods use.
const TRUNK_V4: Ipv4Addr = Ipv4Addr::new(10, 8, 7, 2);
const TRUNK_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 8, 7, 0, 0, 0, 0, 2);
/// Gateway of the pod.
const GATEWAY: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(169, 254, 1, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// A pod as the VPC CNI makes it with security groups of its own in strict mode: all packets of the pod leave by
/// another uplink, including those to the node itself, and all packets to the pod arrive by it.
#[test]
fn a_pod_with_security_groups_in_strict_mode() {
    expect_pod_served(|system, network| {
        let (node, uplink) = (&system.topology.node, &system.topology.uplink);
        node.ip_batch(&[
            format!(
                "link add eth1 address {NODE_MAC} type veth peer name eth1 address {UPLINK_MAC} netns {}",
                uplink.name()
            ),
            format!(
                "link add {VLAN} address {HOST_SIDE_MAC} type veth peer name eth0 address {POD_MAC} netns {}",
                network.name()
            ),
            "link set eth1 up".to_owned(),
            format!("link set {VLAN} up"),
        ])?;
        uplink.ip("link set eth1 up")?;
        // Packets of the node to the pod come back to it from its own address, such as those of the kubelet's probes.
        node.sysctl("net.ipv4.conf.eth1.accept_local", "1")?;
        // The CNI's `DISABLE_TCP_EARLY_DEMUX=true`: a packet that has found its socket is not forwarded (`ip_forward`).
        node.sysctl("net.ipv4.tcp_early_demux", "0")?;
        address(network, GATEWAY, HOST_SIDE_MAC)?;
        route_around(node, "-4", &POD_V4.to_string(), &TRUNK_V4.to_string())?;
        route_around(node, "-6", &POD_V6.to_string(), &TRUNK_V6.to_string())?;
        route_back(system, NODE_MAC, "eth1")
    });
}

/// Routes between the pod and its uplink, past the node's own addresses.
fn route_around(node: &Netns, family: &str, pod: &str, trunk: &str) -> Result<()> {
    let ip = |line: &str| node.ip(&format!("{family} {line}")).map(drop);
    ip(&format!("route add {trunk} dev eth1 table 101"))?;
    ip(&format!("route add default via {trunk} dev eth1 table 101 onlink"))?;
    ip(&format!("route add {pod} dev {VLAN} table 101"))?;
    ip(&format!("neigh replace {trunk} lladdr {UPLINK_MAC} dev eth1 nud permanent"))?;
    ip(&format!("neigh replace {pod} lladdr {POD_MAC} dev {VLAN} nud permanent"))?;
    ip(&format!("rule add pref 10 iif {VLAN} lookup 101"))?;
    ip("rule add pref 10 iif eth1 lookup 101")?;
    ip("rule add pref 512 lookup local")?;
    ip("rule del pref 0 lookup local")
}

/// An IPv4 address as the VPC CNI gives it to a pod of an IPv6 cluster: Kubernetes does not have the address.
#[test]
fn a_pod_of_an_ipv6_cluster() {
    const EGRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 172, 5);
    expect_pod_served(|system, network| {
        system.topology.node.ip_batch(&[
            format!(
                "link add veth0 address {HOST_SIDE_MAC} type veth peer name eth0 address {POD_MAC} netns {}",
                network.name()
            ),
            "link set veth0 up".to_owned(),
            format!("route add {EGRESS}/32 dev veth0"),
            format!("route add {POD_V6}/128 dev veth0"),
            format!("neigh replace {EGRESS} lladdr {POD_MAC} dev veth0 nud permanent"),
            format!("neigh replace {POD_V6} lladdr {POD_MAC} dev veth0 nud permanent"),
        ])?;
        address(network, GATEWAY, HOST_SIDE_MAC)?;
        network.ip(&format!("addr add {EGRESS}/32 dev eth0"))?;
        network.ip(&format!("route replace default via {} dev eth0 src {EGRESS}", GATEWAY.0)).map(drop)
    });
}
