//! Every way that a pod's process could try to get a packet to the real metadata service. The judge is the packet log
//! of the stand-in: nothing of a pod's may be in it, whether the agent serves or is dead.
//!
//! Each cell first shows that its route does reach the stand-in when nothing of ours is there, or says why it cannot;
//! then that would not be a test of ours, and the day when it can is the day that this test fails.

use anyhow::{Result, bail, ensure};
use kiam_tests::{
    canary::Packet,
    leaks,
    netns::Netns,
    process,
    system::{System, datapath_scenario},
    topology::Sender,
};
use std::path::{Path, PathBuf};

mod networks;
mod routes;
mod states;

/// Whether a route leads to the stand-in when nothing of ours is in the way.
#[derive(Debug, Clone, Copy)]
enum Control {
    Arrives,
    /// Why it does not.
    Cannot(&'static str),
}

/// One cell of the column «a pod in its own network namespace, on a routed veth».
fn own_namespace(route: &str, control: Control) {
    datapath_scenario(|system| {
        let pod = system.topology.add_pod(1)?;
        // ICMP sockets are for groups that are named here (icmp(7)).
        pod.sysctl("net.ipv4.ping_group_range", "0 0")?;
        attack(system, &pod, route)?;
        judge_control(system, route, control)?;
        system.canary.forget_closed(&system.topology.node, &pod)?;
        system.spawn_agent()?.wait_armed()?;
        attack(system, &pod, route)?;
        expect_nothing_at_all(system, "while the agent serves")?;
        system.agent()?.kill_both()?;
        attack(system, &pod, route)?;
        expect_nothing_at_all(system, "while the agent is dead")
    });
}

fn attack(system: &System, from: &Netns, route: &str) -> Result<()> {
    attack_with(system, from, &[route])
}

fn attack_with(system: &System, from: &Netns, arguments: &[&str]) -> Result<()> {
    let output = process::output(from.command(system.python.interpreter()).arg(script("attack.py")).args(arguments))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(3) => bail!("this kernel has nothing for {arguments:?}"),
        _ => bail!("the attack {arguments:?} broke\n{text}"),
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("system/bypass").join(name)
}

fn judge_control(system: &System, route: &str, control: Control) -> Result<()> {
    system.canary.settle(&system.topology.node)?;
    let arrived = everything(system);
    match control {
        Control::Arrives => ensure!(!arrived.is_empty(), "control: {route} does not reach the canary"),
        Control::Cannot(why) => ensure!(arrived.is_empty(), "{route} does reach the canary, so it is not true: {why}"),
    }
    Ok(())
}

/// Neither of a pod's, nor of the node's: no agent of these tests asks the real service for anything.
fn expect_nothing_at_all(system: &System, when: &str) -> Result<()> {
    system.canary.settle(&system.topology.node)?;
    let arrived = everything(system);
    ensure!(arrived.is_empty(), "{}: {when}: {arrived:?}", leaks::CANARY);
    Ok(())
}

fn everything(system: &System) -> Vec<Packet> {
    [Sender::Pod, Sender::Node, Sender::Other].into_iter().flat_map(|sender| system.canary.packets_of(sender)).collect()
}
