//! `deploy/boot/kiam-fence.service` closes a node before any pod starts, with the commands that it ships; the agent
//! takes over the rules that it finds.

use crate::support::{control_knock, expect_nothing, expect_role, knock};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{BOTH, IMDS4, Pod, ROLES},
    node::{netns::Netns, process},
    system::{Footprint, System, scenario},
};
use std::process::Command;

/// Path of the unit's file, and its text.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/boot/kiam-fence.service");
const UNIT: &str = include_str!("../../../deploy/boot/kiam-fence.service");

/// A command of the unit, and whether systemd ignores its failure.
struct Line {
    may_fail: bool,
    words: Vec<&'static str>,
}

fn lines() -> Vec<Line> {
    let lines = UNIT.lines().filter_map(|line| line.strip_prefix("ExecStart="));
    let parsed = lines.map(|line| {
        let command = line.trim_start_matches('-');
        Line { may_fail: command != line, words: command.split(' ').collect() }
    });
    parsed.collect()
}

/// Runs the commands of the unit, as systemd does when it starts.
pub(crate) fn boot(node: &Netns) -> Result<()> {
    for Line { may_fail, words } in lines() {
        let result = process::run(node.command(words[0]).args(&words[1..]));
        if !may_fail {
            result.with_context(|| words.join(" "))?;
        }
    }
    Ok(())
}

fn tables(system: &System) -> Result<Vec<String>> {
    let node = &system.topology.node;
    ["-4 rule show", "-4 route show table 4242", "-6 rule show", "-6 route show table 4242"]
        .iter()
        .map(|what| node.ip(what))
        .collect()
}

#[test]
fn systemd_accepts_the_unit() -> Result<()> {
    let output = process::output(Command::new("systemd-analyze").args(["verify", "--man=no", FILE]))?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(output.status.success() && !text.contains("kiam-fence"), "{text}");
    Ok(())
}

/// The unit adds its rules in an order that never blocks the node's own route to the IMDS: the node's own route first,
/// and the route before the rule that leads to it.
#[test]
fn rules_never_block_the_nodes_own_route() {
    for family in ["-4", "-6"] {
        let lines = lines();
        let steps: Vec<String> = lines
            .iter()
            .filter(|line| line.words[1] == family && line.words[3] == "add")
            .map(|line| line.words[2..6].join(" "))
            .collect();
        let imds = if family == "-4" { "169.254.169.254" } else { "fd00:ec2::254" };
        let blackhole = format!("route add blackhole {imds}");
        assert_eq!(steps, ["rule add pref 7", "rule add pref 5", blackhole.as_str(), "rule add pref 6"]);
    }
}

/// A node is closed from its boot on, and the agent takes the rules over.
#[test]
fn node_is_closed_from_boot_until_the_agent_serves() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        control_knock(system, &pod)?;
        let before = Footprint::take(&system.topology.node, &system.bpffs())?;
        boot(&system.topology.node)?;
        knock(&pod)?;
        expect_nothing(system, &pod)?;
        // The node itself is not affected.
        for imds in BOTH {
            let answer = Pod::new(&system.topology.node).get(imds, ROLES)?;
            ensure!(answer.status == 200, "the node at {imds}: {answer:?}");
        }
        system.start()?;
        system.wait_for_role(&pod, IMDS4, "reader")?;
        expect_role(&pod, "reader")?;
        // The agent has added no rules to those that it found. A second start of the unit changes nothing, also while
        // the agent repairs nothing.
        let taken = tables(system)?;
        ensure!(taken[0].matches("169.254.169.254").count() == 2, "{taken:#?}");
        system.agent()?.freeze_parent()?;
        boot(&system.topology.node)?;
        ensure!(tables(system)? == taken, "{:#?}\nbefore: {taken:#?}", tables(system)?);
        system.agent()?.thaw_parent()?;
        expect_role(&pod, "reader")?;
        system.agent()?.stop()?;
        let output = system.clean_up()?;
        ensure!(output.contains("systemctl disable kiam-fence.service"), "{output}");
        let after = Footprint::take(&system.topology.node, &system.bpffs())?;
        ensure!(after == before, "before: {before:#?}\nafter: {after:#?}");
        system.canary.forget_closed(&system.topology.node, &pod)
    });
}

/// A second start of the unit, with the agent's own rules in place, has the same result.
#[test]
fn second_start_with_the_agents_rules_present() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        boot(&system.topology.node)?;
        expect_role(&pod, "reader")?;
        system.agent()?.stop()?;
        system.clean_up()?;
        let left = tables(system)?.concat();
        ensure!(!left.contains("4242") && !left.contains("goto") && !left.contains("nop"), "{left}");
        system.canary.forget_closed(&system.topology.node, &pod)
    });
}

/// A node with IPv6 disabled on lo is closed as well.
#[test]
fn node_without_ipv6_on_lo_is_closed() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        control_knock(system, &pod)?;
        system.topology.node.sysctl("net.ipv6.conf.lo.disable_ipv6", "1")?;
        boot(&system.topology.node)?;
        knock(&pod)?;
        expect_nothing(system, &pod)
    });
}

/// A kernel without IPv6 refuses every command for IPv6.
#[test]
fn every_line_for_ipv6_may_fail() {
    let lines = lines();
    let ipv6: Vec<&Line> = lines.iter().filter(|line| line.words[1] == "-6").collect();
    assert!(ipv6.len() == 4 && ipv6.iter().all(|line| line.may_fail));
}
