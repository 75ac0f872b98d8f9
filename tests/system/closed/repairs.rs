//! Parts that are removed from a running agent's datapath: the agent notices, restores and counts them, and pods are
//! served again; meanwhile none of their packets leaks.

use crate::support::{empty_slots, expect_role, knock, serving};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::IMDS4,
    eventually::eventually,
    node::{
        process,
        topology::{IMDS_V4, IMDS_V6, PodNetwork, UPLINK_INTERFACE},
    },
    system::{SOON, System, scenario},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Returns the number of repairs of this kind, from the metrics.
fn repairs(system: &System, what: &str) -> Result<u64> {
    let agent = system.agent.as_ref().context("an agent")?;
    let answer = agent.admin(&system.topology.node, "/metrics")?;
    let metrics = answer.text();
    let start = format!("kiam_agent_repairs_total{{what=\"{what}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&start));
    Ok(line.with_context(|| format!("no {start}in\n{metrics}"))?.parse()?)
}

/// Removes a part with `take`, and asserts that nothing leaks, the part is restored and counted, and pods are served.
fn expect_repaired(
    system: &mut System,
    pod: &PodNetwork,
    what: &str,
    take: impl FnOnce(&System) -> Result<()>,
) -> Result<()> {
    let before = repairs(system, what)?;
    take(system)?;
    knock(pod)?;
    system.expect_no_leak()?;
    eventually(&format!("the {what} is counted"), SOON, || {
        let now = repairs(system, what)?;
        ensure!(now > before, "{now} repairs of {what}, before {before}");
        Ok(())
    })?;
    system.wait_for_role(pod, IMDS4, "reader")?;
    expect_role(pod, "reader")?;
    system.agent()?.wait_ready()
}

/// Shows that the program on the pod's interface runs: without it the backstop would serve the pod, but not count
/// dropped packets.
fn expect_program(system: &System, pod: &PodNetwork) -> Result<()> {
    let dropped = || -> Result<u64> {
        let agent = system.agent.as_ref().context("an agent")?;
        let metrics = agent.admin(&system.topology.node, "/metrics")?;
        let start = "kiam_agent_packets_total{interface=\"cali1\",reason=\"not-http\"} ";
        Ok(metrics.text().lines().find_map(|line| line.strip_prefix(start)).map_or(Ok(0), str::parse)?)
    };
    let before = dropped()?;
    knock(pod)?;
    eventually("the program counts what it drops", SOON, || {
        let now = dropped()?;
        ensure!(now > before, "{now} packets, before {before}");
        Ok(())
    })
}

/// Shows that the guard on the uplink's egress runs: without the rules it alone stops packets that arrive by an
/// interface without a program.
fn expect_guard(system: &mut System) -> Result<()> {
    let other = system.topology.add_pod_behind(2, "other2")?;
    system.agent()?.freeze_parent()?;
    for family in ["-4", "-6"] {
        ip(system, &format!("{family} rule del pref 6"))?;
    }
    knock(&other)?;
    system.expect_no_leak()?;
    system.agent()?.thaw_parent()
}

fn ip(system: &System, line: &str) -> Result<()> {
    system.topology.node.ip(line).map(drop)
}

/// Runs `bpftool` on a pinned object.
fn bpftool(words: &[&str], pin: &Path) -> Result<String> {
    process::run(Command::new("bpftool").args(words).arg("pinned").arg(pin))
}

/// Returns the path of the pin of a program's link on an interface.
fn pin_of(system: &System, prefix: &str, interface: &str) -> Result<PathBuf> {
    let link = system.topology.node.ip(&format!("-o link show dev {interface}"))?;
    let index = link.split(':').next().context("an index")?;
    Ok(system.bpffs().join(format!("kiam/v1/{prefix}{index}")))
}

#[test]
fn removed_rules_and_routes_are_restored() {
    scenario(|system| {
        let pod = serving(system, &[])?;
        for (family, imds) in [("-4", IMDS_V4.to_string()), ("-6", IMDS_V6.to_string())] {
            for preference in [5, 6, 7] {
                expect_repaired(system, &pod, "rule", |system| {
                    ip(system, &format!("{family} rule del pref {preference}"))
                })?;
            }
            expect_repaired(system, &pod, "route", |system| {
                ip(system, &format!("{family} route del local {imds} dev lo table 4242"))
            })?;
            let rules = system.topology.node.ip(&format!("{family} rule show"))?;
            ensure!(!rules.contains("unresolved"), "the rule at pref 5 leads nowhere: {rules}");
        }
        // No object was made twice, and the first installation does not count as a repair.
        let counted = ["rule", "route", "redirect", "guard", "backstop"].map(|what| repairs(system, what));
        let counted: Vec<u64> = counted.into_iter().collect::<Result<_>>()?;
        ensure!(counted == [6, 2, 0, 0, 0], "{counted:?}");
        Ok(())
    });
}

/// A rule before the fence is reported, and the agent is not ready.
#[test]
fn rule_before_the_fence_is_reported() {
    scenario(|system| {
        let pod = serving(system, &[])?;
        ip(system, "rule add pref 2 to 169.254.0.0/16 lookup main")?;
        let agent = system.agent()?;
        eventually("the rule is named", SOON, || {
            let health = String::from_utf8(agent.health()?.stdout)?;
            let line = health.lines().find(|line| line.starts_with("FAIL  fence-ipv4"));
            let named = line.is_some_and(|line| line.contains("pref 2 to 169.254.0.0/16"));
            ensure!(named, "{health}");
            Ok(())
        })?;
        // The program on the interface does not need the fence.
        knock(&pod)?;
        system.expect_no_leak()?;
        ip(system, "rule del pref 2")?;
        system.agent()?.wait_ready()
    });
}

#[test]
fn a_link_detached_by_hand_is_attached_again() {
    scenario(|system| {
        let pod = serving(system, &["--tc=tcx"])?;
        expect_repaired(system, &pod, "redirect", |system| {
            bpftool(&["link", "detach"], &pin_of(system, "link_tc_", "cali1")?).map(drop)
        })?;
        expect_program(system, &pod)?;
        expect_repaired(system, &pod, "guard", |system| {
            bpftool(&["link", "detach"], &pin_of(system, "link_guard_", "eth0")?).map(drop)
        })?;
        expect_guard(system)
    });
}

#[test]
fn a_link_whose_pin_is_removed_is_attached_again() {
    scenario(|system| {
        let pod = serving(system, &["--tc=tcx"])?;
        expect_repaired(system, &pod, "redirect", |system| {
            Ok(std::fs::remove_file(pin_of(system, "link_tc_", "cali1")?)?)
        })?;
        expect_program(system, &pod)?;
        expect_repaired(system, &pod, "guard", |system| {
            Ok(std::fs::remove_file(pin_of(system, "link_guard_", "eth0")?)?)
        })?;
        expect_guard(system)
    });
}

#[test]
fn a_deleted_filter_is_attached_again_at_once() {
    scenario(|system| {
        let pod = serving(system, &["--tc=clsact"])?;
        // Two rounds of the self-check are ten seconds apart.
        let started = Instant::now();
        for object in ["filter", "qdisc"] {
            expect_repaired(system, &pod, "redirect", |system| {
                let arguments: &[&str] = match object {
                    "filter" => &["filter", "del", "dev", "cali1", "ingress"],
                    _ => &["qdisc", "del", "dev", "cali1", "clsact"],
                };
                process::run(system.topology.node.command("tc").args(arguments)).map(drop)
            })?;
        }
        ensure!(started.elapsed() < Duration::from_secs(8), "{:?}: it was not notified", started.elapsed());
        expect_program(system, &pod)?;
        expect_repaired(system, &pod, "guard", |system| {
            let arguments = ["filter", "del", "dev", UPLINK_INTERFACE, "egress"];
            process::run(system.topology.node.command("tc").args(arguments)).map(drop)
        })?;
        expect_guard(system)
    });
}

#[test]
fn the_backstop_is_attached_again() {
    scenario(|system| {
        let pod = serving(system, &[])?;
        expect_repaired(system, &pod, "backstop", |system| {
            bpftool(&["link", "detach"], &system.bpffs().join("kiam/v1/link_sk_lookup")).map(drop)
        })?;
        expect_repaired(system, &pod, "backstop", |system| {
            Ok(std::fs::remove_file(system.bpffs().join("kiam/v1/link_sk_lookup"))?)
        })
    });
}

#[test]
fn listening_sockets_return_to_their_slots() {
    scenario(|system| {
        let pod = serving(system, &[])?;
        expect_repaired(system, &pod, "listener", empty_slots)
    });
}

#[test]
fn a_map_whose_pin_is_removed_is_pinned_again() {
    scenario(|system| {
        let pod = serving(system, &[])?;
        let pin = system.bpffs().join("kiam/v1/kiam_interfaces");
        let id = |pin: &Path| -> Result<String> {
            Ok(bpftool(&["map", "show"], pin)?.split(':').next().unwrap_or_default().to_owned())
        };
        let before = id(&pin)?;
        expect_repaired(system, &pod, "map", |_| Ok(std::fs::remove_file(&pin)?))?;
        ensure!(id(&pin)? == before, "another map is pinned");
        Ok(())
    });
}
