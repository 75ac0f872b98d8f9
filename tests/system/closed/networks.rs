//! Nodes with other routing: pods are served, none of their packets leaks, and the node's own route to the real IMDS
//! works before, during and after.

use crate::support::{expect_nothing, expect_role};
use anyhow::{Result, ensure};
use kiam_tests::{
    clients::{BOTH, IMDS4, IMDS6, Pod, ROLES},
    fakes::canary::NODE_ROLE,
    leaks,
    node::{
        netns::Netns,
        process,
        topology::{IMDS_V4, NEIGHBOUR_V4, PodNetwork, UPLINK_V4, UPLINK_V6},
    },
    system::{System, scenario},
};
use std::net::IpAddr;

/// Asserts that the real IMDS answers the node itself.
fn expect_own_way(system: &System, when: &str, families: &[IpAddr]) -> Result<()> {
    for &imds in families {
        let answer = Pod::new(&system.topology.node).get(imds, ROLES)?;
        ensure!(answer.text() == NODE_ROLE, "{when}, the node gets {answer:?} from {imds}");
    }
    Ok(())
}

/// Runs one pod through the life of an agent, on a node prepared by the caller.
fn served_and_closed(system: &mut System, families: &[IpAddr]) -> Result<PodNetwork> {
    expect_own_way(system, "before", families)?;
    let pod = system.add_pod(1, "reader")?;
    system.start()?;
    for &imds in families {
        system.wait_for_role(&pod, imds, "reader")?;
    }
    expect_own_way(system, "while the agent serves", families)?;
    system.agent()?.kill_both()?;
    expect_nothing(system, &pod)?;
    expect_own_way(system, "while the agent is dead", families)?;
    system.clean_up()?;
    expect_own_way(system, "after the cleanup", families)?;
    system.canary.forget();
    system.start_agent()?;
    for &imds in families {
        system.wait_for_role(&pod, imds, "reader")?;
    }
    Ok(pod)
}

fn with_rp_filter(value: &str) {
    scenario(|system| {
        for scope in ["all", "default", "eth0"] {
            system.topology.node.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), value)?;
        }
        served_and_closed(system, &BOTH).map(drop)
    });
}

#[test]
fn strict_reverse_path_filter() {
    with_rp_filter("1");
}

#[test]
fn loose_reverse_path_filter() {
    with_rp_filter("2");
}

/// Policy routing of the VPC CNI: a rule for the pod's address sends its packets by another uplink than the node's.
#[test]
fn a_second_uplink_with_policy_routing() {
    scenario(|system| {
        let (node, uplink) = (&system.topology.node, &system.topology.uplink);
        node.ip_batch(&[
            format!("link add eth1 type veth peer name eth1 netns {}", uplink.name()),
            "addr add 10.8.2.1/24 dev eth1".to_owned(),
            "link set eth1 up".to_owned(),
        ])?;
        uplink.ip_batch(&["addr add 10.8.2.2/24 dev eth1".to_owned(), "link set eth1 up".to_owned()])?;
        node.ip_batch(&[
            "route add default via 10.8.2.2 dev eth1 table 2".to_owned(),
            // Before the fence by number, after it by the packets that it selects.
            "rule add pref 512 to 10.9.0.1 lookup main".to_owned(),
            "rule add pref 1536 from 10.9.0.1 lookup 2".to_owned(),
        ])?;
        let pod = served_and_closed(system, &BOTH)?;
        // Without the fence's rules the pod's packets leave by the second uplink, unless the program or the guard stops
        // them.
        system.agent()?.kill_both()?;
        let node = &system.topology.node;
        for family in ["-4", "-6"] {
            for preference in [6, 5, 7] {
                node.ip(&format!("{family} rule del pref {preference}"))?;
            }
        }
        expect_nothing(system, &pod)
    });
}

#[test]
fn default_route_outside_the_main_table() {
    scenario(|system| {
        system.topology.node.ip_batch(&[
            "route del default".to_owned(),
            format!("route del {IMDS_V4}/32"),
            format!("route add default via {UPLINK_V4} dev eth0 table 100"),
            "rule add pref 33000 lookup 100".to_owned(),
        ])?;
        served_and_closed(system, &BOTH).map(drop)
    });
}

#[test]
fn pods_with_ipv6_only() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        pod.ip(&format!("addr del {}/32 dev eth0", pod.v4))?;
        system.start()?;
        system.wait_for_role(&pod, IMDS6, "reader")?;
        system.agent()?.kill_both()?;
        expect_nothing(system, &pod)?;
        expect_own_way(system, "while the agent is dead", &BOTH)
    });
}

#[test]
fn a_node_with_ipv6_off() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        for scope in ["all", "default", "lo"] {
            system.topology.node.sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "1")?;
        }
        expect_own_way(system, "before", &[IMDS4])?;
        system.start()?;
        system.wait_for_role(&pod, IMDS4, "reader")?;
        expect_own_way(system, "while the agent serves", &[IMDS4])?;
        ensure!(Pod::new(&pod).attempt(IMDS6, ROLES, kiam_tests::clients::VAIN)?.answer().is_none(), "IPv6 is served");
        Ok(())
    });
}

/// A second host on the node's network has the IMDS on its own link. The node, on which the IMDS address is local now,
/// must not answer ARP for it.
#[test]
fn neighbour_host_keeps_its_route_to_the_imds() {
    scenario(|system| {
        let host = beside_the_node(system)?;
        expect_way_of(&host)?;
        let pod = system.serving_pod("reader")?;
        expect_role(&pod, "reader")?;
        for _ in 0..20 {
            host.ip("neigh flush dev eth0")?;
            expect_way_of(&host)?;
        }
        Ok(())
    });
}

fn beside_the_node(system: &System) -> Result<Netns> {
    let host = Netns::create("host")?;
    let uplink = &system.topology.uplink;
    uplink.ip_batch(&[
        "link add br0 address 02:00:00:00:08:02 type bridge forward_delay 0".to_owned(),
        format!("addr del {UPLINK_V4}/24 dev eth0"),
        format!("addr del {UPLINK_V6}/64 dev eth0"),
        "link set eth0 master br0".to_owned(),
        format!("link add host type veth peer name eth0 netns {}", host.name()),
        "link set host master br0".to_owned(),
        "link set host up".to_owned(),
        "link set br0 up".to_owned(),
        format!("addr add {UPLINK_V4}/24 dev br0"),
        format!("addr add {UPLINK_V6}/64 dev br0 nodad"),
        "neigh replace 10.8.0.1 lladdr 02:00:00:00:08:01 dev br0 nud permanent".to_owned(),
        "neigh replace fd00:8::1 lladdr 02:00:00:00:08:01 dev br0 nud permanent".to_owned(),
        "route replace 10.9.0.0/24 via 10.8.0.1".to_owned(),
        "route replace fd00:9::/64 via fd00:8::1".to_owned(),
    ])?;
    host.ip_batch(&[
        format!("addr add {NEIGHBOUR_V4}/24 dev eth0"),
        "link set eth0 up".to_owned(),
        format!("route add {IMDS_V4}/32 dev eth0"),
    ])?;
    Ok(host)
}

/// Asserts that the host resolves the IMDS address to the real one, which answers.
fn expect_way_of(host: &Netns) -> Result<()> {
    let answer = Pod::new(host).get(IMDS4, ROLES);
    let neighbours = process::run(host.command("ip").args(["neigh", "show", &IMDS_V4.to_string()]))?;
    ensure!(
        neighbours.contains("02:00:00:00:08:02"),
        "{}: the node answers for the IMDS address on the network: {neighbours}",
        leaks::BYSTANDER
    );
    let answer = answer?;
    ensure!(answer.text() == NODE_ROLE, "the other host gets {answer:?}");
    Ok(())
}
