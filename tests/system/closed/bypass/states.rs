//! Packets of a pod in each state of a node: an agent that is stopped, killed repeatedly, without a link or its rules,
//! or with its port taken by another process.

use super::{Attacker, Control, host_network::HostPods, pressure::Pressure, try_controls};
use crate::{closed::layers::flush_rules, lifecycle::upgrade::expect_waiting};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    node::{
        bystander::Bystander,
        process,
        topology::{PodNetwork, UPLINK_INTERFACE},
    },
    system::{System, datapath_scenario},
};
use nix::sys::signal::Signal;
use std::{fs, thread, time::Duration};

/// Routes of every protocol, routed and not.
const VOLLEY: [&str; 5] = ["tcp-v4", "tcp-v6", "udp-v4", "packet-syn-v4", "packet-fragment"];
/// Number of tries of each route: one before, and at least one while something happens.
const TRIES: usize = 2;
/// Number of upgrades, each from a new agent's start until it serves.
const UPGRADES: usize = 3;

/// Shows that the routes of a pod arrive, then starts an agent and waits until its datapath is complete.
fn armed(system: &mut System) -> Result<PodNetwork> {
    let pod = system.topology.add_pod(1)?;
    try_controls(system, &VOLLEY, Attacker::behind_veth(&pod), Control::Arrives)?;
    system.canary.forget_closed(&system.topology.node, &pod)?;
    system.spawn_agent()?.wait_armed()?;
    Ok(pod)
}

fn expect_closed(system: &System, pod: &PodNetwork, when: &str) -> Result<()> {
    super::expect_closed(system, &VOLLEY, Attacker::behind_veth(pod), when)
}

#[test]
fn the_agent_is_stopped() {
    datapath_scenario(|system| {
        let pod = armed(system)?;
        system.agent()?.freeze_both()?;
        expect_closed(system, &pod, "while both processes are stopped")?;
        system.agent()?.thaw_both()
    });
}

/// Removes one of the two programs in the way by hand, while the parent is frozen and repairs nothing; the other one
/// must suffice.
fn without(link: &'static str) {
    datapath_scenario(|system| {
        let pod = armed(system)?;
        let bystander = Bystander::start(&system.topology.node, 80)?;
        system.agent()?.freeze_parent()?;
        take_away(system, link)?;
        expect_closed(system, &pod, &format!("without {link}"))?;
        bystander.expect_nothing()?;
        system.agent()?.thaw_parent()
    });
}

/// Removes the links whose pins have this prefix; only the pins hold them. Before Linux 6.6 the programs on an
/// interface are filters, and are removed with its clsact.
pub(super) fn take_away(system: &System, prefix: &str) -> Result<()> {
    let mut taken = 0;
    for entry in fs::read_dir(system.bpffs().join("kiam/v1"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            taken += 1;
        }
    }
    let interface = match prefix {
        "link_tc_" => Some("cali1"),
        "link_guard_" => Some(UPLINK_INTERFACE),
        _ => None,
    };
    if let (0, Some(interface)) = (taken, interface) {
        process::run(system.topology.node.command("tc").args(["qdisc", "del", "dev", interface, "clsact"]))?;
        taken += 1;
    }
    ensure!(taken > 0, "there is no pin {prefix}*");
    Ok(())
}

#[test]
fn the_programs_links_are_detached_by_hand() {
    without("link_tc_");
}

#[test]
fn the_backstops_link_is_detached_by_hand() {
    without("link_sk_lookup");
}

#[test]
fn the_guards_link_is_detached_by_hand() {
    without("link_guard_");
}

/// The interface appears while no agent runs: neither the program nor the guard is attached.
#[test]
fn a_veth_made_while_the_agent_is_dead() {
    datapath_scenario(|system| {
        let early = system.topology.add_pod(2)?;
        try_controls(system, &VOLLEY, Attacker::behind_veth(&early), Control::Arrives)?;
        drop(early);
        let _pod = armed(system)?;
        system.agent()?.kill_both()?;
        take_away(system, "link_guard_")?;
        let new = system.topology.add_pod(2)?;
        expect_closed(system, &new, "of a new interface, while the agent is dead")
    });
}

#[test]
fn rules_and_table_are_flushed() {
    datapath_scenario(|system| {
        let pod = armed(system)?;
        system.agent()?.freeze_parent()?;
        flush_rules(system)?;
        expect_closed(system, &pod, "without the fence")?;
        system.agent()?.thaw_parent()
    });
}

#[test]
fn a_node_process_listens_on_every_address() {
    datapath_scenario(|system| {
        let pod = armed(system)?;
        let bystander = Bystander::start(&system.topology.node, 80)?;
        expect_closed(system, &pod, "while the agent serves")?;
        bystander.expect_nothing()?;
        system.agent()?.kill_both()?;
        expect_closed(system, &pod, "while the agent is dead")?;
        bystander.expect_nothing()
    });
}

/// Returns the ports that the agent listens on at loopback addresses.
pub(super) fn listening_ports(system: &System) -> Result<Vec<u16>> {
    let owner = format!("pid={},", system.agent.as_ref().context("an agent")?.parent_pid());
    let listeners = process::run(system.topology.node.command("ss").args(["-Htnlp", "src 127.0.0.1 or src [::1]"]))?;
    let ports: Vec<u16> = listeners
        .lines()
        .filter(|line| line.contains(&owner))
        .filter_map(|line| line.split_whitespace().nth(3)?.rsplit(':').next()?.parse().ok())
        .collect();
    ensure!(!ports.is_empty(), "the agent listens nowhere: {listeners}");
    Ok(ports)
}

#[test]
fn the_dead_agents_port_is_another_process() {
    datapath_scenario(|system| {
        let pod = armed(system)?;
        let ports = listening_ports(system)?;
        system.agent()?.kill_both()?;
        let bystanders =
            ports.iter().map(|&port| Bystander::start(&system.topology.node, port)).collect::<Result<Vec<_>>>()?;
        expect_closed(system, &pod, "while another process has the dead agent's port")?;
        bystanders.iter().try_for_each(Bystander::expect_nothing)
    });
}

/// Runs `during` while one pod of each column attacks, then asserts that both are closed.
fn under_pressure(during: impl FnOnce(&mut System) -> Result<()>) {
    datapath_scenario(|system| {
        let pods = HostPods::enforced_on(system)?;
        try_controls(system, &VOLLEY, pods.attacker(), Control::Arrives)?;
        let pod = armed(system)?;
        let bystander = Bystander::start(&system.topology.node, 80)?;
        let pressure = [
            Pressure::start(system, "own-namespace", Attacker::behind_veth(&pod))?,
            Pressure::start(system, "host-network", pods.attacker())?,
        ];
        during(system)?;
        pressure.iter().try_for_each(|attacks| attacks.expect_tried(TRIES))?;
        drop(pressure);
        expect_closed(system, &pod, "when it is over")?;
        super::expect_closed(system, &VOLLEY, pods.attacker(), "when it is over")?;
        bystander.expect_nothing()
    });
}

#[test]
fn a_hundred_kills_in_a_row_under_load() {
    under_pressure(|system| {
        kill_a_hundred(system)?;
        // A new agent works as before.
        system.spawn_agent()?.wait_armed()
    });
}

/// The new agent's programs and listeners replace those of the old one.
#[test]
fn in_the_middle_of_upgrades() {
    under_pressure(|system| {
        system.start_server()?;
        system.agent()?.wait_ready()?;
        (0..UPGRADES).try_for_each(|_| system.upgrade())
    });
}

/// The new agent waits because it has no server; the old one dies, and the new one takes over after a while.
#[test]
fn in_an_upgrade_that_is_cut_short() {
    under_pressure(|system| {
        let waiting = system.spawn_successor(&[])?;
        expect_waiting(&waiting)?;
        system.agent()?.kill_both()?;
        system.agent = Some(waiting);
        system.agent()?.wait_armed()
    });
}

/// Kills an agent a hundred times, at moments from its first steps to its service.
fn kill_a_hundred(system: &mut System) -> Result<()> {
    for round in 0..100 {
        system.agent()?.daemon.end(Signal::SIGKILL)?;
        system.spawn_agent()?;
        thread::sleep(Duration::from_millis(round * 3));
    }
    system.agent()?.daemon.end(Signal::SIGKILL).map(drop)
}
