//! Every route on which a pod's process could try to send a packet to the real IMDS. The packet log of the fake IMDS
//! decides: it must contain no packet of a pod, whether the agent serves or is dead, and the node's own packets must
//! arrive in each state.
//!
//! Each cell first shows that its route reaches the fake IMDS when nothing of ours is in the way, or names the reason
//! why it does not. In that case the cell fails on the day when the route does.
//!
//! There are two columns: a pod in its own network namespace, and a pod on the node's network under
//! `--host-network-pods=enforce`. [`absent`] lists the cells that one of them does not have, with the reason.

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

/// Expected result of a route when no part of kiam is in the way.
#[derive(Debug, Clone, Copy)]
enum Control {
    Arrives,
    /// It does not, for this reason.
    Cannot(&'static str),
}

/// The attacking process and its place.
#[derive(Debug, Clone, Copy)]
struct Attacker<'a> {
    /// Network namespace; `None` for the node's.
    netns: Option<&'a Netns>,
    /// Cgroup of its pod, where the owner of the sockets matters.
    cgroup: Option<&'a PodCgroup>,
    /// Interface that its frames leave by, and MAC address that they are sent to.
    interface: &'static str,
    next_hop: &'static str,
    /// Control groups that its sockets are made in, and used in.
    moved: Option<(&'a Path, &'a Path)>,
}

impl<'a> Attacker<'a> {
    /// Returns an attacker in a pod's own network namespace, on a routed veth.
    fn behind_veth(netns: &'a Netns) -> Self {
        Self { netns: Some(netns), cgroup: None, interface: "eth0", next_hop: HOST_SIDE_MAC, moved: None }
    }

    /// Returns an attacker in a pod on the node's network.
    fn on_node(cgroup: &'a PodCgroup) -> Self {
        Self { netns: None, cgroup: Some(cgroup), interface: UPLINK_INTERFACE, next_hop: UPLINK_MAC, moved: None }
    }

    fn netns<'s>(&'s self, system: &'s System) -> &'s Netns {
        self.netns.unwrap_or(&system.topology.node)
    }

    /// Returns a command that runs a script of this folder.
    fn command(&self, system: &System, name: &str) -> Command {
        let (netns, program) = (self.netns(system), system.python.interpreter());
        let mut command = match self.cgroup {
            Some(cgroup) => cgroup.command(netns, program),
            None => netns.command(program),
        };
        command.arg(script(name));
        command
    }

    /// Returns a command that runs a route of `attack.py`. The last of repeated arguments counts: a cell may name
    /// another next hop.
    fn attack(&self, system: &System, arguments: &[&str]) -> Command {
        let mut command = self.command(system, "attack.py");
        if let Some((from, to)) = self.moved {
            command.arg("--moved").args([from, to]);
        }
        command.args(["--interface", self.interface, "--mac", self.next_hop]).args(arguments);
        command
    }
}

/// Runs one cell of the column «a pod in its own network namespace, on a routed veth».
fn own_namespace(route: &str, control: Control) {
    datapath_scenario(|system| {
        let pod = system.topology.add_pod(1)?;
        through_the_states(system, &[route], Attacker::behind_veth(&pod), control)
    });
}

/// Tries routes from an attacker: each with nothing of ours in the way, then all of them with an agent, and with a dead
/// one.
fn through_the_states(system: &mut System, routes: &[&str], from: Attacker<'_>, control: Control) -> Result<()> {
    // ICMP sockets are restricted to groups in this range (icmp(7)).
    from.netns(system).sysctl("net.ipv4.ping_group_range", "0 0")?;
    try_controls(system, routes, from, control)?;
    system.canary.forget_closed(&system.topology.node, from.netns(system))?;
    system.spawn_agent()?.wait_armed()?;
    expect_closed(system, routes, from, "while the agent serves")?;
    system.agent()?.kill_both()?;
    expect_closed(system, routes, from, "while the agent is dead")
}

/// Tries each route while nothing of ours is in the way.
fn try_controls(system: &System, routes: &[&str], from: Attacker<'_>, control: Control) -> Result<()> {
    for route in routes {
        system.canary.forget();
        let output = attack(system, from, route)?;
        judge_control(system, route, control).context(output)?;
    }
    Ok(())
}

/// Tries all routes, and asserts that nothing arrives.
fn expect_closed(system: &System, routes: &[&str], from: Attacker<'_>, when: &str) -> Result<()> {
    routes.iter().try_for_each(|route| attack(system, from, route).map(drop))?;
    expect_nothing_at_all(system, when)
}

/// Tries a route and returns the attacker's output.
fn attack(system: &System, from: Attacker<'_>, route: &str) -> Result<String> {
    attack_with(system, from, &[route])
}

fn attack_with(system: &System, from: Attacker<'_>, arguments: &[&str]) -> Result<String> {
    let output = process::output(&mut from.attack(system, arguments))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Some(3) => bail!("this kernel does not support {arguments:?}"),
        _ => bail!("the attack {arguments:?} failed\n{text}"),
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
        Control::Cannot(why) => {
            ensure!(arrived.is_empty(), "{route} reaches the canary, although it should not: {why}");
        }
    }
    Ok(())
}

/// Asserts that no packet of a pod or of the node arrives. The agents of these tests send nothing to the real IMDS.
/// Only the node's own markers (`Canary::settle`) arrive; without them this fails.
fn expect_nothing_at_all(system: &System, when: &str) -> Result<()> {
    system.canary.settle(&system.topology.node)?;
    let arrived = everything(system);
    ensure!(arrived.is_empty(), "{}: {when}: {arrived:?}", leaks::CANARY);
    Ok(())
}

fn everything(system: &System) -> Vec<Packet> {
    [Sender::Pod, Sender::Node, Sender::Other].into_iter().flat_map(|sender| system.canary.packets_of(sender)).collect()
}
