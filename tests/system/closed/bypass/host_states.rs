//! Packets of a pod on the node's network in each state of a node. The hooks handle `connect`, and the guard everything
//! else, so one of these layers is removed at a time.

use super::{
    Control, expect_closed,
    host_network::HostPods,
    states::{listening_ports, take_away},
    try_controls,
};
use crate::{closed::layers::flush_rules, support::counted};
use anyhow::{Result, ensure};
use kiam_tests::{
    clients::{BOTH, Pod, ROLES},
    eventually::eventually,
    fakes::canary::NODE_ROLE,
    node::bystander::Bystander,
    system::{SOON, System, datapath_scenario},
};

/// Routes with and without `connect`.
const VOLLEY: [&str; 6] = ["tcp-v4", "tcp-v6", "udp-v4", "raw-syn-v6", "packet-syn-v4", "packet-qdisc-bypass"];

/// Shows that the routes of a pod arrive, then starts an agent and waits until its datapath is complete.
fn armed(system: &mut System) -> Result<HostPods> {
    let pods = HostPods::enforced_on(system)?;
    try_controls(system, &VOLLEY, pods.attacker(), Control::Arrives)?;
    system.canary.forget_closed(&system.topology.node, &system.topology.node)?;
    system.spawn_agent()?.wait_armed()?;
    Ok(pods)
}

/// Asserts that no packet of a pod leaves, and that the real IMDS answers the node's own processes.
fn expect_pod_closed_and_node_open(system: &System, pods: &HostPods, when: &str) -> Result<()> {
    expect_closed(system, &VOLLEY, pods.attacker(), when)?;
    let node = &system.topology.node;
    for imds in BOTH {
        let answer = Pod::new(node).get(imds, ROLES)?;
        ensure!(answer.text() == NODE_ROLE, "{when}: a process of the node gets {answer:?} from {imds}");
    }
    system.canary.forget_closed(node, node)
}

#[test]
fn the_agent_serves() {
    datapath_scenario(|system| {
        system.agent_flags.push("--redirect=tc,cgroup".to_owned());
        let pods = armed(system)?;
        expect_pod_closed_and_node_open(system, &pods, "while the agent serves")?;
        // Each kind of route, by the reason that it is counted under.
        for (reason, at_least) in [("connect", 2), ("pod-socket", 3)] {
            eventually(&format!("{at_least} counted as {reason}"), SOON, || {
                let count = counted(system, reason)?;
                ensure!(count >= at_least, "{count}");
                Ok(())
            })?;
        }
        Ok(())
    });
}

/// With the capabilities of the shipped container: without CAP_PERFMON the kernel's verifier is stricter.
#[test]
fn the_agent_has_the_shipped_capabilities() {
    datapath_scenario(|system| {
        system.binaries = system.binaries.with_shipped_capabilities(&system.folder())?;
        let pods = armed(system)?;
        expect_pod_closed_and_node_open(system, &pods, "with the shipped capabilities")?;
        system.agent()?.kill_both()?;
        expect_pod_closed_and_node_open(system, &pods, "while the agent is dead")
    });
}

#[test]
fn the_agent_is_stopped() {
    datapath_scenario(|system| {
        let pods = armed(system)?;
        system.agent()?.freeze_both()?;
        expect_pod_closed_and_node_open(system, &pods, "while both processes are stopped")?;
        system.agent()?.thaw_both()
    });
}

#[test]
fn rules_and_table_are_flushed() {
    datapath_scenario(|system| {
        let pods = armed(system)?;
        system.agent()?.freeze_parent()?;
        flush_rules(system)?;
        expect_pod_closed_and_node_open(system, &pods, "without the fence")?;
        system.agent()?.thaw_parent()
    });
}

/// Without the hooks, no pod is sent to the agent: its `connect` reaches the guard, as everything else does.
#[test]
fn the_hooks_links_are_detached_by_hand() {
    datapath_scenario(|system| {
        let pods = armed(system)?;
        system.agent()?.freeze_parent()?;
        take_away(system, "link_connect")?;
        expect_closed(system, &["tcp-v4", "tcp-v6", "tcp-v4-mapped"], pods.attacker(), "without the hooks")?;
        system.agent()?.thaw_parent()
    });
}

/// The hooks alone: redirected connections need no guard. Everything else does.
#[test]
fn the_guards_link_is_detached_by_hand() {
    datapath_scenario(|system| {
        let pods = armed(system)?;
        system.agent()?.freeze_parent()?;
        take_away(system, "link_guard_")?;
        let connected = ["tcp-v4", "tcp-v6", "tcp-v4-mapped", "tcp-fastopen-v4", "tcp-io-uring", "udp-connected-v4"];
        expect_closed(system, &connected, pods.attacker(), "without the guard")?;
        system.agent()?.thaw_parent()
    });
}

#[test]
fn the_dead_agents_port_is_another_process() {
    datapath_scenario(|system| {
        let pods = armed(system)?;
        let ports = listening_ports(system)?;
        system.agent()?.kill_both()?;
        let node = &system.topology.node;
        let bystanders: Vec<Bystander> =
            ports.into_iter().chain([80]).map(|port| Bystander::start(node, port)).collect::<Result<_>>()?;
        expect_closed(system, &VOLLEY, pods.attacker(), "while another process has the dead agent's port")?;
        bystanders.iter().try_for_each(Bystander::expect_nothing)
    });
}

#[test]
fn a_node_process_listens_on_every_address() {
    datapath_scenario(|system| {
        let pods = armed(system)?;
        let bystander = Bystander::start(&system.topology.node, 80)?;
        expect_closed(system, &VOLLEY, pods.attacker(), "while the agent serves")?;
        bystander.expect_nothing()?;
        system.agent()?.kill_both()?;
        expect_closed(system, &VOLLEY, pods.attacker(), "while the agent is dead")?;
        bystander.expect_nothing()
    });
}
