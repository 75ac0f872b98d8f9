//! The trees of the kubelet's two drivers: a pod is exempt in each class of either, and the agent finds the tree by
//! itself.

use super::{OTHER, aws_node, expect_exempt, expect_not_exempt, flags, host_network_pod};
use anyhow::{Context as _, Result};
use kiam_tests::{
    fakes::kube_api::PodObject,
    node::cgroups::{Driver, Kubepods, PodCgroup, Qos},
    system::{System, datapath_scenario},
};

const CLASSES: [Qos; 3] = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort];

/// Makes an exempt pod and one that is not exempt, in each class.
fn pods(system: &System, kubepods: &Kubepods) -> Result<Vec<(PodCgroup, PodCgroup)>> {
    let pair = |(index, qos): (usize, Qos)| {
        let uid = |last: &str| OTHER.replace("55555555-", &format!("{}-", format!("{last}{index}").repeat(4)));
        system.kube.put_pod(&PodObject { name: format!("aws-node-{index}"), ..aws_node(&uid("a")) });
        Ok((host_network_pod(system, kubepods, &uid("a"), qos)?, host_network_pod(system, kubepods, &uid("b"), qos)?))
    };
    CLASSES.into_iter().enumerate().map(pair).collect()
}

fn expect_distinguished(system: &System, pods: &[(PodCgroup, PodCgroup)]) -> Result<()> {
    for (exempt, other) in pods {
        expect_exempt(system, exempt)?;
        expect_not_exempt(system, other)?;
    }
    Ok(())
}

/// Runs the agent in a container, whose part of the hierarchy has the kubelet's tree at its root.
fn found(driver: Driver) {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(driver)?;
        let pods = pods(system, &kubepods)?;
        system.agent_flags = flags(system, &kubepods)?;
        system.agent_flags.retain(|flag| !flag.starts_with("--kubepods-cgroup"));
        let root = kubepods.path().parent().context("a tree in a group")?;
        let contained = system.binaries.in_cgroup_namespace(&system.folder(), root)?;
        let binaries = std::mem::replace(&mut system.binaries, contained);
        system.spawn_agent()?.wait_armed()?;
        // The cleanup is not a process of the tree.
        system.binaries = binaries;
        expect_distinguished(system, &pods)?;
        system.agent()?.stop().map(drop)
    });
}

#[test]
fn the_cgroupfs_drivers_tree_is_found() {
    found(Driver::Cgroupfs);
}

#[test]
fn the_systemd_drivers_tree_is_found() {
    found(Driver::Systemd);
}
