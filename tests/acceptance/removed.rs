//! Taking it all away, as the manifests say: the node is closed until it is cleaned up, and then as it was.

use crate::stage::{Deployed, KIAM, Stage, control_reaches, enough, expect_own_or_nothing};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    cluster::{Cluster, manifests, probe::Got},
    eventually::eventually,
    system::{BpfObjects, SOON},
};
use std::{fs, os::unix::fs::MetadataExt as _};

/// The namespace of the shipped cleanup.
const CLEANUP: &str = "kiam-cleanup";

pub(crate) fn nothing_is_left(stage: &mut Stage) -> Result<()> {
    let deployed = stage.deployed()?;
    let kubectl = deployed.cluster.kubectl.clone();
    let objects = BpfObjects::of(agent_pid(&deployed.cluster)?)?;
    ensure!(!objects.is_empty(), "the agent has no programs open: what is gone later was never there");

    manifests::delete(&kubectl, &deployed.manifests.fitted())?;
    let mut probe = deployed.veteran.probe(deployed.cluster.folder())?;
    let attempts = enough(&mut probe)?;
    expect_own_or_nothing(&attempts)?;
    ensure!(attempts.iter().all(|attempt| matches!(attempt.got, Got::Nothing(_))), "{attempts:?}");
    probe.end()?;
    deployed.expect_no_leak().context("without kiam, and before the cleanup")?;

    clean_up(deployed)?;
    control_reaches(&deployed.cluster, &deployed.veteran).context("after the cleanup")?;
    objects.expect_gone()?;
    kubectl.run(&["delete", "namespace", crate::stage::TEAM, "--timeout=120s"])?;
    eventually("the node is as before", SOON, || {
        let now = Deployed::footprint(&deployed.cluster)?;
        ensure!(now == deployed.before, "before: {:#?}\nnow: {now:#?}", deployed.before);
        Ok(())
    })?;
    expect_no_processes(&deployed.cluster)?;
    // What the others need is gone now.
    stage.take_down();
    Ok(())
}

/// What deploy/manifests/cleanup/kustomization.yaml says.
fn clean_up(deployed: &Deployed) -> Result<()> {
    let kubectl = &deployed.cluster.kubectl;
    let folder = deployed.manifests.fitted_cleanup();
    manifests::apply(kubectl, &folder)?;
    if let Err(error) = kubectl.run(&["rollout", "status", "-n", CLEANUP, "daemonset/kiam-cleanup", "--timeout=60s"]) {
        let log = kubectl.run(&["logs", "-n", CLEANUP, "daemonset/kiam-cleanup", "-c", "cleanup"]).unwrap_or_default();
        return Err(error).with_context(|| log);
    }
    manifests::delete(kubectl, &folder)?;
    Ok(())
}

/// The agent's privileged process, by its number outside the node.
fn agent_pid(cluster: &Cluster) -> Result<u32> {
    let agents = processes(cluster)?;
    let parent = agents.iter().find(|(_, name, uid)| name == "kiam-agent" && *uid == 0);
    parent.map(|(pid, ..)| *pid).with_context(|| format!("no agent among {agents:?}, as {KIAM} has it"))
}

fn expect_no_processes(cluster: &Cluster) -> Result<()> {
    eventually("no process of ours is left", SOON, || {
        let left: Vec<_> = processes(cluster)?.into_iter().filter(|(_, name, _)| name.starts_with("kiam-")).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

/// Number, name and user of every process in the node's network.
fn processes(cluster: &Cluster) -> Result<Vec<(u32, String, u32)>> {
    let mut found = Vec::new();
    let node = fs::metadata(cluster.topology.node.path())?.ino();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may end meanwhile.
        let Ok(lives_in) = fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
        if lives_in.ino() != node {
            continue;
        }
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
        let uid = field("Uid:").split_whitespace().next().and_then(|uid| uid.parse().ok()).context("a uid")?;
        found.push((pid, field("Name:").to_owned(), uid));
    }
    Ok(found)
}
