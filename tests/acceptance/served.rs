//! Pods in normal operation.

use crate::stage::{Deployed, FORBIDDEN_ROLE, KIAM, ROLE, Stage};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    cluster::client::ClientPod,
    eventually::eventually,
    fakes::{
        canary::{NODE_ROLE, Request},
        sts::ACCOUNT,
    },
    node::topology::NODE_V4,
    system::SOON,
};
use serde_json::Value;

/// Error of boto3 and the aws CLI if the IMDS returns no credentials.
const NO_CREDENTIALS: &str = "Unable to locate credentials";

pub(crate) fn shipped_manifests_roll_out(stage: &mut Stage) -> Result<()> {
    let deployed = stage.deployed()?;
    let kubectl = &deployed.cluster.kubectl;
    let agents = kubectl.json(&["get", "-n", KIAM, "daemonset", "kiam-agent", "-o", "json"])?;
    ensure!(agents["status"]["numberReady"] == 1, "{}", agents["status"]);
    ensure!(agents["status"]["desiredNumberScheduled"] == 1, "{}", agents["status"]);
    // The server name in the agents' flags resolves to the servers.
    let selector = "kubernetes.io/service-name=kiam-server";
    let slices = kubectl.json(&["get", "-n", KIAM, "endpointslices", "-l", selector, "-o", "json"])?;
    let slice = &slices["items"][0];
    ensure!(slice["endpoints"][0]["addresses"][0] == NODE_V4.to_string(), "{slices}");
    ensure!(slice["endpoints"][0]["conditions"]["ready"] == true, "{slices}");
    ensure!(slice["ports"][0]["port"] == 9610, "{slices}");
    expect_no_restarts(deployed)?;
    expect_server_credentials(deployed)?;
    deployed.expect_no_leak()
}

/// Asserts that the server's own credentials are those of the node's role, which it gets from the real IMDS over
/// hostNetwork.
pub(crate) fn expect_server_credentials(deployed: &Deployed) -> Result<()> {
    let requests = deployed.cluster.canary.requests();
    let credentials = |request: &&Request| request.path.ends_with(&format!("/iam/security-credentials/{NODE_ROLE}"));
    let request = requests
        .iter()
        .find(credentials)
        .with_context(|| format!("the server sent no request for them: {requests:?}"))?;
    ensure!(request.peer.ip() == NODE_V4, "{request:?}");
    Ok(())
}

/// Asserts that no container was restarted, which could hide a failure.
fn expect_no_restarts(deployed: &Deployed) -> Result<()> {
    let pods = deployed.cluster.kubectl.json(&["get", "-n", KIAM, "pods", "-o", "json"])?;
    let pods = pods["items"].as_array().context("a list of pods")?;
    for status in pods.iter().flat_map(|pod| pod["status"]["containerStatuses"].as_array()).flatten() {
        ensure!(status["restartCount"] == 0, "{status}");
    }
    Ok(())
}

pub(crate) fn a_permitted_pod_gets_its_role(stage: &mut Stage) -> Result<()> {
    let deployed = stage.deployed()?;
    let newcomer = deployed.pod("newcomer", Some(ROLE))?;
    for pod in [&deployed.veteran, &newcomer] {
        for arn in [pod.boto3_identity()?, pod.cli_identity()?] {
            ensure!(arn.starts_with(&format!("arn:aws:sts::{ACCOUNT}:assumed-role/{ROLE}/kiam-")), "{arn}");
        }
    }
    deployed.expect_no_leak()?;
    newcomer.delete()
}

pub(crate) fn a_forbidden_pod_gets_nothing_and_an_event(stage: &mut Stage) -> Result<()> {
    let deployed = stage.deployed()?;
    let pod = deployed.pod("forbidden", Some(FORBIDDEN_ROLE))?;
    expect_no_credentials(&pod)?;
    eventually("kubectl describe pod shows the Event", SOON, || {
        let description = pod.describe()?;
        let event =
            description.lines().find(|line| line.contains("KiamRoleForbidden")).with_context(|| description.clone())?;
        ensure!(event.trim_start().starts_with("Warning") && event.contains("kiam.server"), "{event}");
        ensure!(event.contains(FORBIDDEN_ROLE), "it doesn't name the role: {event}");
        Ok(())
    })?;
    deployed.expect_no_leak()?;
    pod.delete()
}

pub(crate) fn a_pod_without_a_role_gets_nothing(stage: &mut Stage) -> Result<()> {
    let deployed = stage.deployed()?;
    let pod = deployed.pod("roleless", None)?;
    expect_no_credentials(&pod)?;
    let description = pod.describe()?;
    ensure!(!description.contains("Kiam"), "a pod without a role must get no Event: {description}");
    deployed.expect_no_leak()?;
    pod.delete()
}

pub(crate) fn expect_no_credentials(pod: &ClientPod) -> Result<()> {
    for (client, identity) in [("boto3", pod.boto3_identity()), ("aws", pod.cli_identity())] {
        match identity {
            Ok(arn) => anyhow::bail!("{client} is {arn}"),
            Err(error) => ensure!(format!("{error:#}").contains(NO_CREDENTIALS), "{client}: {error:#}"),
        }
    }
    Ok(())
}

/// Returns the names of a workload's pods.
pub(crate) fn pods_of(deployed: &Deployed, component: &str) -> Result<Vec<String>> {
    let selector = format!("app.kubernetes.io/component={component}");
    let pods = deployed.cluster.kubectl.json(&["get", "-n", KIAM, "pods", "-l", &selector, "-o", "json"])?;
    let pods = pods["items"].as_array().context("a list of pods")?;
    let name = |pod: &Value| pod["metadata"]["name"].as_str().map(ToOwned::to_owned);
    pods.iter().map(|pod| name(pod).context("a pod has a name")).collect()
}
