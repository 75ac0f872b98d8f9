//! What becomes of a pod's packets in each state that a node can get into: an agent that is stopped, killed over and
//! over, robbed of a link or of its rules, or whose port another process has taken.

use super::{attack, everything, expect_nothing_at_all};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    bystander::Bystander,
    clients::{BOTH, Pod, ROLES},
    process,
    system::{System, datapath_scenario},
    topology::PodNetwork,
};
use nix::sys::signal::Signal;
use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Every protocol, routed and not.
const VOLLEY: [&str; 5] = ["tcp-v4", "tcp-v6", "udp-v4", "packet-syn-v4", "packet-fragment"];
/// How long one request under load may take.
const GLANCE: Duration = Duration::from_millis(50);

/// A pod whose volley has been seen to arrive, and then an agent whose datapath stands.
fn armed(system: &mut System) -> Result<PodNetwork> {
    let pod = system.topology.add_pod(1)?;
    for route in VOLLEY {
        system.canary.forget();
        attack(system, &pod, route)?;
        system.canary.settle(&system.topology.node)?;
        ensure!(!everything(system).is_empty(), "control: {route} does not reach the canary");
    }
    system.canary.forget_closed(&system.topology.node, &pod)?;
    system.spawn_agent()?.wait_armed()?;
    Ok(pod)
}

fn expect_closed(system: &System, pod: &PodNetwork, when: &str) -> Result<()> {
    VOLLEY.iter().try_for_each(|route| attack(system, pod, route))?;
    expect_nothing_at_all(system, when)
}

#[test]
fn the_agent_is_stopped() {
    datapath_scenario(|system| {
        let pod = armed(system)?;
        let worker = system.agent()?.worker_pid()?;
        system.agent()?.freeze_parent()?;
        process::freeze(worker)?;
        expect_closed(system, &pod, "while both processes are stopped")?;
        process::send_signal(worker, Signal::SIGCONT)?;
        system.agent()?.thaw_parent()
    });
}

/// Of both programs that stand in the way one is taken away by hand, while nobody repairs; what is left must do.
fn without(link: &'static str) {
    datapath_scenario(|system| {
        let pod = armed(system)?;
        let bystander = Bystander::start(&system.topology.node, 80)?;
        system.agent()?.freeze_parent()?;
        remove_pins(system, link)?;
        expect_closed(system, &pod, &format!("without {link}"))?;
        bystander.expect_nothing()?;
        system.agent()?.thaw_parent()
    });
}

fn remove_pins(system: &System, prefix: &str) -> Result<()> {
    let mut removed = 0;
    for entry in fs::read_dir(system.bpffs().join("kiam/v1"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            removed += 1;
        }
    }
    ensure!(removed > 0, "there is no pin {prefix}*");
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

#[test]
fn the_dead_agents_port_is_another_process() {
    datapath_scenario(|system| {
        let pod = armed(system)?;
        let node = &system.topology.node;
        let owner = format!("pid={},", system.agent.as_ref().context("an agent")?.parent_pid());
        let listeners = process::run(node.command("ss").args(["-Htnlp", "src", "127.0.0.1"]))?;
        let ports: Vec<u16> = listeners
            .lines()
            .filter(|line| line.contains(&owner))
            .filter_map(|line| line.split_whitespace().nth(3)?.rsplit(':').next()?.parse().ok())
            .collect();
        ensure!(!ports.is_empty(), "the agent listens nowhere: {listeners}");
        system.agent()?.kill_both()?;
        let bystanders =
            ports.iter().map(|&port| Bystander::start(&system.topology.node, port)).collect::<Result<Vec<_>>>()?;
        expect_closed(system, &pod, "while another process has the dead agent's port")?;
        bystanders.iter().try_for_each(Bystander::expect_nothing)
    });
}

#[test]
fn a_hundred_kills_in_a_row_under_load() {
    datapath_scenario(|system| {
        let pod = armed(system)?;
        let bystander = Bystander::start(&system.topology.node, 80)?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let load = scope.spawn(|| -> Result<u32> {
                let mut asked = 0;
                while !over.load(Ordering::Relaxed) {
                    for m in BOTH {
                        let _whatever = Pod::new(&pod).attempt(m, ROLES, GLANCE)?;
                        asked += 1;
                    }
                }
                Ok(asked)
            });
            let killed = kill_a_hundred(system);
            over.store(true, Ordering::Relaxed);
            let asked = load.join().expect("the load does not panic")?;
            killed?;
            ensure!(asked >= 100, "only {asked} requests under way");
            Ok(())
        })?;
        expect_closed(system, &pod, "after a hundred kills")?;
        bystander.expect_nothing()?;
        // And the node is as good as new.
        system.spawn_agent()?.wait_armed()
    });
}

/// At moments that move through the agent's start, from its first steps to its service.
fn kill_a_hundred(system: &mut System) -> Result<()> {
    for round in 0..100 {
        system.agent()?.daemon.end(Signal::SIGKILL)?;
        system.spawn_agent()?;
        thread::sleep(Duration::from_millis(round * 3));
    }
    system.agent()?.daemon.end(Signal::SIGKILL).map(drop)
}
