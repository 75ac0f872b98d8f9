//! A process moved between control groups, and sockets that existed before the agent: the group in which a socket was
//! made counts.

use super::{Attacker, Control, host_network::HostPods, through_the_states};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::system::{System, datapath_scenario};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

/// Routes with and without `connect`.
const VOLLEY: [&str; 4] = ["tcp-v4", "tcp-v6", "udp-v4", "packet-syn-v4"];

/// A process with open connections to the real IMDS, and sockets connected to it.
#[derive(Debug)]
pub(super) struct HeldSockets(Child);

impl HeldSockets {
    /// Opens them.
    pub(super) fn open(system: &System, from: Attacker<'_>) -> Result<Self> {
        let mut command = from.command(system, "hold.py");
        let mut held = Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        held.expect_line("open")?;
        Ok(held)
    }

    /// Sends by each of them.
    pub(super) fn send(&mut self) -> Result<()> {
        self.0.stdin.as_mut().context("a pipe")?.write_all(b"\n")?;
        self.expect_line("sent")
    }

    fn move_to(&self, group: &Path) -> Result<()> {
        Ok(std::fs::write(group.join("cgroup.procs"), self.0.id().to_string())?)
    }

    fn expect_line(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        // Each line is requested separately, so the buffer is empty between two calls.
        BufReader::new(self.0.stdout.as_mut().context("a pipe")?).read_line(&mut line)?;
        ensure!(line.trim_end() == word, "{line:?}, expected {word}");
        Ok(())
    }
}

impl Drop for HeldSockets {
    fn drop(&mut self) {
        // It has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Tries routes from a process that makes its sockets in its pod and is then moved to another group.
fn used_in(place: impl FnOnce(&HostPods) -> Result<PathBuf>) {
    datapath_scenario(|system| {
        let pods = HostPods::enforced_on(system)?;
        let place = place(&pods)?;
        let from = Attacker { moved: Some((pods.pod.container(), &place)), ..pods.attacker() };
        through_the_states(system, &VOLLEY, from, Control::Arrives)
    });
}

#[test]
fn sockets_of_a_pod_used_in_another_pod() {
    used_in(|pods| Ok(pods.other.container().to_owned()));
}

#[test]
fn sockets_used_far_below_the_container() {
    used_in(|pods| {
        let below = pods.pod.container().join("user.slice/app.slice/deep");
        pods.kubepods.make_group(&below)?;
        Ok(below)
    });
}

/// Like a move by an administrator. The sockets stay the pod's.
#[test]
fn sockets_of_a_pod_used_outside_kubepods() {
    used_in(|pods| {
        let outside = pods.kubepods.path().with_file_name("system.slice");
        pods.kubepods.make_group(&outside)?;
        Ok(outside)
    });
}

#[test]
fn sockets_made_far_below_a_container() {
    datapath_scenario(|system| {
        let pods = HostPods::enforced_on(system)?;
        // As deep as the hierarchy may be: every level has a name.
        let below = pods.pod.container().join("a/b/c/d/e/f/g/h");
        pods.kubepods.make_group(&below)?;
        let from = Attacker { moved: Some((&below, &below)), ..pods.attacker() };
        through_the_states(system, &VOLLEY, from, Control::Arrives)
    });
}

/// Sockets of a pod in its own network namespace are used in another pod. Behind a veth the program judges each packet,
/// whatever process sent it.
#[test]
fn own_namespace_sockets_used_in_another_pod() {
    datapath_scenario(|system| {
        let pods = HostPods::enforced_on(system)?;
        let network = system.topology.add_pod(1)?;
        let from = Attacker {
            cgroup: Some(&pods.pod),
            moved: Some((pods.pod.container(), pods.other.container())),
            ..Attacker::behind_veth(&network)
        };
        through_the_states(system, &VOLLEY, from, Control::Arrives)
    });
}

/// Tries sockets that the pod's process opened before the agent started, and may be moved while the agent serves.
fn held(system: &mut System, from: Attacker<'_>, move_to: Option<&Path>) -> Result<()> {
    let mut held = HeldSockets::open(system, from)?;
    held.send()?;
    super::judge_control(system, "an open connection", Control::Arrives)?;
    system.spawn_agent()?.wait_armed()?;
    system.canary.settle(&system.topology.node)?;
    system.canary.forget();
    held.send()?;
    super::expect_nothing_at_all(system, "while the agent serves")?;
    if let Some(group) = move_to {
        held.move_to(group)?;
        held.send()?;
        super::expect_nothing_at_all(system, "in another pod")?;
    }
    system.agent()?.kill_both()?;
    held.send()?;
    super::expect_nothing_at_all(system, "while the agent is dead")
}

/// Connections of a pod in its own network namespace that were opened before the install.
mod own_namespace {
    use super::*;

    #[test]
    fn open_connections() {
        datapath_scenario(|system| {
            let pod = system.topology.add_pod(1)?;
            held(system, Attacker::behind_veth(&pod), None)
        });
    }
}

/// Connections of a pod on the node's network that were opened before the install.
mod host_network {
    use super::*;

    #[test]
    fn open_connections() {
        datapath_scenario(|system| {
            let pods = HostPods::enforced_on(system)?;
            held(system, pods.attacker(), Some(pods.other.container()))
        });
    }
}
