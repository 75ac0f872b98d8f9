//! Credentials of a process that a hook redirects to the agent: those of the pod of its cgroup.

use super::{IMDS, expect_nothing_at_the_canary, host_network_pod};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{Environment, ROLES},
    eventually::eventually,
    fakes::{
        kube_api::{NamespaceObject, PodObject},
        sts::Sts,
    },
    leaks,
    node::{
        cgroups::{Driver, Kubepods, PodCgroup, Qos},
        netns::Netns,
        process,
    },
    system::{SOON, System, scenario},
};
use serde_json::Value;
use std::process::Command;

/// Sends a request with curl, as a process of a pod; returns the status and the body.
fn request(pod: &PodCgroup, netns: &Netns, imds: &str, path: &str, more: &[&str]) -> Result<(String, String)> {
    let host = if imds.contains(':') { format!("[{imds}]") } else { imds.to_owned() };
    let mut command = pod.command(netns, "curl");
    Environment { variables: Vec::new() }.apply(&mut command);
    command.args(["--silent", "--globoff", "--max-time", "5", "--write-out", "\n%{http_code}"]).args(more);
    let output = process::run(command.arg(format!("http://{host}{path}")))?;
    let (body, status) = output.rsplit_once('\n').context("a status")?;
    Ok((status.to_owned(), body.to_owned()))
}

/// Waits until a pod gets its role, then asserts that the credentials are of that role, by every notation of the IMDS
/// address.
pub(super) fn expect_served(system: &System, pod: &PodCgroup, netns: &Netns, role: &str) -> Result<()> {
    eventually(&format!("a pod gets {role}"), SOON, || {
        let answer = request(pod, netns, IMDS[0], ROLES, &[])?;
        ensure!(answer == ("200".to_owned(), role.to_owned()), "{answer:?}");
        Ok(())
    })?;
    for imds in IMDS {
        let (status, body) = request(pod, netns, imds, &format!("{ROLES}{role}"), &[])?;
        ensure!(status == "200", "{imds}: {status} {body}");
        let credentials: Value = serde_json::from_str(&body)?;
        let key = credentials["AccessKeyId"].as_str().with_context(|| format!("no key in {body}"))?;
        let arn = Sts::identity_of(&system.topology.uplink, key)?;
        ensure!(arn.contains(&format!(":assumed-role/{role}/")), "{}: {role} has {arn}", leaks::OTHER_ROLE);
    }
    Ok(())
}

#[test]
fn two_host_network_pods_have_their_own_roles() {
    scenario(|system| {
        let kubepods = Kubepods::create(Driver::Systemd)?;
        system.kube.put_namespace(&NamespaceObject::permitting("open", ".*"));
        let mut pods = Vec::new();
        for (role, qos) in [("reader", Qos::Guaranteed), ("writer", Qos::BestEffort)] {
            let object = PodObject::on_node_network("open", role, Some(role));
            pods.push((role, host_network_pod(system, &kubepods, &object.uid, qos)?));
            system.kube.put_pod(&object);
        }
        let unknown = kubepods.add_pod(&system.topology.node, super::UIDS[0], Qos::Burstable)?;
        system.agent_flags =
            vec!["--host-network-pods=enforce".to_owned(), format!("--kubepods-cgroup={}", kubepods.path().display())];
        system.start()?;
        let node = &system.topology.node;
        for (role, pod) in &pods {
            expect_served(system, pod, node, role)?;
        }
        // A token belongs to the pod, though both have the node's address; a pod unknown to Kubernetes has none.
        let ttl = ["--request", "PUT", "--header", "X-aws-ec2-metadata-token-ttl-seconds: 60"];
        let (status, token) = request(&pods[0].1, node, IMDS[0], "/latest/api/token", &ttl)?;
        ensure!(status == "200", "{status} {token}");
        let header = format!("X-aws-ec2-metadata-token: {token}");
        let with_token = |pod| request(pod, node, IMDS[0], ROLES, &["--header", &header]);
        let (own, others) = (with_token(&pods[0].1)?, with_token(&pods[1].1)?);
        ensure!(own.0 == "200" && others.0 == "401", "{own:?} {others:?}");
        let (status, body) = request(&unknown, node, IMDS[0], ROLES, &[])?;
        ensure!(status != "200", "{body}");
        expect_nothing_at_the_canary(system)
    });
}

#[test]
fn hooks_alone_serve_pods_in_own_namespaces() {
    scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let network = system.topology.add_pod(1)?;
        system.kube.put_namespace(&NamespaceObject::permitting("open", ".*"));
        let object = PodObject::running("open", "reader", Some("reader"), network.v4, network.v6);
        let pod = kubepods.add_pod(&system.topology.node, &object.uid, Qos::Burstable)?;
        system.kube.put_pod(&object);
        // A process in the pod's network, but in another cgroup.
        let stranger = kubepods.add_pod(&system.topology.node, super::UIDS[0], Qos::Burstable)?;
        system.agent_flags =
            vec!["--redirect=cgroup".to_owned(), format!("--kubepods-cgroup={}", kubepods.path().display())];
        system.start()?;
        expect_served(system, &pod, &network, "reader")?;
        let (status, body) = request(&stranger, &network, IMDS[0], ROLES, &[])?;
        ensure!(status != "200", "{body}");
        expect_nothing_at_the_canary(system)
    });
}

#[test]
fn rings_without_records_are_removed() {
    scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let pod = kubepods.add_pod(&system.topology.node, super::UIDS[0], Qos::Burstable)?;
        super::enforce(system, &kubepods)?;
        let (status, _) = request(&pod, &system.topology.node, IMDS[0], ROLES, &[])?;
        ensure!(status != "000", "no answer");
        let map = system.bpffs().join("kiam/v1/kiam_rings");
        let rings = || process::run(Command::new("bpftool").args(["map", "dump", "pinned"]).arg(&map));
        ensure!(rings()?.contains("\"next\": 1"), "the pod has no ring: {}", rings()?);
        eventually("its ring is gone", SOON, || {
            ensure!(!rings()?.contains("\"next\": 1"), "{}", rings()?);
            Ok(())
        })
    });
}
