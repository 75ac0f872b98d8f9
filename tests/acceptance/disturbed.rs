//! What pods get while agent and server come and go.

use crate::{
    served::pods_of,
    stage::{Deployed, KIAM, Stage, enough, expect_own_or_nothing},
};
use anyhow::{Result, ensure};
use kiam_tests::{
    cluster::probe::{Attempt, Got, Probe},
    eventually::eventually,
    system::SOON,
};

pub(crate) fn the_agent_s_pod_is_replaced(stage: &mut Stage) -> Result<()> {
    let deployed = stage.deployed()?;
    let mut probe = deployed.veteran.probe(deployed.cluster.folder())?;
    served(&mut probe)?;
    let old = pods_of(deployed, "agent")?;
    deployed.cluster.kubectl.run(&["delete", "-n", KIAM, "pod", &old[0], "--timeout=60s"])?;
    deployed.rolled_out("daemonset/kiam-agent")?;
    ensure!(pods_of(deployed, "agent")? != old, "the pod is still {old:?}");
    let gap = served_again(deployed, &mut probe)?;
    probe.end()?;
    // Otherwise nobody has looked while no agent was there.
    ensure!(gap.iter().any(is_nothing), "the probe noticed no gap: {gap:?}");
    deployed.expect_no_leak()
}

/// An update of the DaemonSet: the new agent starts beside the old one.
pub(crate) fn the_agents_are_rolled(stage: &mut Stage) -> Result<()> {
    let deployed = stage.deployed()?;
    let mut probe = deployed.veteran.probe(deployed.cluster.folder())?;
    served(&mut probe)?;
    let old = pods_of(deployed, "agent")?;
    deployed.cluster.kubectl.run(&["rollout", "restart", "-n", KIAM, "daemonset/kiam-agent"])?;
    deployed.rolled_out("daemonset/kiam-agent")?;
    eventually("the old agent's pod is gone", SOON, || {
        let now = pods_of(deployed, "agent")?;
        ensure!(!now.contains(&old[0]), "{now:?}");
        Ok(())
    })?;
    served_again(deployed, &mut probe)?;
    probe.end()?;
    deployed.expect_no_leak()
}

pub(crate) fn the_servers_are_rolled(stage: &mut Stage) -> Result<()> {
    let deployed = stage.deployed()?;
    let mut probe = deployed.veteran.probe(deployed.cluster.folder())?;
    served(&mut probe)?;
    let old = pods_of(deployed, "server")?;
    deployed.cluster.kubectl.run(&["rollout", "restart", "-n", KIAM, "deployment/kiam-server"])?;
    deployed.rolled_out("deployment/kiam-server")?;
    eventually("the old server's pod is gone", SOON, || {
        let now = pods_of(deployed, "server")?;
        ensure!(!now.contains(&old[0]), "{now:?}");
        Ok(())
    })?;
    served_again(deployed, &mut probe)?;
    probe.end()?;
    // The agent is ready through all of it: a node without a server is not a node to be restarted.
    deployed.rolled_out("daemonset/kiam-agent")?;
    deployed.expect_no_leak()
}

/// Waits until every attempt is served, over both families.
fn served(probe: &mut Probe) -> Result<()> {
    eventually("the pod is served", SOON, || {
        let attempts = enough(probe)?;
        expect_own_or_nothing(&attempts)?;
        ensure!(attempts.iter().all(is_served), "{attempts:?}");
        Ok(())
    })
}

/// Waits until every attempt is served again; returns all attempts since the last look, none of which got what it may
/// not.
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
