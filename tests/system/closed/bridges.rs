//! Pods behind a bridge are served, whether `--host-interface` matches the bridge or its ports, and closed where a port
//! could lead around the agent.

use crate::support::{expect_nothing, expect_role};
use anyhow::Result;
use kiam_tests::{
    clients::{BOTH, IMDS4},
    node::topology::PodNetwork,
    system::{System, scenario},
};

const BRIDGE: &str = "cni0";

/// Makes two pods behind the bridge, and starts the server and an agent with this `--host-interface`.
fn start(system: &mut System, host_interface: &str) -> Result<[PodNetwork; 2]> {
    system.topology.add_bridge(BRIDGE)?;
    let pods = [system.topology.add_pod_on(1, BRIDGE)?, system.topology.add_pod_on(2, BRIDGE)?];
    for (pod, name, role) in [(&pods[0], "one", "reader"), (&pods[1], "two", "writer")] {
        system.announce(pod, name, Some(role));
    }
    system.agent_flags.push(format!("--host-interface={host_interface}"));
    system.start()?;
    Ok(pods)
}

fn expect_both_served(system: &System, pods: &[PodNetwork; 2]) -> Result<()> {
    for (pod, role) in pods.iter().zip(["reader", "writer"]) {
        for imds in BOTH {
            system.wait_for_role(pod, imds, role)?;
        }
        expect_role(pod, role)?;
    }
    system.expect_no_leak()
}

/// Runs with and without the node's packet filter for bridged packets (br_netfilter), which most clusters have.
fn served_when_matched_by(host_interface: &str) {
    for filtered in ["0", "1"] {
        served_with_filter(host_interface, filtered);
    }
}

fn served_with_filter(host_interface: &str, filtered: &str) {
    scenario(|system| {
        for family in ["iptables", "ip6tables"] {
            system.topology.node.sysctl(&format!("net.bridge.bridge-nf-call-{family}"), filtered)?;
        }
        let pods = start(system, host_interface)?;
        expect_both_served(system, &pods)?;
        system.agent()?.kill_both()?;
        for pod in &pods {
            expect_nothing(system, pod)?;
        }
        system.start_agent()?;
        expect_both_served(system, &pods)
    });
}

#[test]
fn served_by_the_bridges_name() {
    served_when_matched_by(BRIDGE);
}

#[test]
fn served_by_the_ports_names() {
    served_when_matched_by("veth+");
}

#[test]
fn served_by_all_but_the_uplink() {
    served_when_matched_by("!eth0");
}

#[test]
fn a_port_that_comes_later_is_served() {
    scenario(|system| {
        let pods = start(system, BRIDGE)?;
        expect_both_served(system, &pods)?;
        let late = system.topology.add_pod_on(3, BRIDGE)?;
        system.announce(&late, "three", Some("late"));
        system.wait_for_role(&late, IMDS4, "late")?;
        expect_role(&late, "late")
    });
}
