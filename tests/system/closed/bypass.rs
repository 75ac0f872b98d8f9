//! Every way that a pod's process could try to get a packet to the real metadata service. The judge is the packet log
//! of the stand-in: nothing of a pod's may be in it, whether the agent serves or is dead; and the node's own packets
//! must get there in each state.
//!
//! Each cell first shows that its route does reach the stand-in when nothing of ours is there, or says why it cannot;
//! then that would not be a test of ours, and the day when it can is the day that this test fails.
//!
//! There are two columns: a pod in its own network namespace, and a pod on the node's network under
//! `--host-network-pods=enforce`. What one of them does not have is listed in [`absent`], with the reason.

mod absent;
mod answers;
mod booted;
mod children;
mod host_network;
mod host_networks;
mod host_states;
mod moved;
mod networks;
mod pressure;
mod routes;
mod states;
mod tunnels;

use anyhow::{Context as _, Result, bail, ensure};
use kiam_tests::{
    fakes::canary::Packet,
    leaks,
    node::{
        cgroups::PodCgroup,
        netns::Netns,
        process,
        topology::{HOST_SIDE_MAC, Sender, UPLINK_INTERFACE, UPLINK_MAC},
    },
    system::{System, datapath_scenario},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Whether a route leads to the stand-in when nothing of ours is in the way.
#[derive(Debug, Clone, Copy)]
enum Control {
    Arrives,
    /// Why it does not.
    Cannot(&'static str),
}

/// Whose process attacks, and where.
#[derive(Debug, Clone, Copy)]
struct Attacker<'a> {
    /// Where; on the node's network without.
    netns: Option<&'a Netns>,
    /// The pod's, where it matters whose sockets these are.
    cgroup: Option<&'a PodCgroup>,
    /// Where its frames leave, and who they are addressed to.
    interface: &'static str,
    next_hop: &'static str,
    /// The control groups that its sockets are made in, and used in.
    moved: Option<(&'a Path, &'a Path)>,
}

impl<'a> Attacker<'a> {
    /// In a pod's own network namespace, on a routed veth.
    fn behind_veth(netns: &'a Netns) -> Self {
        Self { netns: Some(netns), cgroup: None, interface: "eth0", next_hop: HOST_SIDE_MAC, moved: None }
    }

    /// Of a pod on the node's network.
    fn on_node(cgroup: &'a PodCgroup) -> Self {
        Self { netns: None, cgroup: Some(cgroup), interface: UPLINK_INTERFACE, next_hop: UPLINK_MAC, moved: None }
    }

    fn netns<'s>(&'s self, system: &'s System) -> &'s Netns {
        self.netns.unwrap_or(&system.topology.node)
    }

    /// A script of this folder.
    fn command(&self, system: &System, name: &str) -> Command {
        let (netns, program) = (self.netns(system), system.python.interpreter());
        let mut command = match self.cgroup {
            Some(cgroup) => cgroup.command(netns, program),
            None => netns.command(program),
        };
        command.arg(script(name));
        command
    }

    /// A route of `attack.py`. What is said last counts: a cell may name another next hop.
    fn attack(&self, system: &System, arguments: &[&str]) -> Command {
        let mut command = self.command(system, "attack.py");
        if let Some((from, to)) = self.moved {
            command.arg("--moved").args([from, to]);
        }
        command.args(["--interface", self.interface, "--mac", self.next_hop]).args(arguments);
        command
    }
}

/// One cell of the column «a pod in its own network namespace, on a routed veth».
fn own_namespace(route: &str, control: Control) {
    datapath_scenario(|system| {
        let pod = system.topology.add_pod(1)?;
        through_the_states(system, &[route], Attacker::behind_veth(&pod), control)
    });
}

/// Routes from an attacker, each with nothing of ours there; then all of them with an agent, and with a dead one.
fn through_the_states(system: &mut System, routes: &[&str], from: Attacker<'_>, control: Control) -> Result<()> {
    // ICMP sockets are for groups that are named here (icmp(7)).
    from.netns(system).sysctl("net.ipv4.ping_group_range", "0 0")?;
    try_controls(system, routes, from, control)?;
    system.canary.forget_closed(&system.topology.node, from.netns(system))?;
    system.spawn_agent()?.wait_armed()?;
    expect_closed(system, routes, from, "while the agent serves")?;
    system.agent()?.kill_both()?;
    expect_closed(system, routes, from, "while the agent is dead")
}

/// Tries each route while nothing of ours is there.
fn try_controls(system: &System, routes: &[&str], from: Attacker<'_>, control: Control) -> Result<()> {
    for route in routes {
        system.canary.forget();
        let said = attack(system, from, route)?;
        judge_control(system, route, control).context(said)?;
    }
    Ok(())
}

/// Tries all routes, and sees that nothing comes of them.
fn expect_closed(system: &System, routes: &[&str], from: Attacker<'_>, when: &str) -> Result<()> {
    routes.iter().try_for_each(|route| attack(system, from, route).map(drop))?;
    expect_nothing_at_all(system, when)
}

/// Tries a route, and returns what the attacker says came of it.
fn attack(system: &System, from: Attacker<'_>, route: &str) -> Result<String> {
    attack_with(system, from, &[route])
}

fn attack_with(system: &System, from: Attacker<'_>, arguments: &[&str]) -> Result<String> {
    let output = process::output(&mut from.attack(system, arguments))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Some(3) => bail!("this kernel has nothing for {arguments:?}"),
        _ => bail!("the attack {arguments:?} broke\n{text}"),
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("system/closed/bypass").join(name)
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

/// Neither of a pod's, nor of the node's: no agent of these tests asks the real service for anything. Only what the
/// node sends to see its own way open (`Canary::settle`) gets there, or this fails.
fn expect_nothing_at_all(system: &System, when: &str) -> Result<()> {
    system.canary.settle(&system.topology.node)?;
    let arrived = everything(system);
    ensure!(arrived.is_empty(), "{}: {when}: {arrived:?}", leaks::CANARY);
    Ok(())
}

fn everything(system: &System) -> Vec<Packet> {
    [Sender::Pod, Sender::Node, Sender::Other].into_iter().flat_map(|sender| system.canary.packets_of(sender)).collect()
}
