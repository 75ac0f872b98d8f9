//! Pods while the agent and the server restart.

use crate::{
    processes::agent_parent,
    served::pods_of,
    stage::{Deployed, KIAM, ROLE, Stage, enough, expect_own_or_nothing, expect_role_or_nothing},
};
use anyhow::{Result, ensure};
use kiam_common::abi::LAYOUT;
use kiam_tests::{
    cluster::{
        client::{ClientPod, Network, Pace},
        probe::{Attempt, Got, Probe},
    },
    eventually::eventually,
    node::process,
    system::SOON,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::{collections::BTreeSet, fs};

/// Evicts the agent's pod, as `kubectl drain` does except for DaemonSets.
pub(crate) fn agent_pod_is_evicted(stage: &mut Stage) -> Result<()> {
    let deployed = stage.deployed()?;
    let mut probe = deployed.veteran.probe(deployed.cluster.folder())?;
    all_served(&mut probe, ROLE)?;
    let old = pods_of(deployed, "agent")?;
    let metadata = json!({ "name": old[0], "namespace": KIAM });
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata });
    let path = format!("/api/v1/namespaces/{KIAM}/pods/{}/eviction", old[0]);
    deployed.cluster.kubectl.feed(&["create", "--raw", &path, "-f", "-"], &eviction)?;
    eventually("the agent's pod is replaced", SOON, || {
        let now = pods_of(deployed, "agent")?;
        ensure!(!now.is_empty() && !now.contains(&old[0]), "{now:?}");
        Ok(())
    })?;
    deployed.rolled_out("daemonset/kiam-agent")?;
    served_again(deployed, &mut probe)?;
    probe.end()?;
    deployed.expect_no_leak()
}

/// Both processes end at once, and the kubelet restarts the container.
pub(crate) fn the_agent_is_killed(stage: &mut Stage) -> Result<()> {
    let deployed = stage.deployed()?;
    let mut probe = deployed.veteran.probe(deployed.cluster.folder())?;
    all_served(&mut probe, ROLE)?;
    process::send_signal(agent_parent(&deployed.cluster)?.pid, Signal::SIGKILL)?;
    let gap = served_again(deployed, &mut probe)?;
    probe.end()?;
    // Otherwise the probe sent no request while no agent ran.
    ensure!(gap.iter().any(is_nothing), "the probe has no unanswered attempt: {gap:?}");
    deployed.expect_no_leak()
}

/// Updates the DaemonSet while twenty pods send requests: the new agent starts next to the old one, and each request is
/// answered.
pub(crate) fn the_agents_are_rolled(stage: &mut Stage) -> Result<()> {
    const PODS: usize = 20;
    /// Number of pods without pauses. More would leave too little of two CPUs for the update.
    const RESTLESS: usize = 4;
    let deployed = stage.deployed()?;
    let pins = pins_of_interfaces(deployed)?;
    let pods = deployed.crowd(PODS, Network::Own)?;
    let mut probes = Vec::new();
    for (number, (pod, role)) in pods.iter().enumerate() {
        let pace = if number < RESTLESS { Pace::RESTLESS } else { Pace::PATIENT };
        probes.push((pod.probe_at(deployed.cluster.folder(), pace)?, *role));
    }
    for (probe, role) in &mut probes {
        all_served(probe, role)?;
    }
    ensure!(pins_of_interfaces(deployed)?.len() == pins.len() + PODS, "{:?}", pins_of_interfaces(deployed)?);
    restart(deployed, "daemonset/kiam-agent", "agent")?;
    let mut requests = 0;
    for (mut probe, role) in probes {
        let attempts = [probe.news()?, enough(&mut probe)?].concat();
        expect_role_or_nothing(&attempts, role)?;
        let unserved: Vec<_> = attempts.iter().filter(|attempt| !is_served(attempt)).collect();
        ensure!(unserved.is_empty(), "{unserved:?}");
        requests += attempts.len();
        probe.end()?;
    }
    eprintln!("{requests} requests of {PODS} pods during the update, each answered");
    let pods: Vec<_> = pods.into_iter().map(|(pod, _)| pod).collect();
    ClientPod::delete_all(&pods)?;
    eventually("the pins of deleted pods are gone", SOON, || {
        let now = pins_of_interfaces(deployed)?;
        ensure!(now == pins, "{now:?} instead of {pins:?}");
        Ok(())
    })?;
    deployed.expect_no_leak()
}

/// Returns the pins of the interfaces of pods.
fn pins_of_interfaces(deployed: &Deployed) -> Result<BTreeSet<String>> {
    let folder = deployed.cluster.node_root().join("sys/fs/bpf/kiam").join(LAYOUT);
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<BTreeSet<_>>>()?;
    Ok(names.into_iter().filter(|name| name.starts_with("link_tc_")).collect())
}

/// Restarts the pods of a workload, and waits until the new ones are ready and the old one is gone.
pub(crate) fn restart(deployed: &Deployed, workload: &str, component: &str) -> Result<()> {
    let old = pods_of(deployed, component)?;
    deployed.cluster.kubectl.run(&["rollout", "restart", "-n", KIAM, workload])?;
    deployed.rolled_out(workload)?;
    eventually(&format!("the old {component}'s pod is gone"), SOON, || {
        let now = pods_of(deployed, component)?;
        ensure!(!now.contains(&old[0]), "{now:?}");
        Ok(())
    })
}

/// Waits until every attempt is served with this role.
pub(crate) fn all_served(probe: &mut Probe, role: &str) -> Result<()> {
    eventually("the pod is served", SOON, || {
        let attempts = enough(probe)?;
        expect_role_or_nothing(&attempts, role)?;
        ensure!(attempts.iter().all(is_served), "{attempts:?}");
        Ok(())
    })
}

pub(crate) fn the_servers_are_rolled(stage: &mut Stage) -> Result<()> {
    let deployed = stage.deployed()?;
    let mut probe = deployed.veteran.probe(deployed.cluster.folder())?;
    all_served(&mut probe, ROLE)?;
    restart(deployed, "deployment/kiam-server", "server")?;
    served_again(deployed, &mut probe)?;
    probe.end()?;
    // The agent is ready all the time: a node without a server must not be restarted.
    deployed.rolled_out("daemonset/kiam-agent")?;
    deployed.expect_no_leak()
}

/// Waits until every attempt is served again. Returns all attempts since the last call, none of which got another role.
fn served_again(deployed: &Deployed, probe: &mut Probe) -> Result<Vec<Attempt>> {
    let mut all = probe.news()?;
    eventually("the pod is served again", SOON, || {
        let attempts = enough(probe)?;
        all.extend(attempts.iter().cloned());
        expect_own_or_nothing(&all)?;
        ensure!(attempts.iter().all(is_served), "{attempts:?}");
        Ok(())
    })?;
    deployed.expect_no_leak()?;
    Ok(all)
}

fn is_served(attempt: &Attempt) -> bool {
    matches!(attempt.got, Got::Credentials { .. })
}

fn is_nothing(attempt: &Attempt) -> bool {
    matches!(attempt.got, Got::Nothing(_))
}
