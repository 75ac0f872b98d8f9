//! Changes of the hooks and of the kubepods cgroup.

use super::{IMDS, UIDS, enforce, expect_node_role, expect_refused, from_pod, host_network_pod};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    eventually::eventually,
    node::{
        cgroups::{Driver, Kubepods, Qos},
        process,
    },
    system::{Agent, SOON, System, datapath_scenario},
};
use serde_json::Value;
use std::{path::Path, process::Command};

/// Returns the line of `kiam-agent health` about the hooks.
fn hooks(agent: &Agent) -> Result<String> {
    let health = String::from_utf8(agent.health()?.stdout)?;
    Ok(health.lines().find(|line| line.contains(" cgroup-hooks")).unwrap_or_default().to_owned())
}

fn wait_for_hooks(system: &System, wanted: &str) -> Result<()> {
    let agent = system.agent.as_ref().context("no agent was started")?;
    eventually(&format!("the hooks: {wanted}"), SOON, || {
        let line = hooks(agent)?;
        ensure!(line.starts_with(wanted), "{line}");
        Ok(())
    })
}

/// Asserts that the hooks handle a new pod: they refuse a port that they never redirect.
fn expect_hooked(system: &System, kubepods: &Kubepods, uid: &str) -> Result<()> {
    let pod = kubepods.add_pod(&system.topology.node, uid, Qos::Burstable)?;
    for imds in IMDS {
        expect_refused(system, &from_pod(system, &pod, &system.topology.node, &["tcp", imds, "--port=81"])?)?;
    }
    Ok(())
}

/// A kubepods cgroup that is made later, or made again, is found.
#[test]
fn late_or_remade_kubepods_cgroup_is_found() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        kubepods.remove()?;
        enforce_unready(system, &kubepods)?;
        wait_for_hooks(system, "FAIL  cgroup-hooks: ")?;
        for uid in &UIDS[..2] {
            kubepods.make()?;
            let pod = kubepods.add_pod(&system.topology.node, uid, Qos::BestEffort)?;
            wait_for_hooks(system, "ok    cgroup-hooks")?;
            expect_hooked(system, &kubepods, UIDS[2])?;
            drop(pod);
            kubepods.remove()?;
            wait_for_hooks(system, "FAIL  cgroup-hooks: ")?;
        }
        Ok(())
    });
}

/// Like [`enforce`], without waiting.
fn enforce_unready(system: &mut System, kubepods: &Kubepods) -> Result<()> {
    system.agent_flags =
        vec!["--host-network-pods=enforce".to_owned(), format!("--kubepods-cgroup={}", kubepods.path().display())];
    system.spawn_agent().map(drop)
}

#[test]
fn empty_kubepods_cgroup_is_reported() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        enforce_unready(system, &kubepods)?;
        wait_for_hooks(system, "FAIL  cgroup-hooks: ")?;
        let line = hooks(system.agent()?)?;
        ensure!(line.contains("has no process") && line.contains("--kubepods-cgroup"), "{line}");
        // The hooks are attached nevertheless.
        expect_hooked(system, &kubepods, UIDS[0])
    });
}

#[test]
fn without_cgroup_v2_enforcement_is_refused() {
    datapath_scenario(|system| {
        system.agent_flags = vec!["--host-network-pods=enforce".to_owned(), "--kubepods-cgroup=/proc".to_owned()];
        let agent = system.spawn_agent()?;
        let status = agent.daemon.wait(SOON)?;
        let log = agent.daemon.log();
        ensure!(status.code() == Some(1), "{status:?}");
        ensure!(
            log.contains("no cgroup hooks: --kubepods-cgroup: /proc is not a cgroup of the version 2 hierarchy"),
            "{log}"
        );
        Ok(())
    });
}

/// Hooks stay when the agent is dead; cleanup, or an agent without the flag, removes them.
#[test]
fn hooks_stay_until_cleanup_or_flag_change() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let pod = host_network_pod(system, &kubepods, UIDS[0], Qos::Burstable)?;
        let links = |system: &System| -> Result<Vec<String>> {
            let names = std::fs::read_dir(system.bpffs().join("kiam/v1"))?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let mut names: Vec<String> = names.collect::<Result<_>>()?;
            names.retain(|name| HOOKS.contains(&name.as_str()));
            names.sort();
            Ok(names)
        };
        enforce(system, &kubepods)?;
        ensure!(links(system)? == HOOKS, "{:?}", links(system)?);
        let old = hook_programs(system)?;
        system.agent()?.kill_both()?;
        expect_refused(system, &from_pod(system, &pod, &system.topology.node, &["tcp", IMDS[0]])?)?;

        // The next agent puts its own programs behind the same links.
        system.spawn_agent()?.wait_armed()?;
        let new = hook_programs(system)?;
        for ((old_link, old_program), (new_link, new_program)) in old.iter().zip(&new) {
            ensure!(old_link == new_link && old_program != new_program, "{old:?} {new:?}");
        }
        ensure!(old.len() == HOOKS.len() && new.len() == HOOKS.len(), "{old:?} {new:?}");
        system.agent()?.kill_both()?;

        // An agent without enforcement removes them.
        system.agent_flags = vec![format!("--kubepods-cgroup={}", kubepods.path().display())];
        system.spawn_agent()?.wait_armed()?;
        ensure!(links(system)?.is_empty(), "{:?}", links(system)?);
        for imds in IMDS {
            expect_node_role(&from_pod(system, &pod, &system.topology.node, &["tcp", imds])?)?;
        }
        super::forget(system)?;

        enforce(system, &kubepods)?;
        expect_refused(system, &from_pod(system, &pod, &system.topology.node, &["tcp", IMDS[0], "--port=81"])?)?;
        system.agent()?.kill_both()?;
        system.clean_up()?;
        ensure!(!system.bpffs().join("kiam").exists(), "cleanup left pins");
        for imds in IMDS {
            expect_node_role(&from_pod(system, &pod, &system.topology.node, &["tcp", imds])?)?;
        }
        Ok(())
    });
}

/// Returns the ids of the link and the program of each hook.
fn hook_programs(system: &System) -> Result<Vec<(u64, u64)>> {
    HOOKS
        .iter()
        .map(|hook| {
            let pin = system.bpffs().join("kiam/v1").join(hook);
            let shown = process::run(Command::new("bpftool").args(["--json", "link", "show", "pinned"]).arg(pin))?;
            let shown: Value = serde_json::from_str(&shown)?;
            Ok((shown["id"].as_u64().context("a link's id")?, shown["prog_id"].as_u64().context("a program's id")?))
        })
        .collect()
}

/// Pins of the hooks.
const HOOKS: [&str; 6] =
    ["link_connect4", "link_connect6", "link_peername4", "link_peername6", "link_setsockopt", "link_sockops"];

#[test]
fn detached_hook_is_attached_again() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let pod = host_network_pod(system, &kubepods, UIDS[0], Qos::Burstable)?;
        enforce(system, &kubepods)?;
        for hook in ["link_connect4", "link_connect6"] {
            detach(&system.bpffs().join("kiam/v1").join(hook))?;
        }
        eventually("the hooks are back", SOON, || {
            let call = from_pod(system, &pod, &system.topology.node, &["tcp", IMDS[0], "--port=81"])?;
            ensure!(call.error() == Some("EPERM"), "{call:?}");
            Ok(())
        })?;
        // Meanwhile the guard was in the way.
        super::expect_nothing_at_the_canary(system)
    });
}

fn detach(pin: &Path) -> Result<()> {
    process::run(Command::new("bpftool").args(["link", "detach", "pinned"]).arg(pin)).map(drop)
}
