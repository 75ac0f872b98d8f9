//! `kiam-agent status`: its report matches the kernel's own tools, with an agent, without one, and for a user without
//! permission.

mod facts;
mod shape;

use crate::support::expect_role;
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::Environment,
    eventually::eventually,
    node::{
        cgroups::{Driver, Kubepods, Qos},
        process,
    },
    system::{Agent, SOON, System, datapath_scenario, scenario},
};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Command, Output},
};

/// Runs `kiam-agent status` on the node of a system.
fn status(system: &System, probe_socket: &Path, flags: &[&str]) -> Result<Output> {
    let mut command = system.topology.node.command(system.binaries.agent());
    process::output(with_flags(&mut command, system, probe_socket, flags))
}

fn with_flags<'a>(command: &'a mut Command, system: &System, probe_socket: &Path, flags: &[&str]) -> &'a mut Command {
    Environment { variables: Vec::new() }.apply(command);
    let bpffs = format!("--bpffs={}", system.bpffs().display());
    command.args(["status", &bpffs, &format!("--probe-socket={}", probe_socket.display())]).args(flags)
}

/// Returns the report as JSON, and whether it reports no problem.
pub(crate) fn report(system: &System) -> Result<(Value, bool)> {
    report_at(system, &system.folder().join("run/probe.sock"))
}

fn report_at(system: &System, probe_socket: &Path) -> Result<(Value, bool)> {
    let output = status(system, probe_socket, &["--output=json"])?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    ensure!(report["ok"] == output.status.success(), "{:?} and {report}", output.status);
    ensure!(report["schema"] == 1, "{report}");
    Ok((report, output.status.success()))
}

/// Returns the report as text.
fn shown(system: &System) -> Result<String> {
    let output = status(system, &system.folder().join("run/probe.sock"), &[])?;
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the problems in a report, with their subjects.
fn problems(report: &Value) -> Vec<(&str, &str)> {
    let problems = report["problems"].as_array().into_iter().flatten();
    problems.filter_map(|problem| Some((problem["about"].as_str()?, problem["text"].as_str()?))).collect()
}

#[test]
fn status_matches_bpftool_and_ip() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        expect_role(&pod, "reader")?;
        let (report, ok) = report(system)?;
        ensure!(ok && problems(&report).is_empty(), "{report:#}");
        facts::expect_links(system, &report, &["cgroup"])?;
        facts::expect_programs(&report, 7)?;
        facts::expect_pins(system, &report)?;
        facts::expect_fence(system, &report)?;
        facts::expect_owner(system, &report)?;
        let pod_side = facts::Side { roles: &["pod"], kind: "veth", programs: &["kiam_tc_ingress"] };
        facts::expect_interface(system, &report, "cali1", &pod_side)?;
        let uplink = facts::Side { roles: &["uplink"], kind: "veth", programs: &["kiam_guard", "kiam_guard_in"] };
        facts::expect_interface(system, &report, "eth0", &uplink)?;
        facts::expect_choice(&report, "--redirect", "auto", "tc")?;
        facts::expect_choice(&report, "--tc", "auto", "tcx")?;
        facts::expect_choice(&report, "--ipv6", "auto", "served")?;
        crate::support::knock(&pod)?;
        eventually("all packets are counted", SOON, || facts::expect_packets(system, &self::report(system)?.0, "cali1"))
    });
}

#[test]
fn filters_are_reported_without_links() {
    datapath_scenario(|system| {
        let _pod = system.topology.add_pod(1)?;
        system.agent_flags.push("--tc=clsact".to_owned());
        system.spawn_agent()?.wait_armed()?;
        let (report, ok) = report(system)?;
        ensure!(!ok && problems(&report).iter().map(|(about, _)| *about).eq(["server-reached"]), "{report:#}");
        facts::expect_choice(&report, "--tc", "clsact", "clsact")?;
        facts::expect_links(system, &report, &["cgroup", "tcx/ingress", "tcx/egress"])?;
        facts::expect_filters(system, &report, &[("cali1", "ingress"), ("eth0", "egress"), ("eth0", "ingress")])?;
        shape::expect_documented(&report)
    });
}

#[test]
fn hooks_and_exempt_pods_are_reported() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let uid = "11111111-1111-1111-1111-111111111111";
        let pod = kubepods.add_pod(&system.topology.node, uid, Qos::BestEffort)?;
        let at = kubepods.path().display().to_string();
        system.agent_flags = vec![
            "--host-network-pods=enforce".to_owned(),
            format!("--kubepods-cgroup={at}"),
            format!("--pod-uid={uid}"),
        ];
        system.spawn_agent()?.wait_armed()?;
        let (report, _) = report(system)?;
        facts::expect_links(system, &report, &[])?;
        facts::expect_programs(&report, 13)?;
        facts::expect_choice(&report, "--redirect", "auto", "tc,cgroup")?;
        facts::expect_choice(&report, "--host-network-pods", "enforce", "enforce")?;
        facts::expect_choice(&report, "--kubepods-cgroup", &at, &at)?;
        facts::expect_choice(&report, "--attestation", "prefer", "by cgroup")?;
        let exempt = json!([{ "cgroup": pod.id()?, "pod": uid, "why": "agent" }]);
        ensure!(report["kernel"]["exempt"] == exempt, "{:#}", report["kernel"]["exempt"]);
        facts::expect_row(&shown(system)?, &[uid, "agent"])?;
        shape::expect_documented(&report)
    });
}

#[test]
fn text_output_matches_the_json() {
    scenario(|system| {
        let _pod = system.serving_pod("reader")?;
        let (report, _) = report(system)?;
        let text = shown(system)?;
        ensure!(!text.contains('\x1b'), "colours without a terminal: {text}");
        let first = text.lines().next().unwrap_or_default();
        let count = report["agent"]["conditions"].as_array().map_or(0, Vec::len);
        let headline =
            format!("kiam-agent {} serves this node; {count} of {count} conditions met", env!("CARGO_PKG_VERSION"));
        ensure!(first == headline, "{first}\n{headline}");
        for place in report["kernel"]["attached"].as_array().context("attached")? {
            let cells = [&place["program"], &place["hook"]].map(|cell| cell.as_str().unwrap_or_default());
            let (id, link) = (place["id"].to_string(), format!("link {}", place["link"]));
            facts::expect_row(&text, &[cells[0], &id, cells[1], &link])?;
        }
        facts::expect_row(&text, &["cali1", "pod (veth)", "kiam_tc_ingress"])?;
        facts::expect_row(&text, &["--redirect", "auto", "tc alone: with --host-network-pods=ignore"])?;
        facts::expect_row(&text, &["IPv6", "pref 5", "local"])?;
        ensure!(text.contains("link_sk_lookup") && text.trim_end().ends_with("Problems: none"), "{text}");
        eventually("packets are counted", SOON, || facts::expect_row(&shown(system)?, &["listener", "cali1 "]))?;
        system.topology.node.ip("rule add pref 2 to 169.254.0.0/16 lookup main")?;
        eventually("the rule before the fence is reported", SOON, || {
            let (report, ok) = self::report(system)?;
            let problems = problems(&report);
            let named = problems.iter().any(|(about, text)| *about == "fence-ipv4" && text.contains("pref 2 to 169"));
            ensure!(named && !ok, "{problems:?}");
            let text = shown(system)?;
            ensure!(text.starts_with(&format!("kiam-agent {} is not ready", env!("CARGO_PKG_VERSION"))), "{text}");
            facts::expect_row(&text, &["fence-ipv4", "rules come before the fence"])
        })
    });
}

#[test]
fn two_agents_report_their_own_parts() {
    scenario(|system| {
        system.start()?;
        let mut new = system.spawn_successor(&[])?;
        new.wait_ready()?;
        let socket = |agent: &Agent| agent.probe_socket().to_owned();
        let (old_report, ok) = report_at(system, &socket(system.agent.as_ref().context("an agent")?))?;
        ensure!(ok && old_report["agent"]["datapath"].is_null(), "{old_report:#}");
        let (new_report, ok) = report_at(system, &socket(&new))?;
        ensure!(ok && new_report["agent"]["datapath"]["generation"] == 2, "{new_report:#}");
        ensure!(old_report["kernel"] == new_report["kernel"], "{old_report:#}\n{new_report:#}");
        let text = shown(system)?;
        ensure!(text.contains(" stands by: another agent serves this node"), "{text}");
        system.agent = Some(new);
        Ok(())
    });
}

#[test]
fn status_without_an_agent_lists_leftovers() {
    scenario(|system| {
        let _pod = system.add_pod(1, "reader")?;
        let (before, ok) = report(system)?;
        ensure!(!ok && before["agent"].is_null(), "{before:#}");
        ensure!(problems(&before)[0].1.contains("nothing of kiam's is in the kernel"), "{before:#}");
        system.start()?;
        system.agent()?.kill_both()?;
        let (left, ok) = report(system)?;
        ensure!(!ok && left["agent"].is_null(), "{left:#}");
        facts::expect_links(system, &left, &["cgroup"])?;
        facts::expect_pins(system, &left)?;
        facts::expect_fence(system, &left)?;
        let text = shown(system)?;
        ensure!(text.starts_with("no agent answers on this node\n"), "{text}");
        facts::expect_row(&text, &["agent", "this node is closed", "kiam-agent cleanup"])?;
        facts::expect_row(&text, &["kiam_tc_ingress", "cali1 tcx/ingress"])?;
        system.topology.node.ip("-6 rule del pref 6")?;
        let (gap, _) = report(system)?;
        ensure!(problems(&gap)[0].1.contains("this node is not closed over IPv6"), "{gap:#}");
        facts::expect_fence(system, &gap)?;
        system.topology.node.ip("-6 rule add pref 6 to fd00:ec2::254 lookup 4242")?;
        system.clean_up()?;
        ensure!(report(system)?.0["kernel"] == before["kernel"], "the cleanup left something");
        Ok(())
    });
}

#[test]
fn only_root_may_read_the_status() {
    datapath_scenario(|system| {
        system.spawn_agent()?.wait_armed()?;
        let socket = system.folder().join("run/probe.sock");
        for socket in [socket.as_path(), Path::new("/run/kiam-no-such-agent/probe.sock")] {
            let mut command = system.topology.node.command("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(readable(system)?);
            let output = process::output(with_flags(&mut command, system, socket, &[]))?;
            let errors = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(1) && errors.contains("only root may look"), "{output:?}");
            ensure!(output.stdout.is_empty(), "{output:?}");
        }
        Ok(())
    });
}

/// Returns a copy of the agent's executable that every user may run.
fn readable(system: &System) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let copy = system.folder().join("kiam-agent-of-everybody");
    if !copy.exists() {
        std::fs::copy(system.binaries.agent(), &copy)?;
        for folder in copy.ancestors().skip(1).take_while(|folder| folder.starts_with(system.folder())) {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(copy)
}
