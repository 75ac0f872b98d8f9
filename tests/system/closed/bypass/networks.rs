//! Routes around the agent that networks create: another next hop, a bridge with the uplink as a port, a namespace
//! behind a pod.

use super::{
    Attacker, Control, attack_with, expect_nothing_at_all, judge_control, script, through_the_states, try_controls,
};
use anyhow::{Result, ensure};
use kiam_tests::{
    eventually::eventually,
    node::{
        netns::Netns,
        process::{self, Daemon},
        topology::{
            NODE_V4, NODE_V6, PodNetwork, UPLINK_INTERFACE, UPLINK_MAC, UPLINK_V4, UPLINK_V6, wait_until_it_carries,
        },
    },
    system::{SOON, System, datapath_scenario},
};

/// Routes for each network: packets that the pod's kernel routes, and packets that it does not.
const VOLLEY: [&str; 6] = ["tcp-v4", "tcp-v6", "udp-v4", "icmp-v6", "raw-syn-v4", "raw-fragment-later"];

/// Tries them from a pod in a network.
fn expect_closed(system: &mut System, from: &Netns, control: Control) -> Result<()> {
    through_the_states(system, &VOLLEY, Attacker::behind_veth(from), control)
}

/// Routes packets for the IMDS to another next hop, in both families.
fn route_imds(pod: &PodNetwork, v4: &str, v6: &str) -> Result<()> {
    pod.ip_batch(&[
        format!("route replace 169.254.169.254/32 {v4} dev eth0"),
        format!("route replace fd00:ec2::254/128 {v6} dev eth0"),
    ])
}

#[test]
fn a_neighbour_as_next_hop() {
    datapath_scenario(|system| {
        system.topology.add_bridge("cni0")?;
        let (pod, neighbour) = (system.topology.add_pod_on(1, "cni0")?, system.topology.add_pod_on(2, "cni0")?);
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            neighbour.sysctl(key, "1")?;
        }
        route_imds(&pod, &format!("via {}", neighbour.v4), &format!("via {}", neighbour.v6))?;
        system.agent_flags.push("--host-interface=cni0".to_owned());
        expect_closed(system, &pod, Control::Arrives)
    });
}

/// A neighbour on the bridge decapsulates packets and forwards them.
#[test]
fn neighbour_on_the_bridge_that_decapsulates() {
    datapath_scenario(|system| {
        system.topology.add_bridge("cni0")?;
        let (pod, neighbour) = (system.topology.add_pod_on(1, "cni0")?, system.topology.add_pod_on(2, "cni0")?);
        system.agent_flags.push("--host-interface=cni0".to_owned());
        let mut unpack = neighbour.command(system.python.interpreter());
        let relay = Daemon::spawn("relay", unpack.arg(script("relay.py")), &system.folder().join("relay.log"))?;
        wait_for_lines(&relay, "ready", 1)?;
        let mut sent = 0;
        let mut send = |system: &System| {
            sent += 1;
            let tunnel = ["ip-in-ip", "--tunnel-to", &neighbour.v4.to_string()];
            attack_with(system, Attacker::behind_veth(&pod), &tunnel)?;
            wait_for_lines(&relay, "relayed", sent)
        };
        send(system)?;
        judge_control(system, "the tunnel", Control::Arrives)?;
        system.canary.forget();
        system.spawn_agent()?.wait_armed()?;
        send(system)?;
        expect_nothing_at_all(system, "while the agent serves")?;
        system.agent()?.kill_both()?;
        send(system)?;
        expect_nothing_at_all(system, "while the agent is dead")
    });
}

/// Waits until a process has printed a line `count` times.
pub(super) fn wait_for_lines(daemon: &Daemon, line: &str, count: usize) -> Result<()> {
    eventually(&format!("{count} times {line}"), SOON, || {
        let log = daemon.log();
        ensure!(log.lines().filter(|candidate| *candidate == line).count() >= count, "{log}");
        Ok(())
    })
}

/// Makes a pod that is a host on the uplink's network, by a bridge of the node with both as ports.
pub(super) fn pod_beside_uplink(system: &System) -> Result<PodNetwork> {
    let node = &system.topology.node;
    node.ip_batch(&[
        "link add br0 type bridge forward_delay 0".to_owned(),
        format!("addr del {NODE_V4}/24 dev {UPLINK_INTERFACE}"),
        format!("addr del {NODE_V6}/64 dev {UPLINK_INTERFACE}"),
        format!("link set {UPLINK_INTERFACE} master br0"),
        // The MAC address in the uplink's neighbour table.
        "link set br0 address 02:00:00:00:08:01".to_owned(),
        "link set br0 up".to_owned(),
        format!("addr add {NODE_V4}/24 dev br0"),
        format!("addr add {NODE_V6}/64 dev br0 nodad"),
        format!("neigh replace {UPLINK_V4} lladdr {UPLINK_MAC} dev br0 nud permanent"),
        format!("neigh replace {UPLINK_V6} lladdr {UPLINK_MAC} dev br0 nud permanent"),
        format!("route replace default via {UPLINK_V4}"),
        format!("route replace 169.254.169.254/32 via {UPLINK_V4}"),
        format!("route replace ::/0 via {UPLINK_V6}"),
        format!("route replace fd00:ec2::254/128 via {UPLINK_V6}"),
    ])?;
    let pod = system.topology.add_pod_on(1, "br0")?;
    pod.ip_batch(&[
        "addr add 10.8.0.50/24 dev eth0".to_owned(),
        "addr add fd00:8::50/64 dev eth0 nodad".to_owned(),
        format!("neigh replace {UPLINK_V4} lladdr {UPLINK_MAC} dev eth0 nud permanent"),
        format!("neigh replace {UPLINK_V6} lladdr {UPLINK_MAC} dev eth0 nud permanent"),
    ])?;
    route_imds(&pod, &format!("via {UPLINK_V4}"), &format!("via {UPLINK_V6}"))?;
    Ok(pod)
}

#[test]
fn a_bridge_with_the_uplink_in_it() {
    datapath_scenario(|system| {
        let pod = pod_beside_uplink(system)?;
        system.agent_flags.push("--host-interface=veth+".to_owned());
        expect_closed(system, &pod, Control::Arrives)
    });
}

/// A bridge has the uplink as a port, and `--host-interface` matches none of its ports: only the guard is in the way.
#[test]
fn bridge_with_the_uplink_and_unmatched_ports() {
    datapath_scenario(|system| {
        let pod = pod_beside_uplink(system)?;
        system.agent_flags.push("--host-interface=cali+".to_owned());
        expect_closed(system, &pod, Control::Arrives)
    });
}

#[test]
fn a_namespace_behind_the_pod() {
    datapath_scenario(|system| {
        let pod = system.topology.add_pod(1)?;
        let inner = Netns::create("inner")?;
        inner.ip_batch(&[
            format!("link add eth0 type veth peer name inner0 netns {}", pod.name()),
            "addr add 10.9.0.77/32 dev eth0".to_owned(),
            "addr add fd00:9::77/128 dev eth0 nodad".to_owned(),
            "link set eth0 up".to_owned(),
            "route add 10.9.0.1 dev eth0 scope link".to_owned(),
            "route add default via 10.9.0.1".to_owned(),
            "route add fd00:9::fffe dev eth0".to_owned(),
            "route add ::/0 via fd00:9::fffe dev eth0".to_owned(),
        ])?;
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            pod.sysctl(key, "1")?;
        }
        pod.ip_batch(&[
            "addr add fd00:9::fffe/128 dev inner0 nodad".to_owned(),
            "link set inner0 up".to_owned(),
            "route add 10.9.0.77/32 dev inner0".to_owned(),
            "route add fd00:9::77/128 dev inner0".to_owned(),
        ])?;
        // The node has the return route.
        system.topology.node.ip_batch(&[
            "route add 10.9.0.77/32 via 10.9.0.1 dev cali1 onlink".to_owned(),
            "route add fd00:9::77/128 via fd00:9::1 dev cali1 onlink".to_owned(),
        ])?;
        wait_until_it_carries(&inner, "eth0")?;
        expect_closed(system, &inner, Control::Arrives)
    });
}

/// A pod routes the IMDS address to its own link and resolves it by ARP; the node has that address behind the fence.
#[test]
fn imds_on_the_pods_own_link() {
    datapath_scenario(|system| {
        let pod = system.topology.add_pod(1)?;
        pod.ip_batch(&[
            "route replace 169.254.0.0/16 dev eth0 scope link".to_owned(),
            "route replace fd00:ec2::254/128 dev eth0".to_owned(),
        ])?;
        expect_closed(system, &pod, Control::Cannot("no host on the pod's link answers for the IMDS address"))
    });
}

/// A network's own program ahead of ours redirects packets to the uplink, past the node's stack: only the guard is
/// left.
#[test]
fn filter_ahead_of_ours_redirects_to_the_uplink() {
    datapath_scenario(|system| {
        let pod = system.topology.add_pod(1)?;
        let from = Attacker::behind_veth(&pod);
        redirect_to_uplink(system, &pod)?;
        try_controls(system, &VOLLEY, from, Control::Arrives)?;
        system.canary.forget_closed(&system.topology.node, &pod)?;
        system.agent_flags.push("--tc=clsact".to_owned());
        system.spawn_agent()?.wait_armed()?;
        // Of two filters of one priority, the newer one runs first (cls_bpf_change, net/sched/cls_bpf.c).
        redirect_to_uplink(system, &pod)?;
        super::expect_closed(system, &VOLLEY, from, "while the agent serves")?;
        system.agent()?.kill_both()?;
        super::expect_closed(system, &VOLLEY, from, "while the agent is dead")
    });
}

fn redirect_to_uplink(system: &System, pod: &PodNetwork) -> Result<()> {
    let node = &system.topology.node;
    let interface = &pod.interface;
    // It exists already if the agent has attached.
    drop(process::output(node.command("tc").args(["qdisc", "add", "dev", interface, "clsact"]))?);
    let mut filter = node.command("tc");
    filter.args(["filter", "replace", "dev", interface, "ingress", "protocol", "all", "prio", "1"]);
    filter.args(["bpf", "bytecode", "1,6 0 0 4294967295", "flowid", "1:1"]);
    filter.args(["action", "mirred", "egress", "redirect", "dev", UPLINK_INTERFACE]);
    process::run(&mut filter).map(drop)
}
