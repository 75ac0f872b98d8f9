//! Removal according to the manifests: the node stays closed until it is cleaned up, and then is as before.

use crate::{
    processes::{Process, agent_parent},
    stage::{Deployed, Scene, Stage, TEAM, control_reaches, enough, expect_own_or_nothing},
};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    cluster::{Cluster, manifests, probe::Got},
    eventually::eventually,
    system::{BpfObjects, SOON},
};

/// Namespace of the shipped cleanup.
const CLEANUP: &str = "kiam-cleanup";

pub(crate) fn nothing_is_left(stage: &mut Stage) -> Result<()> {
    let deployed = stage.present()?;
    let kubectl = deployed.cluster.kubectl.clone();
    let objects = BpfObjects::of(agent_parent(&deployed.cluster)?.pid)?;
    ensure!(!objects.is_empty(), "the agent has no programs open, so their removal would prove nothing");

    manifests::delete(&kubectl, &deployed.applied())?;
    let mut probe = deployed.veteran.probe(deployed.cluster.folder())?;
    let attempts = enough(&mut probe)?;
    expect_own_or_nothing(&attempts)?;
    ensure!(attempts.iter().all(|attempt| matches!(attempt.got, Got::Nothing(_))), "{attempts:?}");
    probe.end()?;
    deployed.expect_no_leak().context("without kiam, and before the cleanup")?;

    clean_up(deployed)?;
    control_reaches(&deployed.cluster, &deployed.veteran).context("after the cleanup")?;
    objects.expect_gone()?;
    kubectl.run(&["delete", "namespace", TEAM, "--timeout=120s"])?;
    if deployed.scene == Scene::Enforced {
        // The CNI plugin keeps its bridge after its last pod.
        deployed.cluster.topology.node.ip("link del cni0")?;
    }
    eventually("the node is as before", SOON, || {
        let now = Deployed::footprint(&deployed.cluster)?;
        ensure!(now == deployed.before, "before: {:#?}\nnow: {now:#?}", deployed.before);
        Ok(())
    })?;
    expect_no_processes(&deployed.cluster)?;
    // The cluster lacks what other trials need.
    stage.take_down();
    Ok(())
}

/// Follows the instructions in deploy/manifests/cleanup/kustomization.yaml.
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

fn expect_no_processes(cluster: &Cluster) -> Result<()> {
    eventually("no process of ours is left", SOON, || {
        let left: Vec<_> =
            Process::all(cluster)?.into_iter().filter(|process| process.name.starts_with("kiam-")).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}
