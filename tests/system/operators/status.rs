//! `kiam-agent status`: what it says is what the kernel's own tools say; with an agent, without one, and to somebody who
//! may not look.

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

/// `kiam-agent status` on the node of a system.
fn status(system: &System, probe_socket: &Path, flags: &[&str]) -> Result<Output> {
    let mut command = system.topology.node.command(system.binaries.agent());
    process::output(with_flags(&mut command, system, probe_socket, flags))
}

fn with_flags<'a>(command: &'a mut Command, system: &System, probe_socket: &Path, flags: &[&str]) -> &'a mut Command {
    Environment { variables: Vec::new() }.apply(command);
    let bpffs = format!("--bpffs={}", system.bpffs().display());
    command.args(["status", &bpffs, &format!("--probe-socket={}", probe_socket.display())]).args(flags)
}

/// What it says to programs, and whether it says that all is well.
pub(crate) fn told(system: &System) -> Result<(Value, bool)> {
    told_at(system, &system.folder().join("run/probe.sock"))
}

fn told_at(system: &System, probe_socket: &Path) -> Result<(Value, bool)> {
    let output = status(system, probe_socket, &["--output=json"])?;
    let told: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    ensure!(told["ok"] == output.status.success(), "{:?} and {told}", output.status);
    ensure!(told["schema"] == 1, "{told}");
    Ok((told, output.status.success()))
}

/// What it says to people.
fn shown(system: &System) -> Result<String> {
    let output = status(system, &system.folder().join("run/probe.sock"), &[])?;
    Ok(String::from_utf8(output.stdout)?)
}

/// The problems that it tells of, and what they are about.
fn problems(told: &Value) -> Vec<(&str, &str)> {
    let problems = told["problems"].as_array().into_iter().flatten();
    problems.filter_map(|problem| Some((problem["about"].as_str()?, problem["text"].as_str()?))).collect()
}

#[test]
fn status_matches_bpftool_and_ip() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        expect_role(&pod, "reader")?;
        let (told, ok) = told(system)?;
        ensure!(ok && problems(&told).is_empty(), "{told:#}");
        facts::expect_links(system, &told, &["cgroup"])?;
        facts::expect_programs(&told, 7)?;
        facts::expect_pins(system, &told)?;
        facts::expect_fence(system, &told)?;
        facts::expect_owner(system, &told)?;
        let pod_side = facts::Side { roles: &["pod"], kind: "veth", programs: &["kiam_tc_ingress"] };
        facts::expect_interface(system, &told, "cali1", &pod_side)?;
        let uplink = facts::Side { roles: &["uplink"], kind: "veth", programs: &["kiam_guard", "kiam_guard_in"] };
        facts::expect_interface(system, &told, "eth0", &uplink)?;
        facts::expect_choice(&told, "--redirect", "auto", "tc")?;
        facts::expect_choice(&told, "--tc", "auto", "tcx")?;
        facts::expect_choice(&told, "--ipv6", "auto", "served")?;
        crate::support::knock(&pod)?;
        eventually("all packets are counted", SOON, || facts::expect_packets(system, &self::told(system)?.0, "cali1"))
    });
}

#[test]
fn filters_are_reported_without_links() {
    datapath_scenario(|system| {
        let _pod = system.topology.add_pod(1)?;
        system.agent_flags.push("--tc=clsact".to_owned());
        system.spawn_agent()?.wait_armed()?;
        let (told, ok) = told(system)?;
        ensure!(!ok && problems(&told).iter().map(|(about, _)| *about).eq(["server-reached"]), "{told:#}");
        facts::expect_choice(&told, "--tc", "clsact", "clsact")?;
        facts::expect_links(system, &told, &["cgroup", "tcx/ingress", "tcx/egress"])?;
        facts::expect_filters(system, &told, &[("cali1", "ingress"), ("eth0", "egress"), ("eth0", "ingress")])?;
        shape::expect_documented(&told)
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
        let (told, _) = told(system)?;
        facts::expect_links(system, &told, &[])?;
        facts::expect_programs(&told, 13)?;
        facts::expect_choice(&told, "--redirect", "auto", "tc,cgroup")?;
        facts::expect_choice(&told, "--host-network-pods", "enforce", "enforce")?;
        facts::expect_choice(&told, "--kubepods-cgroup", &at, &at)?;
        facts::expect_choice(&told, "--attestation", "prefer", "by cgroup")?;
        let exempt = json!([{ "cgroup": pod.id()?, "pod": uid, "why": "agent" }]);
        ensure!(told["kernel"]["exempt"] == exempt, "{:#}", told["kernel"]["exempt"]);
        facts::expect_row(&shown(system)?, &[uid, "agent"])?;
        shape::expect_documented(&told)
    });
}

#[test]
fn text_output_matches_the_json() {
    scenario(|system| {
        let _pod = system.serving_pod("reader")?;
        let (told, _) = told(system)?;
        let text = shown(system)?;
        ensure!(!text.contains('\x1b'), "colours, and no terminal: {text}");
        let first = text.lines().next().unwrap_or_default();
        let count = told["agent"]["conditions"].as_array().map_or(0, Vec::len);
        let headline =
            format!("kiam-agent {} serves this node; {count} of {count} conditions hold", env!("CARGO_PKG_VERSION"));
        ensure!(first == headline, "{first}\n{headline}");
        for place in told["kernel"]["attached"].as_array().context("attached")? {
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
        eventually("the rule before the fence is told", SOON, || {
            let (told, ok) = self::told(system)?;
            let problems = problems(&told);
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
        let (old_told, ok) = told_at(system, &socket(system.agent.as_ref().context("an agent")?))?;
        ensure!(ok && old_told["agent"]["datapath"].is_null(), "{old_told:#}");
        let (new_told, ok) = told_at(system, &socket(&new))?;
        ensure!(ok && new_told["agent"]["datapath"]["generation"] == 2, "{new_told:#}");
        ensure!(old_told["kernel"] == new_told["kernel"], "{old_told:#}\n{new_told:#}");
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
        let (before, ok) = told(system)?;
        ensure!(!ok && before["agent"].is_null(), "{before:#}");
        ensure!(problems(&before)[0].1.contains("nothing of kiam's is in the kernel"), "{before:#}");
        system.start()?;
        system.agent()?.kill_both()?;
        let (left, ok) = told(system)?;
        ensure!(!ok && left["agent"].is_null(), "{left:#}");
        facts::expect_links(system, &left, &["cgroup"])?;
        facts::expect_pins(system, &left)?;
        facts::expect_fence(system, &left)?;
        let text = shown(system)?;
        ensure!(text.starts_with("no agent answers on this node\n"), "{text}");
        facts::expect_row(&text, &["agent", "this node is closed", "kiam-agent cleanup"])?;
        facts::expect_row(&text, &["kiam_tc_ingress", "cali1 tcx/ingress"])?;
        system.topology.node.ip("-6 rule del pref 6")?;
        let (gap, _) = told(system)?;
        ensure!(problems(&gap)[0].1.contains("this node is not closed over IPv6"), "{gap:#}");
        facts::expect_fence(system, &gap)?;
        system.topology.node.ip("-6 rule add pref 6 to fd00:ec2::254 lookup 4242")?;
        system.clean_up()?;
        ensure!(told(system)?.0["kernel"] == before["kernel"], "the cleanup left something");
        Ok(())
    });
}

#[test]
fn only_root_may_look() {
    datapath_scenario(|system| {
        system.spawn_agent()?.wait_armed()?;
        let socket = system.folder().join("run/probe.sock");
        for socket in [socket.as_path(), Path::new("/run/kiam-no-such-agent/probe.sock")] {
            let mut command = system.topology.node.command("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(readable(system)?);
            let output = process::output(with_flags(&mut command, system, socket, &[]))?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(1) && said.contains("only root may look"), "{output:?}");
            ensure!(output.stdout.is_empty(), "{output:?}");
        }
        Ok(())
    });
}

/// The agent's executable where everybody may run it.
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
