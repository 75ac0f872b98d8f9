//! The other kind of node: control groups of version 1 beside a bare version 2, as this very machine may have them.

use crate::stage::{Stage, target};
use anyhow::{Result, ensure};
use kiam_tests::cluster::{Cgroups, Cluster, Options, client::ClientPod};

/// Why this machine cannot have such a node, if it cannot.
pub(crate) fn obstacle() -> Option<String> {
    Cgroups::Hybrid.missing()
}

/// A smoke test of the cluster itself: nothing of ours looks at control groups yet.
pub(crate) fn a_node_with_both_cgroup_versions_runs_pods(stage: &mut Stage) -> Result<()> {
    // Two clusters on two cores only slow each other down.
    stage.take_down();
    let cluster = Cluster::start(&Options { target: &target()?, cgroups: Cgroups::Hybrid, images: &[] })?;
    let pod = ClientPod::create(&cluster, "default", "pod", &[])?;
    ensure!(pod.addresses()?.len() == 2, "not an address of each family: {:?}", pod.addresses()?);
    Ok(())
}
